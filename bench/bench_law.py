"""The sampling law, function by function, on one block: time per element on one core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu.backends.host.fields import lookup
from servegen_gpu.blocks import BLOCK
from servegen_gpu.law.address import Purpose, draw
from servegen_gpu.law.dependence import mix_words, mixing_matrix
from servegen_gpu.law.elementary import exp, log
from servegen_gpu.law.normal import normal_of_word, word_of_normal
from servegen_gpu.law.position import clock_us, from_start, on_circle, tick_bits
from servegen_gpu.law.tables import find_bin
from servegen_gpu.law.variates import (
    gap_constants,
    gap_ticks,
    log_weibull,
    try_log_gamma,
    uniform32,
    uniform52,
)
from servegen_gpu.request.families import GAMMA

Work = Callable[..., Any]
ORDINAL = np.arange(BLOCK, dtype=np.uint32)
CLIENT = np.repeat(np.arange(BLOCK // 64, dtype=np.uint64), 64)
WINDOW = np.uint64(60)
WORDS = draw(np, (1, 2), Purpose.GAP, ordinal=ORDINAL, client=CLIENT, window=WINDOW)
UNIFORM = uniform32(np, WORDS[0])
NORMAL = normal_of_word(np, WORDS[0])
LOG_GAP = log(np, UNIFORM) * 3.0
SHAPES = 0.05 + 3.0 * UNIFORM
TICKS = np.cumsum(WORDS[1].astype(np.int64))
MIXING = mixing_matrix(np.array([[1.0, 0.3, 0.2], [0.3, 1.0, 0.4], [0.2, 0.4, 1.0]]))
ONE = gap_constants(np, GAMMA, np.array([0.4]))
EACH = gap_constants(np, GAMMA, SHAPES)
ROTATION = WORDS[2].astype(np.int64)

FUNCTIONS: dict[str, Work] = {
    "draw, one cell": lambda: draw(np, (1, 2), Purpose.GAP, ordinal=ORDINAL, client=CLIENT[:1], window=WINDOW),
    "draw, many cells": lambda: draw(np, (1, 2), Purpose.GAP, ordinal=ORDINAL, client=CLIENT, window=WINDOW),
    "uniform32": lambda: uniform32(np, WORDS[0]),
    "uniform52": lambda: uniform52(np, WORDS[0], WORDS[1]),
    "log": lambda: log(np, UNIFORM),
    "numpy.log": lambda: np.log(UNIFORM),
    "exp": lambda: exp(np, LOG_GAP),
    "numpy.exp": lambda: np.exp(LOG_GAP),
    "normal_of_word": lambda: normal_of_word(np, WORDS[0]),
    "word_of_normal": lambda: word_of_normal(np, NORMAL),
    "mix_words, 3 fields": lambda: mix_words(np, list(WORDS[:3]), MIXING),
    "gap_constants": lambda: gap_constants(np, GAMMA, SHAPES),
    "try_log_gamma, one cell": lambda: try_log_gamma(np, WORDS, ONE),
    "try_log_gamma, many cells": lambda: try_log_gamma(np, WORDS, EACH),
    "log_weibull": lambda: log_weibull(np, WORDS, 2.5),
    "gap_ticks": lambda: gap_ticks(np, LOG_GAP, 0.0, 2.0**40),
    "tick_bits": lambda: tick_bits(np, TICKS),
    "on_circle": lambda: on_circle(np, TICKS, TICKS[-1:], 0.9, ROTATION),
    "from_start": lambda: from_start(np, TICKS, TICKS[-1:]),
    "clock_us": lambda: clock_us(np, WORDS[0], np.uint64(0), np.uint64(0), np.uint64(600_000_000)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(per: Work, name: str) -> None:
    per("element", BLOCK, FUNCTIONS[name])


@pytest.mark.parametrize("function", [find_bin, lookup], ids=["find_bin", "fields.lookup"])
@pytest.mark.parametrize("many", [False, True], ids=["one table", "many tables"])
def test_lookup(per: Work, r1: sg.ClientPool, function: Work, many: bool) -> None:
    tables = sg.stream(r1, rate=100, duration="24h").packed.tables
    word = WORDS[0].astype(np.uint32)
    count = (len(tables.guide)) // ((1 << tables.guide_bits) + 1)
    table = CLIENT.astype(np.int64) % count if many else np.zeros(BLOCK, np.int64)
    if function is find_bin:
        per("element", BLOCK, find_bin, np, word, table, tables)
    else:
        per("element", BLOCK, lookup, word, table, tables)
