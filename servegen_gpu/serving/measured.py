"""A server fitted to a benchmark: `fit_server`.

A row of the benchmark is a request, or the mean of a run. With c requests at once, inputs of n tokens in k chunks and
outputs of m tokens, a request is k steps in prefill and m - 1 in decode, so a step that it decodes in has

    1 + (c - 1) (m - 1) / (m - 1 + k) sequences that decode, and (c - 1) n / (m - 1 + k) input tokens

on average, input in (c - 1) k / (m - 1 + k) of such steps, and lasts as `Server` says: that is its mean time between
tokens. Where tokens are more than the budget of a step of B, requests queue for prefill, B (m - 1) / (n + m - 1) decode
and all steps have input. A request alone has its first token after k steps and n input tokens; times to first token at
more than one at once have queues in them, which no line fits, and are not used. All equations together are solved by
nonnegative least squares of relative errors.

Outputs should differ in length: users who all ask for as much march in step, and prefill together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.serving.server import Server
from servegen_gpu.text import open_file

if TYPE_CHECKING:
    import pandas as pd

FITTED = ("step_s", "prefill_s_per_token", "decode_s_per_sequence", "prefill_s_per_step")
NAMES: dict[str, tuple[str, ...]] = {
    "input_tokens": ("input_tokens", "isl", "input_length"),
    "output_tokens": ("output_tokens", "osl", "output_length"),
    "concurrency": ("concurrency", "batch", "batch_size", "max_concurrency"),
    "ttft_s": ("ttft_s", "ttft_ms", "mean_ttft_ms"),
    "tbt_s": ("tbt_s", "tbt_ms", "itl_s", "itl_ms", "tpot_s", "tpot_ms", "mean_tpot_ms", "mean_itl_ms"),
}
"""Columns by their names in benchmarks; those that end in _ms are milliseconds."""

MOST_TOKENS = 2**31 - 1
BOUNDS: dict[str, tuple[float, float]] = {"concurrency": (1, MOST_TOKENS)} | dict.fromkeys(
    ("ttft_s", "tbt_s"), (1e-9, 1e6)
)
"""What is in a benchmark, in tokens and seconds; a time of 0 was not measured."""

MOST_ALIKE = 1e-6
"""Smallest ratio of singular values, columns scaled, at which parameters still are told apart."""


@dataclass(frozen=True)
class ServerFit:
    """A fitted server, and how well it fits.

    Attributes
    ----------
    server : Server
    residuals : pandas.DataFrame
        A line for each equation: ``row`` of the benchmark, ``of`` (``ttft_s`` or ``tbt_s``), ``measured_s``,
        ``fitted_s`` and ``relative``, the difference divided by what was measured.
    """

    server: Server
    residuals: pd.DataFrame

    def __str__(self) -> str:
        server, lines = self.server, list[str]()
        lines += [f"{name:22} {getattr(server, name):.6g} s" for name in FITTED]
        for of, part in self.residuals.groupby("of"):
            off = part["relative"].abs()
            lines.append(f"{of}: {len(part)} rows, {off.median():.1%} off in the median, {off.max():.1%} at most")
        return "\n".join(lines)


def fit_server(
    measurements: str | os.PathLike[str] | Mapping[str, Any] | pd.DataFrame, like: Server | None = None
) -> ServerFit:
    """Fit the times of a server to a benchmark.

    Parameters
    ----------
    measurements : path-like, mapping or pandas.DataFrame
        CSV, Parquet or columns: ``input_tokens``, ``ttft_s`` and, if not all are alone, ``concurrency``; for the time
        between tokens ``output_tokens`` and ``tbt_s``. Other names that are known: `NAMES`.
    like : Server, optional
        Where the other parameters are from: token budget, sequences, KV cache, name, model and hardware.

    Returns
    -------
    ServerFit

    Raises
    ------
    OptionError
        If columns are missing or have impossible values, or do not tell the four parameters apart.
    ProfileError
        If the file cannot be read.
    """
    from scipy.optimize import nnls

    table, source = _table(measurements)
    base = Server() if like is None else like
    columns = {name: _column(table, name) for name in NAMES}
    there = f"{source} with columns {', '.join(map(str, table))[:200]}"
    rows, of, design, measured = _equations(columns, base, there)
    weighted = design / measured[:, None]
    _check_told_apart(weighted)
    solution, _ = nnls(weighted, np.ones(len(weighted)))
    if solution[0] < 1e-9:
        expected = "a benchmark whose steps take at least 1 ns"
        raise OptionError(expected, f"{solution[0]:g} s in {source}", "check the columns and their units")
    origin = f"fitted: to {len(set(rows.tolist()))} rows of {source}"
    times: dict[str, Any] = dict(zip(FITTED, map(float, solution), strict=True))
    server = replace(base, **times, origins={**base.origins, **dict.fromkeys(FITTED, origin)})
    return ServerFit(server, _residuals(rows, of, measured, design @ solution))


def _equations(
    columns: Mapping[str, NDArray[np.float64] | None], server: Server, there: str
) -> tuple[NDArray[np.intp], NDArray[np.str_], NDArray[np.float64], NDArray[np.float64]]:
    """Row, kind, what of each parameter is in it, and time of every equation."""
    inputs, outputs, ttft_s, tbt_s = (columns[name] for name in ("input_tokens", "output_tokens", "ttft_s", "tbt_s"))
    if inputs is None or (ttft_s is None and tbt_s is None):
        raise OptionError(
            "a benchmark with input_tokens, and ttft_ms (or ttft_s) or tpot_ms (tbt_s, …)", there, "add them"
        )
    at_once = np.ones_like(inputs) if columns["concurrency"] is None else columns["concurrency"]
    chunks = np.maximum(np.ceil(inputs / server.step_tokens), 1.0)
    parts = []
    if ttft_s is not None:
        rows = np.flatnonzero((at_once == 1) & (ttft_s > 0))
        design = np.column_stack((chunks, inputs, np.zeros_like(inputs), chunks * (inputs > 0)))
        parts.append((rows, np.full(len(rows), "ttft_s"), design[rows], ttft_s[rows]))
    if tbt_s is not None:
        if outputs is None:
            raise OptionError("output_tokens beside the time between tokens", there, "add them")
        rows = np.flatnonzero((outputs > 1) & (tbt_s > 0))
        inputs, outputs, at_once, chunks = (column[rows] for column in (inputs, outputs, at_once, chunks))
        steps = outputs - 1 + chunks
        prefilling, decoding = (at_once - 1) * inputs / steps, 1 + (at_once - 1) * (outputs - 1) / steps
        full = prefilling + decoding > server.step_tokens
        decoding = np.where(full, server.step_tokens * (outputs - 1) / (inputs + outputs - 1), decoding)
        prefilling = np.where(full, server.step_tokens - decoding, prefilling)
        share = np.where(full, 1.0, np.minimum((at_once - 1) * chunks / steps, 1.0)) * (inputs > 0)
        design = np.column_stack((np.ones_like(inputs), prefilling, decoding, share))
        parts.append((rows, np.full(len(rows), "tbt_s"), design, tbt_s[rows]))
    rows, of, design, measured = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, of, design, measured


def _check_told_apart(weighted: NDArray[np.float64]) -> None:
    scale = np.linalg.norm(weighted, axis=0)
    if len(weighted) >= len(FITTED) and (scale > 0).all():
        singular = np.linalg.svd(weighted / scale, compute_uv=False)
        if singular[-1] > MOST_ALIKE * singular[0]:
            return
    expected = f"a benchmark that tells {', '.join(FITTED[:-1])} and {FITTED[-1]} apart"
    got = f"{len(weighted)} equations that do not"
    raise OptionError(expected, got, "measure a request alone with several inputs, and several concurrencies")


def _residuals(rows: NDArray[Any], of: NDArray[Any], measured: NDArray[Any], fitted: NDArray[Any]) -> pd.DataFrame:
    import pandas as pd

    relative = (fitted - measured) / measured
    return pd.DataFrame({"row": rows, "of": of, "measured_s": measured, "fitted_s": fitted, "relative": relative})


def _table(measurements: Any) -> tuple[Any, str]:
    """Columns, and what to call them."""
    if not isinstance(measurements, str | os.PathLike):
        return measurements, "a benchmark"
    import pandas as pd
    import pyarrow as pa

    path = Path(measurements)
    try:
        open_file(path).close()
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError, pa.ArrowException) as error:  # what pandas raises of bad files are ValueErrors
        raise ProfileError("a benchmark as CSV or Parquet", f"{path}: {str(error)[:200]}", "check the file") from error
    return table, path.name


def _column(table: Any, name: str) -> NDArray[np.float64] | None:
    """A column in tokens or seconds, by any of its names."""
    for known in NAMES[name]:
        if known in table:
            break
    else:
        return None
    try:
        values = np.asarray(table[known], np.float64)
    except (TypeError, ValueError, OverflowError):
        row, cell = next((i, cell) for i, cell in enumerate(table[known]) if not _is_number(cell))
        raise OptionError(f"numbers in {known}", f"{cell!r} in row {row}", "drop the row, or fix it") from None
    unit = 1e3 if known.endswith("_ms") else 1.0
    least, most = (bound * unit for bound in BOUNDS.get(name, (0, MOST_TOKENS)))
    bad = np.flatnonzero(~((values >= least) & (values <= most)) & ((values != 0) | (name == "concurrency")))
    if len(bad):
        none = "" if name == "concurrency" or not least else "0, or "
        expected = f"{known} that is {none}from {least:g} to {most:,.10g}"
        raise OptionError(expected, f"{values[bad[0]]:g} in row {bad[0]}", "drop the row, or fix it")
    return values / unit


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True
