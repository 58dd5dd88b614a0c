"""Small profiles for tests: pools in memory, and directories in the format that ServeGen released."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.request.families import EXPONENTIAL, GAMMA, NO_FAMILY, WEIBULL
from servegen_gpu.request.schema import FIELDS, scalar_field_count
from servegen_gpu.request.tables import Tables

TURNS = {
    "sorted": TurnModel(
        0.4, turns=d.Pmf([2, 3, 7], [3, 2, 1]), gap_s=d.LogNormal(median=60, sigma=1.5), session_s=2500
    ),
    "history": TurnModel(
        0.6, turns=d.Pmf([2, 5], [1, 1]), gap_s=d.Exponential(mean=200), growth="history", session_s=1800
    ),
    "new": TurnModel(
        0.5,
        turns=d.Constant(4),
        gap_s=d.Uniform(0, 300),
        growth="history",
        new_tokens=d.LogNormal(median=40, sigma=1),
        session_s=700.5,
    ),
    "edit": TurnModel(
        0.7,
        turns=d.Pmf([2, 6], [1, 2]),
        gap_s=d.LogNormal(median=0.9, sigma=1.5),
        growth="edit",
        new_tokens=d.Pmf([0, 1, 3, 250], [3, 4, 2, 1]),
        session_s=60,
    ),
}
"""Models of conversations, short enough for small traces."""

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "servegen"

needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="ServeGen's released data is not beside the tree")

KINDS = ((GAMMA, 0.4), (GAMMA, 3.0), (GAMMA, 0.02), (WEIBULL, 0.3), (EXPONENTIAL, 1.0), (WEIBULL, 1.7))
"""Family and shape by turns over clients and windows."""

HISTOGRAMS: dict[str, dict[float, float]] = {
    "input_tokens": {5: 0.25, 90: 0.5, 2000: 0.25},
    "output_tokens": {0: 0.125, 30: 0.625, 700: 0.25},
    "reason_ratio": {0.0: 0.25, 250 / 501: 0.5, 400 / 501: 0.0, 500 / 501: 0.25},
    "text_tokens": {10: 0.5, 300: 0.5},
    "image_count": {0: 0.25, 1: 0.5, 3: 0.25},
    "audio_count": {0: 0.5, 1: 0.5},
    "video_count": {0: 1.0},
    "image_tokens": {256: 0.5, 1280: 0.5},
    "audio_tokens": {50: 1.0},
    "video_tokens": {0: 1.0},
}
"""A histogram for each field, with probabilities that are exact in binary."""


def tiny_pool(
    category: str = "language",
    clients: int = 3,
    windows: int = 144,
    *,
    window_s: int = 600,
    first_window: int = 0,
    rate_rps: float = 0.5,
    silent: bool = True,
    measured: bool = True,
    ids: Sequence[int] | None = None,
    family: int | None = None,
    shape: float | None = None,
    occupancy: float | None = None,
    dependent: bool = False,
    contexts: Sequence[int] = (0,),
) -> ClientPool:
    """A pool in memory, the same on every call.

    Client c has about `rate_rps` / (c + 1), changing from window to window, and families and shapes by turns from
    `KINDS` unless `family` and `shape` are given; Gamma windows of odd clients cover a third of the window. With
    `silent`, every seventh window of a client is silent, at another place for each. Histograms shift with the
    client and the quarter of the data, so that no two share a table. With `dependent`, clients have the matrices of
    `correlations_of` by turns, every third none; `contexts` are their limits by turns.
    """
    c, w = np.arange(clients)[:, None], np.arange(windows)[None, :]
    rate = rate_rps / (c + 1) * (1 + 0.5 * np.sin((w + c) / 7))
    if silent:
        rate = np.where((w + 2 * c) % 7 == 3, 0.0, rate)
    active = rate > 0
    kind = (c + w // 5) % len(KINDS)
    families = np.array([f for f, _ in KINDS])[kind] if family is None else np.full(rate.shape, family)
    shapes = np.array([k for _, k in KINDS])[kind] if shape is None else np.full(rate.shape, shape)
    if occupancy is None:
        covered = np.where((families == GAMMA) & (c % 2 == 1), 1 / 3, 1.0)
    else:
        covered = np.full(rate.shape, occupancy)
    quarters = min(4, windows)
    names = FIELDS[category]
    per_client = quarters * len(names)
    slot = (w * quarters // windows)[..., None] * len(names) + np.arange(len(names))
    histograms = [
        _shifted(HISTOGRAMS[name], name, 7 * client + quarter)
        for client in range(clients)
        for quarter in range(quarters)
        for name in names
    ]
    return ClientPool(
        name=f"tiny-{category}",
        category=category,
        window_s=window_s,
        first_window=first_window,
        client_ids=np.arange(clients, dtype=np.int64) if ids is None else np.array(ids, np.int64),
        profile=np.arange(clients, dtype=np.int32),
        rate_factor=np.ones(clients),
        rate_rps=rate,
        cv=np.where(active, 1 / np.sqrt(shapes), 0),
        family=np.where(active, families, NO_FAMILY).astype(np.uint8),
        shape=np.where(active, shapes, 0),
        occupancy=np.where(active, covered, 0),
        table=np.where(active[..., None], c[..., None] * per_client + slot, -1).astype(np.int32),
        tables=tables_of(histograms),
        measured=np.full(clients, measured),
        correlations=correlations_of(category) if dependent else np.empty(0),
        correlation=np.arange(clients, dtype=np.int32) % 3 - 1 if dependent else np.full(clients, -1, np.int32),
        context_tokens=np.resize(np.array(contexts, np.int32), clients),
    )


def correlations_of(category: str) -> np.ndarray:
    """Two Spearman matrices of a category: one leaves its third field alone, one ties all."""
    scalar = scalar_field_count(category)
    i, j = np.indices((scalar, scalar))
    pairs = np.where((i == 2) | (j == 2), 0.0, 0.75)
    chain = np.where((i + j) % 2, -0.25, 0.375)
    return np.where(np.eye(scalar), 1.0, np.stack((pairs, chain)))


def tables_of(histograms: Sequence[Mapping[int, float]]) -> Tables:
    """Length tables from dicts of value to weight, in ascending order of values."""
    return Tables.from_weights(
        np.cumsum([0] + [len(h) for h in histograms]),
        np.array([v for h in histograms for v in h], np.int64),
        np.array([p for h in histograms for p in h.values()], np.float64),
    )


def _shifted(histogram: Mapping[float, float], field: str, by: int) -> dict[int, float]:
    """A histogram with values moved up a little; counts, ratios and zeros stay what they are."""
    if field == "reason_ratio":
        return {round(k * 501): p for k, p in histogram.items()}
    fixed = field.endswith("_count")
    return {int(v) if fixed or v == 0 else int(v) + by: p for v, p in histogram.items()}


def trace_row(
    time_s: int, rate: float = 0.5, cv: float = 2.0, family: str = "Gamma", shape: float = 0.25, scale: float = 8.0
) -> str:
    """A row of a trace file; a silent one where the rate is 0."""
    return f"{time_s},{rate},{cv},{family},{shape},{scale}" if rate else f"{time_s},0,0,,0,0"


def trace_text(
    windows: int = 144, step_s: int = 600, rate: float = 0.5, silent: Sequence[int] = (1,), **row: Any
) -> str:
    """A trace file with line ends as in the released data; `silent` lists windows without requests."""
    rows = [trace_row(w * step_s, 0 if w in silent else rate, **row) for w in range(windows)]
    return "".join(f"{text}\r\n" for text in rows)


def dataset(
    category: str = "language", slots: int = 4, step_s: int = 21_600, empty: Sequence[int] = (), **texts: str
) -> Any:
    """A dataset as JSON has it; `empty` lists slots without requests, `texts` replaces histograms by field."""
    full = {name: texts.get(name, repr(HISTOGRAMS[name])) for name in FIELDS[category]}
    blank = dict.fromkeys(FIELDS[category], "{}")
    return {str(n * step_s): dict(blank if n in empty else full) for n in range(slots)}


def write_client(
    directory: Path, client: int, trace: str | bytes | None = None, data: Any = None, category: str = "language"
) -> None:
    """Write one client; `data` is a dataset, or the text or bytes of its file. Give False to leave a file out."""
    directory.mkdir(parents=True, exist_ok=True)
    trace = trace_text() if trace is None else trace
    data = dataset(category) if data is None else data
    if trace is not False:
        path = directory / f"chunk-{client}-trace.csv"
        path.write_bytes(trace if isinstance(trace, bytes) else trace.encode())
    if data is not False:
        path = directory / f"chunk-{client}-dataset.json"
        text = data if isinstance(data, bytes | str) else json.dumps(data, indent=2)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def write_servegen(root: Path, category: str = "language", workload: str = "tiny", clients: int = 3) -> Path:
    """Write a workload of diverse clients with ids 0, 2, 4, … below `root`, and give its directory."""
    rows: list[dict[str, Any]] = [
        {"family": "Gamma", "shape": 0.25, "scale": 4.0, "rate": 0.5, "cv": 2.0},
        {"family": "Weibull", "shape": 0.3, "scale": 0.5, "rate": 0.2, "cv": 5.0},
        {"family": "Gamma", "shape": 4.0, "scale": 2.5, "rate": 0.1, "cv": 0.5},
        {"family": "Exponential", "shape": 0.0, "scale": 0.0, "rate": 1.5, "cv": 1.0},
    ]
    directory = root / category / workload
    for n in range(clients):
        trace = trace_text(silent=(n, n + 3), **rows[n % len(rows)])
        write_client(directory, 2 * n, trace, dataset(category, empty=(3,)), category)
    return directory


def talking(category: str = "reason", **keywords: Any) -> ClientPool:
    """Clients of all four models, and one whose requests stand alone."""
    pool = tiny_pool(category, 5, contexts=keywords.pop("contexts", (3000, 0, 900, 1500)), **keywords)
    return replace(pool, turn_models=tuple(TURNS.values()), turn_model=np.array([0, 1, 2, -1, 3], np.int32))
