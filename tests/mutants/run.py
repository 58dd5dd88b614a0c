"""Random small mutants of the package and its kernels, and how many of them the tests catch.

    python tests/mutants/run.py --out FOLDER [--seed 0] [--number 200] [--only PACKAGE …]

It works in a copy of the checkout. Which tests call which functions is learned first, once. Every mutant then gets
tests that call what it changes, cheap ones first, until one fails; what survives a few seconds of them gets many more.
A run that was stopped goes on where it was, and `--again` tries the survivors once more. Scores and survivors are
printed in the end and kept in FOLDER/SEED.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mutants.calls import Calls
from mutants.sample import PACKAGES, Mutant, sampled
from mutants.tree import Tree

FIRST_S, MORE_S = 4.0, 60.0
"""CPU time of the tests that every mutant gets, and of those for what survives the first."""

Record = dict[str, Any]


def tried(mutant: Mutant, tree: Tree, calls: Calls, stage: int) -> Record:
    """What becomes of a mutant: killed, survived, or stillborn where it does not compile."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    record: Record = {"name": mutant.name, "package": mutant.package, "kind": mutant.change.kind, "stage": stage}
    tree.write(mutant.file, mutant.change.applied(mutant.source))
    try:
        if not tree.built(mutated=mutant.package == "kernels"):
            return record | {"fate": "stillborn"}
        tests = calls.tests(mutant, MORE_S if stage else FIRST_S, more=bool(stage))
        expected_s = sum(calls.seconds[test] for test in tests)
        status, said = tree.tests(tests, 30 + 4 * expected_s, fresh=stage > 0) if tests else (0, "")
    finally:
        tree.write(mutant.file, mutant.source)
    if status == pytest.ExitCode.USAGE_ERROR and "\nE   " not in said:  # else what a module runs at import fails
        raise RuntimeError(f"the map does not fit the tests: {said[-300:]}")
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if failed and (test := named_in(failed[0], tests)) and not calls.holds(test, tree):
        return tried(mutant, tree, calls, stage)
    by = "time" if status is None else (failed or [said[-200:]])[0][:200]
    used_s = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun, 1)
    fate = {"fate": "survived"} if status == 0 else {"fate": "killed", "by": by}
    return record | fate | {"tests": len(tests), "cpu_s": used_s}


def named_in(line: str, tests: Iterable[str]) -> str | None:
    """The test that a line of pytest's summary names."""
    return max((test for test in tests if f"{line} ".startswith((f"FAILED {test} ", f"ERROR {test} "))), default=None)


def table(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Counts and scores by package, and of all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record["package"]][record["fate"]] += 1
        counts["all"][record["fate"]] += 1
    return {
        name: {**count, "score": round(count["killed"] / max(count["killed"] + count["survived"], 1), 3)}
        for name, count in counts.items()
    }


def preload() -> None:
    """Import what tests import, no mutant changes and has no threads, which a fork would lose."""
    import hypothesis  # noqa: F401
    import scipy.stats  # noqa: F401


class Run:
    """The records of a run, in a file of lines; the last of a mutant counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.records: dict[str, Record] = {record["name"]: record for record in map(json.loads, lines)}

    def fate(self, mutant: Mutant) -> str | None:
        """What became of it so far."""
        return self.records.get(mutant.name, {}).get("fate")

    def note(self, record: Record) -> None:
        """Keep a record, and show it."""
        self.records[record["name"]] = record
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        print(record["fate"], record.get("cpu_s"), record["name"].partition("\n")[0], record.get("by", ""), flush=True)


def main() -> int:
    """Run, or go on with a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--only", action="append", default=[], choices=PACKAGES)
    parser.add_argument("--again", action="store_true", help="try once more what survived")
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    options = parser.parse_args()

    packages = sampled(options.seed, options.number, options.only)
    if options.list:
        for mutants in packages:
            for mutant in mutants[: len(mutants) // 2]:
                print(mutant.change.kind, mutant.name, sep="\n")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    calls = Calls(options.out / "calls.json")
    calls.learn()
    calls.index()
    preload()
    tree = Tree(options.out)
    run = Run(options.out / f"{options.seed}.jsonl")
    queues = [(list(mutants), len(mutants) // 2) for mutants in packages]
    tries: list[Mutant] = []
    for place in range(max(wanted for _, wanted in queues)):  # all packages from the beginning
        for mutants, wanted in queues:
            if place >= wanted:
                continue
            mutant = mutants.pop(0)
            while (run.fate(mutant) or _tried_first(run, mutant, tree, calls)) == "stillborn":
                mutant = mutants.pop(0)
            tries.append(mutant)
    for mutant in tries:
        if run.fate(mutant) == "survived" and (options.again or run.records[mutant.name]["stage"] == 0):
            run.note(tried(mutant, tree, calls, 1))
    records = [run.records[mutant.name] for mutant in tries]
    found = {"seed": options.seed, "scores": table(records), "survivors": []}
    found["survivors"] = [record["name"] for record in records if record["fate"] == "survived"]
    (options.out / f"{options.seed}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for name in found["survivors"]:
        print(name, end="\n\n")
    for package, row in found["scores"].items():
        print(f"{package:24}", *(f"{name} {value:<7}" for name, value in row.items()))
    return 0


def _tried_first(run: Run, mutant: Mutant, tree: Tree, calls: Calls) -> str:
    run.note(tried(mutant, tree, calls, 0))
    return str(run.fate(mutant))


if __name__ == "__main__":
    sys.exit(main())
