"""Where the data is, on what machine we are, and how a child process is measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the commit that figures name is this tree's, installed or not
BESIDE = REPOSITORY.parent / "shared" / "data" / "servegen"


def data_dir() -> Path | None:
    """ServeGen's released data: ``$SERVEGEN_DATA``, or beside the repository."""
    return _existing(os.environ.get("SERVEGEN_DATA") or BESIDE)


def m_large_dir() -> Path | None:
    """A data directory with ``language/m-large`` in it: ``$SERVEGEN_M_LARGE``."""
    return _existing(os.environ.get("SERVEGEN_M_LARGE"))


def checkout_dir() -> Path | None:
    """A checkout of alibaba/ServeGen: ``$SERVEGEN_CHECKOUT``."""
    return _existing(os.environ.get("SERVEGEN_CHECKOUT"))


def _existing(path: str | Path | None) -> Path | None:
    return Path(path).resolve() if path and Path(path).is_dir() else None


def need(path: Path | None, what: str) -> Path:
    """The path, or the end of a script that cannot do without."""
    if path is None:
        sys.exit(f"no {what}: see bench/README.md")
    return path


def machine() -> dict[str, Any]:
    """What the figures were measured on; no host names."""
    return {
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "scipy", "pyarrow")},
        "commit": commit(REPOSITORY),
    }


def commit(directory: Path) -> str:
    """The commit checked out in a directory, marked if the package was changed since."""
    git = ("git", "-C", str(directory))
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "servegen_gpu"], check=False).returncode
    return head.stdout.strip() + ("-dirty" if changed else "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The processor's name, with family and model: cloud machines often hide the rest."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{fields.get('model name', '?')}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


@dataclass(frozen=True)
class Finished:
    """A child process after its end."""

    output: str
    wall_s: float
    cpu_s: float
    peak_mb: float

    def json(self) -> Any:
        """The last line of the output, which must be JSON."""
        return json.loads(self.output.strip().splitlines()[-1])


def child(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command in a process of its own; time and peak memory are its alone."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=os.environ | dict(env or {}), stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"exit status {process.returncode} of {' '.join(command)}")
        output.seek(0)
        text = output.read().decode()
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(text, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def ours() -> dict[str, str]:
    """Environment of a child that imports this tree."""
    return {"PYTHONPATH": str(REPOSITORY)}


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """A result, and the seconds it took: of the clock, and of all processors together."""
    begun, used = time.perf_counter(), time.process_time()
    made = work()
    return made, {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - used}


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option ``--json``."""
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the figures here")


def write_json(path: Path | None, results: Mapping[str, Any]) -> None:
    """Figures with the machine they are from."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(in_lines({"machine": machine(), **results}))


def in_lines(results: Mapping[str, Any]) -> str:
    """JSON with a line for every entry, and for every item of a list of objects: a line is a benchmark."""
    entries = []
    for name, value in results.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        entries.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"
