"""A replay made by hand, as the training side would write it: a critic whose squared error overflows."""

from __future__ import annotations

import dataclasses

from tb_nanwatch.schema.records import Alert, Counts, Finding, Link, Operand, Operation, Replay, Series, Source

LINES = (
    "    with tf.GradientTape() as tape:",
    "        value = critic(states, training=True)",
    "        loss = tf.reduce_mean(tf.square(returns - value))",
    "    gradients = tape.gradient(loss, critic.trainable_variables)",
    "    clipped, _ = tf.clip_by_global_norm(gradients, 15.0)",
)
THREE_INF = Counts(size=64, nan=0, pos_inf=3, neg_inf=0)
ONE_INF = Counts(size=1, nan=0, pos_inf=1, neg_inf=0)


def operand(low, high, *, name="sub:0", dtype="float32", shape=(64, 1), zeros=0, **nonfinite):
    """An input of an operation: finite elements from ``low`` to ``high``, and ``nonfinite`` others."""
    size = 1
    for width in shape:
        size *= width
    counts = Counts(size, **({"nan": 0, "pos_inf": 0, "neg_inf": 0} | nonfinite))
    return Operand(name, dtype, shape, counts, low, high, zeros)


def link(kind, *inputs, op="Square", phase="loss", **facts):
    """A hop of a chain; parts that ``facts`` does not give are unknown."""
    given = {"layer": None, "source": None} | facts
    operation = Operation(op, f"train_step/{op}") if op else None
    return Link(operation, phase, kind=kind, inputs=inputs, **given)


SOURCE = Source("critic.py", 41, "train_step", LINES[2].strip(), LINES[:2], LINES[3:])
SQUARE = link(
    "pos_inf",
    operand(-2.5e19, 3.1e18),
    source=SOURCE,
    counts=THREE_INF,
    samples=(7, 31, 50),
    stack=(
        Source("critic.py", 88, "main", "train_step(states, returns)"),
        dataclasses.replace(SOURCE, before=(), after=()),
    ),
)
HERE = dataclasses.replace(SOURCE, before=(), after=())
CHAIN = (
    SQUARE,
    link("pos_inf", operand(0.0, 9.6e36, pos_inf=3), op="Mean", source=HERE, counts=ONE_INF),
    link(
        "nan",
        operand(-1.5, 2.0, shape=(64, 64), zeros=31),
        operand(None, None, shape=(64, 1), nan=3, pos_inf=61),
        op="MatMul",
        phase="backward",
        layer="l2",
        variable="l2/V",
        source=Source("critic.py", 17, "call", "return inputs @ self.V * self.g + self.b"),
        counts=Counts(size=4, nan=4, pos_inf=0, neg_inf=0),
    ),
)
LOG = link(
    "neg_inf",
    operand(0.0, 0.9, name="probabilities:0", shape=(64, 4), zeros=2),
    op="Log",
    layer="entropy",
    source=Source("critic.py", 29, "entropy", "return -tf.reduce_sum(p * tf.math.log(p))"),
    counts=Counts(size=256, nan=0, pos_inf=0, neg_inf=2),
    samples=(3, 9),
    stack=(Source("critic.py", 29, "entropy", "return -tf.reduce_sum(p * tf.math.log(p))"),),
)
REPLAY = Replay(
    outcome="found",
    notes=("The step drew random numbers, and they were restored before it was run again.",),
    chains=(CHAIN, (LOG, CHAIN[-1])),
    seconds=0.54,
    dump="nanwatch/dumps/step-29",
)


def replayed(alert: Alert, replay: Replay | None = REPLAY, *, batch: str | None = None) -> Alert:
    """The addition to an alert after the replay of its step."""
    no_steps = alert.window.rows(slice(0))
    return dataclasses.replace(
        alert, window=Series(no_steps.first_step, no_steps.last_step, {}), replay=replay, batch=batch
    )


def alert_of(replay, *, role="loss", name="loss", counts=THREE_INF, step=29, window, first_step=0):
    """An alert with one finding and a replay, after its two messages were joined."""
    return Alert(step, 0, first_step, "raised", (Finding(role, name, counts),), window, replay)
