"""Write ``src/protocol.gen.ts`` from the Python records, or check that it is up to date (``--check``).

The page and the plugin speak through the classes of ``tb_nanwatch.schema``; their TypeScript twins are generated, so
that neither can change alone.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from pathlib import Path

from docs.generated import write_or_check
from tb_nanwatch.schema import protocol, records, stats

TARGET = Path(__file__).parent / "src" / "protocol.gen.ts"
ROOTS = (records.Verdicts, protocol.SeriesAnswer, protocol.HeatmapAnswer, protocol.AlertAnswer, protocol.BatchAnswer)
HEADER = "// Generated from the records of tb_nanwatch/schema: change those, then run `make protocol`.\n"


def typescript_type(hint: object) -> str:
    """Spell a Python type hint in TypeScript."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(f'"{argument}"' for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(typescript_type(argument) for argument in arguments)
    if origin is tuple:
        return f"ReadonlyArray<{typescript_type(arguments[0])}>"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint.__name__
    return {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}[
        typing.cast("type", hint)
    ]


def interfaces(root: type, seen: dict[type, str]) -> None:
    """Add ``root`` and every record it is built of to ``seen``, each with its TypeScript interface."""
    if root in seen:
        return
    seen[root] = ""
    hints = typing.get_type_hints(root)
    for hint in hints.values():
        for part in nested_records(hint):
            interfaces(part, seen)
    lines = [f"  readonly {name}: {typescript_type(hint)};" for name, hint in hints.items()]
    seen[root] = "\n".join([f"export interface {root.__name__} {{", *lines, "}"])


def nested_records(hint: object) -> list[type]:
    """Return the dataclasses that a type hint mentions."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [part for argument in typing.get_args(hint) for part in nested_records(argument)]


def catalogue_entry(stat: stats.Stat) -> str:
    """Spell one entry of the catalogue."""
    merges = ", ".join(f'"{merge}"' for merge in stat.merges)
    return f'  {{ key: "{stat.key}", scope: "{stat.scope}", merges: [{merges}], meaning: "{stat.meaning}" }},'


def render() -> str:
    """Return the whole file."""
    seen: dict[type, str] = {}
    for root in ROOTS:
        interfaces(root, seen)
    keys = "\n".join(f'  | "{stat.key}"' for stat in stats.STATS)
    table = "\n".join(catalogue_entry(stat) for stat in stats.STATS)
    catalogue = (
        f"export type StatKey =\n{keys};\n\nexport interface Stat {{\n  readonly key: StatKey;\n"
        '  readonly scope: "variable" | "step" | "tensor";\n  readonly merges: ReadonlyArray<"min" | "max" | "mean">;\n'
        f"  readonly meaning: string;\n}}\n\nexport const STATS: ReadonlyArray<Stat> = [\n{table}\n];\n"
    )
    return HEADER + "\n" + catalogue + "\n" + "\n\n".join(seen.values()) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, render(), sys.argv[1:]))
