"""The training step that many cases share."""

from __future__ import annotations

import keras
import tensorflow as tf

from tb_nanwatch import Watch


def train(logdir, loss_of, batches, *, weight=1.0, name="model/weight"):
    """Train one variable with a loss of it and a batch. It does not move, so that each step is known by hand."""
    variable = tf.Variable(weight, name=name, dtype=tf.float32)
    optimizer = keras.optimizers.SGD(0.0)
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
