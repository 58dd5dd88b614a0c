"""What becomes of the items of multimodal input before prefill: download, normalise, encode (the paper's Fig. 10).

The items of a request are downloaded all at once, so the longest counts, and nobody waits for anybody. Then they are
normalised and encoded one after the other, each stage by workers that take requests first come, first served. Requests
without items pass by. Not here: several requests encoded in one batch, and items that are begun before the last one of
their request is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MODALITIES
from servegen_gpu.serving.job import check_latest
from servegen_gpu.serving.server import LARGEST_BATCH, LONGEST_MOVE_S, LONGEST_STEP_S, check_number, check_time
from servegen_gpu.trace import Trace

NAMES = ("download", "normalise", "encode")
Queue = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.int64]]
"""When requests leave workers: of when they come, in order, how long each takes and how many workers there are."""


@dataclass(frozen=True)
class Stages:
    """What an item of input costs before prefill; a stage that is not named takes no time.

    Attributes
    ----------
    download_s_per_item, normalise_s_per_item, encode_s_per_item : float
        Up to 1,000 s.
    download_s_per_token, normalise_s_per_token, encode_s_per_token : float
        What a token of an item adds, up to 1 ms: of all modalities alike.
    normalise_workers, encode_workers : int
        How many requests are in work at once, up to 1,000,000.

    Raises
    ------
    OptionError
        If a number is out of its range.
    """

    download_s_per_item: float = 0.0
    download_s_per_token: float = 0.0
    normalise_s_per_item: float = 0.0
    normalise_s_per_token: float = 0.0
    normalise_workers: int = 1
    encode_s_per_item: float = 0.0
    encode_s_per_token: float = 0.0
    encode_workers: int = 1

    def __post_init__(self) -> None:
        for name in NAMES:
            check_time(self, f"{name}_s_per_item", 0.0, LONGEST_STEP_S)
            check_time(self, f"{name}_s_per_token", 0.0, LONGEST_MOVE_S)
        check_number(self, "normalise_workers", LARGEST_BATCH)
        check_number(self, "encode_workers", LARGEST_BATCH)


def pass_through(trace: Trace, stages: Stages, queue: Queue) -> dict[str, NDArray[np.int64]]:
    """How long each stage holds each request, its queue included: int64[n] nanoseconds by name of the stage.

    Raises
    ------
    OptionError
        If the work may take 146 years.
    """
    rows, items = _items(trace)
    download_ns, normalise_ns, encode_ns = (_costs_ns(items, stages, name) for name in NAMES)
    costs_ns = float(sum(cost_ns.sum(dtype=np.float64) for cost_ns in (download_ns, normalise_ns, encode_ns)))
    check_latest(costs_ns + 1e3 * float(trace["arrival_us"].max(initial=0)))
    held = {name: np.zeros(len(trace), np.int64) for name in NAMES}
    np.maximum.at(held["download"], rows, download_ns)
    with_items = np.zeros(len(trace), bool)
    with_items[rows] = True
    at_ns = trace["arrival_us"] * 1000 + held["download"]
    for name, cost_ns, workers in (
        ("normalise", normalise_ns, stages.normalise_workers),
        ("encode", encode_ns, stages.encode_workers),
    ):
        service_ns = np.zeros(len(trace), np.int64)
        np.add.at(service_ns, rows, cost_ns)
        waiting = np.flatnonzero(with_items)
        waiting = waiting[np.argsort(at_ns[waiting], kind="stable")]
        held[name][waiting] = queue(at_ns[waiting], service_ns[waiting], int(workers)) - at_ns[waiting]
        at_ns = at_ns + held[name]
    return held


def _items(trace: Trace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and tokens of every item."""
    rows, tokens = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for modality in MODALITIES:
        column = trace.columns.get(f"{modality}_tokens")
        if isinstance(column, Ragged):
            rows.append(np.repeat(np.arange(len(trace)), column.lengths))
            tokens.append(column.values.astype(np.int64))
    return np.concatenate(rows), np.concatenate(tokens)


def _costs_ns(tokens: NDArray[np.int64], stages: Stages, name: str) -> NDArray[np.int64]:
    each_ps, token_ps = (round(getattr(stages, f"{name}_s_per_{unit}") * 1e12) for unit in ("item", "token"))
    costs_ps: NDArray[np.int64] = each_ps + token_ps * tokens
    return (costs_ps + 500) // 1000
