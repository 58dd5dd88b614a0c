"""What a person wants to see of a saved pool: figures in all, and the largest clients."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.saved.toml_writer import section
from servegen_gpu.request.families import FAMILY_NAMES
from servegen_gpu.request.schema import Kind

SHOWN = 20


def summary_text(pool: ClientPool, names: Sequence[str] | None) -> str:
    """The sections ``[summary]`` and ``[[client]]``, rounded; names, if given, are shown as they are."""
    weight = pool.rate_rps * pool.window_s
    each = weight.sum(axis=1)
    requests = pool.rate_factor * each[pool.profile]
    total = max(float(requests.sum()), np.finfo(np.float64).tiny)
    means = {
        field.name: _means(pool, weight, field.lane) / field.unit
        for field in pool.schema.fields
        if field.kind in (Kind.ONCE, Kind.RATIO)
    }
    largest = np.argsort(-requests, kind="stable")[:SHOWN]
    in_all = {
        "requests": round(float(requests.sum())),
        "mean_rps": _short(float(pool.own_rps.mean())),
        "peak_rps": _short(float(pool.own_rps.max())),
    } | {f"mean_{name}": _short(float(requests @ mean[pool.profile] / total)) for name, mean in means.items()}
    text = ["# For people, not read back, and rounded: the largest clients are listed.", section("[summary]", in_all)]
    for i in largest.tolist():
        p = int(pool.profile[i])
        busiest = int(np.argmax(pool.rate_rps[p]))
        row = {"id": int(pool.client_ids[i])} | ({"name": names[i]} if names is not None else {})
        row |= {"share": _short(float(requests[i] / total)), "family": FAMILY_NAMES[pool.family[p, busiest]].lower()}
        row |= {"cv": _short(float(pool.cv[p, busiest]))}
        text.append(section("[[client]]", row | {f"mean_{name}": _short(float(m[p])) for name, m in means.items()}))
    return "\n".join(text)


def _means(pool: ClientPool, weight: np.ndarray, lane: int) -> np.ndarray:
    """Mean of a field by profile, weighted by requests, float64[profiles]."""
    rows = pool.table[..., lane]
    of_window = np.where(rows >= 0, pool.tables.means[rows], 0.0)
    return np.asarray((weight * of_window).sum(axis=1) / np.maximum(weight.sum(axis=1), np.finfo(np.float64).tiny))


def _short(x: float) -> float:
    return float(f"{x:.4g}")


def names_text(pool: ClientPool, names: Sequence[str]) -> str:
    """CSV of the names of clients by id."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [("id", "client"), *zip(pool.client_ids.tolist(), names, strict=True)]
    )
    return text.getvalue()
