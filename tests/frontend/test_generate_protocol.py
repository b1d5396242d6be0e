"""The page's types and decoders, generated from records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frontend.generate_protocol import definition, records_in


@dataclass(frozen=True)
class Part:
    name: str


@dataclass(frozen=True)
class WholeRow:
    part: Part | None
    grid: tuple[tuple[Part, ...], ...]
    norms: tuple[float | None, ...]
    kind: Literal["nan", "pos_inf"]
    step: int
    is_saved: bool


def test_a_record_comes_after_the_records_that_it_is_built_of():
    assert records_in(tuple[WholeRow, ...]) == [Part, WholeRow]


def test_each_field_reaches_the_interface_and_the_decoder():
    assert definition(WholeRow) == (
        "export interface WholeRow {\n"
        "  readonly part: Part | null;\n"
        "  readonly grid: ReadonlyArray<ReadonlyArray<Part>>;\n"
        "  readonly norms: ReadonlyArray<number | null>;\n"
        '  readonly kind: "nan" | "pos_inf";\n'
        "  readonly step: number;\n"
        "  readonly is_saved: boolean;\n"
        "}\n"
        "\n"
        "const wholeRow = decode.record<WholeRow>({\n"
        "  part: decode.nullable(part),\n"
        "  grid: decode.list(decode.list(part)),\n"
        "  norms: decode.list(decode.nullable(decode.number)),\n"
        '  kind: decode.literal("nan", "pos_inf"),\n'
        "  step: decode.number,\n"
        "  is_saved: decode.boolean,\n"
        "});"
    )
