"""A layer or variable is named by its place in a model if its own name is not unique."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, Watch
from tb_nanwatch.watch.naming import describe
from tb_nanwatch.watch.owners import find_owners
from tb_nanwatch.watch.reachable import Reached


def stage(name, units=2):
    """Return a functional model whose layers have the same names as those of every other stage."""
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(units, name="dense", use_bias=False)(inputs)
    return keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(hidden), name=name)


def names(variables, **roots):
    owners = find_owners([Reached(name, root) for name, root in roots.items()], variables)
    return [variable.name for variable in describe(variables, [None] * len(variables), owners)]


class Scale(tf.Module):
    def __init__(self, name=None):
        super().__init__()
        self.scale = tf.Variable(1.0, name=name)


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [Scale(), Scale()]
        self.heads = {"left": Scale(), "right": Scale()}
        self.bias = tf.Variable(0.0)


class TestKeras:
    def test_layers_of_nested_models_are_named_by_their_model(self):
        inputs = keras.Input((2,))
        model = keras.Model(inputs, stage("decoder")(stage("encoder")(inputs)), name="whole")
        assert names(model.trainable_variables, model=model) == [
            "encoder/dense/kernel",
            "encoder/norm/gamma",
            "encoder/norm/beta",
            "decoder/dense/kernel",
            "decoder/norm/gamma",
            "decoder/norm/beta",
        ]

    def test_layers_of_separate_models_are_named_by_the_models(self):
        generator, critic = stage(None), stage("critic")
        variables = [generator.layers[1].kernel, critic.layers[1].kernel]
        assert names(variables, generator=generator, other=critic) == ["generator/dense/kernel", "critic/dense/kernel"]

    def test_a_model_without_a_name_is_named_by_its_attribute(self):
        class Gan(keras.Model):
            def __init__(self):
                super().__init__(name="gan")
                self.generator, self.critic = stage(None), stage(None)

        model = Gan()
        variables = [model.generator.layers[1].kernel, model.critic.layers[1].kernel]
        assert names(variables, model=model) == ["generator/dense/kernel", "critic/dense/kernel"]

    def test_blocks_of_one_name_in_a_list_are_named_by_their_place(self):
        class Block(keras.layers.Layer):
            def __init__(self):
                super().__init__(name="block")
                self.dense = keras.layers.Dense(2, name="dense", use_bias=False)

            def call(self, inputs):
                return self.dense(inputs)

        class Stack(keras.Model):
            def __init__(self):
                super().__init__(name="stack")
                self.blocks = [Block(), Block()]

            def call(self, inputs):
                return self.blocks[1](self.blocks[0](inputs))

        model = Stack()
        model(tf.ones([1, 2]))
        assert names(model.trainable_variables, model=model) == [
            "stack/blocks/0/dense/kernel",
            "stack/blocks/1/dense/kernel",
        ]

    @pytest.mark.parametrize(
        "model",
        [
            keras.Sequential([keras.Input([2]), keras.layers.Dense(2, name="a")], name="line"),
            stage("network"),
            keras.Sequential([keras.Input([3, 2]), keras.layers.Bidirectional(keras.layers.LSTM(2))]),
        ],
        ids=["sequential", "functional", "wrapped"],
    )
    def test_unique_paths_stay_as_they_are(self, model):
        assert names(model.trainable_variables, model=model) == [one.path for one in model.trainable_variables]

    def test_a_layer_that_two_models_share_has_one_name(self):
        shared, inputs = stage("shared"), keras.Input((2,))
        first, second = keras.Model(inputs, shared(inputs), name="a"), keras.Model(inputs, shared(inputs), name="b")
        assert len(set(names(shared.trainable_variables, first=first, second=second))) == 3

    def test_a_variable_that_another_layer_holds_belongs_to_the_layer_that_made_it(self):
        class Tied(keras.Model):
            def __init__(self):
                super().__init__(name="tied")
                self.inner = stage("inner")
                self.table = self.inner.layers[1].kernel

        model = Tied()
        assert names(model.trainable_variables, model=model)[0] == "dense/kernel"

    def test_a_variable_of_tensorflow_in_a_layer_is_named_by_its_attribute(self):
        class Scaled(keras.layers.Layer):
            def __init__(self):
                super().__init__(name="scaled")
                self.factor = tf.Variable(1.0)

        layer = Scaled()
        assert names([layer.factor], layer=layer) == ["scaled/factor"]


class TestModules:
    def test_variables_without_a_name_are_named_by_their_attributes(self):
        model = Net()
        assert names(model.trainable_variables, model=model) == [
            "model/bias",
            "model/blocks/0/scale",
            "model/blocks/1/scale",
            "model/heads/left/scale",
            "model/heads/right/scale",
        ]

    def test_variables_with_the_same_name_are_named_by_their_modules(self):
        left, right = Scale("scale"), Scale("scale")
        assert names([left.scale, right.scale], left=left, right=right) == ["left/scale", "right/scale"]

    def test_a_name_that_the_user_gave_stays(self):
        module = Scale("temperature")
        assert names([module.scale], module=module) == ["temperature"]

    def test_a_variable_outside_of_any_object_has_its_name_in_the_program(self):
        weight = tf.Variable(1.0)
        assert names([weight], weight=weight) == ["weight"]


class Trainer:
    """A loop in a class: the step is a method, and the models are attributes."""

    def __init__(self, logdir):
        self.left, self.right = stage(None), stage(None)
        self.optimizer, self.watch = keras.optimizers.SGD(0.1), Watch(logdir)

    def step(self, x):
        variables = self.left.trainable_variables + self.right.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.right(self.left(x)))
        self.apply(zip(tape.gradient(loss, variables), variables), loss)

    def apply(self, pairs, loss):
        self.watch.apply_gradients(self.optimizer, pairs, loss=loss)


def closure_step(logdir):
    left, right = stage(None), stage(None)
    watch, optimizer = Watch(logdir), keras.optimizers.SGD(0.1)

    def step(x):
        variables = left.trainable_variables + right.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(right(left(x)))
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, variables), variables), loss=loss)

    return watch, step


def method_step(logdir):
    trainer = Trainer(logdir)
    return trainer.watch, trainer.step


def replicated_step(logdir):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        watch, step = closure_step(logdir)
    return watch, lambda x: strategy.run(step, args=(x,))


@pytest.mark.parametrize("is_eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("make", [closure_step, method_step])
def test_a_custom_loop_names_layers_by_the_models_that_its_step_uses(make, is_eager, tmp_path, read):
    check_layers(make, tmp_path, read, is_eager=is_eager)


def test_so_does_a_step_that_a_strategy_runs(tmp_path, read):
    check_layers(replicated_step, tmp_path, read, is_eager=False)


def check_layers(make, tmp_path, read, *, is_eager):
    watch, step = make(tmp_path)
    with watch:
        (step if is_eager else watch.step(step))(tf.ones([2, 2]))
    layers = [variable.layer for variable in read(tmp_path).session.header.variables]
    assert list(dict.fromkeys(layers)) == ["left/dense", "left/norm", "right/dense", "right/norm"]


class Inverse(keras.layers.Layer):
    def call(self, inputs):
        return 1.0 / inputs


def nested():
    """Return a model of two, with the same layers in each."""

    def half(name):
        inputs = keras.Input((2,))
        kept = keras.layers.Dense(2, "relu", kernel_initializer="identity", name="dense")(inputs)
        return keras.Model(inputs, Inverse(name="inverse")(kept), name=name)

    inputs = keras.Input((2,))
    return keras.Model(inputs, half("decoder")(half("encoder")(inputs)))


def test_an_operation_is_in_the_layer_of_its_own_model_with_variables_or_without(tmp_path):
    model, optimizer = nested(), keras.optimizers.SGD(0.0)
    with Watch(tmp_path, model.trainable_variables) as watch:

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x))
            gradients = tape.gradient(loss, model.trainable_variables)
            watch.apply_gradients(optimizer, zip(gradients, model.trainable_variables), loss=loss)

        step(tf.ones([4, 2]))
        model.get_layer("decoder").get_layer("dense").bias.assign([-9.0, 0.0])
        with pytest.raises(NonFiniteError) as caught:
            step(tf.ones([4, 2]))
    assert caught.value.verdict.first.layer == "decoder/inverse"


def test_in_fit_a_bad_variable_and_a_layers_output_have_the_name_of_their_own_model(tmp_path, read):
    model = nested()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.get_layer("decoder").get_layer("dense").kernel.assign([[np.nan, 0.0], [0.0, 1.0]])
    callback = NanWatchCallback(tmp_path, activations_every=1)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(np.ones([4, 2]), np.ones([4, 2]), verbose=0, callbacks=[callback])
    first = caught.value.verdict.first
    assert (first.phase, first.layer, first.variable) == ("weights", "decoder/dense", "decoder/dense/kernel")
    assert read(tmp_path).session.header.tensors == (
        "encoder/dense",
        "encoder/inverse",
        "decoder/dense",
        "decoder/inverse",
    )


def test_two_layers_with_the_same_name_have_separate_statistics(tmp_path):
    left, right = stage("left"), stage("right")
    variables, optimizer = left.trainable_variables + right.trainable_variables, keras.optimizers.SGD(0.0)
    with Watch(tmp_path, variables, policy="raise") as watch:

        @watch.step
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(right(left(x, training=True), training=True))
            watch.apply_gradients(optimizer, zip(tape.gradient(loss, variables), variables), loss=loss)

        step(tf.ones([4, 2]))
        left.get_layer("norm").moving_variance.assign([np.nan, 1.0])
        with pytest.raises(NonFiniteError) as caught:
            step(tf.ones([4, 2]))
    first = caught.value.verdict.first
    assert (first.phase, first.variable) == ("state", "left/norm/moving_variance")
