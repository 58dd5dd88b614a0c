"""The trace half of a ServeGen client: one CSV row a window, without a header.

A row is ``time_s,rate_rps,cv,family,shape,scale``. All files of a batch are parsed at once by Arrow; only when
something is wrong does a slow reader go line by line, to name the first culprit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.released.files import ClientFile, batches
from servegen_gpu.errors import ProfileError
from servegen_gpu.request.families import EXPONENTIAL, NO_FAMILY, RELEASED

COLUMNS = ("time_s", "rate_rps", "cv", "family", "shape", "scale")
LONE_WINDOW_S = 600
UNKNOWN = 255
"""Code of a name that is no family."""
"""Length of a window where the data has only one, and so no step to read it from."""

FIX = "fix the file, or download it again"


@dataclass(frozen=True, eq=False)
class Traces:
    """The traces of all clients, checked, on their common grid.

    Attributes
    ----------
    start_s : int64[windows]
        Multiples of `window_s`, one after the other.
    window_s : int
    rate_rps, cv, shape, scale : float64[clients, windows]
        Finite and non-negative; shape and scale positive where a Gamma or Weibull window is active.
    family : uint8[clients, windows]
        ``NO_FAMILY`` where silent.
    """

    start_s: NDArray[np.int64]
    window_s: int
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    shape: NDArray[np.float64]
    scale: NDArray[np.float64]
    family: NDArray[np.uint8]


def read_traces(paths: Mapping[int, Path], regular: bool = True) -> Traces:
    """Read the trace files of all clients, in order of their ids.

    Parameters
    ----------
    paths : mapping of int to Path
        Trace file by client id; at least one.
    regular : bool
        Insist on windows of equal length; if not, starts need only ascend, and `window_s` is the first step.
    """
    parts = []
    start_s: NDArray[np.int64] | None = None
    for files in batches(paths):
        columns, reason = _parse(files)
        if start_s is None:
            start_s = _read_grid(files[0], regular)
        if columns is None or _any_fault(columns, start_s):
            raise _culprit(files, start_s, reason)
        parts.append(columns)
    assert start_s is not None
    rate, cv, shape, scale, family = (
        np.concatenate([part[name] for part in parts]) for name in ("rate_rps", "cv", "shape", "scale", "family")
    )
    window_s = int(start_s[1] - start_s[0]) if len(start_s) > 1 else LONE_WINDOW_S
    return Traces(start_s, window_s, rate, cv, shape, scale, np.where(rate > 0, family, NO_FAMILY).astype(np.uint8))


def _parse(files: Sequence[ClientFile]) -> tuple[dict[str, NDArray[Any]] | None, str]:
    """Columns as arrays [files, windows], or None and the reason."""
    import pyarrow as pa
    from pyarrow import csv

    texts = [file.data if file.data.endswith(b"\n") else file.data + b"\n" for file in files]
    windows = texts[0].count(b"\n")
    if any(text.count(b"\n") != windows for text in texts):
        return None, "files of different lengths"
    types = dict.fromkeys(COLUMNS, pa.float64()) | {
        "time_s": pa.int64(),
        "family": pa.dictionary(pa.int32(), pa.string()),
    }
    try:
        table = csv.read_csv(
            pa.BufferReader(b"".join(texts)),
            read_options=csv.ReadOptions(column_names=list(COLUMNS)),
            parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowException as error:
        return None, str(error)
    if table.num_rows != windows * len(files):
        return None, "line ends other than line feeds"
    family = table["family"].unify_dictionaries()
    names = family.chunk(0).dictionary.to_pylist()
    codes = np.array([RELEASED.get(name, UNKNOWN) for name in names], np.uint8)
    columns = {name: table[name].to_numpy() for name in COLUMNS if name != "family"}
    columns["family"] = codes[np.concatenate([chunk.indices.to_numpy() for chunk in family.chunks])]
    return {name: column.reshape(len(files), windows) for name, column in columns.items()}, ""


def _any_fault(columns: Mapping[str, NDArray[Any]], start_s: NDArray[np.int64]) -> bool:
    """Whether any row is at fault: the rules of `_check_line`, on whole columns."""
    if columns["time_s"].shape[1] != len(start_s) or (columns["time_s"] != start_s).any():
        return True
    for name in ("rate_rps", "cv", "shape", "scale"):
        column = columns[name]
        if not (np.isfinite(column) & (column >= 0)).all():
            return True
    active = columns["rate_rps"] > 0
    if (columns["family"] == UNKNOWN).any() or (active & (columns["family"] == NO_FAMILY)).any():
        return True
    fitted = active & (columns["family"] != EXPONENTIAL)
    return bool((fitted & ((columns["shape"] == 0) | (columns["scale"] == 0))).any())


def _read_grid(file: ClientFile, regular: bool) -> NDArray[np.int64]:
    """Window starts of the first client, line by line, checked to be regular or at least to ascend."""
    times = [_check_line(file, n, line) for n, line in _lines(file)]
    if not regular:
        for n, (before, time) in enumerate(pairwise(times), 2):
            if time <= before:
                raise ProfileError(
                    f"windows that begin one after the other (here after {before} s)",
                    f"time_s {time} in {file.path}, line {n} (client {file.client}, window {time} s)",
                    FIX,
                )
        return np.array(times, np.int64)
    step = times[1] - times[0] if len(times) > 1 else LONE_WINDOW_S
    for n, time in enumerate(times, 1):
        due = times[0] + (n - 1) * step
        if step <= 0 or time != due or time % step:
            raise ProfileError(
                f"windows of equal length one after the other, on multiples of their length (here {due} s)",
                f"time_s {time} in {file.path}, line {n} (client {file.client}, window {time} s)",
                FIX,
            )
    return np.array(times, np.int64)


def _culprit(files: Sequence[ClientFile], start_s: NDArray[np.int64], reason: str) -> ProfileError:
    """The first fault of a batch that the fast path refused."""
    for file in files:
        try:
            times = [_check_line(file, n, line) for n, line in _lines(file)]
        except ProfileError as error:
            return error
        for n, (time, due) in enumerate(zip(times, start_s.tolist(), strict=False), 1):
            if time != due:
                return ProfileError(
                    f"the same windows for every client (here {due} s)",
                    f"time_s {time} in {file.path}, line {n} (client {file.client}, window {time} s)",
                    FIX,
                )
        if len(times) != len(start_s):
            return ProfileError(
                f"{len(start_s):,} windows, as the first client has",
                f"{len(times):,} lines in {file.path} (client {file.client}, window {times[-1]} s is the last)",
                FIX,
            )
    return ProfileError(
        "trace files that Arrow can read", f"{reason!r} between {files[0].path} and {files[-1].path}", FIX
    )


def _lines(file: ClientFile) -> list[tuple[int, str]]:
    """Numbered lines of a trace file."""
    if not file.data.strip():
        raise ProfileError("a row for every window", f"an empty file {file.path}, line 1 (client {file.client})", FIX)
    lines = file.data.removesuffix(b"\n").split(b"\n")
    return [(n, line.removesuffix(b"\r").decode("utf-8", "replace")) for n, line in enumerate(lines, 1)]


def _check_line(file: ClientFile, number: int, line: str) -> int:
    """Check one row and give its time; every fault says file, line, client, window, field and value."""
    cells = line.split(",")
    is_time = cells[0].isascii() and cells[0].isdigit() and len(cells[0]) <= 12
    window = f", window {cells[0]} s" if is_time else ""
    place = f"in {file.path}, line {number} (client {file.client}{window})"
    if len(cells) != len(COLUMNS):
        header = "; is the file cut short?"
        raise ProfileError(f"{len(COLUMNS)} cells {','.join(COLUMNS)}", f"{line[:80]!r} {place}", FIX + header)
    if not is_time:
        raise ProfileError(
            "a whole number of seconds >= 0, and no header row", f"time_s {cells[0][:40]!r} {place}", FIX
        )
    numbers = {}
    for name in ("rate_rps", "cv", "shape", "scale"):
        cell = cells[COLUMNS.index(name)]
        try:
            numbers[name] = float(cell)
        except ValueError:
            numbers[name] = math.nan
        if not (math.isfinite(numbers[name]) and numbers[name] >= 0):
            raise ProfileError("a finite number >= 0", f"{name} {cell[:40]!r} {place}", FIX)
    family = cells[3]
    active = numbers["rate_rps"] > 0
    if family not in RELEASED or (active and not family):
        known = ", ".join(filter(None, RELEASED))
        raise ProfileError(f"a gap family among {known}", f"family {family[:40]!r} {place}", FIX)
    for name in ("shape", "scale"):
        if active and RELEASED[family] != EXPONENTIAL and numbers[name] == 0:
            raise ProfileError(f"a {name} > 0 where the rate is", f"{name} {numbers[name]:g} {place}", FIX)
    return int(cells[0])
