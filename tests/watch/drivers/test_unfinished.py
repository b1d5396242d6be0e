"""A step that an operation's error ends: the user gets the error with a note, and the log records the step."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, Watch

GOOD, BAD = [1.0, 1.0], [-1.0, -1.0]


def line_of(marker):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# {marker}"))


def chosen(logits):
    action = tf.random.categorical(logits[None], 1)[0, 0]
    return -tf.nn.log_softmax(logits)[action]  # the choice


def checked(logits):
    return tf.reduce_sum(tf.debugging.check_numerics(logits, "my loss"))  # the check


def asserted(logits):
    tf.debugging.assert_less(logits, 9.0)
    return tf.reduce_sum(logits)


def trained(logdir, loss_of, batches, **options):
    """Train on batches, and return the watch and the error of the last step."""
    weight, optimizer = tf.Variable([1.0, 2.0], name="weight"), keras.optimizers.SGD(0.1)
    optimizer.build([weight])
    watch = Watch(logdir, [weight], **options)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(weight * tf.math.log(x))  # the log
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    for batch in batches[:-1]:
        train_step(tf.constant(batch))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        train_step(tf.constant(batches[-1]))
    watch.close()
    assert caught.traceback[-1].path.name == "execute.py"
    return caught.value


@pytest.mark.parametrize("policy", ["raise", "skip", "record"])
def test_a_nan_behind_an_index_that_ends_the_step_is_found(tmp_path, read, policy):
    error = trained(tmp_path, chosen, [GOOD, [2.0, 1.0], BAD], policy=policy)
    verdict = read(tmp_path).verdict
    first = verdict.first
    assert (verdict.status, first.step, first.phase, first.op.type) == ("nonfinite", 2, "forward", "Log")
    assert first.source.line == line_of("the log")
    assert [warning.kind for warning in verdict.warnings] == ["unfinished-step"]
    assert verdict.warnings[0].text.startswith("Step 2 did not end: InvalidArgumentError: slice index ")
    (note,) = error.__notes__
    assert note.startswith("tb_nanwatch: Step 2: NaN first appeared in the output of Log (")


@pytest.mark.parametrize("loss_of", [checked, asserted])
def test_a_nan_that_a_check_of_the_program_refuses_is_found(tmp_path, read, loss_of):
    trained(tmp_path, loss_of, [GOOD, BAD])
    first = read(tmp_path).verdict.first
    assert (first.step, first.op.type, first.source.line) == (1, "Log", line_of("the log"))


def test_in_a_finite_step_only_the_operation_of_the_error_is_named(tmp_path, read):
    def looked_up(logits):
        row = tf.gather(tf.constant([3.0, 4.0]), tf.cast(tf.round(tf.exp(logits[0])), tf.int32) - 1)
        return tf.reduce_sum(logits * row)

    error = trained(tmp_path, looked_up, [GOOD, [7.0, 1.0]])
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.first, verdict.steps_seen) == ("warning", None, 1)
    (warning,) = verdict.warnings
    message = "Step 1 did not end: InvalidArgumentError: indices = 6 is not in [0, 2). The error came from GatherV2 ("
    assert warning.text.startswith(message)
    assert verdict.text.startswith("Finite in all 1 steps. Step 1 did not end: ")
    assert error.__notes__ == [f"tb_nanwatch: {warning.text} For more: nanwatch {tmp_path}"]


def test_a_first_step_that_does_not_end_is_recorded(tmp_path, read):
    trained(tmp_path, checked, [BAD])
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.first.step, verdict.first.op.type) == ("nonfinite", 0, "Log")


def test_layers_of_a_step_that_an_error_ended_are_named_by_their_model(tmp_path, read):
    def network():
        inputs = keras.Input([2])
        hidden = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones", name="hidden")(inputs)
        return keras.Model(inputs, keras.layers.Activation(tf.math.log, name="log")(hidden))

    actor, critic = network(), network()
    variables, optimizer = [*actor.trainable_variables, *critic.trainable_variables], keras.optimizers.SGD(0.1)
    watch = Watch(tmp_path, variables)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = checked(actor(tf.abs(x)) + critic(x))
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, variables), variables), loss=loss)

    train_step(tf.constant([GOOD]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        train_step(tf.constant([BAD]))
    watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.op.type, first.layer) == (1, "Log", "critic/log")


def test_a_data_set_that_ends_inside_a_step_is_no_fault(tmp_path, read):
    weight, optimizer = tf.Variable([1.0, 2.0], name="weight"), keras.optimizers.SGD(0.1)
    optimizer.build([weight])
    watch, batches = Watch(tmp_path, [weight]), iter(tf.data.Dataset.from_tensors([1.0, 2.0]))

    @watch.step
    def train_step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight * next(batches))
        watch.apply_gradients(optimizer, [(tape.gradient(loss, weight), weight)], loss=loss)

    train_step()
    with pytest.raises(tf.errors.OutOfRangeError) as caught:
        train_step()
    assert not hasattr(caught.value, "__notes__")
    watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.text, verdict.warnings) == ("finite", "Finite in all 1 steps.", ())


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_label_that_ends_fit_is_named(tmp_path, read, run_eagerly):
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=run_eagerly)
    x, y = np.ones([8, 2], "float32"), np.array([0, 1, 2, 1, 0, 3, 2, 1])
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[NanWatchCallback(tmp_path)])
    verdict = read(tmp_path).verdict
    assert (verdict.status, verdict.steps_seen) == ("warning", 1)
    assert verdict.warnings[0].text.startswith(
        "Step 1 did not end: InvalidArgumentError: Received a label value of 3 which is outside the valid range of ["
    )
