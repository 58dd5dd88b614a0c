"""Times of a whole file: their order, their beginning, and whether they are in the unit that the program reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.exports import EXPORTS
from servegen_gpu.formats.text import known_sidecar, sidecar_of
from servegen_gpu.provenance import duration_of
from servegen_gpu.validating.pieces import Piece
from servegen_gpu.validating.report import SUSPICIOUS, Findings
from servegen_gpu.validating.rows import View, note
from servegen_gpu.validating.rules import Time

FAST_RPS, SLOW_RPS, LONG_S = 1000.0, 0.02, 86_400.0
"""A trace faster than the first is doubted, and one slower than the second that takes longer than the third."""
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
FEW = 10
"""Requests that tell no rate."""
NEAR_S = 60.0
"""A first request later than this after 0 is late."""


class Times:
    """Watches the times of a file."""

    def __init__(self, rule: Time) -> None:
        self._rule = rule
        self._before = -np.inf
        self._least, self._most, self._count = np.inf, -np.inf, 0
        self._first: tuple[int, float] | None = None

    def add(self, seen: View, findings: Findings) -> None:
        """Look at some rows."""
        there = np.flatnonzero(~np.isnan(seen.time_s))
        if not len(there):
            return
        time_s = seen.time_s[there]
        before = np.concatenate(([self._before], time_s[:-1]))
        if self._first is None:
            self._first = (int(seen.piece.lines[there[0]]), float(time_s[0]))
        if self._rule.order:
            self._note_order(seen.piece, there, time_s, before, findings)
        self._before = float(time_s[-1])
        self._least, self._most = min(self._least, float(time_s.min())), max(self._most, float(time_s.max()))
        self._count += len(there)

    def finish(self, path: Path, findings: Findings) -> None:
        """Look at the file as a whole."""
        if self._first is None:
            return
        line, first_s = self._first
        if self._rule.late and self._least > NEAR_S:
            wrong = "times do not begin near 0: the program waits until the first"
            value = f"{first_s:,.3f} s"
            findings.add([line], self._rule.key, wrong, "subtract the first time from all", self._rule.late, value, 1)
        if self._count >= FEW and not self._rule.date:
            self._note_unit(path, findings)

    def _note_order(
        self,
        piece: Piece,
        there: NDArray[np.int64],
        time_s: NDArray[np.float64],
        before: NDArray[np.float64],
        findings: Findings,
    ) -> None:
        back = time_s < before
        if back.any() and self._rule.order:
            at = int(np.argmax(back))
            unit = 1.0 if self._rule.date else self._rule.unit_s
            value = f"{piece.value(self._rule.key, int(there[at]))} after {before[at] / unit:.12g}"
            rows = np.zeros(len(piece), np.bool_)
            rows[there[back]] = True
            wrong, fix = "earlier than the row before", "sort the rows by time"
            note(findings, piece, rows, self._rule.key, wrong, fix, self._rule.order, value)

    def _note_unit(self, path: Path, findings: Findings) -> None:
        span_s = self._most - self._least
        rate = (self._count - 1) / span_s if span_s > 0 else np.inf
        fast, slow = rate > FAST_RPS, rate < SLOW_RPS and span_s > LONG_S
        if (known_s := _unit_s(path)) is not None and span_s > 0:  # an export of ours, whose unit is known
            fast, slow = known_s > self._rule.unit_s, known_s < self._rule.unit_s
        elif _is_stated(path, self._most):
            return
        if not (fast or slow):
            return
        unit = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"}[self._rule.unit_s]
        if span_s <= 0:
            wrong, value = "all requests at the same time", f"{self._count:,} at {self._least:,.3f} s"
            fix = "give every request its own time, if it had one"
        else:
            factor = 1000.0 if fast else 0.001
            wrong = f"times in another unit? The program reads {unit}"
            value = f"{rate:,.4g} requests/s; in a unit {'1,000 times as long' if fast else 'a thousandth of it'} "
            value += f"{rate / factor:,.4g}"
            fix = f"{'multiply' if fast else 'divide'} the times by 1,000"
            fix += f", or pass {self._rule.option}" if self._rule.option and slow else ""
        findings.add([], self._rule.key, wrong, fix, SUSPICIOUS, value, self._count)


def _unit_s(path: Path) -> float | None:
    """The unit of times in a file that this package exported, in seconds; None of other files."""
    export = EXPORTS.get(str((known_sidecar(path) or {}).get("format")))
    return None if export is None else UNITS_S.get(export.time.split(",")[0])


def _is_stated(path: Path, last_s: float) -> bool:
    """Whether the provenance beside a file of ours says that it is that long."""
    try:
        about = sidecar_of(path)
    except OptionError:
        return False
    stated = duration_of(about["provenance"]) if about else None
    return stated is not None and stated / 3 < last_s < stated * 1.001
