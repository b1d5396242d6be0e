"""The encoding of a replay as a protobuf message; schema 1.1 added it to alerts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, cast, get_args

from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema.records import (
    PHASES,
    Counts,
    Entry,
    EntryWay,
    Kind,
    Link,
    Operand,
    Operation,
    Phase,
    Replay,
    ReplayOutcome,
    Source,
)

_OUTCOMES: Final = frozenset(get_args(ReplayOutcome))
_KINDS: Final = frozenset(get_args(Kind))
_WAYS: Final = frozenset(get_args(EntryWay))


def replay_message(replay: Replay) -> pb.Replay:
    """Encode a replay as a message."""
    return pb.Replay(
        outcome=replay.outcome,
        notes=map(writable, replay.notes),
        chains=[pb.Chain(links=map(_link_message, chain)) for chain in replay.chains],
        seconds=replay.seconds,
        dump=writable(replay.dump or ""),
    )


def replay_record(message: pb.Replay) -> Replay | None:
    """Decode a replay.

    A newer minor version may add outcomes, phases and kinds. A link with an unknown phase or kind is left out. A chain
    without its origin is useless, and without the first chain the first origin is unknown.

    Returns:
        ``None`` if the outcome, or the origin of the first chain, is unknown to this version.

    Raises:
        RecordError: if counts do not add up.
    """
    chains = [_chain_record(chain) for chain in message.chains]
    is_known = message.outcome in _OUTCOMES and (message.outcome == "found") == bool(chains) and all(chains[:1])
    if not is_known:
        return None
    return Replay(
        outcome=cast("ReplayOutcome", message.outcome),
        notes=tuple(message.notes),
        chains=tuple(chain for chain in chains if chain),
        seconds=max(0.0, _finite_or_none(message.seconds) or 0.0),
        dump=message.dump or None,
    )


def writable(text: str) -> str:
    r"""Return a text that UTF-8 can encode. File names and source lines may hold bytes that it cannot.

    Example:
        >>> writable("caf\udce9.py")
        'caf\\udce9.py'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _link_message(link: Link) -> pb.Link:
    return pb.Link(
        op_type=link.op.type if link.op else "",
        op_name=link.op.name if link.op else "",
        phase=link.phase,
        layer=link.layer or "",
        source=_source_message(link.source) if link.source else None,
        variable=link.variable or "",
        tensor=link.tensor or "",
        output=_counts_message(link.counts) if link.counts else None,
        kind=link.kind,
        samples=link.samples,
        inputs=map(_operand_message, link.inputs),
        stack=map(_source_message, link.stack),
        entry=_entry_message(link.entry) if link.entry else None,
    )


def _chain_record(message: pb.Chain) -> tuple[Link, ...]:
    """Return the known links of a chain; none if its origin is unknown."""
    known = [_is_known(link) for link in message.links]
    if not all(known[:1]):
        return ()
    return tuple(_link_record(link) for link, is_known in zip(message.links, known, strict=True) if is_known)


def _is_known(message: pb.Link) -> bool:
    return message.phase in PHASES and message.kind in _KINDS


def _link_record(message: pb.Link) -> Link:
    return Link(
        op=Operation(message.op_type, message.op_name) if message.op_type else None,
        phase=cast("Phase", message.phase),
        layer=message.layer or None,
        kind=cast("Kind", message.kind),
        source=_source_record(message.source) if message.HasField("source") else None,
        variable=message.variable or None,
        tensor=message.tensor or None,
        counts=_counts_record(message.output) if message.HasField("output") else None,
        samples=tuple(message.samples),
        inputs=tuple(_operand_record(operand) for operand in message.inputs),
        stack=_sources(message.stack),
        entry=_entry_record(message.entry) if message.HasField("entry") else None,
    )


def _entry_message(entry: Entry) -> pb.Entry:
    return pb.Entry(way=entry.way, shape=entry.shape, elements=[pb.Index(at=at) for at in entry.elements])


def _entry_record(message: pb.Entry) -> Entry | None:
    """Return an entry; ``None`` for a way that a newer minor version added."""
    if message.way not in _WAYS:
        return None
    return Entry(
        cast("EntryWay", message.way), tuple(message.shape), tuple(tuple(index.at) for index in message.elements)
    )


def _source_message(source: Source) -> pb.Source:
    return pb.Source(
        file=writable(source.file),
        line=source.line,
        function=writable(source.function),
        text=writable(source.text),
        before=map(writable, source.before),
        after=map(writable, source.after),
    )


def _source_record(message: pb.Source) -> Source:
    return Source(
        file=message.file,
        line=message.line,
        function=message.function,
        text=message.text,
        before=tuple(message.before),
        after=tuple(message.after),
    )


def _sources(messages: Iterable[pb.Source]) -> tuple[Source, ...]:
    return tuple(_source_record(message) for message in messages)


def _operand_message(operand: Operand) -> pb.Operand:
    return pb.Operand(
        name=operand.name,
        dtype=operand.dtype,
        shape=operand.shape,
        counts=_counts_message(operand.counts),
        min=operand.min,
        max=operand.max,
        zeros=operand.zeros,
    )


def _operand_record(message: pb.Operand) -> Operand:
    return Operand(
        name=message.name,
        dtype=message.dtype,
        shape=tuple(message.shape),
        counts=_counts_record(message.counts),
        min=_finite_or_none(message.min) if message.HasField("min") else None,
        max=_finite_or_none(message.max) if message.HasField("max") else None,
        zeros=message.zeros,
    )


def _counts_message(counts: Counts) -> pb.Counted:
    return pb.Counted(size=counts.size, nan=counts.nan, pos_inf=counts.pos_inf, neg_inf=counts.neg_inf)


def _counts_record(message: pb.Counted) -> Counts:
    return Counts(size=message.size, nan=message.nan, pos_inf=message.pos_inf, neg_inf=message.neg_inf)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
