"""Which mutants there are, and a random sample of them."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from mutants.changes import Change, described, of_c, of_python

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGES = {
    "law": (28, "servegen_gpu/law/*.py"),
    "rates, plan, packing": (40, "servegen_gpu/rates.py", "servegen_gpu/plan.py", "servegen_gpu/packing.py"),
    "conversations": (
        24, "servegen_gpu/conversations/*.py", "servegen_gpu/packed_turns.py", "servegen_gpu/histories.py",
    ),
    "scaling": (20, "servegen_gpu/scaling.py"),
    "prefixes": (26, "servegen_gpu/prefixes/*.py"),
    "formats": (36, "servegen_gpu/formats/*.py", "servegen_gpu/formats/reading/*.py"),
    "kernels": (26, "kernels/*.h"),
}  # fmt: skip
"""How many of 200 mutants are from each, and from which files."""

LEFT_ALONE = ("kernels/normal_tables.h", "kernels/shim.h")
"""Numbers that a program writes, and what only tests call."""

EQUIVALENT = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Mutant:
    """A change of a file of the repository.

    Attributes
    ----------
    package : str
        Of `PACKAGES`.
    file : str
    source : str
        The whole file as it is.
    change : Change
    """

    package: str
    file: str
    source: str
    change: Change

    @cached_property
    def diff(self) -> tuple[str, ...]:
        """The lines before and after."""
        return tuple(described(self.source, self.change))

    @property
    def name(self) -> str:
        """What its records are known by, wherever the lines are by now."""
        return "\n".join((self.file, self.change.function, *self.diff))


def equivalents() -> set[tuple[str, str, str]]:
    """Changes of lines of which somebody saw that they change no result: file, line before, line after."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {(entry["file"], entry["before"].strip(), entry["after"].strip()) for entry in listed}


def mutants_of(package: str) -> list[Mutant]:
    """All mutants of a package."""
    _, *patterns = PACKAGES[package]
    found = []
    for path in sorted({path for pattern in patterns for path in REPOSITORY.glob(str(pattern))}):
        file = path.relative_to(REPOSITORY).as_posix()
        source = path.read_text(encoding="utf-8")
        changes = [] if file in LEFT_ALONE else (of_c if path.suffix == ".h" else of_python)(source)
        found += [Mutant(package, file, source, change) for change in changes]
    return found


def sampled(seed: int, number: int, only: Collection[str] = ()) -> list[list[Mutant]]:
    """Random mutants, package by package: twice its share, as some do not compile; none that is equivalent."""
    total = sum(int(share) for share, *_ in PACKAGES.values())
    known = equivalents()
    found = []
    for package, (share, *_) in PACKAGES.items():
        if not only or package in only:
            mutants = mutants_of(package)
            random.Random(f"{seed} {package}").shuffle(mutants)
            some = (m for m in mutants if (m.file, m.diff[0][1:].strip(), m.diff[-1][1:].strip()) not in known)
            found.append(list(islice(some, 2 * round(number * int(share) / total))))
    return found
