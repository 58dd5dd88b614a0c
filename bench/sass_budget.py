"""Instructions per request of every CUDA kernel, and what they predict for a billion requests; no device is needed.

The kernels are compiled for sm_90 and disassembled; `sass_flow` counts what a warp issues on its way, and rules below say
how often it comes where. Predicted, not measured: the model is at `milliseconds`.

    python bench/sass_budget.py --kernel gap --workload exact
    python bench/sass_budget.py --text other.cu
    python bench/sass_budget.py --json bench/results/sass.json
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import add_json, write_json
from sass_flow import Counted, Flow, Rule, counted, functions_of, labelled_source
from sass_tools import Compiled, Resources, compiled, disassembled

from servegen_gpu.backends.cuda.loader import one_text
from servegen_gpu.errors import OptionError


@dataclass(frozen=True)
class Workload:
    """What decides which way kernels go."""

    name: str
    renewal: bool  # or exact counts
    fields: int
    copula: bool
    limited: bool = True  # clients have context limits
    ratio: bool = False


WORKLOADS = (
    Workload("language exact", renewal=False, fields=2, copula=False),
    Workload("language renewal", renewal=True, fields=2, copula=False),
    Workload("m-small default", renewal=True, fields=2, copula=True),
    Workload("deepseek-r1 default", renewal=True, fields=3, copula=True, ratio=True),
)

# How often a warp comes to some lines. `rejected`: one of 32 lanes rejects with 1 - (1 - 0.03)**32; a tile of 256
# requests lies in one run but for one in twenty; a guide leaves a handful of bins.
REJECTED, IN_RUNS, IN_BINS, LANES = 0.62, 0.05, 2.0, 5

Times = Callable[[Workload], float]
RULES: tuple[tuple[str, Times, bool], ...] = (  # lines, times, whether they are a loop
    (r"run_of: ", lambda w: IN_RUNS, True),
    (r"halve_bins: ", lambda w: IN_BINS, True),
    (r"log_gap: (for |gap = )", lambda w: REJECTED, True),
    (r"log_weibull: |log_lognormal: ", lambda w: 0, False),
    (r"gap_at: (job.ticks\[request\] = job.first_ticks)", lambda w: 0, False),
    (r"gap_at: job.ticks\[request\] = ticks_at", lambda w: w.renewal, False),
    (r"gap_at: (job.ticks\[request\] = bits_of|return \{at.run, ordered)", lambda w: not w.renewal, False),
    (r"sg_gap: if \(threadIdx.x % 32 == 0", lambda w: not w.renewal, False),
    (r"sg_gap: if \(gap.run >= 0\)|sg_cross: atomicMin|atomicM(ax|in)\(", lambda w: 0, False),
    (r"operational: return .on_circle|on_circle: ", lambda w: not w.renewal, False),
    (r"operational: return .sum >>", lambda w: w.renewal, False),
    (r"operational: return from_start|from_start: ", lambda w: 0, False),
    (r"clock_at: (const|return .*clock_first)", lambda w: 0, False),
    (r"record_at: .*words\[f\] = first.w0", lambda w: 0, False),
    (r"record_at: if \(fields > 4\)", lambda w: w.fields > 4, False),
    (r"record_at: if \(mixing\)", lambda w: w.copula, False),
    (r"ties_of: ", lambda w: w.fields - 1, True),
    (r"ties_of: for \(int j", lambda w: 0.1, False),  # unrolled by 16; a row is shorter
    (r"mix_words: .*normal_of_word", lambda w: w.fields / LANES, False),
    (r"mix_words: .*(z = |words\[f\] = word_of_normal)", lambda w: (w.fields - 1) / (LANES - 1), False),
    (r"(record|row)_at: if \(f < fields\)", lambda w: w.fields / LANES, False),
    (r"record_at: if \(f == job.ratio_field\)", lambda w: w.ratio / (LANES - 2), False),
    (r"(record|row)_at: .*row_ordinal|row_at: job.row_cell", lambda w: 0, False),
)
SCATTERED = r"find_bin: |halve_bins: |row_at: .*record\[|record_at: .*tables.values"


@dataclass(frozen=True)
class Step:
    """A kernel or a library's part of a slab.

    Attributes
    ----------
    kernel : str
    threads : float
        Per request.
    bytes : float
        Of memory, read and written, per request.
    known_ms : float
        Per billion requests, of what is not our code.
    """

    kernel: str
    threads: float = 1.0
    bytes: float = 0.0
    known_ms: float = 0.0


def steps_of(w: Workload) -> list[Step]:
    """What a slab of a workload runs, requests in the axes of kernels/slab.h."""
    field_bytes, record_bytes = 4.0 * w.fields, 16.0
    arrivals = [Step("gap", bytes=8), Step("cumsum", bytes=16)]
    arrivals += [Step("cross", bytes=8), Step("rounds", known_ms=20)] if w.renewal else [Step("tick", bytes=16)]
    return [
        *arrivals,
        Step("word", bytes=16),
        Step("record", bytes=8 + record_bytes),
        Step("sort", known_ms=37),  # CUB, 30 bits in four passes, 72 bytes
        Step("row", bytes=8 + 32 + 12 + field_bytes),  # a gather fetches sectors of 32 bytes
    ]


# The model, for one H100 or H200: 132 multiprocessors of 4 schedulers at 1.9 GHz, half of them FP64, one load a clock
ISSUE_MS, FP64_MS, LOAD_MS = (1e9 / 32 / (132 * slots * 1.9e9) * 1e3 for slots in (4, 2, 1))
BYTES_MS = 1e9 / 4.3e12 * 1e3
SCATTER = 8  # lines of a cache that the lanes of a scattered load meet
REACHED = 0.78  # of a bound


@dataclass(frozen=True)
class Case:
    """A kernel in a workload: counts per request, resources, bounds and the prediction in ms per billion requests."""

    workload: str
    kernel: str
    counts: dict[str, float]
    resources: Resources | None
    bounds: dict[str, float]
    ms: float

    def as_json(self) -> dict[str, Any]:
        """One line of the results."""
        used = vars(self.resources) if self.resources else {}
        bounds = {f"{name}_ms": round(ms, 2) for name, ms in self.bounds.items()}
        return {"workload": self.workload, "kernel": self.kernel, **self.counts, **used, **bounds, "ms": round(self.ms, 1)}


def case_of(workload: Workload, step: Step, of: Counted | None, resources: Resources | None) -> Case:
    """What the model says of a step: the largest bound over the share of it that is reached."""
    kinds = of.kinds if of else {}
    scattered = of.scattered if of else 0.0
    memory = sum(kinds.get(kind, 0) for kind in ("load", "store", "atomic", "shared", "local"))
    bounds = {
        "issue": ISSUE_MS * (of.instructions if of else 0),
        "fp64": FP64_MS * kinds.get("fp64", 0),
        "load": LOAD_MS * (memory + scattered * (SCATTER - 1)),
    }
    bounds = {name: ms * step.threads for name, ms in bounds.items()} | {"memory": BYTES_MS * step.bytes}
    counts = {}
    if of:
        counts = {"instructions": of.instructions, **dict(sorted(kinds.items())), "scattered": scattered}
    counts = {name: round(number * step.threads, 1) for name, number in counts.items()}
    return Case(workload.name, step.kernel, counts, resources, bounds, step.known_ms or max(bounds.values()) / REACHED)


@dataclass(frozen=True)
class Budget:
    """All cases of a text, versions of what made them, and what no rule covers."""

    cases: list[Case]
    compiler: str
    disassembler: str
    unused: list[str]
    unstated: list[str]


def budget(text: str, workloads: Sequence[Workload] = WORKLOADS, made: Compiled | None = None) -> Budget:
    """Count the kernels of a text for some workloads.

    Raises
    ------
    OptionError
        Compiler or disassembler are missing, or the text lacks a kernel.
    """
    made = made or compiled(text)
    disassembly, disassembler = disassembled(made.cubin)
    functions = functions_of(disassembly, labelled_source(text))
    cases, used, unstated = [], set(), set()
    for workload in workloads:
        rules = rules_of(workload)
        for step in steps_of(workload):
            name = f"sg_{step.kernel}"
            of = None
            if name in functions:
                of = counted(functions[name], name, rules, SCATTERED)
                used |= of.used
                unstated |= {f"{step.kernel}: {line}" for line in of.unstated}
            elif step.kernel not in ("cumsum", "rounds", "sort"):
                raise OptionError("the kernels of `steps_of`", f"no {name} in the text", "bring steps and text together")
            cases.append(case_of(workload, step, of, made.resources.get(name)))
    unused = [rule.lines for rule in rules_of(workloads[0]) if rule.lines not in used]
    return Budget(cases, made.compiler, disassembler, unused, sorted(unstated))


def rules_of(workload: Workload) -> list[Rule]:
    """`RULES` of a workload."""
    return [Rule(lines, float(times(workload)), loop) for lines, times, loop in RULES]


COLUMNS = ("instructions", "fp64", "mufu", "convert", "integer", "float", "move", "constant", "control", "load", "store",
           "scattered", "shared", "atomic", "warp", "local")  # fmt: skip
SHORT = ("instr", "FP64", "MUFU", "conv", "int", "float", "move", "const", "ctrl", "load", "store", "scat", "shared",
         "atom", "warp", "local")  # fmt: skip


def table(found: Budget, kernel: str | None) -> str:
    """Cases as text, and the sum of each workload."""
    head = ("workload, kernel", "ms", "bound", "regs", "stack", "smem", *SHORT)
    rows = [list(head)]
    names = dict.fromkeys(case.workload for case in found.cases)
    for name in names:
        cases = [case for case in found.cases if case.workload == name]
        rows.append([name, f"{sum(case.ms for case in cases):.0f}", "", *[""] * (len(head) - 3)])
        for case in cases:
            if kernel and case.kernel != kernel:
                continue
            bound = max(case.bounds, key=lambda b: case.bounds[b]) if any(case.bounds.values()) else "stated"
            used = (case.resources.registers, case.resources.stack, case.resources.shared) if case.resources else ("",) * 3
            counts = [f"{case.counts[c]:.0f}" if case.counts.get(c) else "" for c in COLUMNS]
            rows.append([f"  {case.kernel}", f"{case.ms:.1f}", bound, *map(str, used), *counts])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        " ".join(cell.ljust(width) if i in (0, 2) else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def explained(text: str, kernel: str, workload: Workload) -> str:
    """Blocks of a kernel: how often a warp runs each, its instructions, and where most of them come from."""
    disassembly, _ = disassembled(compiled(text).cubin)
    code = functions_of(disassembly, labelled_source(text))[f"sg_{kernel}"][f"sg_{kernel}"]
    flow = Flow(code)
    frequencies, _, _ = flow.frequencies(rules_of(workload))
    lines = []
    for n, (block, times) in enumerate(zip(flow.blocks, frequencies, strict=True)):
        ways = [" < ".join(line.strip()[:60] for line in i.lines[:4]) for i in block.instructions]
        most = max(set(ways), key=ways.count)
        lines.append(f"{n:4d} x{times:5.2f} {len(block.instructions):4d} -> {block.follow} {most}")
    return "\n".join(lines)


def main() -> None:
    """Print the budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", help="only this one, without sg_")
    parser.add_argument("--workload", default="", help="only those with this in their names")
    parser.add_argument("--text", type=Path, metavar="FILE", help="one text of all kernels instead of this tree's")
    parser.add_argument("--kernels", type=Path, metavar="FOLDER", help="sources of another tree")
    parser.add_argument("--explain", action="store_true", help="blocks of --kernel, and how often a warp runs each")
    add_json(parser)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8") if options.text else one_text(folder=options.kernels)
    chosen = [workload for workload in WORKLOADS if options.workload in workload.name]
    if not chosen:
        parser.error(f"no workload like {options.workload!r}: " + ", ".join(w.name for w in WORKLOADS))
    if options.explain:
        print(explained(text, options.kernel, chosen[0]))
        return
    found = budget(text, chosen)
    print(f"{found.compiler}, {found.disassembler}; ms per billion requests, predicted, not measured; counts per request")
    print(table(found, options.kernel))
    for line in found.unstated:
        print(f"a loop without a rule, counted once: {line}")
    for lines in found.unused:
        print(f"a rule that nothing comes from: {lines}")
    write_json(
        options.json,
        {
            "compiler": found.compiler,
            "disassembler": found.disassembler,
            "predicted_ms": {
                w.name: round(sum(c.ms for c in found.cases if c.workload == w.name)) for w in chosen
            },
            "cases": [case.as_json() for case in found.cases],
        },
    )


if __name__ == "__main__":
    main()
