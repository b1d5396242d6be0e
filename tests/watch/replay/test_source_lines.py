"""From a stack to the user's line and the lines around it."""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import sysconfig
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tb_nanwatch.watch.installed import own_directory
from tb_nanwatch.watch.replay.source_lines import (
    CallSite,
    Frame,
    exact_line,
    has_users_line_within,
    is_generated,
    shown_frames,
    stack_of,
    users_line,
)
from tb_nanwatch.watch.tf_internals import inner_graphs

HERE = __file__
TENSORFLOW = str(tf.__file__)
KERAS = str(keras.__file__)
PACKAGE = str(Path(sysconfig.get_paths()["purelib"], "some_package", "module.py"))
STANDARD = str(Path(sysconfig.get_paths()["stdlib"], "functools.py"))
WATCH = str(Path(own_directory(), "watch", "step.py"))

knows_columns = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows no parts of a line")


def line_of(marker):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(at for at, text in enumerate(lines, 1) if text.endswith(f"# {marker}"))


@pytest.fixture
def program(tmp_path):
    """A file of the user's with nine lines."""
    path = tmp_path / "program.py"
    path.write_text("".join(f"    line_{number} = {number}\n" for number in range(1, 10)), encoding="utf-8")
    yield str(path)
    linecache.clearcache()


def traced_op(function):
    """Return the exponential in a function that TensorFlow has traced with AutoGraph."""
    graph = tf.function(function).get_concrete_function().graph
    graphs = [graph, *(inner for op in graph.get_operations() for inner in inner_graphs(op))]
    (op,) = [op for inner in graphs for op in inner.get_operations() if op.type == "Exp"]
    return op


def test_the_users_line_is_the_innermost_of_the_program(program):
    stack = [Frame(program, 2, "train"), Frame(program, 5, "loss"), Frame(TENSORFLOW, 9, "log")]
    found = users_line(stack)
    assert (found.line, found.function, found.text) == (5, "loss", "line_5 = 5")


@pytest.mark.parametrize("library", [TENSORFLOW, KERAS, STANDARD, PACKAGE, "<frozen importlib._bootstrap>"])
def test_a_frame_of_a_library_is_no_users_line(program, library):
    assert users_line([Frame(program, 3, "train"), Frame(library, 1, "inner")]).line == 3


def test_a_frame_of_the_watch_is_no_users_line(program):
    assert users_line([Frame(program, 3, "train"), Frame(WATCH, 1, "apply")]).line == 3


def test_a_frame_that_autograph_generated_is_no_users_line(program, tmp_path):
    generated = str(tmp_path / "__autograph_generated_file1.py")
    assert users_line([Frame(program, 3, "train"), Frame(generated, 1, "inner")]).line == 3


def test_an_installed_package_counts_only_where_no_line_is_of_the_program(program):
    package = Frame(PACKAGE, 7, "helper")
    assert users_line([Frame(program, 3, "train"), package]).line == 3
    assert users_line([package, Frame(TENSORFLOW, 9, "log")]).line == 7


def test_there_is_no_users_line_among_frames_of_the_frameworks():
    assert users_line([Frame(TENSORFLOW, 1, "log"), Frame(KERAS, 1, "fit"), Frame(STANDARD, 1, "wrap")]) is None
    assert users_line([]) is None


def test_the_excerpt_holds_the_line_and_three_lines_on_each_side(program):
    found = users_line([Frame(program, 5, "loss")])
    assert found.text == "line_5 = 5"
    assert found.before == ("    line_2 = 2", "    line_3 = 3", "    line_4 = 4")
    assert found.after == ("    line_6 = 6", "    line_7 = 7", "    line_8 = 8")


def test_the_excerpt_ends_where_the_file_begins_or_ends(program):
    first, last = users_line([Frame(program, 1, "loss")]), users_line([Frame(program, 9, "loss")])
    assert (first.before, first.text, len(first.after)) == ((), "line_1 = 1", 3)
    assert (len(last.before), last.text, last.after) == (3, "line_9 = 9", ())
    assert users_line([Frame(program, 2, "loss")]).before == ("    line_1 = 1",)


