"""What is said where parts, records, arguments, schedulers, Ray or stores do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from parts import KEYWORDS, SIZES, N, contents, generate, slurm

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.distributing.schedulers import scheduled
from servegen_gpu.formats.parted import MANIFEST


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


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


CHANGED: dict[str, tuple[Any, str]] = {
    "a bit": (lambda out: flipped(out / "part-00001.parquet"), "of part-00001.parquet that its record in "),
    "the size": (
        lambda out: (out / "part-00001.parquet").write_bytes(b"PAR1"),
        "expected the bytes of part-00001.parquet that its record in ",
    ),
    "a part of another": (
        lambda out: shutil.copy(out / "part-00002.parquet", out / "part-00001.parquet"),
        "of part-00001.parquet that its record in ",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGED.values(), ids=CHANGED)
def test_a_part_that_was_changed_is_refused(
    change: Any, message: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy)
    before = contents(copy)
    for command in (
        ["generate", "deepseek-r1", *SIZES, "--parts", "3", "-o", str(copy)],
        ["join", str(copy), "-o", str(tmp_path / "t.parquet")],
        ["inspect", str(copy)],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "remove the file to have it made again; all other parts are kept" in error
        assert error.count("\n") == 1 + error.count("note: ")
    assert contents(copy) == before
    assert not (tmp_path / "t.parquet").exists()


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("_parts/00001.json", b"{", "_parts/00001.json as it was written, got JSONDecodeError"),
    "no record": ("_parts/00001.json", b"[]", "_parts/00001.json as it was written, got ValueError: no JSON object"),
    "no numbers": ("_parts/00001.json", b'{"rows": "1"}', "got ValueError: rows 1"),
    "brackets": ("_parts/00001.json", b"[" * 100_000, "00001.json as it was written, got ValueError: brackets"),
    "other numbers": ("_parts/00001.json", b"rows", "_parts/00001.json as it was written, got ValueError: changed"),
    "another workload": ("_parts/00001.json", b"", "expected a part of the workload in "),
    "no workload": ("_parts/workload.json", b'{"format": 1}', "expected a workload in format 1, got another in "),
    "another format": ("_parts/workload.json", b'{"format": 2}', "expected a workload in format 1, got another in "),
    "endless parts": (
        "_parts/workload.json",
        b'{"format": 1, "provenance": {}, "parts": 1e300}',
        "expected a workload in format 1, got another in ",
    ),
}


def canonical(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(("name", "data", "message"), BROKEN.values(), ids=BROKEN)
def test_a_record_that_is_none_is_refused(
    name: str, data: bytes, message: str, copy: Path, pool: sg.ClientPool
) -> None:
    if data in (b"", b"rows"):
        record = json.loads((copy / name).read_text())
        record |= {"rows": record["rows"] - 1} if data else {"workload": "0" * 64}
        del record["check"]
        record["check"] = "0" * 64 if data else hashlib.sha256(canonical(record).encode()).hexdigest()
        data = canonical(record).encode()
    (copy / name).write_bytes(data)
    (copy / MANIFEST).unlink()
    for work in (lambda: sg.distributed(pool, copy, N, **KEYWORDS), lambda: sg.read_trace(copy)):
        with pytest.raises(sg.OptionError) as caught:
            work()
        assert message in str(caught.value)


def test_a_manifest_that_is_none_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    for wrong in (b"{", b"[]", b"{}", *(json.dumps(manifest | {"parts": p}).encode() for p in ([], [{}] * 3, None))):
        (copy / MANIFEST).write_bytes(wrong)
        with pytest.raises(sg.OptionError):
            sg.read_trace(copy)


REFUSED: dict[str, tuple[str, str]] = {
    "no parts": ("--parts 0 -o new", "expected parts from 1 to 50,000, got 0; change parts"),
    "fewer": ("--parts -1 -o new", "expected parts as an integer from 0 to 50000, got -1"),
    "another number": (
        "--parts 4 -o out",
        "got another: parts 3 there, 4 here; give the same arg",
    ),
    "another seed": (
        "--parts 3 --seed 8 -o out",
        "seed 7 there, 8 here; give the same arguments, ",
    ),
    "another rate": ("--parts 3 --rate 4 -o out", "rps 3.0 there, 4.0 here"),
    "a file": ("--parts 3 -o t.parquet", "expected a directory, or the address of one, for parts, got 't.p"),
    "standard output": ("--parts 3 -o -", "expected a directory, or the address of one, for parts, got '-'"),
    "text": ("--parts 3 --format csv -o new", "expected parts in Parquet, got --format csv; make the parts, then: "),
    "dense ids": (
        "--parts 3 --ids dense -o new",
        "expected hashed ids in parts, which are made apart, got --ids dense",
    ),
    "a number of requests": (
        "--parts 3 --requests 9 -o new",
        "expected a trace in parts without requests, shard and dev",
    ),
    "other files": (
        "--parts 3 -o others",
        "expected a new or empty directory, or one with parts of the same trace, got ",
    ),
    "limits on later turns": (
        "--parts 3 --max-output 9 --over drop -o new",
        "expected limits on a whole trace with conversations, got shard 1/3, where earlier turns of a conversation may",
    ),
    "no directory": ("--parts 3 -o none/new", "expected an existing directory to write into"),
    "no worker": ("--parts 3 --workers 0 -o new", "expected one worker or more, got 0"),
    "workers alone": ("--workers 2 -o new", "expected --parts N with --workers, got --workers alone"),
    "ray alone": ("--on ray -o new", "expected --parts N with --on, got --on alone"),
    "no scheduler": (
        "--shard auto -o new",
        "expected a task of one scheduler with --shard auto, got none of SLURM_ARRAY",
    ),
    "too many shares": ("--parts 3 --shard 4/5 -o new", "expected a shard of 3 parts, got 4/5"),
    "no such share": ("--parts 3 --shard 4/3 -o new", "expected a shard like"),
    "a file in a store": (
        "-o s3://bucket/t.parquet",
        "expected a path of this machine for a file, got 's3",
    ),
    "the parts as a file": ("-o out/", "expected a directory without parts that were made apart, got a trace of --par"),
    "the same, whatever is there": ("-o out/ --overwrite", "give another path, or remove it first"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_said_in_a_sentence(
    arguments: str, message: str, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy.parent)
    Path("others").mkdir()
    Path("others/notes.txt").touch()
    before = contents(copy.parent)
    assert main(["generate", "deepseek-r1", *SIZES, "--quiet", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("servegen-gpu: error: expected ")
    assert error.count("\n") == 1
    assert contents(copy.parent) == before


@pytest.mark.parametrize(
    ("ray", "message"),
    [
        (None, r"expected Ray for on='ray', got no such package; pip install 'servegen-gpu\[ray\]'"),
        ("2.9.3", r"expected Ray 2.45 or later, got 2.9.3; pip install --upgrade 'ray>=2.45'"),
        ("1.13.0", "got 1.13.0"),
        ("", "got no version"),
    ],
)
def test_a_ray_that_is_missing_or_old(
    ray: str | None, message: str, copy: Path, pool: sg.ClientPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = None if ray is None else types.ModuleType("ray")
    if ray:
        module.__version__ = ray  # type: ignore[union-attr]
    monkeypatch.setitem(sys.modules, "ray", module)
    before = contents(copy)
    (copy / "part-00001.parquet").unlink()
    for work in (
        lambda: sg.distributed(pool, copy, N, on="ray", **KEYWORDS),
        lambda: sg.monte_carlo(pool, rate=3, on="ray"),
    ):
        with pytest.raises(sg.OptionError, match=message):
            work()
    assert contents(copy).items() < before.items()


def test_a_cluster_that_is_not_there(copy: Path, pool: sg.ClientPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told at once, before Ray tries for minutes."""
    module = types.ModuleType("ray")
    module.__version__, module.is_initialized = "2.50.0", lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", module)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (copy / "part-00001.parquet").unlink()
        for given in (address, f"ray://{address}"):
            monkeypatch.setenv("RAY_ADDRESS", given)
            with pytest.raises(sg.OptionError, match=rf"a Ray cluster, .*nobody listens at {given} .*; check RAY_"):
                sg.distributed(pool, copy, N, on="ray", **KEYWORDS)


