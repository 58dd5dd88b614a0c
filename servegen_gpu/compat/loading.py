"""Reading released profiles for the classes of ServeGen: every slot and every parameter of the files is kept."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.released.dataset_json import read_slots
from servegen_gpu.clients.released.files import BATCH_BYTES, ClientFile, batches, read
from servegen_gpu.clients.released.histogram_text import parse_histograms
from servegen_gpu.clients.released.servegen import list_files
from servegen_gpu.clients.released.trace_csv import Traces, read_traces
from servegen_gpu.compat.client import Client
from servegen_gpu.compat.errors import InputError, as_value_errors, few
from servegen_gpu.compat.grid import RATIO, Datasets, Grid
from servegen_gpu.compat.workload_types import Category
from servegen_gpu.request.families import EXPONENTIAL, NO_FAMILY, WEIBULL
from servegen_gpu.request.schema import RATIO_STEPS
from servegen_gpu.request.tables import Tables

ENVIRONMENT = "SERVEGEN_DATA"
MAX_FIELDS = 64
_log = logging.getLogger(__name__)


def load_clients(
    category: Category, model: str, data_dir: str | os.PathLike[str] | None = None
) -> tuple[dict[int, Client], Grid]:
    """Read a released workload.

    Parameters
    ----------
    category : Category
    model : str
    data_dir : path-like, optional
        With ``<category>/<model>/chunk-<id>-trace.csv`` inside; by default the environment variable ``SERVEGEN_DATA``,
        or else ``./data``.

    Returns
    -------
    clients : dict of int to Client
        By id, ascending. Those without a dataset file are left out, as in ServeGen, and the log says so.
    grid : Grid
    """
    root = Path(data_dir if data_dir is not None else os.environ.get(ENVIRONMENT) or "data")
    directory = root / category.value / model
    if not directory.is_dir():
        raise InputError(
            "ServeGen's data directory, with category and model inside",
            f"no directory {directory}",
            f"pass data_dir=, set {ENVIRONMENT}, or change to the directory that holds data/",
            f"Data directory not found: {directory}",
        )
    with as_value_errors():
        traces, datasets = _files(directory)
        if lost := sorted(traces.keys() - datasets.keys()):
            _log.info("%s: %d clients without a dataset file left out: %s", model, len(lost), few(lost))
            traces = {client: path for client, path in traces.items() if client in datasets}
        trace = read_traces(traces, regular=False)
        slot, slots, read_ = _read_datasets(datasets, trace.start_s)
    grid = _grid(trace, slot, read_)
    ids = sorted(traces)
    return {client: Client.of_grid(client, grid, row, slots[row]) for row, client in enumerate(ids)}, grid


def _files(directory: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Trace and dataset files by client id; at least one dataset, and a trace for each."""
    names = {path.name for path in directory.iterdir()}
    for name in sorted(names):
        if name.endswith("-dataset.json") and (trace := name[: -len("dataset.json")] + "trace.csv") not in names:
            client = name.split("-")[1]
            raise InputError(
                "a trace file for every dataset file",
                f"no {trace} in {directory}",
                "add the file, or remove the dataset",
                f"Trace file not found for client {client}: {trace}",
            )
    traces, datasets = list_files(directory)
    if not datasets:
        raise InputError("a dataset file for some client", f"none in {directory}", "download the data again")
    return traces, datasets


def _grid(trace: Traces, slot: NDArray[np.int32], datasets: Datasets) -> Grid:
    active = trace.family != NO_FAMILY
    exponential = trace.family == EXPONENTIAL  # a Gamma of shape 1, which ServeGen has a name for
    mean_gap = np.divide(1.0, trace.rate_rps, out=np.ones(active.shape), where=active)
    return Grid(
        starts=tuple(trace.start_s.tolist()),
        active=active,
        rate_rps=np.where(active, trace.rate_rps, 0.0),
        cv=np.where(active, trace.cv, 0.0),
        shape=np.where(exponential, 1.0, trace.shape),
        scale=np.where(exponential, mean_gap, trace.scale),
        weibull=trace.family == WEIBULL,
        slot=slot,
        datasets=datasets,
        from_files=True,
    )


def _read_datasets(
    paths: Mapping[int, Path], start_s: NDArray[np.int64]
) -> tuple[NDArray[np.int32], list[tuple[tuple[int, int], ...]], Datasets]:
    """Slot of every window int32[clients, windows], starts and rows of each client's slots, and the datasets."""
    fields = _fields(paths[min(paths)], min(paths))
    slot = np.full((len(paths), len(start_s)), -1, np.int32)
    slots: list[tuple[tuple[int, int], ...]] = []
    parts: list[Tables] = []
    rows = 0
    for files in batches(paths, BATCH_BYTES):
        texts: list[str] = []
        places: list[tuple[ClientFile, int]] = []
        for file in files:
            starts, found = read_slots(file, fields)
            _check_starts(file, starts, start_s)
            at = np.searchsorted(starts, start_s, side="right") - 1
            slot[len(slots)] = np.where(at >= 0, rows + at, -1)
            slots.append(tuple((int(start), rows + n) for n, start in enumerate(starts)))
            rows += len(starts)
            texts += [text for slot_texts in found for text in slot_texts]
            places += [(file, int(start)) for start in starts]
        if texts:
            is_ratio = np.tile(np.array([field == RATIO for field in fields]), len(places))
            parts.append(parse_histograms(texts, is_ratio, partial(_where, places, fields)))
    if not parts:
        raise InputError("a slot with requests", f"none in {len(paths):,} dataset files", "download the data again")
    tables = Tables.join(parts)
    size = tables.largest.astype(np.int64) + 1
    ratios = np.tile(np.array([field == RATIO for field in fields]), rows)
    size[ratios] = np.maximum(size[ratios], RATIO_STEPS)
    table = np.arange(rows * len(fields), dtype=np.int32).reshape(rows, len(fields))
    return slot, slots, Datasets(fields, table, tables, size, tables.means)


def _fields(path: Path, client: int) -> tuple[str, ...]:
    """Names of the fields, from the first slot of the first client; other slots must have the same."""
    try:
        content = json.loads(read(path))
        first = next(slot for slot in content.values() if slot)
        names = tuple(first)
    except (ValueError, RecursionError, AttributeError, StopIteration, TypeError):
        names = ()
    if not 0 < len(names) <= MAX_FIELDS:
        raise InputError(
            f"slots of 1 to {MAX_FIELDS} fields", f"no such JSON in {path} (client {client})", "download the data again"
        )
    return names


def _check_starts(file: ClientFile, starts: NDArray[np.int64], start_s: NDArray[np.int64]) -> None:
    extra = np.setdiff1d(starts, start_s)
    if len(extra):
        raise InputError(
            "slots that start where a window of the trace starts",
            f"{few(extra.tolist())} in {file.path}",
            "fix the file, or download it again",
            f"Client {file.client} has dataset timestamps that are not in trace timestamps: {few(extra.tolist())}",
        )


def _where(places: Sequence[tuple[ClientFile, int]], fields: tuple[str, ...], text: int) -> str:
    file, start_s = places[text // len(fields)]
    return f"in {fields[text % len(fields)]} in {file.path} (client {file.client}, window {start_s} s)"
