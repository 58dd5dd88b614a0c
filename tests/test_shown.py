"""What objects show of themselves: a line or a few, no dumps of arrays; tables in notebooks; names where pools are."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import tiny_pool, write_servegen

import servegen_gpu as sg
from servegen_gpu.baselines.naive import naive
from servegen_gpu.cli import main
from servegen_gpu.clients.named import as_pool, named
from servegen_gpu.errors import OptionError
from servegen_gpu.pipeline import Options
from servegen_gpu.text import few


@pytest.fixture(scope="module")
def trace() -> sg.Trace:
    return sg.generate(tiny_pool(), rate=2, duration="10m", counts="renewal")


@pytest.fixture(scope="module")
def study() -> sg.Study:
    return sg.monte_carlo(tiny_pool(), rate=2, duration="10m", replicas=3, metrics=["requests_peak_10s"])


def objects(trace: sg.Trace, study: sg.Study) -> dict[str, Any]:
    pool, d = tiny_pool(), sg.distributions
    many = d.Pmf(list(range(1000)), [1.0] * 1000)
    model = sg.TurnModel(0.3, turns=d.Pmf([2, 4, 8], [4, 2, 1]), gap_s=many)
    asked = sg.metrics(["requests_peak_10s"], 600)
    return {
        "pool": pool,
        "client": pool.client(int(pool.client_ids[0])),
        "tables": pool.tables,
        "workload": sg.stream(pool, rate=2),
        "packed": sg.stream(pool, rate=2).packed,
        "schedule": sg.Schedule(np.arange(1000), np.ones(1000)),
        "server": sg.load_server("llama-3-8b-a100"),
        "environment": sg.Environment(sg.Margin.gamma(variance=0.4), {2: 0.3, 6: 0.7}),
        "turns": model,
        "pmf": many,
        "samples": d.Samples(np.arange(10_000)),
        "spec": sg.client(rate={"0h": 1, "8h": 5}, input_tokens=many, output_tokens=many, count=3),
        "trace": trace,
        "study": study,
        "reduction": asked[0],
        "reduced": sg.reduce(trace, asked),
        "skew": pool.skew(),
        "report": sg.fit_with_report(trace)[1],
    }


def test_reprs_are_short(trace: sg.Trace, study: sg.Study) -> None:
    found = {name: repr(value) for name, value in objects(trace, study).items()}
    assert {name: text for name, text in found.items() if len(text) > 320 or "\n" in text or "array(" in text} == {}
    assert found["schedule"].startswith("Schedule([0, 1, 2, 3, … 992 more …, 996, 997, 998, 999], [1, 1, ")
    assert found["packed"] == "<PackedWorkload (language): 3 clients, 0 s to 3600 s>"
    assert "<Server llama-3-8b-a100: step_s=0.00746, " in found["server"]
    assert few([1.0, 2.5]) == "[1, 2.5]"


def test_a_printed_trace_shows_its_first_rows() -> None:
    made = sg.Trace({"arrival_us": [5, 70, 800], "image_tokens": [[1, 2], [], [3]]})
    assert str(made) == (
        "<Trace: 3 requests from 0.000 s to 0.001 s (arrival_us, image_tokens)>\n"
        "   arrival_us  image_tokens\n"
        "0           5        [1, 2]\n"
        "1          70            []\n"
        "2         800           [3]"
    )
    long = sg.Trace({"arrival_us": np.arange(9)})
    assert str(long).splitlines()[-1] == "… 4 more"
    assert len(long.head()) == 5


def test_heads_of_a_pool() -> None:
    pool = tiny_pool()
    assert pool.head(2).client_ids.tolist() == pool.client_ids[:2].tolist()
    assert len(pool.head()) == len(pool) == 3
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match="a number of clients from 1 on"):
            pool.head(wrong)  # type: ignore[arg-type]


def test_tables_in_notebooks(trace: sg.Trace, study: sg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servegen_gpu.reporting.notebook._curve", lambda *about: "")  # tests/test_plotting.py has it
    largest = int(tiny_pool().skew().client_ids[0])
    found = sg.compare(trace, trace, only=["peak_10s", "rate_rps"])
    for shown, words in (
        (tiny_pool(), (f">{largest}<", "3 clients (language)")),
        (trace, ("The first requests", f">{trace['arrival_us'][0]}<")),
        (study, ("requests_peak_10s", "3 replicas")),
        (found, ("<svg", "verdict", "inside")),
    ):
        html = shown._repr_html_()
        assert all(word in html for word in words)
        assert "<script" not in html


def test_generate_has_the_parameters_of_stream() -> None:
    ours, theirs = (inspect.signature(function).parameters for function in (sg.generate, sg.stream))
    assert [*ours] == [*theirs]
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)
        assert name == "device" or ours[name].annotation == parameter.annotation
    assert {*theirs} - {"pool"} == {*Options.__annotations__}


def same(one: sg.Trace, other: sg.Trace) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_generate_hands_everything_on() -> None:
    given: dict[str, Any] = {"rate": 2, "start": "1:00", "duration": "20 minutes", "requests": 100, "seed": 3}
    given |= {"max_input": 300, "over": "drop", "replica": 4, "counts": "renewal", "occupancy": "window"}
    given |= {"dependence": "comonotone", "empty": "skip", "past_end": "end", "warmup": "1m", "backend": "numpy"}
    made = sg.generate(tiny_pool(), **given, memory="1GB", max_output=400, shard="1/1")
    by_hand = sg.stream(tiny_pool(), **given, memory="1GB", max_output=400, shard="1/1").joined()
    assert len(made) == 100
    assert same(made, by_hand)
    assert made.provenance == by_hand.provenance


def test_names_are_taken_where_pools_are(tmp_path: Path) -> None:
    pool, how = sg.population("m-code"), {"rate": 2.0, "duration": 60.0}
    made = sg.generate("m-code", **how)  # type: ignore[arg-type]
    assert same(made, sg.generate(pool, **how))  # type: ignore[arg-type]
    asked = sg.metrics(["requests"], 60)
    assert sg.reduce("m-code", asked, **how).figures()["requests"] == len(made)  # type: ignore[arg-type]
    study = sg.monte_carlo("m-code", rate=2, duration=60, replicas=2, metrics=["requests"])
    assert study.settings["workload"] == "m-code"
    assert naive("m-code", cv=2.0).own_rps == pytest.approx(pool.own_rps)
    found = sg.compare(made, "m-code", replicas=1, only=["rate_rps"])
    assert found.other.requests > 0
    tiny_pool().save(tmp_path / "mine")
    assert as_pool(tmp_path / "mine").digest() == as_pool(str(tmp_path / "mine")).digest() == tiny_pool().digest()
    with pytest.raises(OptionError, match="did you mean 'm-code'"):
        sg.generate("m-codes")
    with pytest.raises(OptionError, match=r"a pool, the name of a workload, .*, got 5"):
        sg.stream(5)  # type: ignore[arg-type]


def test_spans_in_words() -> None:
    pool = tiny_pool()
    assert pool.span("1h", "2:00").digest() == pool.span(3600, 7200).digest()


def test_the_directory_of_released_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SERVEGEN_DATA", raising=False)
    with pytest.raises(OptionError, match=r"\$SERVEGEN_DATA, ServeGen's data directory, got none; set it"):
        sg.load_servegen("tiny")
    write_servegen(tmp_path, "language", "tiny")
    write_servegen(tmp_path, "language", "m-small")
    monkeypatch.setenv("SERVEGEN_DATA", str(tmp_path))
    released = sg.load_servegen(tmp_path, "m-small")
    assert sg.load_servegen("m-small").digest() == released.digest()
    assert (named("m-small").origin, named("tiny").origin) == ("built-in", "released")  # what is built in stays so
    assert named("tiny").pool.digest() == sg.load_servegen(tmp_path, "tiny").digest()
    with pytest.raises(OptionError, match=r"m-small.*, tiny, got 'tyny'; did you mean 'tiny'"):
        named("tyny")
    out = str(tmp_path / "t.parquet")
    for more, origin in ((["--released"], "released"), (["--clients", "9"], "built-in")):
        assert main(["generate", "m-small", *more, "--rate", "2", "--duration", "10m", "-o", out]) == 0
        assert f"m-small ({origin}), " in capsys.readouterr().out
    assert main(["inspect", "m-small", "--released", "--profiles", str(tmp_path)]) == 2
    assert "--profiles or --released, got both" in capsys.readouterr().err
