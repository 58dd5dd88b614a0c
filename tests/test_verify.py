"""``verify``: traces are made again from what they say of themselves, and every planted defect is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu import Digest, OptionError, RateError, Schedule, Trace
from servegen_gpu.cli import main
from servegen_gpu.formats import csv, read_slabs, text, write_stream
from servegen_gpu.formats.recorded import digest_of_rows
from servegen_gpu.rates import Rate, resolve_rate
from servegen_gpu.verifying import verify as module

SIZES: dict[str, Any] = {"rate": 5, "duration": "10m", "warmup": "20m", "seed": 7}
EACH_FORMAT = ("t.parquet", "t.csv", "t.jsonl", "t.csv.gz", "parts/")


def pool(name: str = "deepseek-r1") -> sg.ClientPool:
    return sg.population(name, clients=40)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return sg.generate(pool(), **SIZES)


@pytest.fixture(scope="module")
def written(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace in every format; nobody changes it."""
    folder = tmp_path_factory.mktemp("written")
    for name in EACH_FORMAT:
        trace.write(f"{folder}/{name}")
    sg.distributed(pool(), folder / "shares", parts=4, **SIZES)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def run(*arguments: Any) -> int:
    return main(["verify", *map(str, arguments)])


@pytest.mark.parametrize("name", [*EACH_FORMAT, "shares"])
def test_a_trace_is_what_it_says(name: str, written: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(written / name) == 0
    assert f"{len(trace):,} rows, all of them as made again; digest {trace.digest()}" in capsys.readouterr().out
    assert run(written / name, "--digest", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert digest_of_rows(written / name) == trace.digest() == sg.digest_of(written / name)
    found = sg.verify(written / name, sample="20%")
    assert found.identical
    assert found.slices == 2
    assert 0.1 * len(trace) < found.compared < 0.3 * len(trace)


def share(path: Path) -> None:
    sg.generate(pool(), **SIZES, shard="2/3").write(path)


def ids(path: Path) -> None:
    some = pool("m-large")
    write_stream(sg.hash_slabs(sg.stream(some, **SIZES), 64, system_tokens=some.system_prompts() or 30), path)


def dense(path: Path) -> None:
    write_stream(sg.prefixes.dense.dense_ids(sg.stream(pool(), **SIZES)), path)


def made(name: str, **keywords: Any) -> Callable[[Path], None]:
    return lambda path: write_stream(sg.stream(pool(name), **SIZES | keywords), path) and None


KINDS: dict[str, Callable[[Path], None]] = {
    "one share": share,
    "ids of blocks": ids,
    "dense ids": dense,
    "items": made("mm-omni"),
    "own rates": made("m-large", rate=None, start="10h", counts="exact"),
    "scaled, wrapped": made("m-large", rate=None, scale=0.3, start="23h", duration="3000s"),
    "a peak": made("m-large", rate=None, peak=4.0, duration="1h"),
    "steps": made("m-large", rate={0: 1.5, 200: 7, 500: 0.1}),
    "linear": made("m-large", rate=Schedule([0, 300, 600], [1, 9, 1 / 3], "linear")),
    "so many": made("m-large", requests=700, duration=None),
    "so many, stated": made("deepseek-r1", requests=700),
    "capped": made("m-large", max_output=100, max_input=4000),
    "capped talk": made("deepseek-r1", max_output=100),
    "long ones left out, so many": made("m-large", max_output=100, over="drop", requests=300, duration=None),
    "other rules": made(
        "deepqwen-r1",
        counts="renewal",
        dependence="copula",
        rank_correlation={"input_tokens:output_tokens": 0.4},
        occupancy="window",
        empty="skip",
        past_end="end",
        replica=3,
    ),
}
WHOLE_ONLY = ("dense ids", "capped talk")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_trace(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "t.parquet")
    found = sg.verify(tmp_path / "t.parquet")
    assert found.identical, found
    assert found.compared == found.rows > 100
    if kind in WHOLE_ONLY:
        with pytest.raises(OptionError, match="verify all of it, without a sample"):
            sg.verify(tmp_path / "t.parquet", sample=0.2)
    else:
        some = sg.verify(tmp_path / "t.parquet", sample=0.2)
        assert some.identical, some
        assert 0.05 * found.rows < some.compared < 0.4 * found.rows


def test_clients_that_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    chosen = (
        "m-large",
        "--clients",
        "60",
        "--clients-seed",
        "3",
        "--largest",
        "20",
        "--keep-shares",
        "--environment",
        "none",
    )
    assert main(["generate", *chosen, "--rate", "5", "--duration", "5m", "-o", str(path), "--quiet"]) == 0
    assert run(path, *chosen) == 0
    assert run(path) == 2
    assert "give WORKLOAD and the options of clients that `generate` had" in capsys.readouterr().err
    assert run(path, *chosen[:3]) == 2
    naive = ("m-large", "--clients", "60", "--naive", "gamma")
    assert main(["generate", *naive, "--rate", "5", "--duration", "5m", "-o", str(path), "--quiet"]) == 0
    assert run(path, *naive) == 0
    assert run(path) == 2
    assert "got 'm-large-naive'" in capsys.readouterr().err


def test_a_rate_that_is_given(tmp_path: Path) -> None:
    times = np.arange(150) * 4.0
    long = Schedule(times, 3 + np.sin(times))
    some = pool("m-large")
    path = sg.generate(some, **SIZES | {"rate": long}).write(tmp_path / "t.parquet").path
    with pytest.raises(RateError, match="150 knots by their SHA-256; give the rate itself"):
        sg.verify(path)
    with pytest.raises(RateError, match="the rate of the provenance, got another"):
        sg.verify(path, rate=5)
    assert sg.verify(path, rate=long).identical


def rising(time_s: Any) -> Any:
    return 2 + time_s / 100


def test_a_pool_with_an_environment_and_a_function(tmp_path: Path) -> None:
    moved = pool("m-large").with_environment(sg.Environment(sg.Margin.gamma(variance=0.4), {2: 0.5, 6: 0.5}))
    path = sg.generate(moved, rate=rising, duration="15m", seed=3).write(tmp_path / "t.parquet").path
    assert sg.verify(path, moved, rate=rising).identical
    assert sg.verify(path, moved, rate=rising, sample=0.1).identical
    for wrong in ({"pool": pool("m-large"), "rate": rising}, {"pool": moved}, {"pool": moved, "rate": np.exp}):
        with pytest.raises((OptionError, RateError)):
            sg.verify(path, **wrong)


# What is wrong, and how it is said


def rewritten(path: Path, change: Callable[[Trace], Trace]) -> Path:
    """The file with other rows or another provenance, and the digest of what it has."""
    change(sg.read_trace(path)).write(path)
    return path


def with_value(trace: Trace, name: str, row: int, add: int) -> Trace:
    column = trace[name].copy()
    column[row] += add
    return Trace.trusted(trace.columns | {name: column}, trace.provenance)


def without(trace: Trace, row: int) -> Trace:
    kept = trace.take(np.delete(np.arange(len(trace)), row))
    return Trace.trusted(kept.columns, trace.provenance)


def about(trace: Trace, **changes: Any) -> Trace:
    return Trace.trusted(trace.columns, dict(trace.provenance) | changes)


def test_one_value_in_the_middle(folder: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    row = len(trace) // 2
    path = rewritten(folder / "t.parquet", lambda t: with_value(t, "output_tokens", row, 1))
    assert run(path) == 1
    value = int(trace["output_tokens"][row])
    assert f"t.parquet, row {row:,}: output_tokens {value + 1} instead of {value}" in capsys.readouterr().out
    assert run(path, "--digest") == 0  # which was recorded of the changed rows


def test_one_digit_of_a_text_file(folder: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "t.csv"
    lines = path.read_bytes().split(b"\n")
    last = lines[300][-1:]
    lines[300] = lines[300][:-1] + (b"1" if last != b"1" else b"2")
    path.write_bytes(b"\n".join(lines))
    assert run(path) == 1
    assert "t.csv, row 299: new_tokens" in capsys.readouterr().out
    assert run(path, "--digest") == 1
    assert f"instead of {trace.digest()}, as recorded" in capsys.readouterr().out
    assert main(["inspect", str(path), "--no-plot"]) == 0
    assert "it was changed" in capsys.readouterr().err


def test_a_row_that_is_missing(folder: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rewritten(folder / "t.parquet", lambda t: without(t, 77))) == 1
    assert "t.parquet, row 77: " in capsys.readouterr().out
    last = len(trace) - 1
    assert run(rewritten(folder / "parts", lambda t: t.rows(0, last)), "--sample", "90%") == 1
    assert f"part-00000.parquet, row {last:,}: rows end instead of one more at" in capsys.readouterr().out
    path = folder / "t.jsonl"
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes().splitlines()[-1]) - 1])
    assert run(path) == 1
    assert "size: " in capsys.readouterr().out


def test_slices_whose_rows_are_missing(folder: Path, trace: Trace) -> None:
    """Also where all of them are, and where the trace was cut to a number of requests."""
    for n in (len(trace), 2000):
        gone = (trace["arrival_us"] > 60e6) & (trace["arrival_us"] < 300e6)
        kept = trace.head(n).take(np.flatnonzero(~gone[:n]))
        rows = trace.concat([kept, *[kept.rows(len(kept) - 1, len(kept))] * (n - len(kept))])  # as many as it says
        about = trace.provenance if n == len(trace) else trace.head(n).provenance
        Trace.trusted(rows.columns, about).write(folder / "t.parquet")
        found = sg.verify(folder / "t.parquet", sample="60%")
        assert found.difference is not None
        assert found.difference.what == "rows"


def test_rows_that_are_too_many(folder: Path, trace: Trace) -> None:
    path = folder / "t.parquet"
    Trace.concat([trace, trace.rows(len(trace) - 1, len(trace))]).write(path)
    found = sg.verify(path)
    assert found.difference is not None
    assert (found.compared, found.difference.row, found.difference.what) == (len(trace), len(trace), "rows")


def exchange(a: Path, b: Path) -> None:
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def test_two_files_exchanged(folder: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    exchange(folder / "shares" / "part-00001.parquet", folder / "shares" / "part-00002.parquet")
    assert run(folder / "shares") == 1
    assert "part-00001.parquet: share 3/4 instead of 2/4" in capsys.readouterr().out
    write_stream([trace], folder / "parts", part_rows=1000)
    assert run(folder / "parts") == 0
    exchange(folder / "parts" / "part-00000.parquet", folder / "parts" / "part-00002.parquet")
    capsys.readouterr()
    assert run(folder / "parts") == 1
    assert "part-00001.parquet: rows from 1,000 on instead of from 3,000 on" in capsys.readouterr().out


def test_a_part_of_other_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own digest is right, that of the manifest is not, and neither are the rows."""
    path = folder / "shares" / "part-00002.parquet"
    rewritten(path, lambda t: with_value(t, "client", 5, 1))
    assert run(folder / "shares", "--digest") == 1
    assert "as its manifest says" in capsys.readouterr().out
    assert run(folder / "shares") == 1
    assert "part-00002.parquet, row 5: client" in capsys.readouterr().out
    (folder / "shares" / "_manifest.json").write_text("null")  # says nothing that could be compared
    assert run(folder / "shares", "--digest") == 2
    assert "_manifest.json as it was written, got ValueError: no JSON object" in capsys.readouterr().err
    (folder / "shares" / "part-00003.parquet").unlink()
    assert run(folder / "shares") == 2
    assert "all 4 shares" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"seed": 8}, {"rate": {"rate": "constant", "rps": 5.1}}, {"start_s": 60.0}])
@pytest.mark.parametrize("sample", [None, "5%"])
def test_another_provenance(changes: Mapping[str, Any], sample: str | None, folder: Path) -> None:
    path = rewritten(folder / "t.parquet", lambda t: about(t, **changes))
    assert not sg.verify(path, sample=sample).identical


def test_the_provenance_of_another_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = folder / "t.csv.provenance.json"
    other = sg.generate(pool(), **SIZES | {"seed": 8}).write(folder / "u.csv").path
    stale = json.loads((folder / "u.csv.provenance.json").read_text())
    beside.write_text(json.dumps(stale))
    assert run(folder / "t.csv") == 1
    assert "as the file beside it says" in capsys.readouterr().out
    beside.write_text(json.dumps(stale | {"bytes": (folder / "t.csv").stat().st_size}))
    for options in ((), ("--digest",), ("--sample", "50%")):
        assert run(folder / "t.csv", *options) == 1
        assert "cannot be read: expected 2,936 rows" in capsys.readouterr().out
    assert run(other) == 0


def test_columns_that_are_not_there(folder: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "t.parquet"
    Trace.trusted({n: c for n, c in trace.columns.items() if n != "turn"}, trace.provenance).write(path)
    assert run(path) == 1
    assert "column turn: no instead of one" in capsys.readouterr().out


REFUSED: dict[str, tuple[Callable[[Trace], Trace], str]] = {
    "made by hand": (lambda t: Trace(t.columns), "a trace that `generate` made"),
    "of another version": (lambda t: about(t, stream_version=1), "stream version 2, got one of version 1"),
    "of a packed workload": (
        lambda t: Trace(t.columns, {k: v for k, v in t.provenance.items() if k != "pool_digest"}),
        "of a packed workload",
    ),
    "rescaled": (lambda t: t.rescaled(2.0), r"changed later \(method, rescale"),
    "a part of the time": (lambda t: t.between("1m", "2m"), r"changed later \(from_s"),
    "cut twice": (lambda t: t.head(50).head(40), r"changed later \(requests"),
    "cut under a peak": (lambda t: about(t, rate={"rate": "peak", "rps": 5.0}).head(9), "does not say how long it was"),
    "by a function": (
        lambda t: about(t, rate={"rate": "function", "name": "f"}),
        "the function f; give the rate itself",
    ),
    "with odd prompts": (
        lambda t: t.with_hash_ids(64, system_tokens={1: 10}),
        "neither one number nor the workload's own",
    ),
    "without a duration": (
        lambda t: Trace(t.columns, {k: v for k, v in t.provenance.items() if k != "duration_s"}),
        "duration_s",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_made_again(kind: str, trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, why = REFUSED[kind]
    path = change(trace).write(tmp_path / "t.parquet").path
    with pytest.raises((OptionError, RateError), match=why):
        sg.verify(path)
    assert run(path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(path, "--digest") == 0


def test_bad_arguments(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0", "-1%", "2", "x", "nan"):
        assert run(written / "t.csv", "--sample", wrong) == 2
    assert run(written / "t.csv", "--sample", "1%", "--digest") == 2
    assert run(tmp_path / "none.csv") == 2
    assert run(tmp_path) == 2
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert run(tmp_path / "t.csv") == 2
    sg.read_trace(written / "t.csv").write(tmp_path / "t.jsonl", "mooncake")
    assert run(tmp_path / "t.jsonl") == 2
    assert "a file for another program (mooncake)" in capsys.readouterr().err


def test_slices_follow_from_the_digest(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    chosen = module._chosen
    monkeypatch.setattr(module, "_chosen", lambda *a: seen.append(chosen(*a)) or seen[-1])
    for name in ("t.parquet", "t.csv", "shares", "t.parquet"):
        assert sg.verify(written / name, sample="3%").identical
    assert all(each == seen[0] for each in seen)
    numbers, of = seen[0]
    assert of == 67
    assert len(set(numbers)) == 2


def test_a_text_file_is_read_once(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    inner = text.blocks
    monkeypatch.setattr(module, "MOST_OF_CONVERSATIONS", 9)
    monkeypatch.setattr(module, "FEWEST", 9)
    monkeypatch.setattr(text, "BLOCK_BYTES", 5000)
    monkeypatch.setattr(csv, "blocks", lambda path: (blocks.append(len(b)) or b for b in inner(path)))
    found = sg.verify(written / "t.csv", sample="30%")
    assert found.identical
    assert found.slices == 9
    assert 0.2 < found.compared / found.rows < 0.4
    assert sum(blocks) <= (written / "t.csv").stat().st_size


# What provenance and files keep


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "parts/"])
def test_files_do_not_tell_what_computed_them(name: str, written: Path, tmp_path: Path) -> None:
    write_stream(sg.stream(pool(), **SIZES, backend="numpy"), f"{tmp_path}/{name}")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes()


def test_shares_of_different_backends_are_one_trace(trace: Trace) -> None:
    shares = [sg.generate(pool(), **SIZES, shard=(k, 2), backend=name) for k, name in enumerate(("numpy", "auto"))]
    joined = Trace.concat(shares)
    assert joined.digest() == trace.digest()
    assert joined.header() == trace.header()


def test_digests_in_files(written: Path, trace: Trace, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    parts = [pq.read_metadata(path) for path in sorted((written / "shares").glob("*.parquet"))]
    stated = [Digest.parse(part.metadata[b"servegen_gpu.digest"].decode(), part.num_rows) for part in parts]
    assert sum(stated, Digest()) == trace.digest()
    assert json.loads((written / "t.csv.provenance.json").read_text())["digest"] == trace.digest().hex
    assert trace.write(tmp_path / "t.jsonl", "mooncake").digest == trace.digest()
    assert "digest" not in json.loads((tmp_path / "t.jsonl.provenance.json").read_text())
    assert all("digest" not in slab.provenance for slab in read_slabs(written / "t.csv"))
    small = write_stream([trace.rows(0, 9), trace.rows(9, len(trace))], tmp_path / "p", part_rows=2**20)
    assert small.digest == trace.digest()


@pytest.mark.parametrize(
    "rate",
    [Rate("own"), Rate("scaled", 0.1 + 0.2), Rate("peak", 3.3), Rate("constant", 1 / 3), resolve_rate({0: 1, 7.1: 2})],
    ids=lambda rate: rate.kind,
)
def test_rates_are_told_by_their_description(rate: Rate) -> None:
    stated = json.loads(json.dumps(rate.describe()))
    again = Rate.described(stated)
    assert again.describe() == rate.describe()
    assert (again.kind, again.value) == (rate.kind, rate.value)


@pytest.mark.parametrize(
    "stated",
    [
        None,
        [],
        {},
        {"rate": "peak"},
        {"rate": "constant", "rps": -1},
        {"rate": ["own"]},
        {"rate": "schedule"},
        {"rate": "schedule", "schedule": {"times_s": 3, "rates_rps": []}},
        {"rate": "schedule", "schedule": {"times_s": [0], "rates_rps": [1], "kind": "odd"}},
    ],
)
def test_descriptions_that_tell_no_rate(stated: Any) -> None:
    with pytest.raises(RateError):
        Rate.described(stated)


def test_a_sample_without_requests_proves_nothing(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(written / "t.csv", "--sample", "1e-9") == 2
    assert "expected a sample with requests in it, got none in " in capsys.readouterr().err
