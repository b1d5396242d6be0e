"""From the stack that made an operation to the user's source line, and to the expression in that line.

The user's line is in the innermost frame that belongs to neither TensorFlow, Keras, Python nor the watch.

AutoGraph writes a statement of several lines on one line, and it records only the line of the leftmost part. The
position of the frame in its bytecode says which expression of the statement ran. The user's file holds the same
expression on a line of its own.
"""

from __future__ import annotations

import ast
import linecache
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from tb_nanwatch.schema.records import Source
from tb_nanwatch.watch.installed import is_frameworks, is_package, is_program, own_directory
from tb_nanwatch.watch.tf_internals import converted_factories

_LINES_AROUND: Final = 3
_MOST_FRAMES: Final = 64
_LONGEST_LINE: Final = 300
_GENERATED: Final = "__autograph_generated_file"
_AUTOGRAPH: Final = "ag__"
Span = tuple[int, int, int, int]


class Frame(NamedTuple):
    """A call on a stack."""

    filename: str
    lineno: int
    name: str


Stack = Sequence[Frame]


class CallSite(NamedTuple):
    """The position of a frame while it calls another function.

    Attributes:
        code: the code that the frame runs.
        instruction: the offset of the call in that code.
        lineno: the line in the file of the code.
    """

    code: CodeType
    instruction: int
    lineno: int

    @classmethod
    def of(cls, frame: FrameType) -> CallSite:
        """Return the current position of a frame."""
        return cls(frame.f_code, frame.f_lasti, frame.f_lineno)

    @property
    def place(self) -> tuple[str, int]:
        """The file and the line of the generated code."""
        return self.code.co_filename, self.lineno


def stack_of(op: Any, calls: Sequence[CallSite] = ()) -> Stack:
    """Return the stack that made an operation, outermost frame first, in terms of files that people wrote.

    TensorFlow maps frames of generated code back to the user's file. It fails for a function that is defined inside a
    converted function and called after that function has returned, as ``tf.scan`` calls it. AutoGraph's own source map
    covers this case.

    Args:
        op: the operation.
        calls: the calls on its stack that stand in code that AutoGraph generated, outermost first, if they are known.
            They tell the lines of one statement apart.
    """
    frames = [Frame(frame.filename, int(frame.lineno or 0), frame.name or "") for frame in _draft_of(op).traceback]
    if not calls and not any(is_generated(frame.filename) for frame in frames):
        return frames
    sources = _sources_of_generated_lines()
    return _with_exact_lines(
        [sources.get((frame.filename, frame.lineno), frame) for frame in frames], calls, sources=sources
    )


def _with_exact_lines(frames: Stack, calls: Sequence[CallSite], *, sources: Mapping[tuple[str, int], Frame]) -> Stack:
    """Replace the line of a statement by the line of the expression that ran, where the calls say which it was."""
    exact, unmatched = [], [(call, sources[call.place]) for call in calls if call.place in sources]
    for frame in reversed(frames):
        places = [at for at, (_, source) in enumerate(unmatched) if source[:2] == frame[:2]]
        if places:
            exact.append(frame._replace(lineno=exact_line(unmatched[places[-1]][0], *frame[:2])))
            del unmatched[places[-1] :]
        else:
            exact.append(frame)
    return exact[::-1]


def _draft_of(op: Any) -> Any:
    # From each operation of the user's function, tf.vectorized_map makes one operation for all rows.
    draft, mark, _ = op.name.partition("/pfor/")
    try:
        return op.graph.get_operation_by_name(draft) if mark else op
    except KeyError:
        return op


def _sources_of_generated_lines() -> dict[tuple[str, int], Frame]:
    found = {}
    for factories in converted_factories():
        for factory in list(factories.values()):
            for at, origin in (factory.source_map or {}).items():
                frame = Frame(origin.loc.filename, int(origin.loc.lineno), origin.function_name or "")
                found[at.filename, int(at.lineno)] = frame
    return found


@cache
def is_generated(filename: str) -> bool:
    """Return whether AutoGraph wrote a file."""
    return os.path.basename(filename).startswith(_GENERATED)


def users_line(stack: Stack) -> Source | None:
    """Return the user's line on a stack, with the lines around it.

    A line of an installed package counts only if no line of the stack belongs to the program itself. Lines of the
    frameworks never count.

    Args:
        stack: from :func:`stack_of`.
    """
    for is_users in (_is_program, _is_third_party):
        frame = next((frame for frame in reversed(stack) if is_users(frame.filename)), None)
        if frame is not None:
            return _with_surroundings(frame)
    return None


def has_users_line_within(stack: Stack, names: frozenset[str]) -> bool:
    """Return whether a line of the program stands deeper on the stack than the first call of a named function."""
    depth = next((place for place, frame in enumerate(stack) if frame.name in names), None)
    return depth is not None and any(_is_program(frame.filename) for frame in stack[depth:])


