"""Machine code as blocks with frequencies: how many instructions of each kind a warp issues on its way.

A disassembly becomes basic blocks. A block that its dominator always leads to is as frequent as that; any other is a
choice, and rules say how often a warp makes it. A rule names lines of source: it holds for a choice, or a loop, whose
instructions come from these lines, inlined functions included. What no rule names, a warp runs once: its lanes differ.
Slow paths of division and square root, which are calls behind a guard, are not run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

FROM_RULE, FIRST_FROM_RULE = 0.8, 0.5
"""Shares of the instructions of a choice or a loop, and of its first block, that must come from a rule's lines."""

_LINE = re.compile(r'//## File "[^"]*", line (\d+)')
_INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"`\(([^)]+)\)")
_FUNCTION = re.compile(r"\s{0,4}(?:template <[^>]*> )?(?:static |extern \"C\" )*(?:SG_[A-Z]+|__global__|__device__)\b")
_NAME = re.compile(r"\b(?!__)([a-z_]\w*)[()]")

KINDS = {
    "fp64": "DADD DMUL DFMA DSETP DMNMX",
    "convert": "I2F F2I F2F FRND I2FP",
    "mufu": "MUFU",
    "load": "LD LDG LDGSTS",
    "store": "ST STG",
    "atomic": "ATOM ATOMG RED",
    "shared": "LDS STS ATOMS LDSM STSM",
    "local": "LDL STL",
    "warp": "SHFL VOTE VOTEU REDUX MATCH",
    "constant": "LDC ULDC",
    "move": "MOV UMOV CS2R S2R S2UR CS2UR R2UR P2R R2P PRMT UPRMT",
    "control": "BRA BRX EXIT BSSY BSYNC BREAK CALL RET WARPSYNC BAR NOP YIELD JMP MEMBAR ERRBAR DEPBAR NANOSLEEP CCTL",
}
"""Kinds of instructions; what is in none is integer arithmetic, or `float` if its name begins with F or H."""

_KIND = {opcode: kind for kind, opcodes in KINDS.items() for opcode in opcodes.split()}


@dataclass(frozen=True)
class Rule:
    """How often a warp runs what comes from some lines of source.

    Attributes
    ----------
    lines : str
        A regular expression for lines ``function: line``, the innermost first, in which ``^`` begins a line.
    times : float
        Of a choice the probability, of a loop the number of passes.
    loop : bool
    least, most : float
        Only where there are so many instructions, moves and control aside: an unrolled loop and its rest are two loops.
    share : float
        Of these instructions that must come from the lines; less than usual for what an arm alone has.
    """

    lines: str
    times: float
    loop: bool = False
    least: float = 1
    most: float = math.inf
    share: float = FROM_RULE

    def names(self, lines: str) -> bool:
        """Whether these are its lines."""
        return _matches(self.lines, lines)


@cache
def _matches(pattern: str, lines: str) -> bool:
    return bool(re.search(pattern, lines, re.MULTILINE))


