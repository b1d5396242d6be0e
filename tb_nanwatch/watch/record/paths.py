"""Paths that the training side writes to: which names are possible, and the names in a directory."""

from __future__ import annotations

import os

import tensorflow as tf

_NO_DIRECTORY = (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError)


def require_nameable(path: str) -> None:
    """Require that TensorFlow can write to a file of this name.

    TensorFlow reads a path only up to its first NUL, so it would write to another file.

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
    """Return the names in a directory; none if there is no such directory.

    This lists the directory and matches no pattern, because ``[``, ``]``, ``*``, ``?`` and a backslash may be letters
    of a name.

    Args:
        directory: a local path, or an address that TensorFlow's file layer knows.
    """
    require_nameable(directory)
    try:
        # TensorFlow fails if any name in a local directory is not UTF-8.
        return list(tf.io.gfile.listdir(directory)) if is_remote(directory) else os.listdir(directory)
    except _NO_DIRECTORY:
        return []


def is_gone(path: str) -> bool:
    """Return whether a local file was deleted; false for an address, which would take a request."""
    return not is_remote(path) and not os.path.exists(path)


def is_remote(path: str) -> bool:
    """Return whether a path is an address, such as ``gs://bucket``, and not a local path."""
    return "://" in path
