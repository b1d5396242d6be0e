"""The demo runs as a user runs it. Its log says what happened."""

from __future__ import annotations

import numpy as np
import pytest

from demo import alphazero
from tb_nanwatch import load_batch
from tests.programs import ROOT, read_verdicts, run_demo

SOURCE = ROOT / "demo" / "alphazero.py"
# Half the batch and twice the learning rate of a user's run.
QUICKLY = ("--batch-size", "16", "--learning-rate", "0.04", "--steps", "120")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The logdir, the outputs and the verdicts by loss. The finite run is longer than the run that diverges."""
    logdir = tmp_path_factory.mktemp("alphazero")
    losses = ("probabilities", "logits")
    printed = {loss: run_demo("alphazero", logdir, "--loss", loss, *QUICKLY) for loss in losses}
    return logdir, printed, read_verdicts(logdir)


def test_the_verdict_names_the_logarithm_of_a_probability_of_0_after_many_finite_steps(demo):
    logdir, printed, verdicts = demo
    first = verdicts["probabilities"]["first"]
    assert 50 < first["step"] < 120
    assert (first["phase"], first["kind"], first["op"]["type"]) == ("loss", "neg_inf", "Log")
    assert "tf.math.log(policy)" in SOURCE.read_text(encoding="utf-8").splitlines()[first["source"]["line"] - 1]
    assert f"Step {first['step']}: -Inf" in printed["probabilities"]
    assert "tensorboard --logdir" in printed["probabilities"]
    batch = load_batch(logdir / "probabilities" / "batches" / f"step-{first['step']}.npz")
    assert batch.args[0].shape == (16, 4, 8, 3)


def test_the_loss_from_logits_stays_finite(demo):
    _, printed, verdicts = demo
    assert (verdicts["logits"]["status"], verdicts["logits"]["steps_seen"]) == ("finite", 120)
    assert "All 120 steps stayed finite" in printed["logits"]


def test_a_piece_moves_as_many_squares_as_its_line_has_pieces_and_never_over_an_opponent():
    # Own pieces are at 9 and 11 of the second row, an opponent's at 12. From 11 to the right, a piece would jump.
    position = alphazero.Position(frozenset({9, 11}), frozenset({12}))
    right, left = 4, 3
    moves = position.moves()
    assert moves[9 * 8 + right] == 12
    assert 11 * 8 + right not in moves
    assert 9 * 8 + left not in moves
    assert position.after(9 * 8 + right, 12) == (frozenset(), frozenset({11, 12}))


def test_the_opening_gives_both_sides_eight_unconnected_pieces():
    own, other = alphazero.opening()
    assert (len(own), len(other), own & other) == (8, 8, frozenset())
    assert not alphazero.is_connected(own)
    assert alphazero.is_connected(frozenset({0, 9, 18}))


def test_the_last_player_to_move_wins_and_the_search_visits_only_moves_of_own_pieces():
    game = alphazero.play_game(np.random.default_rng(0))
    np.testing.assert_allclose(game.visits.sum(axis=1), 1, rtol=1e-6)
    assert game.outcomes[-1] == 1
    assert (game.outcomes[:-1] == -game.outcomes[1:]).all()
    visited = game.visits.reshape(-1, 4, 8, 8).sum(axis=-1) > 0
    assert (game.boards[..., 0][visited] == 1).all()
