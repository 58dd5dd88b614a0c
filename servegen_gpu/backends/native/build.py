"""Compiling the kernels for the CPU: into a wheel, or into the user's cache directory (`kept`).

    python -m servegen_gpu.backends.native.build

builds what a source tree without installation lacks. This module uses the standard library only and imports nothing
of its package: the build hook of the wheel loads it by path.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
SOURCES = ("*.h", "*.cpp")

COMMON = (
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",  # the law has no fused multiply-add
    "-fno-math-errno",
    "-fno-trapping-math",  # these two change no bit, and let a loop with a square root or a choice become vectors
    "-fPIC",
    "-fvisibility=hidden",
)
EXTENSIONS = {
    "baseline": (),
    "avx2": ("-mavx2",),
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"),
}
"""Flags of each vector extension; the same bits come out of all."""


class BuildError(Exception):
    """The kernels could not be compiled.

    Parameters
    ----------
    why, fix : str
        What went wrong and what to do.
    """

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why, fix)
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.why}; {self.fix}"


def kernels_dir() -> Path:
    """Where the sources are: in the package of a wheel, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


def library_name(kernels: Path) -> str:
    """File name of the library made of these sources, for this kind of machine: an outdated one is never found."""
    content = hashlib.sha256(repr((platform.machine(), sys.platform, COMMON, EXTENSIONS)).encode())
    for source in sorted(path for pattern in SOURCES for path in kernels.glob(pattern)):
        content.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"_native-{content.hexdigest()[:16]}{SUFFIX}"


@functools.cache
def own_name() -> str:
    """The name of the library of our own sources, which are read once: every workload asks for it."""
    return library_name(kernels_dir())


def compiler() -> list[str]:
    """The C++ compiler and its first arguments: ``$CXX``, or the first of c++, g++ and clang++."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for candidate in [wanted] if wanted else [["c++"], ["g++"], ["clang++"]]:
        if found := shutil.which(candidate[0]):
            return [found, *candidate[1:]]
    raise BuildError(
        f"no C++ compiler ({f'CXX is {shlex.join(wanted)}' if wanted else 'neither c++, g++ nor clang++ is there'})",
        "install one, or set CXX",
    )


def compile_library(kernels: Path, target: Path) -> None:
    """Compile `kernels` into `target`, which appears only when complete."""
    cxx = compiler()
    machine = run([*cxx, "-dumpmachine"]).partition("-")[0]
    x86 = machine in ("x86_64", "amd64")
    flags = [*COMMON, *(["-DSG_X86"] if x86 else [])]
    extensions = EXTENSIONS if x86 else {"baseline": ()}
    with tempfile.TemporaryDirectory(prefix="servegen_gpu-", dir=target.parent) as folder:
        objects = [str(Path(folder, f"{name}.o")) for name in (*extensions, "native")]
        commands = [
            [*cxx, *flags, *own, f"-DSG_NAMESPACE={name}", "-c", str(kernels / "strips.cpp")]
            for name, own in extensions.items()
        ]
        commands.append([*cxx, *flags, "-c", str(kernels / "native.cpp")])
        for command, output in zip(commands, objects, strict=True):
            run([*command, "-o", output])
        linked = Path(folder, f"linked{SUFFIX}")
        run([*cxx, "-shared", "-pthread", *objects, "-o", str(linked)])
        place(linked, target)


def place(library: Path, target: Path) -> None:
    """Copy a library to where it belongs, at once; processes that use an older one keep it."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(library, partial)
        os.replace(partial, target)
    except OSError as error:
        raise BuildError(f"{target.parent} cannot be written ({error.strerror})", "change its permissions") from None


def run(command: list[str], fix: str = "set CXX to a C++17 compiler") -> str:
    """What a command prints; `fix` says what to do if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run ({error.strerror})", fix) from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200]).strip()
        what = next((Path(word).name for word in command if word.endswith((".cpp", ".cu"))), command[-1])
        raise BuildError(f"{command[0]} failed on {what}: {said.strip() or 'no reason given'}", fix)
    return done.stdout


def main() -> int:
    """Build into the cache directory and say where."""
    from servegen_gpu.backends.native.kept import build_into
    from servegen_gpu.cache_dir import cache_dir

    try:
        print(build_into(cache_dir()))  # noqa: T201
    except BuildError as error:
        print(f"servegen-gpu: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
