"""Fuzz every kind of input: any number of cases over processes, or one case again.

python tests/fuzz/run.py --cases 1000000
python tests/fuzz/run.py --kind clients-toml --seed 0 --case 17
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing as mp
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.case import ACCEPTED, DEFECT, REFUSED, SECONDS, WAIT, Verdict, run_case
from fuzz.kind import Kind, all_kinds

STUCK_S = 2 * WAIT * SECONDS
"""Without a word from a process for so long, it hangs where no signal reaches it."""
BATCH = 500
Found = Callable[[Verdict], object]
ADDRESS_BYTES = 4 << 30
"""Address space that a process may have beyond what it has at its begin."""


def shares(cases: int, kinds: Sequence[Kind]) -> dict[str, int]:
    """How many cases of each kind."""
    whole = sum(kind.share for kind in kinds)
    return {kind.name: max(round(cases * kind.share / whole), 1) for kind in kinds}


def work(sink: Connection, jobs: Sequence[tuple[str, int, int]]) -> None:
    """Run cases in this process; each is named before it begins, so that its end is known if the process has none."""
    kinds = all_kinds()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_bytes() + ADDRESS_BYTES, hard))
    for name, seed, case in jobs:
        sink.send((name, seed, case))
        sink.send(run_case(kinds[name], seed, case))
    sink.send(None)


def _address_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Worker:
    """A process that runs a batch of cases, and what it is doing."""

    def __init__(self, jobs: list[tuple[str, int, int]]) -> None:
        self.jobs, self.now, self.heard = jobs, jobs[0], time.monotonic()
        self.source, sink = mp.Pipe(duplex=False)
        self.process = mp.get_context("fork").Process(target=work, args=(sink, jobs))
        self.process.start()
        sink.close()

    def rest(self) -> list[tuple[str, int, int]]:
        """What comes after the case that it was at."""
        return self.jobs[self.jobs.index(self.now) + 1 :]

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.join()
        self.source.close()


def run_all(
    jobs: Sequence[tuple[str, int, int]], processes: int, say: bool = True, found: Found = lambda verdict: None
) -> list[Verdict]:
    """Verdicts of all cases, of those that there are if it is interrupted; `found` is told each as it comes.

    One that takes its process with it is a defect, and the next process goes on behind it.
    """
    all_kinds()
    verdicts: list[Verdict] = []
    with contextlib.suppress(KeyboardInterrupt):
        for verdict in _verdicts(jobs, processes, say):
            verdicts.append(verdict)
            found(verdict)
    return verdicts


def _verdicts(jobs: Sequence[tuple[str, int, int]], processes: int, say: bool) -> Iterator[Verdict]:
    waiting = [list(jobs[i : i + BATCH]) for i in range(0, len(jobs), BATCH)][::-1]
    workers: list[Worker] = []
    done = bad = 0
    begun = told = time.monotonic()
    while waiting or workers:
        while waiting and len(workers) < processes:
            workers.append(Worker(waiting.pop()))
        ready = wait([worker.source for worker in workers], timeout=1.0)
        for worker in list(workers):
            lost = None
            if worker.source in ready:
                worker.heard = time.monotonic()
                try:
                    heard = worker.source.recv()
                except EOFError:
                    worker.process.join()
                    lost = f"crash: the process ended with {worker.process.exitcode}"
                else:
                    if heard is None:
                        worker.end()
                        workers.remove(worker)
                    elif isinstance(heard, Verdict):
                        done, bad = done + 1, bad + (heard.outcome == DEFECT)
                        yield heard
                    else:
                        worker.now = heard
            elif time.monotonic() - worker.heard > STUCK_S:
                lost = f"hang: {STUCK_S:g} s without a word, where no signal reaches"
            if lost is not None:
                worker.end()
                workers.remove(worker)
                if rest := worker.rest():
                    waiting.append(rest)
                done, bad = done + 1, bad + 1
                yield Verdict(*worker.now, DEFECT, lost, ("unknown",))
        if say and time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{done:,} of {len(jobs):,} cases, {bad} defects, {told - begun:.0f} s", file=sys.stderr)


def table(verdicts: Sequence[Verdict]) -> str:
    """Verdicts by kind."""
    counts = Counter((v.kind, v.outcome) for v in verdicts)
    lines = [f"{'kind':32} {'cases':>9} {REFUSED:>9} {ACCEPTED:>9} {DEFECT + 's':>9}"]
    for name in [*dict.fromkeys(v.kind for v in verdicts), "all"]:
        found = [sum(n for (k, o), n in counts.items() if name in (k, "all") and o == each) for each in
                 (REFUSED, ACCEPTED, DEFECT)]  # fmt: skip
        lines.append(f"{name:32} {sum(found):9,} {found[0]:9,} {found[1]:9,} {found[2]:9,}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; status 1 if there are defects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="in all (default: 10,000)")
    parser.add_argument("--kind", action="append", help="only this kind; repeat for more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="make one case again, and keep its files")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, default=3, help="how many defects of each sort to show (default: 3)")
    parser.add_argument("--json", help="a file that all defects are added to, one a line")
    options = parser.parse_args(arguments)
    kinds = all_kinds()
    if unknown := [name for name in options.kind or () if name not in kinds]:
        parser.error(f"no kind {unknown[0]!r}; there are {', '.join(kinds)}")
    chosen = [kinds[name] for name in options.kind or kinds]
    if options.case is not None:
        return again(chosen[0], options.seed, options.case)
    begun = time.monotonic()
    jobs = [(name, options.seed, i) for name, n in shares(options.cases, chosen).items() for i in range(n)]
    shown: Counter[tuple[str, str]] = Counter()

    def found(verdict: Verdict) -> None:
        if verdict.outcome != DEFECT:
            return
        sort = verdict.kind, verdict.what[:60]
        shown[sort] += 1
        if shown[sort] <= options.show:
            print(f"{verdict.kind}: {verdict}\n", flush=True)
        if options.json:
            with open(options.json, "a") as file:
                file.write(json.dumps(vars(verdict)) + "\n")

    verdicts = run_all(jobs, options.processes, found=found)
    print(table(verdicts))
    print(f"{time.monotonic() - begun:.0f} s on {options.processes} processes")
    return 1 if shown else 0


def again(kind: Kind, seed: int, case: int) -> int:
    """One case, with its files beside the working directory and its traceback as it comes."""
    from random import Random

    from fuzz.case import given, lay_out
    from fuzz.mutate import mutated

    random = Random(f"{kind.name} {seed} {case}")
    good, done = mutated(random.choice(given(kind)), kind, random)
    verdict = run_case(kind, seed, case)
    print(verdict)
    folder = Path(f"fuzz-{kind.name}-{seed}-{case}")
    if verdict.outcome == DEFECT and not folder.exists():
        folder.mkdir()
        place = lay_out(good, folder.resolve())
        print(f"files in {place.here}; words: {' '.join(place.words)[:500]!a}; {done}")
        kind.use(place)
    return int(verdict.outcome == DEFECT)


if __name__ == "__main__":
    sys.exit(main())
