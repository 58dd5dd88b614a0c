"""Conversations of which something was cut, against a plain loop over requests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from servegen_gpu.histories import Ended, Shortened

SLABS = [0, 1, 40, 41, 300, 300, 700]
SEEDS = range(6)


def conversations(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Few, so that they have many turns; those below 0 are requests that stand alone."""
    return rng.integers(-3, 12, rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_follows_a_request_that_is_gone_is_gone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    conversation = conversations(rng, SLABS[-1])
    gone = rng.random(len(conversation)) < 0.01
    gone[:41] = False  # nothing has ended in the first slabs
    over: set[int] = set()
    expected = []
    for whose, left_out in zip(conversation.tolist(), gone.tolist(), strict=True):
        over |= {whose} if left_out and whose >= 0 else set()
        expected.append(whose in over)
    ended = Ended()
    found = [ended.after(conversation[a:b], gone[a:b]) for a, b in pairwise(SLABS)]
    assert np.concatenate(found).tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("reasons", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_inputs_that_repeat_what_was_cut_are_shorter(seed: int, reasons: bool) -> None:
    rng = np.random.default_rng(seed)
    conversation = conversations(rng, SLABS[-1])
    columns: dict[str, list[int]] = {name: [] for name in ("input_tokens", "new_tokens", "output_tokens", "kept")}
    columns |= {"reason_tokens": []} if reasons else {}
    end: dict[int, int] = {}  # of input and answer, as they were
    lost: dict[int, int] = {}
    expected = []
    for whose in conversation.tolist():
        new, output, reason = int(rng.integers(1, 50)), int(rng.integers(1, 90)), int(rng.integers(0, 2)) * reasons
        kept = output if rng.random() < 0.7 else int(rng.integers(reason, output + 1))
        repeats = end.get(whose, 0) if rng.random() < 0.8 else int(rng.integers(0, 60))
        goes_on = whose >= 0 and repeats > 0 and repeats == end.get(whose)
        before = lost.get(whose, 0) if goes_on else 0
        expected.append(repeats + new - before)
        if whose >= 0:
            end[whose], lost[whose] = repeats + new + output - reason, before + output - kept
        row = {"input_tokens": repeats + new, "new_tokens": new, "output_tokens": output, "kept": kept}
        for name, value in (row | ({"reason_tokens": reason} if reasons else {})).items():
            columns[name].append(value)
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    shortened, found = Shortened(), []
    for a, b in pairwise(SLABS):
        slab = {name: column[a:b] for name, column in arrays.items()} | {"conversation": conversation[a:b]}
        found.append(shortened.inputs(slab, slab | {"output_tokens": slab["kept"]}))
    assert np.concatenate(found).tolist() == expected
    assert (np.concatenate(found) < arrays["input_tokens"]).sum() > 30
