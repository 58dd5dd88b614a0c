"""Comparisons: distances against brute force, verdicts on what is alike and on planted differences, and the command."""

from __future__ import annotations

import json
import xml.dom.minidom

import numpy as np
import pytest
from profiles import TURNS, tiny_pool
from scipy import stats
from scipy.spatial.distance import cdist

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.comparing.comparison import verdict
from servegen_gpu.comparing.distances import Distances
from servegen_gpu.comparing.figures import figures_of
from servegen_gpu.comparing.floors import Floor, draws
from servegen_gpu.errors import OptionError

CLIENTS = {
    "chat": (6.0, 3.0, {40: 3, 300: 2, 900: 1}, {20: 2, 150: 3}),
    "code": (3.0, 0.8, {1500: 1, 2400: 2, 5000: 1}, {4: 3, 9: 2}),
}


def model() -> sg.ClientPool:
    """Two kinds of clients, one of them bursty."""
    return sg.pool(
        [
            sg.client(rate=rate, arrivals="gamma", cv=cv, input_tokens=inputs, output_tokens=outputs)
            for rate, cv, inputs, outputs in CLIENTS.values()
        ]
    )


def trace(replica: int = 0, duration: str = "3000s") -> sg.Trace:
    return sg.generate(model(), duration=duration, replica=replica, counts="renewal")


LOG = trace()


def changed(**columns) -> sg.Trace:
    return sg.Trace({name: columns.get(name, LOG[name]) for name in LOG}, LOG.provenance)


