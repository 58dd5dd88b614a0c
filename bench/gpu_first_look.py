"""One command, under ten minutes, on a machine with a CUDA device: what the device can do, and what we do with it.

    python bench/gpu_first_look.py [--requests 1e9] [--only sorts,stages] [--disk DIRECTORY]

Parts run in the order of `PARTS`. Every figure is in the JSON file as soon as it is there; a part that fails, or takes
longer than its share of the time, says so in its place, and the others go on. Times are of CUDA events where the device
alone is asked for, else of the clock after the device is done. ``--tiny`` runs every line at sizes at which figures
mean nothing (tests/test_gpu_first_look.py).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import in_lines, machine
from gpu_limits import copies, disk, draws, sorts
from gpu_traces import baselines, check, devices, end_to_end, stages

import servegen_gpu as sg
from servegen_gpu.backends.contract import Backend
from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda import sort as cuda_sort
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.backends.native.build import BuildError
from servegen_gpu.errors import OptionError

HERE = Path(__file__).resolve().parent
BUDGET_S = 570
Part = Callable[["Look"], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    clients: int = 25_913
    copy_bytes: int = 1 << 30
    draws: int = 1 << 24
    draw_rounds: int = 64
    gather_bits: tuple[int, ...] = (16, 23)
    sorts: tuple[int, ...] = (1 << 24, 1 << 27, 1 << 30)
    disk_bytes: int = 1 << 32
    encode_rows: int = 4_000_000
    times: int = 3


TINY = Sizes(200, 1 << 16, 1 << 8, 2, (4, 6), (1 << 8, 1 << 10), 1 << 16, 1000, 2)

PARTS: dict[str, tuple[Part, float]] = {
    "check": (check, 40),
    "copies": (copies, 30),
    "end_to_end": (end_to_end, 150),
    "stages": (stages, 80),
    "baselines": (baselines, 180),
    "draws": (draws, 40),
    "sorts": (sorts, 150),
    "disk": (disk, 60),
    "devices": (devices, 60),
}
"""Parts, and the most seconds that each may take."""


class Look:
    """The device, the options, and how things are timed."""

    def __init__(self, device: CudaDevice, options: argparse.Namespace) -> None:
        self.device, self.cp, self.options = device, device.xp, options
        self.requests = options.requests
        self.sizes = TINY if options.tiny else Sizes()
        self.ends = self.part_ends = time.monotonic() + BUDGET_S
        self.ceilings: dict[str, float] = {}
        """Bytes that could be moved at best, GB/s, by where they go."""

    def backend(self, stay: bool = False) -> CupyBackend:
        """The backend on the one device that figures are of."""
        return CupyBackend([self.device], stay)

    def workload(
        self,
        requests: float | None = None,
        stay: bool = False,
        backend: Backend | None = None,
        counts: str = "auto",
    ) -> sg.Workload:
        """The workload that all end-to-end figures are of: one hour, budget 16 GB."""
        pool = sg.population("deepseek-r1", clients=self.sizes.clients, seed=1).with_conversations(None)
        rate, chosen = (requests or self.requests) / 3600, backend or self.backend(stay)
        most = int(16e9 / chosen.bytes_per_request(pool.category))
        made = sg.stream(pool, rate=rate, duration=3600, seed=7, counts=counts, backend="numpy")
        return replace(made, backend=chosen, max_requests=most)

    def begin(self) -> float:
        """The time, once the device is done."""
        self.cp.cuda.Device().synchronize()
        return time.perf_counter()

    def since(self, begun: float) -> float:
        """Seconds until the device is done."""
        return self.begin() - begun

    def events_ms(self, work: Callable[[], Any]) -> float:
        """Median milliseconds of `work` on the device, after one call to warm up."""
        work()
        found = []
        for _ in range(self.sizes.times):
            begin, end = self.cp.cuda.Event(), self.cp.cuda.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            found.append(self.cp.cuda.get_elapsed_time(begin, end))
        return statistics.median(found)

    def figures(self, where: str, rows: int, size: int, seconds: Sequence[float]) -> dict[str, Any]:
        """Rates of a trace, and what share of the measured ceiling its bytes are."""
        middle = statistics.median(seconds)
        found = {"what": where, "requests": rows, "bytes": size, "seconds": middle, "all_seconds": list(seconds),
                 "requests_per_s": rows / middle, "bytes_per_s": size / middle}  # fmt: skip
        ceiling = self.ceilings.get(where)
        return found | ({"of_ceiling": size / middle / ceiling / 1e9} if ceiling else {})

    def free(self) -> None:
        """Give back the memory of the last part."""
        self.cp.get_default_memory_pool().free_all_blocks()
        self.device.release()


def surroundings(device: CudaDevice) -> dict[str, Any]:
    """Device, driver, versions, commit."""
    runtime = device.xp.cuda.runtime
    try:
        compiler = cuda_sort.nvcc()
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")
        nvcc = next((line for line in said if "release" in line), "unknown")
    except (BuildError, OSError) as error:
        nvcc = str(error)
    versions = {name: "absent" for name in ("torch", *cuda_driver.cupy_packages())}
    for name in versions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return machine() | versions | {
        "devices": [device.name_of(number) for number in cuda_driver.chosen_devices(device.xp)],
        "device_memory": runtime.memGetInfo()[1],
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": device.xp.__version__,
        "nvcc": nvcc,
        "backend": device.describe(),
    }  # fmt: skip


class TooLong(BaseException):  # nobody on the way may take it for an error of their own
    """A part took longer than its share."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what is inside once it took too long, at the next line of Python; only where there are signals."""

    def interrupt(*_: Any) -> None:
        raise TooLong(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write(path: Path, found: dict[str, Any]) -> None:
    """The figures so far, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(in_lines(found))
    os.replace(partial, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 2 without a device, 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=float, default=1e9)
    parser.add_argument("--disk-requests", type=float, default=2e8, help="of the trace that is written to disk")
    parser.add_argument("--disk", type=Path, default=None, help="directory for it")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--tiny", action="store_true", help="whether it runs; figures mean nothing")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "gpu_first_look.json")
    options = parser.parse_args(arguments)
    if unknown := set(options.only.split(",")) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}")
    try:
        device = open_device(None)
    except OptionError as error:
        print(f"gpu_first_look: {error}", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"machine": surroundings(device), "requests": options.requests, "tiny": options.tiny}
    look = Look(device, options)
    with device.current():
        for name in options.only.split(","):
            run(name, look, found)
            write(options.json, found)
            if name == "check" and any("failed" in row for row in found[name]):
                print("the device makes other rows than NumPy: nothing is timed", file=sys.stderr)
                return 1
    failed = [name for name in options.only.split(",") if any("failed" in row for row in found[name])]
    print(f"figures in {options.json}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(name: str, look: Look, found: dict[str, Any]) -> None:
    """A part; whatever happens to it is in what was found."""
    part, most_s = PARTS[name]
    rows: list[dict[str, Any]] = []
    found[name] = rows
    begun = time.monotonic()
    left = min(most_s, look.ends - begun)
    if left <= 0:
        rows.append({"skipped": f"{BUDGET_S} s were over"})
        return
    look.part_ends = begun + left
    try:
        with at_most(left):
            for row in part(look):
                rows.append(row)
                print(name, json.dumps(row), flush=True)
                write(look.options.json, found)
    except TooLong as error:
        rows.append({"skipped": f"the rest: {error}"})
    except Exception as error:
        rows.append({"failed": f"{type(error).__name__}: {error}"[:500]})
        print(name, rows[-1], flush=True)
    finally:
        found.setdefault("part_seconds", {})[name] = time.monotonic() - begun
    try:
        look.free()
    except Exception as error:
        rows.append({"failed": f"giving memory back: {error}"[:500]})


if __name__ == "__main__":
    sys.exit(main())
