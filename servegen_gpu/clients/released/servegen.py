"""The profiles that alibaba/ServeGen released, read as they are.

``<data_dir>/<category>/<workload>/chunk-<id>-trace.csv`` and ``chunk-<id>-dataset.json``, two files a client. Data
files are never trusted: nothing in them is run, and each fault is reported by file, line, client, window and value.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.released.cache import content_key, load_pool, store_pool
from servegen_gpu.clients.released.dataset_json import read_slots
from servegen_gpu.clients.released.files import BATCH_BYTES, ClientFile, batches
from servegen_gpu.clients.released.histogram_text import parse_histograms
from servegen_gpu.clients.released.trace_csv import Traces, read_traces
from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.request.families import EXPONENTIAL, GAMMA
from servegen_gpu.request.schema import FIELDS, KINDS, Kind
from servegen_gpu.request.tables import Tables

Missing = Literal["error", "drop"]

_FILE_NAME = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)", re.ASCII)
_log = logging.getLogger(__name__)


def load_servegen(
    data_dir: str | os.PathLike[str], workload: str | None = None, *, missing: Missing = "error", cache: bool = True
) -> ClientPool:
    """Read a released workload.

    Parameters
    ----------
    data_dir : path-like
        The ``data`` directory of ServeGen, with ``language``, ``reason`` and ``multimodal`` inside. With one argument,
        ``load_servegen("m-large")``, it is the workload, and the directory is that of ``$SERVEGEN_DATA``.
    workload : str, optional
        Such as ``"m-large"``, ``"deepseek-r1"`` or ``"mm-image"``.
    missing : {"error", "drop"}
        What to do with clients that have a trace but no dataset file.
    cache : bool
        Keep the parsed pool in the user's cache directory and find it there again by the contents of the files.

    Returns
    -------
    ClientPool
        One profile a client, `measured`. Clients that are never active are left out. Windows are the rows of the
        traces; a window draws lengths from the latest slot with requests that starts at or before it, and slots
        that no active window uses are not parsed. Gamma windows cover ``min(1, rate * shape * scale)`` of
        themselves, others all. Reason ratios are stored as ``k = rint(ratio * 501)``: exact for the released data,
        rounded to that grid for other data.

    Raises
    ------
    ProfileError
        If there is no such workload, or one of its files is at fault.
    """
    if workload is None:
        from servegen_gpu.clients.named import data_directory

        data_dir, workload = data_directory(), os.fspath(data_dir)
    pool, notes = load_servegen_with_notes(data_dir, workload, missing=missing, cache=cache)
    for note in notes:
        _log.info("%s: %s", workload, note)
    return pool


def load_servegen_with_notes(
    data_dir: str | os.PathLike[str], workload: str, *, missing: Missing = "error", cache: bool = True
) -> tuple[ClientPool, tuple[str, ...]]:
    """Like `load_servegen`, with short sentences on what was left out."""
    if missing not in ("error", "drop"):
        raise OptionError("missing='error' or 'drop'", repr(missing), "choose one")
    category, directory = _find(Path(data_dir), workload)
    traces, datasets = list_files(directory)
    key = content_key([*traces.values(), *datasets.values()], category, workload, missing) if cache else ""
    found = load_pool(key) if cache else None
    if found is None:
        found = pool_of_files(workload, category, traces, datasets, missing)
        if cache:
            store_pool(key, *found)
    return found


def _find(data_dir: Path, workload: str) -> tuple[str, Path]:
    """Category and directory of a workload."""
    if not data_dir.is_dir():
        raise ProfileError("ServeGen's data directory", f"no directory {data_dir}", "check the path")
    present = {c: _directories(data_dir / c) for c in FIELDS}
    for category, workloads in present.items():
        if workload in workloads:
            return category, data_dir / category / workload
    fix = f"the directory should hold {', '.join(FIELDS)}, as ServeGen's data/ does"
    if workload in _directories(data_dir):
        fix = f"{data_dir} looks like a category: give the directory above, {data_dir.resolve().parent}"
    elif any(_FILE_NAME.fullmatch(path.name) for path in data_dir.iterdir()):
        fix = f"{data_dir} looks like a workload: give the directory two above, {data_dir.resolve().parent.parent}"
    elif any(present.values()):
        fix = f"there are {', '.join(sorted(w for ws in present.values() for w in ws))}"
    raise ProfileError(f"a workload in {data_dir}", f"unknown workload {workload!r}", fix)


def workloads_in(data_dir: Path) -> list[str]:
    """Names of the workloads in a data directory."""
    return [name for category in FIELDS for name in _directories(data_dir / category)]


def _directories(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def list_files(directory: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """Trace and dataset files by client id; other files are none of ours."""
    files: dict[str, dict[int, Path]] = {"trace.csv": {}, "dataset.json": {}}
    for path in sorted(directory.iterdir()):
        match = _FILE_NAME.fullmatch(path.name)
        if not match or not path.is_file():
            continue
        digits, kind = match.groups()
        if len(digits) > 10 or int(digits) > MAX_CLIENT_ID:
            raise ProfileError(f"client ids up to {MAX_CLIENT_ID}", f"{path}", "rename the file")
        other = files[kind].setdefault(int(digits), path)
        if other != path:
            raise ProfileError("one file a client", f"{other} and {path} of client {int(digits)}", "remove one")
    traces, datasets = files["trace.csv"], files["dataset.json"]
    if not traces and not datasets:
        raise ProfileError("files chunk-<id>-trace.csv and chunk-<id>-dataset.json", f"none in {directory}",
                           "download the data again, or check the path")  # fmt: skip
    if lone := sorted(datasets.keys() - traces.keys()):
        raise ProfileError("a trace file for every dataset file", f"none in {directory} for {_clients(lone)}",
                           "add the files, or remove the datasets")  # fmt: skip
    return traces, datasets


def pool_of_files(
    workload: str, category: str, traces: Mapping[int, Path], datasets: Mapping[int, Path], missing: Missing
) -> tuple[ClientPool, tuple[str, ...]]:
    """Parse all files of a workload: its pool, and short sentences on what was left out."""
    trace = read_traces(traces)
    ids = np.array(sorted(traces), np.int64)
    active = trace.rate_rps > 0
    ever = active.any(axis=1)
    has_dataset = np.isin(ids, list(datasets))
    notes = []
    if not ever.all():
        notes.append(f"{_clients(ids[~ever].tolist())} never active: left out")
    if (ever & ~has_dataset).any():
        lost = trace.rate_rps[ever & ~has_dataset].sum() / trace.rate_rps.sum()
        which = _clients(ids[ever & ~has_dataset].tolist())
        if missing == "error":
            raise ProfileError(
                "a dataset file for every trace file",
                f"none for {which}, {lost:.2%} of the requests",
                'add the files, or go on without these clients: missing="drop" or --drop-incomplete',
            )
        notes.append(f"{which} without a dataset file, {lost:.2%} of the requests: left out")
    kept = ever & has_dataset
    if not kept.any():
        directory = traces[int(ids[0])].parent
        raise ProfileError("a client that is ever active", f"none among {len(ids):,} in {directory}", "add clients")

    active = active[kept]
    wanted = {int(c): datasets[int(c)] for c in ids[kept]}
    table, tables = _read_tables(wanted, FIELDS[category], trace.start_s, active)
    pool = ClientPool(
        name=workload,
        category=category,
        window_s=trace.window_s,
        first_window=int(trace.start_s[0]) // trace.window_s,
        client_ids=ids[kept],
        profile=np.arange(len(active), dtype=np.int32),
        rate_factor=np.ones(len(active)),
        rate_rps=trace.rate_rps[kept],
        cv=np.where(active, trace.cv[kept], 0),
        family=trace.family[kept],
        shape=np.where(trace.family == EXPONENTIAL, 1, np.where(trace.rate_rps > 0, trace.shape, 0))[kept],
        occupancy=_occupancy(trace)[kept],
        table=table,
        tables=tables,
        measured=np.ones(len(active), np.bool_),
    )
    return pool, tuple(notes)


def _occupancy(trace: Traces) -> NDArray[np.float64]:
    """Part of a window that the run of requests covers: rate times mean gap where fits are moment fits."""
    with np.errstate(over="ignore"):
        extent = np.minimum(1, trace.rate_rps * (trace.shape * trace.scale))
    covered = np.where(trace.family == GAMMA, np.maximum(extent, np.finfo(np.float64).tiny), 1.0)
    return np.where(trace.rate_rps > 0, covered, 0.0)


def _read_tables(
    datasets: Mapping[int, Path],
    fields: tuple[str, ...],
    start_s: NDArray[np.int64],
    active: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], Tables]:
    """Rows of the tables int32[clients, windows, fields], and the tables that active windows use."""
    table = np.full((*active.shape, len(fields)), -1, np.int32)
    lanes = np.arange(len(fields))
    parts: list[Tables] = []
    base = client = 0
    for files in batches(datasets, BATCH_BYTES):
        texts: list[str] = []
        places: list[tuple[ClientFile, int]] = []
        for file in files:
            starts, slots = read_slots(file, fields)
            windows = np.flatnonzero(active[client])
            slot = np.searchsorted(starts, start_s[windows], side="right") - 1
            if (slot < 0).any():
                raise ProfileError(
                    "a slot with requests at or before every active window",
                    f"none in {file.path} (client {file.client}, window {start_s[windows[0]]} s)",
                    "add the slot, or silence the window in the trace",
                )
            used, rank = np.unique(slot, return_inverse=True)
            table[client, windows] = base + len(texts) + rank[:, None] * len(fields) + lanes
            texts += [text for n in used for text in slots[n]]
            places += [(file, int(starts[n])) for n in used]
            client += 1
        is_ratio = np.tile(np.array([KINDS[field] is Kind.RATIO for field in fields]), len(places))
        parts.append(parse_histograms(texts, is_ratio, _where(places, fields)))
        base += len(texts)
    return table, Tables.join(parts)


def _where(places: Sequence[tuple[ClientFile, int]], fields: tuple[str, ...]) -> Callable[[int], str]:
    def where(text: int) -> str:
        file, start_s = places[text // len(fields)]
        return f"in {fields[text % len(fields)]} in {file.path} (client {file.client}, window {start_s} s)"

    return where


def _clients(ids: Sequence[int]) -> str:
    """A few ids in words."""
    listed = ", ".join(str(c) for c in ids[:10])
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"{len(ids):,} client{'s' if len(ids) != 1 else ''} ({listed}{more})"
