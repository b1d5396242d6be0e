"""The JSON encoder of records.

JSON has no NaN and no Infinity. Writing a bare ``NaN`` breaks strict readers, and the string ``"NaN"`` looks like a
name. So :func:`finite_or_none` turns non-finite numbers into ``null`` on purpose, and :func:`dumps` rejects any other.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.records import DoubleArray

_LARGEST_EXACT_POWER: Final = 22
"""10**22 is the largest power of ten that float64 holds exactly."""


def dumps(record: object, *, indent: int | None = None) -> str:
    """Encode a record as strict JSON text.

    Args:
        record: built of dataclasses, mappings, lists, tuples and plain values.
        indent: spaces per level; ``None`` puts everything on one line.

    Raises:
        RecordError: for a float that is not finite, and for a type that JSON cannot hold.

    Example:
        >>> from tb_nanwatch.schema.records import Counts
        >>> dumps(Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
        '{"size":64,"nan":0,"pos_inf":3,"neg_inf":0}'
    """
    separators = None if indent else (",", ":")
    try:
        return json.dumps(
            record, default=_fields, allow_nan=False, indent=indent, separators=separators, ensure_ascii=False
        )
    except ValueError as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"a number in JSON must be finite; {error}: pass None and say why beside it") from error


def _fields(record: object) -> dict[str, object]:
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): value for key, value in record.items()}
    raise RecordError(f"a record must be built of dataclasses, lists and plain values; got {type(record).__name__}")


def finite_or_none(values: npt.ArrayLike, *, digits: int = 6) -> tuple[float | None, ...]:
    """Return the values as Python floats, with ``None`` for each non-finite value.

    Args:
        values: any real dtype, ``[n]``.
        digits: significant digits to keep; fewer digits make shorter answers.

    Returns:
        A tuple of length n.

    Example:
        >>> finite_or_none([0.1234567, float("nan"), float("inf")])
        (0.123457, None, None)
    """
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    rounded = cast("list[float]", _rounded(np.where(finite, array, 0.0), digits).tolist())
    if finite.all():
        return tuple(rounded)
    return tuple(x if is_finite else None for x, is_finite in zip(rounded, finite.tolist(), strict=True))


def _rounded(array: DoubleArray, digits: int) -> DoubleArray:
    """Round to significant digits so that each result prints as short as possible."""
    magnitude = np.abs(array)
    places = digits - 1 - np.floor(np.log10(magnitude, where=magnitude > 0, out=np.zeros_like(array)))
    up, down = (10.0 ** np.clip(power, 0, _LARGEST_EXACT_POWER) for power in (places, -places))
    short: DoubleArray = np.round(array * up / down) / up * down
    for place in np.flatnonzero(np.abs(places) > _LARGEST_EXACT_POWER):
        short[place] = float(f"{array[place]:.{digits}g}")
    return short
