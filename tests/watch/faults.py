"""Faults for each internal function that the host calls; a run under a profiler finds the functions."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import tb_nanwatch
from tb_nanwatch.watch.drivers.eager import EagerSteps
from tb_nanwatch.watch.drivers.keras.model import WatchedModel
from tb_nanwatch.watch.drivers.loop import Loop
from tb_nanwatch.watch.drivers.session_v1.runs import SessionRuns
from tb_nanwatch.watch.drivers.steps import Steps

ROOT = str(Path(tb_nanwatch.__file__).parent)
ENTRIES = (
    *(Loop.after_step, Loop.close, Loop._act, Loop._outcome, Loop.lose_step, Loop.step_failed, Loop.step_stopped),
    *(SessionRuns.before_run, SessionRuns.after_run, WatchedModel.end, EagerSteps._undo, Steps._end_microbatches),
)
"""All that the host does after a step begins in one of these. Each is the boundary, or calls it."""
_ENTRY_CODES = {entry.__code__ for entry in ENTRIES}
_PASSED_OVER = ("boundary.py", "outcome.py:Outcome.", "errors.py")
_originals: dict[str, FunctionType] = {}


class InjectedError(Exception):
    """Raised inside an internal function."""


@contextmanager
def functions_called_by_host(found: dict[str, FunctionType]) -> Iterator[None]:
    """Collect the functions of the package that the host calls after a step, by the place of their definition."""
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        is_new = event == "call" and frame.f_code not in codes and frame.f_code.co_filename.startswith(ROOT)
        if is_new and _is_in_host(frame.f_back):
            codes.add(frame.f_code)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
    functions = {function.__code__: function for function in _functions()}
    called = {_place(functions[code]): functions[code] for code in codes if code in functions}
    found |= {place: function for place, function in called.items() if _is_target(place, function)}


@contextmanager
def failing(place: str, function: FunctionType) -> Iterator[None]:
    """Make a function raise when the host calls it after a step, and nowhere else."""
    code = function.__code__
    original = FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
    original.__kwdefaults__ = function.__kwdefaults__
    _originals[place] = original
    space: dict[str, FunctionType] = {}
    exec(
        "def fails(*args, **kwargs):\n"
        "    from tests.watch.faults import call_or_fail\n"
        f"    return call_or_fail({place!r}, args, kwargs)",
        space,
    )
    function.__code__ = space["fails"].__code__
    try:
        yield
    finally:
        function.__code__ = code


def call_or_fail(place: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Raise if the host calls; else call the original."""
    if _is_in_host(sys._getframe(2)):
        raise InjectedError(f"injected into {place}")
    return _originals[place](*args, **kwargs)


def _is_in_host(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _ENTRY_CODES:
            return True
        frame = frame.f_back
    return False


def _functions() -> Iterator[FunctionType]:
    """Yield every function and method of the package that can be replaced; no closure can."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tb_nanwatch"):
            for value in vars(module).values():
                yield from _functions_of(value)


def _functions_of(value: object) -> Iterator[FunctionType]:
    members = vars(value).values() if isinstance(value, type) else (value,)
    for member in members:
        if isinstance(member, property) and _only_reads(member):
            continue
        function = getattr(member, "__func__", getattr(member, "fget", member))
        function = getattr(function, "__wrapped__", function)
        if isinstance(function, FunctionType) and not function.__code__.co_freevars:
            yield function


def _only_reads(member: property) -> bool:
    """Return whether a property calls nothing, so that it cannot fail."""
    instructions = dis.get_instructions(member.fget) if member.fget is not None else ()
    return not any("CALL" in instruction.opname for instruction in instructions)


def _place(function: FunctionType) -> str:
    return f"{function.__code__.co_filename[len(ROOT) + 1 :]}:{function.__qualname__}"


def _is_target(place: str, function: FunctionType) -> bool:
    return function.__code__ not in _ENTRY_CODES and not any(part in place for part in _PASSED_OVER)
