"""An environment for each consumer, in a cache: pinned packages, and single files of wheels too big to install."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).parent / "pins"


class NotInstalledError(Exception):
    """What an environment needs is not to be had here; the message says what."""


@dataclass(frozen=True)
class Environment:
    """What a consumer needs.

    Attributes
    ----------
    name : str
        Packages are those of ``pins/NAME.txt``, if there is one, and nothing besides. Empty: none, and no Python.
    program : str
        Has to be on the path.
    cut : tuple of str
        A requirement with one pin, and the file of its wheel that is wanted, beside the environment's packages.
    python : tuple of int
        Oldest version, where one is there.
    """

    name: str
    program: str = ""
    cut: tuple[str, str] = ("", "")
    python: tuple[int, int] = (3, 11)

    @property
    def pins(self) -> Path:
        return PINS / f"{self.name}.txt"


def ready(environment: Environment, cache: Path, limit_s: float) -> tuple[Path, bool]:
    """The interpreter of an environment, and whether it had to be made.

    Raises
    ------
    NotInstalledError
        If a program is missing, or pip cannot install a package.
    """
    if environment.program and not shutil.which(environment.program):
        raise NotInstalledError(f"no {environment.program} on the path")
    if not environment.name:
        return Path(), False
    python, version = _interpreter(environment.python)
    pins = environment.pins.read_text(encoding="utf-8") if environment.pins.exists() else ""
    key = hashlib.sha256("\n".join((version, pins, *environment.cut)).encode()).hexdigest()[:12]
    home = cache / f"{environment.name}-{key}"
    interpreter = home / "bin" / "python"
    with _locked(cache / f"{home.name}.lock"):
        if (home / "complete").exists():
            return interpreter, False
        shutil.rmtree(home, ignore_errors=True)
        _make(environment, python, home, time.monotonic() + limit_s)
        (home / "complete").touch()
    return interpreter, True


def _make(environment: Environment, python: str, home: Path, deadline: float) -> None:
    _run([python, "-m", "venv", "--without-pip", home], deadline)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if environment.pins.exists():
        install = [*pip, "--python", home / "bin" / "python", "install", "--quiet", "--no-compile", "--no-deps"]
        # pyspark alone comes without a wheel; others without one for this Python are not to be built for minutes
        wheels = ["--only-binary=:all:", "--no-binary=pyspark"]
        _run([*install, *wheels, "--ignore-requires-python", "--requirement", environment.pins], deadline)
    requirement, member = environment.cut
    if requirement:
        with tempfile.TemporaryDirectory(dir=home) as folder:
            # the wheel of one platform anywhere: nothing of it is run but one file of Python
            options = ["--only-binary=:all:", "--python-version=3.11", "--no-deps", "--no-cache-dir", "--quiet"]
            platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 34)]
            _run([*pip, "download", *options, *platforms, "--dest", folder, requirement], deadline)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (home / "cut.py").write_bytes(archive.read(member))


def _run(command: list[str | Path], deadline: float) -> None:
    limit_s = max(deadline - time.monotonic(), 1)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"not installed within {limit_s:.0f} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalledError(errors[-1] if errors else f"{command} ended with {done.returncode}")


def _interpreter(oldest: tuple[int, int]) -> tuple[str, str]:
    """A Python of that version or later, if there is one, else this one; and its version."""
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info[:2] >= oldest:
        return sys.executable, mine
    for minor in range(oldest[1], oldest[1] + 3):
        name = f"{oldest[0]}.{minor}"
        installed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{name}.*/bin/python"))
        for candidate in (f"python{name}", *map(str, installed)):
            ask = [candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
            try:
                done = subprocess.run(ask, capture_output=True, text=True, check=False)
            except OSError:
                continue
            if done.stdout.strip() == name:
                return candidate, name
    return sys.executable, mine


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two runs at once make an environment once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
