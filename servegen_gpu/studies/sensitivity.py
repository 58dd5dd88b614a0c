"""What a metric depends on: `sensitivity`.

>>> found = sg.sensitivity(pool, ["rate=0.8:1.2", "burstiness=0.5:2:log"], ["requests_peak_10s"], "sobol", rate=100)
>>> print(found)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu import options
from servegen_gpu.clients.named import AnyPool, as_pool
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.reducing.metrics import Assumed
from servegen_gpu.reducing.replicas import Sampling
from servegen_gpu.studies import morris, sobol, tornado
from servegen_gpu.studies.file import read_study, write_study
from servegen_gpu.studies.measures import Metric, measures_of
from servegen_gpu.studies.parameters import PARAMETERS, Parameter, own_value, parse_vary
from servegen_gpu.studies.runs import Progress, noise_share, run
from servegen_gpu.studies.source import REPLICAS_OF_A_DRAW, Source

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("requests_peak_10s", "input_tokens_peak_10s", "output_tokens_peak_10s")
"""Measured by default."""
REPLICAS = 20
CONFIDENCE = 0.95
MAX_SAMPLES = 1 << 14
ROW = ("metric", "parameter", "value_low", "value_high")
"""Columns of every table; then the figures of the method, and ``noise_share``."""

Figures = dict[str, NDArray[np.float64]]


class _Method(NamedTuple):
    """A way to look at a function of parameters.

    Attributes
    ----------
    points : function of base, samples and seed
        Places in the ranges, float64[points, parameters].
    figures : function of y (float64[points, metrics, replicas]), parameters, seed and confidence
    columns : tuple of str
        Names of the figures.
    size : str
        The figure by which parameters are ordered.
    samples, fewest : int
        By default, and at least; 0 where the method has none.
    what : str
        A sample, in words.
    """

    points: Callable[[NDArray[np.float64], int, int], NDArray[np.float64]]
    figures: Callable[[NDArray[np.float64], int, int, float], Figures]
    columns: tuple[str, ...]
    size: str
    samples: int = 0
    fewest: int = 0
    what: str = ""


METHODS: Mapping[str, _Method] = {
    "tornado": _Method(
        points=lambda base, samples, seed: tornado.points(base),
        figures=lambda y, parameters, seed, confidence: tornado.figures(y, confidence),
        columns=tornado.FIGURES,
        size="swing",
    ),
    "morris": _Method(
        points=lambda base, samples, seed: morris.points(len(base), samples, seed),
        figures=lambda y, parameters, seed, confidence: morris.figures(y.mean(axis=2), parameters, seed, confidence),
        columns=morris.FIGURES,
        size="mu_star",
        samples=20,
        fewest=4,
        what="trajectories",
    ),
    "sobol": _Method(
        points=lambda base, samples, seed: sobol.points(len(base), samples, seed),
        figures=lambda y, parameters, seed, confidence: sobol.figures(y.mean(axis=2), parameters, seed, confidence),
        columns=sobol.FIGURES,
        size="total",
        samples=128,
        fewest=16,
        what="rows of a matrix, a power of 2",
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity:
    """What metrics depend on.

    Attributes
    ----------
    table : DataFrame
        A row for each metric and parameter: ``metric``, ``parameter``, ``value_low`` and ``value_high`` (its range),
        figures of the method, and ``noise_share`` (`servegen_gpu.studies.runs.noise_share`).
        ``tornado``: ``base``, ``at_low`` and ``at_high``, the metric with all parameters at their base and with this
        one at an end; ``swing``, from the low end to the high one.
        ``morris``: ``mu_star``, ``mu`` and ``sigma`` of elementary effects (`servegen_gpu.studies.morris`).
        ``sobol``: ``first`` and ``total``, the indices (`servegen_gpu.studies.sobol`).
        ``…_low`` and ``…_high`` are intervals: over replicas, trajectories, and rows of the matrices.
    settings : dict
        From what it was made, in terms that JSON has.
    """

    table: pd.DataFrame
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<Sensitivity of {', '.join(self.metrics)} to {', '.join(self.parameters)}: {self.method}>"

    def __str__(self) -> str:
        from servegen_gpu.studies.sensitivity_text import text_of

        return text_of(self)

    @property
    def method(self) -> str:
        """``tornado``, ``morris`` or ``sobol``."""
        return str(self.settings["method"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.settings["metrics"])

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the varied parameters."""
        return tuple(self.settings["vary"])

    def to_dict(self) -> dict[str, Any]:
        """Settings and rows, in terms that JSON has; None for what is not finite."""
        rows = self.table.to_dict(orient="records")
        finite = [
            {str(key): value if isinstance(value, str) or np.isfinite(value) else None for key, value in row.items()}
            for row in rows
        ]
        return {"settings": dict(self.settings), "rows": finite}

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write it to a Parquet file with the settings in its metadata."""
        write_study(path, "sensitivity", self.settings, self.table, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Read what `write` wrote.

        Raises
        ------
        OptionError
            If the file is anything else.
        """
        kind, settings, table = read_study(path)
        method = METHODS.get(str(settings.get("method")))
        if kind != "sensitivity" or method is None:
            raise OptionError("a study of sensitivity", f"one of kind {kind} in {os.fspath(path)}", "give another file")
        columns, kinds = [*ROW, *method.columns, "noise_share"], [table[name].dtype.kind for name in table]
        if list(table.columns) != columns or set(kinds[2:]) - {"f"}:
            got = f"columns {', '.join(map(str, table.columns))[:80]} in {os.fspath(path)}"
            raise OptionError(f"a table with the columns {', '.join(columns)}", got, "give another file")
        if wrong := _wrong_in(settings, table):
            got = f"{wrong} {str(settings.get(wrong))[:60]} in {os.fspath(path)}"
            raise OptionError("settings of a study of sensitivity", got, "give another file")
        return cls(table, settings)


