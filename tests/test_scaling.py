"""Traces rescaled, cut and thinned: exact to the microsecond, and as steady as the paper says (Fig. 16)."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pytest
from gates import check
from profiles import REAL_DATA, needs_real_data
from scipy import stats
from traces import rows, same

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace
from servegen_gpu.cli import main
from servegen_gpu.clients.scaled import scaled_turns
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.describe import describe_trace
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import read_slabs
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.scaling import MAX_TIME_US

FACTOR = 10.4
"""All requests over those of multi-turn conversations in the paper's 12 hours: 1,964,415 / 188,986."""


wrong = Trace.trusted
"""Columns of a trace as they are, however wrong."""


def conversations(n: int = 400, seed: int = 0, ties: bool = True) -> Trace:
    """Requests of conversations of 1 to 5 turns in time order, with lists, and with many equal arrivals."""
    rng = np.random.default_rng(seed)
    step = 1_000_000 if ties else 1
    of = np.sort(rng.integers(0, n // 3, n))
    begins = np.concatenate(([True], of[1:] != of[:-1]))
    turn = np.arange(n) - np.maximum.accumulate(np.where(begins, np.arange(n), 0)) + 1
    gap = np.where(begins, 0, rng.integers(0, 200_000_000 // step, n) * step)
    start = rng.integers(0, 3_600_000_000 // step, n) * step
    arrival = start[np.maximum.accumulate(np.where(begins, np.arange(n), 0))]
    elapsed = np.cumsum(gap)
    arrival = arrival + elapsed - elapsed[np.maximum.accumulate(np.where(begins, np.arange(n), 0))]
    sizes = rng.integers(0, 4, n)
    return Trace.sorted(
        {
            "arrival_us": arrival.astype(np.int64),
            "client": rng.integers(0, 9, n).astype(np.int32),
            "input_tokens": 100 + np.arange(n, dtype=np.int32),
            "output_tokens": rng.integers(1, 99, n).astype(np.int32),
            "image_tokens": Ragged(
                np.concatenate(([0], np.cumsum(sizes))), rng.integers(1, 9, sizes.sum()).astype(np.int32)
            ),
            "conversation": (of * 1_000_003).astype(np.int64),
            "turn": turn.astype(np.int32),
        },
        {"workload": "made", "duration_s": 3_600.0},
    )


def slabs_of(trace: Trace, size: int) -> list[Trace]:
    return [trace.rows(a, a + size) for a in range(0, len(trace), size)]


def joined(slabs) -> Trace:
    return Trace.concat(list(slabs))


def by_conversation(trace: Trace) -> dict[int, list[tuple[int, int]]]:
    found = defaultdict(list)
    for name, turn, time in zip(*(trace[c].tolist() for c in ("conversation", "turn", "arrival_us")), strict=True):
        found[name].append((turn, time))
    return found


# -- rescale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [10.4, 3, 1, 0.25])
@pytest.mark.parametrize("ties", [True, False])
def test_itt_moves_starts_and_nothing_else(factor, ties):
    """Against a plain loop over conversations and Python's stable sort."""
    trace = conversations(ties=ties)
    starts: dict[int, int] = {}
    expected = []
    for row in rows(trace):
        start = starts.setdefault(row[5], row[0])
        expected.append((round(start / factor) + row[0] - start, *row[1:]))
    expected.sort(key=lambda row: row[0])
    scaled = trace.rescaled(factor)
    assert rows(scaled) == expected
    before, after = by_conversation(trace), by_conversation(scaled)
    for name, turns in before.items():
        assert [turn for turn, _ in after[name]] == [turn for turn, _ in turns]
        assert np.array_equal(np.diff([t for _, t in after[name]]), np.diff([t for _, t in turns]))


def test_conversations_of_one_turn_are_scaled_as_naive_scales_them():
    trace = conversations()
    alone = Trace(trace.columns | {"conversation": np.arange(len(trace))})
    assert np.array_equal(alone.rescaled(FACTOR)["arrival_us"], alone.rescaled(FACTOR, "naive")["arrival_us"])


@pytest.mark.parametrize("factor", [10.4, 0.5])
def test_naive_divides_every_arrival(factor):
    trace = conversations()
    scaled = sg.rescale(trace, factor, "naive")
    assert scaled["arrival_us"].tolist() == [round(t / factor) for t in trace["arrival_us"].tolist()]
    assert same(Trace(scaled.columns | {"arrival_us": trace["arrival_us"]}), trace)
    assert scaled.provenance["duration_s"] == 3_600 / factor
    assert scaled.provenance["changes"] == [{"rescale": factor, "method": "naive"}]


def test_tails_are_kept_or_cut_at_the_scaled_end():
    trace = conversations()
    kept, cut = trace.rescaled(FACTOR), trace.rescaled(FACTOR, tails="cut")
    end_us = round(3_600e6 / FACTOR)
    assert len(kept) == len(trace)
    inside = int((kept["arrival_us"] < end_us).sum())
    assert 0 < inside < len(kept)
    assert same(cut, kept.rows(0, inside))
    assert cut.provenance["duration_s"] == pytest.approx(3_600 / FACTOR, abs=1e-6)
    assert kept.provenance["duration_s"] == (kept["arrival_us"][-1] + 1) / 1e6


def test_a_trace_that_does_not_state_its_length_ends_with_its_last_request():
    columns = {"arrival_us": np.array([0, 4, 7, 9]) * 1_000_000, "conversation": np.array([0, 1, 1, 2])}
    cut = Trace(columns).rescaled(0.5, tails="cut")
    assert cut["arrival_us"].tolist() == [0, 8_000_000, 11_000_000, 18_000_000]
    assert cut.provenance["duration_s"] == 18.000002


def test_the_end_is_not_in_a_cut_trace():
    columns = {"arrival_us": np.array([4, 6, 7]) * 1_000_000, "conversation": np.array([1, 1, 1])}
    cut = Trace(columns, {"duration_s": 10.0}).rescaled(2, tails="cut")
    assert cut["arrival_us"].tolist() == [2_000_000, 4_000_000]  # not the one at 5 s


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_streams_give_what_whole_traces_give(size):
    trace = conversations()
    for change in (
        lambda t: sg.rescale(t, FACTOR, "naive"),
        lambda t: sg.rescale(t, FACTOR),
        lambda t: sg.between(t, "10m", "25m"),
        lambda t: sg.between(t, "10m", "25m", keep_times=True),
        lambda t: sg.between(t, "9h"),
        lambda t: sg.thin(t, 0.3, seed=5),
    ):
        whole, stream = change(trace), joined(change(iter(slabs_of(trace, size))))
        assert same(whole, stream)
        assert whole.provenance == stream.provenance
        assert stream.first_row == 0
    rows = [slab.first_row for slab in sg.rescale(slabs_of(trace, size), 2, "naive")]
    assert rows == list(range(0, len(trace), size))


def test_requests_without_conversations_are_thinned_alike_in_slabs():
    trace = conversations()
    plain = Trace({name: column for name, column in trace.columns.items() if name not in ("conversation", "turn")})
    assert same(plain.thinned(0.4), joined(sg.thin(iter(slabs_of(plain, 33)), 0.4)))


def test_empty_traces_stay_empty():
    none = conversations().rows(0, 0)
    for changed in (none.rescaled(2), none.rescaled(2, "naive"), none.between("1m", "2m"), none.thinned(0.5)):
        assert len(changed) == 0
        assert changed.schema() == none.schema()
    assert Trace(none.columns).rescaled(0.5).provenance["duration_s"] == 0


# -- between -----------------------------------------------------------------------------------------------------------


def test_a_slice_has_the_requests_of_its_time():
    trace = conversations()
    time = trace["arrival_us"]
    part = trace.between("10m", 1_200)
    inside = np.flatnonzero((time >= 600_000_000) & (time < 1_200_000_000))
    assert 0 < len(inside) < len(trace)
    assert np.array_equal(part["arrival_us"], time[inside] - 600_000_000)
    assert np.array_equal(part["turn"], trace["turn"][inside])
    assert part.provenance["duration_s"] == 600
    edges = Trace({"arrival_us": np.arange(5) * 1_000_000}).between(1, 3)
    assert edges["arrival_us"].tolist() == [0, 1_000_000]
    kept = trace.between("10m", "20m", keep_times=True)
    assert np.array_equal(kept["arrival_us"], time[inside])
    parts = [trace.between(0, "10m", keep_times=True), kept, trace.between("20m", keep_times=True)]
    assert same(joined(parts), trace)
    assert trace.between("50m").provenance["duration_s"] == 600
    assert trace.between("50m").provenance["changes"][-1] == {"from_s": 3000, "keep_times": False}
    assert trace.between("50m", "90m").provenance["duration_s"] == 600


def test_times_and_seeds_reach_their_bounds():
    last = Trace({"arrival_us": np.array([0, MAX_TIME_US - 1])})
    assert len(last.between(0)) == 2
    with pytest.raises(OptionError, match="in order of time, from 0 us on"):
        Trace.trusted({"arrival_us": np.array([0, MAX_TIME_US])}, {}).between(0)
    assert len(last.thinned(1 - 1e-12, seed=2**64 - 1)) == 2
    with pytest.raises(OptionError, match="seed as an integer"):
        last.thinned(0.5, seed=2**64)


def test_a_stream_is_read_no_further_than_the_end():
    def slabs():
        yield from slabs_of(conversations(), 50)[:4]
        pytest.fail("read on")

    parts = list(sg.between(slabs_of(conversations(), 5), "10m", "40m"))
    assert [part.first_row for part in parts] == np.cumsum([0, *map(len, parts[:-1])]).tolist()
    assert len(parts) > 3
    assert all(map(len, parts))
    third = conversations().rows(100, 150)["arrival_us"][-1] / 1e6
    assert len(joined(sg.between(slabs(), 0, third))) > 0


# -- thin --------------------------------------------------------------------------------------------------------------


def test_conversations_are_kept_whole_and_nested():
    trace = conversations(3_000)
    names = {share: set(trace.thinned(share, seed=1)["conversation"].tolist()) for share in (0.1, 0.5, 1)}
    assert names[0.1] < names[0.5] < names[1] == set(trace["conversation"].tolist())
    before, after = by_conversation(trace), by_conversation(trace.thinned(0.5, seed=1))
    assert all(before[name] == turns for name, turns in after.items())
    assert set(trace.thinned(0.5, seed=2)["conversation"].tolist()) != names[0.5]


def test_what_is_kept_is_a_promise():
    n = np.arange(24)
    assert Trace({"arrival_us": n}).thinned(0.25, seed=3)["arrival_us"].tolist() == [1, 3, 4, 5, 11, 18, 20, 21]
    named = Trace({"arrival_us": n, "conversation": n}).thinned(0.25, seed=3)
    assert named["conversation"].tolist() == [3, 5, 7, 8, 14, 17, 22]


def test_words_below_the_share_are_kept_and_the_next_one_is_not():
    trace = Trace({"arrival_us": np.arange(200)})
    word = draw(np, derive_key(3), Purpose.THINNING, ordinal=np.arange(200), client=0, window=1)[0]
    for row in range(20):
        for more in (0, 1):
            kept = trace.thinned((int(word[row]) + more) / 2**32, seed=3)
            assert kept["arrival_us"].tolist() == np.flatnonzero(word < word[row] + np.uint64(more)).tolist()


@pytest.mark.parametrize("column", ["conversation", None])
def test_what_is_kept_does_not_depend_on_blocks(column, monkeypatch):
    trace = Trace({"arrival_us": np.arange(90)} | ({column: np.arange(90) << 33} if column else {}))
    whole = trace.thinned(0.5, seed=2)
    monkeypatch.setattr("servegen_gpu.blocks.BLOCK", 7)
    assert same(trace.thinned(0.5, seed=2), whole)


@pytest.mark.statistical
@pytest.mark.parametrize("column", ["conversation", None])
def test_the_share_is_kept(column):
    n = 50_000
    columns = {"arrival_us": np.arange(n)} | ({column: np.arange(n) << 33} if column else {})
    kept = Trace(columns).thinned(0.3, seed=11)["arrival_us"]
    check(stats.binomtest(len(kept), n, 0.3).pvalue, "share kept")
    gaps = np.bincount(np.minimum(np.diff(kept), 12))[1:]
    p = 0.3 * 0.7 ** np.arange(12)
    p[-1] = 1 - p[:-1].sum()
    check(stats.chisquare(gaps, p * gaps.sum()).pvalue, "kept independently")


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rescaled(0), "factor as a number, above 0"),
        (lambda t: t.rescaled(1e300), r"factor as a number, up to 1e\+15"),
        (lambda t: t.rescaled(1e-320), "stretch it less"),
        (lambda t: t.rescaled(float("nan")), "factor"),
        (lambda t: t.rescaled("2"), "factor"),
        (lambda t: t.rescaled(1e-9), "arrivals below"),
        (lambda t: t.rescaled(1e-9, "naive"), "arrivals below"),
        (lambda t: t.rescaled(2, "both"), "method as itt or naive"),
        (lambda t: t.rescaled(2, tails="drop"), "tails as keep or cut"),
        (lambda t: Trace({"arrival_us": t["arrival_us"]}).rescaled(2), 'a column "conversation".*arrival_us'),
        (lambda t: Trace({"client": t["client"]}).rescaled(2, "naive"), "a column arrival_us"),
        (lambda t: wrong(t.columns | {"conversation": t["image_tokens"]}).rescaled(2), 'a column "conversation"'),
        (lambda t: wrong(t.columns | {"arrival_us": t["image_tokens"]}).between(0, 1), "arrival_us of numbers"),
        (lambda t: wrong(t.columns | {"arrival_us": t["arrival_us"][::-1]}).rescaled(2), "in order of time.*row 1;"),
        (lambda t: wrong({"arrival_us": np.array([0, 5, 3, 9])}).between(0, 1), "in order of time.*row 2;"),
        (
            lambda t: wrong(t.columns | {"arrival_us": t["arrival_us"] - 10**12}).between(0, 1),
            "in order of time.*row 0;",
        ),
        (lambda t: Trace(t.columns, {"shard": "1/8"}).rescaled(2), "shard 1/8.*join all first: servegen-gpu join"),
        (lambda t: t.between("20m", "10m"), "a start before the end"),
        (lambda t: t.between("-1s"), "start from 0 s on"),
        (lambda t: t.between(0, "10 parsecs"), "units are"),
        (lambda t: list(sg.thin([3], 0.5)), "slabs of a trace"),
        (lambda t: list(sg.between("t.parquet", 1, 2)), "an iterable of its slabs"),
        (lambda t: list(sg.rescale([3], 2, "naive")), "slabs of a trace"),
        (lambda t: sg.rescale([3], 2), "slabs of a trace"),
        (lambda t: t.thinned(0), "share as a number, above 0"),
        (lambda t: t.thinned(1.1), "share"),
        (lambda t: t.thinned(0.5, seed=-1), "seed"),
        (lambda t: t.thinned(0.5, seed=2**64), "seed"),
        (lambda t: t.thinned(0.5).thinned(0.5), "thin with another seed"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(OptionError, match=message):
        change(conversations())


def test_provenance_of_a_file_may_be_anything():
    odd = {"duration_s": "long", "changes": "none", "shard": None}
    trace = Trace(conversations().columns, odd | {"shard": "1/1"})
    for changed in (trace.rescaled(2), trace.rescaled(2, "naive"), trace.between("1m", "2m"), trace.thinned(0.5)):
        assert len(changed.provenance["changes"]) == 1
    with pytest.raises(OptionError, match="shard None"):
        Trace(trace.columns, odd).rescaled(2)
    assert "conversation" not in describe_trace([trace])["lengths"]  # names are no lengths
    last_s = trace["arrival_us"][-1] / 1e6
    for stated in ("long", None, [], float("nan"), float("inf"), -1):
        trace = Trace(trace.columns, {"duration_s": stated})
        assert describe_trace([trace])["duration_s"] == last_s
        assert len(sg.in_windows(trace, 1.0)) == int(last_s)


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "parts"])
def test_the_command_writes_what_the_library_makes(tmp_path, capsys, name):
    trace = conversations()
    source, out = tmp_path / f"source-{name}", tmp_path / name
    trace.write(source)
    assert run("scale", source, "-o", out, "--factor", FACTOR) == 0
    assert f"{len(trace):,} requests" in capsys.readouterr().out
    if name.endswith("jsonl"):
        assert len(out.read_text().splitlines()) == len(trace)
        return
    assert same(sg.read_trace(out), trace.rescaled(FACTOR))
    arguments = ("--from", "10m", "--to", "40m", "--thin", 0.5, "--seed", 3, "--factor", 2, "--method", "naive")
    assert run("scale", source, "-o", out, *arguments, "--quiet") == 0
    assert capsys.readouterr().out == ""
    ours = trace.between("10m", "40m").thinned(0.5, seed=3).rescaled(2, "naive")
    back = sg.read_trace(out)
    assert same(back, ours)
    assert back.provenance == ours.provenance
    assert [{"from_s", "thin", "rescale"} & set(c) for c in back.provenance["changes"]] == [
        {"from_s"},
        {"thin"},
        {"rescale"},
    ]
    assert sum(map(len, read_slabs(out))) == len(ours)
    assert run("inspect", out) == 0
    assert "changes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--factor, --thin, --from, --to, --requests, --max-input or --max-output"),
        (("--factor", "-1"), "factor as a number, above 0"),
        (("--factor", "2"), 'a column "conversation"'),
        (("--from", "2h"), "requests in .* at the times asked for"),
        (("--from", "2m", "--to", "1m"), "a start before the end"),
        (("--thin", "2"), "share"),
    ],
)
def test_the_command_refuses_and_writes_nothing(tmp_path, capsys, arguments, message):
    source, out = tmp_path / "source.parquet", tmp_path / "out.parquet"
    trace = conversations()
    Trace({name: trace[name] for name in ("arrival_us", "client")}, trace.provenance).write(source)
    assert run("scale", source, "-o", out, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert re.search(message, said.err)
    assert [path.name for path in tmp_path.iterdir()] == ["source.parquet"]


def test_the_command_refuses_what_is_no_trace(tmp_path, capsys):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    for source in ("a.parquet", "missing.parquet"):
        assert run("scale", tmp_path / source, "-o", tmp_path / "out.parquet", "--factor", 2) == 2
    assert not (tmp_path / "out.parquet").exists()
    assert "error: expected" in capsys.readouterr().err


# -- A9: Fig. 16 of the paper ------------------------------------------------------------------------------------------
#
# The paper takes the requests of multi-turn conversations of deepseek-r1, scales them to the size of the original
# workload, and finds naive scaling burstier than the original and ITT scaling even steadier than it; it prints no
# numbers. Original is here the whole workload of a day, 9.6 % of whose requests are in conversations of 3.5 turns. All
# three have one mean rate, so that their figures compare: ITT, which loses the turns past the end of the scaled day, a
# fifth of all, is scaled by so much more.
#
# Burstiness is how requests per minute change from one minute to the next (two-sample variance, which a slow trend
# does not move), in windows of five such changes, median over windows: as CV, and as index of dispersion (variance /
# mean, 1 for Poisson). A scaled day has 27 windows only, so means of ten replicas are compared: of naive
# scaling, the dispersion is then known to 5 %, and it lies 10 to 20 % above the original's.
#
# Not every figure shows the order. Inter-arrival times do not: thousands of clients together are nearly Poisson from
# one request to the next. Counts in seconds show both methods below the original: its clients send bursts of seconds,
# of which first turns, at a thirtieth of the rate, keep little. In counts over 100 s and more
# ITT comes up to the original, because it, too, squeezes the day. Against the multi-turn requests alone, at their own
# tenfold smaller rate, counts do not compare, and naive scaling divides all gaps and so keeps their CV.

COUNT_S, WINDOW, REPLICAS = 60, 5, 10


def multi_turn(trace: Trace) -> Trace:
    """The requests whose conversation has others in the trace."""
    _, of, size = np.unique(trace["conversation"], return_inverse=True, return_counts=True)
    return trace.take(np.flatnonzero(size[of] > 1))


def burstiness(trace: Trace) -> tuple[float, float]:
    """CV and index of dispersion of counts, from their changes, medians over windows."""
    n = int(trace.provenance["duration_s"] // COUNT_S)
    count = np.bincount(trace["arrival_us"] // (COUNT_S * 10**6), minlength=n)[:n].astype(float)
    windows = (n - 1) // WINDOW
    variance = (np.diff(count) ** 2 / 2)[: windows * WINDOW].reshape(windows, WINDOW).mean(1)
    mean = ((count[1:] + count[:-1]) / 2)[: windows * WINDOW].reshape(windows, WINDOW).mean(1)
    return float(np.median(np.sqrt(variance) / mean)), float(np.median(variance / mean))


def to_the_rate_of(original: Trace, conversations: Trace) -> Trace:
    """Conversations with their inter-turn times, scaled to the mean rate of the original."""
    factor = len(original) / len(conversations)
    for _ in range(4):
        itt = conversations.rescaled(factor, "itt", tails="cut")
        missing = len(original) / (len(itt) * factor)
        factor *= missing
    assert missing == pytest.approx(1, abs=0.01)
    return itt


def as_in_fig_16(itt: np.ndarray, original: np.ndarray, naive: np.ndarray) -> bool:
    """Whether means over replicas, float64[replicas, 2], are in the paper's order, dispersions by 5 % at least."""
    (cv_i, d_i), (cv_o, d_o), (cv_n, d_n) = (figures.mean(0) for figures in (itt, original, naive))
    return bool(cv_i <= cv_o < cv_n and 1.05 * d_i < d_o < d_n / 1.05)


def check_fig_16(pool: sg.ClientPool) -> None:
    figures = np.empty((3, REPLICAS, 2))
    for replica in range(REPLICAS):
        original = sg.generate(pool, duration="24h", seed=1, replica=replica)
        alone = multi_turn(original)
        factor = len(original) / len(alone)
        assert factor == pytest.approx(FACTOR, rel=0.1)
        scaled = to_the_rate_of(original, alone), original, alone.rescaled(factor, "naive")
        figures[:, replica] = [burstiness(trace) for trace in scaled]
    itt, original, naive = figures
    assert as_in_fig_16(itt, original, naive), figures.mean(1)
    # planted: inter-turn times that shrink with the rest, and naive scaling that leaves them alone
    assert not as_in_fig_16(naive, original, naive)
    assert not as_in_fig_16(itt, original, itt)


def test_burstiness_is_as_in_fig_16():
    check_fig_16(sg.population("deepseek-r1", clients=1_000))


@needs_real_data
def test_burstiness_is_as_in_fig_16_on_released_clients():
    check_fig_16(sg.load_servegen(REAL_DATA, "deepseek-r1", cache=False).with_conversations("deepseek-r1"))


SQUEEZED = ("generate", "deepseek-r1", "--clients", 20, "--duration", "10m", "--squeeze-turns", "--quiet", "-o")


def test_the_command_squeezes_turns(tmp_path):
    assert run(*SQUEEZED, tmp_path / "t.parquet", "--scale", 3) == 0
    pool = sg.population("deepseek-r1", clients=20)
    assert same(Trace.read(tmp_path / "t.parquet"), sg.generate(pool.rescaled(3, "naive"), duration="10m"))


def test_the_command_cuts_tails_and_warms_up(tmp_path):
    path, cut = tmp_path / "t.parquet", tmp_path / "cut.parquet"
    pool = sg.population("deepseek-r1", clients=20)
    generate = ("generate", "deepseek-r1", "--clients", 20, "--duration", "10m", "--quiet")
    assert run(*generate, "--warmup", "20m", "-o", path) == 0
    trace = Trace.read(path)
    assert same(trace, sg.generate(pool, duration="10m", warmup=1200))
    assert not same(trace, sg.generate(pool, duration="10m"))
    assert run("scale", path, "--factor", 5, "--tails", "cut", "--quiet", "-o", cut) == 0
    assert same(Trace.read(cut), trace.rescaled(5, tails="cut"))
    assert len(Trace.read(cut)) < len(trace)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "got none"), (("--scale", 3, "--rate", 5), "got --rate"), (("--scale", 3, "--peak", 5), "got --peak")],
)
def test_squeezed_turns_need_a_scale_alone(tmp_path, capsys, arguments, message):
    assert run(*SQUEEZED, tmp_path / "t.parquet", *arguments) == 2
    error = capsys.readouterr().err
    assert "--scale alone with --squeeze-turns" in error
    assert message in error
    assert not list(tmp_path.iterdir())


