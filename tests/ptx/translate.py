"""PTX as C++: every kernel a function of one thread, over the machine of machine.h."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ptx.emit import Names, address, cpp_name, emit
from ptx.parse import WIDTHS, Function, Instruction, Label, Module, Registers, Scope, Unknown, Variable, parse

CPP = {1: "bool", 8: "u16", 16: "u16", 32: "u32", 64: "u64"}
"""What holds a register of so many bits."""

WAITS = {"bar", "barrier", "shfl", "vote", "match", "redux", "nanosleep"}
STRONG = {"volatile", "relaxed", "acquire"}


@dataclass(frozen=True)
class KernelShape:
    """What a launch must know of a kernel.

    Attributes
    ----------
    params : tuple of Variable
    shared_bytes : int
        Static shared memory.
    """

    params: tuple[Variable, ...]
    shared_bytes: int


def translate(
    text: str, *, contractible: bool = False, only: Container[str] | None = None
) -> tuple[str, Mapping[str, KernelShape]]:
    """A PTX text as C++ text, and its kernels by name.

    Parameters
    ----------
    text : str
    contractible : bool, optional
        Take also additions and multiplications without a rounding mode, which ptxas may contract as it likes.
    only : container of str, optional
        Kernels to take; by default all.

    Raises
    ------
    Unknown
    """
    module = parse(text)
    module.functions = [f for f in module.functions if only is None or not f.kernel or f.name in only]
    every = [v for v in module.variables if v.space == "shared"]
    every += [v for f in module.functions if not f.kernel for v in _shared_in(f)]
    common, common_bytes = _placed(every, 0)
    names = {v.name: cpp_name("s", v.name) for v in module.variables} | common
    out = ['#include "launch.h"\n\nnamespace ptx {\n\n']
    out += [_static(v) for v in module.variables if v.space in ("const", "global")]
    out += [f"static void {cpp_name('f', f.name)}({_arguments(f)});\n" for f in module.functions]
    shapes: dict[str, KernelShape] = {}
    for function in module.functions:
        own, size = _placed(_shared_in(function), common_bytes) if function.kernel else ({}, 0)
        out += _function(function, names | own, contractible)
        if function.kernel:
            shapes[function.name] = KernelShape(function.params, -(-size // 16) * 16)
    waits = _waiting(module)
    entries = [f'    {{"{name}", {cpp_name("f", name)}, {"true" if name in waits else "false"}}},\n' for name in shapes]
    out += ["const Entry ENTRIES[] = {\n", *entries, "    {nullptr, nullptr, false},\n};\n\n}  // namespace ptx\n"]
    return "".join(out), shapes


def _shared_in(function: Function) -> list[Variable]:
    return [item for item in _all_items(function.body) if isinstance(item, Variable) and item.space == "shared"]


def _placed(variables: Sequence[Variable], size: int) -> tuple[dict[str, str], int]:
    """Where shared variables are, by name, behind the first `size` bytes, and the bytes of all.

    A variable without a size is what the launch adds, behind them.
    """
    places: dict[str, str] = {}
    for variable in variables:
        if not variable.count:
            places[variable.name] = "u64{launched.static_bytes}"
            continue
        size = -(-size // variable.align) * variable.align
        places[variable.name] = f"u64{{{size}}}"
        size += variable.bytes
    return places, size


def _all_items(scope: Scope) -> Iterator[Variable | Registers | Label | Instruction]:
    for item in scope.items:
        if isinstance(item, Scope):
            yield from _all_items(item)
        else:
            yield item


def _waiting(module: Module) -> set[str]:
    """Functions whose threads may wait for others, by themselves or in what they call."""
    code = {f.name: [i for i in _all_items(f.body) if isinstance(i, Instruction)] for f in module.functions}
    waits = {
        name
        for name, instructions in code.items()
        if any(i.opcode[0] in WAITS or (i.opcode[0] == "ld" and STRONG & set(i.opcode)) for i in instructions)
    }
    calls = {name: {o for i in code[name] if i.opcode[0] == "call" for o in i.operands} for name in code}
    while more := {name for name in code if calls[name] & waits} - waits:
        waits |= more
    return waits


def _static(variable: Variable) -> str:
    """A variable of the module, which lives as long as the library."""
    name = cpp_name("s", variable.name)
    kind = f"u{WIDTHS[variable.type]}"
    values = ", ".join(_initial(value, variable) for value in variable.values)
    data = f"alignas({max(16, variable.align)}) static {kind} {name}_data[{max(1, variable.count)}] = {{{values}}};\n"
    return data + f"static const u64 {name} = reinterpret_cast<u64>({name}_data);\n"


def _initial(value: str, variable: Variable) -> str:
    if value[:2].lower() in ("0d", "0f"):
        return f"0x{value[2:]}u{'ll' if value[1] in 'dD' else ''}"
    try:
        return f"{int(value.rstrip('U'), 0) % 2 ** WIDTHS[variable.type]}u{'ll' if variable.type[1:] == '64' else ''}"
    except ValueError:
        raise Unknown(0, f"{variable.name} = {value}", "an initial value that is no number") from None


def _arguments(function: Function) -> str:
    if function.kernel:
        return "u64 params"
    return ", ".join(f"u64 {cpp_name('s', v.name)}" for v in (*function.results, *function.params))


def _function(function: Function, names: Mapping[str, str], contractible: bool) -> Iterator[str]:
    yield f"static void {cpp_name('f', function.name)}({_arguments(function)}) {{\n"
    yield "    [[maybe_unused]] bool carry = false;\n"
    known = Names(dict(names), contractible)
    offset = 0
    for param in function.results + function.params:
        name = known.symbols[param.name] = cpp_name("s", param.name)
        if function.kernel:
            offset = -(-offset // param.align) * param.align
            yield f"    [[maybe_unused]] const u64 {name} = params + {offset};\n"
            offset += param.bytes
    yield from _scope(function.body, known, "")
    yield "}\n\n"


def _scope(scope: Scope, outer: Names, path: str) -> Iterator[str]:
    names = Names(dict(outer.symbols), outer.contractible, dict(outer.labels), dict(outer.tables))
    for item in scope.items:
        if isinstance(item, Label) and item.names:
            names.tables[item.name] = item.names
        elif isinstance(item, Label):
            names.labels[item.name] = cpp_name("L", item.name) + path
    inner = 0
    for item in scope.items:
        if isinstance(item, Scope):
            yield "    {\n"
            yield from _scope(item, names, f"{path}_{inner}")
            yield "    }\n"
            inner += 1
        elif isinstance(item, Registers):
            held = CPP[WIDTHS[item.type]]
            yield f"    [[maybe_unused]] {held} {', '.join(cpp_name('r', name) for name in item.names)};\n"
        elif isinstance(item, Variable):
            yield _local(item, names)
        elif isinstance(item, Label):
            if not item.names:
                yield f"{names.labels[item.name]}:;\n"
        else:
            text = emit(item, names)
            yield f"    if ({address(item.guard)}) {{ {text} }}\n" if item.guard else f"    {text}\n"


def _local(variable: Variable, names: Names) -> str:
    """A variable of a thread, or an argument of a call."""
    if variable.space == "shared":
        return ""
    name = names.symbols[variable.name] = cpp_name("s", variable.name)
    data = f"    alignas({max(16, variable.align)}) u8 {name}_data[{variable.bytes}];\n"
    return data + f"    [[maybe_unused]] const u64 {name} = reinterpret_cast<u64>({name}_data);\n"
