"""How large what a tag holds may be, before it is read."""

from __future__ import annotations

from typing import Final

from tb_nanwatch.reading.tags import Tag
from tb_nanwatch.schema.records import Header
from tb_nanwatch.schema.stats import BY_KEY

HEADER_BYTES: Final = 64 * 2**10
"""Of a network with hundreds of variables."""
_SPANS_A_GENERATION: Final = 2048
_STEPS_BEFORE_AN_ALERT: Final = 256
_BYTES_A_NUMBER: Final = 4


def bytes_of_tag(tag: Tag, header: Header | None, *, last_step: int) -> int:
    """Return about how many bytes a tag's messages may have.

    Args:
        tag: of spans or of an alert.
        header: of its session; ``None`` where it could not be read.
        last_step: of the tag.
    """
    if header is None:
        return HEADER_BYTES
    stats = [BY_KEY[key] for key in header.stats if key in BY_KEY]
    numbers = sum(len(stat.merges) * header.width(stat.scope) for stat in stats)
    spans = _SPANS_A_GENERATION if tag.part == "spans" else _STEPS_BEFORE_AN_ALERT
    return _BYTES_A_NUMBER * numbers * min(spans, last_step + 1)
