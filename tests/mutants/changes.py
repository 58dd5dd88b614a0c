"""Small wrong changes of a source file: what may be changed where, as spans of text and what they become.

Nothing is changed in texts, annotations, decorators, `__repr__` and what an error says: nobody promises those.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, order=True)
class Change:
    """A span of a file, in characters, and what it becomes.

    Attributes
    ----------
    begin, end : int
    text : str
    kind : str
        Such as ``"comparison"``.
    function : str
        Qualified name of the innermost function; empty outside of all.
    """

    begin: int
    end: int
    text: str
    kind: str
    function: str = ""

    def applied(self, source: str) -> str:
        """The source with the change."""
        return source[: self.begin] + self.text + source[self.end :]


COMPARISONS = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",), "!=": ("==",)}
OPERATORS: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("*",)),
    ast.FloorDiv: ("//", ("*",)),
    ast.Mod: ("%", ("//",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
}
NAMES = {
    "min": "max", "minimum": "maximum", "any": "all", "floor": "ceil", "argmin": "argmax", "zeros": "ones",
    "rint": "floor", "round": "int", "cumsum": "array",
}  # fmt: skip
SWAPPED = NAMES | {new: old for old, new in NAMES.items() if new in ("max", "maximum", "all", "ceil", "argmax")}
BUILTINS = ("min", "max", "any", "all", "round")
WORDS = {"left": "right", "right": "left"}
DTYPE = re.compile(r"(np|xp)\.(u?int\d+|float\d+|bool_)")
SPEED = (
    "PIECE", "PIECE_BLOCKS", "PIECE_BYTES", "FLUSH_BYTES", "BLOCK_BYTES", "READ_BYTES", "PARSE_BYTES", "ROOM_BYTES",
    "CHUNK_IDS", "TEXT_CHUNK_IDS", "TEXT_CHUNK_ROWS", "TABLE_ROWS", "SMALL_BYTES", "PEEKED", "MOST_ENCODERS",
    "SLAB_REQUESTS", "PART_REQUESTS", "SLAB_CELLS", "BUCKET_TURNS", "CARRY_SHARE", "SHOWN", "GOLDEN",
)  # fmt: skip
"""Constants of modules that decide how fast something is, or how much of a value an error shows, and no result."""


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[Change] = []
        self.function = ""
        self._scope = ""
        lines = source.splitlines(keepends=True)
        self._bytes = [line.encode() for line in lines]
        self._begins = [0]
        for line in lines:
            self._begins.append(self._begins[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        """Characters before a place that the parser tells in bytes."""
        return self._begins[line - 1] + len(self._bytes[line - 1][:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def text(self, node: ast.expr | ast.stmt) -> str:
        begin, end = self.span(node)
        return self.source[begin:end]

    def change(self, begin: int, end: int, text: str, kind: str) -> None:
        self.found.append(Change(begin, end, text, kind, self.function))

    def replace(self, node: ast.expr | ast.stmt, text: str, kind: str) -> None:
        self.change(*self.span(node), text, kind)

    def between(self, left: ast.expr, right: ast.expr, old: str, texts: Iterable[str], kind: str) -> None:
        """An operator between two operands, which may be in parentheses or followed by a comment."""
        begin, end = self.span(left)[1], self.span(right)[0]
        place = re.search(rf"(?<![\w<>=!*/&|]){re.escape(old)}(?![\w<>=*/&|])", self.source[begin:end])
        if place:
            for text in texts:
                self.change(begin + place.start(), begin + place.end(), text, kind)

    # what is left alone

    def _function(self, node: ast.FunctionDef) -> None:
        typed_only = any(getattr(decorator, "id", "") == "overload" for decorator in node.decorator_list)
        if typed_only or node.name in ("__repr__", "_repr_html_"):
            return
        for default in (*node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(default)
        outer, scope = self.function, self._scope
        self.function = scope + node.name
        self._scope = f"{self.function}.<locals>."
        for statement in node.body:
            self.visit(statement)
        self.function, self._scope = outer, scope

    visit_FunctionDef = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        scope, self._scope = self._scope, f"{self._scope}{node.name}."
        for statement in node.body:
            self.visit(statement)
        self._scope = scope

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """A text with values in it, mostly of a message."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """A sentence to readers and type checkers."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self.replace(node, "pass", "statement")

    def visit_If(self, node: ast.If) -> None:
        if self.text(node.test) != "TYPE_CHECKING":
            self.replace(node.test, f"not ({self.text(node.test)})", "condition")
            self.generic_visit(node)

    # what is changed

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.replace(node.test, f"(not ({self.text(node.test)}))", "condition")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            names = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
            if type(operator) in names:
                old = names[type(operator)]
                self.between(left, right, old, COMPARISONS[old], "comparison")
            else:
                swaps = {ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in")}
                old, new = swaps.get(type(operator), ("not in", "in"))
                self.between(left, right, old, (new,), "comparison")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            self.between(left, right, old, (new,), "logic")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OPERATORS:
            old, new = OPERATORS[type(node.op)]
            self.between(node.left, node.right, old, new, "operator")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            begin = self.span(node)[0]
            inner = self.span(node.operand)[0]
            self.change(begin, inner, "" if self.source[inner - 1] != "(" else "(", "sign")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in OPERATORS:
            old, new = OPERATORS[type(node.op)]
            self.between(node.target, node.value, old + "=", [text + "=" for text in new], "operator")
        self.replace(node, "pass", "statement")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value), "constant")
        elif isinstance(node.value, int):
            for new in {node.value + 1, node.value - 1} - {-1}:
                self.replace(node, str(new), "constant")
        elif isinstance(node.value, float):
            self.replace(node, repr(node.value * 2 or 1.0), "constant")
        elif node.value in WORDS:
            self.replace(node, repr(WORDS[node.value]), "side")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in BUILTINS and isinstance(node.ctx, ast.Load):
            self.replace(node, SWAPPED[node.id], "function")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in SWAPPED and isinstance(node.ctx, ast.Load):
            end = self.span(node)[1]
            self.change(end - len(node.attr), end, SWAPPED[node.attr], "function")
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.text(node.func).rsplit(".", 1)[-1]
        if name in ("cast", "TypeVar", "isinstance", "getattr", "hasattr") or name.endswith("Error"):
            return
        plain = [a for a in node.args if not isinstance(a, ast.Starred)]
        for first, second in pairwise(plain):
            texts = self.text(first), self.text(second)
            typed = any(DTYPE.fullmatch(text) for text in texts)
            if texts[0] != texts[1] and not typed and name not in ("max", "min", "minimum", "maximum", "zip"):
                begin, end = self.span(first)[0], self.span(second)[1]
                middle = self.source[self.span(first)[1] : self.span(second)[0]]
                self.change(begin, end, texts[1] + middle + texts[0], "arguments")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of zip: a guard
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node.value, ast.Call):
            self.replace(node, "pass", "statement")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.targets[0], (ast.Subscript, ast.Attribute)):
            self.replace(node, "pass", "statement")
        if getattr(node.targets[0], "id", "") not in ("__all__", *SPEED):
            self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "pass", "statement")

    def visit_Break(self, node: ast.Break) -> None:
        self.replace(node, "pass", "statement")

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper, node.step):
            if bound is not None and not (bound is node.upper and node.lower is None):
                self.replace(bound, "", "slice")
            if bound is not None:
                self.visit(bound)


