"""An AlphaZero whose policy loss takes the logarithm of a softmax, and becomes NaN once the network is sure.

The game is Lines of Action on a board of 4 x 8 squares. A piece moves in one of eight directions, exactly as far as
there are pieces on that line. It jumps over its own side and captures by landing. The side that has all its pieces in
one group wins. So a move is a square and a direction, one of 256.

The positions come from self-play. A search of one move ahead stands in for the tree search: it gives 64 visits to the
moves, in proportion to how much they draw the side's own pieces together. The network is AlphaZero's, with five
residual blocks. Its loss is the cross-entropy of the policy to the visits, the squared error of the value to the game's
outcome, and the squares of the weights. Nothing plants a NaN.

Why it diverges. The cross-entropy is written as in the paper, ``-sum(visits * log(policy))``, with the policy of a
softmax. About 16 of the 256 moves are legal, and the search visits few of these. Training lowers the logits of all
other moves, and while the learning rate warms up, each step lowers them further. A float32 reaches down to e^-87.
Below that, a probability is 0, its logarithm is -Inf, and its share of the loss is 0 * -Inf, which is NaN.

Why ``--loss logits`` does not diverge. ``softmax_cross_entropy_with_logits`` computes the logarithm of the policy from
the logits themselves, where -95 is a number like any other.

Measured with the defaults: 4 of the 8,192 probabilities of step 132 are 0. A seed repeats its run to the step; other
kernels diverge at another step. Seeds 1 to 3 diverge at steps 109, 123 and 118, and half the learning rate at step 237.
With the logits all 250 steps are finite.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rich.progress import Progress

import tb_nanwatch

ROWS, COLUMNS = 4, 8
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
MOVES = ROWS * COLUMNS * len(DIRECTIONS)
LONGEST_GAME = 100
POSITIONS = 4096
VISITS = 64
TEMPERATURE = 0.3
FILTERS = 64
BLOCKS = 5
DECAY = 0.999
L2 = 1e-4


class Positions(NamedTuple):
    """Positions of self-play, one row for each position, as the player to move sees it.

    Attributes:
        boards: float32 ``[n, 4, 8, 3]``: own pieces, the opponent's, and 1 for the side that moved first in the game.
        visits: float32 ``[n, 256]``, the share of each move in the search's visits.
        outcomes: float32 ``[n, 1]``, 1 if the player to move won, -1 if the opponent did, 0 for a draw.
    """

    boards: npt.NDArray[np.float32]
    visits: npt.NDArray[np.float32]
    outcomes: npt.NDArray[np.float32]


@cache
def line_from(square: int, direction: int) -> tuple[int, ...]:
    """Return the squares from the next one to the board's edge. Square 0 is at the top left, 8 below it.

    Example:
        >>> line_from(9, 4), line_from(9, 0)
        ((10, 11, 12, 13, 14, 15), (0,))
    """
    (row, column), (down, right) = divmod(square, COLUMNS), DIRECTIONS[direction]
    ahead = ((row + n * down, column + n * right) for n in range(1, COLUMNS))
    return tuple(r * COLUMNS + c for r, c in ahead if 0 <= r < ROWS and 0 <= c < COLUMNS)


class Position(NamedTuple):
    """The squares of the pieces of each side."""

    own: frozenset[int]
    other: frozenset[int]

    def moves(self) -> dict[int, int]:
        """Return the target square of each legal move; a move is 8 times its square plus its direction."""
        return {
            square * len(DIRECTIONS) + direction: target
            for square in sorted(self.own)
            for direction in range(len(DIRECTIONS))
            if (target := self._target(square, direction)) is not None
        }

    def after(self, move: int, target: int) -> Position:
        """Return the position after a move, as the opponent sees it."""
        return Position(self.other - {target}, self.own - {move // len(DIRECTIONS)} | {target})

    def _target(self, square: int, direction: int) -> int | None:
        ahead, behind = line_from(square, direction), line_from(square, len(DIRECTIONS) - 1 - direction)
        distance = 1 + len((self.own | self.other).intersection(ahead + behind))
        if distance > len(ahead) or ahead[distance - 1] in self.own or self.other.intersection(ahead[: distance - 1]):
            return None
        return ahead[distance - 1]


def opening() -> Position:
    """Return the "scrambled eggs": the two sides take turns around the edge, corners left out."""
    edge = [*range(1, 7), 15, 23, *range(30, 24, -1), 16, 8]
    return Position(frozenset(edge[::2]), frozenset(edge[1::2]))


def is_connected(squares: frozenset[int]) -> bool:
    """Return whether the pieces form one group, diagonals included."""
    alone = set(squares)
    reached = [alone.pop()]
    while reached:
        square = reached.pop()
        near = alone.intersection(line[0] for d in range(len(DIRECTIONS)) if (line := line_from(square, d)))
        alone -= near
        reached.extend(near)
    return not alone


def scattering(squares: frozenset[int]) -> float:
    """Return how far the pieces are from their middle, rows plus columns; 0 for a winning group."""
    if is_connected(squares):
        return 0.0
    places = np.stack(np.divmod(sorted(squares), COLUMNS), axis=-1)
    return float(np.abs(places - places.mean(axis=0)).sum())


def search(position: Position, moves: dict[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return each move's share of the visits, float32 ``[256]``."""
    scores = [-scattering(position.after(*move).other) for move in moves.items()]
    likelihoods = np.exp((np.asarray(scores) - max(scores)) / TEMPERATURE)
    visits = np.zeros(MOVES, np.float32)
    visits[list(moves)] = rng.multinomial(VISITS, likelihoods / likelihoods.sum()) / VISITS
    return visits