def _wrong_in(settings: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Name of a setting that is not what it should be, for files are of anybody's making; empty if there is none."""
    checks: Mapping[str, Callable[[Any], bool]] = {
        "metrics": lambda value: bool(value == list(dict.fromkeys(table["metric"]))),
        "vary": lambda value: isinstance(value, dict),
        "points": lambda value: type(value) is int and value > 0,
        "replicas": lambda value: type(value) is int and value > 0,
        "confidence": lambda value: isinstance(value, float) and 0 < value < 1,
    }
    return next((name for name, well in checks.items() if not well(settings.get(name))), "")


def sensitivity(
    pool: AnyPool,
    vary: str | Parameter | Sequence[str | Parameter] | Mapping[str, Any],
    metrics: Metric | Sequence[Metric] = METRICS,
    method: str = "tornado",
    *,
    rate: Any = None,
    duration: float | str = "1h",
    replicas: int = REPLICAS,
    samples: int | None = None,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    assumed: Assumed | None = None,
    counts: str = "renewal",
    threads: int | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Sensitivity:
    """What metrics of a workload depend on, over ranges of its parameters.

    All points have the same random numbers, replica by replica, and metrics are means over replicas: so chance hardly
    moves one point against another. What is left of it is estimated, as ``noise_share`` of the table. Clients of
    ``clients`` are drawn once, by the seed.

    Parameters
    ----------
    pool : ClientPool, or the name of a workload
    vary : str, Parameter, sequence of these, or mapping
        Which parameters, and over which ranges (`servegen_gpu.studies.parameters`): ``"rate=0.8:1.2"``.
    metrics, assumed
        As `monte_carlo` has them.
    method : {"tornado", "morris", "sobol"}
        ``tornado`` moves one parameter at a time, from a base: 1 for factors, the pool's own for shares, if that is in
        the range, else the middle; 2 d + 1 points for d parameters. ``morris`` moves them one at a time from many
        places; `samples` (d + 1) points. ``sobol`` varies all at once and divides the variance among them;
        `samples` (d + 2) points.
    rate, duration, counts, seed
        As `stream` has them; so are all further keywords but ``requests``, ``replica``, ``shard`` and ``device``.
    replicas : int
        Of every point; 2 or more, or nothing is known of the noise.
    samples : int, optional
        ``morris``: trajectories, 20 by default. ``sobol``: a power of 2, 128 by default.
    confidence : float
        Of all intervals.
    threads : int, optional
        Points at a time.
    progress : function, optional

    Returns
    -------
    Sensitivity

    Raises
    ------
    OptionError
        If an argument is out of range, a parameter or metric is unknown, or the pool does not carry a parameter.
    """
    if wrong := sorted({"requests", "replica", "shard", "device"} & set(keywords)):
        raise OptionError("a study without requests, replica, shard and device", wrong[0], "leave it out")
    parameters = _varied(vary)
    how, samples = _method(method, samples, len(parameters))
    replicas = options.integer("replicas", replicas, REPLICAS_OF_A_DRAW)
    if not replicas:
        raise OptionError("one replica or more of every point", "0", "change replicas")
    if isinstance(confidence, bool) or not isinstance(confidence, float | int) or not 0 < confidence < 1:
        raise OptionError("confidence above 0 and below 1", repr(confidence), "such as 0.95")
    sampling = {name: keywords.pop(name) for name in tuple(keywords) if name in Sampling.__annotations__}
    pool = as_pool(pool)
    source = Source(pool, rate, {"duration": duration, "counts": counts, **keywords}, sampling, parameters, seed)
    measures = measures_of(metrics, source.span_s, assumed)
    base = np.array([one.place(_base(pool, one)) for one in parameters])
    points = how.points(base, samples, seed)
    values = np.column_stack([one.at(column) for one, column in zip(parameters, points.T, strict=True)])
    found = run(source, measures, values, replicas, threads, progress)
    figures = how.figures(found.y, len(parameters), seed, confidence)
    settings = source.settings | {
        "method": method,
        "metrics": found.names,
        "assumed": measures.assumed,
        "base": {one.name: float(one.at(place)) for one, place in zip(parameters, base.tolist(), strict=True)},
        "samples": samples,
        "points": len(points),
        "replicas": replicas,
        "confidence": float(confidence),
    }
    return Sensitivity(_table(found.names, parameters, figures, noise_share(found.y)), settings)


def _varied(vary: str | Parameter | Sequence[str | Parameter] | Mapping[str, Any]) -> tuple[Parameter, ...]:
    found = tuple(sorted(parse_vary(vary), key=lambda one: [*PARAMETERS].index(one.name)))
    if not found:
        raise OptionError("one parameter or more that vary", "none", f"name some of {', '.join(PARAMETERS)}")
    for one in found:
        if one.low == one.high:
            fix = "give it a range, or leave it out"
            raise OptionError("parameters with a range", f"{one.name} at {one.low:g} alone", fix)
    return found


def _method(method: str, samples: int | None, parameters: int) -> tuple[_Method, int]:
    """A method by its name, and the number of its samples."""
    how = METHODS.get(method) if isinstance(method, str) else None
    if how is None:
        raise unknown("a method", method, METHODS)
    if not how.samples:
        if samples is not None:
            raise OptionError(f"{method} without samples", repr(samples), "leave them out, or take morris or sobol")
        return how, 0
    found = options.integer("samples", how.samples if samples is None else samples, MAX_SAMPLES)
    power = found & (found - 1) == 0 or method != "sobol"
    if found < how.fewest or not power:
        more = max(how.fewest, 1 << (found - 1).bit_length() if found else 1)
        raise OptionError(f"{how.fewest} or more {how.what}, for {method}", f"{found:,} samples", f"take {more:,}")
    if method == "sobol" and parameters < 2:
        raise OptionError(
            "two parameters or more for sobol", "one, to which all variance goes", "add another, or take tornado"
        )
    return how, found


def _base(pool: ClientPool, one: Parameter) -> float:
    own = own_value(pool, one.name)
    return own if one.low <= own <= one.high else float(one.at(0.5))


def _table(
    names: Sequence[str], parameters: Sequence[Parameter], figures: Figures, noise: NDArray[np.float64]
) -> pd.DataFrame:
    """A row for each metric and parameter."""
    import pandas as pd

    metrics, each = len(names), len(parameters)
    columns: dict[str, Any] = {
        "metric": np.repeat(np.array(names, object), each),
        "parameter": np.tile(np.array([one.name for one in parameters], object), metrics),
        "value_low": np.tile([one.low for one in parameters], metrics),
        "value_high": np.tile([one.high for one in parameters], metrics),
    }
    columns |= {name: of.ravel() for name, of in figures.items()}
    return pd.DataFrame(columns | {"noise_share": np.repeat(noise, each)})
