"""A trace in parts: the bytes of shares, records, a manifest, and what is said where something does not fit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from parts import KEYWORDS, SIZES, N, contents, generate, slurm

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.distributing import distribute
from servegen_gpu.distributing.job import Job
from servegen_gpu.distributing.on_ray import in_order
from servegen_gpu.formats.checked import MOST_BYTES
from servegen_gpu.formats.parted import MANIFEST, MOST_PARTS, part_name
from servegen_gpu.formats.store import Entry, Remote, store_at


@pytest.fixture(scope="module")
def pool() -> sg.ClientPool:
    return sg.population("deepseek-r1", clients=40)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace in parts, which no test changes."""
    path = tmp_path_factory.mktemp("made") / "out"
    assert generate(path, "--parts", str(N)) == 0
    return path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--hash-ids", "64"), ("--max-input", "50000")], ids=str)
@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-omni"])
def test_parts_are_shares_and_join_to_the_whole(more: tuple[str, ...], workload: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generate(out, "--parts", str(N), *more, workload=workload) == 0
    assert generate(tmp_path / "whole.parquet", *more, workload=workload) == 0
    assert generate(tmp_path / "share.parquet", "--shard", f"2/{N}", *more, workload=workload) == 0
    assert main(["join", str(out), "-o", str(tmp_path / "joined.parquet"), "--quiet"]) == 0
    assert (tmp_path / "joined.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert (out / "part-00001.parquet").read_bytes() == (tmp_path / "share.parquet").read_bytes()
    assert [file.name for file in sorted(out.iterdir())] == [MANIFEST, "_parts", *(part_name(k, N) for k in range(N))]


def test_one_part_is_a_trace_in_parts(pool: sg.ClientPool, tmp_path: Path) -> None:
    for made in (1, 0):  # and is there, then
        found = sg.distributed(pool, tmp_path / "out", 1, **KEYWORDS)
        assert (found.made, found.finished, found.complete) == (made, 1, True)
    assert sg.read_trace(tmp_path / "out").digest() == sg.generate(pool, **KEYWORDS).digest()


def test_readers_take_it_for_one_trace(
    made: Path, pool: sg.ClientPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, read = sg.generate(pool, **KEYWORDS), sg.read_trace(made)
    assert read.provenance == whole.provenance
    assert read.digest() == whole.digest()
    assert (read.first_row, read.schema()) == (0, whole.schema())
    assert main(["inspect", str(made)]) == 0
    assert f"{len(whole):,} in 1,200 s" in capsys.readouterr().out
    assert duckdb.sql(f"select count(*) from '{made}/*.parquet'").fetchall() == [(len(whole),)]
    assert pl.scan_parquet(made / "*.parquet").select(pl.len()).collect().item() == len(whole)


def test_the_command_says_of_parts_what_it_says_of_a_file(
    copy: Path, pool: sg.ClientPool, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "deepseek-r1", *SIZES, "--parts", str(N), "-o", str(copy)]
    assert main(command) == 0
    said = capsys.readouterr()
    whole = sg.generate(pool, **KEYWORDS)
    assert f"{copy}: {len(whole):,} requests" in said.out
    assert "  workload  deepseek-r1 (built-in), 40 clients\n" in said.out
    assert f"  span      20 min, {len(whole) / 1200:.4g} requests/s\n" in said.out
    assert f"  digest    {whole.digest()}\n" in said.out
    assert "all parts were there" in said.err
    (copy / part_name(1, N)).unlink()
    assert main(command) == 0
    assert "all parts were there" not in capsys.readouterr().err


def test_the_manifest_says_what_is_there(made: Path, pool: sg.ClientPool) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    whole = sg.generate(pool, **KEYWORDS)
    assert (manifest["rows"], manifest["digest"]) == (len(whole), whole.digest().hex)
    assert manifest["size"] == sum(path.stat().st_size for path in made.glob("*.parquet"))
    assert [part["name"] for part in manifest["parts"]] == [path.name for path in sorted(made.glob("*.parquet"))]
    words = (made / MANIFEST).read_text()
    assert str(made) not in words
    assert not {"backend", "host", "time", "mark"} & {*manifest, *manifest["workload"]["provenance"]}


@pytest.mark.parametrize(
    "tasks",
    [
        [{"SLURM_ARRAY_TASK_ID": i, **slurm(5, 9, 2)} for i in "759"],
        [{"JOB_COMPLETION_INDEX": i} for i in "120"],
        [{"OMPI_COMM_WORLD_RANK": i, "OMPI_COMM_WORLD_SIZE": "2"} for i in "10"],
    ],
    ids=["slurm", "kubernetes", "open-mpi"],
)
def test_tasks_of_a_scheduler_end_in_the_same_bytes(
    tasks: list[dict[str, str]],
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    slurm = "SLURM_ARRAY_TASK_ID" in tasks[0]
    for i, task in enumerate(tasks):
        for name, value in (
            task | ({"SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "3"} if slurm else {})
        ).items():
            monkeypatch.setenv(name, value)
        assert (
            main(
                [
                    "generate",
                    "deepseek-r1",
                    *SIZES,
                    "-o",
                    f"{out}/",
                    "--shard",
                    "auto",
                    *([] if slurm else ["--parts", "3"]),
                ]
            )
            == 0
        )
        said = capsys.readouterr().out
        assert ("parts are finished" in said) == (i < len(tasks) - 1)
    assert "digest " in said
    assert contents(out) == contents(made)


def test_processes_end_in_the_same_bytes(made: Path, pool: sg.ClientPool, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    found = sg.distributed(pool, tmp_path / "out", N, workers=2, progress=lambda *at: told.append(at), **KEYWORDS)
    assert contents(tmp_path / "out") == contents(made)
    assert [at[:2] for at in told] == [(1, N), (2, N), (3, N)]
    assert (found.rows, found.made, found.complete) == (told[-1][2], N, True)


def test_a_file_that_another_process_renames_hides_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing of a directory and the look at its files."""
    temporary = tmp_path / ".servegen-0badcafe-1-0badcafe.tmp"
    for file in (tmp_path / "00000.json", temporary):
        file.write_text("{}")
    listed = os.scandir

    @contextlib.contextmanager
    def then_renamed(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with listed(path) as found:
            files = list(found)
        temporary.unlink()
        yield files

    monkeypatch.setattr(os, "scandir", then_renamed)
    assert store_at(tmp_path).files() == {"00000.json": Entry(2)}


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "files"])
def test_a_store_has_the_bytes_of_a_directory(objects: bool, made: Path, pool: sg.ClientPool, tmp_path: Path) -> None:
    """Of fsspec's own: memory, whose files are there at once, and a disk, where they are moved."""
    fsspec = pytest.importorskip("fsspec")
    if objects:
        url = f"memory://{tmp_path.name}/out"
        found = sg.distributed(pool, url, N, **KEYWORDS)
        there = store_at(url)
        assert {name: there.read([name])[name] for name in there.files()} == {
            name: data for name, data in contents(made).items() if "/" not in name
        }
        assert sg.read_trace(url).digest().hex == found.digest
        there.write("large", bytes(MOST_BYTES + 2))
        assert len(there.read(["large"])["large"]) == MOST_BYTES + 1
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
        return
    disk = Remote("disk://out", fsspec.filesystem("file"), str(tmp_path / "out"), objects=False)
    for name, data in contents(made).items():
        with disk.new(name) as path:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    disk.write("_parts/more", b"more")

    def half() -> None:
        with disk.new("part-00003.parquet") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert contents(tmp_path / "out") == contents(made) | {"_parts/more": b"more"}


def test_nothing_half_is_left_where_a_store_fails(tmp_path: Path) -> None:
    local = pytest.importorskip("fsspec").filesystem("file")

    class Full(type(local)):  # type: ignore[misc]
        def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
            super().pipe_file(path, value[:3])
            raise OSError("no space")

    disk = Remote("disk://out", Full(), str(tmp_path / "out"), objects=False)
    with pytest.raises(sg.OutputError, match="expected a store that can be written, got OSError: no space: disk://out"):
        disk.write("_parts/workload.json", b"a workload")
    assert contents(tmp_path / "out") == {}


# -- going on ----------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_made(copy: Path, made: Path, pool: sg.ClientPool) -> None:
    (copy / "part-00001.parquet").unlink()
    (copy / "_parts" / "00002.json").unlink()
    kept = (copy / "part-00000.parquet").stat().st_mtime_ns
    assert sg.distributed(pool, copy, N, **KEYWORDS).made == 2
    assert contents(copy) == contents(made)
    assert (copy / "part-00000.parquet").stat().st_mtime_ns == kept
    assert sg.distributed(pool, copy, N, **KEYWORDS).made == 0


def test_an_interrupted_run_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, out = Job.make, tmp_path / "out"
    left = out / "_parts" / ".servegen-0badcafe-1-0badcafe.tmp"  # of a record that was being written

    def stopped(job: Job, k: int) -> Any:
        if k == 2:
            left.write_text("{")
            raise KeyboardInterrupt
        return make(job, k)

    monkeypatch.setattr(Job, "make", stopped)
    said = f"2 of 3 parts are finished in {out}: run the same command to go on\n"
    assert generate(out, "--parts", "3") == 130
    assert capsys.readouterr().err.endswith(said)
    with monkeypatch.context() as looking:  # at parts that are finished
        looking.setattr(distribute, "check_unchanged", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert generate(out, "--parts", "3") == 130
    assert capsys.readouterr().err.endswith(said)
    assert main(["join", str(out), "-o", str(tmp_path / "t.parquet")]) == 2
    assert "expected all 3 parts of a trace, got 2 in" in (refused := capsys.readouterr().err)
    assert "without part-00002.parquet; run the command that makes them once more" in refused
    monkeypatch.undo()
    left.unlink()
    assert generate(out, "--parts", "3") == 0
    assert contents(out) == contents(made)


def test_a_task_makes_its_part_although_others_were_changed(copy: Path, pool: sg.ClientPool) -> None:
    (copy / "part-00000.parquet").write_bytes(b"")
    (copy / "part-00001.parquet").unlink()
    (copy / MANIFEST).unlink()
    with pytest.raises(sg.OptionError, match=r"part-00000\.parquet"):
        sg.distributed(pool, copy, N, shard="2/3", **KEYWORDS)
    assert (copy / "part-00001.parquet").exists()
    assert not (copy / MANIFEST).exists()


def test_names_sort_as_parts_do() -> None:
    for parts in (1, 100, MOST_PARTS, 100_001):
        names = [part_name(k, parts) for k in (0, parts // 3, parts // 2, parts - 1)]
        assert names == sorted(names)
        assert len({len(name) for name in names}) == 1
    assert part_name(7, 8) == "part-00007.parquet"


def test_results_come_in_order_whenever_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """However tasks end, and with none taken before it is asked for."""
    taken: list[int] = []

    def tasks(function: Any, shared: Any, items: Any, workers: Any) -> Any:
        left = list(zip(range(2), items, strict=False))
        while left:
            _, item = left.pop()
            yield item, function(shared, item)
            left += [(0, item) for _, item in zip(range(1), items, strict=False)]

    def numbers() -> Any:
        for i in range(7):
            taken.append(i)
            yield i

    monkeypatch.setattr("servegen_gpu.distributing.on_ray.tasks", tasks)
    found = in_order(lambda a, b: a * b, 3, numbers(), None)
    assert not taken
    assert list(found) == [0, 3, 6, 9, 12, 15, 18]


def test_differences_are_named() -> None:
    there = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert distribute._differences(there, there) == []
    assert distribute._differences(there, {"a": {"b": 2, "c": [1, 2]}}) == ["b 1 there, 2 here"]
