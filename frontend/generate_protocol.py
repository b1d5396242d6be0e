"""Write ``src/protocol.gen.ts`` from the Python records, or check that it is up to date (``--check``).

The plugin answers with the classes of ``tb_nanwatch.schema``. Both the page's types and the decoders that check an
answer are generated from these classes, so that the plugin and the page cannot disagree.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import NamedTuple

from docs.generated import write_or_check
from tb_nanwatch.schema import protocol, records, stats

TARGET = Path(__file__).parent / "src" / "protocol.gen.ts"
ANSWERS: dict[str, type] = {
    "verdicts": records.Verdicts,
    "series": protocol.SeriesAnswer,
    "heatmap": protocol.HeatmapAnswer,
    "alert": protocol.AlertAnswer,
}
"""The answers that the page reads, by route."""
HEADER = """\
// Generated from the records of tb_nanwatch/schema: change those, then run `make protocol`.
import * as decode from "./decoder";"""


class Translation(NamedTuple):
    """A Python type in TypeScript, and the decoder that accepts its values (see ``src/decoder.ts``)."""

    type: str
    decoder: str


SCALARS: dict[object, Translation] = {
    str: Translation("string", "decode.string"),
    int: Translation("number", "decode.number"),
    float: Translation("number", "decode.number"),
    bool: Translation("boolean", "decode.boolean"),
}


def translate(hint: object) -> Translation:
    """Translate the type hint of a record's field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        members = [f'"{argument}"' for argument in arguments]
        return Translation(" | ".join(members), f"decode.literal({', '.join(members)})")
    if origin in (typing.Union, types.UnionType):
        (inner,) = (translate(argument) for argument in arguments if argument is not types.NoneType)
        return Translation(f"{inner.type} | null", f"decode.nullable({inner.decoder})")
    if origin is tuple:
        item = translate(arguments[0])
        return Translation(f"ReadonlyArray<{item.type}>", f"decode.list({item.decoder})")
    if is_record(hint):
        return Translation(hint.__name__, decoder_name(hint))
    return SCALARS[hint]


def is_record(hint: object) -> typing.TypeGuard[type]:
    """Return whether a type hint is a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def decoder_name(record: type) -> str:
    """Return the name of a record's decoder: ``heatmapRow`` for ``HeatmapRow``."""
    return record.__name__[0].lower() + record.__name__[1:]


def records_in(hint: object) -> list[type]:
    """Return the records that a type hint mentions, each once and after the records that it is built of."""
    parts = typing.get_type_hints(hint).values() if is_record(hint) else typing.get_args(hint)
    found = [record for part in parts for record in records_in(part)]
    return list(dict.fromkeys([*found, hint] if is_record(hint) else found))


def definition(record: type) -> str:
    """Return a record's interface and its decoder."""
    fields = {name: translate(hint) for name, hint in typing.get_type_hints(record).items()}
    name, decoder = record.__name__, decoder_name(record)
    types_of_fields = [f"  readonly {field}: {translation.type};" for field, translation in fields.items()]
    decoders = [f"  {field}: {translation.decoder}," for field, translation in fields.items()]
    interface = "\n".join([f"export interface {name} {{", *types_of_fields, "}"])
    return "\n".join([interface, "", f"const {decoder} = decode.record<{name}>({{", *decoders, "});"])


def render() -> str:
    """Return the whole file."""
    keys = "".join(f'\n  | "{stat.key}"' for stat in stats.STATS)
    found = dict.fromkeys(record for answer in ANSWERS.values() for record in records_in(answer))
    decoders = [
        f'export const decode{route.capitalize()} = decode.answer("{route}", {decoder_name(answer)});'
        for route, answer in ANSWERS.items()
    ]
    return "\n\n".join([HEADER, f"export type StatKey ={keys};", *map(definition, found), "\n".join(decoders)]) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(TARGET, render(), sys.argv[1:]))
