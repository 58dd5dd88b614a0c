"""The command line with good and bad input: one message, status 2, nothing written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import started
from profiles import REAL_DATA, needs_real_data, write_servegen

import servegen_gpu as sg
from servegen_gpu.cli import main


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_servegen(root, "language", "tiny")
    write_servegen(root, "reason", "tiny-r")
    write_servegen(root, "multimodal", "tiny-mm")
    return root


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in ("data", "schedule.csv"))


@pytest.mark.parametrize("workload", ["tiny", "tiny-r", "tiny-mm"])
@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "parts"])
def test_generate_writes_what_the_library_makes(profiles, tmp_path, capsys, workload, name):
    out = tmp_path / name
    assert (
        run("generate", workload, "--profiles", profiles, "--rate", 2, "--duration", "1h", "--seed", 7, "-o", out) == 0
    )
    trace = sg.generate(sg.load_servegen(profiles, workload), rate=2, duration="1h", seed=7)
    back = sg.read_trace(out)
    assert list(back) == list(trace)
    for column in trace:
        ours, theirs = trace[column], back[column]
        if isinstance(ours, sg.Ragged):
            assert np.array_equal(ours.offsets, theirs.offsets)
            ours, theirs = ours.values, theirs.values
        assert np.array_equal(ours, theirs)
    assert back.provenance["seed"] == 7
    said = capsys.readouterr()
    assert f"{len(trace):,} requests" in said.out
    assert said.err == ""


def test_parquet_bytes_do_not_depend_on_the_memory_budget(profiles, tmp_path):
    for memory in ("2MB", "1GB"):
        arguments = ("generate", "tiny-mm", "--profiles", profiles, "--rate", 30, "--duration", "1h")
        assert run(*arguments, "--memory", memory, "-o", tmp_path / f"{memory}.parquet", "--quiet") == 0
    assert (tmp_path / "2MB.parquet").read_bytes() == (tmp_path / "1GB.parquet").read_bytes()


def test_options_reach_the_sampler(profiles, tmp_path):
    (tmp_path / "schedule.csv").write_text("time_s,rate_rps\n0,1\n1200,5\n")
    out = tmp_path / "t.parquet"
    rules = ["--counts", "renewal", "--dependence", "copula", "--rank-correlation", "input_tokens:output_tokens=0.5"]
    span = ["--start", "10m", "--duration", "20m", "--rate", tmp_path / "schedule.csv", "--occupancy", "window"]
    rest = ["--seed", 3, "--replica", 2, "--shard", "1/2", "--clones", 5, "--memory", "1GB", "--backend", "numpy"]
    assert run("generate", "tiny", "--profiles", profiles, "-o", out, *rules, *span, *rest) == 0
    trace = sg.generate(
        sg.load_servegen(profiles, "tiny").clone(5),
        rate=sg.Schedule(np.array([0.0, 1200.0]), np.array([1.0, 5.0]), "steps"),
        start=600,
        duration=1200,
        seed=3,
        replica=2,
        counts="renewal",
        dependence="copula",
        rank_correlation=np.array([[1, 0.5], [0.5, 1]]),
        occupancy="window",
        shard="1/2",
    )
    back = sg.read_trace(out)
    assert len(back) == len(trace) > 0
    assert all(np.array_equal(back[name], trace[name]) for name in trace)


def test_a_silent_window_is_an_error_or_a_note(tmp_path, capsys):
    root = tmp_path / "data"
    write_servegen(root, "language", "tiny", clients=1)
    silent_s = sg.load_servegen(root, "tiny").own_rps.argmin() * 600
    arguments = ["generate", "tiny", "--profiles", root, "--rate", 5, "--duration", "1d", "-o", tmp_path / "t.parquet"]
    assert run(*arguments) == 2
    assert str(silent_s) in capsys.readouterr().err
    assert not (tmp_path / "t.parquet").exists()
    assert run(*arguments, "--empty", "skip") == 0
    assert "requests were asked for where no client is active" in capsys.readouterr().err


def test_past_the_end_of_the_data(profiles, tmp_path, capsys):
    arguments = ["generate", "tiny", "--profiles", profiles, "--duration", "30h", "-o", tmp_path / "t.parquet"]
    assert run(*arguments) == 0
    assert "profiles repeat every 1 days" in capsys.readouterr().err
    assert run(*arguments, "--past-end", "end") == 0
    assert "ends with the data" in capsys.readouterr().err
    assert sg.read_trace(tmp_path / "t.parquet").provenance["duration_s"] == 86_400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny", "--rate", "-5"], "-5"),
        (["tiny", "--rate", "nan"], "nan"),
        (["tiny", "--rate", "inf"], "inf"),
        (["tiny", "--rate", "0"], "0"),
        (["tiny", "--rate", "1", "--scale", "2"], "rate and scale"),
        (["tiny", "--rate", "absent.csv"], "absent.csv"),
        (["tiny", "--scale", "nan"], "nan"),
        (["tiny", "--peak", "-1"], "-1"),
        (["tiny", "--rate", "1e11"], "clone"),
        (["tiny", "--duration", "0"], "duration"),
        (["tiny", "--duration=-1h"], "duration"),
        (["tiny", "--duration", "1fortnight"], "fortnight"),
        (["tiny", "--duration", "nan"], "duration"),
        (["tiny", "--duration", "400y"], "units"),
        (["tiny", "--duration", "1e9d"], "within ±"),
        (["tiny", "--start", "-5"], "start"),
        (["tiny", "--seed", "-1"], "seed"),
        (["tiny", "--seed", str(2**64)], "seed"),
        (["tiny", "--memory", "1kB"], "memory"),
        (["tiny", "--memory", "lots"], "memory"),
        (["tiny", "--shard", "9/8"], "9/8"),
        (["tiny", "--shard", "x"], "shard"),
        (["tiny", "--backend", "abacus"], "abacus"),
        (["tiny", "--dependence", "copula"], "rank_correlation"),
        (["tiny", "--rank-correlation", "input_tokens:output_tokens=0.5"], "copula"),
        (["tiny", "--dependence", "copula", "--rank-correlation", "input:output=0.5"], "input:output"),
        (["tiny", "--dependence", "copula", "--rank-correlation", "input_tokens:output_tokens=7"], "7"),
        (["tiny", "--dependence", "copula", *2 * ("--rank-correlation", "input_tokens:output_tokens=0.5")], "once"),
        (["tiny", "--dependence", "copula", "--rank-correlation", "input_tokens:output_tokens=nan"], "nan"),
        (["tiny", "--clones", "0"], "clones"),
        (["tiny", "--clients", "5"], "--clients"),
        (["tinny"], "tiny"),
        (["../tiny"], "tiny"),
        (["tiny", "--format", "xml"], "xml"),
    ],
)
def test_bad_input_is_one_message_and_nothing_written(profiles, tmp_path, capsys, arguments, said):
    assert run("generate", *arguments, "--profiles", profiles, "-o", tmp_path / "t.parquet") == 2
    message = capsys.readouterr().err
    assert message.startswith("servegen-gpu: error: expected ")
    assert message.count("\n") == 1
    assert said in message
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["t.xyz", "no/such/folder/t.parquet"])
def test_bad_output_paths(profiles, tmp_path, capsys, name):
    assert run("generate", "tiny", "--profiles", profiles, "-o", tmp_path / name) == 2
    assert capsys.readouterr().err.startswith("servegen-gpu: error: expected ")
    assert files(tmp_path) == []


@pytest.mark.parametrize("directory", ["absent", "data/language/tiny/chunk-0-trace.csv", "empty"])
def test_bad_profile_directories(profiles, tmp_path, capsys, directory):
    (tmp_path / "empty").mkdir()
    assert run("generate", "tiny", "--profiles", tmp_path / directory, "-o", tmp_path / "t.parquet") == 2
    assert capsys.readouterr().err.startswith("servegen-gpu: error: expected ")
    assert not (tmp_path / "t.parquet").exists()


SELECTIONS = {
    "only": (["--only", "0,3-9"], lambda pool: pool.select([0, 4])),
    "where": (
        ["--where", "cv=1:3", "--where", "mean_input_tokens=:1000"],
        lambda pool: pool.filter(cv=(1, 3), mean_input_tokens=(None, 1000)),
    ),
    "largest": (["--largest", "2"], lambda pool: pool.top(2)),
    "smallest": (["--smallest", "1"], lambda pool: pool.bottom(1)),
    "all": (
        ["--largest", "1", "--clones", "3", "--where", "rate_rps=0.3:", "--only", "0-2"],
        lambda pool: pool.select([0, 2]).filter(rate_rps=(0.3, None)).top(1).clone(3),
    ),
}


@pytest.mark.parametrize(("options", "select"), SELECTIONS.values(), ids=SELECTIONS)
def test_selections(profiles, tmp_path, capsys, options, select):
    whole = sg.load_servegen(profiles, "tiny")
    pool = select(whole)
    out = tmp_path / "t.parquet"
    assert run("generate", "tiny", "--profiles", profiles, "-o", out, *options) == 0
    share = f"{pool.own_rps.sum() / whole.own_rps.sum():.2%} of the requests"
    assert share in capsys.readouterr().err
    trace, back = sg.generate(pool, duration="1h"), sg.read_trace(out)
    assert back.provenance["pool_digest"] == pool.digest()
    assert all(np.array_equal(back[name], trace[name]) for name in trace)
    assert run("inspect", "tiny", "--profiles", profiles, "--json", *options) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["digest"] == pool.digest()
    assert share in said.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "99"], "'99'"),
        (["--only", "0,x"], "'x'"),
        (["--only", ""], "''"),
        (["--only", "4-2"], "'4-2'"),
        (["--only", "5-99999999999"], "'5-99999999999'"),
        (["--only=-1"], "'-1'"),
        (["--where", "cv"], "'cv'"),
        (["--where", "cv=2"], "'cv=2'"),
        (["--where", "cv=a:b"], "'cv=a:b'"),
        (["--where", "cv=nan:"], "nan"),
        (["--where", "cv=3:1"], "low <= high"),
        (["--where", "cv=1:2", "--where", "cv=1:3"], "'cv=1:3'"),
        (["--where", "cvv=1:2"], "the nearest name is cv"),
        (["--where", "=1:2"], "the nearest name is"),
        (["--where", "__class__=1:2"], "the nearest name is"),
        (["--where", "cv=100:"], "none of the 3 clients"),
        (["--largest", "0"], "from 1"),
        (["--smallest", "-3"], "from 1"),
        (["--largest", "1", "--smallest", "1"], "both"),
    ],
)
def test_bad_selections(profiles, tmp_path, capsys, options, said):
    for command in (["generate", "tiny", "-o", tmp_path / "t.parquet"], ["inspect", "tiny"]):
        assert run(*command, "--profiles", profiles, *options) == 2
        message = capsys.readouterr().err
        assert message.startswith("servegen-gpu: error: expected ")
        assert message.count("\n") == 1
        assert said in message
    assert files(tmp_path) == []


def test_a_trace_has_no_clients_to_select(profiles, tmp_path, capsys):
    out = tmp_path / "t.parquet"
    run("generate", "tiny", "--profiles", profiles, "-o", out)
    assert run("inspect", out, "--largest", 1) == 2
    assert "with a workload" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full to stand for a full disk")
def test_a_full_disk(profiles, capsys):
    assert run("generate", "tiny", "--profiles", profiles, "-o", "/dev/full", "--format", "csv") == 2
    assert "space" in capsys.readouterr().err


def test_unknown_population_names_the_known(tmp_path, capsys):
    assert run("generate", "gpt-5", "-o", tmp_path / "t.parquet") == 2
    assert "deepseek-r1" in capsys.readouterr().err


def test_missing_length_files_can_be_dropped(profiles, tmp_path, capsys):
    (profiles / "language" / "tiny" / "chunk-0-dataset.json").unlink()
    arguments = ["generate", "tiny", "--profiles", profiles, "-o", tmp_path / "t.parquet"]
    assert run(*arguments) == 2
    assert "--drop-incomplete" in capsys.readouterr().err
    assert run(*arguments, "--drop-incomplete") == 0
    assert "0" in capsys.readouterr().err
    assert 0 not in sg.read_trace(tmp_path / "t.parquet")["client"]


def test_inspect_a_pool_and_a_trace(profiles, tmp_path, capsys):
    assert run("inspect", "tiny-r", "--profiles", profiles, "--json") == 0
    pool = json.loads(capsys.readouterr().out)
    assert pool["clients"] == 3
    out = tmp_path / "t.parquet"
    run("generate", "tiny-mm", "--profiles", profiles, "--rate", 3, "-o", out, "--quiet")
    assert run("inspect", out, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    trace = sg.read_trace(out)
    assert figures["requests"] == len(trace)
    assert figures["rate_rps"] == pytest.approx(len(trace) / 3600)
    assert figures["lengths"]["output_tokens"]["mean"] == pytest.approx(trace["output_tokens"].mean())
    assert figures["lengths"]["image_tokens per request"]["max"] == trace["image_tokens"].lengths.max()
    p90 = np.sort(trace["input_tokens"])[int(np.ceil(0.9 * len(trace))) - 1]
    assert figures["lengths"]["input_tokens"]["p90"] == p90
    assert figures["provenance"]["workload"] == "tiny-mm"
    for arguments in (
        ["inspect", out],
        ["inspect", "tiny", "--profiles", profiles],
        ["backends"],
        ["backends", "--json"],
    ):
        assert run(*arguments) == 0
        assert capsys.readouterr().out


def test_inspect_measures_burstiness(tmp_path, capsys):
    rng = np.random.default_rng(1)
    arrival_us = np.cumsum(rng.gamma(0.25, 4.0, 20_000) * 1e5).astype(np.int64)
    columns = {"arrival_us": arrival_us, "client": np.zeros(20_000, np.int32)}
    sg.Trace(columns).write(tmp_path / "t.parquet")
    assert run("inspect", tmp_path / "t.parquet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["median_5_minute_cv"] == pytest.approx(2.0, rel=0.1)


def test_inspect_refuses_what_is_no_trace(tmp_path, capsys):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 rubbish")
    assert run("inspect", tmp_path / "t.parquet") == 2
    assert "t.parquet" in capsys.readouterr().err


def test_as_a_process(profiles, tmp_path):
    base = [sys.executable, "-m", "servegen_gpu"]
    bad = subprocess.run([*base, "generate", "nope", "-o", tmp_path / "t.csv"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    good = subprocess.run([*base, "backends"], capture_output=True, text=True)
    assert good.returncode == 0
    assert "numpy" in good.stdout


LONG = "generate deepseek-r1 --scale 100 --duration 7d --warmup 0 -o"  # without a warm-up it writes soon


def check_stopped(command, folder, by):
    """What a long run leaves when a signal stops it in the middle: nothing but a message."""
    with started(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size for p in folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(by)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + by
    assert "interrupted; nothing was written" in said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_leaves_nothing(tmp_path, name):
    command = [sys.executable, "-m", "servegen_gpu", *LONG.split(), tmp_path / "t.csv"]
    check_stopped(command, tmp_path, signal.Signals[name])


def test_sigterm_works_where_interrupts_are_ignored(tmp_path):
    """As in a script's background, ``command &``, or under nohup."""
    run = f"trap '' INT; exec {sys.executable} -m servegen_gpu {LONG} {tmp_path}/t.csv"
    check_stopped(["sh", "-c", run], tmp_path, signal.SIGTERM)


def test_import_is_light():
    heavy = ("jax", "cupy", "pandas", "pyarrow", "scipy")
    code = f"import sys, servegen_gpu; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("file", ["t.parquet", "t.csv", "t.jsonl"])
@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-image"])
def test_a_first_command_imports_only_what_it_needs(tmp_path, workload, file):
    """Any of these would take longer to import than the rest of the start."""
    code = "import sys; from servegen_gpu.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = ["generate", workload, "--duration", "60s", "-o", tmp_path / file]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    found = set(done.stdout.splitlines()[-1].split())
    assert {"numpy", "pyarrow"} <= found
    assert found & {"jax", "cupy", "pandas", "scipy", "numpy.testing", "importlib.metadata", "tqdm"} == set()


@needs_real_data
def test_the_first_command_of_the_real_data(tmp_path, capsys):
    out = tmp_path / "t.parquet"
    arguments = ["--profiles", REAL_DATA, "--rate", 100, "--duration", "1h", "--seed", 7, "-o", out]
    assert run("generate", "deepseek-r1", *arguments) == 0
    arrival_us = sg.read_trace(out)["arrival_us"]
    assert abs(len(arrival_us) - 360_000) <= 40
    assert (np.diff(arrival_us) >= 0).all()
