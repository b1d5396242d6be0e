"""The training step that many cases share."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch


def descent():
    """Return an optimizer that does not move the variable, so that each step is known by hand."""
    return keras.optimizers.SGD(0.0)


def train(logdir, loss_of, batches, *, weight=1.0, name="model/weight", dtype="float32", make_optimizer=descent):
    """Train one variable with a loss of it and a batch."""
    variable = tf.Variable(tf.cast(weight, dtype), name=name)
    optimizer = make_optimizer()
    watch = Watch(logdir, [variable])

    @watch.step
    def train_step(batch):
        with tf.GradientTape() as tape:
            loss = loss_of(variable, batch)
        gradients = tape.gradient(loss, [variable])
        watch.apply_gradients(optimizer, zip(gradients, [variable]), loss=loss)
        return loss

    with watch:
        for batch in batches:
            train_step(batch if isinstance(batch, tf.RaggedTensor | tf.SparseTensor) else tf.constant(batch))
