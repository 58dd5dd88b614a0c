"""Distributions, rates and arrivals from TOML tables: each reader takes a value, and where it stands.

A distribution is a number (constant), a list of numbers (samples), or a table with a `kind`:

    { kind = "lognormal", median = 300, sigma = 1.1, max = 32768 }
    { kind = "mixture", parts = [{ weight = 0.9, kind = … }, { weight = 0.1, kind = … }] }

What changes in time has ``kind = "steps"`` and ``knots = [["0h", …], ["8h", …]]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from servegen_gpu import options
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.arrivals import Arrivals
from servegen_gpu.clients.stated.beside import file_beside, read_columns
from servegen_gpu.clients.stated.diurnal import Diurnal
from servegen_gpu.clients.stated.in_time import Steps
from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.errors import ProfileError, ServeGenError
from servegen_gpu.rates import Rate, resolve_rate
from servegen_gpu.request.families import FAMILIES
from servegen_gpu.schedules import KINDS as SCHEDULE_KINDS
from servegen_gpu.schedules import Schedule, read_schedule

PLAIN: dict[str, type[d.Distribution]] = {
    "constant": d.Constant,
    "uniform": d.Uniform,
    "exponential": d.Exponential,
    "normal": d.Normal,
    "lognormal": d.LogNormal,
    "pareto": d.Pareto,
    "zipf": d.Zipf,
    "beta": d.Beta,
}
"""Kinds whose keys are the parameters of a class."""
DATA = {"samples": ("values",), "pmf": ("values", "weights"), "histogram": ("edges", "weights")}
"""Kinds whose numbers are lists here, or columns of a file."""
DISTRIBUTION_KINDS = (*PLAIN, *DATA, "mixture", "scipy")
RATE_KINDS = (*SCHEDULE_KINDS, "diurnal")
MAX_DEPTH = 8
SLOW = ("levy_stable", "studentized_range")
"""Of ``scipy.stats``, which take minutes to tabulate: SciPy integrates them point by point."""


def attempt(make: Callable[..., Any], where: Where, *arguments: Any, **keywords: Any) -> Any:
    """What `make` returns; its faults name the place."""
    try:
        return make(*arguments, **keywords)
    except ProfileError:
        raise
    except ServeGenError as error:
        raise ProfileError(error.expected, f"{where}: {error.got}", error.fix) from error


def read_kind(table: dict[str, Any], kinds: tuple[str, ...], where: Where) -> str:
    """The `kind` of a table."""
    if "kind" not in table:
        where.refuse(f"a kind, one of {', '.join(kinds)}", "a table without it", 'add kind = "…"')
    kind = (where / "kind").text_of(table["kind"])
    if kind not in kinds:
        where.check_keys({kind: None}, kinds)
    return kind


def read_number(value: Any, where: Where) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        where.refuse("a finite number", shown(value), "change it")
    return float(value)


def read_whole(value: Any, low: int, high: int, where: Where) -> int:
    """A whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        where.refuse(f"a whole number from {low:,} to {high:,}", shown(value), "change it")
    return int(value)


def read_numbers(value: Any, where: Where) -> list[float]:
    """A list of finite numbers that are not negative."""
    numbers = where.list(value)
    for i, x in enumerate(numbers):
        if type(x) not in (int, float) or not 0 <= x < 1e300:
            read_number(x, where / i)
            (where / i).refuse("a number that is not negative", shown(x), "fix it")
    return numbers


def read_time(value: Any, where: Where) -> float:
    """Seconds, from a number or text such as "8h"."""
    stated = value if isinstance(value, str) else read_number(value, where)
    seconds: float = attempt(options.seconds, where, "a time", stated)
    return seconds


def read_knots(table: dict[str, Any], where: Where) -> list[tuple[float, Any, Where]]:
    """Times, values and their places, in ascending order of times."""
    where.check_keys(table, ("kind", "knots"), ("knots",))
    where /= "knots"
    knots: list[tuple[float, Any, Where]] = []
    for i, pair in enumerate(where.list(table["knots"])):
        if not isinstance(pair, list) or len(pair) != 2:
            (where / i).refuse("a pair [time, value]", shown(pair), 'write it like ["8h", …]')
        time = read_time(pair[0], where / i)
        if knots and time <= knots[-1][0]:
            (where / i).refuse("ascending times", f"{shown(pair[0])} is not after the one before", "sort the knots")
        knots.append((time, pair[1], where / i))
    return knots


def read_steps(value: Any, where: Where, read: Callable[[Any, Where], Any]) -> Steps:
    """A value that may change in time, each of its values read by `read`."""
    if not (isinstance(value, dict) and value.get("kind") == "steps"):
        return Steps((0.0,), (read(value, where),))
    knots = read_knots(value, where)
    values = tuple(read(held, place) for _, held, place in knots)
    steps: Steps = attempt(Steps, where, tuple(time for time, _, _ in knots), values)
    return steps


def read_distribution(value: Any, where: Where, depth: int = 0) -> d.Distribution:
    """A distribution from a number, a list of samples or a table."""
    found: d.Distribution
    if isinstance(value, list):
        found = attempt(d.Samples, where, read_numbers(value, where))
        return found
    if not isinstance(value, dict):
        found = attempt(d.Constant, where, read_number(value, where))
        return found
    kind = read_kind(value, DISTRIBUTION_KINDS, where)
    keywords = {key: entry for key, entry in value.items() if key != "kind"}
    if kind in DATA:
        return _data(kind, keywords, where)
    if kind == "mixture":
        return _mixture(keywords, where, depth)
    if kind == "scipy":
        return _scipy(keywords, where)
    parameters = [p for p in dataclasses.fields(PLAIN[kind]) if p.name not in ("min", "max")]
    needed = [p.name for p in parameters if p.default is dataclasses.MISSING]
    where.check_keys(value, ("kind", *(p.name for p in parameters), "min", "max"), needed)
    numbers = {key: read_number(entry, where / key) for key, entry in keywords.items()}
    found = attempt(PLAIN[kind], where, **numbers)
    return found


