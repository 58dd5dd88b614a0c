"""What replicas say: a tidy table, from what it was made, and what it means."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.studies.file import read_study, write_study
from servegen_gpu.studies.intervals import (
    Interval,
    clustered_quantile_interval,
    controlled_mean,
    mean_interval,
    parameter_share,
    quantile_interval,
)
from servegen_gpu.studies.settings import AXES, columns_of, wrong_in
from servegen_gpu.studies.stopping import Moments, Verdict, Watch, parse_until

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (50, 90, 95, 99)


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """Replicas of a workload in figures.

    Attributes
    ----------
    table : DataFrame
        A row for each replica: ``draw`` (of the parameters) and ``replica`` (as `generate` takes it, with the study's
        seed), int64; a column for each varied parameter, for each metric, and for each control variate, float64: the
        deviation of a total from its expectation, as a share.
    settings : dict
        From what it was made, in terms that JSON has: ``workload``, ``pool_digest``, ``rate``, ``duration_s``,
        ``seed``, ``metrics`` and ``controls`` (names of columns), ``vary`` (low, high and scale of parameters by name),
        ``replicas`` (of each draw), ``draws``, ``until``, ``confidence``, and so on; ``bins`` has quantiles of the
        load of every bin of time over the first 200 replicas, or draws.
    notes : tuple of str
        What a user should know.
    """

    table: pd.DataFrame
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Study of {self.settings.get('workload')}: {len(self.table):,} replicas of {', '.join(self.metrics)}>"

    def _repr_html_(self) -> str:
        from servegen_gpu.reporting.notebook import study_html

        return study_html(self)

    def __str__(self) -> str:
        from servegen_gpu.studies.table import text_of

        return text_of(self)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(self.settings["metrics"])

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the varied parameters."""
        return tuple(self.settings.get("vary") or ())

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the control variates."""
        return tuple(self.settings.get("controls") or ())

    @property
    def confidence(self) -> float:
        """Of intervals."""
        return float(self.settings.get("confidence") or 0.95)

    def sample(self, name: str) -> NDArray[np.float64]:
        """A column by units that are independent, float64[units, replicas]: one replica each, or whole draws.

        Draws that are not complete are left out, and units without a value.
        """
        values = self.table[name].to_numpy(np.float64)
        if not self.parameters:
            found = values[:, None]
        else:
            draw, replicas = self.table["draw"].to_numpy(), int(self.settings.get("replicas") or 1)
            _, first, count = np.unique(draw, return_index=True, return_counts=True)
            whole = first[count >= replicas]
            found = values[whole[:, None] + np.arange(replicas)] if len(whole) else np.empty((0, replicas))
        return found

    def _known(self, *names: str) -> list[NDArray[np.float64]]:
        """Samples of several columns, without units in which the first has no value; infinity is one."""
        found = [self.sample(name) for name in names]
        kept = ~np.isnan(found[0]).any(axis=1)
        return [one[kept] for one in found]

    def summary(self, confidence: float | None = None) -> pd.DataFrame:
        """Every metric in figures.

        Parameters
        ----------
        confidence : float, optional
            Of intervals, each by itself; the study's by default.

        Returns
        -------
        DataFrame
            A row for each metric. ``replicas`` that have a value, ``mean`` and ``sd``; ``p50``, ``p90``, ``p95`` and
            ``p99``; each but ``sd`` with its interval (``mean_low``, ``mean_high``, …). Intervals of quantiles need no
            assumption on the distribution; their ends are infinite where replicas are too few (99 %: fewer than 368).
            Under ``until``, intervals of ``mean`` hold at all times at once. ``controlled`` is the mean with control
            variates, which are totals and varied parameters, and ``variance_reduction`` the part of its variance that
            they took away; NaN where there is none. Where a replica has an infinite value, so is the mean: quantiles
            alone say something.
            Under ``vary``, ``parameter_share`` is the share of the variance that is of the parameters; the rest is of
            replicas.
        """
        import pandas as pd

        confidence = self.confidence if confidence is None else confidence
        return pd.DataFrame(
            [self._row(name, confidence) for name in self.metrics], index=pd.Index(self.metrics, name="metric")
        )

    def _row(self, name: str, confidence: float) -> dict[str, float]:
        sample, *controls = self._known(name, *self.controls, *self.parameters)
        for at, parameter in enumerate(self.parameters, len(self.controls)):
            controls[at] = self._place(parameter, controls[at])
        units = sample.mean(axis=1)
        finite = bool(np.isfinite(units).all())
        row: dict[str, float] = {"replicas": sample.size}
        row |= _ends("mean", self._mean(units, confidence) if finite else mean_interval(units, confidence))
        row["sd"] = float(sample.std(ddof=1)) if finite and sample.size > 1 else float("nan")
        for percent in QUANTILES:
            if sample.shape[1] == 1:
                found = quantile_interval(sample[:, 0], percent / 100, confidence)
            else:
                found = clustered_quantile_interval(sample, percent / 100, confidence)
            row |= _ends(f"p{percent}", found)
        known = np.array([control.mean(axis=1) for control in controls]).reshape(len(controls), len(units)).T
        held = controlled_mean(units, known, confidence) if finite else None
        nothing = Interval(*[float("nan")] * 3)
        row |= _ends("controlled", held.mean if held else nothing)
        row["variance_reduction"] = held.reduction if held else float("nan")
        if self.parameters:
            row |= _ends("parameter_share", parameter_share(sample, confidence) if finite else nothing)
        return row

    def _place(self, parameter: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values are in the range of a parameter, from -0.5 to 0.5: 0 on average."""
        low, high, scale = self.settings["vary"][parameter]
        if low == high:
            return np.zeros_like(values)
        if scale == "log":
            values, low, high = np.log(values), math.log(low), math.log(high)
        return np.asarray((values - low) / (high - low) - 0.5)

    def _mean(self, units: NDArray[np.float64], confidence: float) -> Interval:
        """Mean of independent units; at all times at once, if the study was looked at until it was enough."""
        if not self.settings.get("until"):
            return mean_interval(units, confidence)
        moments = Moments()
        for value in units.tolist():
            moments.add(value)
        return moments.interval(confidence)

    def verdicts(self) -> list[Verdict]:
        """What is known of each rule of ``until``."""
        watch = Watch(parse_until(self.settings.get("until") or ()), self.metrics, self.confidence)
        samples = {name: self.sample(name) for name in self.metrics}
        for unit in range(len(next(iter(samples.values()), ()))):
            rows = np.stack([samples[name][unit] for name in self.metrics], axis=1)
            watch.add([dict(zip(self.metrics, row, strict=True)) for row in rows.tolist()])
        return watch.verdicts()

    def against(self, other: Study, confidence: float | None = None) -> pd.DataFrame:
        """Differences from a study of the same seed, pair by pair: the same random numbers met two workloads.

        Returns
        -------
        DataFrame
            A row for each metric that both have: ``pairs``, ``mean``, ``other_mean``, their ``difference`` with its
            interval (``difference_low``, ``difference_high``), the ``correlation`` of pairs, and
            ``variance_reduction``: the part of the variance of the difference that pairing took away, compared with
            two studies that have nothing in common. Pairs are replicas, or under ``vary`` draws.

        Raises
        ------
        OptionError
            If the studies have other seeds, or no metric or replica in common.
        """
        import pandas as pd

        confidence = self.confidence if confidence is None else confidence
        common = other.pairs_with(self.settings.get("seed"), self.metrics)
        both = self.table[[*AXES, *common]].merge(other.table[[*AXES, *common]], on=list(AXES), suffixes=("", "_other"))
        if both.empty:
            raise OptionError("studies with replicas in common", "no replica in both", "make more replicas of either")
        if self.parameters or other.parameters:
            both = both.groupby("draw", as_index=False).mean()
        rows = []
        for name in common:
            pairs = both[[name, f"{name}_other"]].to_numpy(np.float64)
            a, b = pairs[np.isfinite(pairs).all(axis=1)].T
            variances = [float(x.var(ddof=1)) if len(x) > 1 else float("nan") for x in (a, b, a - b)]
            apart = variances[0] + variances[1]
            product = variances[0] * variances[1]
            row: dict[str, float] = {"pairs": len(a), "mean": float(a.mean()), "other_mean": float(b.mean())}
            row |= _ends("difference", mean_interval(a - b, confidence))
            row["correlation"] = (apart - variances[2]) / 2 / product**0.5 if product > 0 else float("nan")
            row["variance_reduction"] = 1 - variances[2] / apart if apart > 0 else float("nan")
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index(common, name="metric"))

    def pairs_with(self, seed: Any, metrics: Sequence[str]) -> list[str]:
        """Metrics that a study of a seed and of metrics has in common; refuses one that has no pairs with this one."""
        if seed != self.settings.get("seed"):
            got = f"seeds {seed} and {self.settings.get('seed')}"
            raise OptionError("studies of one seed, whose replicas are pairs", got, "make both with the same seed")
        common = [name for name in metrics if name in self.metrics]
        if not common:
            got = f"{', '.join(metrics)} and {', '.join(self.metrics)}"
            raise OptionError("studies with metrics in common", got, "make both with the same metrics")
        return common

    def to_dict(self) -> dict[str, Any]:
        """Settings but ``bins``, summary, verdicts and notes, in terms that JSON has; None for what is not finite."""
        rows = self.summary().to_dict(orient="index")
        return {
            "settings": {name: value for name, value in self.settings.items() if name != "bins"},
            "replicas": len(self),
            "summary": {
                str(name): {str(key): value if np.isfinite(value) else None for key, value in row.items()}
                for name, row in rows.items()
            },
            "verdicts": [
                {"rule": str(one.rule), "metric": one.metric, "met": one.met, "answer": one.answer or None}
                | {key: value if np.isfinite(value) else None for key, value in one.interval._asdict().items()}
                for one in self.verdicts()
            ],
            "notes": list(self.notes),
        }

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write it to a Parquet file with the settings in its metadata."""
        write_study(path, "montecarlo", self.settings, self.table, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Study:
        """Read what `write` wrote.

        Raises
        ------
        OptionError
            If the file is no study of replicas.
        """
        kind, settings, table = read_study(path)
        if kind != "montecarlo":
            raise OptionError("a study of replicas", f"one of kind {kind} in {os.fspath(path)}", "give another file")
        names = columns_of(settings)
        numbers = [table[name].dtype.kind for name in table]
        if list(table.columns) != names or numbers != [*"ii", *"f" * (len(numbers) - 2)]:
            got = f"columns {', '.join(map(str, table.columns))[:80]} in {os.fspath(path)}"
            raise OptionError("a table of numbers with the columns that its settings name", got, "give another file")
        if wrong := wrong_in(settings):
            got = f"{wrong} {str(settings.get(wrong))[:60]} in {os.fspath(path)}"
            raise OptionError("settings of a study of replicas", got, "give another file")
        return cls(table, settings)


def _ends(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
