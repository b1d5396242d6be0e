"""From a stack to the user's line: the innermost that is neither TensorFlow's, Keras', Python's own nor the watch's."""

from __future__ import annotations

import linecache
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from tb_nanwatch.schema.records import Source
from tb_nanwatch.watch.installed import is_frameworks, is_package, is_program, own_directory
from tb_nanwatch.watch.replay.expressions import Call, exact_line
from tb_nanwatch.watch.tf_internals import converted_factories

_AROUND: Final = 3
_MOST_FRAMES: Final = 64
_LONGEST_LINE: Final = 300
_GENERATED: Final = "__autograph_generated_file"


class Frame(NamedTuple):
    """A call on a stack."""

    filename: str
    lineno: int
    name: str


Stack = Sequence[Frame]


def stack_of(op: Any, calls: Sequence[Call] = ()) -> Stack:
    """Return the stack that made an operation, outermost frame first, in terms of files that people have written.

    TensorFlow does not find its way back to the user's file from a function that was defined inside one that AutoGraph
    converted and is called after that has returned, as ``tf.scan`` calls it; AutoGraph's own map does.

    Args:
        op: the operation.
        calls: those on its stack that stand in code that AutoGraph generated, outermost first, where they are known.
            They tell lines of one statement apart.
    """
    frames = [Frame(frame.filename, int(frame.lineno or 0), frame.name or "") for frame in _drafted(op).traceback]
    if not calls and not any(is_generated(frame.filename) for frame in frames):
        return frames
    written = _generated_from()
    return _exact([written.get((frame.filename, frame.lineno), frame) for frame in frames], calls, written=written)


def _exact(frames: Stack, calls: Sequence[Call], *, written: Mapping[tuple[str, int], Frame]) -> Stack:
    """Return a stack with the lines of expressions, where TensorFlow knows no more than the statement."""
    exact, left = [], [(call, written[call.place]) for call in calls if call.place in written]
    for frame in reversed(frames):
        places = [at for at, (_, origin) in enumerate(left) if origin[:2] == frame[:2]]
        if places:
            exact.append(frame._replace(lineno=exact_line(left[places[-1]][0], *frame[:2])))
            del left[places[-1] :]
        else:
            exact.append(frame)
    return exact[::-1]


def _drafted(op: Any) -> Any:
    # tf.vectorized_map makes one operation for all rows of each that the user's function makes for one.
    draft, mark, _ = op.name.partition("/pfor/")
    try:
        return op.graph.get_operation_by_name(draft) if mark else op
    except KeyError:
        return op


def _generated_from() -> dict[tuple[str, int], Frame]:
    found = {}
    for factories in converted_factories():
        for factory in list(factories.values()):
            for at, origin in (factory.source_map or {}).items():
                frame = Frame(origin.loc.filename, int(origin.loc.lineno), origin.function_name or "")
                found[at.filename, int(at.lineno)] = frame
    return found


@cache
def is_generated(filename: str) -> bool:
    """Return whether AutoGraph has written a file."""
    return os.path.basename(filename).startswith(_GENERATED)


def users_line(stack: Stack) -> Source | None:
    """Return the user's line on a stack, with the lines around it.

    Of installed packages other than the frameworks a line counts only where there is none of a program's own.

    Args:
        stack: from :func:`stack_of`.
    """
    for is_users in (_is_program, _is_third_party):
        frame = next((frame for frame in reversed(stack) if is_users(frame.filename)), None)
        if frame is not None:
            return _with_surroundings(frame)
    return None


def has_users_line_within(stack: Stack, names: frozenset[str]) -> bool:
    """Return whether a line of the user's stands deeper on the stack than the first call of a function so named."""
    depth = next((place for place, frame in enumerate(stack) if frame.name in names), None)
    return depth is not None and any(_is_program(frame.filename) for frame in stack[depth:])


def whole(stack: Stack) -> tuple[Source, ...]:
    """Return a stack as it is shown, without the text around each line; of a very deep one, the innermost frames.

    The watch's own frames, which stand between the user's, are nobody's concern.
    """
    shown = [frame for frame in stack if not frame.filename.startswith(own_directory())]
    return tuple(_plain(frame) for frame in shown[-_MOST_FRAMES:])


def _plain(frame: Frame) -> Source:
    text = linecache.getline(frame.filename, frame.lineno).strip()
    return Source(_shown(frame.filename), max(0, frame.lineno), frame.name or "<lambda>", text[:_LONGEST_LINE])


def _with_surroundings(frame: Frame) -> Source:
    plain = _plain(frame)
    lines = [line.rstrip("\n")[:_LONGEST_LINE] for line in linecache.getlines(frame.filename)]
    at = plain.line - 1
    before, after = lines[max(0, at - _AROUND) : max(0, at)], lines[at + 1 : at + 1 + _AROUND]
    return Source(plain.file, plain.line, plain.function, plain.text, tuple(before), tuple(after))


def _shown(filename: str) -> str:
    absolute, here = os.path.abspath(filename), os.path.join(os.getcwd(), "")
    return absolute.removeprefix(here) if absolute.startswith(here) else filename


def _is_program(filename: str) -> bool:
    return is_program(filename) and not _is_nobodys(filename)


def _is_third_party(filename: str) -> bool:
    return is_package(filename) and not is_frameworks(filename) and not _is_nobodys(filename)


def _is_nobodys(filename: str) -> bool:
    """Return whether a framework generated the code, or no file holds it, as with the import machinery."""
    return filename.startswith("<frozen") or is_generated(filename)
