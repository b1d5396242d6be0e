"""Runs with a replay of their bad step, as the training side writes them. The replays are written by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tb_nanwatch.schema.records import Alert, Counts, Finding, Header, Link, Operation, Replay, Source
from tb_nanwatch.watch.record.writer import Writer
from tests.event_files import HEADER, only_at, steps_of
from tests.replays import CHAIN, REPLAY, SQUARE, THREE_INF, link, operand, replayed

BAD_STEP = 29
LONG = "long" * 2500
MARKUP = "<img src=x onerror=window.hacked=true>"
REORDERED = "tf.\u202eexp\u202c\x07"
BATCH = "nanwatch/batches/step-29.npz"

IN_THE_BATCH = link(
    "nan", op=None, phase="input", tensor="states", counts=Counts(640, 64, 0, 0), samples=tuple(range(64))
)
HOPS = tuple(link("nan", op="AddV2", phase="backward", layer=f"l{number}") for number in range(40))
HOSTILE_SOURCE = Source(
    f"/srv/{LONG}/{MARKUP}.py", 7, LONG, f"{MARKUP} # {LONG} {REORDERED}", (f"if {LONG}:", "\t\tעברית = 1"), ("",)
)
HOSTILE = Link(
    op=Operation(f"{MARKUP}{REORDERED}", LONG),
    phase="forward",
    layer=f"{LONG}{MARKUP}",
    kind="nan",
    source=HOSTILE_SOURCE,
    variable=f"{MARKUP}/v",
    counts=Counts(2**53, 2**53, 0, 0),
    samples=tuple(range(0, 128, 2)),
    inputs=(
        operand(-1e300, 1e300, name=f"{MARKUP}{LONG}", dtype=LONG, shape=(1,) * 250),
        *(operand(0.0, 0.0, name=REORDERED, zeros=64) for _ in range(30)),
    ),
    stack=(HOSTILE_SOURCE,) * 50,
)
REPLAYS = {
    "square": REPLAY,
    "batch": Replay("found", chains=((IN_THE_BATCH,),), seconds=0.2),
    "long": Replay("found", chains=((SQUARE, *HOPS, CHAIN[-1]),)),
    "lucky": Replay("finite", notes=("The step reads a clock, which gave another time.",), seconds=0.31),
    "stuck": Replay("failed", notes=("The step took longer than 60 s to run again.",), seconds=60.0),
    "hostile": Replay("found", chains=((HOSTILE, *HOPS[:2]), *((HOSTILE,),) * 9)),
}
"""The replay of each run, by the run's name."""


def write_replayed(logdir: Path) -> None:
    """Write a run for each of :data:`REPLAYS`, and the run ``alone``, whose step was not replayed."""
    for run, replay in REPLAYS.items():
        _write_run(logdir / run, replay, batch=None if run == "stuck" else BATCH)
    _write_run(logdir / "alone", None, batch=None)


def _write_run(directory: Path, replay: Replay | None, *, batch: str | None) -> None:
    header = dataclasses.replace(HEADER, session=0)
    writer = Writer(str(directory))
    writer.next_session()
    writer.write_header(header)
    writer.write_spans(_steps(header), generation=0)
    alert = Alert(
        step=BAD_STEP,
        session=0,
        first_step=0,
        action="raised",
        findings=(
            Finding("loss", "loss", THREE_INF, samples=tuple(range(64))),
            Finding("gradient", "l2/V", Counts(4, 4, 0, 0)),
        ),
        window=_steps(header),
    )
    writer.write_alert(alert)
    if replay is not None:
        writer.write_alert(replayed(alert, replay, batch=batch))
    writer.close()


def _steps(header: Header):
    width = len(header.variables)
    nan = float("nan")
    losses = only_at(BAD_STEP, float("inf"), first=0, last=BAD_STEP)
    norms = only_at(BAD_STEP, nan, first=0, last=BAD_STEP, width=width, column=2)
    norms[BAD_STEP, 3] = 0.0
    return steps_of(0, BAD_STEP, header=header, loss=losses, grad_norm=norms)
