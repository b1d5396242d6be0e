"""A critic of reinforcement learning that diverges with relu and elu, and not with tanh.

The critic estimates the return of a pendulum's state: five weight-normalised layers ``x V g / ||V|| + b``,
plain gradient descent, and the squared error to the one-step target ``r + 0.99 value(next state)``, without a
target network. The rewards are the environment's own, and nothing plants a NaN.

Why it diverges. Gradient descent overshoots where the curvature of the loss exceeds 2 / learning rate, here
10,000. The outputs of relu and elu have no upper bound. So the derivative of the value by one gain g is
proportional to the gains of all other layers, and the curvature of the squared error to their squares. The
targets follow the critic's own output down towards the return of a random policy (hundreds below zero), and
the gains follow the targets. Above the threshold, steps overshoot until one of them makes all gains large at
once. The next step is larger by their product.

Why tanh does not diverge. Its outputs stay between -1 and 1 whatever the gains before it, and it flattens as
they grow. The curvature rises, and falls again as the units saturate. It never exceeds the threshold.

Measured with the defaults (the curvature is that of the linearised critic, on the step's batch). A seed
repeats its run to the step. Above the threshold rounding decides, so other kernels diverge at another step
(87 with ``TF_ENABLE_ONEDNN_OPTS=0``).

- relu: curvature 2,430 at the start and over the threshold at step 10. The loss then jumps between 93 and
  1.1e5; from step 108 on it is 9.2e3, 4.5e5, 2.5e9, Inf. Step 111 is the first non-finite step.
- elu: step 356.
- tanh: curvature 157 at the start and 8,703 at most. In all 1,000 steps the loss stays between 22 and 72
  and the norm of all gradients below 210.
- relu with ``--clip-norm 50``: finite for 3,000 steps and more. The curvature exceeds the threshold all the
  same, but no step can grow.
- relu and elu with the rewards alone for targets: both converge.
- the first 12 seeds: 12 diverge with relu (steps 24 to 507) and 11 with elu (56 to 546) within 1,000 steps;
  the first 8 with tanh: none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.progress import Progress

import tb_nanwatch

ACTIVATIONS = {"relu": tf.nn.relu, "elu": tf.nn.elu, "tanh": tf.tanh}
INITIALIZERS = {"he": "he_normal", "xavier": "glorot_normal"}
OPTIMIZERS: dict[str, Callable[[float], keras.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": partial(keras.optimizers.SGD, momentum=0.9),
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
}
HIDDEN_LAYERS = ("l3", "l3_1", "l3_2", "l3_3")
HIDDEN_UNITS = 64
DISCOUNT = 0.99
TRANSITIONS = 8000
BATCH_SIZE = 64


class Transitions(NamedTuple):
    """The transitions of a pendulum, one row for each time step.

    Attributes:
        states: float32 ``[n, 3]``.
        rewards: float32 ``[n]``.
        next_states: float32 ``[n, 3]``.
    """

    states: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    next_states: npt.NDArray[np.float32]


class WeightNormDense(keras.Layer):
    """A dense layer whose columns have the length g and the direction of V.

    Sources:
        Salimans and Kingma, Weight Normalization, 2016, equation 2.
    """

    def __init__(self, name: str, *, units: int, activation: str | None, init: str) -> None:
        super().__init__(name=name)
        self.units = units
        self.activate = ACTIVATIONS[activation] if activation else tf.identity
        self.init = INITIALIZERS[init]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create V, g and b. At first g is the length of V, so the layer begins as a common dense layer."""
        self.V = self.add_weight(name="V", shape=(input_shape[-1], self.units), initializer=self.init)
        lengths = tf.norm(self.V, axis=0)
        self.g = self.add_weight(name="g", shape=(self.units,), initializer=lambda *_, **__: lengths)
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the layer's output, float32 ``[n, units]``."""
        return self.activate(inputs @ self.V * self.g / tf.norm(self.V, axis=0) + self.b)


