"""Target rates as knots in time, and the files they are read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import RateError
from servegen_gpu.text import read_text

Kind = Literal["steps", "linear"]
KINDS = ("steps", "linear")

MAX_RATE_RPS = 1e12
MAX_TIME_S = 2.0**33
"""Times are kept in whole microseconds; up to here (about 270 years) a float64 of seconds resolves them."""
MAX_FILE_BYTES = 16 << 20
MAX_SHOWN = 100
"""Longer schedules are named by their digest in provenance."""

FORMATS = 'CSV lines "time_s,rate_rps" (or a JSON list of {"time_s": …, "rate_rps": …})'


@dataclass(frozen=True, eq=False)
class Schedule:
    """A target rate given at knots; times are seconds on the profiles' time axis, the one of `start`.

    Attributes
    ----------
    times_s : float64[knots]
        Ascending, at least a microsecond apart.
    rates_rps : float64[knots]
        Finite and not negative, at least one of them positive.
    kind : {"steps", "linear"}
        With steps, a rate holds from its knot to the next, and the last one for ever. With linear, rates are
        interpolated, and there is none before the first knot or after the last.
    """

    times_s: NDArray[np.float64]
    rates_rps: NDArray[np.float64]
    kind: Kind = "steps"

    def __post_init__(self) -> None:
        for name in ("times_s", "rates_rps"):
            try:
                array = np.array(getattr(self, name), np.float64)  # a copy: nobody else writes to it
            except (TypeError, ValueError, OverflowError) as error:
                raise RateError(f"numbers in {name} of a schedule", str(error), "fix the schedule") from None
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        _check(self)

    @property
    def times_us(self) -> NDArray[np.int64]:
        """Knots in whole microseconds, int64[knots]."""
        return np.rint(self.times_s * 1e6).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """For provenance: the knots, or their SHA-256 where they are many."""
        if len(self.times_s) <= MAX_SHOWN:
            return {"kind": self.kind, "times_s": self.times_s.tolist(), "rates_rps": self.rates_rps.tolist()}
        digest = hashlib.sha256(self.times_s.astype("<f8").tobytes() + self.rates_rps.astype("<f8").tobytes())
        return {"kind": self.kind, "knots": len(self.times_s), "sha256": digest.hexdigest()}


def _check(schedule: Schedule) -> None:
    times, rates = schedule.times_s, schedule.rates_rps
    if schedule.kind not in KINDS:
        raise RateError(f"a schedule of kind {' or '.join(KINDS)}", repr(schedule.kind), "change its kind")
    if times.ndim != 1 or times.shape != rates.shape:
        raise RateError("one rate for every time", f"{times.shape} times, {rates.shape} rates", "fix the schedule")
    least = 2 if schedule.kind == "linear" else 1
    if len(times) < least:
        raise RateError(f"at least {least} knots in a schedule of kind {schedule.kind}", f"{len(times)}", "add knots")
    faults = {
        f"times within ±{MAX_TIME_S:.0f} s": ~(np.abs(times) <= MAX_TIME_S),
        f"rates from 0 to {MAX_RATE_RPS:g} req/s": ~((rates >= 0) & (rates <= MAX_RATE_RPS)),
    }
    for expected, fault in faults.items():
        if fault.any():
            i = int(np.argmax(fault))
            raise RateError(expected, f"{rates[i]:g} req/s at {times[i]:g} s (knot {i + 1})", "fix the schedule")
    close = np.diff(schedule.times_us) <= 0
    if close.any():
        i = int(np.argmax(close))
        raise RateError(
            "ascending times, at least 1 us apart",
            f"{times[i + 1]:.17g} s after {times[i]:.17g} s (knot {i + 2})",
            "sort the schedule and keep one rate for each time",
        )
    if not rates.any():
        raise RateError("a positive rate somewhere in the schedule", "zeros only", "there is nothing to generate")


def read_schedule(path: str | Path) -> Schedule:
    """Read a schedule from a CSV or JSON file.

    CSV has a time and a rate in each line, ``time_s,rate_rps``; a header and comments (``#``) may be there, and the
    comment ``# linear`` asks for interpolation instead of steps. JSON is a list of
    ``{"time_s": 0, "rate_rps": 5}`` (``qps`` is taken as well), or
    ``{"kind": "linear", "times_s": […], "rates_rps": […]}``.
    """
    path = Path(path)
    readable = "a rate in req/s or a readable schedule file"
    text = read_text(path, "schedule file", MAX_FILE_BYTES, _refuse, smaller="use fewer knots", readable=readable)
    return _from_json(text, path) if text.lstrip()[:1] in ("[", "{") else _from_csv(text, path)


def _refuse(expected: str, got: object, fix: str) -> NoReturn:
    raise RateError(expected, f"{got}", fix)


def _from_csv(text: str, path: Path) -> Schedule:
    kind: Kind = "steps"
    knots: list[tuple[float, float]] = []
    lines: list[int] = []
    header_allowed = True
    for number, line in enumerate(text.split("\n"), 1):  # as editors count
        row = line.strip()
        if row.startswith("#"):
            word = row.lstrip("# ").lower().removeprefix("kind:").strip()
            kind = "linear" if word == "linear" else "steps" if word == "steps" else kind
        elif row:
            cells = [cell.strip() for cell in row.split(",")]
            where = f"{path}, line {number}"
            if header_allowed and cells in (["time_s", "rate_rps"], ["time_s", "qps"]):
                header_allowed = False
                continue
            header_allowed = False
            if len(cells) != 2:
                raise RateError("two columns, time_s,rate_rps", f"{where}: {len(cells)} columns", "fix the line")
            knots.append((_number(cells[0], "time_s", where), _number(cells[1], "rate_rps", where)))
            lines.append(number)
    return _built(knots, kind, path, [f"line {number}" for number in lines])


def _from_json(text: str, path: Path) -> Schedule:
    def refuse(word: str) -> NoReturn:
        raise RateError("finite numbers", f"{path}: {word}", "fix the file")

    try:
        data = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise RateError(f"JSON or {FORMATS}", f"{path}, line {error.lineno}: {error.msg}", "fix the line") from None
    except (ValueError, RecursionError) as error:
        raise RateError(f"JSON or {FORMATS}", f"{path}: {error}", "fix the file") from None

    if isinstance(data, dict):
        times, rates, kind = data.get("times_s"), data.get("rates_rps"), data.get("kind", "steps")
        if not (isinstance(times, list) and isinstance(rates, list) and len(times) == len(rates) and kind in KINDS):
            raise RateError(
                '{"kind": "steps" or "linear", "times_s": […], "rates_rps": […]}, lists of one length',
                f"{path}: keys {list(data)[:5]}, kind {kind!r}",
                "fix the file",
            )
        pairs = list(zip(times, rates, strict=True))
    else:
        kind = "steps"
        pairs = []
        for i, entry in enumerate(data, 1):
            rate_name = "qps" if isinstance(entry, dict) and "rate_rps" not in entry else "rate_rps"
            if not (isinstance(entry, dict) and entry.keys() == {"time_s", rate_name}):
                got = f"{path}, entry {i}: {str(entry)[:60]}"
                raise RateError('{"time_s": …, "rate_rps": …}', got, "fix the entry")
            pairs.append((entry["time_s"], entry[rate_name]))
    places = [f"entry {i}" for i in range(1, len(pairs) + 1)]
    knots = [
        (_number(t, "time_s", f"{path}, {place}"), _number(r, "rate_rps", f"{path}, {place}"))
        for (t, r), place in zip(pairs, places, strict=True)
    ]
    return _built(knots, kind, path, places)


def _number(cell: object, name: str, where: str) -> float:
    """A number of a file: text in CSV, int or float in JSON."""
    try:
        if isinstance(cell, bool) or not isinstance(cell, str | int | float) or "_" in str(cell):
            raise ValueError
        value = float(cell)
    except (ValueError, OverflowError):
        raise RateError(f"a number for {name}", f"{where}: {str(cell)[:40]!r}", "fix it") from None
    limit = MAX_TIME_S if name == "time_s" else MAX_RATE_RPS
    if not abs(value) <= limit or (name == "rate_rps" and value < 0):
        low = f"{-limit:g}" if name == "time_s" else "0"
        raise RateError(f"{name} from {low} to {limit:g}", f"{where}: {str(cell)[:40]}", "fix it")
    return value


def _built(knots: Iterable[tuple[float, float]], kind: Kind, path: Path, places: list[str]) -> Schedule:
    """A schedule from the knots of a file; faults name the file, and the place where times go back."""
    table = np.array(list(knots), np.float64).reshape(-1, 2)
    back = np.diff(table[:, 0]) <= 0
    if back.any():
        place = places[int(np.argmax(back)) + 1]
        raise RateError("ascending times", f"{path}, {place}: not after the one before", "sort the schedule")
    try:
        return Schedule(table[:, 0], table[:, 1], kind)
    except RateError as error:
        raise RateError(error.expected, f"{path}: {error.got}", error.fix) from None