def test_generated_conversations_keep_their_inter_turn_times():
    trace = multi_turn(sg.generate(sg.population("deepseek-r1", clients=100), duration="2h"))
    before, after = by_conversation(trace), by_conversation(trace.rescaled(FACTOR))
    assert len(before) > 1_000
    for name, turns in before.items():
        (first, start_us), *_ = after[name]
        assert after[name] == [(turn, time - turns[0][1] + start_us) for turn, time in turns]
        assert start_us == round(turns[0][1] / FACTOR)
        assert first == turns[0][0]


# -- pools -------------------------------------------------------------------------------------------------------------


def test_inter_turn_times_of_a_model_are_scaled():
    turns = d.Pmf([2, 4], [1, 1])
    gap = d.Mixture([d.LogNormal(median=100, sigma=2, max=3_600), d.Pmf([30, 45], [1, 3]), d.Constant(7)], min=2)
    scaled = scaled_turns(sg.TurnModel(0.1, turns=turns, gap_s=gap, session_s=7_200), 1 / 8)
    assert (scaled.share, scaled.session_s) == (0.1, 900)
    assert isinstance(scaled.gap_s, d.Mixture)
    body, fixed, constant = scaled.gap_s.parts
    assert (body.median, body.sigma, body.max, scaled.gap_s.min) == (12.5, 2, 450, 0.25)
    assert np.asarray(fixed.values).tolist() == [3.75, 5.625]
    assert constant.value == 0.875
    with pytest.raises(OptionError, match="factor"):
        scaled_turns(scaled, 0)


@pytest.mark.parametrize("factor", [4, 0.5])
def test_a_pool_with_scaled_inter_turn_times_is_scaled_naively(factor):
    """Sessions at X times the rate, turns at 1 / X of the distance: mean inter-turn times and rates say so."""
    model = sg.TurnModel(0.8, turns=d.Pmf([2, 4], [1, 1]), gap_s=d.LogNormal(median=60, sigma=0.5, max=600))
    pool = sg.pool([sg.client(rate=2, input_tokens=100, output_tokens=100)]).with_conversations(model)
    faster = pool.with_conversations(scaled_turns(model, 1 / factor))
    plain = sg.generate(pool, duration="4h", seed=2)
    naive = sg.generate(faster, duration=f"{4 / factor}h", scale=factor, seed=2)
    assert len(naive) == pytest.approx(len(plain), rel=0.04)

    def mean_gap_us(trace: Trace) -> float:
        turns = by_conversation(trace).values()
        return float(np.mean(np.concatenate([np.diff([time for _, time in t]) for t in turns])))

    assert mean_gap_us(naive) == pytest.approx(mean_gap_us(plain) / factor, rel=0.03)
