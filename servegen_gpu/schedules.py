"""Target rates as knots in time, and the files they are read from."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, RateError, nearest
from servegen_gpu.options import MAX_TIME_S, plain_number, seconds
from servegen_gpu.text import few, read_text

Kind = Literal["steps", "linear"]
KINDS = ("steps", "linear")

LEAST_RATE_RPS, MAX_RATE_RPS = 1e-30, 1e12
"""Of one client, or of all together, where there is one: no quotient of two leaves the range of float64."""
MAX_FILE_BYTES = 16 << 20
MAX_SHOWN = 100
"""Longer schedules are named by their digest in provenance."""

FORMATS = 'CSV lines "time_s,rate_rps" (or a JSON list of {"time_s": …, "rate_rps": …})'

TIMES_S = {
    **dict.fromkeys(("time_s", "time", "t", "t_s", "timestamp", "timestamp_s", "offset_s", "start_s", "seconds"), 1.0),
    **dict.fromkeys(("date", "datetime"), 1.0),  # whose values are refused as dates
    **dict.fromkeys(("time_ms", "t_ms", "timestamp_ms", "offset_ms", "milliseconds"), 1e-3),
    **dict.fromkeys(("time_min", "t_min", "minutes"), 60.0),
    **dict.fromkeys(("time_h", "t_h", "hours"), 3600.0),
}
"""Names of the column of times, in lower case, and their unit; a time may have its own, ``10m``."""
RATES_RPS = {
    **dict.fromkeys(
        ("rate_rps", "rate", "rps", "qps", "rate_qps", "req/s", "req_s", "requests/s", "request_rate"), 1.0
    ),
    **dict.fromkeys(("requests_per_s", "requests_per_sec", "requests_per_second", "target_rps"), 1.0),
    **dict.fromkeys(("rpm", "rate_rpm", "requests_per_min", "requests_per_minute"), 1 / 60),
}
"""Names of the column of rates, in lower case, and their unit."""
_ORDERS = ((TIMES_S, RATES_RPS), (RATES_RPS, TIMES_S))
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[/.]\d\d?[/.]\d{2,4}")


@dataclass(frozen=True, eq=False)
class Schedule:
    """A target rate given at knots; times are seconds on the profiles' time axis, the one of `start`.

    Attributes
    ----------
    times_s : float64[knots]
        Ascending, at least a microsecond apart. Two knots at the same time are a jump: of steps the later one holds; a
        linear one arrives at the first rate, and goes on from the second a microsecond later.
    rates_rps : float64[knots]
        Finite and not negative, at least one of them positive.
    kind : {"steps", "linear"}
        With steps, a rate holds from its knot to the next, and the last one for ever. With linear, rates are
        interpolated, and the rate is 0 after the last knot. It is 0 before the first one.
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
            object.__setattr__(self, name, array)
        if self.times_s.shape == self.rates_rps.shape:
            _take_jumps(self)
        for array in (self.times_s, self.rates_rps):
            array.setflags(write=False)
        _check(self)

    def __repr__(self) -> str:
        return f"Schedule({few(self.times_s)}, {few(self.rates_rps)}, {self.kind!r})"

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

    @classmethod
    def described(cls, stated: Any) -> Schedule:
        """The schedule that `describe` describes; refused where it is named by its digest."""
        about = stated if isinstance(stated, Mapping) else {}
        if "times_s" not in about or "rates_rps" not in about:
            got = f"{about['knots']} knots by their SHA-256" if "knots" in about else repr(stated)[:60]
            raise RateError("a schedule with its knots", got, "give the rate itself, such as the file of the schedule")
        return cls(about["times_s"], about["rates_rps"], about.get("kind", "steps"))


