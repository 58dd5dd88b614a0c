"""``servegen-gpu join``: shares in files to the file that would be there without shares, byte for byte."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.cli import main
from servegen_gpu.formats import read_slabs, text
from servegen_gpu.formats.join import join_files

SIZES = ("--clients", "40", "--rate", "5", "--duration", "20m", "--warmup", "20m", "--seed", "7")
N = 4


def generate(path: Path | str, *more: str, workload: str = "deepseek-r1") -> None:
    assert main(["generate", workload, *SIZES, "--quiet", "-o", str(path), *more]) == 0


def contents(path: Path) -> dict[str, bytes]:
    """Files by name: of a directory, or one and what lies beside it."""
    files = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}*")
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-omni"])
@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t"])
def test_the_file_is_that_of_the_whole(
    name: str, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / which for which in ("shares", "whole", "joined")]
    for folder in folders:
        folder.mkdir()
    shares, whole, joined = folders
    generate(whole / name, workload=workload)
    parts = [shares / name.replace("t", f"share-{k}", 1) for k in range(1, N + 1)]
    for k, part in enumerate(parts, 1):
        generate(part, "--shard", f"{k}/{N}", workload=workload)
    monkeypatch.setattr(text, "BLOCK_BYTES", 10_000)  # read in many slabs
    assert main(["join", *map(str, reversed(parts)), "-o", str(joined / name)]) == 0
    assert "requests" in capsys.readouterr().out
    assert contents(joined / name) == contents(whole / name)
    trace = sg.read_trace(joined / name)
    assert trace.provenance["shard"] == "1/1"
    assert trace.first_row == 0
    assert len(trace) > 4000


def test_formats_may_differ(tmp_path: Path) -> None:
    generate(tmp_path / "whole.csv")
    for k, suffix in enumerate((".parquet", ".jsonl", "", ".csv"), 1):
        generate(tmp_path / f"s{k}{suffix}", "--shard", f"{k}/{N}")
    parts = [next(path for path in tmp_path.glob(f"s{k}*") if "provenance" not in path.name) for k in range(1, N + 1)]
    assert main(["join", *map(str, parts), "-o", str(tmp_path / "joined.csv"), "--quiet"]) == 0
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_blocks_of_prompts_are_kept(tmp_path: Path) -> None:
    ids = ("--hash-ids", "64")
    generate(tmp_path / "whole.parquet", *ids)
    for k in range(1, N + 1):
        generate(tmp_path / f"s{k}.parquet", *ids, "--shard", f"{k}/{N}")
    assert main(["join", *map(str, tmp_path.glob("s*.parquet")), "-o", str(tmp_path / "t.parquet"), "--quiet"]) == 0
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_joined_shares_can_be_rescaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(1, N + 1):
        generate(tmp_path / f"s{k}.parquet", "--shard", f"{k}/{N}")
    scale = ["scale", str(tmp_path / "s1.parquet"), "--factor", "2", "--quiet", "-o", str(tmp_path / "out.parquet")]
    assert main(scale) == 2
    assert "whole conversations, got shard 1/4 of a trace; join all first: servegen-gpu join" in capsys.readouterr().err
    assert main(["join", *map(str, tmp_path.glob("s*.parquet")), "-o", str(tmp_path / "t.parquet"), "--quiet"]) == 0
    scale[1] = str(tmp_path / "t.parquet")
    assert main(scale) == 0


# -- what does not belong together -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shares of a trace and of others, in files."""
    folder = tmp_path_factory.mktemp("shares")
    for k in range(1, 4):
        generate(folder / f"s{k}.parquet", "--shard", f"{k}/3")
    generate(folder / "seed.parquet", "--shard", "3/3", "--seed", "8")
    generate(folder / "fourth.parquet", "--shard", "3/4")
    generate(folder / "large.parquet", "--shard", "3/3", workload="m-large")
    generate(folder / "rate.parquet", "--shard", "3/3", "--rate", "6")
    generate(folder / "whole.parquet")
    generate(folder / "s3.csv", "--shard", "3/3")
    generate(folder / "s3/", "--shard", "3/3")
    table = pq.read_table(folder / "s3.parquet")
    pq.write_table(table.replace_schema_metadata(None), folder / "bare.parquet")
    about = {key: value for key, value in table.schema.metadata.items() if key.startswith(b"servegen")}
    old = json.loads(about[b"servegen_gpu"]) | {"stream_version": 1_000}
    pq.write_table(table.replace_schema_metadata(about | {b"servegen_gpu": json.dumps(old)}), folder / "old.parquet")
    bytes_of = (folder / "s3.parquet").read_bytes()
    (folder / "torn.parquet").write_bytes(bytes_of[: len(bytes_of) // 2])
    (folder / "cut.csv").write_bytes((folder / "s3.csv").read_bytes()[:-100])
    shutil.copy(folder / "s3.csv.provenance.json", folder / "cut.csv.provenance.json")
    shutil.copy(folder / "s3.csv", folder / "lonely.csv")
    (folder / "empty").mkdir()
    return folder


REFUSED: dict[str, tuple[str, str]] = {
    "a missing share": ("s1.parquet s3.parquet", "expected all 3 shares, got 2, without 2/3; generate --shard 2/3"),
    "the last missing": ("s1.parquet s2.parquet", "got 2, without 3/3; generate --shard 3/3"),
    "a doubled share": ("s1.parquet s2.parquet s3.parquet s2.parquet", "expected every share once, got 2/3 twice: "),
    "one in two formats": ("s1.parquet s2.parquet s3.parquet s3.csv", "expected every share once, got 3/3 twice: "),
    "another seed": ("s1.parquet s2.parquet seed.parquet", "shares of one trace, got seed 7 in "),
    "another number": ("s1.parquet s2.parquet fourth.parquet", "got number of shares 3 in "),
    "another workload": ("s1.parquet s2.parquet large.parquet", "shares of one trace, got "),
    "another rate": ("s1.parquet s2.parquet rate.parquet", "shares of one trace, got rate "),
    "the whole beside": ("s1.parquet s2.parquet whole.parquet", "got number of shares "),
    "another stream": ("s1.parquet s2.parquet old.parquet", "got 1000 in "),
    "no provenance": ("s1.parquet s2.parquet bare.parquet", "expected 'servegen_gpu' in the metadata of the file"),
    "text without it": ("s1.parquet s2.parquet lonely.csv", "expected the provenance of the trace in "),
    "a torn file": ("s1.parquet s2.parquet torn.parquet", "expected a Parquet file"),
    "a cut file": ("s1.parquet s2.parquet cut.csv", "do not belong together"),
    "nothing there": ("s1.parquet s2.parquet s4.parquet", "expected an existing trace, got nothing at "),
    "no trace": ("s1.parquet s2.parquet empty", "expected a directory of parts"),
}


@pytest.mark.parametrize("output", ["t.parquet", "t.csv", "t"])
@pytest.mark.parametrize(("parts", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_belong_together_is_refused(
    parts: str, message: str, output: str, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(written / name) for name in parts.split()]
    assert main(["join", *paths, "-o", str(tmp_path / output)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("servegen-gpu: error: expected ")
    assert "; " in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_directory_that_is_not_its_own_is_found(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "s3", tmp_path / "s3")
    shutil.copy(tmp_path / "s3" / "part-00000.parquet", tmp_path / "s3" / "part-00001.parquet")
    slabs = join_files([written / "s1.parquet", written / "s2.parquet", tmp_path / "s3"])
    with pytest.raises(sg.OptionError, match=r"expected row [\d,]+ next, got row 0 in .*s3; the file was changed"):
        list(slabs)


def test_nothing_is_written_where_reading_fails_half_way(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> Any:
        slabs = read(path)
        yield next(slabs)
        if Path(path).name == "s2.parquet":
            raise sg.OptionError("a Parquet file", "a hole", "generate it again")

    from servegen_gpu.formats import join

    read: Callable[[Path], Any] = join.own_slabs
    monkeypatch.setattr(join, "own_slabs", failing)
    parts = [str(written / f"s{k}.parquet") for k in (1, 2, 3)]
    assert main(["join", *parts, "-o", str(tmp_path / "t.parquet")]) == 2
    assert not list(tmp_path.iterdir())


# -- memory ------------------------------------------------------------------------------------------------------------


def test_slabs_do_not_outlive_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some sixty slabs a few are in memory at once, however long the trace is."""
    from servegen_gpu.formats import join

    monkeypatch.setattr(text, "BLOCK_BYTES", 4_000)
    monkeypatch.setattr(join, "own_slabs", lambda path: watched(read_slabs(path)))
    kept: list[Trace] = []
    seen: list[weakref.ref[Any]] = []
    most = 0

    def watched(slabs: Iterator[Trace]) -> Iterator[Trace]:
        nonlocal most
        for slab in slabs:
            seen.append(weakref.ref(slab["arrival_us"]))
            most = max(most, sum(ref() is not None for ref in seen))
            kept.extend([slab] * leaks)
            yield slab
            del slab

    for k in (1, 2, 3):
        generate(tmp_path / f"s{k}.csv", "--shard", f"{k}/3")
    for leaks in (0, 1):  # planted: one who keeps them all
        most = 0
        seen.clear()
        main(["join", *(str(tmp_path / f"s{k}.csv") for k in (1, 2, 3)), "-o", str(tmp_path / "t.csv"), "--quiet"])
        assert len(seen) > 40
        assert (most < 10) == (leaks == 0)
