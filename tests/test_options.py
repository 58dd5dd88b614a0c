"""Arguments as people write them, and unknown names: what is read, what is refused, and what was meant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu import options
from servegen_gpu.backends import choose_backend
from servegen_gpu.errors import OptionError, nearest
from servegen_gpu.rates import resolve_rate
from servegen_gpu.serving.job import ROUTINGS

TIMES: dict[Any, float] = {
    **{"90": 90, "90 s": 90, "10 minutes": 600, "0.5h": 1800, "1h30m": 5400, "2d12h": 216_000, "1 h 30 min": 5400},
    **{"1:30": 5400, "1:30:00": 5400, "0:01:30.5": 90.5, "36:00": 129_600},  # hours first, as on a clock
    **{
        "500ms": 0.5,
        "1e3": 1000,
        "1,000 s": 1000,
        "1_000s": 1000,
        "7D": 604_800,
        "-1h30m": -5400,
        "2 weeks": 1_209_600,
    },
    **{90: 90.0, 0.5: 0.5},
}


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_times(text: Any, seconds: float) -> None:
    assert options.seconds("duration", text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "h", "1:5", "1:60", "1:30:60", "30m1h", "1h30", "1m1m", "1,5h", "10 parsecs", "nan", "1e999", "1 2", True],
)
def test_what_is_no_time(text: Any) -> None:
    with pytest.raises(OptionError, match=r"duration as seconds or like .*hours and minutes.*units are"):
        options.seconds("duration", text)


@pytest.mark.parametrize(
    ("text", "rps"),
    {
        **{"5": 5, "1k": 1000, "1e3": 1000, "1_000": 1000, "1,000": 1000, "5rps": 5, "5 req/s": 5, "5 qps": 5},
        **{"300/min": 5, "300 rpm": 5, "18k requests per hour": 5, "0.5 requests/s": 0.5, "2M": 2e6},
    }.items(),
)
def test_rates(text: str, rps: float) -> None:
    assert resolve_rate(text).value == rps


@pytest.mark.parametrize("text", ["5m", "5 apples", "1,5", "5/parsec", "rps", "5 rps of deepseek"])
def test_what_is_no_rate_is_looked_for_as_a_file(text: str) -> None:
    with pytest.raises(sg.RateError, match=rf"a rate such as 5, 5rps or 300/min, or a readable schedule.*{text}"):
        resolve_rate(text)


def test_counts_sizes_and_shares() -> None:
    counts = {"500": 500, "10k": 10_000, "1.5M": 1_500_000, "1e6": 10**6, "1_000": 1000, "1,000": 1000, "-3": -3}
    assert {text: options.count("n", text) for text in counts} == counts
    assert options.count("n", str(2**64 - 1)) == 2**64 - 1  # not by way of a float
    sizes = {"2GB": 2 * 10**9, "1GiB": 2**30, "512 MB": 512 * 10**6, "2g": 2 * 10**9, "1.5 kb": 1500, 7: 7}
    assert {text: options.budget_bytes(text) for text in sizes} == sizes
    shares = {"10%": 0.1, "0.1": 0.1, "50 %": 0.5, "2x": 2.0, "1e-2": 0.01}
    assert {text: options.number("share", text) for text in shares} == shares
    for wrong in ("1.5", "x", "", "1e99", "10%", "1,00", "0x10"):
        with pytest.raises(OptionError, match="n as a whole number, such as 500, 10k"):
            options.count("n", wrong)
    for wrong in ("lots", "2 apples", "nan", "1e400", None, True):
        with pytest.raises(OptionError, match="memory as bytes"):
            options.budget_bytes(wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"thin as a number, such as 0.5, 50%"):
        options.number("thin", "half")


MISSPELLED: dict[str, Callable[[], Any]] = {
    "m-small": partial(sg.population, "m_small"),
    "deepseek-r1": lambda: tiny_pool().with_conversations("deepsek-r1"),
    "mooncake": lambda: sg.write(sg.Trace({"arrival_us": [0]}), "t", "moonckae"),
    "parquet": lambda: sg.write(sg.Trace({"arrival_us": [0]}), "t", "parkuet"),
    "requests_peak_10s": lambda: sg.metrics(["requests_peek_10s"], 60),
    "ttft_p99": lambda: sg.metrics(["tftt_p99"], 60),
    "llama-3-8b-a100": partial(sg.load_server, "lama-3-8b-a100"),
    "native": partial(choose_backend, "natve"),
    "renewal": lambda: sg.stream(tiny_pool(), counts="renewals"),
    "rate": lambda: sg.Parameter("rat", 1, 2),
    "gamma": lambda: sg.naive(tiny_pool(), family="gama"),
    "input_tokens": lambda: sg.in_windows(sg.Trace({"arrival_us": [0, 9], "input_tokens": [1, 1]}), 1e-6).mean(
        "input_token"
    ),
}


@pytest.mark.parametrize(("meant", "call"), MISSPELLED.items(), ids=MISSPELLED)
def test_the_nearest_name_is_asked_for(meant: str, call: Callable[[], Any]) -> None:
    with pytest.raises(OptionError, match=f"did you mean '{meant}'"):
        call()


def test_nothing_is_meant_by_what_is_like_nothing() -> None:
    assert nearest("qqq", ROUTINGS) is nearest(3, ROUTINGS) is None
    assert nearest("ROUND_ROBIN", ROUTINGS) == "round-robin"
    assert nearest("json", ["reason"]) is nearest("rate", ["format"]) is None
