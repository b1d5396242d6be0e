"""Both rings keep the last rows and the oldest unread incident."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.record.ring import DeviceRing, Entry, HostRing
from tb_nanwatch.watch.row.encoding import ABSENT

WINDOW = 4
COUNTS = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])


def device_ring():
    ring = DeviceRing(window=WINDOW, cells=2)

    @tf.function
    def write(row, counts, step):
        entry = Entry(ring.next_row(), row, step)
        if not tf.reduce_all(tf.math.is_finite(row)):
            ring.report(entry, counts)
        ring.record(entry)

    return ring, lambda row, step: write(tf.constant(row), tf.constant(COUNTS * step), tf.constant(step, tf.int64))


def host_ring():
    ring = HostRing(window=WINDOW, cells=2)
    return ring, lambda row, step: ring.add(np.array(row, np.float32), COUNTS * step, step=step)


@pytest.fixture(params=[device_ring, host_ring])
def ring_and_write(request):
    return request.param()


def test_the_last_rows_are_there_by_number(ring_and_write):
    ring, write = ring_and_write
    for number in range(6):
        write([float(number), 0.0], 10 + number)
    rows, steps = ring.rows(3, 6)
    assert (ring.window, ring.rows_written(), ring.on_host) == (WINDOW, 6, True)
    assert (rows[:, 0].tolist(), rows.dtype, steps.tolist()) == ([3.0, 4.0, 5.0], np.float32, [13, 14, 15])


def test_the_first_bad_row_is_the_incident_until_it_is_cleared(ring_and_write):
    ring, write = ring_and_write
    assert ring.incident() is None
    for step, value in enumerate([1.0, np.nan, np.inf, 1.0], 7):
        write([value, 0.0], step)
    assert (ring.incident(), ring.incident_step(), ring.incident_counts().tolist()) == (1, 8, (COUNTS * 8).tolist())
    ring.forget_incident()
    assert ring.incident() is None
    write([np.nan, 0.0], 20)
    assert (ring.incident(), ring.incident_step()) == (4, 20)


def test_an_incident_outlasts_its_row(ring_and_write):
    ring, write = ring_and_write
    for step in range(9):
        write([np.nan if step == 1 else 0.0, 0.0], step)
    assert (ring.incident(), ring.incident_step()) == (1, 1)
    assert np.isfinite(ring.rows(5, 9)[0]).all()


def merged(*rows):
    ring = DeviceRing(window=WINDOW, cells=2, added=[1])
    for number, row in enumerate(rows):
        number_of_row = ring.last_row() if number else ring.next_row()
        ring.record(Entry(number_of_row, tf.constant(row), None, is_more=number > 0))
    return ring.rows(0, ring.rows_written())[0].tolist()


def test_a_second_optimizer_adds_to_the_row_of_the_first():
    assert merged([ABSENT, 1.0], [3.0, 2.0]) == [[3.0, 3.0]]
    assert merged([5.0, 1.0], [3.0, 2.0]) == [[5.0, 3.0]]
    assert merged([np.inf, 0.0], [3.0, 0.0]) == [[np.inf, 0.0]]


@pytest.mark.parametrize(("before", "is_finite"), [([], True), ([1.0], True), ([np.nan], False)])
def test_a_row_is_opened_only_if_the_step_has_none(before, is_finite):
    ring = DeviceRing(window=WINDOW, cells=2, added=[1])
    started = ring.next_row()
    for value in before:
        ring.record(Entry(ring.next_row(), tf.constant([value, 0.0]), None))
    assert bool(tf.function(ring.opened)(started, None)) == is_finite
    assert ring.rows_written() == 1


def test_a_wider_ring_takes_over_the_first_row():
    narrow, wide = DeviceRing(window=WINDOW, cells=1), DeviceRing(window=WINDOW, cells=2)
    entry = Entry(narrow.next_row(), tf.constant([np.nan]), tf.constant(7, tf.int64))
    narrow.report(entry, tf.constant([[4, 1, 0, 0]], tf.int64))
    narrow.record(entry)
    wide.take_over(narrow, [None, 0])
    (row,), steps = wide.rows(0, 1)
    assert (row[0], bool(np.isnan(row[1])), steps.tolist()) == (ABSENT, True, [7])
    assert (wide.incident(), wide.incident_step()) == (0, 7)
    assert wide.incident_counts().tolist() == [[0, 0, 0, 0], [4, 1, 0, 0]]
