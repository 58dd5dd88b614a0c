"""Instructions per request of every CUDA kernel, and what they predict for a billion requests; no device is needed.

The kernels are compiled for sm_90 and disassembled (sass_tools.py), and what a warp issues on its way is counted
(sass_flow.py), with what workloads make of it (sass_workloads.py): counts are exact for a path with such weights. Times
are a model's (`bounds_of`). Its bounds are those of an H200, measured where a comment says so. Factors of scattered
accesses, and `REACHED`, are fitted to times of whole kernels; what is stated for waits between kernels is measured.

    python bench/sass_budget.py --kernel gap --workload exact
    python bench/sass_budget.py --kernel gap --workload exact --blocks
    python bench/sass_budget.py --text other.cu
    python bench/sass_budget.py --json bench/results/sass.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import add_json, write_json
from sass_flow import Code, Flow, counted, functions_of, labelled_source
from sass_tools import Resources, compiled, disassembled
from sass_workloads import SCATTERED, WORKLOADS, Step, Workload, rules_of, steps_of

from servegen_gpu.backends.cuda.loader import one_text
from servegen_gpu.errors import OptionError, ServeGenError

# An H200: 132 multiprocessors at 1.9 GHz that issue 4 instructions of a warp in a clock, 2 of FP64 (measured: 0.061 ms
# each), and look up one load or store; copies of 4.23 TB/s (measured). A billion requests are a billion / 32 warps.
ISSUE_MS, FP64_MS, LOAD_MS = (1e9 / 32 / (132 * 1.9e9 * a_clock) * 1e3 for a_clock in (4, 2, 1))
BYTE_MS = 1e9 / 4.23e12 * 1e3
# Fitted to kernels: language renewal, exact, and deepseek-r1 with its copula. Random reads alone take 1.0 to 1.3 ms in
# L1 (8 to 10 clocks), 6.0 in L2, 0.55 to 0.85 in shared memory; normals fall into few rows, so they meet less there.
SCATTER = 8  # clocks of a scattered access
CONFLICTS = 1.4  # of one to shared memory
REACHED = 0.65  # of the bound

KINDS = {
    **{"instructions": "instr", "fp64": "FP64", "mufu": "MUFU", "convert": "conv", "integer": "int", "float": "float"},
    **{"move": "move", "constant": "const", "control": "ctrl", "load": "load", "store": "store", "atomic": "atom"},
    **{"scattered": "scat", "shared": "shared", "conflicting": "confl", "warp": "warp", "local": "local"},
}
"""Counts in the order of columns, and their heads: `sass_flow.KINDS`, and what scatters among these accesses."""


WATCHED = (
    *("instructions", "fp64", "load", "store", "atomic", "scattered", "shared", "conflicting", "local"),
    *("registers", "stack_bytes"),
)
"""Counts that must not grow unnoticed."""


@dataclass(frozen=True)
class Case:
    """A step of a workload: counts per request, bounds and the prediction in ms per billion requests."""

    workload: str
    kernel: str
    counts: dict[str, float]
    resources: Resources | None
    bounds: dict[str, float]
    ms: float

    @property
    def bound(self) -> str:
        """What bounds it most."""
        return max(self.bounds, key=self.bounds.__getitem__) if any(self.bounds.values()) else "stated"

    def as_json(self) -> dict[str, Any]:
        """One line of the results."""
        used = vars(self.resources) if self.resources else {}
        counts = {name: round(count, 1) for name, count in self.counts.items() if count}
        named = {"case": self.workload, "kernel": self.kernel, "ms": round(self.ms, 1), "bound": self.bound}
        return named | used | counts


@dataclass(frozen=True)
class Budget:
    """All cases of a text, versions of what made them, and where rules and text do not meet."""

    cases: list[Case]
    compiler: str
    disassembler: str
    remarks: list[str]

    def total_ms(self, workload: str) -> float:
        """Of all steps of a workload."""
        return sum(case.ms for case in self.cases if case.workload == workload)

    def results(self) -> dict[str, Any]:
        """What stands in bench/results/sass.json."""
        names = dict.fromkeys(case.workload for case in self.cases)
        return {
            "compiler": self.compiler,
            "disassembler": self.disassembler,
            "predicted_ms": [{"case": name, "ms_per_billion": round(self.total_ms(name))} for name in names],
            "kernels": [case.as_json() for case in self.cases],
        }


def bounds_of(counts: Mapping[str, float], bytes_: float) -> dict[str, float]:
    """The least time that each part of a device takes, in ms per billion requests."""
    accesses = sum(counts.get(kind, 0.0) for kind in ("load", "store", "atomic", "shared", "local", "warp"))
    scattered, conflicting = counts.get("scattered", 0.0), counts.get("conflicting", 0.0)
    return {
        "issue": ISSUE_MS * counts.get("instructions", 0.0),
        "fp64": FP64_MS * counts.get("fp64", 0.0),
        "load": LOAD_MS * (accesses + (SCATTER - 1) * scattered + (CONFLICTS - 1) * conflicting),
        "memory": BYTE_MS * bytes_,
    }


def budget(text: str, workloads: Sequence[Workload] = WORKLOADS, more: Sequence[str] = ()) -> Budget:
    """Count the kernels of a text for some workloads.

    Parameters
    ----------
    text : str
        All kernels, as `one_text` makes it.
    workloads : sequence of Workload
    more : sequence of str
        Kernels beside those that are steps of the workloads, taken to run once a request.

    Raises
    ------
    OptionError
        Compiler or disassembler are missing, or the text lacks a kernel.
    """
    made = compiled(text)
    disassembly, disassembler = disassembled(made.cubin)
    functions, flows = functions_of(disassembly, labelled_source(text)), dict[str, dict[str, Flow]]()
    cases, used, remarks = [], set(), dict[str, None]()
    for workload in workloads:
        rules, steps = rules_of(workload), steps_of(workload)
        steps += [Step(kernel) for kernel in more if kernel not in [step.kernel for step in steps]]
        for step in steps:
            counts: dict[str, float] = {}
            if step.threads:
                if step.kernel not in flows:
                    code = kernel_of(functions, step.kernel)
                    flows[step.kernel] = {name: Flow(function) for name, function in code.items()}
                found = counted(flows[step.kernel], f"sg_{step.kernel}", rules, SCATTERED)
                used |= {(rule.lines, rule.loop) for rule in found.used}
                remarks |= {
                    f"no rule for a loop of {step.kernel}, counted once: {line}": None for line in found.unstated
                }
                of_all = {"instructions": found.instructions, **found.kinds}
                of_all |= {"scattered": found.scattered, "conflicting": found.conflicting}
                counts = {kind: of_all.get(kind, 0.0) * step.threads for kind in KINDS}
            bounds = bounds_of(counts, step.bytes)
            ms = step.known_ms or max(bounds.values()) / REACHED
            cases.append(Case(workload.name, step.kernel, counts, made.resources.get(f"sg_{step.kernel}"), bounds, ms))
    idle = {rule.lines: None for rule in rules_of(workloads[0]) if (rule.lines, rule.loop) not in used}
    return Budget(
        cases, made.compiler, disassembler, [*remarks, *(f"a rule for no choice of any kernel: {r}" for r in idle)]
    )


def kernel_of(functions: Mapping[str, Mapping[str, Code]], kernel: str) -> Mapping[str, Code]:
    """A kernel's code."""
    if f"sg_{kernel}" in functions:
        return functions[f"sg_{kernel}"]
    there = ", ".join(sorted(name.removeprefix("sg_") for name in functions))
    raise OptionError(
        "a kernel of the text", f"{kernel!r} beside {there}", "correct --kernel or steps_of in sass_workloads.py"
    )


