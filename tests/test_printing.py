"""The printed lines of a verdict."""

from __future__ import annotations

import dataclasses

import pytest

from tb_nanwatch.diagnosis import RunLog, SessionLog, diagnose
from tb_nanwatch.printing import lines_of, visible
from tb_nanwatch.schema.records import Entry, Operation, Replay, Source
from tests.event_files import HEADER, steps_of
from tests.replays import CHAIN, REPLAY, SQUARE, alert_of, link, operand


def printed(replay, *, batch=None, run="relu", logdir="runs"):
    series = steps_of(0, 29)
    alert = dataclasses.replace(alert_of(replay, window=series), batch=batch)
    verdict = diagnose(RunLog(run, (SessionLog(HEADER, series, (alert,)),)))
    return [line.plain for line in lines_of(verdict, logdir=logdir)]


def found(*links):
    return Replay("found", chains=(links,))


def excerpt(source):
    lines = printed(found(dataclasses.replace(SQUARE, source=source)))
    return [line[4:] for line in lines if " |" in line]


def test_the_evidence_of_a_replay_follows_the_sentence():
    assert printed(REPLAY, batch="nanwatch/batches/step-29.npz") == [
        "relu  nonfinite  30 steps",
        (
            "  Step 29: +Inf first appeared in the output of Square (critic.py:41, in train_step), in the loss (3 of "
            "64 elements; samples 7, 31, 50)."
        ),
        "  Likely cause (high confidence): Square of values up to 2.5e+19 leaves the range of float32 (up to 3.4e+38).",
        (
            "  What to do: Find out why the values are so large: lower the learning rate, clip the gradients by their "
            "global norm, or take a loss that grows more slowly than a square (tf.keras.losses.Huber)."
        ),
        "  Note: The step drew random numbers, and they were restored before it was run again.",
        "    critic.py:41, in train_step",
        "      39 | with tf.GradientTape() as tape:",
        "      40 |     value = critic(states, training=True)",
        "    > 41 |     loss = tf.reduce_mean(tf.square(returns - value))",
        "      42 | gradients = tape.gradient(loss, critic.trainable_variables)",
        "      43 | clipped, _ = tf.clip_by_global_norm(gradients, 15.0)",
        "    Square was given",
        "      sub:0  float32 [64, 1]  -2.5e+19 to 3.1e+18",
        "    From there to what went bad",
        "      +Inf  Square  loss          critic.py:41",
        "      +Inf  Mean    loss          critic.py:41",
        "      NaN   MatMul  backward  l2  critic.py:17",
        "    Further origins in that step",
        "      -Inf  Log  loss  entropy  critic.py:29",
        '  Its batch: tb_nanwatch.load_batch("runs/relu/nanwatch/batches/step-29.npz")',
    ]


def test_without_a_replay_there_is_no_evidence_to_print():
    assert len(printed(None)) == 4
    assert printed(Replay("failed", ("It took longer than 60 s.",)))[-1] == "  Note: It took longer than 60 s."


def test_the_non_finite_elements_of_an_operand_are_counted():
    log = link("nan", operand(0.0, 2.0, name="p", zeros=3, nan=1, neg_inf=4), operand(None, None, nan=64), op="Xlogy")
    lines = printed(found(log))
    assert "      p      float32 [64, 1]  0 to 2, 1 x NaN, 4 x -Inf, 3 x 0" in lines
    assert "      sub:0  float32 [64, 1]  64 x NaN" in lines
    assert "      sub:0  float32 [64, 1]  0.5" in printed(found(link("nan", operand(0.5, 0.5), op="Sin")))


def test_the_middle_of_a_long_chain_is_left_out():
    hops = [dataclasses.replace(SQUARE, op=Operation(f"Op{number}", "")) for number in range(20)]
    lines = printed(found(*hops))
    at = lines.index("    From there to what went bad")
    assert [line.split()[1] for line in lines[at + 1 :]] == [
        *[f"Op{number}" for number in range(6)],
        "more)",
        *["Op18", "Op19"],
    ]
    assert lines[at + 7] == "      (12 more)"


def test_a_chain_that_is_a_little_too_long_is_printed_whole():
    assert not [line for line in printed(found(*[SQUARE] * 9)) if "more)" in line]
    assert [line for line in printed(found(*[SQUARE] * 10)) if "(2 more)" in line]


@pytest.mark.parametrize(
    ("text", "before", "after", "shown"),
    [
        ("b = 2", ("    a = 1",), ("    c = 3",), ["  1 | a = 1", "> 2 | b = 2", "  3 | c = 3"]),
        ("b = 2", ("if a:",), (), ["  1 | if a:", "> 2 |     b = 2"]),
        ("for b in a:", ("    a = 1",), ("        c",), ["  1 | a = 1", "> 2 | for b in a:", "  3 |     c"]),
        ("b = 2", (), (), ["> 2 | b = 2"]),
        ("b = 2", ("\ta = 1", ""), (), ["  0 | a = 1", "  1 |", "> 2 | b = 2"]),
    ],
)
def test_the_line_stands_among_its_neighbours(text, before, after, shown):
    assert excerpt(Source("a.py", 2, "f", text, before, after)) == shown


def test_an_unreadable_line_is_not_shown():
    assert excerpt(Source("a.py", 2, "f", "")) == []


def test_hostile_texts_are_shown_and_not_obeyed():
    evil = "x\x1b[2J\n\u202e" * 1000
    source = Source(evil, 3, evil, evil, (evil,) * 50, (evil,) * 50)
    bad = dataclasses.replace(
        SQUARE, op=Operation(evil, evil), layer=evil, source=source, inputs=(operand(0.0, 1.0, name=evil),) * 99
    )
    lines = printed(Replay("found", (evil,), ((bad,) * 99,) * 99), batch=f"{evil}.npz", run=evil)
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 50


@pytest.mark.parametrize(("way", "is_shown"), [("argument", True), ("captured", False), ("constant", False)])
def test_the_saved_batch_is_shown_only_where_it_may_hold_the_value(way, is_shown):
    origin = link("nan", op=None, phase="input", tensor="mean", entry=Entry(way, (2,), ((1,),)))
    lines = printed(Replay("found", (), ((origin,),)), batch="step-29.npz")
    assert any("load_batch" in line for line in lines) == is_shown


def test_a_batch_can_be_pasted():
    (line,) = [line for line in printed(None, batch='a"b\\c\u202e.npz', run=".") if "load_batch" in line]
    assert eval(line.removeprefix("  Its batch: tb_nanwatch.load_batch")) == 'runs/a"b\\c\u202e.npz'


def test_a_value_from_outside_is_named_in_the_chain():
    weight = link("nan", op=None, phase="weights", variable="l2/V", layer="l2")
    assert "      NaN   l2/V    weights   l2" in printed(found(weight, *CHAIN[1:]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("l1/V", "l1/V"), ("é日", "é日"), ("a b", "a b"), ("\u202eevil", r"\u202eevil"), ("\x9b1m", r"\x9b1m")],
)
def test_a_character_without_a_glyph_is_escaped(text, shown):
    assert visible(text) == shown