def of_python(source: str) -> list[Change]:
    """All changes of a module that still parse."""
    finder = _Finder(source)
    module = ast.parse(source)
    finder.visit(module)
    spans = [finder.span(statement) for statement in module.body]
    return sorted({change for change in finder.found if _parses(source, change, spans)})


def _parses(source: str, change: Change, spans: list[tuple[int, int]]) -> bool:
    """Whether the statement of the module that a change is in still parses."""
    begin, end = next(span for span in spans if span[0] <= change.begin < span[1])
    try:
        ast.parse(source[begin : change.begin] + change.text + source[change.end : end])
    except SyntaxError:
        return False
    return True


IN_C = (
    (r"(?<![<>=!\-+*/&|^%<-])<(?![<=])(?=[^<>]*;|[^<>]*\)|[^<>]*$)", ("<=", ">"), "comparison"),
    (r"<=(?!=)", ("<", ">"), "comparison"),
    (r"(?<=\s)>(?=\s)", (">=", "<="), "comparison"),
    (r">=", (">", "<"), "comparison"),
    (r"==", ("!=",), "comparison"),
    (r"!=", ("==",), "comparison"),
    (r"&&", ("||",), "logic"),
    (r"(?<=\s)\|\|", ("&&",), "logic"),
    (r"(?<=\s)\+(?=\s)", ("-",), "operator"),
    (r"(?<=\s)-(?=\s)", ("+",), "operator"),
    (r"(?<=\s)\*(?=\s)", ("+",), "operator"),
    (r"(?<=\s)/(?=\s)", ("*",), "operator"),
    (r"(?<=\s)\|(?=\s)", ("&",), "operator"),
    (r"(?<=\s)&(?=\s)", ("|",), "operator"),
    (r"(?<=\s)<<(?=\s)", (">>",), "operator"),
    (r"(?<=\s)>>(?=\s)", ("<<",), "operator"),
    (r"(?<=\s)\+=(?=\s)", ("-=",), "operator"),
    (r"(?<![\w.])!(?=[\w(])", ("",), "sign"),
    (r"(?<![\w.])(\d+)(?![\w.])", ("+1", "-1"), "constant"),
    (r"(?<![\w.])\d+\.\d+(?![\w.])", ("*2",), "constant"),
    (
        r"(?m)^ +(?!return|if|for|while|else|break|continue|const|case|auto|\}|#)[\w.\[\]>-]+(?: [+|]?= |\().*;$",
        (";",),
        "statement",
    ),
    (r"\bcontinue;|\bbreak;", (";",), "statement"),
)  # fmt: skip


C_LEFT_ALONE = re.compile(
    r"//[^\n]*|SG_PREFETCH[^\n]*|^[ \t]*#[^\n]*|\"[^\"\n]*\"|'[^'\n]*'"
    r"|template <[^\n]*|alignas\(\w+\)|\[\d+\]|_cast<[^\n(]*>",
    re.MULTILINE,
)


def of_c(source: str) -> list[Change]:
    """All changes of a header, by patterns of its text: comments, directives and texts stay."""
    blank = C_LEFT_ALONE.sub(lambda found: " " * len(found[0]), source)
    changes = set()
    for pattern, texts, kind in IN_C:
        for place in re.finditer(pattern, blank):
            for text in texts:
                new = _number(place[0], text) if kind == "constant" else text
                if new is not None:
                    changes.add(Change(place.start(), place.end(), new, kind))
    return sorted(changes)


def _number(old: str, how: str) -> str | None:
    if how == "*2":
        return repr(float(old) * 2 or 1.0)
    new = int(old) + int(how)
    return None if new < 0 else str(new)


def described(source: str, change: Change) -> Iterator[str]:
    """The lines that a change touches, before and after."""
    first = source.count("\n", 0, change.begin)
    last = source.count("\n", 0, change.end)
    after = change.applied(source).split("\n")
    rest = len(after) - len(source.split("\n"))
    yield from (f"-{line}" for line in source.split("\n")[first : last + 1])
    yield from (f"+{line}" for line in after[first : last + 1 + rest])
