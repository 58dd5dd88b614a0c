"""Sensitivity: functions with known answers, a workload with one, noise, files, the command, and what is refused."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu import distributions as d
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.studies import morris, sobol, tornado
from servegen_gpu.studies.bootstrap import percentile_interval, resamples
from servegen_gpu.studies.file import write_study
from servegen_gpu.studies.measures import measures_of
from servegen_gpu.studies.parameters import applied, parse_vary, scaled_rate
from servegen_gpu.studies.runs import noise_share, run
from servegen_gpu.studies.sensitivity_text import BAR
from servegen_gpu.studies.source import Source

POOL = sg.pool(
    [sg.client(rate=1, arrivals="gamma", cv=1.5, input_tokens=1000, output_tokens=d.Exponential(200), count=12)]
)
VARY = ["rate=0.5:1.5", "length_scale=0.5:2"]
SHORT = {"rate": 20, "duration": "2m"}


def ishigami(u):
    x = (2 * u - 1) * np.pi
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


def ishigami_indices():
    """First-order and total ones, in closed form (Saltelli et al., Global Sensitivity Analysis, 2008, section 4.5)."""
    v1, v2, v13 = 0.5 * (1 + np.pi**4 / 50) ** 2, 49 / 8, np.pi**8 / 100 * (1 / 18 - 1 / 50)
    v = v1 + v2 + v13
    return np.array([v1, v2, 0]) / v, np.array([v1 + v13, v2, v13]) / v


def test_sobol_indices_of_ishigamis_function():
    first, total = ishigami_indices()
    u = sobol.points(3, 1024, seed=7)
    y = np.column_stack((ishigami(u), 5 + 3 * ishigami(u), np.ones(len(u)), np.where(u[:, 0] > 0.9, np.nan, 1)))
    found = sobol.figures(y, 3, seed=7, confidence=0.95)
    for metric in (0, 1):
        np.testing.assert_allclose(found["first"][metric], first, atol=0.05)
        np.testing.assert_allclose(found["total"][metric], total, atol=0.05)
    for name, known in (("first", first), ("total", total)):
        assert (found[f"{name}_low"][0] <= known).all()
        assert (known <= found[f"{name}_high"][0]).all()
        width = found[f"{name}_high"][0] - found[f"{name}_low"][0]
        assert (width < 0.25).all()
        assert (width > 0).all()
    assert all(np.isnan(of[2:]).all() for of in found.values())
    planted = np.concatenate((y[: 2 * 1024], np.roll(y[2 * 1024 :], 1024, axis=0)))  # parameters in another order
    assert abs(sobol.figures(planted, 3, seed=7, confidence=0.95)["total"][0] - total).max() > 0.1


def test_morris_of_a_linear_function_is_exact():
    slopes = np.array([3.0, -2.0, 0.0])
    u = morris.points(3, 10, seed=1)
    assert u.min() >= 0
    assert u.max() <= 1
    assert (np.count_nonzero(np.diff(u.reshape(10, 4, 3), axis=1), axis=2) == 1).all()
    found = morris.figures((u @ slopes + 1)[:, None], 3, seed=1, confidence=0.95)
    np.testing.assert_allclose(found["mu"][0], slopes, atol=1e-12)
    for name in ("mu_star", "mu_star_low", "mu_star_high"):
        np.testing.assert_allclose(found[name][0], abs(slopes), atol=1e-12)
    np.testing.assert_allclose(found["sigma"], 0, atol=1e-12)


def test_morris_tells_what_is_not_linear():
    u = morris.points(3, 400, seed=2)
    found = morris.figures(ishigami(u)[:, None], 3, seed=2, confidence=0.9)
    assert (found["sigma"] > 2).all()  # of none is the effect the same everywhere
    assert found["mu_star"][0, 1] == pytest.approx(7 * 0.75 / (2 / 3), rel=1e-9)  # |sin²| of the levels differs by 3/4
    assert (found["mu_star_low"] <= found["mu_star"]).all()
    assert (found["mu_star"] <= found["mu_star_high"]).all()


def test_tornado_of_a_function_is_exact():
    u = tornado.points(np.array([0.5, 0.25]))
    noise = np.array([0.0, 4.0, 8.0])  # of a replica, the same everywhere: it moves metrics, and no swing
    y = (u @ [10.0, -4.0])[:, None, None] + noise
    found = tornado.figures(y, 0.95)
    assert found["base"][0].tolist() == [8, 8]
    assert found["at_low"][0].tolist() == [3, 9]
    assert found["at_high"][0].tolist() == [13, 5]
    assert found["swing"][0].tolist() == found["swing_low"][0].tolist() == found["swing_high"][0].tolist() == [10, -4]
    own = y + np.arange(len(u))[:, None, None] * noise  # not the same: intervals are there
    assert (tornado.figures(own, 0.95)["swing_high"] > tornado.figures(own, 0.95)["swing"] + 1).all()
    assert np.isnan(tornado.figures(y[..., :1], 0.95)["swing_low"]).all()


def test_resamples_are_of_all_alike():
    counts = resamples(50, seed=3)
    assert (counts.sum(axis=1) == 50).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.2)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.05)
    low, high = percentile_interval(np.arange(101.0), 0.9)
    assert (low, high) == (pytest.approx(5), pytest.approx(95))


def test_total_tokens_are_rate_times_length():
    """A workload whose answer is known: of the product, on the same points, and so in closed form."""
    found = sg.sensitivity(POOL, VARY, "input_tokens", "sobol", samples=16, replicas=2, seed=3, **SHORT)
    places = sobol.points(2, 16, seed=3)
    product = (0.5 + places[:, 0]) * (0.5 + 1.5 * places[:, 1])
    known = sobol.figures(product[:, None], 2, seed=3, confidence=0.95)
    for name in ("first", "total"):
        np.testing.assert_allclose(found.table[name], known[name][0], atol=0.03)
    assert found.table["noise_share"].max() < 0.01
    # Var(XY) = Vx my² + Vy mx² + Vx Vy, of uniforms of mean 1 and 1.25
    vx, vy, mx, my = 1 / 12, 1.5**2 / 12, 1.0, 1.25
    parts = np.array([vx * my**2, vy * mx**2, vx * vy])
    places = sobol.points(2, 512, seed=3)
    found = sobol.figures((0.5 + places[:, :1]) * (0.5 + 1.5 * places[:, 1:]), 2, seed=3, confidence=0.95)
    np.testing.assert_allclose(found["first"][0], parts[:2] / parts.sum(), atol=0.03)
    np.testing.assert_allclose(found["total"][0], (parts[:2] + parts[2]) / parts.sum(), atol=0.03)


def test_methods_agree_about_a_workload():
    keywords = {"metrics": ["requests", "input_tokens"], "replicas": 3, **SHORT}
    one = sg.sensitivity(POOL, [*VARY, "burstiness=0.8:1.2:log"], threads=1, **keywords)
    again = sg.sensitivity(POOL, {"burstiness": (0.8, 1.2, "log"), "length_scale": (0.5, 2), "rate": (0.5, 1.5)},
                           threads=2, **keywords)  # fmt: skip
    assert one.table.equals(again.table)
    assert one.settings == again.settings
    rows = one.table.set_index(["metric", "parameter"])
    assert rows.loc[("requests", "rate"), "base"] == pytest.approx(20 * 120, rel=0.1)
    assert rows.loc[("requests", "rate"), "swing"] == pytest.approx(20 * 120, rel=0.1)
    assert rows.loc[("requests", "length_scale"), "swing"] == 0.0
    tokens = rows.loc[("input_tokens", "length_scale")]
    assert tokens["at_high"] == 2 * tokens["base"] == 4 * tokens["at_low"]
    assert one.settings["base"] == {"rate": 1.0, "burstiness": pytest.approx(1.0), "length_scale": 1.0}
    effects = sg.sensitivity(POOL, VARY, method="morris", samples=6, **keywords).table
    effects = effects.set_index(["metric", "parameter"])
    assert effects.loc[("requests", "rate"), "mu"] == pytest.approx(20 * 120, rel=0.1)
    assert effects.loc[("requests", "length_scale"), "mu_star"] == 0
    assert effects.loc[("input_tokens", "rate"), "sigma"] > 0.1 * effects.loc[("input_tokens", "rate"), "mu_star"]


def test_a_point_is_a_trace_of_the_changed_pool():
    pool, how = tiny_pool(clients=4), {"duration": "20m", "start": "40m", "occupancy": "window", "counts": "renewal"}
    vary = {"burstiness": (0.7, 1.4), "clients": (1, 2)}
    found = sg.sensitivity(pool, vary, ["requests", "input_tokens"], replicas=2, seed=5, scale=3, **how)
    values = {"burstiness": 1.4, "clients": found.settings["base"]["clients"]}
    changed, factor = applied(pool, values, derive_key(5))
    traces = [
        sg.generate(changed, rate=scaled_rate(None, factor, scale=3), seed=5, replica=replica, **how)
        for replica in range(2)
    ]
    rows = found.table.set_index(["metric", "parameter"])["at_high"]
    assert rows["requests", "burstiness"] == np.mean([len(trace) for trace in traces])
    assert rows["input_tokens", "burstiness"] == np.mean([trace["input_tokens"].sum() for trace in traces])


def test_shares_have_their_own_base():
    pool = sg.population("deepseek-r1", clients=40)
    found = sg.sensitivity(
        pool,
        ["top_share=0.5:0.9", "conversation_share=0.2:0.6", "growth=2:3"],
        lambda trace: {"talking": (trace["conversation"] >= 0).mean(), "requests": len(trace)},
        replicas=1,
        rate=5,
        duration="5m",
        warmup="10m",
    )
    base = found.settings["base"]
    assert base["growth"] == 2.5
    assert base["conversation_share"] == pytest.approx(0.4)  # its own is below the range
    assert 0.5 < base["top_share"] < 0.9
    assert base["top_share"] != 0.7
    assert found.metrics == ("talking", "requests")
    rows = found.table.set_index(["metric", "parameter"])
    assert rows.loc[("talking", "conversation_share"), "swing"] > 0.2
    assert found.table[["swing_low", "noise_share"]].isna().all(axis=None)
    assert "noise unknown" in str(found)


def test_noise_is_what_common_numbers_leave():
    source = Source(POOL, 20, {"duration": "2m", "counts": "renewal"}, {}, tuple(parse_vary(VARY)), 0)
    measures = measures_of("requests", 120)
    values = np.column_stack((np.linspace(0.95, 1.05, 12), np.ones(12)))
    common = run(source, measures, values, 8).y
    apart = np.concatenate(
        [
            run(Source(POOL, 20, source.packing, {}, source.parameters, 1 + seed), measures, point[None], 8).y
            for seed, point in enumerate(values)
        ]
    )
    assert noise_share(apart)[0] > 5 * noise_share(common)[0] > 0
    # a known one: 12 points of variance 4, residuals of variance 8 in means of 8, and a replica's own beside
    rng = np.random.default_rng(5)
    known = rng.normal(0, 2, (4000, 1, 1)) + rng.normal(0, 9, (1, 1, 8)) + rng.normal(0, 8**0.5, (4000, 1, 8))
    assert noise_share(known)[0] == pytest.approx(1 / 5, rel=0.1)
    assert np.isnan(noise_share(known[..., :1])).all()
    assert np.isnan(noise_share(np.ones((3, 1, 4)))).all()


def test_a_fault_says_where_it_is():
    pool = sg.pool([sg.client(rate={"0h": 1, "1h": 0}, input_tokens=9, output_tokens=9) for _ in range(2)])
    pool = sg.join([pool, sg.pool([sg.client(rate={"0h": 0, "1h": 1}, input_tokens=9, output_tokens=9)])])
    with pytest.raises(sg.RateError, match=r"nobody active in the windows starting at .* \(at clients 0\.1\)"):
        sg.sensitivity(pool, "clients=0.1:1", "requests", rate=9, duration="2h", replicas=1)


def test_files_hold_all_of_it(tmp_path, monkeypatch):
    found = sg.sensitivity(POOL, VARY, "requests", replicas=2, **SHORT)
    found.write(tmp_path / "s.parquet")
    again = sg.Sensitivity.read(tmp_path / "s.parquet")
    assert again.table.equals(found.table)
    assert again.settings == found.settings
    assert str(again) == str(found)
    monkeypatch.setenv("TERM", "dumb")
    assert "█" not in str(found)
    assert "#" * BAR in str(found)
    assert repr(again) == "<Sensitivity of requests to rate, length_scale: tornado>"
    write_study(tmp_path / "other.parquet", "montecarlo", found.settings, found.table)
    write_study(tmp_path / "columns.parquet", "sensitivity", found.settings, found.table.drop(columns="swing"))
    for name, said in (("other", "of kind montecarlo"), ("columns", "a table with the columns metric, parameter")):
        with pytest.raises(OptionError, match=said):
            sg.Sensitivity.read(tmp_path / f"{name}.parquet")


def test_the_command_prints_and_writes(tmp_path, capsys):
    pool = ["sensitivity", "m-small", "--clients", "20", "--rate", "5", "--duration", "1m", "--start", "10h"]
    words = [*pool, "--vary", "rate=0.5:2:log", "--vary", "length_tail=0.8:1.2", "--metrics", "requests,rate_rps"]
    words += ["--replicas", "2"]
    assert main([*words, "--method", "morris", "--samples", "4", "-o", str(tmp_path / "s.parquet")]) == 0
    said = capsys.readouterr().out
    assert "m-small: morris, 12 points of 2 replicas of 60 s, seed 0" in said
    lines = said.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("requests, noise"))
    assert lines[at + 2].startswith("  rate 0.5–2 log")
    assert lines[at + 2].endswith("█" * BAR)
    assert "█" not in lines[at + 3]
    assert max(map(len, lines)) <= 120
    assert sg.Sensitivity.read(tmp_path / "s.parquet").method == "morris"
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["parameter"] for row in rows] == ["rate", "length_tail"] * 2
    assert rows[0]["at_low"] < rows[0]["base"] < rows[0]["at_high"]
    for more, said in (
        (["-o", "x.csv"], "an output that ends in .parquet"),
        (["--metrics", "gap_p101_s", "-o", str(tmp_path / "none" / "s.parquet")], "create"),  # before anything else
        (["--metrics", "nope"], "expected a figure among"),
        (["--vary", "rate=1:2"], "every parameter once"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "s.parquet"]


@pytest.mark.parametrize("shared", [True, False])
def test_points_wait_for_each_other_where_a_backend_is_not_shared(monkeypatch: pytest.MonkeyPatch, shared: bool):
    monkeypatch.setattr(NumpyBackend, "shared", shared)
    threads = set()

    def of_trace(trace: sg.Trace) -> int:
        threads.add(threading.current_thread().name)
        return len(trace)

    sg.sensitivity(POOL, VARY, of_trace, threads=2, backend="numpy", **SHORT)
    assert ("MainThread" in threads) == (len(threads) == 1) == (not shared)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vary": []}, "one parameter or more that vary"),
        ({"vary": "speed=1:2"}, "a parameter among rate, growth"),
        ({"vary": "rate=2:1"}, "exchange the ends"),
        ({"vary": "rate=1:1"}, "parameters with a range, got rate at 1 alone"),
        ({"vary": "top_share=0.1:0.9", "pool": POOL.select(range(9))}, "more than 10 clients"),
        ({"metrics": "speed"}, "a figure among"),
        ({"metrics": "requests_peak_600s"}, "bins of 600 s"),
        ({"metrics": []}, "one metric or more"),
        ({"method": "guess"}, "a method among tornado, morris, sobol, got 'guess'"),
        ({"samples": 4}, "tornado without samples"),
        ({"method": "morris", "samples": 3}, "4 or more trajectories, for morris, got 3"),
        ({"method": "sobol", "samples": 0}, "16 or more rows.*got 0 samples; take 16"),
        ({"method": "sobol", "samples": 100}, "a power of 2, for sobol, got 100 samples; take 128"),
        ({"method": "sobol", "vary": "rate=1:2"}, "two parameters or more for sobol"),
        ({"replicas": 0}, "one replica or more"),
        ({"replicas": 1.5}, "replicas"),
        ({"confidence": 1}, "confidence above 0 and below 1"),
        ({"threads": 0}, "threads as an integer from 1 to 1024"),
        ({"shard": "1/2"}, "a study without requests, replica, shard and device, got shard"),
        ({"pool": "m-smal"}, "a workload among .*, got 'm-smal'; did you mean 'm-small'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said):
    keywords = {"pool": POOL, "vary": VARY, "metrics": "requests", **SHORT} | changes
    with pytest.raises(OptionError, match=said):
        sg.sensitivity(**keywords)
