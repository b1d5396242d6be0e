"""The cells of a row: their order, and the values that the host decodes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.schema import stats
from tb_nanwatch.schema.records import Counts, Finding, Variable
from tb_nanwatch.schema.stats import Stat
from tb_nanwatch.watch.row import cells
from tb_nanwatch.watch.row.cells import CellKind, Layout, places_of
from tb_nanwatch.watch.row.decoding import RowDecoder
from tb_nanwatch.watch.row.encoding import ABSENT, INTENDED, LEAST_INTENDED
from tb_nanwatch.watch.row.measure import Resolved
from tests.watch.guard.steps import Step

VARIABLES = tuple(Variable(f"l{n}/w", f"l{n}", (2,), "float32") for n in range(2))
ROLES = ("gradient", "clipped", "weight", "tensor", "loss")


def layout(clip="other", tensors=("activation",), loss=True):
    return Layout(VARIABLES, tensors, loss, clip)


def decoder(**given):
    return RowDecoder(layout(**given))


def rows_of(reader, cells):
    """Return rows with these cells of the kinds in ``ROLES``, and nothing measured in any other."""
    rows = np.full([len(cells), len(reader.cells)], ABSENT, np.float32)
    rows[:, [place for place, cell in enumerate(reader.cells) if cell.role in ROLES]] = cells
    return rows


def test_the_order_of_cells():
    roles = [(cell.role, cell.name) for cell in layout().cells if cell.role in ROLES]
    names = ["l0/w", "l1/w"]
    of_variables = [(role, name) for role in ("gradient", "clipped", "weight") for name in names]
    assert roles == [*of_variables, ("tensor", "activation"), ("loss", "loss")]
    cells = layout("none", (), False).cells
    assert [cell.role for cell in cells if cell.role in ROLES] == ["gradient"] * 2 + ["weight"] * 2


def test_a_cell_is_half_a_sum_of_squares_or_absent_or_minus_a_norm():
    rows = rows_of(decoder(), [[12.5, ABSENT, 2.0, ABSENT, -1e25, 0.0, 0.5, -3.0]])
    series = decoder().decode(rows, np.array([7]), {})
    np.testing.assert_array_equal(series.column("grad_norm", "max"), [[5.0, np.nan]])
    np.testing.assert_array_equal(series.column("grad_norm", "count"), [[1, 0]])
    np.testing.assert_array_equal(series.column("clipped_norm", "max"), [[2.0, np.nan]])
    np.testing.assert_allclose(series.column("clip_ratio", "min"), [[0.4, np.nan]])
    np.testing.assert_allclose(series.column("weight_norm", "max"), [[1e25, 0.0]])
    np.testing.assert_array_equal(series.column("tensor_norm", "max"), [[1.0]])
    np.testing.assert_array_equal(series.column("loss", "max"), [[-3.0]])
    np.testing.assert_array_equal(series.column("global_norm", "max"), [[5.0]])


def test_a_cell_between_minus_one_and_zero_encodes_the_norm_of_the_finite_elements_beside_intended_infinities():
    cells = np.zeros([3, 9])
    cells[:, 6] = [-5.0 * INTENDED, -1e19 * INTENDED, -LEAST_INTENDED]
    cells[:, 7] = [ABSENT, 0, -1e25]
    two = decoder(tensors=("masked", "plain"))
    rows = rows_of(two, cells)
    norms = two.decode(rows, np.arange(3), {}).column("tensor_norm", "max")
    np.testing.assert_allclose(norms, [[5.0, np.nan], [1e19, 0], [0, 1e25]], rtol=1e-6)
    assert two.intended_infinities(rows) == ("masked",)


def test_a_loss_of_minus_one_is_a_loss():
    series = decoder().decode(rows_of(decoder(), [[0, 0, 0, 0, 0, 0, 0, -1.0]]), np.array([0]), {})
    assert series.column("loss", "min")[0, 0] == -1.0


@pytest.mark.parametrize(("loss", "bits"), [(np.nan, 1), (np.inf, 2), (-np.inf, 4)])
def test_a_bad_loss_has_a_sign(loss, bits):
    series = decoder().decode(rows_of(decoder(), [[0, 0, 0, 0, 0, 0, 0, loss]]), np.array([3]), {})
    assert series.column("loss", "kinds")[0, 0] == bits
    assert series.column("loss", "first_nonfinite")[0, 0] == 3


def test_counts_give_the_kinds_that_a_norm_does_not_show():
    rows = rows_of(decoder(), [[np.inf, 1, 1, 1, 1, 1, 1, 1]] * 2)
    counts = np.zeros((len(decoder().cells), 4), np.int64)
    counts[:, 0], counts[places_of(decoder().cells, "gradient")[0]] = 2, (2, 0, 1, 1)
    series = decoder().decode(rows, np.array([3, 4]), {1: counts})
    assert series.column("grad_norm", "kinds")[:, 0].tolist() == [8, 2 | 4]
    assert series.column("global_norm", "kinds")[:, 0].tolist() == [8, 2 | 4]
    assert decoder().findings(counts) == (Finding("gradient", "l0/w", Counts(2, 0, 1, 1)),)


def zero_fraction(gradient):
    return tf.reduce_mean(tf.cast(tf.equal(gradient, 0), tf.float32))


def watched(*variables, policy="raise"):
    """Return a step that measures the gradients of variables and updates nothing."""
    step = Step(*variables, policy=policy)
    step._update = lambda: None
    return step


class TestANewStatistic:
    """A statistic that a step measures takes an entry of the catalogue, a function, and a kind of cell."""

    @pytest.fixture(autouse=True)
    def table(self, monkeypatch):
        stat = Stat("zero_fraction", "variable", "Fraction of the gradient's elements that are 0.", ("min", "mean"))
        kind = CellKind(
            "zero fraction",
            names=lambda layout: layout.names,
            tensors=lambda step: step.raw,
            stat="zero_fraction",
            measure=zero_fraction,
            resolve=lambda gradient: Resolved(None, zero_fraction(gradient)),
            decode=lambda cells: cells,
        )
        monkeypatch.setitem(stats.BY_KEY, "zero_fraction", stat)
        monkeypatch.setattr(stats, "STATS", (*stats.STATS, stat))
        monkeypatch.setattr(cells, "KINDS", (*cells.KINDS, kind))

    @pytest.mark.parametrize("policy", ["raise", "skip"])
    def test_goes_from_the_step_to_the_decoded_series(self, policy):
        step = watched(tf.Variable([0.0, 0.0], name="a/w"), tf.Variable([0.0], name="b/w"), policy=policy)
        step.take([3.0, 0.0], [2.0])
        step.take([3.0, 4.0], [0.0])
        rows, _ = step.plan.device_ring.rows(0, 2)
        series = step.plan.decoder.decode(rows, np.arange(2), {})
        assert series.column("zero_fraction", "min").tolist() == [[0.5, 0.0], [0.0, 1.0]]
        assert series.column("grad_norm", "max").tolist() == [[3.0, 2.0], [5.0, 0.0]]

    def test_is_resolved_in_a_step_whose_squares_overflow(self):
        step = watched(tf.Variable([0.0, 0.0], name="a/w"))
        step.take([3e25, 0.0])
        rows, _ = step.plan.device_ring.rows(0, 1)
        series = step.plan.decoder.decode(rows, np.arange(1), {})
        assert series.column("zero_fraction", "min").tolist() == [[0.5]]
        np.testing.assert_allclose(series.column("grad_norm", "max"), [[3e25]], rtol=1e-6)
