"""Writes the event files of watched runs as a training process leaves them, without TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tb_nanwatch.numerics.finiteness import kinds_of
from tb_nanwatch.numerics.spans import single_steps
from tb_nanwatch.schema import wire
from tb_nanwatch.schema.records import Alert, Header, Series, Variable

VARIABLES = (
    Variable("l1/V", "l1", (3, 4), "float32", backward_order=3),
    Variable("l1/b", "l1", (4,), "float32", backward_order=2),
    Variable("l2/V", "l2", (4, 1), "float32", backward_order=1),
    Variable("l2/b", "l2", (1,), "float32", backward_order=0),
)
HEADER = Header(
    session=0,
    variables=VARIABLES,
    tensors=("values",),
    stats=("grad_norm", "weight_norm", "loss", "global_norm", "tensor_norm"),
)


def steps_of(first: int, last: int, *, header: Header = HEADER, **norms: object) -> Series:
    """Return steps ``first`` to ``last``, each statistic 1.0 unless ``norms`` says otherwise.

    A value that is not finite counts as one that the step had.
    """
    steps = np.arange(first, last + 1)
    return series_at(steps, header=header, **norms)


def series_at(steps: object, *, header: Header = HEADER, **norms: object) -> Series:
    steps = np.asarray(steps, np.int64)
    widths = {
        "grad_norm": len(header.variables),
        "weight_norm": len(header.variables),
        "loss": 1,
        "global_norm": 1,
        "tensor_norm": len(header.tensors),
    } | ({"clipped_norm": len(header.variables), "clip_ratio": len(header.variables)} if header.clip != "none" else {})
    values = {
        stat: np.broadcast_to(_column(norms.get(stat, 1.0)), (len(steps), width)).astype(np.float64)
        for stat, width in widths.items()
    }
    return single_steps(steps, values, {stat: kinds_of(value) for stat, value in values.items()})


def _column(value: object) -> np.ndarray:
    array = np.asarray(value, np.float64)
    return array[:, None] if array.ndim == 1 else array


def only_at(step: int, value: float, *, first: int, last: int, width: int = 1, column: int = 0) -> np.ndarray:
    """Return ``[n, width]`` of 1.0, except for ``value`` in one column at one step."""
    array = np.ones((last - first + 1, width))
    array[step - first, column] = value
    return array


class RunWriter:
    """One event file of a run, in ``directory``."""

    def __init__(self, directory: Path, *, name: str = "events.out.tfevents.0.here") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / name
        self.path.write_bytes(framed(event_pb2.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString()))
        self._clock = 1.0

    def header(self, header: Header = HEADER) -> RunWriter:
        return self.message(f"nanwatch/{header.session}/header", wire.encode_header(header), step=0)

    def spans(self, series: Series, *, session: int = 0, generation: int = 0) -> RunWriter:
        data = wire.encode_series(series, generation=generation)
        return self.message(f"nanwatch/{session}/spans/{generation}", data, step=int(series.last_step[-1]))

    def alert(self, alert: Alert, *, number: int = 0) -> RunWriter:
        tag = f"nanwatch/{alert.session}/alerts/{alert.step}-{number}"
        return self.message(tag, wire.encode_alert(alert), step=alert.step)

    def session_start(self) -> RunWriter:
        """Write the first event of a writer of TensorFlow 1; TensorBoard takes a second for a restart from step 0."""
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        return self._append(event_pb2.Event(wall_time=self._clock, step=0, session_log=log))

    def message(self, tag: str, data: bytes, *, step: int) -> RunWriter:
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, string_val=[data], tensor_shape=tensor_shape_pb2.TensorShapeProto()
        )
        return self.tensor(tag, tensor, step=step)

    def tensor(self, tag: str, tensor: tensor_pb2.TensorProto, *, step: int) -> RunWriter:
        metadata = summary_pb2.SummaryMetadata(
            plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="nanwatch"),
            data_class=summary_pb2.DATA_CLASS_TENSOR,
        )
        value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._clock += 1.0
        event = event_pb2.Event(wall_time=self._clock, step=step, summary=summary_pb2.Summary(value=[value]))
        return self._append(event)

    def _append(self, event: event_pb2.Event) -> RunWriter:
        with self.path.open("ab") as file:
            file.write(framed(event.SerializeToString()))
        return self


def framed(data: bytes) -> bytes:
    """Return a record of an event file: length, payload, and the checksum of each."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
