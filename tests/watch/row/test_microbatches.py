"""Gradients that are added up over micro-batches: norms of each, and the one that was bad."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.numerics.finiteness import count_nonfinite
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.measure import half_sum_of_squares, loss_cell
from tb_nanwatch.watch.row.microbatches import NONE_BAD, DeviceMicrobatches, HostMicrobatches

MICROBATCHES = 4
INFINITE = 1e30


class Accumulating:
    """Two layers whose gradients are summed in variables, or within one step."""

    def __init__(self, watch: Watch) -> None:
        keras.utils.set_random_seed(3)
        self.watch = watch
        self.model = keras.Sequential(
            [keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1, name="head")]
        )
        self.model.build((None, 3))
        self.variables = self.model.trainable_variables
        self.optimizer = keras.optimizers.SGD(1e-3)
        self.optimizer.build(self.variables)
        self.sums = [tf.Variable(tf.zeros_like(variable.value), trainable=False) for variable in self.variables]

    def measured(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x) - y))
        gradients = tape.gradient(loss, self.variables)
        self.watch.accumulate(zip(gradients, self.variables, strict=True), loss=loss)
        return gradients

    def microbatch(self, x, y):
        for total, gradient in zip(self.sums, self.measured(x, y), strict=True):
            total.assign_add(gradient)

    def update(self):
        means = [total / MICROBATCHES for total in self.sums]
        self.watch.apply_gradients(self.optimizer, zip(means, self.variables, strict=True))
        for total in self.sums:
            total.assign(tf.zeros_like(total))

    def whole(self, xs, ys):
        parts = [self.measured(xs[number], ys[number]) for number in range(MICROBATCHES)]
        means = [tf.add_n(gradients) / MICROBATCHES for gradients in zip(*parts, strict=True)]
        self.watch.apply_gradients(self.optimizer, zip(means, self.variables, strict=True))


def trainer(way, net):
    """Return a callable that takes the micro-batches of a step."""
    if way == "one step":
        return net.watch.step(net.whole)
    if way == "steps":
        microbatch, update = net.watch.step(net.microbatch), net.watch.step(net.update)
    elif way == "eager":
        microbatch, update = net.microbatch, net.update
    else:
        microbatch, update = tf.function(net.microbatch), tf.function(net.update)

    def step(xs, ys):
        for x, y in zip(tf.unstack(xs), tf.unstack(ys), strict=True):
            microbatch(x, y)
        update()
        if way == "after_step":
            net.watch.after_step()

    return step


def over(step, some):
    for xs, ys in some:
        step(xs, ys)


def batches(*, steps, bad=None, value=INFINITE):
    random = np.random.default_rng(0)
    x = random.normal(size=(steps, MICROBATCHES, 16, 3)).astype("float32")
    y = random.normal(size=(steps, MICROBATCHES, 16, 1)).astype("float32")
    if bad is not None:
        y[(*bad, 3)] = value
    return [(tf.constant(a), tf.constant(b)) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize("way", ["one step", "steps", "eager", "after_step"])
def test_the_verdict_names_the_micro_batch_whose_loss_was_bad_although_the_total_is_finite(way, tmp_path, read):
    net = Accumulating(Watch(tmp_path))
    step = trainer(way, net)
    with pytest.raises(NonFiniteError) as caught:
        over(step, batches(steps=6, bad=(5, 2)))
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.microbatch) == (5, "loss", 2)
    assert "micro-batch 2" in caught.value.verdict.text
    if way in ("one step", "steps"):
        assert (first.op.type, first.source.function) == ("Square", "measured")
    if way == "steps":
        assert first.samples == (3,)
    net.watch.close()
    assert read(tmp_path).verdict.first.microbatch == 2


@pytest.mark.parametrize("way", ["one step", "steps", "eager"])
def test_a_micro_batch_whose_loss_was_bad_is_recorded_although_the_total_is_finite(way, tmp_path, read):
    net = Accumulating(Watch(tmp_path, policy="record"))
    over(trainer(way, net), batches(steps=6, bad=(5, 2)))
    net.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.first.phase, verdict.first.microbatch) == (5, "loss", 2)
    assert verdict.steps_seen == 6


def test_counts_of_a_later_micro_batch_are_not_reported_for_an_earlier_one(tmp_path, read):
    net = Accumulating(Watch(tmp_path, policy="record"))
    step = trainer("unchecked", net)
    over(step, batches(steps=2, bad=(1, 2), value=np.nan))
    over(step, batches(steps=1, bad=(0, 1)))
    net.watch.after_step()
    net.watch.close()
    first = read(tmp_path).verdict.first
    # Its loss was bad too, but the counts are those of the micro-batch after it.
    assert (first.step, first.phase, first.microbatch) == (1, "backward", 2)


def test_several_bad_micro_batches_between_two_reads_of_the_host_are_reported_although_the_total_is_finite(
    tmp_path, read
):
    net = Accumulating(Watch(tmp_path, policy="record"))
    step = trainer("unchecked", net)
    over(step, batches(steps=2, bad=(1, 2)))
    over(step, batches(steps=1, bad=(0, 1)))
    net.watch.after_step()
    net.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.phase, first.microbatch) == (1, "loss", 2)


def test_an_update_that_makes_a_variable_non_finite_belongs_to_no_micro_batch(tmp_path, read):
    net = Accumulating(Watch(tmp_path))
    net.optimizer.learning_rate.assign(1e38)
    step = trainer("steps", net)
    (xs, ys), *_ = batches(steps=1)
    with pytest.raises(NonFiniteError):
        over(step, [(xs * 1e3, ys * 1e3)] * 2)
    net.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.phase, first.microbatch) == (0, "update", None)


def test_norms_are_of_the_total_and_of_one_micro_batch(tmp_path, read):
    net = Accumulating(Watch(tmp_path))
    step = trainer("steps", net)
    (first, *_) = batches(steps=3)
    expected = [np.array([np.linalg.norm(g) for g in net.measured(x, y)]) for x, y in zip(*first, strict=True)]
    net.watch.close()
    net = Accumulating(Watch(tmp_path / "again"))
    step = trainer("steps", net)
    for xs, ys in batches(steps=3):
        step(xs, ys)
    net.watch.close()
    back = read(tmp_path / "again")
    assert back.column("microbatches").ravel().tolist() == [4, 4, 4]
    root_mean_square = np.sqrt(np.mean(np.square(expected), axis=0))
    assert back.column("microbatch_norm")[0] == pytest.approx(root_mean_square, rel=1e-5)
    assert (back.column("grad_norm")[0] <= back.column("microbatch_norm")[0] * 1.00001).all()
    assert back.verdict.warnings == ()


def test_a_skip_leaves_out_the_whole_step_and_the_sums_begin_anew(tmp_path, read):
    net, bare = Accumulating(Watch(tmp_path, policy="skip")), Accumulating(Watch(tmp_path / "bare", policy="record"))
    step, bare_step = trainer("steps", net), trainer("steps", bare)
    for number, (xs, ys) in enumerate(batches(steps=8, bad=(5, 2))):
        step(xs, ys)
        if number != 5:
            bare_step(xs, ys)
    net.watch.close()
    bare.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.skipped_steps, verdict.steps_seen, verdict.first.step) == (1, 8, 5)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(net.variables, bare.variables, strict=True))


def test_a_bad_micro_batch_of_a_call_of_its_own_leaves_no_trace_in_the_statistics_of_layers(tmp_path):
    net = Accumulating(Watch(tmp_path, policy="skip"))
    norm = keras.layers.BatchNormalization()
    norm.build((None, 3))
    inner = net.model

    def normed(x):
        return inner(norm(x, training=True))

    net.model = normed
    step = trainer("steps", net)
    (xs, ys), bad_x = batches(steps=1)[0], np.full((16, 3), np.nan, "float32")
    step(xs, ys)
    step(tf.tensor_scatter_nd_update(xs, [[2]], bad_x[None]), ys)
    assert np.isfinite(norm.moving_mean.numpy()).all()
    step(xs, ys)
    assert all(np.isfinite(variable.numpy()).all() for variable in net.variables)


class InParts:
    """Two variables whose gradients are measured and added up apart, by a step each."""

    def __init__(self, logdir, *, listed, **options):
        self.parts = {name: tf.Variable(value, name=name) for name, value in (("actor", [1.0, 2.0]), ("critic", [3.0]))}
        self.sums = {name: tf.Variable(tf.zeros_like(part), trainable=False) for name, part in self.parts.items()}
        self.watch = Watch(logdir, list(self.parts.values()) if listed else None, **options)
        self.optimizer = keras.optimizers.SGD(0.1)
        self.steps = {"actor": self.watch.step(self.actor), "critic": self.watch.step(self.critic)}
        self.update = self.watch.step(self.updated)

    def actor(self, x):
        self.measured("actor", lambda weight: tf.reduce_sum(tf.math.log(weight * x)))

    def critic(self, x):
        self.measured("critic", lambda weight: tf.reduce_sum(tf.square(weight * x)))

    def measured(self, name, loss_of):
        weight = self.parts[name]
        with tf.GradientTape() as tape:
            loss = loss_of(weight)
        gradient = tape.gradient(loss, weight)
        self.watch.accumulate([(gradient, weight)], loss=loss)
        self.sums[name].assign_add(gradient)

    def updated(self):
        self.watch.apply_gradients(self.optimizer, [(self.sums[name], part) for name, part in self.parts.items()])
        for total in self.sums.values():
            total.assign(tf.zeros_like(total))

    def train(self, *, bad=None):
        """Train four steps of two micro-batches; ``bad`` is a step, a micro-batch and a part."""
        for step in range(4):
            for number in range(2):
                for name, part in self.steps.items():
                    part(tf.constant(0.0 if (step, number, name) == bad else 1.0))
            self.update()
        self.watch.close()


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "found"])
def test_parts_of_a_micro_batch_that_are_measured_apart_are_counted_once(tmp_path, read, listed):
    net = InParts(tmp_path, listed=listed)
    net.train()
    assert read(tmp_path).column("microbatches").ravel().tolist() == [2.0] * 4
    sizes = read(tmp_path).column("microbatch_norm")[0]
    np.testing.assert_allclose(sizes, [np.hypot(1.0, 1 / 2), 6.0], rtol=1e-6)
    assert read(tmp_path).verdict.status == "finite"


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "found"])
def test_the_part_that_was_bad_is_replayed_and_named(tmp_path, listed):
    net = InParts(tmp_path, listed=listed)
    with pytest.raises(NonFiniteError) as caught:
        net.train(bad=(2, 1, "actor"))
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.op.type) == (2, "loss", "Log")
    assert "tf.math.log(weight * x)" in first.source.text
    assert caught.value.alert.microbatch == 1


def test_a_part_that_comes_after_the_first_update_is_named(tmp_path):
    net = InParts(tmp_path, listed=True)
    net.train()
    net.parts["late"], net.sums["late"] = tf.Variable([1.0], name="late"), tf.Variable([0.0], trainable=False)
    with pytest.warns(UserWarning, match="does not watch variable 'late': it came after the first step"):
        net.watch.step(lambda: net.measured("late", tf.reduce_sum))()


def test_of_calls_with_several_micro_batches_the_bad_one_is_replayed(tmp_path):
    weight, total = tf.Variable([1.0, 2.0], name="weight"), tf.Variable([0.0, 0.0], trainable=False)
    watch, optimizer = Watch(tmp_path), keras.optimizers.SGD(0.1)

    @watch.step
    def two_microbatches(first, second):
        for x in (first, second):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.math.log(weight * x))
            gradient = tape.gradient(loss, weight)
            watch.accumulate([(gradient, weight)], loss=loss)
            total.assign_add(gradient)

    @watch.step
    def update():
        watch.apply_gradients(optimizer, [(total, weight)])

    two_microbatches(tf.constant([1.0, 1.0]), tf.constant([1.0, 1.0]))
    two_microbatches(tf.constant([1.0, 1.0]), tf.constant([1.0, 0.0]))
    with pytest.raises(NonFiniteError) as caught:
        update()
    assert caught.value.alert.microbatch == 3
    assert caught.value.verdict.first.op.type == "Log"


class Line:
    """A weight whose gradient is added up in a variable, and applied every second time, in one way or another."""

    def __init__(self, logdir, **options):
        self.weight = tf.Variable([1.0, 2.0], name="line/weight")
        self.total = tf.Variable([0.0, 0.0], trainable=False, name="total")
        self.count = tf.Variable(0, trainable=False, name="count")
        self.watch = Watch(logdir, [self.weight], **options)
        self.optimizer = keras.optimizers.SGD(0.1)
        self.counted, self.flagged = self.watch.step(self.by_count), self.watch.step(self.by_flag)
        self.measured, self.updated = self.watch.step(self.measure), self.watch.step(self.apply)

    def measure(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.math.log(self.weight * x))  # the line
        gradient = tape.gradient(loss, self.weight)
        self.watch.accumulate([(gradient, self.weight)], loss=loss)
        return gradient

    def apply(self, total):
        self.watch.apply_gradients(self.optimizer, [(total / 2, self.weight)])

    def by_count(self, x):
        self.total.assign_add(self.measure(x))
        self.count.assign_add(1)
        if tf.equal(self.count % 2, 0):
            self.apply(self.total)
            self.total.assign(tf.zeros_like(self.total))

    def by_flag(self, x, last):
        self.total.assign_add(self.measure(x))
        if last:
            self.apply(self.total)
            self.total.assign(tf.zeros_like(self.total))

    def returned(self, x, last):
        self.total.assign_add(self.measured(x))
        if last:
            total = self.total.numpy()
            self.total.assign([0.0, 0.0])
            self.updated(tf.constant(total))

    def train(self, way, *, bad):
        """Train four steps of two micro-batches; ``bad`` is a step and a micro-batch."""
        for step in range(4):
            for number in range(2):
                x = tf.constant([1.0, 0.0 if (step, number) == bad else 1.0])
                if way == "counted":
                    self.counted(x)
                else:
                    (self.flagged if way == "flagged" else self.returned)(x, number == 1)
        self.watch.close()


WAYS_TO_UPDATE = pytest.mark.parametrize("way", ["counted", "flagged", "returned"])


@WAYS_TO_UPDATE
@pytest.mark.parametrize("bad", [(2, 0), (2, 1), (0, 0)], ids=str)
def test_the_bad_micro_batch_is_named_wherever_the_update_stands(tmp_path, way, bad):
    line = Line(tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        line.train(way, bad=bad)
    first = caught.value.verdict.first
    assert (first.step, first.microbatch, first.phase, first.op.type) == (*bad, "loss", "Log")
    assert first.source.text == "loss = tf.reduce_sum(tf.math.log(self.weight * x))  # the line"


@WAYS_TO_UPDATE
@pytest.mark.parametrize("number", [0, 1])
def test_a_skipped_micro_batch_is_over_with_its_step(tmp_path, read, way, number):
    line = Line(tmp_path, policy="skip")
    line.train(way, bad=(2, number))
    assert read(tmp_path).column("skipped").ravel().tolist() == [0.0, 0.0, 1.0, 0.0]
    assert read(tmp_path).column("microbatches").ravel().tolist() == [2.0] * 4
    bare = np.array([1.0, 2.0])
    for _ in range(3):
        bare -= 0.1 / bare
    np.testing.assert_allclose(line.weight.numpy(), bare, rtol=1e-5)


@WAYS_TO_UPDATE
def test_the_batch_of_an_update_that_is_only_recorded_is_not_held_for_the_micro_batch_s(tmp_path, read, way):
    Line(tmp_path, policy="record").train(way, bad=(2, 1))
    first = read(tmp_path).verdict.first
    assert (first.step, first.microbatch, first.phase) == (2, 1, "loss")


@pytest.mark.parametrize("policy", ["raise", "skip", "record"])
def test_a_bad_micro_batch_without_an_update_is_reported_at_the_end(tmp_path, read, policy):
    line = Line(tmp_path, policy=policy)
    for x in ([1.0, 1.0], [1.0, 1.0], [1.0, 0.0]):
        line.counted(tf.constant(x))
    if policy == "raise":
        with pytest.raises(NonFiniteError, match="output of Log"):
            line.watch.close()
    line.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.microbatch, first.phase) == (1, 0, "loss")


class Stores:
    """A store on the device and a store on the host that are given the same micro-batches of two variables."""

    def __init__(self):
        self.device, self.host = DeviceMicrobatches(columns=2), HostMicrobatches(columns=2)

    def add(self, *gradients, loss):
        tensors = [tf.constant(gradient) for gradient in gradients]
        self.device.add(tensors, range(len(tensors)), loss=tf.constant(loss))
        row = [*map(half_sum_of_squares, tensors), loss_cell(tf.constant(loss))]
        counts = [[c.size, c.nan, c.pos_inf, c.neg_inf] for c in map(count_nonfinite, [*gradients, loss])]
        self.host.add(np.array(row, np.float32), np.array(counts), call=lambda: "the call")

    def pending(self):
        assert self.device.pending() == self.host.pending()
        return self.host.pending()

    def counts(self):
        assert self.device.counts().tolist() == self.host.counts().tolist()
        return self.host.counts().tolist()

    def cells(self):
        device, host = self.device.cells(2).numpy(), self.host.cells()
        self.host.end()
        np.testing.assert_array_equal(device, host)
        return host.tolist()


def test_both_stores_give_the_mean_of_half_squares_and_the_number_of_micro_batches():
    stores = Stores()
    stores.add([3.0, 4.0], [1.0], loss=0.5)
    stores.add([1.0, 0.0], [3.0], loss=0.5)
    assert stores.pending() == NONE_BAD
    assert stores.cells() == [6.5, 2.5, 2.0, NONE_BAD, 0.0]


def test_both_stores_keep_the_counts_of_the_first_bad_micro_batch():
    stores = Stores()
    stores.add([3.0, 4.0], [1.0], loss=0.5)
    stores.add([np.nan, np.inf], [1.0], loss=0.5)
    stores.add([np.nan, np.nan], [np.nan], loss=np.nan)
    assert stores.pending() == 1
    assert stores.counts() == [[2, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert stores.host.bad_call == "the call"
    *means, number, bad, mark = stores.cells()
    assert (means, number, bad) == ([ABSENT, ABSENT], 3.0, 1.0)
    assert np.isnan(mark)


def test_both_stores_begin_anew_after_an_update():
    stores = Stores()
    stores.add([np.nan, 4.0], [1.0], loss=0.5)
    stores.cells()
    assert stores.pending() == NONE_BAD
    assert stores.cells() == [ABSENT, ABSENT, 0.0, NONE_BAD, 0.0]
    stores.add([3.0, 4.0], [1.0], loss=0.5)
    assert stores.host.bad_call is None
    assert stores.cells() == [12.5, 0.5, 1.0, NONE_BAD, 0.0]
