"""Names and estimates of studies in words."""

from __future__ import annotations

import math
import re

from servegen_gpu.plotting.words import number
from servegen_gpu.studies.intervals import Interval

KINDS = {"idc": "index of dispersion"}
PLAIN = {
    "requests": "number of requests",
    "rate_rps": "rate in req/s",
    "gap_cv": "CV of inter-arrival times",
    "instances": "number of instances",
    "top_client_share": "share of the largest client",
}
OF = {"ttft": "TTFT in s", "tbt": "TBT in s", "wait": "waiting time in s", "kv_tokens": "KV tokens in flight"}
OF |= {"gap": "inter-arrival times in s", "client_gap": "inter-arrival times of clients in s"}
OF |= {"concurrency": "requests in flight"}


def label_of(metric: str) -> str:
    """A metric in words: ``output_tokens_peak_10s`` is the "peak of output tokens in 10 s"."""
    if metric in PLAIN:
        return PLAIN[metric]
    if match := re.fullmatch(r"(\w+?)_(peak|mean|idc|p[\d.]+)_([\d.]+)s", metric):
        column, kind, width = match.groups()
        return f"{_kind(kind)} of {_plain(column)} in {width} s"
    if match := re.fullmatch(r"(\w+?)_(peak|mean|p[\d.]+)(?:_s)?", metric):
        return f"{_kind(match[2])} of {OF.get(match[1], _plain(match[1]))}"
    if match := re.fullmatch(r"top_(\d+)_share", metric):
        return f"share of the {match[1]} largest clients"
    return f"sum of {_plain(metric)}" if metric.endswith("_tokens") else _plain(metric)


def _kind(kind: str) -> str:
    return KINDS.get(kind, kind.upper() if kind.startswith("p") and kind != "peak" else kind)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def with_interval(one: Interval) -> str:
    """An estimate with the ends of its interval: 12 (11 to 13)."""
    if math.isnan(one.value):
        return "–"
    return f"{number(one.value)} ({number(one.low)} to {number(one.high)})"
