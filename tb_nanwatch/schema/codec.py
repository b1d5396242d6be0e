"""The one JSON codec: strict, so that a browser and a shell read the same thing.

JSON has no NaN and no Infinity, and the usual ways out (a bare ``NaN``, or the string ``"NaN"``) either break the
reader or look like a name. Here a number that is not finite is a ``null``, put there on purpose by
:func:`finite_or_none`; one that slips through is an error.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from tb_nanwatch.errors import RecordError
from tb_nanwatch.schema.records import DoubleArray

_EXACT_TENS: Final = 22

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def to_json(record: object) -> Json:
    """Turn a record into what ``json.dumps`` takes: dicts, lists, strings, numbers, booleans and ``None``.

    Raises:
        RecordError: for a float that is not finite, and for a type that has no spelling.

    Example:
        >>> from tb_nanwatch.schema.records import Counts
        >>> to_json(Counts(size=64, nan=0, pos_inf=3, neg_inf=0))
        {'size': 64, 'nan': 0, 'pos_inf': 3, 'neg_inf': 0}
    """
    if record is None or isinstance(record, bool | str | int):
        return record
    if isinstance(record, float):
        if not math.isfinite(record):
            raise RecordError(f"a number in JSON must be finite; got {record}: pass None and say why beside it")
        return record
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(item) for item in record]
    raise RecordError(f"a record must be built of dataclasses, lists and plain values; got {type(record).__name__}")


def dumps(record: object, *, indent: int | None = None) -> str:
    """Spell a record as strict JSON text.

    Raises:
        RecordError: as :func:`to_json` does.
    """
    separators = None if indent else (",", ":")
    try:
        # Long lists of numbers are left to the encoder, which is written in C.
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
    """Return the values as Python floats of ``digits`` significant digits, ``None`` where one is not finite.

    Args:
        values: any real dtype, ``[n]``.
        digits: significant digits to keep; short numbers make short answers.

    Returns:
        A tuple of length n.

    Example:
        >>> finite_or_none([0.1234567, float("nan"), float("inf")])
        (0.123457, None, None)
    """
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    shortened = cast("list[float]", _shortened(np.where(finite, array, 0.0), digits).tolist())
    if finite.all():
        return tuple(shortened)
    return tuple(x if is_finite else None for x, is_finite in zip(shortened, finite.tolist(), strict=True))


def _shortened(array: DoubleArray, digits: int) -> DoubleArray:
    """Round to significant digits. A power of ten up to 22 is exact, so that the result is the shortest there is."""
    magnitude = np.abs(array)
    places = digits - 1 - np.floor(np.log10(magnitude, where=magnitude > 0, out=np.zeros_like(array)))
    up, down = 10.0 ** np.clip(places, 0, _EXACT_TENS), 10.0 ** np.clip(-places, 0, _EXACT_TENS)
    short: DoubleArray = np.round(array * up / down) / up * down
    for place in np.flatnonzero(np.abs(places) > _EXACT_TENS):
        short[place] = float(f"{array[place]:.{digits}g}")
    return short
