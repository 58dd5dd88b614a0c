"""The text of PTX as variables, functions and instructions."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

WIDTHS = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "busf" for bits in (8, 16, 32, 64) if f"{kind}{bits}" != "f8"},
}
"""Bits of every type."""


class Unknown(ValueError):
    """PTX that the translator does not know."""

    def __init__(self, line: int, text: str, why: str = "unknown") -> None:
        super().__init__(f"PTX line {line}: {why}: {' '.join(text.split())}")


@dataclass(frozen=True)
class Variable:
    """A declared piece of memory: ``.space .align N .type name[count] = {values}``.

    Attributes
    ----------
    space : str
        const, global, shared, local or param.
    type : str
    name : str
    align : int
        Bytes.
    count : int
        Elements; 0 for shared memory whose size the launch says.
    values : tuple of str
    """

    space: str
    type: str
    name: str
    align: int
    count: int
    values: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.count * WIDTHS[self.type] // 8


@dataclass(frozen=True)
class Instruction:
    """An instruction.

    Attributes
    ----------
    line : int
    text : str
    guard : str
        A predicate, with ``!`` before it where it is negated, or nothing.
    opcode : tuple of str
        What stands between the dots.
    operands : tuple of str
    """

    line: int
    text: str
    guard: str
    opcode: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    """A place to jump to; `names` are what a table of jumps lists."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registers:
    """Registers of one type."""

    type: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """What braces hold."""

    items: tuple[Scope | Variable | Registers | Label | Instruction, ...]


@dataclass(frozen=True)
class Function:
    """A kernel, or a function that kernels call."""

    name: str
    kernel: bool
    results: tuple[Variable, ...]
    params: tuple[Variable, ...]
    body: Scope


@dataclass
class Module:
    """All of a text."""

    variables: list[Variable] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


_WORD = re.compile(r"\S")
_HEADER = re.compile(r"\s*(\.version|\.target|\.address_size)\b[^\n]*")
_FUNCTION = re.compile(
    r"\s*((?:\.(?:visible|weak|extern|common)\s+)*)\.(entry|func)\s*(?:\(([^()]*)\)\s*)?([\w$]+)\s*(?:\(([^()]*)\))?([^{;]*)([{;])"
)
_VARIABLE = re.compile(
    r"(?:\.(?:visible|weak|extern|common)\s+)*\.(const|global|shared|local|param)\s+(?:\.attribute\([^)]*\)\s*)?"
    r"(?:\.align\s+(\d+)\s+)?(?:\.ptr\s+(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?)?\.(\w+)\s+([\w$%]+)\s*((?:\[\d*\]\s*)*)(?:=\s*(.+))?$",
    re.DOTALL,
)
_PARAM = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.[a-z]+\s+(?:\d+\s+)?)*)?([\w$%]+)\s*(?:\[(\d+)\])?"
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.+)$", re.DOTALL)
_IGNORED = re.compile(r"\.loc\b[^\n]*|\.pragma\b[^;]*;|;")
_LABEL = re.compile(r"\s*([\w$]+)\s*:(?!:)(?:\s*\.branchtargets\s+([^;]+);)?")
_INSTRUCTION = re.compile(r"(?:@(!?)(%?[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)


def parse(text: str) -> Module:
    """The module of a PTX text.

    Raises
    ------
    Unknown
        With the line of what is not known.
    """
    return _Reader(re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)).module()


def split(text: str) -> list[str]:
    """What commas separate outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^{\[]*[}\]])", text) if part.strip()]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.ends = [found.end() for found in re.finditer("\n", text)]

    def module(self) -> Module:
        module = Module()
        while self._next():
            if found := _HEADER.match(self.text, self.at):
                self.at = found.end()
            elif found := _FUNCTION.match(self.text, self.at):
                self.at = found.end()
                if found[7] == "{":
                    results, params = (tuple(self._param(p) for p in split(found[n] or "")) for n in (3, 5))
                    module.functions.append(Function(found[4], found[2] == "entry", results, params, self._scope()))
            else:
                line, statement = self._statement()
                module.variables.append(self._variable(line, statement))
        return module

    def _next(self) -> bool:
        """To the next word, if there is one."""
        found = _WORD.search(self.text, self.at)
        self.at = found.start() if found else len(self.text)
        return found is not None

    def _line(self, at: int) -> int:
        return bisect_right(self.ends, at) + 1

    def _statement(self) -> tuple[int, str]:
        self._next()
        begin, end = self.at, self.text.find(";", self.at)
        if end < 0:
            raise Unknown(self._line(begin), self.text[begin : begin + 80], "no end of a statement")
        self.at = end + 1
        return self._line(begin), self.text[begin:end].strip()

    def _scope(self) -> Scope:
        """What stands before the closing brace."""
        items: list[Scope | Variable | Registers | Label | Instruction] = []
        while True:
            if not self._next():
                raise Unknown(self._line(len(self.text)), "", "no end of braces")
            if self.text.startswith("}", self.at):
                self.at += 1
                return Scope(tuple(items))
            if self.text.startswith("{", self.at):
                self.at += 1
                items.append(self._scope())
            elif found := _IGNORED.match(self.text, self.at):
                self.at = found.end()
            elif found := _LABEL.match(self.text, self.at):
                self.at = found.end()
                items.append(Label(found[1], tuple(split(found[2] or ""))))
            else:
                items.append(self._item(*self._statement()))

    def _item(self, line: int, statement: str) -> Variable | Registers | Instruction:
        if found := _REGISTERS.match(statement):
            return self._registers(line, statement, found[1], found[2])
        if statement.startswith("."):
            return self._variable(line, statement)
        if not (found := _INSTRUCTION.match(statement)):
            raise Unknown(line, statement)
        guard = found[1] + found[2] if found[2] else ""
        return Instruction(line, statement, guard, tuple(found[3].split(".")), tuple(_operands(found[4])))

    @staticmethod
    def _registers(line: int, statement: str, kind: str, names: str) -> Registers:
        if kind not in WIDTHS:
            raise Unknown(line, statement)
        each: list[str] = []
        for name in split(names):
            found = re.fullmatch(r"([\w$%]+)(?:<(\d+)>)?", name)
            if not found:
                raise Unknown(line, statement)
            each += [f"{found[1]}{i}" for i in range(int(found[2]))] if found[2] else [found[1]]
        return Registers(kind, tuple(each))

    @staticmethod
    def _variable(line: int, statement: str) -> Variable:
        found = _VARIABLE.match(statement)
        if not found or found[3] not in WIDTHS:
            raise Unknown(line, statement[:200])
        space, align, kind, name, sizes, values = found.groups()
        count = 1
        for size in re.findall(r"\[(\d*)\]", sizes):
            count *= int(size or 0)
        listed = tuple(re.split(r"[\s,{}]+", values.strip(" {}\n\t"))) if values else ()
        return Variable(space, kind, name, int(align or max(1, WIDTHS[kind] // 8)), count, listed)

    def _param(self, text: str) -> Variable:
        found = _PARAM.fullmatch(" ".join(text.split()))
        if not found or found[2] not in WIDTHS:
            raise Unknown(self._line(self.at), text)
        return Variable("param", found[2], found[3], int(found[1] or WIDTHS[found[2]] // 8), int(found[4] or 1))


def _operands(text: str) -> list[str]:
    """Operands of an instruction; those of a call may stand in parentheses."""
    return [part.strip() for part in re.split(r",(?![^{\[(]*[}\])])", text) if part.strip()]
