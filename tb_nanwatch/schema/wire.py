"""The encoding of records as protobuf bytes, for the event file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.schema import chunks
from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema.records import (
    Action,
    Alert,
    ClipKind,
    Counts,
    Finding,
    Header,
    Policy,
    Role,
    Series,
    Variable,
)
from tb_nanwatch.schema.replay_wire import replay_message, replay_record, writable

PLUGIN_NAME: Final = "nanwatch"
SCHEMA_MAJOR: Final = 1
SCHEMA_MINOR: Final = 4

MOST_NAMES: Final = 2**17
"""The most names that a message may list. No network has so many variables."""
MOST_LINKS: Final = 2**12
"""The most links in all chains of a replay. A watch writes at most 8 chains of 64 links."""
_M = TypeVar("_M", bound=Message)
_ROLES: Final[dict[int, Role]] = {
    1: "input",
    2: "weight",
    3: "tensor",
    4: "loss",
    5: "gradient",
    6: "clipped",
    7: "state",
    8: "scalar",
}
_ROLE_NUMBERS: Final = {role: number for number, role in _ROLES.items()}


def encode_header(header: Header) -> bytes:
    """Encode a header as bytes."""
    variables = [
        pb.Variable(
            name=v.name,
            layer=v.layer or "",
            shape=v.shape,
            dtype=v.dtype,
            backward_order=-1 if v.backward_order is None else v.backward_order,
        )
        for v in header.variables
    ]
    message = pb.Header(
        schema=pb.Version(major=SCHEMA_MAJOR, minor=SCHEMA_MINOR),
        session=header.session,
        variables=variables,
        tensors=header.tensors,
        stats=header.stats,
        policy=header.policy,
        clip=header.clip,
        versions=dict(header.versions),
        worker=header.worker,
    )
    return message.SerializeToString(deterministic=True)


def decode_header(data: bytes) -> Header:
    """Decode a header.

    Raises:
        RecordError: if the bytes are not a header.
        SchemaError: if a newer major version of the schema wrote it.
    """
    message = _parse(pb.Header, data)
    _check_version(message.schema)
    _check_count("variables and tensors", len(message.variables) + len(message.tensors))
    variables = tuple(
        Variable(
            name=v.name,
            layer=v.layer or None,
            shape=tuple(v.shape),
            dtype=v.dtype,
            backward_order=None if v.backward_order < 0 else v.backward_order,
        )
        for v in message.variables
    )
    return Header(
        session=message.session,
        variables=variables,
        tensors=tuple(message.tensors),
        stats=tuple(message.stats),
        policy=cast("Policy", message.policy),
        clip=cast("ClipKind", message.clip),
        versions=dict(message.versions),
        worker=message.worker if message.HasField("worker") else None,
    )


def newer_version(data: bytes) -> str | None:
    """Return a remark if a newer minor version of the schema wrote the header; else ``None``."""
    try:
        version = _parse(pb.Header, data).schema
    except RecordError:
        return None
    if version.major != SCHEMA_MAJOR or version.minor <= SCHEMA_MINOR:
        return None
    found, known = f"{version.major}.{version.minor}", f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
    return f"the log is of schema {found}, newer than {known}: only the parts that {known} knows are read"


def encode_series(series: Series, *, generation: int = 0) -> bytes:
    """Encode spans as a chunk. A bookkeeping column that holds only defaults is left out."""
    return chunks.chunk_message(series, generation).SerializeToString(deterministic=True)


def decode_series(data: bytes) -> Series:
    """Decode a chunk of spans; raise RecordError if the bytes are not a chunk."""
    return chunks.decode_messages([_parse(pb.SpanChunk, data)])


def decode_chunks(data: Sequence[bytes]) -> Iterator[tuple[int, Series | ValueError]]:
    """Decode the chunks of one tag in the order they were written; join neighbours where possible.

    Yields:
        The number of chunks in a group and their series, or 1 and the error of a chunk that does not decode.
    """
    parsed: list[pb.SpanChunk] = []
    for message in map(_chunk_or_error, data):
        if isinstance(message, pb.SpanChunk):
            parsed.append(message)
        else:
            yield from chunks.decode_in_groups(parsed)
            parsed = []
            yield 1, message
    yield from chunks.decode_in_groups(parsed)


def _chunk_or_error(data: bytes) -> pb.SpanChunk | ValueError:
    try:
        return _parse(pb.SpanChunk, data)
    except ValueError as error:
        return error


def encode_alert(alert: Alert) -> bytes:
    """Encode an alert as bytes."""
    message = pb.Alert(
        step=alert.step,
        session=alert.session,
        first_step=alert.first_step,
        action=alert.action,
        findings=[_finding_message(finding) for finding in alert.findings],
        window=chunks.chunk_message(alert.window, 0),
        replay=replay_message(alert.replay) if alert.replay else None,
        batch=writable(alert.batch or ""),
        notes=[writable(note) for note in alert.notes],
        replica=alert.replica,
        microbatch=alert.microbatch,
        worker=alert.worker,
        error=writable(alert.error or ""),
    )
    return message.SerializeToString(deterministic=True)


def decode_alert(data: bytes) -> Alert:
    """Decode an alert; raise RecordError if the bytes are not an alert."""
    message = _parse(pb.Alert, data)
    _check_count("findings", len(message.findings))
    _check_count("links", sum(len(chain.links) for chain in message.replay.chains), most=MOST_LINKS)
    return Alert(
        step=message.step,
        session=message.session,
        first_step=message.first_step,
        action=cast("Action", message.action),
        # A newer minor version may add roles. Leave those findings out and keep the rest.
        findings=tuple(_finding_record(finding) for finding in message.findings if finding.role in _ROLES),
        window=chunks.decode_messages([message.window]),
        replay=replay_record(message.replay) if message.HasField("replay") else None,
        batch=message.batch or None,
        notes=tuple(message.notes),
        replica=message.replica if message.HasField("replica") else None,
        microbatch=message.microbatch if message.HasField("microbatch") else None,
        worker=message.worker if message.HasField("worker") else None,
        error=message.error or None,
    )


def _parse(kind: type[_M], data: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RecordError(f"{len(data)} bytes do not decode as {kind.DESCRIPTOR.name}: {error}") from error
    return message


def _check_count(what: str, count: int, *, most: int = MOST_NAMES) -> None:
    """Reject a size that no watch writes before decoding: a hostile log must not delay the others."""
    if count > most:
        raise RecordError(f"a message must have at most {most:,} {what}; got {count:,}")


def _check_version(version: pb.Version) -> None:
    if version.major != SCHEMA_MAJOR:
        found = f"{version.major}.{version.minor}"
        raise SchemaError(
            f"a log must be of schema {SCHEMA_MAJOR}.x to be read; this one is {found}: upgrade tb_nanwatch"
        )


def _finding_message(finding: Finding) -> pb.Finding:
    counts = finding.counts or Counts(size=0, nan=0, pos_inf=0, neg_inf=0)
    return pb.Finding(
        role=cast("pb.Role", _ROLE_NUMBERS[finding.role]),
        name=finding.name,
        size=counts.size,
        nan=counts.nan,
        pos_inf=counts.pos_inf,
        neg_inf=counts.neg_inf,
        samples=finding.samples,
    )


def _finding_record(message: pb.Finding) -> Finding:
    counts = Counts(size=message.size, nan=message.nan, pos_inf=message.pos_inf, neg_inf=message.neg_inf)
    return Finding(_ROLES[message.role], message.name, counts if message.size else None, tuple(message.samples))