class Critic:
    """The value of a state: four hidden layers and a linear one."""

    def __init__(self, *, activation: str, init: str) -> None:
        dense = partial(WeightNormDense, init=init)
        hidden = [dense(name, units=HIDDEN_UNITS, activation=activation) for name in HIDDEN_LAYERS]
        self.layers = [*hidden, dense("l4", units=1, activation=None)]
        self(tf.zeros([1, 3]))
        self.variables = [variable for layer in self.layers for variable in layer.trainable_variables]

    def __call__(self, states: tf.Tensor) -> tf.Tensor:
        """Return the value of each state, float32 ``[n]``."""
        outputs = states
        for layer in self.layers:
            outputs = layer(outputs)
        return tf.squeeze(outputs, axis=-1)


def collect_transitions(seed: int) -> Transitions:
    """Return the transitions of a random policy that swings the pendulum; an episode lasts 200 time steps."""
    environment = gymnasium.make("Pendulum-v1")
    environment.action_space.seed(seed)
    state, _ = environment.reset(seed=seed)
    rows = []
    for _ in range(TRANSITIONS):
        next_state, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        rows.append((state, reward, next_state))
        state = environment.reset()[0] if terminated or truncated else next_state
    return Transitions(*(np.asarray(column, np.float32) for column in zip(*rows, strict=True)))


def draw_batches(transitions: Transitions, *, seed: int, steps: int) -> tf.data.Dataset:
    """Return one batch for each step, in an order that the seed fixes."""
    rows = tf.data.Dataset.from_tensor_slices(transitions)
    return rows.shuffle(TRANSITIONS, seed=seed).repeat().batch(BATCH_SIZE).take(steps)


def train(
    watch: tb_nanwatch.Watch,
    critic: Critic,
    batches: tf.data.Dataset,
    *,
    optimizer: keras.Optimizer,
    clip_norm: float | None,
) -> None:
    """Take one step for each batch; the watch raises NonFiniteError at the first non-finite step."""
    variables = critic.variables

    @watch.step
    def train_step(states: tf.Tensor, rewards: tf.Tensor, next_states: tf.Tensor) -> tf.Tensor:
        targets = rewards + DISCOUNT * critic(next_states)
        with tf.GradientTape() as tape:
            values = watch.tensor("values", critic(states))
            loss = tf.reduce_mean(tf.square(tf.stop_gradient(targets) - values))
        gradients = tape.gradient(loss, variables)
        clipped = gradients if clip_norm is None else [tf.clip_by_norm(g, clip_norm) for g in gradients]
        watch.apply_gradients(optimizer, zip(clipped, variables, strict=True), raw=gradients, loss=loss)
        return loss

    with Progress() as progress:
        for batch in progress.track(batches, description="Training the critic"):
            train_step(*batch)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--init", choices=INITIALIZERS, default="he")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--clip-norm", type=float, help="largest norm of one gradient (default: not clipped)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--logdir", type=Path, default=Path("runs/exploding_critic"))
    return parser.parse_args()


def main() -> None:
    """Train the critic, and print the outcome and how to open the page."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    critic = Critic(activation=arguments.activation, init=arguments.init)
    optimizer = OPTIMIZERS[arguments.optimizer](arguments.learning_rate)
    batches = draw_batches(collect_transitions(arguments.seed), seed=arguments.seed, steps=arguments.steps)
    try:
        with tb_nanwatch.Watch(arguments.logdir / arguments.activation, critic.variables) as watch:
            train(watch, critic, batches, optimizer=optimizer, clip_norm=arguments.clip_norm)
        print(f"All {arguments.steps:,} steps stayed finite.")
    except tb_nanwatch.NonFiniteError as error:
        print(error)
    print(f"The NaN Watch tab shows it: tensorboard --logdir {arguments.logdir}")


if __name__ == "__main__":
    main()
