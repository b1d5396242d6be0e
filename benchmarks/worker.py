"""A process that takes steps on request, and answers with the seconds.

TensorFlow's debuggers work on a whole process. Once switched on, they slow down everything that it calls, even
functions traced before. A step under a debugger therefore has a process of its own, and takes turns with the bare step
in another process.

Each line on standard input is the name of a step and a number of steps. The answer is a line with the seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

import tensorflow as tf

import tb_nanwatch
from benchmarks.fits import paced_fit
from benchmarks.networks import BUILDERS, Network
from benchmarks.steps import Step, bare_step, watched_step

Take = Callable[[int], float]
"""Takes a number of steps, and returns the seconds."""
WARM_UP_STEPS = 20
FIT = "fit"


@contextmanager
def beside_the_bare_step(network: str, *, xla: bool = False) -> Iterator[dict[str, Take]]:
    """Yield the bare and the watched step of two equal networks; the log is removed in the end."""
    bare, watched = BUILDERS[network](), BUILDERS[network]()
    with tempfile.TemporaryDirectory() as logdir, tb_nanwatch.Watch(logdir, watched.variables) as watch:
        yield {"bare": _timed(bare_step(bare, xla=xla)), "watched": _timed(watched_step(watched, watch, xla=xla))}


@contextmanager
def fit_beside_fit(network: str) -> Iterator[dict[str, Take]]:
    """Yield a bare and a watched ``fit``; the log is removed in the end."""
    del network
    with tempfile.TemporaryDirectory() as logdir:
        watch = tb_nanwatch.NanWatchCallback(logdir)
        with paced_fit() as bare, paced_fit([watch]) as watched:
            yield {"bare": bare.take, "watched": watched.take}


@contextmanager
def under_debugger_v2(network: str) -> Iterator[dict[str, Take]]:
    """Yield the step under Debugger V2 with its default buffer; its dump is removed in the end."""
    built: Network = BUILDERS[network]()
    with tempfile.TemporaryDirectory() as directory:
        tf.debugging.experimental.enable_dump_debug_info(directory, tensor_debug_mode="CONCISE_HEALTH")
        yield {"debugged": _timed(bare_step(built))}
        tf.debugging.experimental.disable_dump_debug_info()


@contextmanager
def under_check_numerics(network: str) -> Iterator[dict[str, Take]]:
    """Yield the step under ``enable_check_numerics``, which checks every floating output."""
    built: Network = BUILDERS[network]()
    tf.debugging.enable_check_numerics()
    yield {"debugged": _timed(bare_step(built))}


SETTINGS: Final[Mapping[str, Callable[[str], AbstractContextManager[dict[str, Take]]]]] = {
    "watch": beside_the_bare_step,
    "xla": partial(beside_the_bare_step, xla=True),
    FIT: fit_beside_fit,
    "debugger-v2": under_debugger_v2,
    "check-numerics": under_check_numerics,
}


def _timed(step: Step) -> Take:
    def take(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - began

    return take


def main() -> None:
    """Answer requests until standard input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("network", choices=[*BUILDERS, FIT])
    parser.add_argument("setting", choices=SETTINGS)
    arguments = parser.parse_args()
    with SETTINGS[arguments.setting](arguments.network) as takes:
        for take in takes.values():
            take(WARM_UP_STEPS)
        print("ready", flush=True)
        for line in sys.stdin:
            name, number = line.split()
            print(takes[name](int(number)), flush=True)


if __name__ == "__main__":
    main()