def _take_jumps(schedule: Schedule) -> None:
    """Two knots at the same time: the later one of steps, and of linear ones the second a microsecond later."""
    again = np.flatnonzero(schedule.times_s[1:] == schedule.times_s[:-1])
    if schedule.times_s.ndim != 1 or not len(again):
        return
    if schedule.kind == "steps":
        for name in ("times_s", "rates_rps"):
            object.__setattr__(schedule, name, np.delete(getattr(schedule, name), again))
    else:
        schedule.times_s[again + 1] += 1e-6


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
    comment ``# linear`` asks for interpolation instead of steps. A header may have other names, which state the unit
    and the order: `TIMES_S` such as ``time``, ``time_ms`` or ``minutes``, and `RATES_RPS` such as ``rps``, ``qps`` or
    ``rpm``; a time may have its own, ``10m``. JSON is a list of ``{"time_s": 0, "rate_rps": 5}``, with the same names,
    or ``{"kind": "linear", "times_s": […], "rates_rps": […]}``.
    """
    path = Path(path)
    readable = "a rate such as 5, 5rps or 300/min, or a readable schedule file"
    text = read_text(path, "schedule file", MAX_FILE_BYTES, _refuse, smaller="use fewer knots", readable=readable)
    return _from_json(text, path) if text.lstrip()[:1] in ("[", "{") else _from_csv(text, path)


def _refuse(expected: str, got: object, fix: str) -> NoReturn:
    raise RateError(expected, f"{got}", fix)


def _from_csv(text: str, path: Path) -> Schedule:
    kind: Kind = "steps"
    knots: list[tuple[float, float]] = []
    lines: list[int] = []
    columns: _Columns | None = None
    for number, line in enumerate(text.split("\n"), 1):  # as editors count
        row = line.strip()
        if row.startswith("#"):
            word = row.lstrip("# ").lower().removeprefix("kind:").strip()
            kind = "linear" if word == "linear" else "steps" if word == "steps" else kind
        elif row:
            cells = [cell.strip() for cell in row.split(",")]
            where = f"{path}, line {number}"
            if len(cells) != 2:
                raise RateError("two columns, time_s,rate_rps", f"{where}: {len(cells)} columns", "fix the line")
            if columns is None and (columns := _columns(cells)) is not None:
                continue
            if not knots and not any(cell[:1] in "+-.0123456789" for cell in cells if cell):
                raise _unknown_header(cells, where)
            columns = columns or ("time_s", "rate_rps")
            knots.append(_knot(dict(zip(columns, cells, strict=True)), columns, where))
            lines.append(number)
    return _built(knots, kind, path, [f"line {number}" for number in lines])


_Columns = tuple[str, str]


def _columns(names: Sequence[str]) -> _Columns | None:
    """Names of a column of times and one of rates, in lower case and in their order; None of others."""
    found = tuple("_".join(name.strip("\"' ").lower().split()) for name in names)
    if len(found) == 2 and (found[0] in TIMES_S) != (found[1] in TIMES_S) and any(name in RATES_RPS for name in found):
        return found[0], found[1]
    return None


def _unknown_header(cells: Sequence[str], where: str) -> RateError:
    expected = "a header with a time (time_s, time, time_ms, minutes, …) and a rate (rate_rps, rps, qps, rpm, …)"
    near = [[nearest(cell, known) for cell, known in zip(cells, of, strict=True)] for of in _ORDERS]
    meant = next((",".join(map(str, names)) for names in near if None not in names), "")
    fix = f"did you mean {meant}?" if meant else "name the columns so, or leave the header out"
    return RateError(expected, f"{where}: {','.join(cells)[:60]!r}", fix)


def _knot(cells: Mapping[str, object], columns: _Columns, where: str) -> tuple[float, float]:
    """Time and rate in base units from cells by the names of their columns."""
    time, rate = columns if columns[0] in TIMES_S else (columns[1], columns[0])
    return _number(cells[time], time, TIMES_S[time], where), _number(cells[rate], rate, RATES_RPS[rate], where)


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
        cells = [{"time_s": time_s, "rate_rps": rate_rps} for time_s, rate_rps in zip(times, rates, strict=True)]
        pairs = [_knot(both, ("time_s", "rate_rps"), f"{path}, entry {i}") for i, both in enumerate(cells, 1)]
    else:
        kind = "steps"
        pairs = []
        for i, entry in enumerate(data, 1):
            names = list(entry) if isinstance(entry, dict) else []
            columns = _columns(names)
            if columns is None:
                got = f"{path}, entry {i}: {str(entry)[:60]}"
                raise RateError('{"time_s": …, "rate_rps": …}', got, "fix the entry")
            pairs.append(_knot(dict(zip(columns, entry.values(), strict=True)), columns, f"{path}, entry {i}"))
    return _built(pairs, kind, path, [f"entry {i}" for i in range(1, len(pairs) + 1)])


def _number(cell: object, name: str, unit: float, where: str) -> float:
    """A number of a file in base units: text in CSV, int or float in JSON; times may be text with a unit."""
    time = name in TIMES_S
    if time and _DATE.match(str(cell)):
        fix = "write seconds since the start of the data's first day, such as 0, 600, 1200: subtract the first date"
        raise RateError(f"a number for {name}", f"{where}: the date {str(cell)[:40]!r}", fix)
    value = plain_number(cell)
    if value is None and time and isinstance(cell, str):
        with suppress(OptionError):
            value, unit = seconds(name, cell), 1.0
    if value is None or math.isnan(value):
        raise RateError(f"a number for {name}", f"{where}: {str(cell)[:40]!r}", "fix it")
    value *= unit
    limit = MAX_TIME_S if time else MAX_RATE_RPS
    if not abs(value) <= limit or (not time and value < 0):
        low = f"{-limit:g}" if time else "0"
        raise RateError(f"{name} from {low} to {limit:g}", f"{where}: {str(cell)[:40]}", "fix it")
    return value


def _built(knots: Sequence[tuple[float, float]], kind: Kind, path: Path, places: list[str]) -> Schedule:
    """A schedule from the knots of a file; faults name the file, and the place where times go back."""
    table = np.array(knots, np.float64).reshape(-1, 2)
    back = np.diff(table[:, 0]) < 0
    if back.any():
        place = places[int(np.argmax(back)) + 1]
        raise RateError("ascending times", f"{path}, {place}: before the one above", "sort the schedule")
    try:
        return Schedule(table[:, 0], table[:, 1], kind)
    except RateError as error:
        raise RateError(error.expected, f"{path}: {error.got}", error.fix) from None