def _bounds(table: dict[str, Any], where: Where) -> dict[str, float]:
    return {key: read_number(table[key], where / key) for key in ("min", "max") if key in table}


def _data(kind: str, table: dict[str, Any], where: Where) -> d.Distribution:
    """Samples, a PMF or a histogram, from lists or from a file."""
    names = DATA[kind]
    where.check_keys(table, (*names, "file", "column", "min", "max"))
    found: d.Distribution
    if "file" in table:
        if both := [name for name in names if name in table]:
            where.refuse("a file or lists", f"file and {both[0]}", "leave out one of them")
        column = (where / "column").text_of(table["column"]) if "column" in table else names[0]
        headers = (column,) if kind == "samples" else tuple(name.removesuffix("s") for name in names)
        columns: list[Any] = list(read_columns(table["file"], headers, where / "file"))
        if kind == "histogram":  # the weight beside the last edge belongs to no bin
            columns[1] = columns[1][:-1]
    else:
        if "column" in table:
            where.refuse("a column of a file", "column without file", "add file, or leave out column")
        where.check_keys(table, (*names, "min", "max"), names)
        columns = [read_numbers(table[name], where / name) for name in names]
    make = {"samples": d.Samples, "pmf": d.Pmf, "histogram": d.Histogram}[kind]
    found = attempt(make, where, *columns, **_bounds(table, where))
    return found


def _mixture(table: dict[str, Any], where: Where, depth: int) -> d.Distribution:
    where.check_keys(table, ("parts", "min", "max"), ("parts",))
    if depth >= MAX_DEPTH:
        where.refuse(f"mixtures at most {MAX_DEPTH} deep", "a deeper one", "flatten it")
    parts, weights = [], []
    for i, entry in enumerate((where / "parts").list(table["parts"])):
        place = where / "parts" / i
        part = dict(place.table(entry))
        if "weight" not in part:
            place.refuse("a weight", "a part without it", "add weight = …")
        weights.append(read_number(part.pop("weight"), place / "weight"))
        parts.append(read_distribution(part, place, depth + 1))
    mixture: d.Distribution = attempt(d.Mixture, where, parts, weights, **_bounds(table, where))
    return mixture


def _scipy(table: dict[str, Any], where: Where) -> d.Distribution:
    """A distribution of ``scipy.stats`` by its name there, with its parameters by name."""
    from scipy import stats

    if "name" not in table:
        where.refuse("the name of a distribution in scipy.stats", "a table without it", 'add name = "…"')
    name = (where / "name").text_of(table["name"])
    law = None if name in SLOW else vars(stats).get(name)
    if not isinstance(law, stats.rv_continuous | stats.rv_discrete):
        (where / "name").refuse("the name of a distribution in scipy.stats", shown(name), "such as gamma")
    numbers = {k: read_number(v, where / k) for k, v in table.items() if k not in ("name", "min", "max")}
    try:
        frozen = law(**numbers)
    except (TypeError, ValueError) as error:
        where.refuse(f"the parameters of scipy.stats.{name}", str(error).removeprefix("_parse_args() "), "fix them")
    found: d.Distribution = attempt(d.FromScipy, where, frozen, **_bounds(table, where))
    return found


def read_rate(value: Any, where: Where) -> Rate:
    """A rate: req/s, a schedule file beside the TOML file, or a table of steps, linear knots or a diurnal curve."""
    rate: Rate
    if isinstance(value, str):
        rate = attempt(resolve_rate, where, attempt(read_schedule, where, file_beside(value, where)))
        return rate
    if not isinstance(value, dict):
        rate = attempt(resolve_rate, where, read_number(value, where))
        return rate
    kind = read_kind(value, RATE_KINDS, where)
    if kind == "diurnal":
        where.check_keys(value, ("kind", "mean", "swing", "peak_hour"), ("mean",))
        numbers = {key: read_number(entry, where / key) for key, entry in value.items() if key != "kind"}
        return Rate("function", function=attempt(Diurnal, where, **numbers))
    knots = [(time, read_number(rps, place)) for time, rps, place in read_knots(value, where)]
    rate = Rate("schedule", schedule=attempt(Schedule, where, *zip(*knots, strict=True), kind))
    return rate


def read_arrivals(table: dict[str, Any], where: Where) -> Steps:
    """Gaps from the keys `arrivals`, `shape` and `cv` of a client's table; shape or CV may change in time."""
    family = (where / "arrivals").text_of(table["arrivals"]) if "arrivals" in table else "exponential"
    if family not in FAMILIES:
        (where / "arrivals").check_keys({family: None}, FAMILIES)
    given = [key for key in ("shape", "cv") if key in table]
    if len(given) == 2:
        (where / "cv").refuse("shape or cv", "both", "leave out one of them")
    if not given:
        return Steps((0.0,), (attempt(Arrivals, where, family),))
    key = given[0]

    def one(value: Any, place: Where) -> Arrivals:
        arrivals: Arrivals = attempt(Arrivals, place, family, **{key: read_number(value, place)})
        return arrivals

    return read_steps(table[key], where / key, one)
