"""One case: a good input, mutated, used in a fresh directory, and judged."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType

from fuzz.kind import Good, Kind, Place, Refused, WrongAcceptanceError
from fuzz.mutate import mutated
from servegen_gpu.cli.streams import KEPT
from servegen_gpu.errors import ServeGenError, plain

SECONDS = 10.0
"""Of the processor that a case may take; a good one takes milliseconds."""
WAIT = 30
"""Times as long it may wait: others may have the processor."""
MORE_BYTES = 600 << 20
"""How much more memory a case may have in use at once than there was before it."""
MOST_CHARACTERS = 1000
"""How long a message may be."""
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where directories of cases are; removing one from a disk may take longer than the case."""
THIRD_PARTY = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)
"""Warnings that other libraries have among themselves."""

REFUSED, ACCEPTED, DEFECT = "refused", "accepted", "defect"


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes
    ----------
    kind, seed, case
        Its name: `run.py` makes it again.
    outcome : str
        ``refused``, ``accepted`` or ``defect``.
    what : str
        The message; of a defect its sort (``traceback``, ``hang``, ``memory``, ``left over``, ``words``, ``warning``,
        ``wrong acceptance``), and where.
    mutations : tuple of str
    """

    kind: str
    seed: int
    case: int
    outcome: str
    what: str
    mutations: tuple[str, ...]

    def __str__(self) -> str:
        again = f"python tests/fuzz/run.py --kind {self.kind} --seed {self.seed} --case {self.case}"
        return f"{self.outcome}: {self.what}\n  {'; '.join(self.mutations) or 'not mutated'}\n  {again}"


class Hang(BaseException):  # which nobody catches who catches exceptions
    """A case took too long."""


def run_case(kind: Kind, seed: int, case: int) -> Verdict:
    """Make a case and judge what comes of it."""
    random = Random(f"{kind.name} {seed} {case}")
    good, done = mutated(random.choice(given(kind)), kind, random)
    folder = Path(tempfile.mkdtemp(prefix="servegen-fuzz-", dir=IN_MEMORY))
    try:
        outcome, what = judged(kind, good, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not done and outcome == REFUSED:
        outcome, what = DEFECT, f"a good input refused: {what}"
    return Verdict(kind.name, seed, case, outcome, what.replace(str(folder), "…"), tuple(done))


@cache
def given(kind: Kind) -> Sequence[Good]:
    return kind.given()


def lay_out(good: Good, folder: Path) -> Place:
    """Directories of a case, with its files."""
    here, out, tmp = (folder / name for name in ("in", "out", "tmp"))
    for directory in (here, out, tmp):
        directory.mkdir()
    for name, data in good.files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    words = tuple(word.replace("{here}", str(here)).replace("{out}", str(out)) for word in good.words)
    return Place(here, out, words)


def judged(kind: Kind, good: Good, folder: Path) -> tuple[str, str]:
    place = lay_out(good, folder)
    before = _listing(place.here)
    resident = _peak_bytes(reset=True)
    outcome, message = ACCEPTED, ""
    with _watched(folder / "tmp") as watched:
        try:
            kind.use(place)
        except (ServeGenError, Refused) as error:
            outcome, message = REFUSED, str(error)
        except WrongAcceptanceError as error:
            return DEFECT, f"wrong acceptance: {error}"
        except Hang:
            return (
                DEFECT,
                f"hang: {SECONDS:g} s of the processor, or {WAIT * SECONDS:g} s, in {_where(sys.exc_info()[2])}",
            )
        except MemoryError:
            return DEFECT, f"memory: none left in {_where(sys.exc_info()[2])}"
        except (Exception, SystemExit) as error:
            first = str(error).split("\n")[0][:120]
            return DEFECT, f"traceback: {type(error).__name__}: {first!a} in {_where(error.__traceback__)}"
    if faults := [w for w in watched if not issubclass(w.category, THIRD_PARTY)]:
        first = faults[0]
        return DEFECT, f"warning: {str(first.message)[:120]!a} at {Path(first.filename).name}:{first.lineno}"
    if outcome == REFUSED and (fault := _fault_of_words(message)):
        return DEFECT, f"words: {fault} in {message[:200]!a}"
    if (more := _peak_bytes() - resident) > MORE_BYTES:
        return DEFECT, f"memory: {more >> 20} MiB, {outcome}"
    if outcome == REFUSED and (left := _listing(place.out)):
        return DEFECT, f"left over: {sorted(left)[:3]} though refused"
    if left := [name for name in _listing(place.out) if Path(name).name.startswith(".") or name.endswith(".tmp")]:
        return DEFECT, f"left over: {left[:3]}"
    if left := sorted(_listing(folder / "tmp")):
        return DEFECT, f"left over: {left[:3]} in the directory of temporary files"
    if _listing(place.here) != before:
        return DEFECT, "left over: the input's directory is another"
    return outcome, message


@contextlib.contextmanager
def _watched(tmp: Path) -> Iterator[list[warnings.WarningMessage]]:
    """Warnings are kept, time is limited, and temporary files have a place of their own."""

    running = True

    def ring(signum: int, frame: FrameType | None) -> None:
        if running:
            raise Hang

    old_tempdir, tempfile.tempdir = tempfile.tempdir, str(tmp)
    clocks = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAIT * SECONDS)}
    old_handlers = {number: signal.signal(number, ring) for number, _ in clocks.values()}
    for clock, (_, most_s) in clocks.items():
        signal.setitimer(clock, most_s, 1.0)  # again each second: some catch whatever is raised
    try:
        with warnings.catch_warnings(record=True) as watched:
            warnings.simplefilter("always")
            try:
                yield watched
            finally:
                running = False
                for clock in clocks:
                    signal.setitimer(clock, 0)
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        tempfile.tempdir = old_tempdir


def _fault_of_words(message: str) -> str:
    """What is wrong with a message; nothing if it is one printable sentence of bearable length."""
    if len(message) > MOST_CHARACTERS:
        return f"{len(message):,} characters"
    if strange := [c for c in message if not c.isprintable()]:
        return f"the character {strange[0]!a}"
    return "" if message.strip() else "nothing"


def _listing(directory: Path) -> dict[str, int]:
    """Files below a directory with their sizes."""
    found = {}
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            found[str(path.relative_to(directory))] = path.lstat().st_size
    return found


def _peak_bytes(reset: bool = False) -> int:
    """Most memory that was in use since the last reset; 0 where the system does not say."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def _where(trace: object) -> str:
    """The innermost place of the package in a traceback."""
    found = "?"
    for frame in traceback.extract_tb(trace):  # type: ignore[arg-type]
        if "servegen_gpu" in frame.filename:
            found = f"{frame.filename.rpartition('servegen_gpu/')[2]}:{frame.lineno} {frame.name}"
    return found


class _Stream(io.StringIO):
    """A standard stream as a process of its own has it."""

    def write(self, text: str) -> int:
        return super().write(plain(text, KEPT))


def command(words: Sequence[str]) -> tuple[str, str]:
    """Run a command line in this process: its standard output and error; `Refused` if it says that it was refused."""
    from servegen_gpu import cli

    out, err = _Stream(), _Stream()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(list(words))
        except SystemExit as stop:
            status = stop.code
    said = err.getvalue()
    lines = said.splitlines()
    if status == 0:
        if strange := [c for c in said + out.getvalue() if not (c.isprintable() or c == "\n")]:
            raise WrongAcceptanceError(f"the character {strange[0]!a} printed")
        return out.getvalue(), said
    if status != 2:
        raise WrongAcceptanceError(f"status {status!r}: {said[-200:]!a}")
    if "enough memory" in said:
        raise MemoryError
    errors = [line for line in lines if "error: " in line[:40]]
    rest = [line for line in lines if line not in errors and not line.startswith(("note: ", "usage: ", "  "))]
    if len(errors) != 1 or rest or lines[-1] != errors[0]:
        raise WrongAcceptanceError(f"no single sentence: {said[-300:]!a}")
    raise Refused(errors[0])
