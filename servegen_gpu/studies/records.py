"""Replicas of a study as they come, and the file that keeps them."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servegen_gpu.disk import check_place
from servegen_gpu.errors import OptionError
from servegen_gpu.studies.settings import AXES
from servegen_gpu.studies.source import REPLICAS_OF_A_DRAW
from servegen_gpu.studies.study import Study

NOT_COMPARED = ("replicas", "draws", "until", "confidence", "version", "metrics", "controls", "bins")
"""Settings that may differ where a study goes on, or that follow from others."""


class Records:
    """Numbers of replicas by draw, 8 bytes each: parameters, metrics and controls.

    Parameters
    ----------
    parameters : sequence of str

    Attributes
    ----------
    metrics, controls : tuple of str
        Empty until the first replica is there.
    written : mapping
        Settings in the file that they were read from.
    """

    def __init__(self, parameters: Sequence[str]) -> None:
        self.parameters = tuple(parameters)
        self.metrics: tuple[str, ...] = ()
        self.controls: tuple[str, ...] = ()
        self.rows: dict[int, array[float]] = {}
        self.written: Mapping[str, Any] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of a replica."""
        return (*self.parameters, *self.metrics, *self.controls)

    def count(self, draw: int) -> int:
        """How many replicas of a draw there are."""
        return len(self.rows.get(draw, ())) // max(len(self.columns), 1)

    def of(self, draw: int, most: int) -> Iterator[dict[str, float]]:
        """Metrics of the replicas of a draw that are there."""
        width, first = len(self.columns), len(self.parameters)
        for i in range(min(self.count(draw), most)):
            at = i * width + first
            yield dict(zip(self.metrics, self.rows[draw][at : at + len(self.metrics)], strict=True))

    def add(
        self, draw: int, values: Mapping[str, float], figures: Mapping[str, float], controls: Mapping[str, float]
    ) -> None:
        """The next replica of a draw."""
        if not self.metrics:
            self.metrics, self.controls = tuple(figures), tuple(controls)
            taken = [name for name in figures if name in (*AXES, *self.parameters, *controls)]
            if taken:
                raise OptionError("metrics with names of their own", f"{taken[0]!r} twice", "name the metric apart")
        elif self.metrics != tuple(figures):
            expected = f"the metrics {', '.join(self.metrics)} of the first replica"
            raise OptionError(expected, ", ".join(figures), "return the same names for every trace")
        numbers = [*(values[name] for name in self.parameters), *figures.values()]
        numbers += [controls[name] for name in self.controls]
        self.rows.setdefault(draw, array("d")).extend(numbers)  # all or, if interrupted, nothing

    def study(self, settings: Mapping[str, Any], counts: Mapping[int, int], notes: Sequence[str] = ()) -> Study:
        """So many replicas of each draw as a study."""
        import pandas as pd

        width = len(self.columns)
        draws = sorted(draw for draw in counts if counts[draw])
        blocks = [np.frombuffer(self.rows[draw]).reshape(-1, width)[: counts[draw]] for draw in draws]
        numbers = np.concatenate(blocks) if blocks else np.empty((0, width))
        axes = {
            "draw": np.repeat(np.array(draws, np.int64), [counts[draw] for draw in draws]),
            "replica": np.concatenate(
                [np.empty(0, np.int64), *(draw * REPLICAS_OF_A_DRAW + np.arange(counts[draw]) for draw in draws)]
            ),
        }
        table = pd.DataFrame(axes | dict(zip(self.columns, numbers.T, strict=True)))
        stated = dict(settings) | {"metrics": list(self.metrics), "controls": list(self.controls)}
        return Study(table, stated, tuple(notes))

    def everything(self, settings: Mapping[str, Any]) -> Study:
        """All replicas as a study."""
        return self.study(settings, {draw: self.count(draw) for draw in self.rows})

    @classmethod
    def read(cls, path: Path, settings: Mapping[str, Any]) -> Records:
        """Those of a file, if it is a study with these settings; none if there is no file.

        Raises
        ------
        OptionError
            If the file is anything else, or a study with other settings: the error names them.
        OutputError
            If there is no file, and none can be made.
        """
        records = cls(tuple(settings["vary"]))
        if not os.path.lexists(path):
            check_place(path)
            return records
        study = Study.read(path)
        if differences := _differences(study.settings, settings):
            raise OptionError(
                f"the study in {os.fspath(path)} to go on as it began",
                f"other settings: {'; '.join(differences)}",
                "give the same ones, or another file; the replicas in it are kept",
            )
        records.metrics, records.controls, records.written = study.metrics, study.controls, study.settings
        draw = study.table["draw"].to_numpy()
        replica = study.table["replica"].to_numpy()
        numbers = study.table[list(records.columns)].to_numpy(np.float64)
        for one in np.unique(draw).tolist():
            rows = np.flatnonzero(draw == one)
            if (replica[rows] != one * REPLICAS_OF_A_DRAW + np.arange(len(rows))).any() or one < 0:
                raise OptionError("replicas in order from the first", f"others in {path}", "give another file")
            records.rows[one] = array("d", np.ascontiguousarray(numbers[rows]).tobytes())
        return records


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Settings that differ, in words."""
    ours = json.loads(json.dumps(here))
    keys = [key for key in dict.fromkeys([*ours, *there]) if key not in NOT_COMPARED]
    words = {"asked": "metrics"}
    return [
        f"{words.get(key, key)} {_short(there.get(key))} there, {_short(ours.get(key))} here"
        for key in keys
        if there.get(key) != ours.get(key)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
