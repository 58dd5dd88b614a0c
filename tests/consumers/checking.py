"""What all check scripts share: exports and what is in them, checks with a time limit, a line for each.

Runs in every consumer's environment, so it needs the standard library alone.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1]).resolve()
NAME = sys.argv[2]
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
LIMIT_S = 60


class SkippedError(Exception):
    """A check cannot be run here; the message says why."""


@dataclass(frozen=True)
class Exported:
    """A file, the trace in it, and the command that we print for it."""

    path: Path
    command: list[str]
    arrival_us: list[int]
    input_tokens: list[int]
    output_tokens: list[int]
    conversation: list[int]

    @property
    def times_s(self) -> list[float]:
        """Seconds from the first request on."""
        return [(us - self.arrival_us[0]) / 1e6 for us in self.arrival_us]

    def option(self, name: str) -> str:
        """What the command says after ``--name``."""
        return self.command[self.command.index(f"--{name}") + 1]


def exported(name: str) -> Exported:
    """The export of this name."""
    about = EXPECTED["exports"].get(name)
    if about is None:
        raise LookupError(f"the package writes no {name}")
    columns = {key: EXPECTED["traces"][about["trace"]][key] for key in list(Exported.__annotations__)[2:]}
    return Exported(FOLDER / about["file"], shlex.split(about["command"], comments=True), **columns)


def same(what: str, found: Any, expected: Any) -> None:
    """Raise unless the two are equal, with the first place where they differ."""
    if found == expected:
        return
    if isinstance(found, Sequence) and not isinstance(found, str) and len(found) == len(expected):
        at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise AssertionError(f"{what}: {found[at]!r} instead of {expected[at]!r} in row {at}")
    if isinstance(found, list):
        found, expected = len(found), len(expected)
    raise AssertionError(f"{what}: {found!r} instead of {expected!r}")


def close(what: str, found: Sequence[float], expected: Sequence[float], within: float) -> None:
    """Raise unless the two are equal within a tolerance."""
    if len(found) != len(expected):
        raise AssertionError(f"{what}: {len(found)} instead of {len(expected)}")
    worst, at = max((abs(a - b), i) for i, (a, b) in enumerate(zip(found, expected, strict=True)))
    if worst > within:
        raise AssertionError(f"{what}: {found[at]!r} instead of {expected[at]!r} in row {at}")


def run(*checks: Callable[[], str | None], limit_s: int = LIMIT_S) -> None:
    """Run checks one after the other, each within a time limit. What one returns is said after its name."""
    signal.signal(signal.SIGALRM, _too_late)
    for check in checks:
        name, begun = check.__name__.removeprefix("check_").replace("_", " "), time.monotonic()
        signal.alarm(limit_s)
        try:
            said = check()
        except SkippedError as error:
            print(f"skip {name}: {error}", flush=True)
        except Exception as error:
            if not isinstance(error, (AssertionError, LookupError)):
                traceback.print_exc()
            print(f"fail {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
        else:
            print(f"pass {name}{f', {said}' if said else ''} ({time.monotonic() - begun:.1f} s)", flush=True)
        finally:
            signal.alarm(0)


def _too_late(*_: object) -> None:
    raise TimeoutError("not done in time")
