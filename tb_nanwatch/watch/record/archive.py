"""The archive: the arguments of a bad step in a file, to inspect them and to run the step with them again.

The file is an ``npz`` without pickled objects: a numbered array for each array or tensor, and ``description``, which is
JSON and says how they make up the arguments. It is not compressed: floats hardly shrink, and training waits.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.watch.record.batch import Portion, StepCall, portion_that_fits
from tb_nanwatch.watch.record.packing import Packer, Unpacker, is_packable
from tb_nanwatch.watch.record.paths import require_nameable

FOLDER: Final = "batches"
MOST_BYTES: Final = 64 * 1024 * 1024
"""The size up to which a whole batch is saved."""
_DESCRIPTION: Final = "description"
_VERSION: Final = 1
_HEADS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # Version 3 differs only in the encoding of the names of fields.
    (3, 0): np.lib.format.read_array_header_2_0,
}
_NOT_A_BATCH = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, tf.errors.OpError),
)
"""Errors of NumPy, zipfile, JSON and TensorFlow on a file that no watch saved."""


@dataclass(frozen=True)
class SavedBatch:
    """The result of saving a batch.

    Attributes:
        path: of the file, relative to the run's directory, with forward slashes; ``None`` if nothing was saved.
        samples: indices of the saved samples in the whole batch; ``None`` unless only the bad samples were saved.
        notes: remarks, a sentence each.
    """

    path: str | None
    samples: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """The saved arguments of a step: ``train_step(*batch.args, **batch.kwargs)`` runs with them.

    Attributes:
        step: the number of the step.
        args: positional arguments; a tensor is a tensor again, an array an array.
        kwargs: keyword arguments.
        samples: the indices of the bad samples in the whole batch, if only these were saved; else ``None``.
        left_out: names of arguments that could not be saved. An object that says so stands in the place of each.
        notes: remarks from when the batch was saved, a sentence each.
    """

    step: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    samples: tuple[int, ...] | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def save_batch(
    directory: str, call: StepCall, *, step: int, samples: Sequence[int] = (), most_bytes: int = MOST_BYTES
) -> SavedBatch:
    """Save the arguments of a step as ``DIRECTORY/batches/step-N.npz``; if that is there already, ``step-N-2.npz``.

    Args:
        directory: of the run.
        call: of the step.
        step: number of the step.
        samples: known bad samples, as indices in the batch's leading dimension.
        most_bytes: the size up to which the whole batch is saved. From a larger batch only the samples are saved.

    Returns:
        A result without a path if nothing was saved; the notes give the reason, unless there was nothing to save.
    """
    leaves = dict(call.leaves())
    left_out = tuple(name for name, leaf in leaves.items() if not is_packable(leaf))
    packable = [leaf for leaf in leaves.values() if is_packable(leaf)]
    if not packable:
        return SavedBatch(None)
    try:
        portion = portion_that_fits(packable, samples, most_bytes=most_bytes)
        if not portion.fits:
            return SavedBatch(None, notes=(portion.note,))
        notes = (*([portion.note] if portion.note else []), *_on_left_out(left_out))
        about = {"step": step, "samples": portion.samples, "left_out": left_out, "notes": notes}
        return SavedBatch(_write(directory, step, _encode(call, portion, about)), portion.samples, notes)
    except (OSError, MemoryError, tf.errors.OpError) as error:
        return SavedBatch(None, notes=(f"The batch could not be saved: {_first_line(error)}",))


def load_batch(path: str | os.PathLike[str]) -> Batch:
    """Load the saved arguments of a bad step.

    The file may come from an untrusted source: loading it runs no code from it.

    Args:
        path: the file, ``LOGDIR/batches/step-N.npz``.

    Returns:
        The arguments, for ``train_step(*batch.args, **batch.kwargs)``.

    Raises:
        RecordError: if there is no such file, or the file is not a batch.
        SchemaError: if a newer version saved it, in a form that this version does not know.

    Example:
        >>> import tempfile, tb_nanwatch, tensorflow as tf
        >>> from tb_nanwatch.watch.record.archive import save_batch
        >>> from tb_nanwatch.watch.record.batch import Call
        >>> def train_step(x, *, scale):
        ...     return x * scale
        >>> directory, call = tempfile.mkdtemp(), Call(train_step, (tf.constant([1.0, 2.0]),), {"scale": 3.0})
        >>> saved = save_batch(directory, call, step=7)
        >>> saved.path
        'batches/step-7.npz'
        >>> batch = tb_nanwatch.load_batch(f"{directory}/{saved.path}")
        >>> batch.step, train_step(*batch.args, **batch.kwargs).numpy().tolist()
        (7, [3.0, 6.0])
    """
    name = os.fspath(path)
    if tf.io.gfile.isdir(name) or not tf.io.gfile.exists(name):
        what = "a directory" if tf.io.gfile.isdir(name) else "no such file"
        raise RecordError(f"a batch must be a file that a watch saved, such as batches/step-3.npz; {name!r} is {what}")
    with tf.io.gfile.GFile(name, "rb") as file:
        data = file.read()
    try:
        return _decode(data)
    except SchemaError:
        raise
    except _NOT_A_BATCH as error:
        raise RecordError(
            f"a batch must be a file that a watch saved; {name!r} is none: {_first_line(error)}"
        ) from error


def _encode(call: StepCall, portion: Portion, about: Mapping[str, Any]) -> bytes:
    packer = Packer({id(leaf): name for name, leaf in call.leaves()}, portion.cut)
    arguments = {"args": packer.node(call.args), "kwargs": packer.node(dict(call.kwargs))}
    description = json.dumps({"tb_nanwatch_batch": _VERSION, **about, **arguments}, allow_nan=False).encode()
    members = [(_DESCRIPTION, np.frombuffer(description, np.uint8)), *enumerate(packer.arrays)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in members:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _write(directory: str, step: int, data: bytes) -> str:
    """Write a file, whole or not at all, and return its path relative to the directory."""
    folder = os.path.join(directory, FOLDER)
    require_nameable(folder)
    tf.io.gfile.makedirs(folder)
    names = (f"step-{step}{'' if number == 1 else f'-{number}'}.npz" for number in itertools.count(1))
    name = next(name for name in names if not tf.io.gfile.exists(os.path.join(folder, name)))
    partial = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(partial, os.path.join(folder, name))
    finally:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.remove(partial)
    return f"{FOLDER}/{name}"


def _decode(data: bytes) -> Batch:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        _check_sizes(archive, most_bytes=len(data))
        description = json.loads(_array_in(archive, _DESCRIPTION).tobytes())
        version = int(description["tb_nanwatch_batch"])
        if version > _VERSION:
            raise SchemaError(f"a batch must be of version {_VERSION} at most to be loaded; this one is of {version}")
        unpacker = Unpacker([_array_in(archive, str(place)) for place in range(len(archive.namelist()) - 1)])
    args, kwargs = unpacker.value(description["args"]), unpacker.value(description["kwargs"])
    if not isinstance(args, tuple) or not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise RecordError("its arguments must be a tuple and a dictionary of names")
    samples = description["samples"]
    return Batch(
        step=int(description["step"]),
        args=args,
        kwargs=kwargs,
        samples=None if samples is None else tuple(map(int, samples)),
        left_out=tuple(map(str, description["left_out"])),
        notes=tuple(map(str, description["notes"])),
    )


def _check_sizes(archive: zipfile.ZipFile, *, most_bytes: int) -> None:
    """Refuse an archive that unpacks to more bytes than it has, by compression or by members that overlap."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise RecordError("its arrays must not be compressed")
    size = sum(member.file_size for member in members)
    if size > most_bytes:
        raise RecordError(f"its arrays must fit in its {most_bytes:,} bytes; they have {size:,}")


def _array_in(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read an array, after a check of its size: NumPy would allocate as much as the header says."""
    data = archive.read(f"{name}.npy")
    file = io.BytesIO(data)
    read_head = _HEADS.get(np.lib.format.read_magic(file))
    if read_head is None:
        raise RecordError(f"{name}.npy must be of a known version of NumPy's format")
    shape, _, dtype = read_head(file)
    needed = math.prod(shape) * max(1, dtype.itemsize)
    if not 0 <= needed <= len(data) - file.tell():
        raise RecordError(f"{name}.npy must hold as much as its head says, {needed:,} bytes; it has {len(data):,}")
    file.seek(0)
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _on_left_out(names: Sequence[str]) -> tuple[str, ...]:
    return (f"The batch is saved without {', '.join(names)}, which cannot be stored.",) if names else ()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
