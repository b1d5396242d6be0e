"""Policy gradients that are accumulated over mini-batches in a session of TensorFlow 1, as a sum or as a mean.

The agent balances a pole on a cart. For each update it plays four episodes and goes through them in mini-batches of 8
time steps. It fetches the gradients of each mini-batch with ``session.run``, adds them up in NumPy, and feeds the total
to the operation that trains, which is gradient descent with momentum. The loss is written by hand: minus the logarithm
of the softmax probability of the chosen action, times its advantage. Nothing plants a NaN.

Why it diverges. The number of mini-batches is the number of time steps divided by 8, and the better the agent, the
longer the episodes: 11 mini-batches at first, 250 once it balances. A sum acts like a learning rate that is as many
times larger. One such step, and momentum after it, drives the logits so far apart that the probability of an action is
0 in float32. Its logarithm is -Inf. In the sum over actions, 0 * -Inf is NaN, although the agent did not choose that
action.

Why ``--accumulate mean`` does not diverge. A mean does not grow with the number of mini-batches.

Measured with the defaults: 1 of the 16 probabilities of the third mini-batch of update 22 is 0; the pole had stood for
357 time steps by then. A seed repeats its run to the step; other kernels diverge at another step. Seeds 2 to 4 diverge
at updates 26, 38 and 21. With the mean all 100 updates are finite, and the pole stands for 452 time steps at last.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.progress import Progress

import tb_nanwatch

v1 = tf.compat.v1
Environment = gymnasium.Env[Any, Any]
Policy = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
TOTALS: dict[str, Callable[..., Any]] = {"mean": np.mean, "sum": np.sum}
ACTIONS = 2
HIDDEN_UNITS = 32
DISCOUNT = 0.99
MOMENTUM = 0.9
EPISODES = 4
TIME_STEPS = 8
DTYPES = (np.float32, np.int32, np.float32)


class Moments(NamedTuple):
    """States, actions and advantages of the agent, one row for each time step.

    Attributes:
        states: float32 ``[n, 4]``.
        actions: int32 ``[n]``, 0 or 1.
        advantages: float32 ``[n]``; the discounted return, shifted and scaled to mean 0 and deviation 1.
    """

    states: npt.NDArray[np.float32]
    actions: npt.NDArray[np.int32]
    advantages: npt.NDArray[np.float32]

    def mini_batches(self) -> Iterator[Moments]:
        """Yield the rows in order, in mini-batches; the last mini-batch may be smaller."""
        for start in range(0, len(self.states), TIME_STEPS):
            rows = slice(start, start + TIME_STEPS)
            yield Moments(self.states[rows], self.actions[rows], self.advantages[rows])


class Agent:
    """A policy, its loss, and the operation that applies the gradients fed to it, in the default graph."""

    def __init__(self, watch: tb_nanwatch.Watch, *, learning_rate: float) -> None:
        self.moments = Moments(
            v1.placeholder(tf.float32, [None, 4], name="states"),
            v1.placeholder(tf.int32, [None], name="actions"),
            v1.placeholder(tf.float32, [None], name="advantages"),
        )
        hidden = tf.nn.relu(dense(self.moments.states, HIDDEN_UNITS, name="hidden"))
        self.policy = tf.nn.softmax(dense(hidden, ACTIONS, name="policy"))
        with tf.name_scope("likelihood"):
            chosen = tf.one_hot(self.moments.actions, ACTIONS)
            log_likelihoods = tf.reduce_sum(chosen * tf.math.log(self.policy), axis=1)
        loss = -tf.reduce_mean(log_likelihoods * self.moments.advantages)

        variables = v1.trainable_variables()
        self.gradients = tf.gradients(loss, variables)
        watch.accumulate(zip(self.gradients, variables, strict=True), loss=loss)
        self.totals = [v1.placeholder(tf.float32, variable.shape, name="total") for variable in variables]
        optimizer = v1.train.MomentumOptimizer(learning_rate, MOMENTUM)
        self.train = watch.apply_gradients(optimizer, zip(self.totals, variables, strict=True))


def dense(inputs: tf.Tensor, units: int, *, name: str) -> tf.Tensor:
    """Build a linear layer and return its output, float32 ``[n, units]``."""
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [inputs.shape[-1], units], initializer=v1.glorot_uniform_initializer())
        return inputs @ kernel + v1.get_variable("bias", [units], initializer=v1.zeros_initializer())


def play(environments: Sequence[Environment], policy_of: Policy, rng: np.random.Generator) -> Moments:
    """Play an episode in each environment, all at once, until the pole falls or 500 time steps are over."""
    states = {n: environment.reset(seed=int(rng.integers(2**31)))[0] for n, environment in enumerate(environments)}
    seen: list[list[Any]] = [[] for _ in environments]
    actions: list[list[int]] = [[] for _ in environments]
    while states:
        likelihoods = policy_of(np.stack([*states.values()]))
        for number, likelihood in zip([*states], likelihoods, strict=True):
            seen[number].append(states[number])
            actions[number].append(int(rng.random() < likelihood[1]))
            states[number], _, terminated, truncated, _ = environments[number].step(actions[number][-1])
            if terminated or truncated:
                del states[number]
    returns = np.concatenate([discounted_returns(len(episode)) for episode in actions])
    advantages = (returns - returns.mean()) / returns.std()
    columns = zip((np.concatenate(seen), np.concatenate(actions), advantages), DTYPES, strict=True)
    return Moments(*(column.astype(dtype) for column, dtype in columns))


def discounted_returns(time_steps: int) -> npt.NDArray[np.float64]:
    """Return the discounted return from each time step of an episode, where each time step is rewarded by 1."""
    return np.cumsum(np.power(DISCOUNT, np.arange(time_steps), dtype=np.float64))[::-1]


def train(
    watch: tb_nanwatch.Watch, session: tf.compat.v1.Session, agent: Agent, *, accumulate: str, seed: int, updates: int
) -> Iterator[float]:
    """Yield the mean length of the episodes of each update, before the update.

    The watch raises NonFiniteError at the first update that is non-finite or had a non-finite mini-batch.
    """
    rng, environments = np.random.default_rng(seed), [gymnasium.make("CartPole-v1") for _ in range(EPISODES)]

    def policy_of(states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        likelihoods: npt.NDArray[np.float32] = session.run(agent.policy, {agent.moments.states: states})
        return likelihoods

    for _ in range(updates):
        moments = play(environments, policy_of, rng)
        yield len(moments.states) / EPISODES
        parts = [
            watch.session_run(session, agent.gradients, dict(zip(agent.moments, batch, strict=True)))
            for batch in moments.mini_batches()
        ]
        totals = [TOTALS[accumulate](gradients, axis=0) for gradients in zip(*parts, strict=True)]
        watch.session_run(session, agent.train, dict(zip(agent.totals, totals, strict=True)))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--accumulate", choices=TOTALS, default="sum", help="how to combine the gradients of the mini-batches"
    )
    parser.add_argument("--learning-rate", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--logdir", type=Path, default=Path("runs/accumulated_policy_gradient"))
    return parser.parse_args()


def main() -> None:
    """Train the agent, and print the outcome and how to open the page."""
    arguments = parse_arguments()
    lengths: list[float] = []
    options = {"accumulate": arguments.accumulate, "seed": arguments.seed, "updates": arguments.updates}
    try:
        with (
            tf.Graph().as_default(),
            v1.Session() as session,
            tb_nanwatch.Watch(arguments.logdir / arguments.accumulate) as watch,
            Progress() as progress,
        ):
            v1.set_random_seed(arguments.seed)
            agent = Agent(watch, learning_rate=arguments.learning_rate)
            session.run(v1.global_variables_initializer())
            updates = train(watch, session, agent, **options)
            # If an error ends training, the lengths until then stay in the list.
            lengths.extend(progress.track(updates, total=arguments.updates, description="Training the agent"))
        print(f"All {arguments.updates:,} updates stayed finite.")
    except tb_nanwatch.NonFiniteError as error:
        print(error)
    shown = f"{lengths[0]:.0f} at first, {max(lengths):.0f} at best, {lengths[-1]:.0f} at last"
    print(f"The pole stood for so many time steps: {shown}.")
    print(f"The NaN Watch tab shows it: tensorboard --logdir {arguments.logdir}")


if __name__ == "__main__":
    main()
