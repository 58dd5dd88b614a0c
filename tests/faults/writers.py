"""Everything that this package writes, small: each writer, for `kills`."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import servegen_gpu as sg
from servegen_gpu import Trace

ROWS = 3000


@dataclass(frozen=True)
class Writer:
    """A writer.

    Attributes
    ----------
    name : str
    write : callable
        ``write(folder, version)`` writes into a folder; versions 0 and 1 differ.
    read : callable
        Reads what is there, if anything is, as a user would.
    together : bool
        All files are of one run, at any moment.
    """

    name: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], object]
    together: bool = True


def trace(version: int) -> Trace:
    """A trace of its version, with as many bytes as the other in most formats."""
    rng = np.random.default_rng(version)
    return Trace(
        {
            "arrival_us": np.sort(rng.integers(10**9, 2 * 10**9, ROWS)),
            "client": rng.integers(0, 9, ROWS, np.int32),
            "input_tokens": rng.integers(100, 999, ROWS, np.int32),
            "output_tokens": rng.integers(100, 999, ROWS, np.int32),
        },
        {"version": version},
    )


def file(name: str, format: str | None = None) -> Writer:
    """A trace in one file, which may have others beside it."""

    def read(folder: Path) -> None:
        if (folder / name).exists():
            found = sg.read_trace(folder / name)
            assert len(found) == ROWS
            assert any((found["input_tokens"] == trace(v)["input_tokens"]).all() for v in (0, 1))

    return Writer(format or name.removeprefix("t."), lambda folder, v: trace(v).write(folder / name, format), read)


def parts() -> Writer:
    """A trace in a directory; version 0 has more parts."""
    from servegen_gpu.formats import write_stream

    def write(folder: Path, version: int) -> None:
        write_stream([trace(version)], f"{folder}/out/", part_rows=1000 + 500 * version)

    def read(folder: Path) -> None:
        if (folder / "out").exists():
            assert len(sg.read_trace(folder / "out")) == ROWS

    return Writer("parts", write, read)


def profile() -> Writer:
    """Clients as a directory; the versions have different files."""

    def write(folder: Path, version: int) -> None:
        pool = sg.pool([sg.client(rate=1.0, input_tokens={64: 1, 512: 3}, output_tokens={8: 1}, count=2 + version)])
        pool.save(folder / "mine", layout=("packed", "auto")[version])

    def read(folder: Path) -> None:
        if (folder / "mine").exists():
            sg.load_profile(folder / "mine")

    return Writer("profile", write, read)


def study() -> Writer:
    """A study in Parquet."""
    from servegen_gpu.studies.file import read_study, write_study

    def write(folder: Path, version: int) -> None:
        import pandas as pd

        write_study(folder / "s.parquet", "montecarlo", {"n": version}, pd.DataFrame({"x": np.arange(9.0) + version}))

    def read(folder: Path) -> None:
        if (folder / "s.parquet").exists():
            read_study(folder / "s.parquet")

    return Writer("study", write, read)


def report() -> Writer:
    """A page, whose pictures would take most of the time."""
    from servegen_gpu.reporting import report as module

    def write(folder: Path, version: int) -> None:
        module._trace_page = lambda *_: "<!DOCTYPE html>" + f"{version}" * 300_000 + "<footer>servegen_gpu 0"
        sg.report(trace(version), folder / "page.html")

    return Writer("report", write, lambda folder: None)


def compared() -> Writer:
    """Everything that ``compare`` writes: four files, each for itself."""
    from servegen_gpu.cli import compare as command
    from servegen_gpu.cli import main

    def write(folder: Path, version: int) -> None:
        texts = {
            ".json": '{\n  "rows": [\n    {\n      "name": "' + f"{version}" * 99_000,
            ".svg": f'<svg role="img" aria-labelledby="title desc" font-family="sans-serif" font-size="12">{version}',
            ".csv": f"name,label,unit,group,kind,log,{version}\n",
            ".txt": f"log    a: {version}\nother  b\n",
        }
        command._as = lambda _, suffix: texts[suffix]
        compared_as = [word for suffix in texts for word in ("-o", str(folder / f"c{suffix}"))]
        from servegen_gpu.comparing import compare as module

        module.compare = lambda *_, **__: _Nothing()
        with redirect_stdout(io.StringIO()):
            assert main(["compare", "a.csv", "b.csv", "--quiet", "--json", *compared_as]) == 0

    return Writer("compare", write, lambda folder: None, together=False)


class _Nothing:
    def to_json(self, indent: int) -> str:
        return ""


def arrays() -> Writer:
    """What caches and packed workloads are written as."""
    from servegen_gpu.arrays import load_arrays, save_arrays

    def write(folder: Path, version: int) -> None:
        save_arrays(folder / "a.npz", {"version": version}, {"x": np.arange(50_000) + version})

    def read(folder: Path) -> None:
        if (folder / "a.npz").exists():
            load_arrays(folder / "a.npz")

    return Writer("arrays", write, read)


def library() -> Writer:
    """A library of the cache: made again where it is not whole."""
    from servegen_gpu.backends.native.kept import is_whole, keep, locked

    def write(folder: Path, version: int) -> None:
        source = folder.parent / f"source-{version}"
        source.write_bytes(bytes([version]) * 100_000)
        with locked(folder):
            keep(source, folder / "lib.so")

    def read(folder: Path) -> None:
        assert not (folder / "lib.so").exists() or is_whole(folder / "lib.so")

    return Writer("library", write, read)


def spill() -> Writer:
    """Turns that wait in files."""
    from servegen_gpu.conversations.carry import Carry

    def write(folder: Path, version: int) -> None:
        time_us = np.arange(10**9, 10**9 + 6000, 2) + version
        rows: dict[str, Any] = {"arrival_us": time_us, "conversation": np.arange(3000), "turn": np.ones(3000, int)}
        with Carry(100, 2000) as carry:
            carry.add(rows)
            found = [carry.due(10**9 + until) for until in (2000, 4000)] + [carry.due(None)]
        columns = {name: np.concatenate([part[name] for part in found if part is not None]) for name in rows}
        Trace.trusted(columns, {"version": version}).write(folder / "t.parquet")

    return Writer("spill", write, lambda folder: None)


WRITERS = (
    *(file(f"t.{suffix}") for suffix in ("parquet", "csv", "jsonl", "csv.gz", "jsonl.zst")),
    file("t.mooncake.jsonl", "mooncake"),
    file("t.blis.csv", "blis"),
    parts(),
    profile(),
    study(),
    report(),
    compared(),
    arrays(),
    library(),
    spill(),
)


def warm() -> None:
    """Import what writers need, so that children need not."""
    import matplotlib.figure  # noqa: F401
    import pandas as pd  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from servegen_gpu import exports  # noqa: F401
    from servegen_gpu.cli import compare, fit, generate, montecarlo, report  # noqa: F401
    from servegen_gpu.formats.reading import foreign  # noqa: F401