def shown_frames(stack: Stack) -> tuple[Source, ...]:
    """Return the frames of a stack as records, without the text around each line and without the watch's own frames.

    Of a very deep stack, only the innermost frames are returned.
    """
    shown = [frame for frame in stack if not frame.filename.startswith(own_directory())]
    return tuple(_plain(frame) for frame in shown[-_MOST_FRAMES:])


def _plain(frame: Frame) -> Source:
    text = linecache.getline(frame.filename, frame.lineno).strip()
    return Source(_shown_path(frame.filename), max(0, frame.lineno), frame.name or "<lambda>", text[:_LONGEST_LINE])


def _with_surroundings(frame: Frame) -> Source:
    plain = _plain(frame)
    lines = [line.rstrip("\n")[:_LONGEST_LINE] for line in linecache.getlines(frame.filename)]
    at = plain.line - 1
    before, after = lines[max(0, at - _LINES_AROUND) : max(0, at)], lines[at + 1 : at + 1 + _LINES_AROUND]
    return Source(plain.file, plain.line, plain.function, plain.text, tuple(before), tuple(after))


def _shown_path(filename: str) -> str:
    absolute, here = os.path.abspath(filename), os.path.join(os.getcwd(), "")
    return absolute.removeprefix(here) if absolute.startswith(here) else filename


def _is_program(filename: str) -> bool:
    return is_program(filename) and not _has_no_author(filename)


def _is_third_party(filename: str) -> bool:
    return is_package(filename) and not is_frameworks(filename) and not _has_no_author(filename)


def _has_no_author(filename: str) -> bool:
    """Return whether a framework generated the code, or no file holds it, as with the import machinery."""
    return filename.startswith("<frozen") or is_generated(filename)


def exact_line(call: CallSite, filename: str, lineno: int) -> int:
    """Return the line of the expression that a call was generated from.

    Args:
        call: a call in generated code.
        filename: the user's file.
        lineno: the line of the statement in it, or any line of that statement.

    Returns:
        ``lineno`` where the expression is not known. Python 3.10 does not record which part of a line runs.
    """
    span, statement = _span(call), _statement(filename, lineno)
    generated = _expressions_around(call, span) if span else ()
    named = next((expression for expression in generated if _span_of(expression) == span), None)
    if named is None or statement is None:
        return lineno
    alike = [expression for expression in generated if ast.dump(expression) == ast.dump(named)]
    written = [expression for expression in _expressions(statement) if ast.dump(expression) == ast.dump(named)]
    if len(alike) != len(written):
        lines = {_line_of(expression) for expression in written}
        return lines.pop() if len(lines) == 1 else lineno
    return _line_of(written[next(at for at, expression in enumerate(alike) if expression is named)])


def expressions_at(filename: str, lineno: int) -> Sequence[ast.expr]:
    """Return the expressions of the statement at a line as the user wrote them, in generated code too."""
    statement = _innermost(_generated(filename), lineno)
    return [] if statement is None else list(_expressions(statement))


def _span(call: CallSite) -> Span | None:
    positions = getattr(call.code, "co_positions", None)
    if positions is None:
        return None
    line, last, column, end = list(positions())[call.instruction // 2]
    return None if None in (line, last, column, end) else (line, last, column, end)


def _span_of(node: Any) -> Span:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _line_of(expression: ast.expr) -> int:
    """Return the line that Python reports while an expression runs; for a method call, that of the method's name."""
    match expression:
        case ast.Call(func=ast.Attribute(end_lineno=int(line))):
            return line
    return expression.lineno


def _expressions_around(call: CallSite, span: Span) -> Sequence[ast.expr]:
    statement = _innermost(_generated(call.code.co_filename), span[0])
    return [] if statement is None else list(_expressions(statement))


def _statement(filename: str, lineno: int) -> ast.stmt | None:
    return _innermost(_parsed(filename), lineno)


def _innermost(tree: ast.Module | None, lineno: int) -> ast.stmt | None:
    nodes = ast.walk(tree) if tree is not None else iter(())
    around = [node for node in nodes if isinstance(node, ast.stmt) and node.lineno <= lineno <= (node.end_lineno or 0)]
    return min(around, key=lambda node: (node.end_lineno or 0) - node.lineno, default=None)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions in a node, in the order of the text."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        yield from _expressions(child)


@cache
def _parsed(filename: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None


@cache
def _generated(filename: str) -> ast.Module | None:
    tree = _parsed(filename)
    return None if tree is None else _AsWritten().visit(tree)


class _AsWritten(ast.NodeTransformer):
    """Replaces what AutoGraph generated for calls and names by the original; the positions in the file stay."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="ld"), args=[name]) if (
                module == _AUTOGRAPH
            ):
                return name
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=module), attr="converted_call"),
                args=[function, ast.Tuple(elts=args), options, *_],
            ) if module == _AUTOGRAPH:
                keywords = options.keywords if isinstance(options, ast.Call) else []
                return ast.copy_location(ast.Call(func=function, args=args, keywords=keywords), node)
        return node
