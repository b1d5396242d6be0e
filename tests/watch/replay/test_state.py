"""A replay changes nothing: not what the step keeps in variables, not what its Python code sees and writes."""

from __future__ import annotations

import random
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function import polymorphic_function

from tb_nanwatch import NonFiniteError, Watch
from tb_nanwatch.watch.replay import probe
from tests.watch.replay.programs import BAD, GOOD, bits, log_step


class Everything:
    """A network with every kind of state that a step may have, all of it on the way to the loss."""

    def __init__(self, logdir, **options):
        keras.utils.set_random_seed(5)
        hidden = keras.layers.Dense(8, name="hidden", kernel_constraint=keras.constraints.MaxNorm(3.0))
        self.dropout = keras.layers.Dropout(0.5, name="dropout")
        layers = [hidden, keras.layers.BatchNormalization(name="norm"), self.dropout, keras.layers.Dense(1)]
        self.model = keras.Sequential(layers, name="model")
        self.model.build((None, 3))
        self.optimizer, self.metric = keras.optimizers.Adam(0.01), keras.metrics.Mean(name="metric")
        self.generator, self.counter = tf.random.Generator.from_seed(2), tf.Variable(0, dtype=tf.int64, trainable=False)
        self.optimizer.build(self.model.trainable_variables)
        self.drawn, self.interrupt = [], {}
        self.watch = Watch(logdir, **options)
        self.step = self.watch.step(self.train)
        self.x, self.y = tf.random.normal((16, 3), seed=1), tf.random.normal((16, 1), seed=2)

    @property
    def state(self):
        own = [*self.model.variables, *self.optimizer.variables, *self.metric.variables]
        return [*own, self.dropout.seed_generator.state, self.generator.state, self.counter]

    def train(self, x, y):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            count = self.counter.assign_add(1)
            dropped, noise = self.dropout(tf.ones(32), training=True), self.generator.normal((16, 1))
            scale = tf.numpy_function(self.observe, [dropped, noise, count], tf.float32)
            self.metric.update_state(tf.reduce_mean(dropped))
            error = tf.square(self.model(x, training=True) + noise - y)
            loss = tf.reduce_mean(error) * tf.ensure_shape(scale, []) * self.metric.result()
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self.watch.apply_gradients(self.optimizer, zip(gradients, variables), loss=loss)

    def observe(self, *drawn):
        self.drawn.append([np.array(each).tobytes() for each in drawn])
        self.interrupt.get(len(self.drawn), lambda: None)()
        return np.float32(1.0)

    def bad_step(self):
        with pytest.raises(NonFiniteError) as caught:
            self.step(self.x, self.y * 1e30)
        return caught.value.alert.replay


def trained(logdir, **options):
    net = Everything(logdir, **options)
    for _ in range(3):
        net.step(net.x, net.y)
    return net


def changed(net, before):
    names = [getattr(variable, "path", variable.name) for variable in net.state]
    return [name for name, a, b in zip(names, before, bits(net.state), strict=True) if a != b]


class TestVariables:
    def test_after_a_replay_every_variable_has_its_value_from_before_the_bad_step(self, tmp_path):
        net = trained(tmp_path)
        before = bits(net.state)
        assert net.bad_step().outcome == "found"
        assert changed(net, before) == []

    def test_the_replay_draws_what_the_step_drew(self, tmp_path):
        net = trained(tmp_path)
        net.bad_step()
        first, second, third, bad, again = net.drawn
        assert bad == again
        assert len({tuple(each) for each in (first, second, third, bad)}) == 4

    def test_training_continues_as_it_does_without_a_replay(self, tmp_path):
        ends = []
        for replay in (True, False):
            net = trained(tmp_path / str(replay), replay=replay)
            assert (net.bad_step() is None) == (not replay)
            for _ in range(2):
                net.step(net.x, net.y)
            ends.append((bits(net.state), net.drawn[-1], tf.random.uniform([4]).numpy().tolist()))
        assert ends[0] == ends[1]

    def test_variables_that_an_update_made_non_finite_stay_non_finite(self, tmp_path):
        weights = [tf.Variable([3.0, 1.0], name="layer/w"), tf.Variable(1.0, name="other/w")]
        optimizer, watch = keras.optimizers.Adam(0.1, epsilon=0.0), Watch(tmp_path)

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = weights[0][0] * x + weights[1]  # and 0 / 0 where there is no gradient
            watch.apply_gradients(optimizer, zip(tape.gradient(loss, weights), weights), loss=loss)

        step(tf.constant(-1.0))
        state = [*weights, *optimizer.variables]
        before = bits(state)
        with pytest.raises(NonFiniteError) as caught:
            step(tf.constant(1.0))
        assert (caught.value.alert.replay.outcome, caught.value.verdict.first.phase) == ("found", "update")
        assert np.isnan(weights[0].numpy()).tolist() == [False, True]
        assert bits(state) == before


