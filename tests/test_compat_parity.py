"""The law of ``servegen_gpu.compat`` on the released profiles, against a plain reading of ServeGen's algorithm.

Requests carry no client, so clients are generated one by one, at fixed rates, over all their windows; the other side
reads the raw files and samples with `plain.py`.
"""

from __future__ import annotations

import ast
import csv
import functools
import json
import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from plain import Cell, fields_of, is_item, ks, times_of, two_tables
from profiles import REAL_DATA, needs_real_data

from servegen_gpu.compat import Category, ClientPool, generate_workload
from servegen_gpu.request.families import GAMMA, WEIBULL
from servegen_gpu.request.schema import RATIO_STEPS

pytestmark = [needs_real_data, pytest.mark.statistical]

LENGTH_S = 600
RATE = 24.5 / LENGTH_S
"""Of one client, req/s: 25 gaps a window, and 24 requests."""

CELLS = 800
"""Windows of a pool, at least; clients are taken until there are as many."""

M_LARGE = REAL_DATA.parent / "servegen-m-large.tar.xz"
FAMILIES = {"Gamma": GAMMA, "Weibull": WEIBULL}


@dataclass(frozen=True)
class Raw:
    """Active windows of one client as the files have them."""

    client: int
    starts: list[int]
    family: list[str]
    shape: list[float]
    slot: list[int]
    histograms: dict[int, dict[str, dict[Any, float]]]


def read_raw(client: int, trace: str, dataset: str) -> Raw:
    active = [row for row in csv.reader(trace.splitlines()) if row[3]]
    slots = {int(start): fields for start, fields in json.loads(dataset).items() if "{}" not in fields.values()}
    starts = [int(row[0]) for row in active]
    slot = [max(s for s in slots if s <= start) for start in starts]
    histograms = {s: {name: ast.literal_eval(text) for name, text in slots[s].items()} for s in set(slot)}
    return Raw(client, starts, [row[3] for row in active], [float(row[4]) for row in active], slot, histograms)


def files_of(directory: Path) -> Iterator[tuple[int, str, str]]:
    for path in sorted(directory.glob("chunk-*-dataset.json")):
        client = int(path.name.split("-")[1])
        yield client, (directory / f"chunk-{client}-trace.csv").read_text(), path.read_text()