def energy(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


def test_distances_are_those_of_brute_force():
    a, b = LOG.rows(0, 1500), trace(1).rows(0, 900)
    b = sg.Trace(dict(b.columns) | {"input_tokens": b["input_tokens"] * 2})
    figures = figures_of(a), figures_of(b)
    found = Distances(figures[0]).of(figures[1])
    logs = {}
    for side in ("input", "output"):
        x, y = (t[f"{side}_tokens"] for t in (a, b))
        assert found[f"{side}_ks"] == pytest.approx(stats.ks_2samp(x, y).statistic)
        sd = np.log1p(x).std()
        logs[side] = np.log1p(x) / sd, np.log1p(y) / sd
        assert found[f"{side}_energy"] == pytest.approx(energy(*(v[:, None] for v in logs[side])), rel=1e-6)
    pairs = [np.stack([logs["input"][at], logs["output"][at]], axis=1) for at in (0, 1)]
    assert found["pair_energy"] == pytest.approx(energy(*pairs), rel=0.05, abs=1e-3)  # in bins
    gaps = [np.diff(t["arrival_us"]) for t in (a, b)]
    assert found["gap_ks"] == pytest.approx(stats.ks_2samp(*gaps).statistic, abs=1e-3)


def test_gaps_are_compared_on_the_coarser_ticks():
    """Rounded stamps: KS of gaps is 0.5 without regard to ticks; with it, that of chance, 0.02 (both have 26,000)."""
    coarse = changed(arrival_us=LOG["arrival_us"] // 1_000_000 * 1_000_000)
    found = sg.compare(coarse, trace(1))
    assert found.log.tick_us == 1_000_000
    assert Distances(figures_of(coarse)).of(figures_of(trace(1)))["gap_ks"] < 0.02
    assert found["idc_1s"].verdict == "-"
    assert "ticks of 1 s" in found["idc_1s"].why
    assert found["idc_60s"].verdict != "-"
    assert "ticks of 1 s" in found["gap_ks"].why


def test_a_trace_is_like_itself():
    found = sg.compare(LOG, LOG)
    assert {row.verdict for row in found.rows} == {"inside"}
    assert found.dispersion_error["other"] == 0
    assert found["pair_energy"].other == 0


def test_floors_are_those_of_block_resamples():
    """Bootstrap of the dispersion at 1 s by hand, with the same blocks: the resamples are the same."""
    figures = figures_of(LOG)
    floor = Floor(figures)
    counts = np.bincount(LOG["arrival_us"] // 1_000_000, minlength=3000)[:3000]
    twice = np.concatenate((counts, counts))
    by_hand = []
    for starts in floor.starts:
        x = np.concatenate([twice[at : at + floor.block] for at in starts])
        by_hand.append(x.var(ddof=1) / x.mean())
    low, high, halves = floor.interval("idc_1s")
    assert (low, high) == pytest.approx(tuple(np.quantile(by_hand, (0.05, 0.95))))
    assert halves == pytest.approx([x.var(ddof=1) / x.mean() for x in (counts[:1500], counts[1500:])])
    largest = [max(twice[at : at + floor.block].max() for at in starts) for starts in floor.starts]
    assert floor.interval("peak_1s").low == np.quantile(largest, 0.05)
    drawn = draws(40_000, 10, 7)
    assert stats.chisquare(np.bincount(drawn)).pvalue > 1e-4
    assert draws(5, 10, 7).tolist() == drawn[:5].tolist()


def test_replicas_of_the_same_model_are_inside():
    """Intervals hold 90 % each: of 40 figures, which depend on each other, a quarter may lie beyond (fixed seed)."""
    for other in (trace(1), [trace(r) for r in range(1, 6)]):
        found = sg.compare(LOG, other)
        counts = found.verdicts()
        assert counts["inside"] >= 3 * (counts["near"] + counts["outside"])
        assert counts["outside"] <= 3
    assert found["idc_1s"].spread[0] <= found["idc_1s"].other <= found["idc_1s"].spread[1]
    first, second = sg.between(LOG, 0, 1500), sg.between(LOG, 1500, 3000)
    counts = sg.compare(first, second).verdicts()
    assert counts["inside"] >= 3 * (counts["near"] + counts["outside"])


RNG = np.random.default_rng(5)
PLANTED = {
    "longer inputs": (changed(input_tokens=LOG["input_tokens"] * 2), ["input_ks", "input_energy", "mean_input"]),
    "shuffled outputs": (
        changed(output_tokens=RNG.permutation(LOG["output_tokens"])),
        ["pair_energy", "io_spearman"],
    ),
    "no bursts": (changed(arrival_us=np.sort(RNG.integers(0, 3 * 10**9, len(LOG)))), ["idc_1s", "idc_10s", "gap_cv"]),
    "half of it": (LOG.thinned(0.5), ["requests", "rate_rps", "peak_60s"]),
}


@pytest.mark.parametrize("what", list(PLANTED))
def test_planted_differences_are_outside(what):
    other, figures = PLANTED[what]
    found = sg.compare(LOG, other)
    assert [found[name].verdict for name in figures] == ["outside"] * len(figures)


def test_the_naive_baseline_is_beside():
    found = sg.compare(LOG, model(), naive=True, replicas=4)
    assert found.other.traces == found.naive.traces == 4
    assert found["pair_energy"].naive_verdict == "outside"
    assert found["pair_energy"].verdict == "inside"
    assert found.verdicts(naive=True)["outside"] > found.verdicts()["outside"]
    assert "naive" in found.table()
    assert sg.compare(LOG, LOG, naive="poisson", only="gap_cv", replicas=1)["gap_cv"].naive == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("category", ["multimodal", "reason"])
def test_slabs_files_and_kinds_of_columns(category, tmp_path):
    log, other = (sg.generate(tiny_pool(category), duration="1500s", rate=4, replica=r) for r in (0, 1))
    other.write(tmp_path / "b.parquet")
    slabs = [other.rows(lo, lo + 700) for lo in range(0, len(other), 700)]
    whole = sg.compare(log, other)
    assert sg.compare(log, slabs).to_json() == whole.to_json()
    assert sg.compare(log, tmp_path / "b.parquet").to_json() == whole.to_json()
    assert sg.compare(log, [slabs, tmp_path / "b.parquet", other]).other.traces == 3
    known = {"multimodal": "image_ks", "reason": "reason_ks"}[category]
    assert whole[known].verdict in ("inside", "near")


def test_conversations_and_caches():
    def talks(replica: int) -> sg.Trace:
        pool = tiny_pool().with_conversations(TURNS["history"])
        return sg.generate(pool, duration="4h", rate=1, replica=replica).with_hash_ids(64)

    found = sg.compare(talks(0), talks(1))
    names = {"talk_share", "talk_turns", "turn_gap_p50_s", "turn_growth", "turn_gap_ks", "cache_100pct", "top_1_share"}
    assert {found[name].verdict for name in names} <= {"inside", "near"}
    shuffled = talks(1)
    ids = np.random.default_rng(0).permutation(shuffled["conversation"])
    other = sg.Trace.trusted(dict(shuffled.columns) | {"conversation": ids}, shuffled.provenance)
    assert sg.compare(talks(0), other)["turn_growth"].verdict == "outside"


def test_json_frame_table_and_plot():
    found = sg.compare(LOG, [trace(1), trace(2)], naive=True, replicas=2)
    again = sg.Comparison.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert again.rows == found.rows
    assert again.table() == found.table()
    frame = found.to_pandas()
    assert list(frame.index) == [row.name for row in found.rows]
    assert frame.loc["idc_10s", "log"] == found["idc_10s"].log
    assert np.isnan(frame.loc["pair_energy", "log"])
    table = found.table()
    for row in found.rows:
        assert row.label in table
    drawn = xml.dom.minidom.parseString(found.svg())
    assert drawn.getElementsByTagName("title")[0].firstChild.data
    assert "dispersion of requests, 10 s" in drawn.getElementsByTagName("desc")[0].firstChild.data
    assert len(drawn.getElementsByTagName("polyline")) == 3 + 4 * 3
    assert again.svg() == found.svg()
    assert "NaN" not in found.to_json()


def test_verdicts():
    assert [verdict("scale", x, 2, 4) for x in (2, 4, 1.7, 4.9, 1.5, 5.1)] == [
        *["inside"] * 2,
        *["near"] * 2,
        *["outside"] * 2,
    ]
    assert [verdict("share", x, -0.1, 0.1) for x in (0.1, 0.115, -0.13)] == ["inside", "near", "outside"]
    assert [verdict("ks", x, 0, 0.02) for x in (0.02, 0.029, 0.031)] == ["inside", "near", "outside"]
    assert verdict("energy", float("nan"), 0, 1) == "-"
    assert [verdict("scale", x, -4, -2) for x in (-3, -4.5, -1.7, -6)] == ["inside", "near", "near", "outside"]


def test_little_logs_say_why_they_say_nothing():
    few = sg.compare(LOG.rows(0, 20), LOG.rows(20, 40))
    assert {row.why for row in few.rows} == {"fewer than 30 requests"}
    short = sg.compare(sg.between(LOG, 0, 1500), sg.between(LOG, 1500, 3000))
    assert short["idc_600s"].why == "the log lasts 1,500 s, for fewer than 5 windows"
    tiny = sg.compare(sg.between(LOG, 0, 8), sg.between(LOG, 8, 16))
    assert "fewer than 12 blocks of 1 s" in tiny["rate_rps"].why
    longer = sg.compare(sg.between(LOG, 0, 1000), LOG)
    assert longer["peak_10s"].why == "traces of other lengths than the log"
    constant = sg.Trace({"arrival_us": np.arange(2000) * 10**6, "input_tokens": [7] * 2000})
    same = sg.compare(constant, constant)
    assert same["input_ks"].verdict == "inside"
    assert same["serial_input"].verdict == "-"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: sg.compare(LOG, LOG, only="idc"), "a group .* or figures among"),
        (lambda: sg.compare(LOG, LOG, only="talk_share"), "figures that both sides have"),
        (lambda: sg.compare(LOG.rows(0, 1), LOG), "a log of at least two requests"),
        (lambda: sg.compare(LOG.rows(0, 0), LOG), "a trace with requests"),
        (lambda: sg.compare(LOG, LOG.rows(0, 0)), "a trace with requests"),
        (lambda: sg.compare(LOG, []), "at least one trace to compare"),
        (lambda: sg.compare(LOG, 3), "a Trace, traces, a path or a pool"),
        (lambda: sg.compare(LOG, model(), replicas=0), "replicas of at least 1"),
        (lambda: sg.compare(iter([LOG]), LOG, naive=True), "a log that can be read twice"),
        (lambda: sg.compare(LOG, LOG)["idc"], "a figure among"),
        (lambda: sg.Comparison.from_json("{}"), "JSON of a comparison"),
        (lambda: sg.compare(LOG, "nothing.parquet"), "an existing trace"),
    ],
)
def test_bad_input_is_refused(call, expected):
    with pytest.raises(OptionError, match=expected):
        call()


