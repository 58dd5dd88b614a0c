"""What a study found: a tidy table, and from what it was made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servegen_gpu.errors import OptionError
from servegen_gpu.studies.file import read_study, write_study

if TYPE_CHECKING:
    import pandas as pd

AXES = ("draw", "replica")
"""Columns of a table that say which row it is; the others are parameters, then metrics."""


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """Replicas of a workload in figures.

    Attributes
    ----------
    table : DataFrame
        A row for each replica: ``draw`` and ``replica`` (int64), one column for each varied parameter and one for each
        metric (float64).
    settings : dict
        From what it was made, in terms that JSON has: ``workload``, ``pool_digest``, ``rate``, ``duration_s``,
        ``seed``, ``metrics`` (names of columns), ``vary`` (parameters by name, with their ranges), and so on.
    notes : tuple of str
        What a user should know.
    """

    table: pd.DataFrame
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Study of {self.settings.get('workload')}: {len(self.table):,} replicas of {', '.join(self.metrics)}>"

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

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it to a Parquet file with the settings in its metadata."""
        write_study(path, "montecarlo", self.settings, self.table)

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
        metrics, vary = settings.get("metrics"), settings.get("vary") or {}
        names = [*AXES, *vary, *metrics] if isinstance(metrics, list) and isinstance(vary, dict) else None
        numbers = [table[name].dtype.kind for name in table]
        if list(table.columns) != names or numbers != [*"ii", *"f" * (len(numbers) - 2)]:
            got = f"columns {', '.join(map(str, table.columns))[:80]} in {os.fspath(path)}"
            raise OptionError("a table of numbers with the columns that its settings name", got, "give another file")
        return cls(table, settings)