def test_a_store_that_nobody_knows(pool: sg.ClientPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(sg.OptionError, match=r"expected fsspec for s3://, got no such package; pip install"):
        sg.distributed(pool, "s3://bucket/out", N, **KEYWORDS)


SLURM = slurm(0, 7)


@pytest.mark.parametrize(
    ("environment", "parts", "share"),
    [
        (SLURM | {"SLURM_ARRAY_TASK_ID": "0"}, None, (0, 8, 8)),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "7"}, 64, (7, 8, 64)),
        (
            SLURM | {"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"},
            None,
            (3, 4, 4),
        ),
        ({"JOB_COMPLETION_INDEX": "3"}, 4, (3, 4, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, None, (1, 2, 2)),
    ],
)
def test_schedulers_say_which_share(environment: dict[str, str], parts: int | None, share: tuple[int, ...]) -> None:
    assert scheduled(environment, parts) == share


@pytest.mark.parametrize(
    ("environment", "parts", "message"),
    [
        ({}, 4, "got none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and OMPI_COMM_WORLD_RANK in the environment"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "1", "JOB_COMPLETION_INDEX": "1"}, 4, "got SLURM_ARRAY_TASK_ID and JOB_COMPL"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, 4, "expected SLURM_ARRAY_TASK_MIN as a number, got nothing"),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "x"}, 4, "expected SLURM_ARRAY_TASK_ID as a number, got 'x'"),
        (
            SLURM | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "2"},
            4,
            "without gaps for --shard auto, got 2 t",
        ),
        (SLURM | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_STEP": "0"}, 4, "without gaps for --shard auto"),
        ({"JOB_COMPLETION_INDEX": "3"}, None, "expected --parts N with a Kubernetes job"),
        ({"JOB_COMPLETION_INDEX": "4"}, 4, "expected a task from 0 to 3, got JOB_COMPLETION_INDEX=4"),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "2"}, 4, "expected a task from 0 to 1"),
    ],
)
def test_schedulers_that_do_not_say(environment: dict[str, str], parts: int | None, message: str) -> None:
    with pytest.raises(sg.OptionError, match=message):
        scheduled(environment, parts)
