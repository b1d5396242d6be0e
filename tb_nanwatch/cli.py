"""``nanwatch LOGDIR``: the verdict on every run, where there is no browser."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from tb_nanwatch import __version__
from tb_nanwatch.errors import LogdirError
from tb_nanwatch.reading.logdir import THE_LOGDIR, leave_tensorflow_out, open_logdir
from tb_nanwatch.schema.codec import dumps
from tb_nanwatch.schema.records import Status, Verdict, Verdicts

ALL_FINITE: Final = 0
SOME_NONFINITE: Final = 1
UNREADABLE: Final = 2

_STYLES: Final[dict[Status, str]] = {
    "finite": "green",
    "nonfinite": "bold red",
    "warning": "yellow",
    "empty": "dim",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts.

    Args:
        arguments: of the command line; by default the program's own.

    Returns:
        The exit status: 0 if all runs are finite, 1 if some run is not, 2 if there is nothing to read.
    """
    options = _parser().parse_args(arguments)
    if arguments is None:
        leave_tensorflow_out(options.logdir)
    _spell_what_has_no_letter()
    try:
        verdicts = _verdicts(options.logdir, options.run)
    except LogdirError as error:
        Console(stderr=True).print(Text(f"nanwatch: {visible(str(error))}."), soft_wrap=True)
        return UNREADABLE
    if options.json:
        sys.stdout.write(dumps(verdicts, indent=2) + "\n")
    else:
        _print(verdicts)
    return SOME_NONFINITE if any(verdict.status == "nonfinite" for verdict in verdicts.runs) else ALL_FINITE


def visible(text: str) -> str:
    r"""Return a text that a terminal shows and does not obey: what has no glyph of its own is spelled out.

    Example:
        >>> print(visible("relu\x1b[2J\n"))
        relu\x1b[2J\n
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanwatch",
        description="Say which step, layer and phase of each run were first to turn to NaN or Inf.",
        epilog="Exit status: 0 if all runs are finite, 1 if some run is not, 2 if there is nothing to read.",
    )
    parser.add_argument("logdir", metavar="LOGDIR", help="the directory that TensorBoard would be given")
    parser.add_argument("--run", metavar="NAME", help="look at one run only")
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


def _spell_what_has_no_letter() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print(verdicts: Verdicts) -> None:
    console = Console()
    for number, verdict in enumerate(verdicts.runs):
        if number:
            console.print()
        for line in _lines(verdict):
            console.print(line, soft_wrap=True)


def _lines(verdict: Verdict) -> Iterator[Text]:
    style = _STYLES[verdict.status]
    yield Text.assemble(
        (visible(verdict.run), "bold"),
        "  ",
        (verdict.status, style),
        f"  {verdict.steps_seen:,} step{'' if verdict.steps_seen == 1 else 's'}",
    )
    yield Text(f"  {visible(verdict.text)}")
    for cause in verdict.causes:
        yield Text(f"  Likely cause ({cause.confidence} confidence): {visible(cause.text)}")
        yield Text(f"  What to do: {visible(cause.fix)}")
    if verdict.status == "nonfinite":
        yield from (Text(f"  Before that: {visible(warning.text)}") for warning in verdict.warnings)
    yield from (Text(f"  Not read: {visible(problem)}", style="yellow") for problem in verdict.problems)
