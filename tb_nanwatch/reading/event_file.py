"""An event file of a watched run, record by record: its messages, their places, and damaged parts."""

from __future__ import annotations

import errno
import math
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2

from tb_nanwatch.reading.checksums import CHECKSUM_BYTES, HEAD_BYTES, LENGTH_BYTES, heads_in, masked_checksum
from tb_nanwatch.reading.messages import Datum
from tb_nanwatch.reading.tags import Tag, parse_tag
from tb_nanwatch.schema.wire import PLUGIN_NAME

MOST_RECORD_BYTES: Final = 256 * 2**20
"""The largest record that is read; TensorBoard's data server sends no more at once."""
_SEARCH_BYTES: Final = 16 * 2**20
"""Bytes per file to search for the next record after damage. The limit also holds for a hostile file."""
_FIRST_BLOCK_BYTES: Final = 4096
_BLOCK_BYTES: Final = 2**20
_MOST_BREAKS: Final = 20
_SUFFIX_OF_A_WATCH: Final = ".v2"


class Place(NamedTuple):
    """The place of a message in its file.

    Attributes:
        step: step of its event.
        wall_time: time of its event, in seconds.
        begin: offset of the record's content, in bytes.
        size: size of the record's content, in bytes.
        number: number of the value in its event.
    """

    step: int
    wall_time: float
    begin: int
    size: int
    number: int


class _Stamp(NamedTuple):
    inode: int
    size: int
    changed_ns: int


class EventFile:
    """The content of one event file. :meth:`refresh` reads only new records.

    Attributes:
        path: path of the file.
        is_gone: whether the file was missing at the last refresh. The writer of a run replaces some of its files.
    """

    def __init__(self, path: Path) -> None:
        """Store the path; only :meth:`refresh` reads the file."""
        self.path = path
        self._stamp: _Stamp | None = None
        self._scan = _Scan()
        self._error = ""
        self.is_gone = False

    @property
    def places(self) -> Mapping[Tag, Sequence[Place]]:
        """The places of each tag's messages, in the order of the file."""
        return self._scan.places

    @property
    def is_irregular(self) -> bool:
        """Whether TensorBoard's loaders may misread the file.

        They stop at damage or read it as data, and they drop events whose steps are out of order.
        """
        return bool(self._error or self._scan.damaged) or self._scan.is_out_of_order or self._scan.is_strange

    @property
    def is_out_of_order(self) -> bool:
        """Whether a message has a lower step than an earlier message of its tag."""
        return self._scan.is_out_of_order

    @property
    def problems(self) -> tuple[str, ...]:
        """The parts of the file that cannot be read, a sentence each."""
        name, damaged = self.path.name, self._scan.damaged
        if self._error:
            return (f"{name} cannot be read ({self._error}).",)
        problems = [f"{name}: bytes {begin:,} to {end:,} are damaged." for begin, end in damaged[:_MOST_BREAKS]]
        if len(damaged) > len(problems):
            problems.append(f"{name}: {len(damaged) - len(problems):,} more parts are damaged.")
        if self._scan.is_cut:
            problems.append(f"{name} ends within a record: its writer was stopped, or is still writing.")
        is_by_watch = name.endswith(_SUFFIX_OF_A_WATCH) or self._scan.is_empty
        is_without_message = not problems and not self.places and is_by_watch
        return (f"{name} holds no message of a watch.",) if is_without_message else tuple(problems)

    def refresh(self) -> None:
        """Read the records that were added to the file; read all of it if it changed in any other way."""
        try:
            stamp, before = _stamp_of(self.path), self._stamp
            if stamp == before:
                return
            is_longer = before is not None and stamp.inode == before.inode and stamp.size > before.size
            if not is_longer or self._scan.is_given_up:
                self._scan = _Scan()
            with self.path.open("rb") as file:
                self._scan.read_on(file, stamp.size)
            self._stamp, self._error, self.is_gone = stamp, "", False
        except OSError as error:
            self._stamp, self._scan = None, _Scan()
            self._error = error.strerror or type(error).__name__
            self.is_gone = isinstance(error, FileNotFoundError)

    def read(self, tag: Tag) -> list[Datum]:
        """Return the messages of a tag.

        Raises:
            OSError: if the file has changed since the last refresh, or is gone.
        """
        if tag not in self.places:
            return []
        with self.path.open("rb") as file:
            return [_datum(_event_at(file, place), place) for place in self.places[tag]]


