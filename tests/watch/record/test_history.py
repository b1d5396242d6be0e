"""The host reads each row of a ring once, by a number that grows."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf

import tb_nanwatch
from tb_nanwatch.cli import main
from tb_nanwatch.schema.records import Variable
from tb_nanwatch.watch.record.history import History, Incident, Numbering
from tb_nanwatch.watch.record.ring import HostRing
from tb_nanwatch.watch.row.cells import Layout
from tb_nanwatch.watch.row.decoding import RowDecoder

LAYOUT = Layout((Variable("layer/w", "layer", (2,), "float32"),), (), loss=True, clip="none")
CELLS = len(LAYOUT.cells)


class Rows:
    """A ring of four rows, and the history that reads it."""

    def __init__(self, *, counted=True):
        self.ring = HostRing(window=4, cells=CELLS)
        self.history = History(RowDecoder(LAYOUT), self.ring, counted=counted)

    def add(self, *steps, value=1.0):
        for step in steps:
            self.ring.add(np.full(CELLS, value, np.float32), np.full((CELLS, 4), 1), step=step)

    def read(self, incident=None, action="recorded"):
        block = self.history.read(incident, action=action)
        return None if block is None else [part.first_step.tolist() for part in block.parts]


class TestHistory:
    def test_each_row_is_read_once(self):
        rows = Rows()
        assert rows.read() is None
        rows.add(0, 0)
        assert rows.read() == [[0, 1]]
        assert rows.read() is None
        rows.add(0)
        assert (rows.read(), rows.history.rows_read, rows.history.next_step(2)) == ([[2]], 3, 3)

    def test_rows_that_the_ring_lost_leave_a_gap(self):
        rows = Rows()
        rows.add(*[0] * 6)
        assert (rows.read(), rows.history.rows_read) == ([[2, 3, 4, 5]], 6)
        assert [rows.history.has_row(number) for number in (1, 2)] == [False, True]

    def test_a_part_begins_where_the_users_step_goes_back(self):
        rows = Rows(counted=False)
        rows.add(7, 9, 3, 4)
        assert rows.read() == [[7, 9], [3, 4]]
        assert rows.history.next_step(4) == 5

    def test_the_window_ends_at_the_incident_and_has_its_counts(self):
        rows = Rows()
        rows.add(0, 0, 0)
        rows.add(0, 0, value=np.nan)
        rows.read()
        bad = Incident(3, np.full((CELLS, 4), 1))
        window = rows.history.window(bad)
        assert window.first_step.tolist() == [1, 2, 3]
        assert window.column("loss", "nonfinite")[:, 0].tolist() == [0, 0, 1]
        assert rows.history.window().first_step.tolist() == [1, 2, 3, 4]
        assert len(Rows().history.window()) == 0

    def test_the_window_holds_the_last_session_only(self):
        rows = Rows(counted=False)
        rows.add(7, 9, 3, 4)
        rows.read()
        assert rows.history.window().first_step.tolist() == [3, 4]

    def test_steps_after_a_raised_incident_may_stand_still(self):
        rows = Rows(counted=False)
        rows.add(5)
        rows.add(6, value=np.nan)
        rows.add(6, 6)
        assert rows.read(Incident(1, np.full((CELLS, 4), 1)), "raised") == [[5, 6, 7, 8]]

    @pytest.mark.parametrize(("step", "found"), [(120, 120), (2**60, 7)])
    def test_a_lost_step_has_the_users_number_if_a_log_can_hold_it(self, step, found):
        rows = Rows(counted=False)
        rows.add(step, value=np.inf)
        assert rows.history.step_of_lost(0, otherwise=7) == found
        assert Rows().history.step_of_lost(30, otherwise=7) == 30


def numbers_of(*parts):
    numbering = Numbering()
    return [numbering.number_rows(np.array(given), np.array(held, bool)).tolist() for given, held in parts]


class TestNumbering:
    def test_steps_that_grow_are_the_numbers(self):
        assert numbers_of(([3, 4, 9], [0, 0, 0]), ([10, 20], [0, 0])) == [[3, 4, 9], [10, 20]]

    def test_after_an_update_that_was_withheld_steps_are_counted_on_without_a_warning(self):
        assert numbers_of(([3, 4], [0, 1]), ([4, 5], [0, 0]), ([6, 9], [0, 0])) == [[3, 4], [5, 6], [7, 9]]

    def test_where_the_step_goes_back_so_does_the_number(self):
        assert numbers_of(([3, 4, 4], [0, 1, 0]), ([2, 3], [0, 0])) == [[3, 4, 5], [2, 3]]

    def test_a_step_that_stands_still_gives_one_warning(self):
        with pytest.warns(UserWarning, match="it stood at 4") as caught:
            assert numbers_of(([4, 4, 4], [0, 0, 0]), ([4], [0])) == [[4, 5, 6], [7]]
        assert len(caught) == 1

    def test_a_step_that_a_log_cannot_hold_is_counted_on_with_one_warning(self):
        with pytest.warns(UserWarning, match="must be from 0 to 1125899906842623; it was -5") as caught:
            found = numbers_of(([7, -5, 2**60], [0, 0, 0]), ([2**61, 20, 21], [0, 0, 0]))
        assert found == [[7, 8, 9], [10, 20, 21]]
        assert len(caught) == 1

    def test_a_first_step_that_a_log_cannot_hold_is_0(self):
        with pytest.warns(UserWarning, match="it was 1152921504606846976"):
            assert numbers_of(([2**60, 2**60 + 1], [0, 0])) == [[0, 1]]


def test_a_time_in_nanoseconds_as_step_leaves_a_log_that_reads(tmp_path, capsys):
    weight, now = tf.Variable([1.0], name="weight"), tf.Variable(0, dtype=tf.int64)
    watch = tb_nanwatch.Watch(tmp_path / "run", [weight], step=now)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)

    @watch.step
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(weight**2)
        watch.apply_gradients(optimizer, zip(tape.gradient(loss, [weight]), [weight]), loss=loss)

    with pytest.warns(UserWarning, match="must be from 0 to"):
        for _ in range(3):
            now.assign(time.time_ns())
            step()
        watch.close()

    assert main([str(tmp_path)]) == 0
    assert "Finite in all 3 steps." in capsys.readouterr().out
