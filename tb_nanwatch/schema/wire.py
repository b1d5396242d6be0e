"""Records to protobuf bytes and back: the event file's side of the contract."""

from __future__ import annotations

import warnings
from typing import Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.schema import nanwatch_pb2 as pb
from tb_nanwatch.schema.defaults import default_column, shared_part
from tb_nanwatch.schema.records import (
    Action,
    Alert,
    Array,
    ClipKind,
    ColumnKey,
    Counts,
    Finding,
    Header,
    IntArray,
    Policy,
    Role,
    Series,
    Variable,
)
from tb_nanwatch.schema.replay_wire import replay_message, replay_record, writable

PLUGIN_NAME: Final = "nanwatch"
SCHEMA_MAJOR: Final = 1
SCHEMA_MINOR: Final = 2

_M = TypeVar("_M", bound=Message)
_DTYPES: Final = {
    "count": np.dtype("<i8"),
    "nonfinite": np.dtype("<i8"),
    "first_nonfinite": np.dtype("<i8"),
    "kinds": np.dtype("u1"),
}
_MEASURED: Final = np.dtype("<f4")
_ROLES: Final[dict[int, Role]] = {
    1: "input",
    2: "weight",
    3: "tensor",
    4: "loss",
    5: "gradient",
    6: "clipped",
    7: "state",
}
_ROLE_NUMBERS: Final = {role: number for number, role in _ROLES.items()}


def column_dtype(keeps: str) -> np.dtype[np.generic]:
    """Return how a column is stored: float32 for what is measured, integers for the bookkeeping."""
    return cast("np.dtype[np.generic]", _DTYPES.get(keeps, _MEASURED))


def encode_header(header: Header) -> bytes:
    """Spell a header as bytes."""
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
    """Read a header.

    Raises:
        RecordError: if the bytes are no header.
        SchemaError: if a newer major version of the schema wrote it.

    Warns:
        UserWarning: if a newer minor version did; what is known of it is read.
    """
    message = _parse(pb.Header, data)
    _check_version(message.schema)
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


def encode_series(series: Series, *, generation: int = 0) -> bytes:
    """Spell spans as a chunk. Columns that hold nothing but their default are left out."""
    return _series_message(series, generation).SerializeToString(deterministic=True)


def decode_series(data: bytes) -> Series:
    """Read a chunk of spans; raises RecordError if the bytes are none."""
    return _series_record(_parse(pb.SpanChunk, data))


def encode_alert(alert: Alert) -> bytes:
    """Spell an alert as bytes."""
    message = pb.Alert(
        step=alert.step,
        session=alert.session,
        first_step=alert.first_step,
        action=alert.action,
        findings=[_finding_message(finding) for finding in alert.findings],
        window=_series_message(alert.window, 0),
        replay=replay_message(alert.replay) if alert.replay else None,
        batch=writable(alert.batch or ""),
        notes=[writable(note) for note in alert.notes],
        replica=alert.replica,
        microbatch=alert.microbatch,
        worker=alert.worker,
    )
    return message.SerializeToString(deterministic=True)


def decode_alert(data: bytes) -> Alert:
    """Read an alert; raises RecordError if the bytes are none."""
    message = _parse(pb.Alert, data)
    return Alert(
        step=message.step,
        session=message.session,
        first_step=message.first_step,
        action=cast("Action", message.action),
        # A role that a newer minor version added is passed over: the rest of the alert still stands.
        findings=tuple(_finding_record(finding) for finding in message.findings if finding.role in _ROLES),
        window=_series_record(message.window),
        replay=replay_record(message.replay) if message.HasField("replay") else None,
        batch=message.batch or None,
        notes=tuple(message.notes),
        replica=message.replica if message.HasField("replica") else None,
        microbatch=message.microbatch if message.HasField("microbatch") else None,
        worker=message.worker if message.HasField("worker") else None,
    )


def _parse(kind: type[_M], data: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise RecordError(f"{len(data)} bytes do not decode as {kind.DESCRIPTOR.name}: {error}") from error
    return message


def _check_version(version: pb.Version) -> None:
    found, known = f"{version.major}.{version.minor}", f"{SCHEMA_MAJOR}.{SCHEMA_MINOR}"
    if version.major != SCHEMA_MAJOR:
        raise SchemaError(
            f"a log must be of schema {SCHEMA_MAJOR}.x to be read; this one is {found}: upgrade tb_nanwatch"
        )
    if version.minor > SCHEMA_MINOR:
        warnings.warn(f"this log is of schema {found}, newer than {known}: what is known of it is shown", stacklevel=3)


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


def _series_message(series: Series, generation: int) -> pb.SpanChunk:
    defaults: dict[tuple[str, int], bool] = {}
    columns = []
    for key, column in series.columns.items():
        same = key.keeps, id(column)
        if same not in defaults:
            defaults[same] = _is_default(key, column, series)
        if not defaults[same]:
            columns.append(
                pb.Column(stat=key.stat, keeps=key.keeps, width=column.shape[1], values=_packed(key, column))
            )
    return pb.SpanChunk(
        first_step=series.first_step.tolist(),
        last_step=series.last_step.tolist(),
        columns=columns,
        generation=generation,
    )


def _is_default(key: ColumnKey, column: Array, series: Series) -> bool:
    column = shared_part(column)
    match key.keeps:
        case "count":
            return bool((column == (series.last_step - series.first_step + 1)[:, None]).all())
        case "first_nonfinite":
            return bool((column == -1).all())
        case "nonfinite" | "kinds":
            return not column.any()
        case _:
            return False


def _packed(key: ColumnKey, column: Array) -> bytes:
    dtype = column_dtype(key.keeps)
    if dtype == _MEASURED and column.dtype != np.float32:
        # A finite float64 beyond float32 saturates: Inf in a log always means a value that was Inf.
        limit = float(np.finfo(np.float32).max)
        wide = cast("npt.NDArray[np.float64]", column)
        column = np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide)
    return np.ascontiguousarray(column, dtype).tobytes()


def _series_record(message: pb.SpanChunk) -> Series:
    first, last = np.array(message.first_step, np.int64), np.array(message.last_step, np.int64)
    if len(first) != len(last):
        raise RecordError(f"a chunk must have a first and a last step for each span; got {len(first)} and {len(last)}")
    columns: dict[ColumnKey, Array] = {}
    for column in message.columns:
        key, dtype = ColumnKey(column.stat, column.keeps), column_dtype(column.keeps)
        if len(column.values) != len(first) * column.width * dtype.itemsize:
            expected = f"{len(first)} x {column.width} values of {dtype}"
            raise RecordError(f"column {key} must hold {expected}; got {len(column.values)} bytes")
        columns[key] = np.frombuffer(column.values, dtype).reshape(len(first), column.width)
    _restore_defaults(columns, first_step=first, last_step=last)
    return Series(first, last, columns)


def _restore_defaults(columns: dict[ColumnKey, Array], *, first_step: IntArray, last_step: IntArray) -> None:
    widths = {key.stat: column.shape[1] for key, column in columns.items()}
    for stat, width in widths.items():
        for keeps in _DTYPES:
            key = ColumnKey(stat, keeps)
            if key not in columns:
                columns[key] = default_column(key.keeps, first_step=first_step, last_step=last_step, width=width)