class _Scan:
    """The messages and the damage in the part of a file that was read so far.

    Attributes:
        places: places of messages, by tag.
        damaged: first byte and end of each damaged part.
        is_cut: whether the file ends within a record.
        is_out_of_order: whether a message has a lower step than an earlier message of its tag.
        is_strange: whether TensorBoard hides a message, or shows it with another type or time.
        is_given_up: whether the search found no record after damage, so that the rest of the file counts as damaged.
    """

    def __init__(self) -> None:
        self.places: dict[Tag, list[Place]] = {}
        self.damaged: list[tuple[int, int]] = []
        self.is_cut = self.is_out_of_order = self.is_strange = self.is_given_up = False
        self._read_until = self._searched = 0

    @property
    def is_empty(self) -> bool:
        """Whether the file has no bytes."""
        return not self._read_until and not self.is_cut

    def read_on(self, file: BinaryIO, end: int) -> None:
        """Continue where the last call ended, up to the byte ``end``."""
        self.is_cut = False
        while self._read_until < end and not self.is_cut:
            begin = self._read_until
            size = _content_bytes(file, begin, end)
            if size is not None:
                self._read_until = begin + HEAD_BYTES + size + CHECKSUM_BYTES
                self._add_record(file, begin, size)
                continue
            next_begin = self._next_record(file, begin + 1, end)
            self.is_cut = next_begin is None and not self.is_given_up and _may_be_cut(file, begin, end)
            if not self.is_cut:
                self.is_given_up = next_begin is None
                self._read_until = end if next_begin is None else next_begin
                self._add_damage(begin)

    def _add_record(self, file: BinaryIO, begin: int, size: int) -> None:
        """Add the messages of a record if it is undamaged."""
        content = _content_at(file, begin + HEAD_BYTES, size)
        event = None if content is None else _event_of(content)
        if event is None:
            self._add_damage(begin)
            return
        for number, value in enumerate(event.summary.value):
            tag = parse_tag(value.tag)
            if tag is not None:
                wall_time = event.wall_time if math.isfinite(event.wall_time) else 0.0
                self._add_message(tag, Place(event.step, wall_time, begin + HEAD_BYTES, size, number))
                self.is_strange |= wall_time != event.wall_time or not _is_regular(value)

    def _add_message(self, tag: Tag, place: Place) -> None:
        places = self.places.setdefault(tag, [])
        if places and place.step < places[-1].step:
            self.is_out_of_order = True
        places.append(place)

    def _add_damage(self, begin: int) -> None:
        """Add the bytes from ``begin`` to the next read position as a damaged part."""
        if self.damaged and self.damaged[-1][1] == begin:
            begin = self.damaged.pop()[0]
        self.damaged.append((begin, self._read_until))

    def _next_record(self, file: BinaryIO, begin: int, end: int) -> int | None:
        """Return the offset of the next undamaged record; ``None`` without one, or if the search exceeds its limit."""
        size = _FIRST_BLOCK_BYTES
        while begin + HEAD_BYTES <= end:
            file.seek(begin)
            block = file.read(min(size, end - begin))
            self._searched += len(block)
            for offset in heads_in(block):
                content_bytes = _content_bytes(file, begin + offset, end)
                if content_bytes is not None:
                    self._searched += content_bytes
                    if _content_at(file, begin + offset + HEAD_BYTES, content_bytes) is not None:
                        return begin + offset
            if self._searched > _SEARCH_BYTES or len(block) < HEAD_BYTES:
                self.is_given_up = True
                return None
            begin += len(block) - HEAD_BYTES + 1
            size = min(4 * size, _BLOCK_BYTES)
        return None


def _stamp_of(path: Path) -> _Stamp:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _content_bytes(file: BinaryIO, begin: int, end: int) -> int | None:
    """Return the content size of the record at ``begin``; ``None`` if no record begins there or it exceeds the file."""
    length = _length_at(file, begin)
    return length if length is not None and begin + HEAD_BYTES + length + CHECKSUM_BYTES <= end else None


def _length_at(file: BinaryIO, begin: int) -> int | None:
    file.seek(begin)
    head = file.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    length, checksum = struct.unpack("<QI", head)
    return int(length) if masked_checksum(head[:LENGTH_BYTES]) == checksum else None


def _may_be_cut(file: BinaryIO, begin: int, end: int) -> bool:
    """Return whether the bytes from ``begin`` on may be the start of an incomplete record."""
    return end - begin < HEAD_BYTES or _length_at(file, begin) is not None


def _content_at(file: BinaryIO, begin: int, size: int) -> bytes | None:
    """Return the content of a record; ``None`` if its checksum is wrong or it is too large."""
    if size > MOST_RECORD_BYTES:
        return None
    file.seek(begin)
    content, checksum = file.read(size), file.read(CHECKSUM_BYTES)
    if len(checksum) < CHECKSUM_BYTES or masked_checksum(content) != struct.unpack("<I", checksum)[0]:
        return None
    return content


def _event_of(content: bytes) -> event_pb2.Event | None:
    try:
        return event_pb2.Event.FromString(content)
    except DecodeError:
        return None


def _event_at(file: BinaryIO, place: Place) -> event_pb2.Event:
    content = _content_at(file, place.begin, place.size)
    event = None if content is None else _event_of(content)
    if event is None or place.number >= len(event.summary.value):
        raise OSError(errno.ESTALE, "the file has changed since it was scanned")
    return event


def _datum(event: event_pb2.Event, place: Place) -> Datum:
    message = _message_of(event.summary.value[place.number])
    return Datum(place.wall_time, np.array(message, object) if message is not None else np.zeros(0, object))


def _is_regular(value: summary_pb2.Summary.Value) -> bool:
    """Return whether TensorBoard lists a value for this plugin and shows it unchanged."""
    is_of_plugin = value.metadata.plugin_data.plugin_name == PLUGIN_NAME
    is_listed = value.metadata.data_class == summary_pb2.DATA_CLASS_TENSOR
    return is_of_plugin and is_listed and _message_of(value) is not None


def _message_of(value: summary_pb2.Summary.Value) -> bytes | None:
    """Return the message in a scalar string tensor; ``None`` for any other tensor."""
    tensor = value.tensor
    is_scalar = tensor.dtype == types_pb2.DT_STRING and not tensor.tensor_shape.dim
    return tensor.string_val[0] if is_scalar and len(tensor.string_val) == 1 else None


def event_files_in(directory: str) -> Iterator[Path]:
    """Yield the event files of a directory in the order of their names, which is the order of their creation."""
    try:
        yield from sorted(path for path in Path(directory).iterdir() if "tfevents" in path.name)
    except OSError:  # the directory is gone, or its permissions forbid reading
        return
