"""Small ids: the same in any slabs, equal where ids were equal, and numbered as they appear."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import same

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.prefixes import dense
from servegen_gpu.prefixes.dense import Numbering
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

IDS = {"system_tokens": 100}


def numbered(values: np.ndarray) -> list[int]:
    """0, 1, 2, … in order of appearance, by a dict."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(value, len(numbers)) for value in values.tolist()]


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Conversations and requests that stand alone."""
    made = sg.generate(sg.population("deepseek-r1", clients=30), rate=5, duration="10m", seed=3)
    assert (made["conversation"] < 0).sum() > 100
    assert 1000 < len(made) < 10_000
    return made


def cut(trace: Trace, seed: int, pieces: int = 12) -> list[Trace]:
    ends = np.sort(np.random.default_rng(seed).integers(0, len(trace) + 1, pieces))
    return [trace.rows(lo, hi) for lo, hi in itertools.pairwise([0, 0, *ends.tolist(), len(trace)])]


def clustered(n: int) -> np.ndarray:
    """Ids that all begin to look for their places at the first one."""
    inverse = pow(int(dense.GOLDEN), -1, 2**64)
    return np.array([k * inverse % 2**64 for k in range(n)], np.uint64).view(np.int64)


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(0, np.int64),
        np.random.default_rng(1).integers(0, 2**63 - 1, 300_000),
        np.random.default_rng(2).integers(-(2**63), 2**63 - 1, 3000),
        np.random.default_rng(3).integers(-50, 50, 3000),
        np.random.default_rng(4).zipf(1.3, 100_000),
        np.tile(np.arange(70_000)[::-1], 3),
        np.tile(clustered(300), 2),
    ],
    ids=["none", "random", "signed", "few", "skewed", "repeated", "clustered"],
)
@pytest.mark.parametrize("calls", [1, 7])
def test_numbers_are_in_order_of_appearance(ids: np.ndarray, calls: int):
    numbering = Numbering()
    got = [numbering.of(part) for part in np.array_split(ids, calls)]
    assert np.concatenate(got).tolist() == numbered(ids)
    assert numbering.count == len(np.unique(ids))


def test_a_stream_has_the_dense_ids_of_the_whole(trace: Trace, monkeypatch):
    whole = trace.with_hash_ids(64, dense=True, **IDS)
    assert whole["hash_ids"].values.tolist() == numbered(trace.with_hash_ids(64, **IDS)["hash_ids"].values)
    monkeypatch.setattr("servegen_gpu.prefixes.PIECE_BLOCKS", 500)
    monkeypatch.setattr(dense, "PIECE", 100)
    for seed in range(3):
        pieces = list(sg.hash_slabs(cut(trace, seed), 64, dense=True, **IDS))
        assert same(Trace.concat(pieces), whole)
        assert pieces[0].provenance == whole.provenance
    apart = [sg.hash_slabs([piece], 64, dense=True, **IDS) for piece in cut(trace, 0)]
    assert not same(Trace.concat([piece for pieces in apart for piece in pieces]), whole)


def test_conversations_and_blocks_are_numbered_together(trace: Trace):
    hashed = trace.with_hash_ids(64, **IDS)
    small = hashed.with_dense_ids()
    for seed in range(3):
        assert same(Trace.concat(list(sg.dense_ids(cut(hashed, seed)))), small)
    assert list(small) == list(hashed)
    assert small.schema() == hashed.schema()
    assert small.provenance == {**hashed.provenance, "dense_ids": ["conversation", "hash_ids"]}
    assert all(hashed[name] is small[name] for name in hashed if name not in ("conversation", "hash_ids"))
    assert hashed.rows(0, 0).with_dense_ids().schema() == hashed.schema()
    old, new = hashed["conversation"], small["conversation"]
    assert new[old >= 0].tolist() == numbered(old[old >= 0])
    assert new[old < 0].tolist() == [-1 - at for at in range((old < 0).sum())]
    assert small["hash_ids"].values.tolist() == numbered(hashed["hash_ids"].values)


def test_ids_of_others_may_be_of_any_kind():
    blocks = np.array([-5, 7, 7, -5, 2**31 - 1], np.int32)
    other = Trace({"arrival_us": np.arange(2), "hash_ids": Ragged(np.array([0, 3, 5]), blocks)})
    assert other.with_dense_ids()["hash_ids"].values.tolist() == [0, 1, 1, 0, 2]


def test_what_has_no_ids_or_is_a_share_is_refused(trace: Trace):
    plain = Trace({"arrival_us": np.arange(3)})
    with pytest.raises(OptionError, match=r"conversation or hash_ids.*arrival_us.*--hash-ids"):
        plain.with_dense_ids()
    share = Trace(trace.columns, dict(trace.provenance) | {"shard": "2/3"})
    for call in (Trace.with_dense_ids, lambda t: list(sg.hash_slabs([t], dense=True))):
        with pytest.raises(OptionError, match="shard 2/3; join"):
            call(share)


GENERATE = ("generate", "deepseek-r1", "--clients", "30", "--rate", "5", "--duration", "10m", "--seed", "3")


def run(*arguments: Any) -> int:
    return main([str(a) for a in arguments])


def test_on_the_command_line(tmp_path: Path, trace: Trace, capsys):
    wanted = trace.with_hash_ids(64, **IDS).with_dense_ids()
    hashed = (*GENERATE, "--hash-ids", 64, "--system-tokens", 100)
    assert run(*hashed, "--ids", "dense", "--memory", "1MB", "-o", tmp_path / "a.jsonl") == 0
    assert same(sg.read_trace(tmp_path / "a.jsonl"), wanted)
    assert "32 to 64 bytes" in capsys.readouterr().err
    assert run(*hashed, "-o", tmp_path / "b.parquet", "--quiet") == 0
    assert run("join", tmp_path / "b.parquet", "--ids", "dense", "-o", tmp_path / "c.parquet", "--quiet") == 0
    assert same(sg.read_trace(tmp_path / "c.parquet"), wanted)
    assert run("scale", tmp_path / "b.parquet", "--to", "10m", "--ids", "dense", "-o", tmp_path / "d.csv") == 0
    assert same(sg.read_trace(tmp_path / "d.csv"), wanted)
    assert run(*GENERATE, "--shard", "1/2", "--ids", "dense", "-o", tmp_path / "e.csv") == 2
    assert "join the shares first" in capsys.readouterr().err
    assert run("generate", "m-small", "--ids", "dense", "--duration", "1m", "-o", tmp_path / "e.csv") == 2
    assert "--hash-ids" in capsys.readouterr().err
    assert not (tmp_path / "e.csv").exists()


def test_dense_ids_import_no_pandas(tmp_path: Path):
    code = (
        "import sys; from servegen_gpu.cli import main; status = main(sys.argv[1:]); "
        "sys.exit(status or [name for name in ('pandas', 'scipy') if name in sys.modules] or 0)"
    )
    arguments = [*GENERATE, "--hash-ids", "64", "--ids", "dense", "--quiet", "-o", tmp_path / "t.jsonl"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["conversation", "hash_ids"])
def test_numbers_survive_a_reader_of_doubles(tmp_path: Path, trace: Trace, name: str):
    """What JavaScript reads: every number a double."""
    later = {"conversation": trace["conversation"] + (2**62 + 1) * (trace["conversation"] >= 0)}
    hashed = Trace(trace.columns | later, trace.provenance).with_hash_ids(64, **IDS)
    for ids, survive in ((hashed, False), (hashed.with_dense_ids(), True)):
        ids.write(tmp_path / "t.jsonl")
        rows = [json.loads(line, parse_int=float)[name] for line in (tmp_path / "t.jsonl").read_text().splitlines()]
        column = ids[name].values if name == "hash_ids" else ids[name]
        assert (np.hstack(rows).astype(np.int64).tolist() == column.tolist()) is survive
