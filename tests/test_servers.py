"""Profiles of servers, the command that lists them, and servers fitted to benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from served import trace_of

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.serving import stepwise
from servegen_gpu.serving.job import job_of
from servegen_gpu.serving.measured import FITTED
from servegen_gpu.serving.profiles import SERVERS, profile_text, server_text
from servegen_gpu.serving.server import ORIGINS, PARAMETERS, Server

# --- profiles


@pytest.mark.parametrize("name", SERVERS)
def test_every_number_of_a_profile_has_an_origin(name, tmp_path):
    server = sg.load_server(name)
    assert server.name == name
    assert set(server.origins) == set(PARAMETERS)
    assert all(server.origin(parameter).startswith(ORIGINS) for parameter in PARAMETERS)
    file = tmp_path / "copy.toml"
    file.write_text(server_text(server), encoding="utf-8")
    assert sg.load_server(file) == sg.load_server(server) == server
    assert server.model
    assert server.hardware


def test_all_files_are_listed():
    from importlib import resources

    files = resources.files("servegen_gpu.serving") / "servers"
    assert {file.name for file in files.iterdir()} == {f"{name}.toml" for name in SERVERS}


MINE = server_text(Server(name="mine", model="m", hardware="h"))


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("value = 0.012", "value = 0", "step_s from 1e-09 to 1000 s"),
        ('{ value = 2048, origin = "assumed" }', "2048", "a number with its origin"),
        (', origin = "assumed" }', " }", "'origin'"),
        ('origin = "assumed"', 'origin = "somewhere"', "begins with published"),
        ("kv_tokens", "kv_token", "unknown key 'kv_token'"),
        ('name = "mine"\n', "", "'name'"),
        ("value = 2048", "value = 2048.5", "step_tokens as an integer"),
        ("value = 2048", 'value = "many"', "step_tokens as an integer"),
    ],
)
def test_files_that_are_no_server(right, wrong, message, tmp_path):
    assert right in MINE
    file = tmp_path / "mine.toml"
    file.write_text(MINE.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        sg.load_server(file)


def test_servers_that_are_not_there(tmp_path):
    with pytest.raises(OptionError, match=r"a server among llama-3-8b-a100, .* got 'gpt'"):
        sg.load_server("gpt")
    with pytest.raises(OptionError):
        sg.load_server(12)  # type: ignore[arg-type]
    with pytest.raises(ProfileError, match=r"none\.toml"):
        sg.load_server(tmp_path / "none.toml")


def test_the_command_lists_and_shows(capsys):
    assert main(["servers"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in SERVERS)
    assert main(["servers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(SERVERS)
    assert all(set(row["origins"]) == set(PARAMETERS) for row in rows)
    assert main(["servers", "show", SERVERS[0]]) == 0
    assert capsys.readouterr().out == profile_text(SERVERS[0])
    assert main(["servers", "show", "none"]) == 2
    assert "got 'none'" in capsys.readouterr().err


# --- fits

KNOWN = Server(0.0091, 7.3e-5, 1.9e-4, 1024, 128, 10**6, prefill_s_per_step=0.0047, name="known")


def closed_loop(at_once: int, inputs: int, outputs: int, requests: int = 150) -> Iterator[tuple[float, float]]:
    """Times to first token and between tokens of a benchmark whose users send the next request when one is served.

    Lengths of outputs differ, or all users would march in step.
    """
    instance = stepwise._Instance(job_of(trace_of([], [], []), KNOWN, 1, "least-loaded"))
    lengths = np.random.default_rng(at_once).integers(outputs // 2, outputs + outputs // 2, requests + at_once).tolist()
    sent: list[stepwise._Request] = []

    def send() -> stepwise._Request:
        row = len(sent)
        request = stepwise._Request(row, instance.clock_ns, inputs + lengths[row], 0, inputs, lengths[row])
        sent.append(request)
        instance.take(request)
        return request

    users = [send() for _ in range(at_once)]
    while len(sent) < requests:
        instance._step()
        users = [send() if request.last_ns >= 0 else request for request in users]
    for request in sent[at_once:]:
        if request.last_ns >= 0:
            tbt_ns = (request.last_ns - request.first_ns) / (lengths[request.row] - 1)
            yield (request.first_ns - request.arrival_ns) / 1e9, tbt_ns / 1e9


def benchmark() -> pd.DataFrame:
    """What vLLM's or AIPerf's sweeps over concurrencies report: means of runs."""
    rows = []
    for at_once in (1, 4, 16, 48):
        for inputs, outputs in ((100, 200), (1500, 150), (4000, 100)):
            ttft_s, tbt_s = np.mean(list(closed_loop(at_once, inputs, outputs)), axis=0)
            rows.append((at_once, inputs, outputs, 1e3 * ttft_s, 1e3 * tbt_s))
    return pd.DataFrame(rows, columns=["concurrency", "input_tokens", "output_tokens", "mean_ttft_ms", "mean_tpot_ms"])


@pytest.fixture(scope="module")
def swept() -> pd.DataFrame:
    return benchmark()


def errors(fitted: Server) -> np.ndarray:
    return np.array([getattr(fitted, name) / getattr(KNOWN, name) - 1 for name in FITTED])


def test_a_known_server_is_recovered(swept, tmp_path):
    like = replace(KNOWN, step_s=1.0, prefill_s_per_token=0.0, decode_s_per_sequence=0.0)
    fit = sg.fit_server(swept, like)
    assert (np.abs(errors(fit.server)) < 0.05).all(), str(fit)
    assert fit.residuals["relative"].abs().max() < 0.1
    assert fit.server.origin("step_s") == "fitted: to 12 rows of a benchmark"
    assert fit.server.kv_tokens == 10**6
    assert "ttft_s: 3 rows" in str(fit)
    assert "tbt_s: 12 rows" in str(fit)
    swept.to_csv(tmp_path / "sweep.csv", index=False)
    swept.to_parquet(tmp_path / "sweep.parquet")
    for name in ("sweep.csv", "sweep.parquet"):
        again = sg.fit_server(tmp_path / name, like)
        assert np.allclose([getattr(again.server, n) / getattr(fit.server, n) for n in FITTED], 1)
        assert again.server.origin("step_s").endswith(name)
    file = tmp_path / "fitted.toml"
    file.write_text(server_text(replace(fit.server, model="m", hardware="h")), encoding="utf-8")
    assert sg.load_server(file).step_s == fit.server.step_s


def test_a_fit_shows_what_it_does_not_explain(swept):
    """A step that grows with the square of sequences is no line."""
    curved = swept.assign(mean_tpot_ms=swept["mean_tpot_ms"] + swept["concurrency"] ** 2 / 50)
    assert sg.fit_server(curved, KNOWN).residuals["relative"].abs().max() > 0.1


def test_requests_one_by_one_and_seconds(swept):
    """Single requests, which are exact, and a batch without input, of which 1 / osl is not in decode."""
    alone = [next(closed_loop(1, n, 40, 3)) for n in (10, 900, 3000)]
    batch = [(0.0, KNOWN.step_s + 8 * KNOWN.decode_s_per_sequence)]
    ttft_s, tbt_s = np.transpose([*alone, *batch])
    columns = {"isl": [10, 900, 3000, 0], "osl": [40] * 4, "batch": [1, 1, 1, 8], "ttft_s": ttft_s, "tbt_s": tbt_s}
    assert (np.abs(errors(sg.fit_server(columns, KNOWN).server)) < 0.03).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_tpot_ms": np.nan}, "mean_tpot_ms that is 0, or from 1e-06 to 1,000,000,000"),
        ({"concurrency": 0}, "concurrency that is from 1 to 2,147,483,647, got 0 in row 0"),
        ({"input_tokens": "many"}, "numbers in input_tokens, got 'many' in row 0"),
        ({"mean_tpot_ms": 0.0, "mean_ttft_ms": 0.0}, "0 equations"),
    ],
)
def test_benchmarks_that_do_not_say(change, message, swept):
    with pytest.raises(OptionError, match=message):
        sg.fit_server(swept.assign(**change), KNOWN)


def test_benchmarks_that_lack_something(swept, tmp_path: Path):
    needed: dict[str, Any] = {"input_tokens": "a benchmark with input_tokens", "output_tokens": "output_tokens beside"}
    for column, message in needed.items():
        with pytest.raises(OptionError, match=message):
            sg.fit_server(swept.drop(columns=column), KNOWN)
    with pytest.raises(OptionError, match="got a benchmark with columns prompt, seconds; add them"):
        sg.fit_server({"prompt": [1], "seconds": [1]})
    with pytest.raises(OptionError, match="tells step_s"):
        sg.fit_server(swept.drop(columns="mean_ttft_ms").assign(concurrency=1), KNOWN)
    with pytest.raises(ProfileError, match=r"none\.csv"):
        sg.fit_server(tmp_path / "none.csv")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(ProfileError, match=r"bad\.parquet"):
        sg.fit_server(tmp_path / "bad.parquet")


def test_a_file_that_pyarrow_cannot_read_is_one_sentence(tmp_path, monkeypatch):
    def beyond(*_):
        raise pa.ArrowNotImplementedError("Integers with more than 64 bits not implemented")

    monkeypatch.setattr("pandas.read_parquet", beyond)
    (tmp_path / "sweep.parquet").write_bytes(b"PAR1")
    with pytest.raises(ProfileError, match=r"a benchmark as CSV or Parquet, got .*: Integers with more than 64 bits"):
        sg.fit_server(tmp_path / "sweep.parquet")