@pytest.fixture(scope="module")
def m_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the first few clients of m-large that have both files."""
    if not M_LARGE.exists():
        pytest.skip("m-large is not beside the tree")
    directory = tmp_path_factory.mktemp("data") / "language" / "m-large"
    directory.mkdir(parents=True)
    waiting: dict[str, bytes] = {}
    complete = 0
    with tarfile.open(M_LARGE, "r|xz") as archive:
        for member in archive:
            match = re.fullmatch(r"language/m-large/(chunk-\d+)-(?:trace\.csv|dataset\.json)", member.name)
            if not match or member.size > 1 << 20:
                continue
            data = archive.extractfile(member).read()
            if match[1] in waiting:
                for name, content in (
                    (member.name, data),
                    (waiting.pop(match[1] + "/name").decode(), waiting[match[1]]),
                ):
                    (directory / Path(name).name).write_bytes(content)
                complete += 1
            waiting |= {match[1]: data, match[1] + "/name": member.name.encode()}
            if complete == 4:
                break
    return directory.parent.parent


def plain(raws: list[Raw], seed: int = 11, shape_factor: float = 1.0, stretch: float = 1.0) -> list[Cell]:
    """All windows of all clients."""
    rng = np.random.default_rng(seed)
    cells = []
    for raw in raws:
        for family, shape, slot in zip(raw.family, raw.shape, raw.slot, strict=True):
            time = times_of(rng, FAMILIES[family], shape * shape_factor, RATE * LENGTH_S, LENGTH_S)
            cell = fields_of(rng, raw.histograms[slot], len(time))
            cell["output_tokens"] = np.floor(cell["output_tokens"] * stretch)
            if "reason_ratio" in cell:
                cell["reason_ratio"] = np.rint(cell["reason_ratio"] * RATIO_STEPS)
            cells.append({"time": time, **cell})
    return cells


def ours(pool: ClientPool, raws: list[Raw]) -> list[Cell]:
    """The same windows from ``generate_workload``, one client at a time."""
    cells = []
    for raw in raws:
        view = pool.filter(lambda window, client=raw.client: window.client_id == client)
        rates = {window.timestamp: RATE if window.rate is not None else 0.0 for window in view.get()}
        end = max(rates) + LENGTH_S
        requests = generate_workload(view, rates, duration=end, seed=3)
        window = np.array([int(r.timestamp // LENGTH_S) for r in requests])
        edges = np.searchsorted(window, np.array(raw.starts) // LENGTH_S)
        for start, a in zip(raw.starts, edges.tolist(), strict=True):
            b = int(np.searchsorted(window, start // LENGTH_S, side="right"))
            cells.append(cell_of([r.data for r in requests[a:b]], [r.timestamp - start for r in requests[a:b]]))
        assert sum(len(cell["time"]) for cell in cells[-len(raw.starts) :]) == len(requests)
    return cells


def cell_of(data: list[dict[str, Any]], times: list[float]) -> Cell:
    cell: Cell = {"time": np.array(times)}
    for name in data[0] if data else ():
        values = [row[name] for row in data]
        if is_item(name):
            cell[name.replace("_tokens", "_count")] = np.array([len(items) for items in values])
            values = [item for items in values for item in items]
        cell[name] = np.array(values) if name != "reason_ratio" else np.rint(np.array(values) * RATIO_STEPS)
    return cell


def compared(a: list[Cell], b: list[Cell]) -> dict[str, float]:
    """P-values of two-sample tests over the same windows."""
    rng = np.random.default_rng(7)
    gaps = math.ceil(RATE * LENGTH_S)
    assert len(a) == len(b)
    assert max(len(cell["time"]) for cell in a) == max(len(cell["time"]) for cell in b) == gaps - 1
    # where shapes are tiny, rounding decides what is lost at the window's end: compare up to a millisecond before
    found = {"count": two_tables(*(np.array([(cell["time"] < LENGTH_S - 0.001).sum() for cell in x]) for x in (a, b)))}
    padded = [
        np.array([np.pad(c["time"], (1, gaps - 1 - len(c["time"])), constant_values=(0, LENGTH_S)) for c in x])
        for x in (a, b)
    ]
    pick = rng.integers(1, gaps, (2, len(a)))
    at = np.arange(len(a))
    found["gap"] = ks(*(np.diff(t, axis=1)[at, p - 1] for t, p in zip(padded, pick, strict=True)))
    found["arrival"] = ks(*(t[at, p] for t, p in zip(padded, pick, strict=True)))
    found["first"] = ks(*(t[:, 1] for t in padded))
    found["last"] = ks(*(t[:, -1] for t in padded))
    names = [name for name in max(a, key=len) if name != "time"]
    pooled = [
        {name: np.concatenate([cell[name] for cell in x if name in cell]).astype(float) for name in names}
        for x in (a, b)
    ]
    for name in names:
        found[name] = two_tables(*classes(pooled, name))
    first = "input_tokens" if "input_tokens" in names else "text_tokens"
    together = [x * 100 + y for x, y in zip(classes(pooled, first), classes(pooled, "output_tokens"), strict=True)]
    found["lengths together"] = two_tables(*together)
    return found


def classes(pooled: list[dict[str, np.ndarray]], name: str) -> list[np.ndarray]:
    """Values of both samples as one of 20 classes of about equal size."""
    values = np.concatenate([p[name] for p in pooled])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 21)[1:-1])) if len(values) else values
    return [np.searchsorted(edges, p[name]) for p in pooled]


@functools.cache
def some_clients(directory: Path) -> list[Raw]:
    found: list[Raw] = []
    for files in files_of(directory):
        found.append(read_raw(*files))
        if sum(len(raw.starts) for raw in found) >= CELLS:
            break
    return found


@pytest.fixture(scope="module", params=[("reason", "deepseek-r1"), ("multimodal", "mm-image"), ("language", "m-large")])
def sides(request: pytest.FixtureRequest) -> tuple[list[Raw], list[Cell]]:
    category, model = request.param
    root = REAL_DATA if category != "language" else request.getfixturevalue("m_large")
    raws = some_clients(root / category / model)
    return raws, ours(ClientPool(Category(category), model, data_dir=root), raws)


def test_gaps_counts_and_lengths_are_servegens(sides: tuple[list[Raw], list[Cell]]) -> None:
    raws, cells = sides
    for what, p in compared(plain(raws), cells).items():
        check(p, what)


def test_another_shape_is_found(sides: tuple[list[Raw], list[Cell]]) -> None:
    raws, cells = sides
    found = compared(plain(raws, shape_factor=3.0), cells)
    assert not all(passes(found[name]) for name in ("gap", "first", "last"))
    assert passes(found["output_tokens"])


def test_longer_outputs_are_found(sides: tuple[list[Raw], list[Cell]]) -> None:
    raws, cells = sides
    found = compared(plain(raws, stretch=1.25), cells)
    assert passes(found["gap"])
    assert not passes(found["output_tokens"])


def test_fields_drawn_apart_are_found(sides: tuple[list[Raw], list[Cell]]) -> None:
    raws, cells = sides
    rng = np.random.default_rng(1)
    apart = [{name: rng.permutation(c) if name == "output_tokens" else c for name, c in cell.items()} for cell in cells]
    found = compared(plain(raws), apart)
    assert passes(found["output_tokens"])
    assert not passes(found["lengths together"])


@needs_real_data
def test_totals_of_a_pool() -> None:
    """A client's share of the target is rounded up, and one request is lost at each window's end."""
    pool = ClientPool(Category.REASON, "deepseek-r1", data_dir=REAL_DATA)
    view = pool.span(36_000, 37_800)
    windows = view.get()
    rates = {0: 50.0, 600: 80.0, 1200: 20.0}
    requests = generate_workload(view, rates, duration=1800, seed=0)
    for start, rate in rates.items():
        shares = np.array([w.rate for w in windows if w.timestamp == start and w.rate is not None])
        due = int((np.ceil(rate * shares / shares.sum() * LENGTH_S) - 1).sum())
        made = sum(start <= r.timestamp < start + LENGTH_S for r in requests)
        assert due - 5 <= made <= due
