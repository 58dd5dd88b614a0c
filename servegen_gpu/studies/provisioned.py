"""What a provisioning study found: instances that replicas need, at several confidences, beside a naive plan."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.serving.objective import Objective
from servegen_gpu.studies.file import read_study, write_study
from servegen_gpu.studies.intervals import Interval, quantile_interval, share_interval

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.5, 0.9, 0.95, 0.99)
"""Confidences of a plan: shares of replicas that hold the objective."""
FIGURES = ("instances", "by_rate", "peak", "mean", "max_rate_rps")
COLUMNS = {
    "source": "O",
    "replica": "i",
    "window_start_s": "f",
    "window_s": "f",
    "requests": "i",
    "instances": "f",
    "max_rate_rps": "f",
    "instances_by_rate": "f",
}
WHOLE = -1.0


@dataclass(frozen=True, eq=False, repr=False)
class Provision:
    """Instances that a workload needs to hold an objective.

    Attributes
    ----------
    table : DataFrame
        A row for each replica as a whole, and one for each window of it:

        - ``source`` (text): ``"clients"``, or ``"trace"`` for the one that was given; and ``"naive"``.
        - ``replica`` (int64): from 0.
        - ``window_start_s`` (float64): from the start of the trace; -1 for the replica as a whole.
        - ``window_s`` (float64): length of the window, or of the replica.
        - ``requests`` (int64): that arrive in it.
        - ``instances`` (float64): the fewest whole instances that hold the objective, simulated together; infinite
          where no number does, 0 in a window without requests.
        - ``max_rate_rps`` (float64): the highest rate at which one instance alone holds it, the same for all
          replicas; NaN in rows of windows, and where it does not even hold it at the lowest rate that says anything.
        - ``instances_by_rate`` (float64): the workload's rate over `max_rate_rps`, rounded up; as before.
    settings : dict
        From what it was made, in terms that JSON has: ``workload``, ``objective`` (``ttft_s``, ``tbt_s``, ``level``),
        ``server`` (with the origin of every number), ``routing``, ``rate_rps``, ``span_s``, ``window_s``, ``naive``
        (``family``, ``cv``), and so on.
    notes : tuple of str
        What a user should know.
    """

    table: pd.DataFrame
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Provision of {self.settings.get('workload')}: {', '.join(self.sources)}>"

    def __str__(self) -> str:
        from servegen_gpu.studies.provision_text import text_of

        return text_of(self)

    @property
    def sources(self) -> tuple[str, ...]:
        """What was provisioned for: the workload first, then the naive baseline if there is one."""
        return tuple(dict.fromkeys(self.table["source"]))

    @property
    def confidence(self) -> float:
        """Of intervals."""
        return float(self.settings["confidence"])

    def sample(self, source: str, figure: str = "instances") -> NDArray[np.float64]:
        """A figure of every replica, float64[replicas].

        Parameters
        ----------
        source : str
            One of `sources`.
        figure : {"instances", "by_rate", "peak", "mean", "max_rate_rps"}
            Of the whole; by the rate of one instance; the most in any window, and the mean over windows by their
            length; the rate itself.
        """
        if source not in self.sources:
            raise unknown("a source", source, self.sources)
        if figure not in FIGURES:
            raise unknown("a figure", figure, FIGURES)
        rows = self.table[self.table["source"] == source]
        if figure in ("peak", "mean"):
            rows = rows[rows["window_start_s"] != WHOLE]
            values, length_s = (_by_replica(rows, name) for name in ("instances", "window_s"))
            return values.max(axis=1) if figure == "peak" else np.asarray((values * length_s).sum(1) / length_s.sum(1))
        column = {"by_rate": "instances_by_rate"}.get(figure, figure)
        return rows.loc[rows["window_start_s"] == WHOLE, column].to_numpy(np.float64)

    def plan(self, source: str, level: float = 0.95, figure: str = "instances") -> Interval:
        """What suffices for a share of replicas: the smallest value that so many of them do not exceed.

        Its interval lies between two order statistics, whatever the distribution is; its ends are infinite where
        replicas are too few, NaN for one trace. For `max_rate_rps`, the largest value that so many reach.
        """
        sample, falls = self.sample(source, figure), figure == "max_rate_rps"
        sample = np.where(np.isnan(sample), 0.0 if falls else np.inf, sample)
        if falls:
            sample = -sample
        value = float(np.sort(sample)[max(math.ceil(level * len(sample) - 1e-9), 1) - 1])
        low = high = math.nan
        if len(sample) > 1:
            _, low, high = quantile_interval(sample, level, self.confidence)
        return Interval(-value, -high, -low) if falls else Interval(value, low, high)

    def summary(self) -> pd.DataFrame:
        """`plan` for all sources, figures and confidences.

        Returns
        -------
        DataFrame
            Columns ``source``, ``figure``, ``level`` (share of replicas that hold the objective), ``value``, ``low``
            and ``high``. One trace has one level, NaN: it says nothing of others.
        """
        import pandas as pd

        rows = []
        for source in self.sources:
            levels = LEVELS if len(self.sample(source)) > 1 else (math.nan,)
            for figure in FIGURES:
                for level in levels:
                    found = self.plan(source, 1.0 if math.isnan(level) else level, figure)
                    rows.append({"source": source, "figure": figure, "level": level} | found._asdict())
        return pd.DataFrame(rows)

    def misses(self) -> pd.DataFrame:
        """How probable a number of instances misses the objective: the share of replicas that need more.

        Returns
        -------
        DataFrame
            Columns ``source``, ``instances``, ``probability`` and its interval ``low`` to ``high`` (Clopper and
            Pearson's), for all numbers between one that nearly all replicas exceed and one that hardly any does, of
            all sources.
        """
        import pandas as pd

        samples = {source: self.sample(source) for source in self.sources}
        ends = np.concatenate([np.quantile(s, (0.01, 0.99), method="inverted_cdf") for s in samples.values()])
        ends = ends[np.isfinite(ends)]
        rows = []
        for source, sample in samples.items():
            for number in range(max(int(ends.min()) - 1, 1), int(ends.max()) + 2) if len(ends) else ():
                missed = int((sample > number).sum())
                found = share_interval(missed, len(sample), self.confidence)
                rows.append({"source": source, "instances": number, "probability": found[0]} | _ends(found))
        return pd.DataFrame(rows)

    def over_time(self) -> pd.DataFrame:
        """Instances by window.

        Returns
        -------
        DataFrame
            Columns ``source``, ``window_start_s``, ``window_s``, ``requests`` (mean of replicas), ``mean``, and
            ``p50``, ``p90``, ``p95`` and ``p99`` of replicas.
        """
        import pandas as pd

        rows = []
        windows = self.table[self.table["window_start_s"] != WHOLE]
        for (source, start_s), of in windows.groupby(["source", "window_start_s"], sort=False):
            needed = of["instances"].to_numpy(np.float64)
            at = np.quantile(needed, LEVELS, method="inverted_cdf").tolist()
            row = {"source": source, "window_start_s": start_s, "window_s": float(of["window_s"].iloc[0])}
            row |= {"requests": float(of["requests"].mean()), "mean": float(needed.mean())}
            rows.append(row | {f"p{100 * level:g}": value for level, value in zip(LEVELS, at, strict=True)})
        return pd.DataFrame(rows)

    def against_naive(self) -> pd.DataFrame:
        """What the naive plan has bought, compared with what the workload needs.

        Returns
        -------
        DataFrame
            A row for each level: ``needed``, ``naive``, ``difference`` (naive less needed), ``percent`` of what is
            needed, and ``missed``: the probability that the naive number does not hold the objective. One trace is
            compared at all levels of its baseline.

        Raises
        ------
        OptionError
            If the study has no naive baseline.
        """
        import pandas as pd

        if "naive" not in self.sources:
            raise OptionError("a study with a naive baseline", "none", "provision with naive=True (--naive)")
        rows = []
        for level in LEVELS:
            sample = self.sample(self.sources[0])
            needed, bought = self.plan(self.sources[0], level).value, self.plan("naive", level).value
            apart = bought - needed if math.isfinite(needed) else math.nan
            row = {"level": level, "needed": needed, "naive": bought, "difference": apart}
            percent = 100 * apart / needed if needed else math.nan
            rows.append(row | {"percent": percent, "missed": float((sample > bought).mean())})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Settings and all tables but that of replicas, in terms that JSON has; None for what is not finite."""
        tables = {"summary": self.summary(), "misses": self.misses(), "over_time": self.over_time()}
        if "naive" in self.sources:
            tables["against_naive"] = self.against_naive()
        found: dict[str, Any] = {"settings": dict(self.settings)}
        for name, table in tables.items():
            found[name] = [{key: _json(value) for key, value in row.items()} for row in table.to_dict("records")]
        return found | {"notes": list(self.notes)}

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write it to a Parquet file with the settings in its metadata."""
        write_study(path, "provision", self.settings, self.table, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Provision:
        """Read what `write` wrote.

        Raises
        ------
        OptionError
            If the file is no provisioning study.
        """
        kind, settings, table = read_study(path)
        if kind != "provision":
            raise OptionError("a provisioning study", f"one of kind {kind} in {os.fspath(path)}", "give another file")
        kinds = {name: table[name].dtype.kind for name in table}
        if kinds != COLUMNS or not len(table):
            got = f"columns {', '.join(map(str, table.columns))[:80]} in {os.fspath(path)}"
            raise OptionError(f"a table of {', '.join(COLUMNS)}", got, "give another file")
        if wrong := _wrong_in(settings, table):
            raise OptionError("a provisioning study", f"another {wrong} in {os.fspath(path)}", "give another file")
        return cls(table, settings)


def _wrong_in(settings: Mapping[str, Any], table: pd.DataFrame) -> str:
    """What is not as it should be, for files are of anybody's making; empty if all is well."""
    objective, server, confidence = (settings.get(name) for name in ("objective", "server", "confidence"))
    try:
        Objective(**objective)  # type: ignore[arg-type]
    except (TypeError, OptionError):
        return "objective"
    parameters = server.get("parameters") if isinstance(server, dict) else None
    if not isinstance(parameters, dict) or not all(map(_parameter, parameters.values())):
        return "server"
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        return "confidence"
    if "clients_measured" in settings and {type(settings.get(n)) for n in ("clients", "clients_measured")} != {int}:
        return "number of clients"
    window = table[["window_start_s", "window_s"]].to_numpy()
    each = table.assign(whole=table["window_start_s"] == WHOLE).groupby(["source", "replica"])["whole"]
    rows = each.size().groupby(level="source")
    if not np.isfinite(window).all() or (each.sum() != 1).any() or (rows.nunique() != 1).any() or rows.min().min() < 2:
        return "list of windows"
    first, *others = dict.fromkeys(table["source"])
    return "" if first in ("clients", "trace") and others in ([], ["naive"]) else "list of sources"


def _parameter(one: Any) -> bool:
    """Whether a parameter of a server is a number with an origin."""
    return isinstance(one, dict) and isinstance(one.get("value"), int | float) and isinstance(one.get("origin"), str)


def _by_replica(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column of windows, float64[replicas, windows]."""
    replicas = rows["replica"].nunique()
    return rows[name].to_numpy(np.float64).reshape(replicas, -1)


def _ends(found: Interval) -> dict[str, float]:
    return {"low": found.low, "high": found.high}


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
