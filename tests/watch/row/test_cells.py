"""The cells of a row: their order, and the values that the host decodes."""

from __future__ import annotations

import numpy as np
import pytest

from tb_nanwatch.schema.records import Counts, Finding, Variable
from tb_nanwatch.watch.row.cells import Layout, places_of
from tb_nanwatch.watch.row.decoding import RowDecoder
from tb_nanwatch.watch.row.encoding import ABSENT, INTENDED, LEAST_INTENDED

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
