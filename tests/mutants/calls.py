"""Which tests to give to a mutant: those that call what it changes, as `called.py` found."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mutants.sample import REPOSITORY, Mutant
from mutants.tree import Tree

LAW = "lane philox elementary normal variates position tables dependence context request strip_philox strip_normal"
HEADERS = {
    **{f"{name}.h": "kernels native equivalence cuda_host" for name in LAW.split()},
    "loads.h": "reducing native",
    "strip_digest.h": "digest",
    "serving.h": "serving native",
    **dict.fromkeys(("sessions.h", "turns.h", "strip_turns.h", "order.h"), "native_turns conversations native"),
    "slab.h": "cuda_host cuda_tasks",
    **dict.fromkeys(("tasks.h", "warps.h"), "cuda_tasks"),
}
"""Test files of a kernel, whose functions the map does not know; of the others `DRIVER`."""
DRIVER = "native equivalence golden native_turns replicas"

MOST_FILES = 6
LEFT_OUT = "cuda_ptx ptx_instructions ptx_threads sass_budget cuda_compile cuda_sort house consumers gpu processes"
"""Test files that call nothing of the package in their own process, or take minutes."""


class Calls:
    """A map of tests and functions, in a file: learned for test files that are new or have changed.

    Parameters
    ----------
    path : Path
        Of the map.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, bool] = {}
        self._files: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}

    def learn(self, command: Iterable[str] = (sys.executable, "-m", "pytest")) -> None:
        """Run the test files that the map does not have as they are, one after the other."""
        for file in sorted((REPOSITORY / "tests").glob("test_*.py")):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            name = f"tests/{file.name}"
            if file.stem.removeprefix("test_") in LEFT_OUT.split() or self._files.get(name, {}).get("of") == digest:
                continue
            found = self._path.with_suffix(".part")
            arguments = ["-q", "-p", "mutants.called", "--called", found, name]
            subprocess.run([*command, *map(str, arguments)], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=False)
            self._files[name] = json.loads(found.read_text()) | {"of": digest}
            self._path.write_text(json.dumps(self._files))
            print(name, flush=True)

    def index(self) -> None:
        """Turn the map around."""
        self.seconds: dict[str, float] = {}
        self._by_function: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._by_file: dict[str, list[str]] = defaultdict(list)
        for found in self._files.values():
            for test, (seconds, functions) in found["tests"].items():  # type: ignore[attr-defined]
                self.seconds[test] = seconds
                places = [tuple(found["functions"][f]) for f in functions]  # type: ignore[index]
                for place in places:
                    self._by_function[place].append(test)
                for file in {file for file, _ in places}:
                    self._by_file[file].append(test)

    def holds(self, test: str, tree: Tree) -> bool:
        """Whether a test passes without a mutant, which is tried once; one that does not is left out from now on."""
        if test not in self._held:
            tree.built(mutated=False)
            self._held[test] = tree.tests([test], 30 + 4 * self.seconds[test], fresh=True)[0] == 0
            if not self._held[test]:
                print("fails without a mutant:", test, flush=True)
        return self._held[test]

    def tests(self, mutant: Mutant, at_most_s: float, more: bool) -> list[str]:
        """Tests of a mutant: cheap ones first, from its own test files for half of the time, then from all in turn.

        Parameters
        ----------
        mutant : Mutant
        at_most_s : float
            CPU time that they took.
        more : bool
            With those that do not call the function, but are in a file with one that does: they may share what it made.
        """
        path = Path(mutant.file)
        if mutant.package == "kernels":
            own = set(HEADERS.get(path.name, DRIVER).split())
            called = [test for test in self.seconds if _stem(test) in own]
        else:
            inside = mutant.file.removeprefix("servegen_gpu/")
            called = self._by_function.get((inside, mutant.change.function)) or self._by_file.get(inside, [])
            words = set(path.with_suffix("").parts[1:]) - {"formats"} or {"formats"}
            own = {stem for stem in map(_stem, called) if any(word in stem for word in words)}
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(called, key=self.seconds.__getitem__):
            files[test.partition("::")[0]].append(test)
        if more:
            known = set(called)
            for test in sorted(self.seconds, key=self.seconds.__getitem__):
                if test not in known and (file := test.partition("::")[0]) in files:
                    files[file].append(test)
        files = {file: [test for test in tests if self._held.get(test, True)] for file, tests in files.items()}
        chosen: list[str] = []
        left = at_most_s
        ours = [tests for file, tests in files.items() if _stem(file) in own]
        if not more:  # files take time to import
            best = sorted(files, key=lambda file: (_stem(file) not in own, -len(files[file])))[:MOST_FILES]
            files = {file: files[file] for file in best}
        for many, until in ((ours, at_most_s / 2), (list(files.values()), 0.0)):
            while (queues := [queue for queue in many if queue]) and left > until:
                for queue in queues:
                    test = queue.pop(0)
                    if self.seconds[test] < left:
                        chosen.append(test)
                        left -= self.seconds[test] + 0.003
        return chosen


def _stem(test: str) -> str:
    return Path(test.partition("::")[0]).stem.removeprefix("test_")