def test_the_excerpt_of_this_file_is_its_own_text():
    op = traced_op(lambda: tf.exp(1.0))  # the line of the excerpt
    found = users_line(stack_of(op))
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert found.line == line_of("the line of the excerpt")
    assert found.text == lines[found.line - 1].strip()
    assert found.before == tuple(lines[found.line - 4 : found.line - 1])
    assert found.after == tuple(lines[found.line : found.line + 3])


def test_a_very_long_line_is_cut(tmp_path):
    path = tmp_path / "long.py"
    path.write_text(f"{'a' * 1000}\n{'b' * 1000}\n", encoding="utf-8")
    found = users_line([Frame(str(path), 1, "loss")])
    assert (found.text, found.after) == ("a" * 300, ("b" * 300,))


def test_a_file_that_cannot_be_read_has_a_line_without_text(tmp_path):
    found = users_line([Frame(str(tmp_path / "gone.py"), 4, "loss")])
    assert (found.line, found.text, found.before, found.after) == (4, "", (), ())


def test_a_file_below_the_working_directory_is_shown_relative_to_it(program, tmp_path, monkeypatch):
    assert users_line([Frame(program, 5, "loss")]).file == program
    monkeypatch.chdir(tmp_path)
    assert users_line([Frame(program, 5, "loss")]).file == "program.py"


def test_a_lambda_has_a_name(program):
    assert users_line([Frame(program, 5, "")]).function == "<lambda>"


def test_the_whole_stack_leaves_out_the_watch_and_has_no_text_around_its_lines(program, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shown = shown_frames([Frame(program, 2, "train"), Frame(WATCH, 1, "step"), Frame(TENSORFLOW, 1, "log")])
    assert [(source.file, source.line) for source in shown] == [(program, 2), (TENSORFLOW, 1)]
    assert (shown[0].text, shown[0].before, shown[0].after) == ("line_2 = 2", (), ())


def test_only_the_innermost_frames_of_a_very_deep_stack_are_shown(program):
    shown = shown_frames([Frame(program, number, "deeper") for number in range(100)])
    assert [source.line for source in shown] == list(range(36, 100))


def test_a_users_line_counts_as_within_only_below_the_named_function(program):
    taking = Frame(TENSORFLOW, 1, "gradient")
    below = [taking, Frame(program, 3, "gradient_of_mine"), Frame(TENSORFLOW, 1, "cos")]
    above = [Frame(program, 3, "train"), taking, Frame(TENSORFLOW, 1, "cos")]
    names = frozenset({"gradient"})
    assert has_users_line_within(below, names)
    assert not has_users_line_within(above, names)
    assert not has_users_line_within(below, frozenset({"another"}))


def converted_step():
    if tf.constant(1.0) > 0.0:
        return tf.exp(2.0)  # in converted code
    return tf.sin(2.0)


def test_the_stack_names_the_users_file_where_autograph_generated_the_code():
    found = users_line(stack_of(traced_op(converted_step)))
    assert (found.file, found.line) == (os.path.relpath(HERE), line_of("in converted code"))
    assert found.function == "converted_step"


def test_the_stack_begins_with_the_outermost_frame():
    names = [frame.name for frame in stack_of(traced_op(converted_step))]
    assert names.index("traced_op") < names.index("converted_step") < names.index("exp")


@tf.autograph.experimental.do_not_convert
def here(number=0):
    """Return where the generated code that calls this is."""
    frame = sys._getframe(1)
    while not is_generated(frame.f_code.co_filename):
        frame = frame.f_back
    return CallSite.of(frame)


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


@knows_columns
def test_each_call_of_a_statement_has_its_own_line_also_where_two_read_alike():
    assert lines_of(alike) == [2, 3, 4, 5]


@knows_columns
def test_a_call_of_a_method_has_the_line_of_its_name():
    assert lines_of(in_a_method) == [4]


@knows_columns
def test_a_file_that_cannot_be_read_leaves_the_line_as_it_was():
    (call, *_) = tf.autograph.to_graph(alike)()

    assert exact_line(call, "nowhere.py", 7) == 7
