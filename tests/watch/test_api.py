"""The watch from end to end: real steps, real event files, read back by the viewing side."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.errors import SetupError
from tests.watch.conftest import Regression

STEPS = 40
DESCENT = tf.compat.v1.train.GradientDescentOptimizer(0.1)


def trainer(way, watch, net, *, clip=None):
    """Return a callable that runs one step in one of the ways to train."""

    def step(x, y):
        loss, raw = net.gradients(x, y)
        clipped = clip(raw) if clip else raw
        watch.apply_gradients(net.optimizer, zip(clipped, net.variables, strict=True), raw=raw, loss=loss)
        return loss

    if way == "after_step":
        compiled = tf.function(step)

        def checked(x, y):
            loss = compiled(x, y)
            watch.after_step()
            return loss

        return checked
    if way == "eager":
        return step
    return watch.step(step, jit_compile=way == "jit")


@pytest.mark.parametrize("way", ["function", "jit", "eager", "after_step"])
class TestEveryWayToTrain:
    def test_a_finite_run_records_every_step_with_the_norms_that_numpy_finds(self, way, tmp_path, read):
        net, watch = Regression(), Watch(tmp_path, window=8)
        step = trainer(way, watch, net, clip=lambda raw: tf.clip_by_global_norm(raw, 0.5)[0])
        losses, norms = [], []
        for _ in range(20):
            loss, gradients = net.gradients(net.x, net.y)
            losses.append(float(loss))
            norms.append([np.linalg.norm(gradient.numpy()) for gradient in gradients])
            step(net.x, net.y)
        watch.close()
        back = read(tmp_path)
        assert back.verdict.status == "finite"
        assert back.session.series.first_step.tolist() == list(range(20))
        np.testing.assert_allclose(back.column("loss")[:, 0], losses, rtol=1e-5)
        np.testing.assert_allclose(back.column("grad_norm"), norms, rtol=1e-4)
        whole = np.linalg.norm(norms, axis=1)
        np.testing.assert_allclose(back.column("global_norm")[:, 0], whole, rtol=1e-4)
        np.testing.assert_allclose(back.column("clipped_global_norm")[:, 0], np.minimum(whole, 0.5), rtol=1e-4)
        ratio = np.minimum(1, 0.5 / whole)[:, None]
        np.testing.assert_allclose(back.column("clip_ratio", "min"), np.tile(ratio, 4), rtol=1e-4)

    def test_a_bad_step_raises_with_its_step_and_leaves_every_variable_as_it_was(self, way, tmp_path, read):
        net, watch = Regression(optimizer=keras.optimizers.Adam(0.01)), Watch(tmp_path)
        step = trainer(way, watch, net)
        for _ in range(5):
            step(net.x, net.y)
        before = net.weights()
        with pytest.raises(NonFiniteError, match=r"^Step 5: \+Inf first appeared in .*the loss") as caught:
            step(net.x, net.y * 1e30)
        assert all(np.array_equal(a, b) for a, b in zip(before, net.weights(), strict=True))
        watch.close()
        back = read(tmp_path)
        assert replace(back.verdict.first, batch=None) == replace(caught.value.verdict.first, batch=None)
        assert (back.verdict.first.step, back.verdict.first.phase, back.verdict.first.kind) == (5, "loss", "pos_inf")
        saved = [caught.value.verdict.first.batch, back.verdict.first.batch]
        decorated = way in ("function", "jit")
        assert saved == ([f"{tmp_path.name}/batches/step-5.npz", "batches/step-5.npz"] if decorated else [None, None])
        assert back.verdict.steps_seen == 6

    def test_a_watched_run_trains_like_a_bare_run(self, way, tmp_path):
        bare, watched, watch = Regression(), Regression(), Watch(tmp_path)

        def clip(raw):
            return [tf.clip_by_norm(gradient, 0.1) for gradient in raw]

        @tf.function(jit_compile=way == "jit")
        def bare_step(x, y):
            _, raw = bare.gradients(x, y)
            bare.optimizer.apply_gradients(zip(clip(raw), bare.variables, strict=True))

        step = trainer(way, watch, watched, clip=clip)
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
        try:
            for _ in range(200):
                bare_step(bare.x, bare.y)
                step(watched.x, watched.y)
        finally:
            tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
        for a, b in zip(bare.weights(), watched.weights(), strict=True):
            if way in {"function", "after_step"}:
                assert np.array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    def test_training_may_go_on_after_the_error_is_caught(self, way, tmp_path, read):
        net, watch = Regression(), Watch(tmp_path)
        step = trainer(way, watch, net)
        for y in (net.y, net.y * 1e30, net.y, net.y * 1e30):
            try:
                step(net.x, y)
            except NonFiniteError as error:
                last = error
        assert (last.alert.step, last.verdict.first.step) == (3, 3)
        watch.close()
        assert [alert.step for alert in read(tmp_path).session.alerts] == [1, 3]


def test_a_watch_has_no_public_attribute_but_the_documented_ones(tmp_path):
    """README and docs/ways-to-train.md, docs/micro-batches.md, docs/policies.md and docs/replay.md name these."""
    assert {name for name in dir(Watch(tmp_path)) if not name.startswith("_")} == {
        "accumulate",
        "after_step",
        "apply_gradients",
        "close",
        "replay_step",
        "session_run",
        "step",
        "tensor",
    }


def test_with_the_default_graph_optimiser_weights_agree_to_a_millionth(tmp_path):
    bare, watched, watch = Regression(), Regression(), Watch(tmp_path)

    @tf.function
    def bare_step(x, y):
        _, raw = bare.gradients(x, y)
        bare.optimizer.apply_gradients(zip(tf.clip_by_global_norm(raw, 0.5)[0], bare.variables, strict=True))

    step = trainer("function", watch, watched, clip=lambda raw: tf.clip_by_global_norm(raw, 0.5)[0])
    for _ in range(200):
        bare_step(bare.x, bare.y)
        step(watched.x, watched.y)
    for a, b in zip(bare.weights(), watched.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def scalar_step(tmp_path, values, loss_of, **options):
    """Return a watch, a step over named variables, and the variables."""
    variables = [tf.Variable(value, name=name) for name, value in values.items()]
    watch = Watch(tmp_path, variables, **options)

    @watch.step
    def step(*args):
        with tf.GradientTape() as tape:
            loss = loss_of(*variables, *args)
        gradients = tape.gradient(loss, variables)
        watch.apply_gradients(DESCENT, zip(gradients, variables, strict=True), loss=loss)
        return loss

    return watch, step, variables


class TestPhasesByTheRecords:
    """The verdict on a bad step without a replay."""

    def test_backward_names_the_layer_nearest_the_loss(self, tmp_path):
        # d sqrt(u)/du is Inf at u = 0, where the loss itself is 0; the chain rule passes it to both factors.
        values = {"first/w": 0.5, "second/w": 2.0, "aside/w": 1.0}
        _, step, _ = scalar_step(tmp_path, values, lambda a, b, c, x: tf.sqrt(a * x * b) + c, replay=False)
        step(tf.constant(1.0))
        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant(0.0))
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.layer, first.variable) == (1, "backward", "second", "second/w")

    def test_backward_orders_a_table_that_is_read_in_part(self, tmp_path):
        table, weight = tf.Variable(tf.ones([3, 2]), name="embedding/table"), tf.Variable(1.0, name="head/w")
        watch = Watch(tmp_path, replay=False)

        @watch.step
        def step(rows, x):
            with tf.GradientTape() as tape:
                loss = tf.sqrt(tf.reduce_sum(tf.gather(table, rows)) * x * weight)
            gradients = tape.gradient(loss, [table, weight])
            watch.apply_gradients(DESCENT, zip(gradients, [table, weight]), loss=loss)

        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant([0, 2]), tf.constant(0.0))
        assert caught.value.verdict.first.layer == "head"

    def test_clip_names_a_finite_gradient_that_clipping_made_non_finite(self, tmp_path):
        # The squares of 1e25 overflow float32, so the global norm is Inf, and Inf norms make every gradient NaN.
        variable = tf.Variable(1.0, name="layer/w")
        watch = Watch(tmp_path, replay=False)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = variable * x
            gradients = tape.gradient(loss, [variable])
            clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
            watch.apply_gradients(DESCENT, zip(clipped, [variable]), raw=gradients, loss=loss)

        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant(1e25))
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.variable, first.kind) == (0, "clip", "layer/w", "nan")

    def test_update_names_the_step_of_a_finite_gradient_whose_update_overflows(self, tmp_path):
        # With a gradient of -1e38 the update adds 1e37, and 3.4e38 + 1e37 is more than float32 holds.
        _, step, _ = scalar_step(tmp_path, {"layer/w": 3.4e38, "other/w": 1.0}, lambda a, b, x: (a - 3.4e38) * x + b)
        step(tf.constant(0.0))
        step(tf.constant(-1e38))
        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant(1.0))
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.variable, first.kind) == (1, "update", "layer/w", "pos_inf")
        assert caught.value.alert.step == 2

    @pytest.mark.parametrize("policy", ["raise", "record"])
    def test_update_checks_the_last_one_when_the_watch_is_closed(self, policy, tmp_path, read):
        watch, step, _ = scalar_step(tmp_path, {"layer/w": 3.4e38}, lambda w, x: (w - 3.4e38) * x, policy=policy)
        step(tf.constant(0.0))
        step(tf.constant(-1e38))
        if policy == "raise":
            with pytest.raises(NonFiniteError, match=r"^Step 1: \+Inf first appeared in the variable layer/w"):
                watch.close()
        watch.close()
        back = read(tmp_path)
        assert (back.verdict.first.step, back.verdict.first.phase, back.verdict.steps_seen) == (1, "update", 2)
        assert len(back.session.alerts) == 1

    def test_weights_that_are_bad_before_the_first_step(self, tmp_path):
        _, step, _ = scalar_step(tmp_path, {"layer/w": np.nan, "other/w": 1.0}, lambda a, b, x: a * x + b)
        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant(1.0))
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.variable) == (0, "weights", "layer/w")

    def test_input_a_bad_sample_is_named_with_its_argument(self, tmp_path, regression):
        watch = Watch(tmp_path, replay=False)
        step = trainer("function", watch, regression)
        step(regression.x, regression.y)
        bad = regression.y.numpy()
        bad[[2, 6]] = np.nan
        with pytest.raises(NonFiniteError) as caught:
            step(regression.x, tf.constant(bad))
        first = caught.value.verdict.first
        assert (first.step, first.phase, first.tensor, first.samples) == (1, "input", "y", (2, 6))
        assert (first.counts.size, first.counts.nan) == (10, 2)

    def test_input_that_was_harmless_before_is_no_origin(self, tmp_path):
        def masked(w, x, scale):
            return tf.reduce_sum(tf.where(tf.math.is_nan(x), 0.0, x)) * w * scale

        _, step, _ = scalar_step(tmp_path, {"layer/w": 1.0}, masked)
        x = tf.constant([1.0, np.nan])
        step(x, tf.constant(1.0))
        with pytest.raises(NonFiniteError) as caught:
            step(x * 3e38, tf.constant(1e10))
        assert caught.value.verdict.first.phase == "loss"

    def test_forward_a_watched_tensor_comes_before_the_loss(self, tmp_path):
        variable = tf.Variable(2.0, name="layer/w")
        watch = Watch(tmp_path, replay=False)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                powers = watch.tensor("powers", tf.exp(variable * x))
                loss = tf.reduce_sum(1.0 / powers)
            gradients = tape.gradient(loss, [variable])
            watch.apply_gradients(DESCENT, zip(gradients, [variable]), loss=loss)

        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant([1.0, 100.0]))
        first = caught.value.verdict.first
        assert (first.phase, first.tensor, first.kind, first.layer) == ("forward", "powers", "pos_inf", None)
        assert (first.counts.size, first.counts.pos_inf) == (2, 1)


class TestNoFalseAlarm:
    def test_a_finite_gradient_whose_squares_overflow_is_recorded_with_its_true_norm(self, tmp_path, read):
        watch, step, _ = scalar_step(
            tmp_path, {"layer/w": [0.0, 0.0]}, lambda w, x: tf.reduce_sum(w * x) * 1e-5, policy="raise"
        )
        step(tf.constant([3e30, 4e30]))
        watch.close()
        back = read(tmp_path)
        assert back.verdict.status != "nonfinite"
        np.testing.assert_allclose(back.column("grad_norm"), [[5e25]], rtol=1e-5)

    def test_a_masked_infinity_that_reaches_nothing(self, tmp_path, read):
        def attention(w, x):
            scores = tf.where([True, True, False], w * x, -np.inf)
            return tf.reduce_sum(tf.nn.softmax(scores) * [1.0, 2.0, 3.0])

        watch, step, _ = scalar_step(tmp_path, {"layer/w": 1.0}, attention)
        for _ in range(3):
            step(tf.constant([1.0, 2.0, 3.0]))
        watch.close()
        assert read(tmp_path).verdict.status == "finite"


class TestWhatIsRestored:
    def network(self):
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.layers.Dense(8, name="hidden"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(1, name="head"),
            ]
        )
        model.build((None, 3))
        return model

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_statistics_seeds_metrics_and_counters(self, jit_compile, tmp_path):
        model, optimizer, metric = self.network(), keras.optimizers.Adam(0.01), keras.metrics.Mean()
        counter = tf.Variable(0, dtype=tf.int64, trainable=False)
        variables, watch = model.trainable_variables, Watch(tmp_path)

        @watch.step(jit_compile=jit_compile)
        def step(x, y):
            counter.assign_add(1)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
            metric.update_state(loss)
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            watch.apply_gradients(optimizer, zip(gradients, variables), loss=loss)

        x, y = tf.random.normal((16, 3)), tf.random.normal((16, 1))
        for _ in range(3):
            step(x, y)
        state = [*model.variables, *optimizer.variables, *metric.variables]
        before = [variable.numpy() for variable in state]
        with pytest.raises(NonFiniteError):
            step(x, y * 1e30)
        changed = [v.path for v, old in zip(state, before, strict=True) if not np.array_equal(v.numpy(), old)]
        assert changed == []
        assert int(counter) == 3

    def test_code_after_the_update_in_the_step_waits_for_the_guard(self, tmp_path, regression):
        watch, after = Watch(tmp_path), tf.Variable(0.0, trainable=False)

        @watch.step
        def step(x, y):
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)
            after.assign_add(1.0)

        step(regression.x, regression.y)
        for _ in range(20):
            with pytest.raises(NonFiniteError):
                step(regression.x, regression.y * 1e30)
        assert float(after) == 1.0


class TestRecordPolicy:
    def test_training_goes_on_and_each_onset_is_one_alert(self, tmp_path, read):
        net, watch = Regression(), Watch(tmp_path, policy="record", window=4)
        step = trainer("function", watch, net)
        frozen = net.weights()
        bad = [2, 3, 4, 5, 6, 7, 8, 12, 13]
        for number in range(16):
            for variable, old in zip((*net.variables, *net.optimizer.variables), frozen, strict=True):
                variable.assign(old)
            step(net.x, net.y * (1e30 if number in bad else 1.0))
        watch.close()
        back = read(tmp_path)
        assert [(alert.step, alert.action) for alert in back.session.alerts] == [(2, "recorded"), (12, "recorded")]
        assert np.flatnonzero(back.column("loss", "nonfinite")[:, 0]).tolist() == bad
        assert back.verdict.first.step == 2

    def test_a_bad_batch_that_comes_again_is_the_origin_again(self, tmp_path, read):
        net, watch = Regression(), Watch(tmp_path, policy="record", window=2)
        step = trainer("function", watch, net)
        sound, bad = net.weights(), net.y.numpy()
        bad[3] = np.nan
        for y in [net.y, *[tf.constant(bad)] * 5, net.y, net.y, net.y, tf.constant(bad)]:
            for variable, old in zip((*net.variables, *net.optimizer.variables), sound, strict=True):
                variable.assign(old)
            step(net.x, y)
        watch.close()
        alerts = read(tmp_path).session.alerts
        assert [(alert.step, alert.findings[0].role) for alert in alerts] == [(1, "input"), (9, "input")]

    def test_a_recorded_run_trains_into_the_nan_like_a_bare_run(self, tmp_path):
        bare, watched = Regression(learning_rate=50.0), Regression(learning_rate=50.0)
        watch = Watch(tmp_path, policy="record")

        @tf.function
        def bare_step(x, y):
            _, raw = bare.gradients(x, y)
            bare.optimizer.apply_gradients(zip(raw, bare.variables, strict=True))

        step = trainer("function", watch, watched)
        for _ in range(STEPS):
            bare_step(bare.x, bare.y)
            step(watched.x, watched.y)
        for a, b in zip(bare.weights(), watched.weights(), strict=True):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        assert np.isnan(watched.weights()[0]).any()


class TestVariables:
    def test_a_variable_without_a_gradient_is_absent_and_equal_names_are_made_unique(self, tmp_path, read):
        variables = [tf.Variable(1.0, name="layer/w"), tf.Variable(2.0, name="layer/w"), tf.Variable(3.0, name="idle")]
        watch = Watch(tmp_path, variables)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = variables[0] * x + 2.0 * variables[1] * x
            raw = tape.gradient(loss, variables)
            clipped = [None if gradient is None else tf.clip_by_norm(gradient, 0.5) for gradient in raw]
            watch.apply_gradients(DESCENT, zip(clipped, variables), raw=raw, loss=loss)

        step(tf.constant(1.0))
        watch.close()
        back = read(tmp_path)
        assert [v.name for v in back.session.header.variables] == ["layer/w", "layer/w#2", "idle"]
        assert [v.layer for v in back.session.header.variables] == ["layer", "layer", None]
        np.testing.assert_allclose(back.column("grad_norm"), [[1.0, 2.0, np.nan]])
        np.testing.assert_allclose(back.column("clipped_norm"), [[0.5, 0.5, np.nan]], rtol=1e-6)
        assert back.column("grad_norm", "count").tolist() == [[1, 1, 0]]
        np.testing.assert_allclose(back.column("weight_norm"), [[1.0, 2.0, 3.0]])

    def test_clipping_that_scales_each_gradient_in_its_own_way(self, tmp_path, read):
        variables = [tf.Variable([3.0, 4.0], name="first/w"), tf.Variable([6.0, 8.0], name="second/w")]
        watch = Watch(tmp_path, variables)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = sum(tf.reduce_sum(variable * variable) for variable in variables) * x
            raw = tape.gradient(loss, variables)
            factor = x * 2.0
            watch.apply_gradients(DESCENT, zip([raw[0] * factor, raw[1] / factor], variables), raw=raw, loss=loss)

        step(tf.constant(0.25))
        watch.close()
        back = read(tmp_path)
        np.testing.assert_allclose(back.column("grad_norm"), [[2.5, 5.0]])
        np.testing.assert_allclose(back.column("clipped_norm"), [[1.25, 10.0]])

    def test_clipping_that_overflows_in_half_precision_is_recorded(self, tmp_path):
        variable = tf.Variable(tf.ones([2], tf.float16), name="layer/w")
        watch = Watch(tmp_path)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(variable * x)
            raw = tape.gradient(loss, [variable])
            watch.apply_gradients(DESCENT, [(tf.clip_by_norm(raw[0], 100.0), variable)], raw=raw, loss=loss)

        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant([10.0, 1000.0], tf.float16))
        assert caught.value.verdict.first.phase == "clip"
        np.testing.assert_array_equal(variable.numpy(), [1.0, 1.0])

    def test_a_gradient_that_only_clipping_made_is_checked(self, tmp_path):
        variables = [tf.Variable(1.0, name="first/w"), tf.Variable(1.0, name="second/w")]
        watch = Watch(tmp_path, variables)

        @watch.step
        def step(x):
            pairs = zip([x * 0.5, x * np.nan], variables)
            watch.apply_gradients(DESCENT, pairs, raw=[x, None], loss=x)

        with pytest.raises(NonFiniteError):
            step(tf.constant(1.0))
        assert float(variables[1]) == 1.0

    @pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
    def test_every_floating_dtype(self, dtype, tmp_path, read):
        variable = tf.Variable(tf.cast([3.0, 4.0], dtype), name="layer/w")
        watch = Watch(tmp_path)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(variable * variable * x)
            gradients = tape.gradient(loss, [variable])
            watch.apply_gradients(DESCENT, zip(gradients, [variable]), loss=loss)

        step(tf.constant(2.0, dtype))
        watch.close()
        np.testing.assert_allclose(read(tmp_path).column("grad_norm"), [[20.0]], rtol=1e-2)

    def test_a_sparse_gradient(self, tmp_path, read):
        table = tf.Variable(tf.ones([5, 2]), name="embedding/table")
        watch = Watch(tmp_path)

        @watch.step
        def step(rows):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.gather(table, rows)) * 3.0
            gradients = tape.gradient(loss, [table])
            assert isinstance(gradients[0], tf.IndexedSlices)
            watch.apply_gradients(DESCENT, zip(gradients, [table]), loss=loss)

        step(tf.constant([0, 3]))
        watch.close()
        np.testing.assert_allclose(read(tmp_path).column("grad_norm"), [[6.0]])


class TestSteps:
    def test_each_of_many_steps_a_call_is_counted_and_the_bad_step_is_exact(self, tmp_path, read):
        net, watch = Regression(), Watch(tmp_path, window=64)

        @watch.step
        def ten_steps(x, y):
            for number in tf.range(10):
                loss, raw = net.gradients(x, y[number])
                watch.apply_gradients(net.optimizer, zip(raw, net.variables), loss=loss)

        y = np.tile(net.y.numpy(), (10, 1, 1))
        ten_steps(net.x, tf.constant(y))
        y[6] = 1e30
        with pytest.raises(NonFiniteError) as caught:
            ten_steps(net.x, tf.constant(y))
        assert caught.value.alert.step == 16
        alone = Regression()
        for _ in range(16):
            _, raw = alone.gradients(alone.x, alone.y)
            alone.optimizer.apply_gradients(zip(raw, alone.variables, strict=True))
        for a, b in zip(alone.weights(), net.weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        watch.close()
        assert read(tmp_path).session.series.first_step.tolist() == list(range(17))

    def test_a_bad_step_inside_a_loop_restores_the_statistics_that_it_began_with(self, tmp_path):
        norm, weight = keras.layers.BatchNormalization(), tf.Variable(1.0, name="layer/w")
        norm.build((None, 3))
        watch = Watch(tmp_path)

        @watch.step
        def steps(batches):
            for number in tf.range(3):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(norm(batches[number], training=True)) + weight * batches[number, 0, 0]
                watch.apply_gradients(DESCENT, [(tape.gradient(loss, weight), weight)], loss=loss)

        batches = np.random.default_rng(0).normal(size=(3, 5, 3)).astype("float32")
        expected = norm.moving_mean.numpy()
        for batch in batches[:2]:
            expected = 0.99 * expected + 0.01 * batch.mean(axis=0)
        batches[2] = np.inf
        with pytest.raises(NonFiniteError) as caught:
            steps(tf.constant(batches))
        assert caught.value.alert.step == 2
        np.testing.assert_allclose(norm.moving_mean.numpy(), expected, rtol=1e-5)

    def test_the_first_of_several_bad_steps_between_two_reads_is_reported(self, tmp_path, regression):
        watch = Watch(tmp_path)

        @tf.function
        def step(x, y):
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)

        step(regression.x, regression.y)
        watch.after_step()
        before = regression.weights()
        for y in (regression.y * np.inf, regression.y * np.nan, regression.y):
            step(regression.x, y)
        with pytest.raises(NonFiniteError) as caught:
            watch.after_step()
        assert (caught.value.alert.step, caught.value.verdict.first.kind) == (1, "pos_inf")
        assert all(np.array_equal(a, b) for a, b in zip(before, regression.weights(), strict=True))

    def test_the_users_own_step_is_shown_and_a_step_that_goes_back_begins_a_session(self, tmp_path, read):
        net, number = Regression(), tf.Variable(100, dtype=tf.int64, trainable=False)
        watch = Watch(tmp_path, step=number, window=4)
        step = trainer("function", watch, net)
        for value in (100, 101, 102, 103, 50, 51):
            number.assign(value)
            step(net.x, net.y)
        watch.close()
        sessions = read(tmp_path).log.sessions
        assert [s.series.first_step.tolist() for s in sessions] == [[100, 101, 102, 103], [50, 51]]

    def test_a_step_that_stands_still_is_counted_on_with_one_warning(self, tmp_path, read):
        net, number = Regression(), tf.Variable(7, dtype=tf.int64, trainable=False)
        watch = Watch(tmp_path, step=number, window=4)
        step = trainer("function", watch, net)
        with pytest.warns(UserWarning, match="must grow from one training step to the next; it stood at 7"):
            for _ in range(5):
                step(net.x, net.y)
            watch.close()
        assert read(tmp_path).session.series.first_step.tolist() == [7, 8, 9, 10, 11]

    def test_a_new_watch_in_the_same_logdir_is_a_new_session(self, tmp_path, read):
        for _ in range(2):
            with Watch(tmp_path) as watch:
                trainer("function", watch, net := Regression())(net.x, net.y)
        assert [session.header.session for session in read(tmp_path).log.sessions] == [0, 1]


class TestFunctions:
    def test_a_method_has_a_step_for_each_instance(self, tmp_path, read):
        watch = Watch(tmp_path)

        class Trainer:
            def __init__(self):
                self.net = Regression()

            @watch.step
            def step(self, x, y):
                """One step."""
                loss, raw = self.net.gradients(x, y)
                watch.apply_gradients(self.net.optimizer, zip(raw, self.net.variables), loss=loss)
                return loss

        trainer_ = Trainer()
        losses = [float(trainer_.step(trainer_.net.x, trainer_.net.y)) for _ in range(3)]
        assert losses == sorted(losses, reverse=True)
        assert trainer_.step.__doc__ == "One step."
        watch.close()
        assert read(tmp_path).verdict.steps_seen == 3

    def test_a_tf_function_keeps_its_options_and_its_state_is_restored(self, tmp_path, regression):
        watch, after = Watch(tmp_path), tf.Variable(0.0, trainable=False)

        @watch.step
        @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 1])])
        def step(x, y):
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)
            after.assign_add(1.0)
            return loss

        step(regression.x, regression.y)
        with pytest.raises(NonFiniteError):
            step(regression.x[:3], regression.y[:3] * 1e30)
        with pytest.raises(TypeError):
            step(regression.x[:, :2], regression.y)
        assert float(after) == 1.0

    def test_arguments_may_be_given_by_name_without_a_second_trace(self, tmp_path, regression):
        watch, traces = Watch(tmp_path), []

        @watch.step
        def step(x, y=regression.y):
            traces.append(x)
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)

        step(regression.x, regression.y)
        step(regression.x, y=regression.y)
        step(y=regression.y, x=regression.x)
        assert len(traces) == 1

    def test_a_step_inside_a_larger_function_is_checked_after_it(self, tmp_path, regression, read):
        watch = Watch(tmp_path)
        step = trainer("function", watch, regression)

        @tf.function
        def two_steps(x, y):
            step(x, y)
            return step(x, y)

        two_steps(regression.x, regression.y)
        watch.after_step()
        before = regression.weights()
        two_steps(regression.x, regression.y * 1e30)
        with pytest.raises(NonFiniteError) as caught:
            watch.after_step()
        assert caught.value.alert.step == 2
        assert all(np.array_equal(a, b) for a, b in zip(before, regression.weights(), strict=True))
        watch.close()
        assert read(tmp_path).session.series.first_step.tolist() == [0, 1, 2, 3]

    def test_the_users_own_errors_pass_through(self, tmp_path, regression):
        watch = Watch(tmp_path)

        @watch.step
        def step(x, y):
            tf.debugging.assert_less(tf.reduce_max(x), 100.0, message="too large")
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)

        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            step(regression.x * 1000, regression.y)
        step(regression.x, regression.y)


class TestTrouble:
    def test_a_step_that_never_applies_its_gradients_is_one_warning_when_the_watch_is_closed(
        self, tmp_path, regression
    ):
        watch = Watch(tmp_path)

        @watch.step
        def train_step(x, y):
            loss, gradients = regression.gradients(x, y)
            regression.optimizer.apply_gradients(zip(gradients, regression.variables))
            return loss

        train_step(regression.x, regression.y)
        with pytest.warns(
            UserWarning, match="recorded nothing: train_step is decorated .* called watch.apply_grad"
        ) as caught:
            watch.close()
        assert len(caught) == 1
        watch.close()

    def test_an_unwritable_logdir_is_one_warning_and_training_goes_on(self, tmp_path, regression):
        (tmp_path / "file").write_text("not a directory")
        watch = Watch(tmp_path / "file" / "run", window=2)
        step = trainer("function", watch, regression)
        with pytest.warns(UserWarning, match="cannot write to .*nanwatch.* training goes on") as caught:
            for _ in range(6):
                step(regression.x, regression.y)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(NonFiniteError):
                step(regression.x, regression.y * 1e30)
            watch.close()

    def test_misuse_is_refused_at_once(self, tmp_path, regression):
        with pytest.raises(SetupError, match=r"policy must be one of 'raise', 'skip', 'record'; got 'explode'"):
            Watch(tmp_path, policy="explode")
        watch, (loss, raw) = Watch(tmp_path), regression.gradients(regression.x, regression.y)
        pairs = list(zip(raw, regression.variables, strict=True))
        with pytest.raises(SetupError, match="raw must have one gradient for each pair; got 1 for 4 pairs"):
            watch.apply_gradients(regression.optimizer, pairs, raw=raw[:1], loss=loss)
        with pytest.raises(SetupError, match=r"at least one gradient; got none"):
            watch.apply_gradients(regression.optimizer, [(None, regression.variables[0])])
        with pytest.raises(SetupError, match="must be floating; 'count' is int32"):
            watch.tensor("count", tf.constant(1))
        watch.apply_gradients(regression.optimizer, pairs, loss=loss)
        with pytest.raises(SetupError, match="loss must be given to every apply_gradients of a watch, or to none"):
            watch.apply_gradients(regression.optimizer, pairs)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": 0}, "window must be a positive whole number; got 0"),
            ({"window": 2.5}, "window must be a positive whole number; got 2.5"),
            ({"flush_interval_s": 0.0}, "flush_interval_s must be positive; got 0.0"),
            ({"on_nonfinite": 3}, "on_nonfinite must be a function that takes a verdict; got 3"),
            ({"variables": [1, 2]}, "variables must be a list of variables.*; among them is a int"),
            ({"variables": tf.Variable([1.0, 2.0])}, "variables must be a list of variables.*; got a ResourceVariable"),
            ({"logdir": None}, "logdir must be a path, such as 'runs/critic'; got None"),
        ],
    )
    def test_an_invalid_option_is_refused_where_it_is_given(self, tmp_path, options, message):
        with pytest.raises(SetupError, match=message):
            Watch(**{"logdir": tmp_path, **options})

    def test_the_error_names_a_zip_that_was_used_up(self, tmp_path, regression):
        watch, (loss, raw) = Watch(tmp_path), regression.gradients(regression.x, regression.y)
        pairs = zip(raw, regression.variables, strict=True)
        list(pairs)
        with pytest.raises(SetupError, match="accumulate must be given at least one gradient; got none: was the zip"):
            watch.accumulate(pairs, loss=loss)

    def test_an_error_of_the_users_callback_does_not_hide_the_verdict(self, tmp_path, regression):
        def fail(verdict):
            raise KeyError(verdict.status)

        watch = Watch(tmp_path, on_nonfinite=fail, replay=False)
        step = trainer("function", watch, regression)
        with (
            pytest.warns(UserWarning, match="on_nonfinite failed: 'nonfinite'"),
            pytest.raises(NonFiniteError, match="Step 0"),
        ):
            step(regression.x, regression.y * float("inf"))

    def test_a_model_in_place_of_its_variables_is_refused_with_what_to_pass(self, tmp_path, regression):
        with pytest.raises(SetupError, match=r"such as model\.trainable_variables; got a Sequential"):
            Watch(tmp_path, regression.model)

    def test_a_bad_step_that_was_not_checked_is_reported_when_the_watch_is_closed(self, tmp_path, regression):
        watch = Watch(tmp_path)

        @tf.function
        def step(x, y):
            loss, raw = regression.gradients(x, y)
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)

        for y in (regression.y, regression.y * 1e30, regression.y):
            step(regression.x, y)
        with pytest.raises(NonFiniteError, match=r"^Step 1"):
            watch.close()

    def test_a_watch_that_is_never_closed_has_written_its_run_when_the_program_ends(self, tmp_path, read):
        program = (
            "import tensorflow as tf, tb_nanwatch\n"
            "def main():\n"
            f"    watch, w = tb_nanwatch.Watch({str(tmp_path)!r}), tf.Variable(1.0)\n"
            "    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)\n"
            "    for _ in range(5):\n"
            "        watch.apply_gradients(optimizer, [(tf.constant(0.5), w)], loss=w)\n"
            "main()\n"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
        assert read(tmp_path).verdict.steps_seen == 5

    def test_an_iterator_that_the_step_reads_is_not_advanced(self, tmp_path, regression):
        watch = Watch(tmp_path)
        batches = iter(tf.data.Dataset.from_tensors((regression.x, regression.y)).repeat())

        @watch.step
        def step():
            loss, raw = regression.gradients(*next(batches))
            watch.apply_gradients(regression.optimizer, zip(raw, regression.variables), loss=loss)
            return loss

        assert float(step()) > float(step())

    def test_variables_and_tensors_after_the_first_step_are_named_once(self, tmp_path, regression):
        watch = Watch(tmp_path)
        late = tf.Variable(1.0, name="late")
        loss, raw = regression.gradients(regression.x, regression.y)
        pairs = list(zip(raw, regression.variables, strict=True))
        watch.apply_gradients(DESCENT, pairs[:1], loss=loss)
        with pytest.warns(UserWarning, match=r"does not watch variable 'late': it came after the first step") as caught:
            for _ in range(2):
                watch.apply_gradients(DESCENT, [pairs[0], (tf.constant(1.0), late)], loss=loss)
        assert len(caught) == 1
