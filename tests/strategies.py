"""Hypothesis strategies for the records."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tb_nanwatch.diagnosis.operations import RULES
from tb_nanwatch.numerics.spans import merge_spans, single_steps
from tb_nanwatch.schema.records import (
    PHASES,
    Alert,
    Counts,
    Entry,
    Finding,
    Header,
    Link,
    Operand,
    Operation,
    Replay,
    Series,
    Source,
    Variable,
)

names = st.text(min_size=1, max_size=20)
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
norms32 = st.floats(0, float(np.finfo(np.float32).max), width=32)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    parts = [draw(st.integers(0, 50)) for _ in range(4)]
    return Counts(sum(parts), *parts[:3])


@st.composite
def variables(draw: st.DrawFn) -> tuple[Variable, ...]:
    found = draw(st.lists(names, max_size=4, unique=True))
    shape = st.lists(st.integers(-1, 5), max_size=3).map(tuple)
    layer, order = st.none() | names, st.none() | st.integers(0, 9)
    return tuple(Variable(name, draw(layer), draw(shape), "float32", draw(order)) for name in found)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    return Header(
        session=draw(st.integers(0, 99)),
        variables=draw(variables()),
        tensors=tuple(draw(st.lists(names, max_size=2))),
        stats=("loss", "grad_norm"),
        policy=draw(st.sampled_from(["raise", "skip", "record"])),
        clip=draw(st.sampled_from(["none", "scale", "other"])),
        versions=draw(st.dictionaries(names, names, max_size=2)),
        worker=draw(st.none() | st.integers(0, 9)),
    )


@st.composite
def single_step_series(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 24) -> Series:
    """Single steps of one variable statistic and the loss; some are non-finite and some not measured."""
    n = draw(st.integers(min_size, max_size))
    gaps = draw(nps.arrays(np.int64, n, elements=st.integers(1, 3)))
    values, kinds = {}, {}
    for stat, width in (("grad_norm", 2), ("loss", 1)):
        elements = norms32 if stat == "grad_norm" else finite32
        value = draw(nps.arrays(np.float32, (n, width), elements=elements)).astype(np.float64)
        state = draw(nps.arrays(np.int8, (n, width), elements=st.sampled_from([0, 0, 0, 1, 2])))
        values[stat] = np.where(state > 0, np.nan, value)
        kinds[stat] = np.where(state == 1, draw(st.sampled_from([1, 2, 4, 8])), 0).astype(np.uint8)
    return single_steps(np.cumsum(gaps) - 1, values, kinds)


@st.composite
def partitions(draw: st.DrawFn, n: int) -> list[int]:
    """The first index of each group of n consecutive items."""
    return [0, *sorted(draw(st.sets(st.integers(1, n - 1)) if n > 1 else st.just(set())))]


@st.composite
def span_series(draw: st.DrawFn) -> Series:
    steps = draw(single_step_series())
    return merge_spans(steps, draw(partitions(len(steps))))


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    role = st.sampled_from(["input", "weight", "tensor", "loss", "gradient", "clipped", "state"])
    samples = st.lists(st.integers(0, 99), max_size=3).map(tuple)
    finding = st.builds(Finding, role, names, st.none() | counts().filter(lambda c: c.size > 0), samples=samples)
    return Alert(
        step=draw(st.integers(0, 2**40)),
        session=draw(st.integers(0, 9)),
        first_step=draw(st.integers(0, 2**40)),
        action=draw(st.sampled_from(["raised", "skipped", "recorded"])),
        findings=tuple(draw(st.lists(finding, min_size=1, max_size=3))),
        window=draw(single_step_series()),
        replay=draw(st.none() | replays()),
        batch=draw(st.none() | names),
        notes=tuple(draw(st.lists(names, max_size=2))),
        replica=draw(st.none() | st.integers(0, 9)),
        microbatch=draw(st.none() | st.integers(0, 9)),
        worker=draw(st.none() | st.integers(0, 9)),
    )


KNOWN_OPERATIONS = sorted(set().union(*(rule.operations for rule in RULES)))
indices = st.lists(st.integers(0, 2**40), max_size=3).map(tuple)
lines = st.lists(st.text(max_size=20), max_size=2).map(tuple)
sources = st.builds(Source, names, st.integers(1, 9999), names, st.text(max_size=20), lines, lines)
doubles = st.none() | st.floats(allow_nan=False, allow_infinity=False)
operands = st.builds(
    Operand,
    names,
    st.sampled_from(["float16", "float32", "int64"]),
    indices,
    counts(),
    doubles,
    doubles,
    st.integers(0, 99),
)
links = st.builds(
    Link,
    st.none() | st.builds(Operation, names | st.sampled_from(KNOWN_OPERATIONS), names),
    st.sampled_from(PHASES),
    st.none() | names,
    st.sampled_from(["nan", "pos_inf", "neg_inf"]),
    st.none() | sources,
    st.none() | names,
    st.none() | names,
    st.none() | counts(),
    indices,
    st.lists(operands, max_size=5).map(tuple),
    st.lists(sources, max_size=2).map(tuple),
    st.none() | st.builds(Entry, st.sampled_from(["argument", "captured", "constant"]), indices, st.just(((), (1, 2)))),
)


@st.composite
def replays(draw: st.DrawFn) -> Replay:
    """The result of a replay, found or not."""
    outcome = draw(st.sampled_from(["found", "finite", "failed"]))
    chains = st.lists(st.lists(links, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2).map(tuple)
    return Replay(
        outcome,
        notes=draw(lines),
        chains=draw(chains) if outcome == "found" else (),
        seconds=draw(st.floats(0, 1e6)),
        dump=draw(st.none() | names),
    )
