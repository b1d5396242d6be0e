"""Runs a case, and compares the content of its event file with the truth."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import keras

from tb_nanwatch import NonFiniteError
from tb_nanwatch.schema.records import Link, Origin, Verdict
from tests.watch.conftest import ReadBack
from tests.watch.replay.case import Case, Truth

ASPECTS = ("step", "phase", "layer", "op", "line", "tensor", "samples", "variable", "way", "origins", "also")


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        verdict: as the viewing side reads it.
        alerts: how many were written.
        raised: whether the program was ended.
    """

    verdict: Verdict
    alerts: int
    raised: bool


@dataclass(frozen=True)
class Mark:
    """One aspect of a verdict beside the truth."""

    aspect: str
    expected: object
    found: object
    right: bool


def outcome(case: Case, logdir: Path) -> Outcome:
    """Run a case and read back what it wrote."""
    keras.backend.clear_session()
    raised = False
    with contextlib.suppress(NonFiniteError):
        raised = True
        case.run(str(logdir))
        raised = False
    back = ReadBack(logdir)
    return Outcome(back.verdict, len(back.session.alerts), raised)


def marks(case: Case, came: Outcome) -> list[Mark]:
    """Return how each aspect that the truth speaks of was met."""
    truth, first = case.truth, came.verdict.first
    if truth is None:
        answer = (came.verdict.status, came.alerts, came.raised)
        # A warning is no alarm: a healthy network may have a layer whose gradient grows.
        quiet = first is None and answer[1:] == (0, False)
        return [Mark("quiet", "no alert", "no alert" if quiet else answer, quiet)]
    if first is None:
        return [Mark("step", truth.step, None, right=False)]
    return [*_required(case, truth, first), *_asked(case, truth, came.verdict)]


def _required(case: Case, truth: Truth, first: Origin) -> list[Mark]:
    places = [(case.file.name, line) for marker in _markers(truth) for line in sorted(case.lines(marker))]
    source = first.source and (Path(first.source.file).name, first.source.line)
    op = first.op and first.op.type
    return [
        Mark("step", truth.step, first.step, first.step == truth.step),
        Mark("phase", sorted(truth.phase), first.phase, first.phase in truth.phase),
        Mark("layer", sorted(map(str, truth.layer)), first.layer, first.layer in truth.layer),
        Mark("op", sorted(map(str, truth.op)), op, op in truth.op),
        Mark("line", places, source, source in places or not places or (source is op is None)),
    ]


def _markers(truth: Truth) -> list[str]:
    """Return those of the lines that may be named first."""
    return [marker for marker in (truth.line, *truth.also) if marker and not marker.isidentifier()]


def _asked(case: Case, truth: Truth, verdict: Verdict) -> list[Mark]:
    first, asked = verdict.first, []
    for aspect in ("tensor", "samples", "variable"):
        expected, found = getattr(truth, aspect), getattr(first, aspect)
        if expected is not None:
            asked.append(Mark(aspect, expected, found, found == expected))
    if truth.way is not None:
        found_way = first.entry and first.entry.way
        asked.append(Mark("way", truth.way, found_way, found_way == truth.way))
    if truth.origins is not None:
        found_origins = 1 + len(verdict.other_chains)
        asked.append(Mark("origins", truth.origins, found_origins, found_origins == truth.origins))
    if truth.also:
        arguments = {also for also in truth.also if also.isidentifier()}
        expected = {case.line(marker) for marker in _markers(truth)} | arguments
        found = {
            place for origin in (first, *(chain[0] for chain in verdict.other_chains)) for place in _places(origin)
        }
        asked.append(Mark("also", expected, found, expected <= found))
    return asked


def _places(origin: Origin | Link | None) -> set[object]:
    """Where an origin stands: its argument, its line."""
    source = origin and origin.source
    return {origin and origin.tensor, source and source.line} - {None}
