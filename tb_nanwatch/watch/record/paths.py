"""Paths that the training side writes to."""

from __future__ import annotations

import os

import tensorflow as tf

_NO_DIRECTORY = (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError)


def require_nameable(path: str) -> None:
    """Require that a path can be the name of a file where TensorFlow writes.

    TensorFlow reads a path only up to its first NUL, so it would write somewhere else.

    Args:
        path: of a file or a directory.

    Raises:
        OSError: if the path holds a NUL, or a surrogate, which UTF-8 cannot encode.
    """
    if "\0" in path:
        raise OSError(f"a path must not contain NUL; got {path!r}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise OSError(f"a path must be text that UTF-8 can encode; got {path!r}") from None


def names_in(directory: str) -> list[str]:
    """Return the names in a directory; none where there is no such directory.

    A directory is listed and no pattern is matched: ``[``, ``]``, ``*``, ``?`` and a backslash are letters of a name.

    Args:
        directory: local, or an address that TensorFlow's file layer knows.
    """
    require_nameable(directory)
    try:
        # TensorFlow fails where any name in a local directory is not UTF-8.
        return list(tf.io.gfile.listdir(directory)) if is_remote(directory) else os.listdir(directory)
    except _NO_DIRECTORY:
        return []


def is_gone(path: str) -> bool:
    """Return whether a file that was written to is not there any more; never for an address, which takes a request."""
    return not is_remote(path) and not os.path.exists(path)


def is_remote(path: str) -> bool:
    """Return whether a path is an address that TensorFlow's file layer takes apart."""
    return "://" in path
