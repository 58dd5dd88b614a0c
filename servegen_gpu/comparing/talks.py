"""Figures of conversations, from those that are kept: see `seen`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import Points, points_of


def talk_figures(rows: dict[str, NDArray[Any]]) -> tuple[dict[str, float], Points | None]:
    """Figures by name, and the times between turns in milliseconds; nothing without a conversation of two turns.

    Parameters
    ----------
    rows : dict of str to array
        ``conversation``, ``arrival_us`` and perhaps ``input_tokens`` of whole conversations, in order of time.
    """
    if not rows:
        return {}, None
    order = np.argsort(rows["conversation"], kind="stable")
    conversation, at_us = rows["conversation"][order], rows["arrival_us"][order]
    later = np.flatnonzero(np.diff(conversation) == 0) + 1
    found = {"talk_share": 0.0}
    if not len(later):
        return found, None
    _, turns = np.unique(conversation, return_counts=True)
    several = turns[turns > 1]
    gap_us = at_us[later] - at_us[later - 1]
    found["talk_share"] = float(several.sum() / len(order))
    found["talk_turns"] = float(several.mean())
    found["turn_gap_p50_s"], found["turn_gap_p90_s"] = (float(q) / 1e6 for q in np.quantile(gap_us, (0.5, 0.9)))
    if "input_tokens" in rows:
        tokens = rows["input_tokens"][order].astype(np.int64)
        found["turn_growth"] = float(np.mean(tokens[later] - tokens[later - 1]))
    return found, points_of(gap_us // 1000)
