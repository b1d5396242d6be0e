"""Which of the name scopes that an operation is in are the user's, told from an operation that is there already.

Nobody saw the scopes being opened. The functions of TensorFlow that open some stand on the stack that made the
operation, and call them by their own names or by those of operations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from tb_nanwatch.watch.replay.lines import Stack
from tb_nanwatch.watch.tf_internals import is_operation_type

_OPS: Final = os.path.join("tensorflow", "python", "ops", "")
_NUMBERED: Final = re.compile(r"_\d+$")
_SHORTEST_NAME: Final = 3


def users_scope(name: str, stack: Stack, *, layers: Iterable[str | None]) -> str | None:
    """Return the scopes of an operation without those that TensorFlow opened.

    Args:
        name: of the operation.
        stack: that made it.
        layers: owners of variables, which are the user's whatever they are called.

    Returns:
        As a layer is called, if it is one; ``None`` of an operation in no scope.
    """
    known, functions = set(layers), _functions(stack)
    parts = [part for part in name.split("/")[:-1] if part]
    while parts and _plain("/".join(parts)) not in known and _is_frameworks(parts[-1], functions):
        parts.pop()
    scope = "/".join(parts)
    plain = _plain(scope)
    return (plain if scope not in known and plain in known else scope) or None


def _functions(stack: Stack) -> frozenset[str]:
    names = (frame.name.replace("_", "").lower() for frame in stack if _OPS in frame.filename)
    return frozenset(name for name in names if len(name) >= _SHORTEST_NAME)


def _is_frameworks(part: str, functions: frozenset[str]) -> bool:
    if is_operation_type(_NUMBERED.sub("", part)):
        return True
    plain = _NUMBERED.sub("", part).lower().replace("_", "")
    # A scope of the user's may say what it is about, as log_likelihood does: of TensorFlow's, the name is most of it.
    own = (name for name in functions if 2 * len(name) >= len(plain))
    return any(name in plain or (len(plain) >= _SHORTEST_NAME and plain in name) for name in own)


def _plain(scope: str) -> str:
    return "/".join(_NUMBERED.sub("", part) for part in scope.split("/"))