def play_game(rng: np.random.Generator) -> Positions:
    """Play until a side is connected, and return the game's positions. A game without a move or an end is a draw."""
    boards: list[npt.NDArray[np.float32]] = []
    searches: list[npt.NDArray[np.float32]] = []
    position, result = opening(), 0
    while not result and len(boards) < LONGEST_GAME and (moves := position.moves()):
        visits = search(position, moves, rng)
        boards.append(planes(position, moved_first=len(boards) % 2 == 0))
        searches.append(visits)
        move = int(rng.choice(MOVES, p=visits))
        position = position.after(move, moves[move])
        result = int(is_connected(position.other)) or -int(is_connected(position.own))
    outcomes = [result * (-1) ** plies_left for plies_left in reversed(range(len(boards)))]
    return Positions(np.stack(boards), np.stack(searches), np.asarray(outcomes, np.float32)[:, None])


def planes(position: Position, *, moved_first: bool) -> npt.NDArray[np.float32]:
    """Return the network's input for a position, float32 ``[4, 8, 3]``."""
    shown = np.zeros((ROWS * COLUMNS, 3), np.float32)
    shown[list(position.own), 0] = 1
    shown[list(position.other), 1] = 1
    shown[:, 2] = moved_first
    return shown.reshape(ROWS, COLUMNS, 3)


def self_play(seed: int) -> Positions:
    """Play games until there are enough positions."""
    rng, games, count = np.random.default_rng(seed), [], 0
    while count < POSITIONS:
        games.append(play_game(rng))
        count += len(games[-1].boards)
    return Positions(*(np.concatenate(column)[:POSITIONS] for column in zip(*games, strict=True)))


def build_network() -> keras.Model:
    """Build the tower of residual blocks and its two heads: 256 logits of the policy, and the value."""
    board = keras.Input((ROWS, COLUMNS, 3), name="board")
    tower = convolution(board, name="stem")
    for number in range(BLOCKS):
        inner = convolution(tower, name=f"block_{number}_a")
        tower = keras.layers.ReLU()(convolution(inner, name=f"block_{number}_b", activate=False) + tower)
    features = keras.layers.Flatten()(tower)
    hidden = keras.layers.Dense(64, "relu", name="value_hidden")(features)
    heads = [keras.layers.Dense(MOVES, name="policy")(features), keras.layers.Dense(1, "tanh", name="value")(hidden)]
    return keras.Model(board, heads)


def convolution(inputs: keras.KerasTensor, *, name: str, activate: bool = True) -> keras.KerasTensor:
    """Convolve 3 x 3, normalise over the batch and, with ``activate``, apply relu."""
    convolved = keras.layers.Conv2D(FILTERS, 3, padding="same", use_bias=False, name=name)(inputs)
    normalised = keras.layers.BatchNormalization(momentum=DECAY, name=f"{name}_norm")(convolved)
    return keras.layers.ReLU()(normalised) if activate else normalised


def loss_of_probabilities(visits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy as the paper writes it, float32 ``[n]``."""
    policy = tf.nn.softmax(logits)
    return -tf.reduce_sum(visits * tf.math.log(policy), axis=-1)


POLICY_LOSSES = {"probabilities": loss_of_probabilities, "logits": tf.nn.softmax_cross_entropy_with_logits}


def draw_batches(positions: Positions, *, seed: int, steps: int, batch_size: int) -> tf.data.Dataset:
    """Return one batch for each step, in an order that the seed fixes."""
    rows = tf.data.Dataset.from_tensor_slices(positions)
    return rows.shuffle(POSITIONS, seed=seed).repeat().batch(batch_size).take(steps)


def train(
    watch: tb_nanwatch.Watch,
    network: keras.Model,
    batches: tf.data.Dataset,
    *,
    optimizer: keras.Optimizer,
    policy_loss: str,
) -> None:
    """Take one step for each batch; the watch raises NonFiniteError at the first non-finite step."""
    variables = network.trainable_variables

    @watch.step
    def train_step(boards: tf.Tensor, visits: tf.Tensor, outcomes: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits, values = network(boards, training=True)
            errors = POLICY_LOSSES[policy_loss](visits, logits) + tf.square(outcomes - values)[:, 0]
            loss = tf.reduce_mean(errors) + L2 * tf.add_n([tf.reduce_sum(tf.square(v)) for v in variables])
        gradients = tape.gradient(loss, variables)
        watch.apply_gradients(optimizer, zip(gradients, variables, strict=True), raw=gradients, loss=loss)
        return loss

    with Progress() as progress:
        for batch in progress.track(batches, description="Training the network"):
            train_step(*batch)


def warmed_up(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that grows linearly from 0 and then stays."""
    return keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=steps, end_learning_rate=rate)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loss", choices=POLICY_LOSSES, default="probabilities", help="input of the policy's loss")
    parser.add_argument("--learning-rate", type=float, default=2e-2, help="of Adam, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=1000, help="steps until the learning rate is reached")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--logdir", type=Path, default=Path("runs/alphazero"))
    return parser.parse_args()


def main() -> None:
    """Train the network, and print the outcome and how to open the page."""
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    network = build_network()
    optimizer = keras.optimizers.Adam(warmed_up(arguments.learning_rate, arguments.warm_up))
    positions = self_play(arguments.seed)
    batches = draw_batches(positions, seed=arguments.seed, steps=arguments.steps, batch_size=arguments.batch_size)
    try:
        with tb_nanwatch.Watch(arguments.logdir / arguments.loss, network.trainable_variables) as watch:
            train(watch, network, batches, optimizer=optimizer, policy_loss=arguments.loss)
        print(f"All {arguments.steps:,} steps stayed finite.")
    except tb_nanwatch.NonFiniteError as error:
        print(error)
    print(f"The NaN Watch tab shows it: tensorboard --logdir {arguments.logdir}")


if __name__ == "__main__":
    main()
