"""The command ``nanwatch LOGDIR``, which prints the verdict on every run."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from tb_nanwatch import __version__
from tb_nanwatch.errors import LogdirError
from tb_nanwatch.printing import lines_of, visible
from tb_nanwatch.reading.logdir import THE_LOGDIR, open_logdir
from tb_nanwatch.reading.tags import home_of
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.records import Verdicts

ALL_FINITE: Final = 0
SOME_NONFINITE: Final = 1
UNREADABLE: Final = 2
_STATUSES: Final = (
    "0 if every run is finite, 1 if some run is known not to be, else 2 if something could not be read or there is"
    " nothing to read."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts.

    Args:
        arguments: arguments of the command line; by default those of the program.

    Returns:
        The exit status: 0 if every run is finite, 1 if a run is known to be non-finite, else 2 if something could not
        be read or there is nothing to read.
    """
    options = _parser().parse_args(arguments)
    _escape_unencodable_characters()
    try:
        verdicts = _verdicts(options.logdir, options.run)
    except LogdirError as error:
        Console(stderr=True).print(Text(f"nanwatch: {visible(str(error))}."), soft_wrap=True)
        return UNREADABLE
    if options.json:
        sys.stdout.write(dumps(verdicts, indent=2) + "\n")
    else:
        _print(verdicts, home_of(options.logdir))
    if any(verdict.status == "nonfinite" for verdict in verdicts.runs):
        return SOME_NONFINITE
    return UNREADABLE if any(verdict.unreadable for verdict in verdicts.runs) else ALL_FINITE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanwatch",
        description="Say which step, layer and operation of each run were first to turn to NaN or Inf.",
        epilog=f"Exit status: {_STATUSES}",
    )
    parser.add_argument("logdir", metavar="LOGDIR", help="the directory that TensorBoard would be given")
    parser.add_argument("--run", metavar="NAME", help="read only one run")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.add_argument("--version", action="version", version=f"nanwatch {__version__}")
    return parser


def _verdicts(logdir: str, run: str | None) -> Verdicts:
    reader = open_logdir(logdir)
    index = reader.index(THE_LOGDIR)
    if not index.names:
        raise LogdirError(f"a logdir must hold a watched run; at {logdir} there is none")
    if run is not None and run not in index.names:
        raise LogdirError(f"--run must name one of {', '.join(sorted(index.names))}; got {run}")
    return reader.verdicts(index, run)


def _escape_unencodable_characters() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print(verdicts: Verdicts, logdir: str) -> None:
    console = Console()
    for number, verdict in enumerate(verdicts.runs):
        if number:
            console.print()
        for line in lines_of(verdict, logdir=logdir):
            console.print(line, soft_wrap=True)
