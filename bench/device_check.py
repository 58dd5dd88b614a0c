"""One part of bench/device_check.sh, in this process: whether a CUDA device makes the law's rows, and how fast.

    python bench/device_check.py PART FOLDER [--requests 1e9] [--tiny]
    python bench/device_check.py summary FOLDER

Every row goes to ``FOLDER/rows.jsonl`` as soon as it is there, with the part's name; the last row of a part says
whether it failed. ``summary`` prints what there is, writes ``FOLDER/device.json``, and ends with status 1 if a part
failed.
Times are of CUDA events where the device alone is asked for, else of the clock after the device is done. ``--tiny``
runs every line at sizes at which figures mean nothing (tests/test_device_check.py).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import in_lines, machine
from device_limits import copies, disk, draws, sorts
from device_rows import jax, large, rows, ticks
from device_traces import baselines, devices, host, to_disk, traces
from device_workloads import CLIENTS, workload

import servegen_gpu as sg
from servegen_gpu.backends.cuda import driver as cuda_driver
from servegen_gpu.backends.cuda import sort as cuda_sort
from servegen_gpu.backends.cuda.backend import CupyBackend
from servegen_gpu.backends.cuda.device import CudaDevice, open_device
from servegen_gpu.backends.native.build import BuildError
from servegen_gpu.errors import OptionError

Rows = Iterator[dict[str, Any]]
BUDGET_BYTES = 16e9
"""Of device memory, for a trace."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    clients: int = CLIENTS
    copy_bytes: int = 1 << 30
    draws: int = 1 << 24
    draw_rounds: int = 64
    gather_bits: tuple[int, ...] = (16, 23)
    sorts: tuple[int, ...] = (1 << 27, 1 << 30)
    disk_bytes: int = 1 << 32
    encode_rows: int = 4_000_000
    ticks: int = 1 << 20
    rows: float = 2e6
    large_rows: float = 1e8
    disk_rows: float = 2e8
    times: int = 3


TINY = Sizes(
    clients=20, copy_bytes=1 << 16, draws=1 << 8, draw_rounds=2, gather_bits=(4, 6), sorts=(1 << 8, 1 << 10),
    disk_bytes=1 << 16, encode_rows=1000, ticks=2000, rows=2e4, large_rows=3e4, disk_rows=2e4, times=2,
)  # fmt: skip

PARTS: dict[str, Callable[[Look], Rows]] = {
    "system": lambda look: iter([surroundings(look.device)]),
    "ticks": ticks,
    "rows": rows,
    "large": large,
    "jax": jax,
    "traces": traces,
    "host": host,
    "to_disk": to_disk,
    "baselines": baselines,
    "devices": devices,
    "copies": copies,
    "draws": draws,
    "sorts": sorts,
    "disk": disk,
}


class Look:
    """The device, the options, and how things are timed."""

    def __init__(self, device: CudaDevice, options: argparse.Namespace) -> None:
        self.device, self.cp, self.options = device, device.xp, options
        self.requests = options.requests
        self.sizes = TINY if options.tiny else Sizes()

    def workload(
        self, name: str, requests: float | None = None, counts: str = "auto", stay: bool = False, device: Any = None
    ) -> sg.Workload:
        """One of the workloads that figures are of, in the budget, for the device."""
        made = workload(name, requests or self.requests, counts, self.sizes.clients)
        chosen = CupyBackend([device or self.device], stay)
        most = int(BUDGET_BYTES / chosen.bytes_per_request(made.packed.schema.category))
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

    def free(self) -> None:
        """Give back the memory that no array uses."""
        self.cp.get_default_memory_pool().free_all_blocks()
        self.device.release()


def surroundings(device: CudaDevice) -> dict[str, Any]:
    """Device, driver, versions, commit."""
    runtime = device.xp.cuda.runtime
    try:
        compiler = cuda_sort.nvcc()
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")
        nvcc = next((line.strip() for line in said if "release" in line), "unknown")
    except (BuildError, OSError) as error:
        nvcc = str(error)
    versions = {name: "absent" for name in ("torch", "jax", *cuda_driver.cupy_packages())}
    for name in versions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    here = machine()
    return here | versions | {
        "commit": os.environ.get("SERVEGEN_GPU_COMMIT", here["commit"]),
        "devices": [device.name_of(number) for number in cuda_driver.chosen_devices(device.xp)],
        "device_memory": runtime.memGetInfo()[1],
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": device.xp.__version__,
        "nvcc": nvcc,
        "backend": device.describe(),
    }  # fmt: skip


def run(name: str, options: argparse.Namespace) -> int:
    """A part; whatever happens to it is in the rows."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with open(options.folder / "rows.jsonl", "a") as file:

        def write(row: dict[str, Any]) -> None:
            text = json.dumps({"part": name} | row)
            print(text, flush=True)
            file.write(text + "\n")
            file.flush()

        begun = time.monotonic()
        try:
            device = open_device(None)
            with device.current():
                wrong = False
                for row in PARTS[name](Look(device, options)):
                    write(row)
                    wrong |= row.get("equal") is False or "failed" in row
            write({"seconds": round(time.monotonic() - begun, 1)} | ({"failed": "see above"} if wrong else {}))
        except Exception as error:
            write({"seconds": round(time.monotonic() - begun, 1), "failed": f"{type(error).__name__}: {error}"[:500]})
            return 2 if isinstance(error, OptionError) else 1
        return int(wrong)


def summary(folder: Path) -> int:
    """What there is, in short; the rows as one JSON file."""
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        lines = (folder / "rows.jsonl").read_text().splitlines()
    except OSError as error:
        print(f"device_check: no rows in {folder}: {error.strerror}", file=sys.stderr)
        return 2
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a part that was ended in the middle of a line
            continue
        found.setdefault(row.pop("part"), []).append(row)
    system = found.get("system", [{}])[0]
    (folder / "device.json").write_text(
        in_lines({"machine": system} | {name: of for name, of in found.items() if name != "system"})
    )
    for name, rows_of_part in found.items():
        for row in rows_of_part:
            shown = {key: f"{value:,.4g}" if isinstance(value, float) else value for key, value in row.items()}
            print(f"{name:10}", ", ".join(f"{key} {value}" for key, value in shown.items() if key != "all_seconds"))
    failed = [name for name, rows_of_part in found.items() if any("failed" in row for row in rows_of_part)]
    print("failed: " + ", ".join(failed) if failed else "every part passed")
    return int(bool(failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a part: 2 without a device, 1 if it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "summary", "ended"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=float, default=1e9)
    parser.add_argument("--disk", type=Path, default=None, help="directory for what is written to disk")
    parser.add_argument("--tiny", action="store_true", help="whether it runs; figures mean nothing")
    parser.add_argument("--name", help="of the part that ended with a status of its own")
    parser.add_argument("--status", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.part == "summary":
        return summary(options.folder)
    if options.part == "ended":
        row = {"part": options.name, "failed": "took too long" if options.status in (124, 137) else f"{options.status}"}
        with open(options.folder / "rows.jsonl", "a") as file:
            file.write("\n" + json.dumps(row) + "\n")  # the part may have been ended in the middle of a line
        return 0
    return run(options.part, options)


if __name__ == "__main__":
    sys.exit(main())
