"""A step that the user asks to replay: the verdict is that of a bad step, and the replay changes nothing."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch import Watch
from tb_nanwatch.errors import SetupError
from tests.watch.conftest import Regression
from tests.watch.replay.programs import BAD, GOOD, bits, log_step


def what(verdict):
    first = verdict.first
    return verdict.status, first.step, first.op.type, first.evidence, first.samples


def test_a_bad_step_is_named_with_its_line_and_a_healthy_one_is_finite(tmp_path):
    program = log_step(tmp_path)
    program.step(GOOD)
    verdict = program.watch.replay_step(BAD)
    assert what(verdict) == ("nonfinite", 1, "Log", "replay", (0,))
    assert verdict.first.source.text == "loss = weight * tf.reduce_sum(through(x, *more))"
    verdict = program.watch.replay_step(GOOD)
    assert (verdict.status, verdict.text) == ("finite", "Every operation of the step was finite.")
    assert (verdict.first, verdict.chain, verdict.notes) == (None, (), ())


def test_the_stack_of_an_origin_has_no_frames_of_the_watch(tmp_path):
    (origin, *_) = log_step(tmp_path).watch.replay_step(BAD).chain
    own = Path(tb_nanwatch.__file__).parent
    assert [frame for frame in origin.stack if Path(frame.file).resolve().is_relative_to(own)] == []
    assert (origin.source.line, origin.source.function) in [(frame.line, frame.function) for frame in origin.stack]


def test_an_update_that_would_make_a_variable_non_finite_is_named_though_it_is_not_applied(tmp_path):
    weight, optimizer, watch = tf.Variable(3.4e38, name="layer/w"), keras.optimizers.SGD(1.0), Watch(tmp_path)

    @watch.step
    def step(x):
        with tf.GradientTape() as tape:
            loss = (weight - 3.4e38) * x
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    first = watch.replay_step(tf.constant(-1e38)).first
    assert (first.phase, first.layer, first.kind) == ("update", "layer", "pos_inf")
    assert float(weight) == pytest.approx(3.4e38)


class Trainer:
    """A network that is not built before its first step."""

    def __init__(self, logdir):
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dense(4, name="a"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
        self.model = keras.Sequential([*layers, keras.layers.Dense(1, name="b")], name="model")
        self.optimizer, self.watch = keras.optimizers.Adam(0.1), Watch(logdir, window=2)
        self.step = self.watch.step(self.train)
        self.x = tf.constant(np.random.default_rng(0).normal(size=(6, 3)), tf.float32)

    def train(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.model(x, training=True) ** 2)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self.watch.apply_gradients(self.optimizer, zip(gradients, variables), loss=loss)


class TestNothingIsChanged:
    def test_training_after_a_replay_before_the_first_step_is_as_without(self, tmp_path):
        ends = []
        for asked in (True, False):
            trainer = Trainer(tmp_path / str(asked))
            if asked:
                assert trainer.watch.replay_step(trainer.x).status == "finite"
                assert trainer.watch.replay_step(trainer.x * np.nan).first.tensor == "x"
                assert not (tmp_path / "True").exists()
            for _ in range(3):
                trainer.step(trainer.x)
            ends.append(bits([*trainer.model.variables, *trainer.optimizer.variables]))
        assert ends[0] == ends[1]

    def test_a_replay_between_steps_changes_neither_the_variables_nor_the_log(self, tmp_path, read):
        trainer = Trainer(tmp_path)
        for _ in range(4):
            trainer.step(trainer.x)
        state = [*trainer.model.variables, *trainer.optimizer.variables]
        before, files = bits(state), {path: path.stat().st_size for path in tmp_path.rglob("*")}
        for x in (trainer.x, trainer.x * np.inf):
            trainer.watch.replay_step(x)
        assert bits(state) == before
        assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == files
        trainer.step(trainer.x)
        trainer.watch.close()
        verdict = read(tmp_path).verdict
        assert (verdict.status, verdict.steps_seen) == ("finite", 5)


class TestEveryKindOfStep:
    def test_before_the_first_step_a_bad_weight_is_a_weight(self, tmp_path):
        trainer = Trainer(tmp_path)
        trainer.model.build((None, 3))
        trainer.model.layers[0].bias.assign([np.inf] * 4)
        first = trainer.watch.replay_step(trainer.x).first
        assert (first.step, first.phase, first.variable, first.layer) == (0, "weights", "model/a/bias", "model/a")

    @pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"input_signature": [tf.TensorSpec([None])]}])
    def test_a_tf_function(self, options, tmp_path):
        weight, optimizer, watch = tf.Variable(1.0, name="line/weight"), keras.optimizers.SGD(0.0), Watch(tmp_path)

        @watch.step
        @tf.function(**options)
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.math.log(weight * x))
            watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

        assert what(watch.replay_step(BAD)) == ("nonfinite", 0, "Log", "replay", (0,))
        step(GOOD)
        assert what(watch.replay_step(BAD)) == ("nonfinite", 1, "Log", "replay", (0,))

    def test_a_method_takes_its_instance_first(self, tmp_path):
        watch = Watch(tmp_path)

        class Model:
            def __init__(self, scale):
                self.weight, self.scale = tf.Variable(1.0, name="line/weight"), scale
                self.optimizer = keras.optimizers.SGD(0.0)

            @watch.step
            def step(self, x):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(tf.math.log(self.weight * x * self.scale))
                pairs = [(tape.gradient(loss, self.weight), self.weight)]
                watch.apply_gradients(self.optimizer, pairs, loss=loss)

        assert watch.replay_step(Model(1.0), GOOD).status == "finite"
        assert what(watch.replay_step(Model(0.0), GOOD)) == ("nonfinite", 0, "Log", "replay", (0, 1))

    def test_arguments_by_name_and_in_containers(self, tmp_path):
        program = log_step(tmp_path, lambda x, batch: tf.math.log(x * batch["rows"][0]))
        verdict = program.watch.replay_step(GOOD, {"rows": [np.float32([np.nan, 1.0])]})
        assert (verdict.first.phase, verdict.first.tensor, verdict.first.samples) == (
            "input",
            "more[0]['rows'][0]",
            (0,),
        )

    def test_a_number_that_is_nan_is_an_argument_too(self, tmp_path):
        program = log_step(tmp_path, lambda x, half, scale: x * (2 * half) * scale)
        verdict = program.watch.replay_step(GOOD, np.float32("nan"), 1.0)
        first = verdict.first
        assert (first.phase, first.tensor, first.op, first.source) == ("input", "more[0]", None, None)
        assert [link.op.type for link in verdict.chain[1:]][:1] == ["Mul"]

    def test_neither_of_two_numbers_that_are_nan_is_named(self, tmp_path):
        program = log_step(tmp_path, lambda x, half, scale: x * half + scale)
        first = program.watch.replay_step(GOOD, float("nan"), float("nan")).first
        assert (first.phase, first.tensor, first.op, first.entry.way) == ("input", None, None, "argument")


def test_the_batch_of_a_bad_step_reproduces_it_in_another_program(tmp_path):
    def program(logdir):
        net, watch = Regression(), Watch(logdir)

        @watch.step
        def step(x, y, *, scale):
            loss, raw = net.gradients(x, y * scale)
            watch.apply_gradients(net.optimizer, zip(raw, net.variables), loss=loss)

        return net, watch, step

    net, watch, step = program(tmp_path / "first")
    with pytest.raises(tb_nanwatch.NonFiniteError) as caught:
        step(net.x, net.y, scale=tf.constant(1e30))
    watch.close()
    batch = tb_nanwatch.load_batch(tmp_path / caught.value.verdict.first.batch)
    _, watch, step = program(tmp_path / "second")
    verdict = watch.replay_step(*batch.args, **batch.kwargs)
    assert (verdict.first.op, verdict.first.source) == (
        caught.value.verdict.first.op,
        caught.value.verdict.first.source,
    )
    assert [link.counts for link in verdict.chain] == [link.counts for link in caught.value.verdict.chain]
    with pytest.raises(tb_nanwatch.NonFiniteError):
        step(*batch.args, **batch.kwargs)


class TestMisuse:
    def test_a_watch_without_a_step_or_with_several_is_refused(self, tmp_path):
        watch = Watch(tmp_path)
        with pytest.raises(SetupError, match="replay_step must have one step to run: this watch decorated 0"):
            watch.replay_step(GOOD)
        for _ in range(2):
            watch.step(lambda x: x)
        with pytest.raises(SetupError, match="this watch decorated 2"):
            watch.replay_step(GOOD)

    def test_a_step_that_cannot_run_by_hand_is_an_error_with_the_reason(self, tmp_path):
        program = log_step(tmp_path)
        with pytest.raises(
            SetupError, match=r"could not be run again: .*takes from 1 to 2 positional arguments but 3 were given"
        ):
            program.watch.replay_step(GOOD, 3, "too many")
        watch = Watch(tmp_path)
        watch.step(tf.math.log)
        with pytest.raises(SetupError, match=r"could not be run again: it did not reach watch\.apply_gradients\."):
            watch.replay_step(GOOD)
