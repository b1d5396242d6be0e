"""The versions of what a program trains with."""

from __future__ import annotations

import platform
import sys
from typing import Final

from tb_nanwatch import __version__

_MODULES: Final = ("tensorflow", "keras", "tf_keras", "numpy")


def loaded_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of each framework that the program has loaded.

    A module knows its version whatever the package is called that it came in: ``tensorflow`` also comes as
    ``tensorflow-cpu``, ``tf-nightly`` and vendors' builds.

    Returns:
        By name of the module; a module that is not loaded, or states no version, is left out.
    """
    stated = {name: getattr(sys.modules.get(name), "__version__", None) for name in _MODULES}
    known = {name: version for name, version in stated.items() if isinstance(version, str)}
    return {"python": platform.python_version(), "tb_nanwatch": __version__, **known}
