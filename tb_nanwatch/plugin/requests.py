"""The parameters of requests, parsed and checked in one place. No other code reads a query string."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from tensorboard.errors import InvalidArgumentError, NotFoundError
from werkzeug.datastructures import MultiDict

from tb_nanwatch.diagnosis.sentences import shorten
from tb_nanwatch.schema.stats import BY_KEY, of_scope

MOST_SPANS: Final = 2000
_STEP: Final = re.compile(r"\d{1,15}", re.ASCII)


@dataclass(frozen=True)
class VerdictsRequest:
    """The verdict on one run, or on all runs."""

    run: str | None = None


@dataclass(frozen=True)
class SeriesRequest:
    """The timeline of a run, from step ``first`` to ``last``, in at most ``points`` spans."""

    run: str
    session: int | None = None
    first: int | None = None
    last: int | None = None
    points: int = 600

    def __post_init__(self) -> None:
        """Reject steps in descending order."""
        _check_range(self.first, self.last)


@dataclass(frozen=True)
class HeatmapRequest:
    """One statistic of a run, by layer or variable, in at most ``columns`` spans."""

    run: str
    stat: str = "grad_norm"
    keeps: str = "max"
    by: Literal["layer", "variable"] = "layer"
    session: int | None = None
    first: int | None = None
    last: int | None = None
    columns: int = 300

    def __post_init__(self) -> None:
        """Reject a merge that the statistic does not keep, and steps in descending order."""
        kept = BY_KEY[self.stat].merges
        _require(self.keeps in kept, f"keeps must be one of {', '.join(kept)} of {self.stat}; got {self.keeps}")
        _check_range(self.first, self.last)


@dataclass(frozen=True)
class AlertRequest:
    """One bad step of a run, or the path of its batch."""

    run: str
    step: int
    session: int | None = None


def not_found(sentence: str) -> NotFoundError:
    """Return the error for a request of something that does not exist."""
    return NotFoundError(f"{sentence}.")


Request = VerdictsRequest | SeriesRequest | HeatmapRequest | AlertRequest
_R = TypeVar("_R", bound=Request)


def parse(kind: type[_R], arguments: MultiDict[str, str]) -> _R:
    """Parse the parameters of a request.

    Args:
        kind: type of the request; its fields are the parameters.
        arguments: the arguments of the query string.

    Raises:
        tensorboard.errors.InvalidArgumentError: if a parameter is unknown, missing, repeated, or has an invalid value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in arguments:
        _require(name in fields, f"parameters must be among {', '.join(fields)}; got {_quoted(name)}")
        _require(len(arguments.getlist(name)) == 1, f"{name} must be given once; got it more than once")
    for name, field in fields.items():
        _require(name in arguments or field.default is not dataclasses.MISSING, f"{name} must be given")
    values: dict[str, Any] = {name: _PARSERS[name](name, text) for name, text in arguments.items()}
    return kind(**values)


def _text(_: str, text: str) -> object:
    return text


def _number(name: str, text: str) -> object:
    _require(_STEP.fullmatch(text) is not None, f"{name} must be a whole number from 0 on; got {_quoted(text)}")
    return int(text)


def _spans(name: str, text: str) -> object:
    within = _STEP.fullmatch(text) is not None and 1 <= int(text) <= MOST_SPANS
    _require(within, f"{name} must be a whole number from 1 to {MOST_SPANS}; got {_quoted(text)}")
    return int(text)


def _one_of(*words: str) -> Callable[[str, str], object]:
    def parser(name: str, text: str) -> object:
        _require(text in words, f"{name} must be one of {', '.join(words)}; got {_quoted(text)}")
        return text

    return parser


_PARSERS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "run": _text,
    "session": _number,
    "step": _number,
    "first": _number,
    "last": _number,
    "points": _spans,
    "columns": _spans,
    "by": _one_of("layer", "variable"),
    "stat": _one_of(*(stat.key for stat in of_scope("variable"))),
    "keeps": _one_of("min", "max", "mean"),
}


def _check_range(first: int | None, last: int | None) -> None:
    if first is not None and last is not None:
        _require(first <= last, f"first must not be after last; got {first} and {last}")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{sentence}.")


def _quoted(text: str) -> str:
    return ascii(shorten(text))
