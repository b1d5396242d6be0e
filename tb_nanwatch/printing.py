"""A verdict as lines for a terminal: the sentence, the causes, and the evidence of the replay."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from tb_nanwatch.diagnosis.sentences import KINDS, format_source, shorten
from tb_nanwatch.schema.records import Link, Operand, Source, Status, Verdict

_STYLES: Final[dict[Status, str]] = {
    "finite": "green",
    "nonfinite": "bold red",
    "warning": "yellow",
    "incomplete": "yellow",
    "empty": "dim",
}
_FIRST_HOPS: Final = 6
_LAST_HOPS: Final = 2
_MOST_OPERANDS: Final = 6
_MOST_OTHERS: Final = 4
_LINES_AROUND: Final = 3
_INDENT: Final = 4
"""Columns of one indentation level in Python."""


def visible(text: str) -> str:
    r"""Return a text that is safe to print on a terminal: characters that are not printable are escaped.

    Example:
        >>> print(visible("relu\x1b[2J\n"))
        relu\x1b[2J\n
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def lines_of(verdict: Verdict, *, logdir: str) -> Iterator[Text]:
    """Yield the lines for a verdict.

    Args:
        verdict: the verdict on one run.
        logdir: the logdir of the run; the printed path of a batch starts with it.
    """
    yield Text.assemble(
        (visible(verdict.run), "bold"),
        "  ",
        (verdict.status, _STYLES[verdict.status]),
        f"  {verdict.steps_seen:,} step{'' if verdict.steps_seen == 1 else 's'}",
        f", {verdict.skipped_steps:,} skipped" if verdict.skipped_steps else "",
    )
    yield Text(f"  {visible(verdict.text)}")
    for cause in verdict.causes:
        yield Text(f"  Likely cause ({cause.confidence} confidence): {visible(cause.text)}")
        yield Text(f"  What to do: {visible(cause.fix)}")
    if verdict.status == "nonfinite":
        yield from (Text(f"  Before that: {visible(warning.text)}") for warning in verdict.warnings)
    yield from (Text(f"  Note: {visible(note)}") for note in verdict.notes)
    if verdict.chain:
        yield from (Text(f"    {line}".rstrip()) for line in _evidence(verdict))
    # The batch holds only arguments of the step, no captured tensors and no constants.
    if verdict.first is not None and verdict.first.batch is not None and verdict.first.is_in_batch:
        path = json.dumps(posixpath.join(logdir, verdict.first.batch), ensure_ascii=False)
        yield Text(f"  Its batch: tb_nanwatch.load_batch({visible(path)})")
    for problem in verdict.problems:
        label = "Not read" if problem in verdict.unreadable else "About the log"
        yield Text(f"  {label}: {visible(problem)}", style="yellow")


def _evidence(verdict: Verdict) -> Iterator[str]:
    origin = verdict.chain[0]
    if origin.source is not None and origin.source.text:
        yield visible(format_source(origin.source))
        yield from _excerpt(origin.source)
    if origin.op is not None and origin.inputs:
        yield f"{_cell(origin.op.type)} was given"
        yield from _columns([_operand(operand) for operand in origin.inputs[:_MOST_OPERANDS]])
    if len(verdict.chain) > 1:
        yield "From there to what went bad"
        yield from _hops(verdict.chain)
    if verdict.other_chains:
        yield "Further origins in that step"
        yield from _columns([_hop(chain[0]) for chain in verdict.other_chains[:_MOST_OTHERS]])


def _excerpt(source: Source) -> Iterator[str]:
    before, after = source.before[-_LINES_AROUND:], source.after[:_LINES_AROUND]
    lines = [*before, " " * _indent_of_text(source) + source.text, *after]
    shared = min((_indent(line) for line in lines if line.strip()), default=0)
    width = len(str(source.line + len(after)))
    for number, line in enumerate(lines, source.line - len(before)):
        mark = ">" if number == source.line else " "
        yield f"{mark} {number:>{width}} | {_cell(line.expandtabs(_INDENT)[shared:])}"


def _indent_of_text(source: Source) -> int:
    """Return the indent of the line, estimated from its neighbours: the record does not keep it."""
    above = next((line for line in reversed(source.before) if line.strip()), None)
    below = next((line for line in source.after if line.strip()), None)
    if below is not None and (above is None or source.text.endswith(":")):
        return max(0, _indent(below) - _INDENT * source.text.endswith(":"))
    return 0 if above is None else _indent(above) + _INDENT * above.rstrip().endswith(":")


def _indent(line: str) -> int:
    expanded = line.expandtabs(_INDENT)
    return len(expanded) - len(expanded.lstrip())


def _operand(operand: Operand) -> Sequence[str]:
    counts = operand.counts
    kinds = [(counts.nan, "NaN"), (counts.pos_inf, "+Inf"), (counts.neg_inf, "-Inf"), (operand.zeros, "0")]
    count_texts = [f"{count:,} x {kind}" for count, kind in kinds if count]
    shape = ", ".join(map(str, operand.shape))
    return operand.name, f"{operand.dtype} [{shape}]", ", ".join([*_finite_range(operand), *count_texts])


def _finite_range(operand: Operand) -> Iterator[str]:
    if operand.min is not None and operand.max is not None:
        yield f"{operand.min:.6g}" if operand.min == operand.max else f"{operand.min:.6g} to {operand.max:.6g}"


def _hops(chain: Sequence[Link]) -> Iterator[str]:
    hidden = len(chain) - _FIRST_HOPS - _LAST_HOPS
    lines = list(_columns([_hop(link) for link in chain]))
    if hidden < 2:
        yield from lines
    else:
        yield from [*lines[:_FIRST_HOPS], f"  ({hidden:,} more)", *lines[-_LAST_HOPS:]]


def _hop(link: Link) -> Sequence[str]:
    name = link.op.type if link.op else link.variable or link.tensor or ""
    line = f"{link.source.file}:{link.source.line}" if link.source else ""
    return KINDS[link.kind], name, link.phase, link.layer or "", line


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = [place for place, width in enumerate(widths) if width]
    yield from (f"  {'  '.join(row[place].ljust(widths[place]) for place in shown)}" for row in cells)


def _cell(text: str) -> str:
    return visible(shorten(text))
