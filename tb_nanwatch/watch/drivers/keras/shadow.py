"""Methods of an instance, shadowed while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_NONE: Final = object()


class Shadow:
    """Attributes that stand before an object's own until they are lifted; the object's tracking does not see them."""

    def __init__(self, of: Any, attributes: Mapping[str, Any]) -> None:
        """Set the attributes.

        Args:
            of: the object.
            attributes: by name.
        """
        self._attributes: dict[str, Any] = vars(of)
        self._before = {name: self._attributes.get(name, _NONE) for name in attributes}
        self._attributes.update(attributes)

    @property
    def is_lifted(self) -> bool:
        """Whether the object is as it was."""
        return not self._before

    def lift(self) -> None:
        """Leave the object as it was, with what it had of these names itself; a second time does nothing."""
        before, self._before = self._before, {}
        for name, value in before.items():
            if value is _NONE:
                self._attributes.pop(name, None)
            else:
                self._attributes[name] = value
