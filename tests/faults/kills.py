"""Kill every writer at any moment, and look at what is there: ``python tests/faults/kills.py --kills 1000``.

A warm interpreter forks a child for each run, which writes and is killed (SIGKILL): a third of them after a random
time, a third right before a random call that has to do with files, and a third before one of the last of these. Outputs
are small, and the same bytes every time. So each file under a final name must be the old one or the new one, files that
belong together must both be, and the next run must leave nothing but its output.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.writers import WRITERS, Writer, warm

from servegen_gpu.disk.commit import settle_all

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.chmod", "os.chown",
          "fcntl.flock", "os.truncate", "shutil.rmtree", "ctypes.dlsym")  # fmt: skip
"""Audit events before which a child may be killed."""
LAST = 8
CLEAN_EVERY = 7
"""Runs that nobody kills, to see whether anything is left."""
PATIENCE_S = 60.0
Tree = dict[str, bytes]


@dataclass
class Found:
    """What became of a writer's runs.

    Attributes
    ----------
    kills : int
        Children that were killed; others were done before.
    old, new : int
        Of the killed, how many left the older output, or the new one.
    leftovers : int
        Runs after which something was there under a temporary name.
    faults : list of str
        What must not be: an incomplete file, files of two runs, a leftover that stays, an error of a reader.
    """

    kills: int = 0
    old: int = 0
    new: int = 0
    leftovers: int = 0
    faults: list[str] = field(default_factory=list)


def tree(folder: Path) -> tuple[Tree, list[str]]:
    """Files of a folder by their names, but for locks, and the names of what is hidden."""
    files, hidden = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            hidden.append(name)
        elif path.is_file() and name != "lock":
            files[name] = path.read_bytes()
    return files, hidden


def run(work: Callable[[], object], kill: Callable[[int], None] | None = None, event: int = 0) -> tuple[int, int]:
    """Do work in a child; kill it from here, or before its `event`-th call.

    Returns
    -------
    status : int
        0, or the negative number of the signal.
    events : int
        Calls that the child made, where nobody killed it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            gc.disable()
            os.close(reader)
            seen = [0]
            sys.addaudithook(lambda name, _: _count(seen, event) if name in EVENTS else None)
            work()
            os.write(writer, str(seen[0]).encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(writer)
    if kill is not None:
        kill(child)
    with os.fdopen(reader) as said:
        events = said.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(events or 0)


def _count(seen: list[int], event: int) -> None:
    seen[0] += 1
    if seen[0] == event:
        os.kill(os.getpid(), signal.SIGKILL)


def after(delay_s: float) -> Callable[[int], None]:
    """Kill a child after some time."""

    def kill(child: int) -> None:
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)

    return kill


def try_writer(writer: Writer, kills: int, folder: Path, seed: int) -> Found:
    """Kill a writer so many times."""
    rng = random.Random(f"{writer.name} {seed}")
    spills = folder / "spills"
    spills.mkdir(parents=True)
    found = Found()
    expected, spent_s, events = [], [], []
    for version in (0, 1):
        place = folder / f"expected-{version}"
        place.mkdir()
        run(lambda: _write(writer, place, spills, 1 - version))  # noqa: B023
        begun = time.perf_counter()
        status, count = run(lambda: _write(writer, place, spills, version))  # noqa: B023
        spent_s.append(time.perf_counter() - begun)
        events.append(count)
        files, hidden = tree(place)
        assert status == 0, f"{writer.name} fails"
        assert files, f"{writer.name} writes nothing"
        assert not hidden, f"{writer.name} leaves {hidden}"
        expected.append(files)
    assert expected[0] != expected[1], f"{writer.name} writes the same twice"
    place = folder / "out"
    place.mkdir()
    older: Tree = {}
    runs = 0
    while found.kills < kills:
        runs += 1
        version = int(older == expected[0])
        if rng.random() < 0.2:
            shutil.rmtree(place)
            place.mkdir()
            older = {}
        work = lambda: _write(writer, place, spills, version)  # noqa: E731, B023
        how = rng.randrange(3)
        if runs % CLEAN_EVERY == 0:
            status, _ = run(work)
        elif not how:
            status, _ = run(work, after(rng.uniform(0, 1.1 * spent_s[version])))
        else:
            last = events[version]
            status, _ = run(work, event=rng.randint(1 if how == 1 else max(1, last - LAST), last))
        if status not in (0, -signal.SIGKILL):
            found.faults.append(f"run {runs}: status {status}")
        found.kills += status != 0
        older = _look(writer, place, spills, older, expected[version], status == 0, found, f"run {runs}")
    status, _ = run(lambda: _write(writer, place, spills, 0))
    _look(writer, place, spills, older, expected[0], True, found, "last run")
    return found


def _write(writer: Writer, place: Path, spills: Path, version: int) -> None:
    tempfile.tempdir = str(spills)
    writer.write(place, version)


def _look(
    writer: Writer, place: Path, spills: Path, older: Tree, newer: Tree, done: bool, found: Found, which: str
) -> Tree:
    """Note what is there after a run, and return it."""
    files, hidden = tree(place)
    for name, data in files.items():
        if data not in (older.get(name), newer.get(name)):
            found.faults.append(f"{which}: {name} of {len(data)} bytes is neither old nor new")
    if hidden or any(spills.iterdir()):
        found.leftovers += 1
        if done:
            found.faults.append(f"{which}: {[*hidden, *spills.iterdir()]} left by a run that was not killed")
    if done:
        status, _ = run(lambda: writer.read(place))
        if status:
            found.faults.append(f"{which}: cannot be read")
    else:  # as readers begin; here, because to fork takes most of the time
        settle_all(place)
    files, _ = tree(place)
    if done and files != newer:
        found.faults.append(f"{which}: not what was written")
    elif writer.together and files not in (older, newer):
        found.faults.append(f"{which}: {sorted(files)} are of two runs")
    if not done:
        found.new += files == newer
        found.old += files == older
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all writers, or those that are named; the exit status is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("writers", nargs="*", metavar="WRITER", help=f"of {', '.join(w.name for w in WRITERS)}")
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="of each writer (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write (default: in memory, if /dev/shm is there)")
    options = parser.parse_args(arguments)
    chosen = [writer for writer in WRITERS if not options.writers or writer.name in options.writers]
    where = options.folder or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    warm()
    gc.collect()
    gc.freeze()  # what children leave alone is not copied
    faults = 0
    print(f"{'writer':<10} {'kills':>7} {'old':>7} {'new':>7} {'leftovers':>10} {'faults':>7} {'seconds':>8}")
    for writer in chosen:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="servegen_gpu-kills-", dir=where) as name:
            found = try_writer(writer, options.kills, Path(name), options.seed)
        spent_s = time.perf_counter() - begun
        counts = f"{found.kills:>7,} {found.old:>7,} {found.new:>7,} {found.leftovers:>10,} {len(found.faults):>7,}"
        print(f"{writer.name:<10} {counts} {spent_s:>8.1f}", flush=True)
        for fault in found.faults[:5]:
            print(f"  {fault}")
        faults += len(found.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
