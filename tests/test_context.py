"""Context limits: never exceeded, and nothing changes that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from profiles import tables_of, tiny_pool
from scipy.stats import chisquare
from traces import flat

import servegen_gpu as sg
from servegen_gpu import pipeline
from servegen_gpu.backends.host import fields as host_fields
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.law.context import cut_input, cut_output
from servegen_gpu.request.families import EXPONENTIAL
from servegen_gpu.request.schema import FIELDS

LIMITS = (300, 0, 2500, 1, 2)
LARGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("context", "tokens", "output", "expected"),
    [
        (0, 90, 700, (90, 700)),
        (0, LARGEST, LARGEST, (LARGEST, LARGEST)),
        (100, 40, 60, (40, 60)),
        (100, 40, 61, (40, 60)),
        (100, 99, 0, (99, 0)),
        (100, 99, 5, (99, 1)),
        (100, 100, 5, (99, 1)),
        (100, 5000, 0, (99, 0)),
        (1, 0, 7, (0, 1)),
        (1, 3, 7, (0, 1)),
        (LARGEST, LARGEST, LARGEST, (LARGEST - 1, 1)),
    ],
)
def test_the_rule(context: int, tokens: int, output: int, expected: tuple[int, int]) -> None:
    limit, drawn, wanted = (np.array([x], np.int32) for x in (context, tokens, output))
    cut = cut_input(np, drawn, limit)
    left = cut_output(np, wanted, cut, limit)
    assert (cut.item(), left.item()) == expected
    assert cut.dtype == left.dtype == np.int32


@pytest.mark.parametrize("output", [0, 1, 50])
@pytest.mark.parametrize("tokens", [99, 100, 5000, LARGEST])
def test_inputs_that_leave_no_room(tokens: int, output: int) -> None:
    limit, items, wanted = (np.array([x], np.int32) for x in (100, tokens, output))
    assert cut_output(np, wanted, items, limit).item() == min(output, 1)


def limited(trace: sg.Trace, category: str, limit_of: np.ndarray) -> dict[str, np.ndarray]:
    """The rule once more, row by row, from what is drawn without limits."""
    columns = {name: column.copy() for name, column in flat(trace).items()}
    for i, context in enumerate(limit_of[columns["client"]].tolist()):
        tokens, output = int(columns["input_tokens"][i]), int(columns["output_tokens"][i])
        if context and category != "multimodal" and tokens >= context:
            tokens = context - 1
        if context and tokens + output > context:
            output = max(context - tokens, 1) if output else 0
        columns["input_tokens"][i], columns["output_tokens"][i] = tokens, output
    return columns


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("category", ["language", "multimodal"])
def test_requests_that_fit_stay_what_they_are(category: str, dependent: bool) -> None:
    keywords: dict[str, Any] = {"duration": 3000, "seed": 2}
    free = sg.generate(tiny_pool(category, 7, dependent=dependent), **keywords)
    found = flat(sg.generate(tiny_pool(category, 7, dependent=dependent, contexts=LIMITS), **keywords))
    expected = limited(free, category, np.resize(LIMITS, 7))
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert np.array_equal(found[name], column), name
    changed = (found["output_tokens"] != free["output_tokens"]).mean()
    assert 0.1 < changed < 0.9


def test_reasoning_is_a_part_of_the_output_that_is_left() -> None:
    pool = tiny_pool("reason", 3, rate_rps=3.0)
    ratio = tables_of([{5: 1.0}, {5000: 1.0}, {250: 1.0}])
    pool = replace(pool, tables=ratio, table=np.where(pool.table < 0, -1, np.arange(3, dtype=np.int32)))
    trace = sg.generate(replace(pool, context_tokens=np.array([0, 105, 1005], np.int32)), duration=1800)
    for client, output in enumerate((5000, 100, 1000)):
        own = trace["client"] == client
        assert own.sum() > 100
        assert (trace["output_tokens"][own] == output).all()
        assert (trace["reason_tokens"][own] == (2 * output * 250 + 501) // 1002).all()


# -- lengths of clients with limits ------------------------------------------------------------------------------------

INPUT, OUTPUT = np.arange(0, 4000, 20), np.arange(1, 3001, 20)


def cell(context: int) -> sg.ClientPool:
    """Two clients with uniform lengths, the second one with half of the first one's limit."""
    pool = tiny_pool("language", 2, 1, rate_rps=200_000 / 600, silent=False, family=EXPONENTIAL, shape=1)
    histograms = [dict.fromkeys(INPUT.tolist(), 1.0), dict.fromkeys(OUTPUT.tolist(), 1.0)]
    return replace(pool, tables=tables_of(histograms * 2), context_tokens=np.array([context, context // 2], np.int32))


def p_values(context: int) -> list[float]:
    """Input, output and their sum of both clients against the law, worked out over all pairs of lengths."""
    trace, found = sg.generate(cell(context), duration=600), []
    for client, limit in enumerate((context, context // 2)):
        own = trace["client"] == client
        tokens = np.minimum(INPUT, limit - 1)[:, None]
        output = np.minimum(OUTPUT, np.maximum(limit - tokens, 1))
        drawn, left = trace["input_tokens"][own], trace["output_tokens"][own]
        for sample, law in ((drawn, tokens), (left, output), (drawn + left, tokens + output)):
            mass = np.bincount(np.broadcast_to(law, output.shape).ravel(), minlength=7001) / output.size
            count = np.bincount(sample, minlength=7001)
            if count[mass == 0].any():
                found.append(0.0)
                continue
            group = np.unique((np.cumsum(mass) - mass / 2) * 100 // 1, return_inverse=True)[1]
            observed, expected = np.bincount(group, count), np.bincount(group, mass * count.sum())
            found.append(float(chisquare(observed[expected > 0], expected[expected > 0]).pvalue))
    return found


@pytest.mark.statistical
def test_lengths_below_a_limit_have_their_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "choose_backend", lambda name: NumpyBackend())
    for n, p in enumerate(p_values(3000)):
        check(p, f"lengths {n} of clients with a limit")
    right_input, right_output = host_fields.cut_input, host_fields.cut_output
    defects: list[tuple[str, Any]] = [
        ("cut_output", lambda xp, output, tokens, context: right_output(xp, output, np.roll(tokens, 1), context)),
        ("cut_output", lambda xp, output, tokens, context: right_output(xp, output, tokens, context + 1)),
        ("cut_output", lambda xp, output, tokens, context: right_output(xp, output, tokens, context.max())),
        ("cut_input", lambda xp, tokens, context: right_input(xp, tokens, context - 1)),
        ("cut_input", lambda xp, tokens, context: tokens),
    ]
    for name, defect in defects:
        with monkeypatch.context() as planted:
            planted.setattr(host_fields, name, defect)
            assert not all(map(passes, p_values(3000))), name


@pytest.mark.parametrize("category", FIELDS)
@pytest.mark.parametrize("dependence", ["auto", "independent", "comonotone"])
def test_limits_are_never_exceeded(category: str, dependence: str) -> None:
    pool = tiny_pool(category, 7, dependent=True, contexts=LIMITS)
    trace = sg.generate(pool, duration=3000, rate=4, dependence=dependence)
    limit = pool.context_tokens[trace["client"]]
    tokens, output = trace["input_tokens"], trace["output_tokens"]
    over = (limit > 0) & (tokens.astype(np.int64) + output > limit)
    if category == "multimodal":
        assert (output[over] <= 1).all()
        assert (tokens[over] >= limit[over]).all()
    else:
        assert not over.any()
        assert tokens[(limit > 0)].max() < max(LIMITS)
    if category == "reason":
        assert (trace["reason_tokens"] <= output).all()
    assert ((limit > 0) & (tokens + output == limit)).any()
