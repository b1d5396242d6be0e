"""From a call in code that AutoGraph generated to the line of the expression that it was generated from.

AutoGraph writes a statement of many lines on one, and keeps of the lines that it came from only that of the leftmost
part. Which expression of the statement a frame was in is told by the frame's place in its bytecode, and the same
expression stands in the user's file.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Sequence
from functools import cache
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

_AUTOGRAPH: Final = "ag__"
Span = tuple[int, int, int, int]


class Call(NamedTuple):
    """Where a frame was when it called.

    Attributes:
        code: that it ran.
        instruction: the offset of the call in it.
        lineno: in the file of the code.
    """

    code: CodeType
    instruction: int
    lineno: int

    @classmethod
    def of(cls, frame: FrameType) -> Call:
        """Tell where a frame is now."""
        return cls(frame.f_code, frame.f_lasti, frame.f_lineno)

    @property
    def place(self) -> tuple[str, int]:
        """The file and the line of the generated code."""
        return self.code.co_filename, self.lineno


def exact_line(call: Call, filename: str, lineno: int) -> int:
    """Return the line of the expression that a call was generated from.

    Args:
        call: in generated code.
        filename: of the user's code.
        lineno: of the statement there, or any line of it.

    Returns:
        ``lineno`` where the expression cannot be told: Python 3.10 does not know which part of a line runs.
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
    """Return the expressions of the statement at a line, as the user wrote them, even if AutoGraph generated it."""
    statement = _innermost(_generated(filename), lineno)
    return [] if statement is None else list(_expressions(statement))


def _span(call: Call) -> Span | None:
    positions = getattr(call.code, "co_positions", None)
    if positions is None:
        return None
    line, last, column, end = list(positions())[call.instruction // 2]
    return None if None in (line, last, column, end) else (line, last, column, end)


def _span_of(node: Any) -> Span:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _line_of(expression: ast.expr) -> int:
    """Return the line that Python gives an expression when it runs: of a method's call, that of its name."""
    match expression:
        case ast.Call(func=ast.Attribute(end_lineno=int(line))):
            return line
    return expression.lineno


def _expressions_around(call: Call, span: Span) -> Sequence[ast.expr]:
    statement = _innermost(_generated(call.code.co_filename), span[0])
    return [] if statement is None else list(_expressions(statement))


def _statement(filename: str, lineno: int) -> ast.stmt | None:
    return _innermost(_parsed(filename), lineno)


def _innermost(tree: ast.Module | None, lineno: int) -> ast.stmt | None:
    nodes = ast.walk(tree) if tree is not None else iter(())
    around = [node for node in nodes if isinstance(node, ast.stmt) and node.lineno <= lineno <= (node.end_lineno or 0)]
    return min(around, key=lambda node: (node.end_lineno or 0) - node.lineno, default=None)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions in a node, in the order in which they are written."""
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
    """Takes back what AutoGraph makes of calls and names; what it makes of them keeps its place in the file."""

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
