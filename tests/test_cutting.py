"""Traces cut to so many requests and to lengths: generated so, and cut afterwards; against loops over requests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from profiles import TURNS, talking, tiny_pool, write_servegen
from traces import rows, same, take

import servegen_gpu as sg
from servegen_gpu import OptionError, RateError, Trace
from servegen_gpu.cli import main
from servegen_gpu.cutting import Limiter
from servegen_gpu.rates import resolve_rate
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.spans import span_for

POOLS = {category: tiny_pool(category) for category in FIELDS} | {
    "talking": talking(),
    "talking of images": talking("multimodal", contexts=(0,)),
}
HOUR = {name: sg.generate(pool, rate=2, duration="1h", backend="numpy") for name, pool in POOLS.items()}
LIMITS = {
    "language": {"max_input": 90, "max_output": 40},
    "reason": {"max_input": 1000, "max_output": 500},
    "multimodal": {"max_input": 4000, "max_output": 40},
    "talking": {"max_input": 600, "max_output": 300},
    "talking of images": {"max_input": 5000, "max_output": 200},
}


def cut(trace: Trace, size: int) -> list[Trace]:
    return [trace.rows(a, a + size) for a in range(0, len(trace), size)]


# -- so many requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("n", [0, 1, 777, 10**6])
def test_the_head_of_slabs_is_the_head_of_the_trace(name: str, n: int) -> None:
    trace = HOUR[name]
    head = trace.head(n)
    assert same(head, trace.rows(0, n))
    assert same(trace[:n], head)
    assert "duration_s" not in head.provenance
    assert head.provenance["changes"] == [{"requests": n}]
    for size in (100, 777, 10**6):
        slabs = list(sg.head(iter(cut(trace, size)), n))
        assert same(Trace.concat(slabs), head)
        assert {slab.header() for slab in slabs} == {head.header()}
        assert [slab.first_row for slab in slabs] == np.cumsum([0, *map(len, slabs[:-1])]).tolist()


def test_a_stream_is_read_no_further_than_its_last_request() -> None:
    read = []
    slabs = (read.append(len(slab)) or slab for slab in cut(HOUR["language"], 100))
    assert sum(map(len, sg.head(slabs, 200))) == 200
    assert read == [100, 100]


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"rate": 3},
        {"rate": 3, "start": "1h", "memory": "20MB"},
        {"scale": 2.5, "start": 1799.5},
        {"rate": [(0, 1.0), (3600, 0.0), (7200, 4.0)]},
        {"rate": sg.Schedule([0, 90_000], [1.0, 3.0], "linear")},
        {"rate": lambda t: 1 + np.sin(t / 1000) ** 2, "counts": "renewal"},
        {"rate": 2, "counts": "servegen"},
    ],
)
@pytest.mark.parametrize("name", ["language", "talking"])
def test_so_many_requests_are_the_first_of_any_longer_trace(name: str, keywords: dict[str, Any]) -> None:
    pool = POOLS[name]
    found = sg.generate(pool, requests=5000, backend="numpy", **keywords)
    longer = sg.generate(pool, duration="3h", backend="numpy", **keywords)
    assert len(found) == 5000
    assert len(longer) > 5000
    assert same(found, longer.head(5000))
    assert found.header() == longer.head(5000).header()
    stated = sg.stream(pool, requests=5000, duration="3h", backend="numpy", **keywords)
    assert same(Trace.concat(list(stated)), found)
    assert same(stated.joined(), found)


def test_many_requests_take_days_and_few_take_a_moment() -> None:
    pool = tiny_pool(rate_rps=0.01)
    assert len(sg.generate(pool, requests=1)) == 1
    workload = sg.stream(pool, requests=4000)
    assert len(workload.joined()) == 4000
    assert workload.packed.end_us > 2 * 86_400 * 10**6
    assert any("repeat" in note for note in workload.notes)
    assert not sg.stream(pool, requests=10).notes


def test_requests_of_a_packed_workload() -> None:
    packed = sg.stream(POOLS["language"], rate=2, duration="1h").packed
    assert same(sg.generate(packed, requests=50), sg.generate(packed).head(50))


def test_a_span_goes_as_far_as_it_can() -> None:
    """To the end of the data or of a schedule, and up to where nobody is active any more."""
    pool = tiny_pool(silent=False)
    short = sg.Schedule([0, 7200], [1.0, 1.0], "linear")
    with pytest.raises(OptionError, match=r"10,000,000 requests, got 7,1\d\d, the last at 7\d*.* ask for fewer"):
        sg.generate(pool, rate=short, requests=10_000_000)
    with pytest.raises(OptionError, match=r"10,000,000 requests, got .* the last at 86[34]"):
        sg.generate(pool, past_end="end", requests=10_000_000)
    early = pool.where(lambda w: w.start_s < 3600)
    assert len(sg.generate(early, rate=5, requests=15_000)) == 15_000
    with pytest.raises(OptionError, match=r"20,000 requests, got 1[78],.* the last at 3[56]"):
        sg.generate(early, rate=5, requests=20_000)
    with pytest.raises(RateError, match="active client"):
        sg.generate(early, rate=5, requests=100, start="2h")
    assert sg.generate(early, rate=5, requests=20_000, empty="skip")["arrival_us"][-1] > 86_400 * 10**6


def test_a_span_without_requests_ends() -> None:
    """A rate that falls to nothing for ever: a year of windows is looked at, not all of time."""
    pool = tiny_pool()
    rate = resolve_rate([(0, 1.0), (3600, 0.0)])
    _, end_s, _ = span_for(10_000, pool, rate, None, "error", "wrap", dropping=False)
    assert 365 * 86_400 < end_s < 368 * 86_400


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"requests": 0}, "requests from 1 on, got 0"),
        ({"requests": -5}, "requests as an integer"),
        ({"requests": 2.5}, "requests as an integer"),
        ({"requests": True}, "requests as an integer"),
        ({"requests": 10, "shard": "1/2"}, "requests of a whole trace, got shard 1/2"),
        ({"requests": 10, "peak": 3}, "a duration with requests under a peak"),
        ({"requests": 10, "start": -5}, "a start from 0 s on"),
        ({"requests": 10, "start": "2d", "past_end": "end"}, "a start before the data's end"),
        ({"requests": 10**6, "duration": "1h"}, "1,000,000 requests, got .*ask for fewer, or for a longer duration"),
        ({"over": "drop"}, "max_input or max_output with over"),
        ({"over": "cut", "max_input": 5}, "over among cap, drop"),
        ({"max_input": 0}, "max_input of at least 1 token"),
        ({"max_output": "9"}, "max_output as an integer"),
        ({"max_output": 2**31}, "max_output as an integer from 0 to 2147483647"),
    ],
)
def test_bad_cuts_are_refused(keywords: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        sg.generate(POOLS["language"], **keywords)


def test_shares_cut_to_rows_are_no_longer_shares() -> None:
    shares = [sg.generate(POOLS["language"], rate=2, shard=f"{k}/2") for k in (1, 2)]
    assert same(Trace.concat(shares), HOUR["language"])
    with pytest.raises(OptionError, match="whole shares, got part 1, cut to some of its rows"):
        Trace.concat([share.head(10) for share in shares])


# -- slices and masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_", [slice(5, 9), slice(None), slice(-7, None), slice(3, 300, 7), slice(9, 5)])
def test_slices_are_traces(rows_: slice) -> None:
    trace = HOUR["multimodal"]
    found = trace[rows_]
    assert same(found, take(trace, np.arange(len(trace))[rows_]))
    assert found.first_row == 0
    assert found.provenance["changes"] == [{"rows": list(rows_.indices(len(trace)))}]
    assert ("duration_s" in found.provenance) == (rows_.stop is None)
    assert trace["client"] is trace.columns["client"]


def test_what_is_no_slice() -> None:
    trace = HOUR["language"]
    with pytest.raises(OptionError, match=r"a column, or a slice, got 5; take one request as trace\[5:6\]"):
        trace[5]
    with pytest.raises(OptionError, match="forwards in time, got a step of -1"):
        trace[::-1]
    with pytest.raises(KeyError, match="expected a column 'tokens'"):
        trace["tokens"]
    assert len(trace[10**9 :]) == len(trace[0:0]) == 0
    assert len(trace[: 10**9]) == len(trace)


def test_where_keeps_the_requests_of_a_mask() -> None:
    trace = HOUR["talking"]
    short = trace["input_tokens"] < 200
    found = trace.where(short)
    assert same(found, take(trace, np.flatnonzero(short)))
    assert found.provenance["changes"] == [{"where": "mask", "kept": short.sum(), "of": len(trace)}]
    assert found.provenance["duration_s"] == 3600
    assert found.first_row == 0
    for keep in (pd.Series(short), short.tolist(), lambda t: t["input_tokens"] < 200):
        assert same(trace.where(keep), found)
    assert len(trace.where(np.zeros(len(trace), np.bool_))) == 0
    for wrong in (np.arange(len(trace)), short[1:], True, None, lambda t: t["input_tokens"]):
        with pytest.raises(OptionError, match=r"a mask of .* booleans, or a function"):
            trace.where(wrong)


# -- lengths -----------------------------------------------------------------------------------------------------------


def slow_cap(trace: Trace, max_input: int, max_output: int) -> list[tuple[Any, ...]]:
    """Request by request, conversation by conversation."""
    names, capped = list(trace), []
    last: dict[int, tuple[int, int]] = {}  # input and answer of the last turn, and what they have lost
    for values in rows(trace):
        row = dict(zip(names, values, strict=True))
        said = row["output_tokens"] - row.get("reason_tokens", 0)
        row["output_tokens"] = min(row["output_tokens"], max_output)
        if "reason_tokens" in row:
            row["reason_tokens"] = min(row["reason_tokens"], row["output_tokens"])
        if (talk := row.get("conversation", -1)) >= 0:
            repeated = row["input_tokens"] - row["new_tokens"]
            end, lost = last.get(talk, (0, 0))
            lost = lost if repeated and repeated == end else 0
            less = said - (row["output_tokens"] - row.get("reason_tokens", 0))
            last[talk] = row["input_tokens"] + said, lost + less
            row["input_tokens"] -= lost
        if row["input_tokens"] > max_input:
            row["input_tokens"] = max_input
            if "new_tokens" in row:
                row["new_tokens"] = max_input
            if "text_tokens" in row:
                items = sum(map(sum, (row[f"{m}_tokens"] for m in ("image", "audio", "video"))))
                row["text_tokens"] = min(row["text_tokens"], max_input - items)
        capped.append(tuple(row.values()))
    return capped


def slow_drop(trace: Trace, max_input: int, max_output: int) -> list[tuple[Any, ...]]:
    """Request by request."""
    names, kept, ended = list(trace), [], set()
    for values in rows(trace):
        row = dict(zip(names, values, strict=True))
        talk = row.get("conversation", -1)
        if row["input_tokens"] > max_input or row["output_tokens"] > max_output or talk in ended:
            ended |= {talk} if talk >= 0 else set()
        else:
            kept.append(values)
    return kept


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("over", ["cap", "drop"])
def test_limits_are_those_of_a_loop_in_slabs_of_any_size(name: str, over: Any) -> None:
    trace, limits = HOUR[name], LIMITS[name]
    found = trace.limited(**limits, over=over)
    slow = slow_cap if over == "cap" else slow_drop
    assert rows(found) == slow(trace, **limits)
    assert 0 < len(found) <= len(trace)
    assert rows(found) != rows(trace)
    assert found["input_tokens"].max() <= limits["max_input"]
    assert found["output_tokens"].max() <= limits["max_output"]
    assert found.provenance["changes"] == [limits | {"over": over}]
    assert found.schema() == trace.schema()
    Trace(found.columns)  # which refuses what does not fit together
    for size in (1, 37, 1000):
        slabs = list(sg.limit(iter(cut(trace, size)), **limits, over=over))
        assert same(Trace.concat(slabs), found)
        assert {slab.header() for slab in slabs} == {found.header()}
        assert [slab.first_row for slab in slabs] == np.cumsum([0, *map(len, slabs[:-1])]).tolist()


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("over", ["cap", "drop"])
def test_limits_on_generation_are_limits_on_the_trace(name: str, over: Any) -> None:
    limits = LIMITS[name] | {"over": over}
    made = {"rate": 2, "backend": "numpy", "memory": "20MB"}
    limited = HOUR[name].limited(**limits)
    found = sg.generate(POOLS[name], **made, **limits)
    assert same(found, limited)
    assert found.header() == limited.header()
    n = len(limited) // 2
    some = sg.generate(POOLS[name], **made, **limits, requests=n)
    assert same(some, limited.head(n))
    assert some.header() == limited.head(n).header()


def test_one_limit_leaves_the_other_length_alone() -> None:
    trace = HOUR["reason"]
    assert np.array_equal(trace.limited(max_input=9)["output_tokens"], trace["output_tokens"])
    assert np.array_equal(trace.limited(max_output=9)["input_tokens"], trace["input_tokens"])
    assert same(trace.limited(max_input=10**6, max_output=10**6), trace)


def test_later_turns_repeat_the_shorter_answers() -> None:
    """Where an input was the input and the answer before and new tokens, it is so afterwards."""
    trace = HOUR["talking"]
    found = trace.limited(max_output=100)
    chats: dict[int, list[int]] = {}
    for row, chat in enumerate(trace["conversation"].tolist()):
        chats.setdefault(chat, []).append(row)
    pairs = [pair for members in chats.values() for pair in pairwise(members)]

    def repeats(of: Trace, before: int, after: int) -> bool:
        said = int(of["output_tokens"][before]) - int(of["reason_tokens"][before])
        told = int(of["input_tokens"][before]) + said
        return bool(said and int(of["input_tokens"][after]) - int(of["new_tokens"][after]) == told)

    histories = [pair for pair in pairs if repeats(trace, *pair)]
    assert len(histories) > 100
    shorter = [found["input_tokens"][b] < trace["input_tokens"][b] for _, b in histories]
    assert np.mean(shorter) > 0.2
    held = [repeats(found, a, b) for a, b in histories if found["output_tokens"][a] > found["reason_tokens"][a]]
    assert all(held)
    assert np.array_equal(found["new_tokens"], trace["new_tokens"])


def test_edits_have_no_answers_that_could_be_shorter() -> None:
    for name, changes in (("edit", False), ("new", True)):
        trace = sg.generate(tiny_pool("reason").with_conversations(TURNS[name]), duration="1h", seed=3)
        shorter = Trace.concat([*sg.limit(iter(cut(trace, 100)), max_output=20)])
        assert (shorter["output_tokens"] < trace["output_tokens"]).sum() > 100
        assert (shorter["input_tokens"] != trace["input_tokens"]).any() == changes


def test_what_is_above_is_counted() -> None:
    trace = HOUR["language"]
    above = trace["input_tokens"] > 90, trace["output_tokens"] > 40
    for over in ("cap", "drop"):
        limiter = Limiter(90, 40, over)
        for slab in cut(trace, 100):
            limiter(slab)
        assert (limiter.inputs, limiter.outputs) == tuple(int(mask.sum()) for mask in above)
        assert limiter.dropped == (int((above[0] | above[1]).sum()) if over == "drop" else 0)
        limiter = Limiter(90, 40, over, requests=150)
        kept = limiter(trace)
        read = 150 if over == "cap" else int(np.flatnonzero(~(above[0] | above[1]))[149]) + 1
        assert len(kept) == 150
        assert (limiter.inputs, limiter.outputs) == tuple(int(mask[:read].sum()) for mask in above)


def test_what_cannot_be_limited_is_refused() -> None:
    images = HOUR["multimodal"]
    items = sum(images[f"{m}_tokens"].sums() for m in ("image", "audio", "video"))
    row = int(np.argmax(items > 1000))
    words = (
        f"items of at most 1,000 tokens together, which are not cut, got {items[row]:,} tokens of items in row {row}"
    )
    with pytest.raises(OptionError, match=words):
        images.limited(max_input=1000)
    assert images.limited(max_input=1000, over="drop")["input_tokens"].max() <= 1000
    trace = HOUR["talking"]
    hashed = trace.with_hash_ids(16)
    for limits in ({"max_input": 9}, {"max_output": 9}):
        with pytest.raises(OptionError, match=r"without ids of blocks to cap.*compute ids last"):
            hashed.limited(**limits)
    for limits in ({"max_input": 900}, {"max_output": 300}):
        kept = hashed.limited(**limits, over="drop")
        assert same(kept, trace.limited(**limits, over="drop").with_hash_ids(16))
    assert "hash_ids" in HOUR["language"].with_hash_ids(16).limited(max_output=9)
    with pytest.raises(OptionError, match="max_input or max_output, got none"):
        trace.limited()
    with pytest.raises(OptionError, match="a column output_tokens to limit"):
        Trace({"arrival_us": [1], "input_tokens": [3]}).limited(max_input=2)
    with pytest.raises(OptionError, match="lengths as they are for device=True"):
        sg.stream(POOLS["language"], device=True, max_input=5)


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture
def tiny(tmp_path: Any) -> list[Any]:
    write_servegen(tmp_path / "data", "reason", "tiny")
    return ["tiny", "--profiles", tmp_path / "data", "--rate", 2]


CUTS = (
    ["--requests", 500],
    ["--max-input", 60, "--max-output", 300],
    ["--max-input", 60, "--over", "drop", "--requests", 500],
)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_generated_so_and_cut_afterwards_are_one_file(
    tiny: list[Any], tmp_path: Any, capsys: Any, cuts: list[Any], suffix: str
) -> None:
    whole, made, cut_ = (tmp_path / f"{name}.{suffix}" for name in ("whole", "made", "cut"))
    assert run("generate", *tiny, "-o", whole) == 0
    lasts = [] if "--requests" in cuts else ["--duration", "1h"]
    capsys.readouterr()
    assert run("generate", *tiny, *lasts, *cuts, "-o", made) == 0
    said = capsys.readouterr().err
    for command in ("convert", "scale"):
        assert run(command, whole, *cuts, "-o", cut_) == 0
        assert made.read_bytes() == cut_.read_bytes()
        assert said == capsys.readouterr().err
    assert len(sg.read_trace(made)) == (500 if "--requests" in cuts else len(sg.read_trace(whole)))
    assert ("above the limits" in said) == ("--max-input" in cuts)
    assert ("requests left out" in said) == ("drop" in cuts)


@pytest.mark.parametrize(
    ("cuts", "words"),
    [
        (["--requests", 10**6, "--duration", "1h"], "1,000,000 requests, got 7,"),
        (["--requests", 0], "requests from 1 on"),
        (["--requests", 5, "--shard", "1/2"], "requests of a whole trace"),
        (["--over", "drop"], "with over"),
        (["--max-input", -1], "max_input as an integer"),
        (["--max-output", 1, "--max-input", 1, "--over", "drop"], "requests within --max-input and --max-output"),
        (["--keep-shares"], "with --keep-shares"),
    ],
)
def test_the_command_refuses_and_writes_nothing(
    tiny: list[Any], tmp_path: Any, capsys: Any, cuts: list[Any], words: str
) -> None:
    assert run("generate", *tiny, *cuts, "-o", tmp_path / "t.csv") == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_scale_refuses_too_few_and_writes_nothing(tiny: list[Any], tmp_path: Any, capsys: Any) -> None:
    assert run("generate", *tiny, "-o", tmp_path / "t.parquet") == 0
    assert run("scale", tmp_path / "t.parquet", "--requests", 10**6, "-o", tmp_path / "u.parquet") == 2
    assert "1,000,000 requests, got 7," in capsys.readouterr().err
    assert run("scale", tmp_path / "t.parquet", "--over", "drop", "-o", tmp_path / "u.parquet") == 2
    assert "--max-input or --max-output with --over" in capsys.readouterr().err
    assert not (tmp_path / "u.parquet").exists()