@dataclass(frozen=True)
class Instruction:
    """One instruction, and the lines of source that it comes from: its own first, then those it is inlined into."""

    opcode: str
    predicate: str
    operands: str
    lines: str

    @cached_property
    def kind(self) -> str:
        """Of `KINDS`, ``float`` or ``integer``."""
        base = self.opcode.partition(".")[0]
        if self.opcode.startswith("IMAD.MOV") or (base in ("IMAD", "HFMA2") and "RZ, RZ," in self.operands):
            return "move"
        return _KIND.get(base) or ("float" if base[0] in "FH" else "integer")

    @cached_property
    def targets(self) -> list[str]:
        """Labels that a branch may lead to."""
        return _TARGET.findall(self.operands) if self.opcode.split(".")[0] in ("BRA", "BRX", "JMP") else []

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may follow."""
        base = self.opcode.partition(".")[0]
        if base in ("EXIT", "RET", "BRX"):
            return bool(self.predicate)
        guard = re.match(r"!?U?P\d", self.operands)
        return base not in ("BRA", "JMP") or bool(self.predicate or guard or ".DIV" in self.opcode)

    @property
    def ends_block(self) -> bool:
        """Whether a block ends here."""
        return self.opcode.partition(".")[0] in ("BRA", "BRX", "JMP", "EXIT", "RET", "CALL")


Code = list[tuple[str, Instruction]]
"""Instructions of a function, each with the label before it or none."""


@dataclass
class Block:
    """Instructions that run one after another."""

    instructions: list[Instruction] = field(default_factory=list)
    follow: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Counted:
    """What a path issues.

    Attributes
    ----------
    kinds : dict
        Instructions by kind.
    scattered : float
        Accesses among them whose lanes fall on many lines of the cache.
    conflicting : float
        Accesses of shared memory among them whose lanes fall on any bank.
    used : frozenset of Rule
        Rules that some choice or loop met.
    unstated : tuple of str
        Loops that no rule names.
    """

    kinds: dict[str, float]
    scattered: float
    conflicting: float
    used: frozenset[Rule]
    unstated: tuple[str, ...]

    @property
    def instructions(self) -> float:
        """Of all kinds."""
        return sum(self.kinds.values())


def labelled_source(text: str) -> list[str]:
    """Lines of a source as rules name them, ``function: line``; line 1 is entry 1."""
    found, function = [""], ""
    for line in text.splitlines():
        if _FUNCTION.match(line) and (match := _NAME.search(line.split("=")[0])):
            function = match[1]
        found.append(f"{function}: {line.strip()}")
    return found


def functions_of(disassembly: str, source: Sequence[str]) -> dict[str, dict[str, Code]]:
    """Instructions of every kernel and of the functions behind it.

    Parameters
    ----------
    disassembly : str
        Of nvdisasm, with inlined lines.
    source : sequence of str
        Of `labelled_source`.
    """
    kernels: dict[str, dict[str, Code]] = {}
    for section in re.split(r"^//-+ \.text\.", disassembly, flags=re.MULTILINE)[1:]:
        name = section.split()[0]
        functions = kernels.setdefault(name, {})
        current: Code = []
        lines: list[str] = []
        label, fresh = "", False
        for text in section.splitlines():
            if match := _LINE.search(text):
                lines = [*(lines if fresh else []), source[int(match[1])] if int(match[1]) < len(source) else ""]
                fresh = True
            elif match := _INSTRUCTION.match(text):
                current.append((label, Instruction(match[3], match[2] or "", match[4], "\n".join(lines))))
                label, fresh = "", False
            elif match := re.match(r"(\S+):$", text):
                if match[1].startswith((".L", ".text.")):
                    label = match[1] if match[1].startswith(".L") else label
                else:
                    current = functions.setdefault(match[1], [])
    return kernels


def blocks_of(code: Code) -> list[Block]:
    """Reachable basic blocks of a function, the entry first, with what follows each."""
    starts, at = [0], {}
    for i, (label, _) in enumerate(code):
        if i and (label or code[i - 1][1].ends_block):
            starts.append(i)
        if label:
            at[label] = len(starts) - 1
    blocks = [Block([i for _, i in code[a:b]]) for a, b in zip(starts, [*starts[1:], len(code)], strict=True)]
    for n, block in enumerate(blocks):
        last = block.instructions[-1]
        block.follow = [at[target] for target in last.targets if target in at]
        if last.falls_through and n + 1 < len(blocks):
            block.follow.append(n + 1)
    order = _reached(blocks, 0)
    number = {n: k for k, n in enumerate(order)}
    kept = [Block(blocks[n].instructions, [number[f] for f in blocks[n].follow]) for n in order]
    for n, block in enumerate(kept):
        for f in block.follow:
            kept[f].before.append(n)
    return kept


def _reached(blocks: Sequence[Block], begin: int) -> list[int]:
    """Blocks reached from one, in reverse postorder."""
    seen, done = {begin}, []
    stack = [(begin, iter(blocks[begin].follow))]
    while stack:
        n, rest = stack[-1]
        after = next((f for f in rest if f not in seen), None)
        if after is None:
            done.append(n)
            stack.pop()
        else:
            seen.add(after)
            stack.append((after, iter(blocks[after].follow)))
    return done[::-1]


def dominators(before: Sequence[Sequence[int]]) -> list[set[int]]:
    """Blocks that lie on every way to each; blocks in reverse postorder, the entry first."""
    everything = set(range(len(before)))
    found = [{0}] + [everything] * (len(before) - 1)
    changed = True
    while changed:
        changed = False
        for n in range(1, len(before)):
            new = {n} | (set.intersection(*(found[p] for p in before[n])) if before[n] else set())
            if new != found[n]:
                found[n], changed = new, True
    return found


class Flow:
    """Frequencies of the blocks of one function.

    Parameters
    ----------
    code : Code
    """

    def __init__(self, code: Code) -> None:
        self.blocks = blocks_of(code)
        self.above = dominators([block.before for block in self.blocks])
        self.parent = [
            max(above - {n}, key=lambda a: len(self.above[a]), default=0) for n, above in enumerate(self.above)
        ]
        self.below = [{m for m, above in enumerate(self.above) if n in above} for n in range(len(self.blocks))]
        self.always = self._always()
        self.cold = self._cold()
        self.loops = self._loops()

    def _always(self) -> list[set[int]]:
        """Blocks that lie on every way from each to the end."""
        end = len(self.blocks)
        ends = [n for n, block in enumerate(self.blocks) if not block.follow or block.instructions[-1].opcode == "EXIT"]
        turned = [Block(follow=list(block.before)) for block in self.blocks] + [Block(follow=ends)]
        order = _reached(turned, end)
        number = {n: k for k, n in enumerate(order)}
        follow = [[*block.follow, *([end] if n in ends else [])] for n, block in enumerate(self.blocks)] + [[]]
        found = dominators([[number[f] for f in follow[n] if f in number] for n in order])
        return [{order[k] for k in found[number[n]]} if n in number else set() for n in range(end)]

    def _cold(self) -> set[int]:
        """Calls behind a guard, slow ways of divergent warps, and what only leads there or only comes from there."""
        cold = set()
        for n, block in enumerate(self.blocks):
            last = block.instructions[-1]
            above = self.parent[n]
            ended = self.blocks[above].instructions[-1].opcode == "EXIT"  # for some lanes: no choice of the others
            if last.opcode.startswith("CALL") and n not in self.always[above] and not ended:
                cold.add(n)
            if ".DIV" in last.opcode and self.blocks[block.follow[0]].before == [n]:
                cold.add(block.follow[0])
        while True:
            more = {
                n
                for n, block in enumerate(self.blocks[1:], 1)
                if n not in cold and ((block.follow and cold.issuperset(block.follow)) or cold.issuperset(block.before))
            }
            if not more:
                return cold
            cold |= more

    def _loops(self) -> dict[int, set[int]]:
        """Blocks of every natural loop by its first."""
        loops: dict[int, set[int]] = {}
        for n, block in enumerate(self.blocks):
            for head in set(block.follow) & self.above[n]:
                body, todo = loops.setdefault(head, {head}), [n]
                while todo:
                    m = todo.pop()
                    if m not in body:
                        body.add(m)
                        todo += self.blocks[m].before
        return loops

    def matching(self, blocks: Iterable[int], rules: Iterable[Rule]) -> list[Rule]:
        """Rules whose lines these blocks come from."""
        hot = [i for n in blocks if n not in self.cold for i in self.blocks[n].instructions]
        own = [i.lines for i in hot if i.kind not in ("move", "control")]
        fitting = (rule for rule in rules if rule.least <= len(own) <= rule.most)
        return [rule for rule in fitting if sum(map(rule.names, own)) >= rule.share * len(own)]

    def choice(self, n: int, above: int, rules: Sequence[Rule]) -> list[Rule]:
        """Rules for a choice that begins at a block.

        Compilers merge equal code of several arms and keep the lines of one: then the first block of an arm knows best,
        unless it decides what is next, and so comes from lines of that.
        """
        left = {f for m in self.below[n] for f in self.blocks[m].follow} - self.below[n]
        first = self.blocks[n]
        of_first = []
        if left and left <= self.always[above] and len(set(first.follow)) == 1:
            lines = [i.lines for i in first.instructions]
            of_first = [rule for rule in rules if sum(map(rule.names, lines)) > FIRST_FROM_RULE * len(lines)]
        return of_first or self.matching(self.below[n], rules)

    def frequencies(self, rules: Sequence[Rule]) -> tuple[list[float], set[Rule], list[str]]:
        """How often a warp runs each block, which rules said so, and loops that none of them names."""
        first: tuple[float, frozenset[Rule]] = (1.0, frozenset())
        inside, outside = [first] * len(self.blocks), dict.fromkeys(self.loops, first)
        used, unstated = set[Rule](), []
        for n in range(len(self.blocks)):
            above = self.parent[n]
            times, applied = inside[above]
            left = [head for head, body in self.loops.items() if above in body and n not in body]
            if left:  # a loop that ended: from where it began
                above = min(left, key=lambda head: len(self.above[head]))
                times, applied = outside[above]
            if n in self.cold:
                inside[n] = (0.0, applied)
                continue
            rest = [rule for rule in rules if rule not in applied]
            if n and n not in self.always[above]:
                for rule in self.choice(n, above, [rule for rule in rest if not rule.loop]):
                    times, applied = times * rule.times, applied | {rule}
            if n in self.loops:
                outside[n] = (times, applied)
                found = self.matching(self.loops[n], (rule for rule in rest if rule.loop))
                for rule in found[:1]:
                    times, applied = times * rule.times, applied | {rule}
                if not found and times:
                    unstated.append(self.blocks[n].instructions[0].lines.partition("\n")[0])
            inside[n] = (times, applied)
            used |= applied
        return [times for times, _ in inside], used, unstated


def counted(flows: Mapping[str, Flow], name: str, rules: Sequence[Rule], scatter: Mapping[str, str]) -> Counted:
    """Instructions that a warp issues in a kernel, called functions included.

    Parameters
    ----------
    flows : mapping
        Of the kernel and the functions behind it.
    name : str
    rules : sequence of Rule
    scatter : mapping of str to str
        By kind, a regular expression for the lines of accesses whose lanes fall anywhere.
    """
    flow = flows[name]
    frequencies, used, unstated = flow.frequencies(rules)
    kinds, scattered = dict[str, float](), dict[str, float]()
    for block, times in zip(flow.blocks, frequencies, strict=True):
        for instruction in block.instructions:
            kinds[instruction.kind] = kinds.get(instruction.kind, 0.0) + times
            if instruction.kind in scatter and _matches(scatter[instruction.kind], instruction.lines):
                scattered[instruction.kind] = scattered.get(instruction.kind, 0.0) + times
        last = block.instructions[-1]
        if times and last.opcode.startswith("CALL") and (called := _TARGET.search(last.operands)):
            for kind, number in counted(flows, called[1], rules, scatter).kinds.items():
                kinds[kind] = kinds.get(kind, 0.0) + number * times
    anywhere = sum(scattered.get(kind, 0.0) for kind in ("load", "store", "atomic"))
    return Counted(kinds, anywhere, scattered.get("shared", 0.0), frozenset(used), tuple(unstated))
