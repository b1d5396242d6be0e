"""Steps whose origin lies in state that is not trained: statistics, counters, generators, slots, iterators."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tb_nanwatch import Watch
from tests.watch.replay.case import FORWARD_OR_LOSS, origin


# One over the deviation of a feature that never changes was Inf before training began; 0 * Inf is NaN.
@origin(step=0, phase={"weights", "state"}, layer="scaler", variable="scaler/inverse_deviation")
def scaler_that_was_inf_before_training(logdir):
    kernel = tf.Variable([0.5, 0.5], name="linear/kernel")
    table = np.array([[1.0, 2.0], [3.0, 2.0]], "float32")
    with np.errstate(divide="ignore"):
        inverse = tf.Variable(1.0 / table.std(axis=0), trainable=False, name="scaler/inverse_deviation")
    optimizer = keras.optimizers.SGD(0.1)
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(rows):
        with tf.GradientTape() as tape:
            scaled = (rows - 2.0) * inverse
            loss = tf.reduce_mean(tf.square(tf.linalg.matvec(scaled, kernel)))
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        train_step(tf.constant(table))


# A code without near samples has the mean 0 / 0. The step writes it to a variable and reads it again.
@origin(step=1, phase=FORWARD_OR_LOSS, op="RealDiv", line="mean of a code that nothing is near to")
def dead_code_of_a_quantiser(logdir):
    keras.utils.set_random_seed(1)
    codes = tf.Variable([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]], trainable=False, name="quantiser/codes")
    encoder = tf.Variable(tf.eye(2), name="encoder/kernel")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [encoder])

    def update_codes(nearest, vectors):
        members = tf.one_hot(nearest, 3)
        sums = tf.matmul(members, vectors, transpose_a=True)
        means = sums / tf.reduce_sum(members, axis=0)[:, None]  # origin: mean of a code that nothing is near to
        codes.assign(0.5 * codes + 0.5 * means)

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            vectors = x @ encoder
            distances = tf.reduce_sum((vectors[:, None] - codes) ** 2, axis=-1)
            update_codes(tf.argmin(distances, axis=1), tf.stop_gradient(vectors))
            loss = tf.reduce_mean(tf.abs(vectors - tf.reduce_mean(codes, axis=0)))
        gradients = tape.gradient(loss, [encoder])
        watch.apply_gradients(optimizer, zip(gradients, [encoder]), loss=loss)

    with watch:
        train_step(tf.constant([[0.0, 0.1], [1.0, 1.1], [9.0, 8.0]]))
        train_step(tf.constant([[0.0, 0.1], [1.0, 1.1], [0.0, 0.2]]))


# The temperature falls with a counter that the step itself increments. The replay needs the counter's value from
# before the step.
@origin(step=4, phase=FORWARD_OR_LOSS, op="RealDiv", line="temperature by a counter")
def counter_that_anneals_a_temperature(logdir):
    logits = tf.Variable([0.1, -0.2], name="policy/logits")
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="counter")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [logits])

    def temperature():
        seen = tf.cast(counter.assign_add(1), tf.float32)
        return 5.0 - seen

    @watch.step
    def train_step(targets):
        with tf.GradientTape() as tape:
            cooled = (logits - targets) / temperature()  # origin: temperature by a counter
            loss = tf.reduce_sum(cooled**2)
        gradients = tape.gradient(loss, [logits])
        watch.apply_gradients(optimizer, zip(gradients, [logits]), loss=loss)

    with watch:
        for _ in range(8):
            train_step(tf.constant([1.0, 0.0]))


# The generator's state is a variable of integers. A mask of four zeros is drawn once in sixteen times.
@origin(step=5, phase=FORWARD_OR_LOSS, op="RealDiv", line="mean over what a generator chose")
def generator_that_chooses_nothing(logdir):
    generator = tf.random.Generator.from_seed(4)
    weight = tf.Variable([1.0, 2.0, 3.0, 4.0], name="line/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x):
        mask = tf.cast(generator.uniform((4,)) < 0.5, tf.float32)
        with tf.GradientTape() as tape:
            chosen = tf.reduce_sum(weight * x * mask) / tf.reduce_sum(mask)  # origin: mean over what a generator chose
            loss = chosen**2
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for _ in range(80):
            train_step(tf.ones(4))


# The graph's own kernels hold the state of these draws, and nothing can restore it: a second run may draw another mask.
# Naming no operation is right, and naming another line is wrong.
@origin(step=1, phase=FORWARD_OR_LOSS, op={"RealDiv", None}, line="mean over what chance chose")
def chance_that_cannot_be_repeated(logdir):
    tf.random.set_seed(2)
    weight = tf.Variable([1.0, 2.0, 3.0], name="line/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step(x):
        mask = tf.cast(tf.random.uniform((3,), seed=7) < 0.4, tf.float32)
        with tf.GradientTape() as tape:
            chosen = tf.reduce_sum(weight * x * mask) / tf.reduce_sum(mask)  # origin: mean over what chance chose
            loss = tf.abs(chosen)
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for _ in range(60):
            train_step(tf.ones(3))


# The batch is drawn within the step. A second run draws the next one, in which the exponential overflows too: that
# is no origin of this step.
@origin(step=2, phase=FORWARD_OR_LOSS, op={"Log", None}, line="log of what an iterator brought")
def iterator_that_has_moved_on(logdir):
    rows = tf.data.Dataset.from_tensor_slices([[1.0, 2.0], [2.0, 3.0], [0.0, 1.0], [500.0, 1.0], [1.0, 1.0]])
    batches = iter(rows)
    weight = tf.Variable([1.0, 1.0], name="line/weight")
    optimizer = keras.optimizers.SGD(0.0)
    watch = Watch(logdir, [weight])

    @watch.step
    def train_step():
        x = next(batches)
        with tf.GradientTape() as tape:
            logs = tf.math.log(x)  # origin: log of what an iterator brought
            loss = tf.reduce_sum(weight * (logs + tf.exp(x)))
        gradients = tape.gradient(loss, [weight])
        watch.apply_gradients(optimizer, zip(gradients, [weight]), loss=loss)

    with watch:
        for _ in range(5):
            train_step()


# Adam's second moment came from the checkpoint of a run that had diverged. The phase of a slot is left open.
@origin(step=0, phase={"weights", "state", "update"}, layer={"linear", "adam", None})
def slot_of_adam_that_was_nan_before_training(logdir):
    kernel = tf.Variable([0.5, 0.5], name="linear/kernel")
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build([kernel])
    (velocity,) = [slot for slot in optimizer.variables if "velocity" in slot.path]
    velocity.assign([np.nan, 1.0])
    watch = Watch(logdir, [kernel])

    @watch.step
    def train_step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((kernel * x - 1.0) ** 2)
        gradients = tape.gradient(loss, [kernel])
        watch.apply_gradients(optimizer, zip(gradients, [kernel]), loss=loss)

    with watch:
        for _ in range(2):
            train_step(tf.constant([1.0, 2.0]))