def fail():
    raise ValueError("the second run cannot have this")


class TestFailure:
    def test_a_replay_that_fails_restores_what_it_wrote(self, tmp_path):
        net = trained(tmp_path)
        before, net.interrupt[5] = bits(net.state), fail
        replay = net.bad_step()
        assert (replay.outcome, len(net.drawn)) == ("failed", 5)
        assert replay.notes == ("The step could not be run again: ValueError: the second run cannot have this.",)
        assert changed(net, before) == []

    def test_a_replay_that_exceeds_its_time_restores_what_it_wrote(self, tmp_path, monkeypatch):
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: clock.now))
        net = trained(tmp_path)
        before, net.interrupt[5] = bits(net.state), lambda: setattr(clock, "now", 121.0)
        replay = net.bad_step()
        note = "The step could not be run again: it took longer than 120 seconds and was stopped."
        assert (replay.outcome, replay.notes, len(net.drawn)) == ("failed", (note,), 5)
        assert changed(net, before) == []

    @pytest.mark.parametrize("at", [4, 5])
    def test_tensorflow_is_left_as_it_was(self, at, tmp_path):
        call = polymorphic_function.Function.__call__
        net = trained(tmp_path)
        net.interrupt[5] = fail if at == 5 else print
        assert net.bad_step().outcome == ("failed" if at == 5 else "found")
        assert polymorphic_function.Function.__call__ is call
        assert context.context().op_callbacks == []


class TestPython:
    def test_the_steps_code_runs_once_more_and_is_not_traced_again_by_training(self, tmp_path):
        traced = []
        program = log_step(tmp_path, lambda x: traced.append(x) or tf.math.log(x))
        program.step(GOOD)
        assert len(traced) == 1
        program.bad_step()
        assert len(traced) == 2
        program.step(GOOD)
        program.step(GOOD)
        assert len(traced) == 2

    @pytest.mark.parametrize("draw", [random.random, np.random.standard_normal])
    def test_the_generators_of_python_and_numpy_are_restored(self, draw, tmp_path):
        after = []
        for replay in (True, False):
            keras.utils.set_random_seed(1)
            program = log_step(tmp_path / str(replay), lambda x: tf.math.log(x) + draw(), replay=replay)
            program.step(GOOD)
            assert (program.bad_step().alert.replay is not None) == replay
            after.append(draw())
        assert after[0] == after[1]

    def test_a_python_function_runs_again_only_where_the_loss_needs_it(self, tmp_path):
        needed, noted = [], []

        def through(x):
            y = tf.ensure_shape(tf.numpy_function(lambda a: needed.append(a) or a, [x], tf.float32), [2])
            tf.numpy_function(noted.append, [x], [])
            return x * 0.0 + tf.math.log(y)

        program = log_step(tmp_path, through)
        program.step(GOOD)
        assert (len(needed), len(noted)) == (1, 1)
        assert program.bad_step().alert.replay.outcome == "found"
        assert (len(needed), len(noted)) == (3, 2)


class TestOutput:
    def test_nothing_is_printed_twice(self, tmp_path):
        out = tmp_path / "out"

        def say(*what):
            tf.print(*what, output_stream=f"file://{out}")

        def through(x):
            say("before")
            y = tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), [2])
            for number in tf.range(2):
                say("loop", number)
                y = tf.identity(y)
            if tf.reduce_sum(y) > 0.0:
                say("branch")
                y = tf.identity(y)
            say("after", tf.reduce_sum(y))
            return tf.math.log(y)

        program = log_step(tmp_path / "run", through)
        program.step(GOOD)
        lines = ["before", "loop 0", "loop 1", "branch", "after"]
        assert [line.partition(" 3")[0] for line in out.read_text().splitlines()] == lines
        out.unlink()
        assert program.bad_step().alert.replay.outcome == "found"
        assert [line.partition(" 2")[0] for line in out.read_text().splitlines()] == lines

    def test_no_summary_is_written_twice(self, tmp_path):
        writer = tf.summary.create_file_writer(str(tmp_path / "tb"))

        def through(x):
            for number in tf.range(2):
                tf.summary.write("round", x, step=0)
                x += tf.cast(number, tf.float32) * 0.0
            with tf.summary.record_if(True):
                tf.summary.write("always", x, step=0)
            y = tf.numpy_function(lambda a: a, [x], tf.float32)
            return tf.math.log(tf.ensure_shape(y, [2]))

        program = log_step(tmp_path / "run", through)
        with writer.as_default():
            program.step(GOOD)
            assert program.bad_step(BAD).alert.replay.outcome == "found"
        writer.close()
        records = tf.data.TFRecordDataset([str(file) for file in (tmp_path / "tb").iterdir()])
        events = [Event.FromString(record.numpy()) for record in records]
        tags = [value.tag for event in events for value in event.summary.value]
        assert sorted(tags) == ["always"] * 2 + ["round"] * 4
