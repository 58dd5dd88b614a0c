"""One instruction as a statement of C++."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptx.forms import CONTRACTIBLE_FORMS, FORMS
from ptx.parse import WIDTHS, Instruction, Unknown, split

SPECIAL_REGISTERS = {
    **{f"%tid.{a}": f"me->at.{a}" for a in "xyz"},
    **{f"%ntid.{a}": f"launched.block.{a}" for a in "xyz"},
    **{f"%ctaid.{a}": f"me->block->at.{a}" for a in "xyz"},
    **{f"%nctaid.{a}": f"launched.grid.{a}" for a in "xyz"},
    "%laneid": "me->lane",
    "%warpid": "(me->number / WARP)",
    "%nwarpid": "me->block->warps()",
    "%lanemask_eq": "(1u << me->lane)",
    "%lanemask_lt": "((1u << me->lane) - 1)",
    "%lanemask_le": "((2u << me->lane) - 1)",
    "%lanemask_gt": "~((2u << me->lane) - 1)",
    "%lanemask_ge": "~((1u << me->lane) - 1)",
    "%smid": "u32{0}",
    "%nsmid": "u32{1}",
    "WARP_SZ": "WARP",
}
"""What a device knows without being told."""


@dataclass
class Names:
    """What names stand for in a scope.

    Attributes
    ----------
    symbols : dict of str to str
        Addresses of variables.
    contractible : bool
        Whether additions and multiplications without a rounding mode are taken.
    labels, tables : dict
        Places to jump to, and lists of them.
    """

    symbols: dict[str, str]
    contractible: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)


def cpp_name(kind: str, name: str) -> str:
    """A name of PTX in C++: of a function, a symbol, a register, a label."""
    return f"{kind}_" + name.replace("%", "").replace("$", "_")


def address(guard: str) -> str:
    """A predicate, negated or not."""
    return ("!" if guard.startswith("!") else "") + cpp_name("r", guard.lstrip("!"))


def value(operand: str, names: Names) -> str:
    """What an operand holds, as bits."""
    if operand in SPECIAL_REGISTERS:
        return SPECIAL_REGISTERS[operand]
    if operand.startswith("!"):
        return address(operand)
    if found := re.fullmatch(r"0[dDfF]([0-9a-fA-F]+)", operand):
        return f"0x{found[1]}u" + ("ll" if operand[1] in "dD" else "")
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", operand):
        return f"{int(operand.rstrip('U'), 0) % 2**64}ull"
    if found := re.fullmatch(r"(.*[^+\s])\s*\+?\s*([+-]\s*\d+)", operand):
        return f"({value(found[1], names)} + {int(found[2].replace(' ', '')) % 2**64}ull)"
    return names.symbols.get(operand) or cpp_name("r", operand)


def _set(to: str, expression: str) -> str:
    return f"(void)({expression});" if to == "_" else f"set({cpp_name('r', to)}, {expression});"


def _in(kind: str, operand: str, names: Names) -> str:
    return f"in<{kind}>({value(operand, names)})"


def emit(instruction: Instruction, names: Names) -> str:
    """The statement.

    Raises
    ------
    Unknown
    """
    opcode = ".".join(instruction.opcode)
    form = FORMS.get(opcode) or (CONTRACTIBLE_FORMS.get(opcode) if names.contractible else None)
    if form:
        sources = form.operands[1:].replace("c", "")
        if len(instruction.operands) != 1 + len(sources):
            raise Unknown(instruction.line, instruction.text, "operands")
        to, *given = instruction.operands
        inputs = [_in(form.type_of(letter), operand, names) for letter, operand in zip(sources, given, strict=True)]
        return _set(to, f"{form.function}({', '.join(inputs + ['carry'] * ('c' in form.operands))})")
    if opcode in CONTRACTIBLE_FORMS:
        raise Unknown(instruction.line, instruction.text, "may be contracted: compile with --fmad=false")
    write = WRITERS.get(instruction.opcode[0])
    try:
        text = write(_Operation(instruction, names)) if write else None
    except (IndexError, KeyError, ValueError):  # operands that are not there, types that have no such instruction
        text = None
    if text is None:
        raise Unknown(instruction.line, instruction.text)
    return text


class _Operation:
    """An instruction whose modifiers are taken one by one; what is left at the end is unknown."""

    def __init__(self, instruction: Instruction, names: Names) -> None:
        self.instruction, self.names = instruction, names
        self.line, self.operands = instruction.line, instruction.operands
        self.left = [m for m in instruction.opcode[1:] if not m.startswith(("L1::", "L2::"))]
        self.type = self.left.pop() if self.left and self.left[-1] in WIDTHS else ""

    def take(self, *choices: str) -> str:
        """The first modifier that is one of these, or nothing."""
        for modifier in self.left:
            if modifier in choices:
                self.left.remove(modifier)
                return modifier
        return ""

    def value(self, n: int) -> str:
        return value(self.operands[n], self.names)

    def typed(self, kind: str, n: int) -> str:
        return _in(kind, self.operands[n], self.names)

    def done(self, text: str) -> str | None:
        return None if self.left else text


def _move(of: _Operation) -> str | None:
    to, source = of.operands
    bits = WIDTHS[of.type]
    if to.startswith("{"):
        parts = split(to[1:-1])
        each = bits // len(parts)
        moved = [_set(p, f"static_cast<u{each}>({of.value(1)} >> {n * each})") for n, p in enumerate(parts)]
        return of.done(" ".join(moved))
    if source.startswith("{"):
        parts = split(source[1:-1])
        each = bits // len(parts)
        joined = " | ".join(f"u{bits}{{in<u{each}>({value(p, of.names)})}} << {n * each}" for n, p in enumerate(parts))
        return of.done(_set(to, f"static_cast<u{bits}>({joined})"))
    return of.done(_set(to, of.typed("bool" if bits == 1 else f"u{bits}", 1)))


def _cvta(of: _Operation) -> str | None:
    back, space = of.take("to"), of.take("global", "shared", "local", "const", "param")
    of.take("shared::cta")
    turn = {"": "generic_of_shared", "to": "shared_of_generic"}[back] if space == "shared" else ""
    return of.done(_set(of.operands[0], f"{turn}({of.value(1)})"))


def _isspacep(of: _Operation) -> str | None:
    return of.done(_set(of.operands[0], f"is_shared({of.value(1)})")) if of.take("shared", "shared::cta") else None


# Memory


def _access(of: _Operation) -> tuple[str, str, int]:
    """Space, whether the access is strong, elements."""
    space = of.take("global", "shared", "shared::cta", "local", "const", "param")
    strong = of.take("volatile", "relaxed", "acquire", "release", "weak") not in ("", "weak")
    of.take("cta", "gpu", "sys", "cluster")
    of.take("nc")
    of.take("ca", "cg", "cs", "lu", "cv", "wb", "wt")
    elements = {"": 1, "v2": 2, "v4": 4}[of.take("v2", "v4")]
    where = "ANY" if not space else "SHARED" if space.startswith("shared") else "OTHER"
    return f"Space::{where}", "true" if strong else "false", elements


def _place(of: _Operation, n: int) -> str:
    return value(of.operands[n][1:-1].strip(), of.names)


def _load(of: _Operation) -> str | None:
    space, strong, elements = _access(of)
    to = split(of.operands[0].strip("{}"))
    if len(to) != elements:
        return None
    loaded = f"load<{space}, {of.type}, {elements}>({_place(of, 1)}, {strong}, {of.line})"
    return of.done(f"{{ const auto v = {loaded}; {' '.join(_set(r, f'v.of[{i}]') for i, r in enumerate(to))} }}")


def _store(of: _Operation) -> str | None:
    space, strong, elements = _access(of)
    given = split(of.operands[1].strip("{}"))
    if len(given) != elements:
        return None
    vector = ", ".join(_in(of.type, operand, of.names) for operand in given)
    kind = f"Vector<{of.type}, {elements}>"
    return of.done(
        f"store<{space}, {of.type}, {elements}>({_place(of, 0)}, {kind}{{{{{vector}}}}}, {strong}, {of.line});"
    )


def _atomic(of: _Operation) -> str | None:
    returns = of.instruction.opcode[0] == "atom"
    of.take("noftz")
    space, _, elements = _access(of)
    of.take("acq_rel")
    name = of.take("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
    if elements != 1 or not name or (name not in ("add",) and of.type.startswith("f")):
        return None
    given = ", ".join(of.typed(of.type, n) for n in range(1 + returns, len(of.operands)))
    function = f"[&](auto old) {{ return atomic_{name}<{of.type}>(old, {given}); }}"
    call = f"atomic<{space}, {of.type}>({_place(of, int(returns))}, {of.line}, {function})"
    return of.done(_set(of.operands[0], call) if returns else f"{call};")


# Predicates


def _compare(of: _Operation, first: str = "p", second: str = "") -> str | None:
    """Writes p, and q of its opposite, of a comparison joined with a third operand where there is one."""
    join = of.take("and", "or", "xor")
    name = of.left.pop(0)
    alike = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    kind = of.type
    if name.endswith("u") and name != "u" and not kind.startswith("f"):
        return None
    compared = f"setp_{alike.get(name, name)}<{kind}>({of.typed(kind, 1)}, {of.typed(kind, 2)})"
    if not re.fullmatch(r"(eq|ne|lt|le|gt|ge)u?|lo|ls|hi|hs|num|nan", name):
        return None
    other = {"": "", "and": "& ", "or": "| ", "xor": "^ "}[join] + (of.typed("bool", 3) if join else "")
    text = f"const bool is = {compared}; {_set(first, f'bool(is {other})')}"
    return of.done(f"{{ {text} {_set(second, f'bool(!is {other})') if second else ''} }}")


def _setp(of: _Operation) -> str | None:
    first, _, second = of.operands[0].partition("|")
    return _compare(of, first.strip(), second.strip())


def _set_to(of: _Operation) -> str | None:
    """`set`: a predicate as a number."""
    to = of.left.pop()  # set.CMP.dtype.stype
    answer = "answer"
    compared = _compare(of, answer)
    if compared is None:
        return None
    return f"{{ bool r_{answer}; {compared} {_set(of.operands[0], f'yes<{to}>(r_{answer})')} }}"


# Threads together


def _barrier(of: _Operation) -> str | None:
    warp, kind = of.take("warp"), of.take("sync", "arrive", "red")
    of.take("cta")
    of.take("aligned")
    operands = [value(o, of.names) for o in of.operands]
    if warp:
        return of.done(f"warp_sync(in<u32>({operands[0]}), {of.line});") if kind == "sync" else None
    if kind == "red":
        how = of.take("popc", "and", "or")
        number, *threads, given = operands[1:]
        count = f"in<u32>({threads[0]})" if threads else "0"
        call = f"barrier(RED_{how.upper()}, in<u32>({number}), {count}, {given}, {of.line})"
        return of.done(_set(of.operands[0], f"{call}.{'got' if how == 'popc' else 'yes'}"))
    threads_text = f"in<u32>({operands[1]})" if len(operands) > 1 else "0"
    if kind == "arrive":
        return of.done(f"barrier_arrive(in<u32>({operands[0]}), {threads_text}, {of.line});")
    return of.done(f"barrier(SYNC, in<u32>({operands[0]}), {threads_text}, false, {of.line});") if kind else None


def _shuffle(of: _Operation) -> str | None:
    kind = of.take("up", "down", "bfly", "idx")
    to, _, inside = of.operands[0].partition("|")
    given = [of.typed("u32", n) for n in range(1, 5)]
    call = f"shfl({kind.upper()}, {', '.join(given)}, inside, {of.line})"
    text = f"{{ bool inside; {_set(to.strip(), call)} {_set(inside.strip(), 'inside') if inside else ''} }}"
    return of.done(text) if of.take("sync") else None


def _vote(of: _Operation) -> str | None:
    kind = of.take("all", "any", "uni", "ballot")
    call = f"vote({kind.upper()}, {of.typed('bool', 1)}, {of.typed('u32', 2)}, {of.line})"
    text = _set(of.operands[0], f"in<u32>({call}.got)" if kind == "ballot" else f"{call}.yes")
    return of.done(text) if of.take("sync") else None


def _match(of: _Operation) -> str | None:
    kind = of.take("any", "all")
    to, _, every = of.operands[0].partition("|")
    call = f"match(MATCH_{kind.upper()}, {of.typed(f'u{WIDTHS[of.type]}', 1)}, {of.typed('u32', 2)}, every, {of.line})"
    text = f"{{ bool every; {_set(to.strip(), call)} {_set(every.strip(), 'every') if every else ''} }}"
    return of.done(text) if of.take("sync") else None


def _redux(of: _Operation) -> str | None:
    kind = of.take("add", "min", "max", "and", "or", "xor").upper()
    kind += "_SIGNED" if of.type == "s32" and kind in ("MIN", "MAX") else ""
    text = _set(of.operands[0], f"redux({kind}, {of.typed('u32', 1)}, {of.typed('u32', 2)}, {of.line})")
    return of.done(text) if of.take("sync") and WIDTHS[of.type] == 32 else None


# The way through a function


def _branch(of: _Operation) -> str | None:
    of.take("uni")
    label = of.names.labels.get(of.operands[0])
    return of.done(f"goto {label};") if label else None


def _branch_by_index(of: _Operation) -> str | None:
    of.take("uni")
    if not of.take("idx") or of.operands[1] not in of.names.tables:
        return None
    labels = of.names.tables[of.operands[1]]
    cases = " ".join(f"case {n}: goto {of.names.labels[label]};" for n, label in enumerate(labels))
    return of.done(f"switch ({of.value(0)}) {{ {cases} default: __builtin_unreachable(); }}")


def _call(of: _Operation) -> str | None:
    of.take("uni")
    *results, name, given = of.operands if of.operands[-1].startswith("(") else (*of.operands, "()")
    parts = [p for group in (*results, given) for p in split(group.strip("()"))]
    return of.done(f"{cpp_name('f', name)}({', '.join(value(p, of.names) for p in parts)});")


def _return(_: _Operation) -> str:
    return "return;"


def _nothing(_: _Operation) -> str:
    return ";"


def _sleep(_: _Operation) -> str:
    return "yield();"


def _trap(of: _Operation) -> str:
    return f'fail("line %d: trap", {of.line});'


def _own_lane(of: _Operation) -> str | None:
    """`activemask`: a device may give any lanes that run together, and one alone does."""
    return of.done(_set(of.operands[0], "(1u << me->lane)"))


WRITERS: Mapping[str, Callable[[_Operation], str | None]] = {
    **{"mov": _move, "cvta": _cvta, "isspacep": _isspacep},
    **{"ld": _load, "ldu": _load, "st": _store, "atom": _atomic, "red": _atomic},
    **{"setp": _setp, "set": _set_to},
    **{"bar": _barrier, "barrier": _barrier, "shfl": _shuffle, "vote": _vote, "match": _match, "redux": _redux},
    **{"bra": _branch, "brx": _branch_by_index, "call": _call, "ret": _return, "trap": _trap},
    **{"membar": _nothing, "fence": _nothing, "prefetch": _nothing, "discard": _nothing, "nanosleep": _sleep},
    **{"activemask": _own_lane},
}
"""Instructions that do more than compute."""