def test_the_command(tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("log.csv", "a.parquet", "b.jsonl")]
    for replica, path in enumerate(paths):
        trace(replica, "600s").write(path)
    out = [str(tmp_path / name) for name in ("c.json", "c.svg", "c.csv", "c.txt")]
    outputs = [word for path in out for word in ("-o", path)]
    assert main(["compare", *paths, "--naive", "--replicas", "2", *outputs]) == 0
    printed = capsys.readouterr().out
    assert "dispersion of requests, 10 s" in printed
    assert "2 traces of" in printed
    found = sg.Comparison.from_json((tmp_path / "c.json").read_text())
    assert found.table() + "\n" == (tmp_path / "c.txt").read_text() == printed
    assert (tmp_path / "c.svg").read_text().startswith("<svg")
    assert main(["compare", *paths[:2], "--json", "--only", "peaks,*_ks"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert "peak_10s" in names
    assert "input_ks" in names
    assert "idc_1s" not in names
    for bad, said in (
        ([paths[0], paths[1], "--only", "idc"], "a group"),
        ([paths[0], str(tmp_path / "none.csv")], "an existing trace"),
        ([paths[0], paths[1], "-o", "x.png"], "an output that ends in"),
    ):
        assert main(["compare", *bad]) == 2
        assert said in capsys.readouterr().err
