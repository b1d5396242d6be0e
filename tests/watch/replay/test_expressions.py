"""The line of an expression, from where its generated code runs."""

from __future__ import annotations

import inspect
import sys

import pytest
import tensorflow as tf

from tb_nanwatch.watch.replay.source_lines import Call, exact_line, is_generated

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows of a line no parts")


@tf.autograph.experimental.do_not_convert
def here(number=0):
    """Return where the generated code that calls this is."""
    frame = sys._getframe(1)
    while not is_generated(frame.f_code.co_filename):
        frame = frame.f_back
    return Call.of(frame)


def alike():
    return (
        here(),
        here(number=1),
        [here()],
        here(
            number=2,
        ),
    )


class Holder:
    """Holds a number, and returns the place that asks for it."""

    def __init__(self, number):
        self.number = number

    @tf.autograph.experimental.do_not_convert
    def here(self):
        return here(self.number)


def in_a_method():
    return [
        Holder(
            1,
        ).here(),
    ]


def lines_of(function):
    """Return the line of each call that a function returns, counted from its own."""
    lines, first = inspect.getsourcelines(function)
    statement = first + next(at for at, line in enumerate(lines) if "return" in line)
    calls = [call[0] if isinstance(call, list) else call for call in tf.autograph.to_graph(function)()]
    return [exact_line(call, __file__, statement) - first for call in calls]


def test_each_call_of_a_statement_has_its_own_line_also_where_two_read_alike():
    assert lines_of(alike) == [2, 3, 4, 5]


def test_a_call_of_a_method_has_the_line_of_its_name():
    assert lines_of(in_a_method) == [4]


def test_a_file_that_cannot_be_read_leaves_the_line_as_it_was():
    (call, *_) = tf.autograph.to_graph(alike)()

    assert exact_line(call, "nowhere.py", 7) == 7