def table(found: Budget, kernel: str | None = None) -> str:
    """Cases as text under the sum of each workload."""
    rows = [["workload, kernel", "ms", "bound", "regs", "stack", "smem", *KINDS.values()]]
    for name in dict.fromkeys(case.workload for case in found.cases):
        rows.append([name, f"{found.total_ms(name):.0f}", *[""] * (len(rows[0]) - 2)])
        for case in found.cases:
            if case.workload == name and kernel in (None, case.kernel):
                used = list(map(str, vars(case.resources).values())) if case.resources else [""] * 3
                counts = [f"{count:.0f}" if (count := case.counts.get(kind)) else "" for kind in KINDS]
                rows.append([f"  {case.kernel}", f"{case.ms:.1f}", case.bound, *used, *counts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [cell.ljust(w) if i in (0, 2) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "\n".join(" ".join(row).rstrip() for row in aligned)


def blocks(text: str, kernel: str, workload: Workload) -> str:
    """Blocks of a kernel: how often a warp runs each, its instructions, what follows, where most of them come from."""
    disassembly, _ = disassembled(compiled(text).cubin)
    flow = Flow(kernel_of(functions_of(disassembly, labelled_source(text)), kernel)[f"sg_{kernel}"])
    frequencies, _, _ = flow.frequencies(rules_of(workload))
    rows = [f"{workload.name}: block, times, instructions, what follows, lines"]
    for n, (block, times) in enumerate(zip(flow.blocks, frequencies, strict=True)):
        lines = [i.lines for i in block.instructions]
        where = " < ".join(line[:60] for line in max(lines, key=lines.count).splitlines()[:4])
        rows.append(f"{n:4d} {times:5.2f} {len(lines):4d} {block.follow!s:10s} {where}")
    return "\n".join(rows)


def changes(before: Mapping[str, Any], now: Mapping[str, Any], share: float) -> list[str]:
    """Counts of results that differ by more than a share and by more than one, those that grew first.

    Parameters
    ----------
    before, now : mapping
        Of `Budget.results`.
    share : float
    """
    old, new = ({(line["case"], line["kernel"]): line for line in results["kernels"]} for results in (before, now))
    grown, shrunk = list[str](), list[str]()
    for case, kernel in [*old, *(key for key in new if key not in old)]:
        was, found = old.get((case, kernel), {}), new.get((case, kernel), {})
        for count in WATCHED:
            a, b = was.get(count, 0), found.get(count, 0)
            if abs(b - a) > max(1, share * a):
                (grown if b > a else shrunk).append(f"{case}, {kernel}: {count} {a:g} -> {b:g}")
    return [f"grown: {line}" for line in grown] + [f"shrunk: {line}" for line in shrunk]


def main() -> None:
    """Print the budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", metavar="NAME", help="only this one, without sg_; it need not be in a workload")
    parser.add_argument("--workload", metavar="NAME", default="", help="only those with this in their names")
    parser.add_argument("--text", type=Path, metavar="FILE", help="one text of all kernels instead of this tree's")
    parser.add_argument("--kernels", type=Path, metavar="FOLDER", help="or the kernels of another tree")
    parser.add_argument("--blocks", action="store_true", help="blocks of --kernel, and how often a warp runs each")
    parser.add_argument("--against", type=Path, metavar="JSON", help="results to compare with: what changed by 1 %%")
    add_json(parser)
    options = parser.parse_args()
    chosen = [workload for workload in WORKLOADS if options.workload in workload.name]
    if not chosen:
        parser.error(f"no workload like {options.workload!r}: {', '.join(w.name for w in WORKLOADS)}")
    if options.blocks and not options.kernel:
        parser.error("--blocks needs --kernel")
    text = options.text.read_text(encoding="utf-8") if options.text else one_text(folder=options.kernels)
    try:
        if options.blocks:
            print(blocks(text, options.kernel, chosen[0]))
            return
        found = budget(text, chosen, [options.kernel] if options.kernel else [])
    except ServeGenError as error:
        sys.exit(f"error: {error}")
    print(f"{found.compiler}, {found.disassembler}. Predicted ms per billion requests, counts per request.")
    print(table(found, options.kernel))
    for line in found.remarks:
        print(line)
    if options.against:
        print(*changes(json.loads(options.against.read_text()), found.results(), 0.01), sep="\n")
    write_json(options.json, found.results())


if __name__ == "__main__":
    main()
