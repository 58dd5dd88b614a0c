"""Bounds on data: a few lines of input never take minutes, gigabytes, or overflow."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from profiles import tiny_pool, trace_text, write_client
from traces import same

import servegen_gpu as sg
from servegen_gpu.backends.host import run_gaps
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.cli import main
from servegen_gpu.clients.stated import tabulate
from servegen_gpu.errors import OptionError, ProfileError, RateError
from servegen_gpu.options import MAX_TIME_S, seconds, whole
from servegen_gpu.request.families import GAMMA, ROWS
from servegen_gpu.schedules import LEAST_RATE_RPS, MAX_RATE_RPS

d = sg.distributions

# --- shapes and rates


@pytest.mark.parametrize("row", [row for row in ROWS if row.has_shape], ids=lambda row: row.name)
def test_shapes_of_a_pool_are_those_of_arrivals(row):
    low, high = row.shape_range
    for shape in row.shape_range:
        tiny_pool(family=row.code, shape=shape)
    for shape in (low * 0.99, high * 1.01, 1e-300, 1e300):
        with pytest.raises(ProfileError, match=rf"{row.name} {low:g} to .*shape {shape:g}".replace("+", r"\+")):
            tiny_pool(family=row.code, shape=shape)


def test_two_lines_of_profile_do_not_eat_all_memory(tmp_path, capsys):
    write_client(tmp_path / "language" / "tiny", 0, trace_text(2, family="Weibull", shape=1e-300, silent=()))
    command = ["generate", "tiny", f"--profiles={tmp_path}", "--counts=renewal", f"--output={tmp_path / 'o.csv'}"]
    assert main([*command, "--no-cache"]) == 2
    assert "a shape that gaps can have" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("rate", [1e308, MAX_RATE_RPS * 1.01, LEAST_RATE_RPS / 2, 5e-324])
def test_rates_beyond_their_bounds(rate):
    pool = tiny_pool(clients=2, windows=2, silent=False)
    with pytest.raises(ProfileError, match="a rate of 0, or from 1e-30 to 1e\\+12"):
        replace(pool, rate_rps=np.full((2, 2), rate))
    with pytest.raises(ProfileError, match=r"up to 1e\+12|rate factors from 1e-30"):
        replace(pool, rate_factor=np.array([1.0, rate / 1e-12 if rate > 1 else rate]))


def test_two_clients_of_a_rate_too_large_are_refused_and_not_empty(tmp_path, capsys):
    for client in range(2):
        write_client(tmp_path / "language" / "tiny", client, trace_text(2, rate=1e308, silent=()))
    assert main(["generate", "tiny", f"--profiles={tmp_path}", f"--output={tmp_path / 'o.csv'}", "--no-cache"]) == 2
    assert "1e+308" in capsys.readouterr().err


def test_the_extremes_are_finite():
    pool = tiny_pool(clients=2, windows=2, silent=False)
    least = replace(pool, rate_rps=np.full((2, 2), LEAST_RATE_RPS))
    with np.errstate(all="raise"):
        trace = sg.generate(least, rate=1, duration=600, counts="exact", backend="numpy")
    assert len(trace) == pytest.approx(600, abs=2)
    edge = replace(pool, rate_rps=np.full((2, 2), 2_130_706_432 / 600))  # of one client in a window of ten minutes
    assert sg.stream(edge, duration=600).expected_requests == pytest.approx(2 * 2_130_706_432)
    with pytest.raises(RateError, match="at most 2,130,706,432 requests of one client in a window"):
        sg.stream(edge, scale=1 + 1e-9, duration=600)
    most = replace(pool, rate_rps=np.full((2, 2), MAX_RATE_RPS))
    with np.errstate(all="raise"), pytest.raises(RateError, match="requests of one client in a window"):
        sg.stream(most, duration=600)


# --- times


@pytest.mark.parametrize("value", ["1e303", "1e18", "-1e18", "1e9w", 2 * MAX_TIME_S, 1e303])
def test_times_are_bounded(value):
    with pytest.raises(OptionError, match=r"within ±8589934592 s"):
        seconds("duration", value)
    assert seconds("duration", MAX_TIME_S) == MAX_TIME_S


@pytest.mark.parametrize("option", ["--duration", "--start", "--warmup"])
def test_a_span_without_end_is_a_sentence(option, tmp_path, capsys):
    output = tmp_path / "trace.csv"
    assert main(["generate", "m-small", f"{option}=1e303", f"--output={output}", "--rate=1"]) == 2
    assert f"expected {option[2:]} within" in capsys.readouterr().err
    assert not output.exists()


def test_times_in_files_are_bounded(tmp_path):
    file = tmp_path / "clients.toml"
    for period in ("1e299", '"1e303s"'):
        file.write_text(f"period = {period}\n[[client]]\nrate = 1\ninput_tokens = 5\noutput_tokens = 5\n")
        with pytest.raises(ProfileError, match="period within"):
            sg.read_clients(file)
    trace, last_us = tmp_path / "trace.csv", round(MAX_TIME_S * 1e6)
    for beyond in (0, 1):
        trace.write_text(f"arrival_us,client,input_tokens,output_tokens\n{last_us + beyond},0,5,5\n")
        with pytest.raises(OptionError, match="times within") if beyond else contextlib.nullcontext():
            assert sg.read_trace(trace)["arrival_us"].tolist() == [last_us]
    turns = tmp_path / "turns.toml"
    turns.write_text("[turns]\nshare = 0.5\nturns = 2\ngap_s = 5\nsession = 1e200\n")
    with pytest.raises(ProfileError, match="a time within"):
        tiny_pool().with_conversations(turns)


# --- files whose cost is not their size


def test_a_key_twice_among_many_is_found_at_once(tmp_path):
    slots = {str(n): {} for n in range(100_000)}
    text = json.dumps(slots)[:-1] + ', "7": {}}'
    write_client(tmp_path / "language" / "tiny", 0, trace_text(2, silent=()), text)
    begun = time.process_time()
    with pytest.raises(ProfileError, match="the key '7' twice"):
        sg.load_servegen(tmp_path, "tiny", cache=False)
    assert time.process_time() - begun < 10  # a minute, before


def test_bins_of_lengths_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tabulate, "MAX_BINS", 20_000)
    one = '[[client]]\nrate = 1\ninput_tokens = {{ kind = "lognormal", median = {}, sigma = 1 }}\noutput_tokens = 5\n'
    file = tmp_path / "clients.toml"
    file.write_text(one.format(100) * 50)  # the same one, fifty times
    assert len(sg.read_clients(file)) == 50
    file.write_text("".join(one.format(100 + n) for n in range(50)))
    with pytest.raises(ProfileError, match=r"at most 20,000 bins.*line \d+, client [2-9], input_tokens"):
        sg.read_clients(file)
    specs = [sg.client(rate=1, input_tokens=d.LogNormal(100 + n, 1), output_tokens=5) for n in range(50)]
    with pytest.raises(OptionError, match=r"at most 20,000 bins"):
        sg.pool(specs)


def test_a_population_has_no_more_bins(tmp_path, monkeypatch):
    from servegen_gpu.clients.population import preset_toml

    monkeypatch.setattr(preset_toml, "MAX_BINS", 20_000)
    kind = '[[kind]]\nshare = {}\ninput_tokens = {{ kind = "lognormal", median = {}, sigma = 1 }}\noutput_tokens = 5\n'
    head = 'clients = 50\nrequests = 1000\nover = "1d"\n[skew]\ntop = 5\nshare = 0.5\n'
    file = tmp_path / "population.toml"
    file.write_text(head + kind.format(1, 100))
    assert len(sg.population(file)) == 50
    file.write_text(head + kind.format(0.5, 100) + kind.format(0.5, 200))
    with pytest.raises(ProfileError, match=r"20,000 bins"):
        sg.population(file)


def test_distributions_that_take_minutes_are_refused(tmp_path):
    file = tmp_path / "clients.toml"
    lengths = '{ kind = "scipy", name = "studentized_range", k = 3, df = 10 }'
    file.write_text(f"[[client]]\nrate = 1\ninput_tokens = {lengths}\noutput_tokens = 5\n")
    with pytest.raises(ProfileError, match=r"a distribution in scipy\.stats"):
        sg.read_clients(file)


# --- memory of large windows


def small_slabs(monkeypatch: pytest.MonkeyPatch, sums: int) -> None:
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: 20_000)
    monkeypatch.setattr("servegen_gpu.backends.host.survey.alive_at_once", lambda slab: 20_000)
    monkeypatch.setattr(run_gaps, "MOST_SUMS", sums)
    monkeypatch.setattr(run_gaps, "CHUNK", 16)


@pytest.mark.parametrize("counts", ["exact", "renewal"])
def test_a_survey_of_many_requests_remembers_few_sums(counts, monkeypatch):
    pool = tiny_pool(clients=2, windows=1, rate_rps=150, silent=False, occupancy=1.0, family=GAMMA, shape=0.5)
    whole = sg.generate(pool, duration=600, counts=counts, backend="numpy")
    assert len(whole) > 100_000
    for sums in (1 << 17, 100):
        small_slabs(monkeypatch, sums)
        workload = sg.stream(pool, duration=600, counts=counts, backend="numpy")
        slabs = list(workload)
        assert same(sg.Trace.concat(slabs), whole)
        backend = workload.backend
        assert isinstance(backend, NumpyBackend)
        runs = len(backend._surveyor._known.find(workload.packed)[2].runs)
        assert runs > 5_000 if sums > 100 else 50 <= runs <= 150


# --- arguments of Python that are no such thing

NO_INTEGERS = (True, 1.0, "1", None, [1], (), np.array([1]), np.array([]), np.array("a"), np.array(1.5), 1j, object())


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_what_is_no_integer(value):
    assert whole(value) is None
    for name in ("seed", "replica", "requests", "max_input"):
        if value is not None or name in ("seed", "replica"):
            with pytest.raises(OptionError, match=f"{name} as an integer|{name} as a number"):
                sg.stream(tiny_pool(), **{name: value})


@pytest.mark.parametrize("value", [7, np.int8(7), np.uint64(7), np.array(7)], ids=repr)
def test_what_is_an_integer(value):
    found = whole(value)
    assert found == 7
    assert type(found) is int


@pytest.mark.parametrize("value", [(0,), (0, 1, 2), ("0", "1"), (0, 0), (-1, 3), 5, None, [], np.array([0, 1]), "0/3"])
def test_what_is_no_shard(value):
    with pytest.raises(OptionError, match="a shard like"):
        sg.stream(tiny_pool(), shard=value)


@pytest.mark.parametrize("value", [np.array(["exact", "renewal"]), [], {}, 3, b"exact"], ids=repr)
def test_what_is_no_choice(value):
    for name, what in {"counts": "counts", "past_end": "past_end", "backend": "a backend", "over": "over"}.items():
        with pytest.raises(OptionError, match=f"{what} among"):
            sg.stream(tiny_pool(), **{name: value})
    with pytest.raises(OptionError, match="arrivals among"):
        sg.Arrivals(value)
    with pytest.raises(OptionError, match="shape as a number"):
        sg.Arrivals("gamma", shape=np.array([1.0, 2.0]))
    with pytest.raises(OptionError, match="device as True or False"):
        sg.stream(tiny_pool(), device=value)
    with pytest.raises(OptionError, match="a name of a client as text"):
        sg.client(rate=1, input_tokens=5, output_tokens=5, name=value)


def test_a_benchmark_with_numbers_of_no_server(tmp_path):
    head = "input_tokens,output_tokens,concurrency,ttft_ms,tpot_ms\n"
    rows = ["100,10,1,20,12", "900,10,1,90,12", "100,90,8,20,14", "900,90,32,90,18", "5000,50,4,400,13"]
    file = tmp_path / "sweep.csv"
    for cell, name in enumerate(("input_tokens", "output_tokens", "concurrency", "ttft_ms", "tpot_ms")):
        for number in ("1e300", "1e-300", "inf", "-1"):
            if number == "1e-300" and name.endswith("tokens"):
                continue
            cells = rows[2].split(",")
            cells[cell] = number
            file.write_text(head + "\n".join((*rows[:2], ",".join(cells), *rows[3:])))
            with pytest.raises(OptionError, match=f"{name} that is .* in row 2"):
                sg.fit_server(file)


def test_a_benchmark_with_rows_without_tokens(tmp_path):
    """They say nothing of the time between tokens, and nothing is divided by them."""
    rows = [
        (100, 10, 1, 20, 12),
        (900, 10, 1, 90, 12),
        (100, 90, 8, 20, 14),
        (900, 90, 32, 90, 18),
        (5000, 50, 4, 400, 13),
    ]
    files = [tmp_path / name for name in ("few.csv", "more.csv")]
    for file, more in zip(files, ([], [(1, 0, 2, 0, 9), (0, 1, 4096, 0, 9)]), strict=True):
        lines = [",".join(map(str, row)) for row in (*rows, *more)]
        file.write_text("\n".join(["input_tokens,output_tokens,concurrency,ttft_ms,tpot_ms", *lines]))
    few, more = (sg.fit_server(file).server for file in files)
    assert few.step_s == pytest.approx(more.step_s)
    files[0].write_text(files[0].read_text() + f"\n{10**400},10,1,20,12")
    with pytest.raises(OptionError, match="input_tokens"):
        sg.fit_server(files[0])
