"""The device's measurements against NumPy's: eager, in a graph and compiled by XLA, in every floating dtype."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.numerics.finiteness import count_nonfinite
from tb_nanwatch.numerics.norms import l2_norm
from tb_nanwatch.watch.row.clipping import clipped_cells
from tb_nanwatch.watch.row.encoding import ABSENT
from tb_nanwatch.watch.row.measure import (
    count,
    half_sum_of_squares,
    half_sums_of_squares,
    loss_cell,
    resolve,
    resolve_loss,
)

WAYS = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}
DTYPES = [tf.float16, tf.bfloat16, tf.float32, tf.float64]
TENSORS = {
    "plain": [3.0, -4.0],
    "scalar": 2.0,
    "empty": np.zeros((0, 3)),
    "nan": [1.0, np.nan, np.inf],
    "infinities": [[1.0, np.inf], [-np.inf, -np.inf]],
}


def norm_in(cell: float) -> float:
    return -cell if cell < ABSENT else np.sqrt(2 * cell)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", TENSORS)
def test_counts_and_norms_are_those_of_numpy(way, dtype, name):
    tensor = tf.cast(tf.constant(TENSORS[name], tf.float64), dtype)
    measured = WAYS[way](lambda x: (half_sum_of_squares(x), count(x), resolve(x).cell))
    squares, counts, resolved = (value.numpy() for value in measured(tensor))
    exact = count_nonfinite(tensor.numpy())
    assert counts.tolist() == [exact.size, exact.nan, exact.pos_inf, exact.neg_inf]
    assert np.isfinite(squares) == (exact.nonfinite == 0)
    if exact.nonfinite:
        assert np.isnan(resolved) if exact.nan else resolved == np.inf
    else:
        np.testing.assert_allclose([norm_in(squares), norm_in(resolved)], [l2_norm(tensor.numpy())] * 2, rtol=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("dtype", "size"), [(tf.float32, 1e25), (tf.float64, 1e25), (tf.float64, 1e200)])
def test_a_finite_tensor_whose_squares_overflow_keeps_its_norm(way, dtype, size):
    tensor = tf.constant([3 * size, 4 * size], dtype)
    resolved = WAYS[way](lambda x: resolve(x).cell)(tensor).numpy()
    np.testing.assert_allclose(norm_in(resolved), min(5 * size, float(np.finfo(np.float32).max)), rtol=1e-6)


def test_a_sparse_gradient_is_measured_by_its_values():
    sparse = tf.IndexedSlices(tf.constant([[3.0, np.inf]]), tf.constant([1]), tf.constant([5, 2]))
    assert count(sparse).numpy().tolist() == [2, 0, 1, 0]
    assert half_sum_of_squares(sparse) == np.inf


def test_no_gradient_is_absent():
    assert half_sum_of_squares(None) == resolve(None).cell == ABSENT
    assert count(None).numpy().tolist() == [0, 0, 0, 0]


def test_a_loss_for_each_sample_is_their_mean_and_a_mean_that_overflows_becomes_the_largest_number():
    assert loss_cell(tf.constant([1.0, 3.0])) == 2.0
    large = tf.constant([3e38, 3e38])
    assert loss_cell(large) == np.inf
    assert resolve_loss(large).cell == np.finfo(np.float32).max
    assert np.isnan(resolve_loss(tf.constant([1.0, np.nan])).cell)


@pytest.mark.parametrize("way", WAYS)
def test_the_cells_after_a_norm_clip_follow_from_those_before(way):
    gradients = [tf.constant([3.0, 4.0]), tf.constant([[0.6, 0.8]]), tf.zeros([2])]
    factors = [("Mul", tf.constant(2.0)), ("RealDiv", tf.constant([5.0, 2.0, 2.0]))]
    before = tf.stack([half_sum_of_squares(gradient) for gradient in gradients])
    after = WAYS[way](lambda cells: clipped_cells(cells, factors))(before)
    np.testing.assert_allclose([norm_in(cell) for cell in after.numpy()], [2.0, 1.0, 0.0], rtol=1e-6)


def test_sums_of_squares_that_clip_by_norm_computes_are_not_computed_again():
    gradients = [tf.constant([[1.0, 2.0], [2.0, 4.0]]), tf.constant([3.0, 4.0]), tf.constant(2.0), tf.constant([7.0])]

    @tf.function
    def cells(*raw):
        clipped = [tf.clip_by_norm(gradient, 1.0) for gradient in raw[:3]]
        return half_sums_of_squares(raw), clipped

    assert cells(*gradients)[0].numpy().tolist() == [12.5, 12.5, 2.0, 24.5]
    operations = cells.get_concrete_function(*gradients).graph.get_operations()
    assert [op.type for op in operations].count("L2Loss") == 1
