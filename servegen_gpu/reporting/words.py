"""Names and estimates of studies in words."""

from __future__ import annotations

import math
import re

from servegen_gpu.plotting.words import number
from servegen_gpu.studies.intervals import Interval

KINDS = {"idc": "index of dispersion"}


def label_of(metric: str) -> str:
    """A metric in words: ``output_tokens_peak_10s`` is the "peak of output tokens in 10 s"."""
    if match := re.fullmatch(r"(\w+?)_(peak|mean|idc|p[\d.]+)_([\d.]+)s", metric):
        column, kind, width = match.groups()
        return f"{KINDS.get(kind, kind)} of {column.replace('_', ' ')} in {width} s"
    if match := re.fullmatch(r"(\w+_tokens)_mean", metric):
        return f"mean of {match[1].replace('_', ' ')}"
    return metric.replace("_", " ")


def with_interval(one: Interval) -> str:
    """An estimate with the ends of its interval: 12 (11 to 13)."""
    if math.isnan(one.value):
        return "–"
    return f"{number(one.value)} ({number(one.low)} to {number(one.high)})"
