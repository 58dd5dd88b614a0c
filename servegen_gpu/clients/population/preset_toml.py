"""Populations from a TOML file.

name = "my-service"
clients = 2000
requests = 8e6              # in the time `over`
over = "1d"

[skew]                      # the 20 largest clients send 70 % of the requests, the largest 15 %
top = 20
share = 0.7
largest = 0.15

[default]                   # for every client below that does not say otherwise
context_tokens = 32768
spread = { cv = 0.3, input_tokens = 0.5, output_tokens = 0.3, hours = 1 }

[[top]]                     # the largest client, then the next, as many as you like
name = "batch"
rate = { kind = "linear", knots = [["0h", 1], ["9h", 4], ["24h", 1]] }
arrivals = "gamma"
cv = 3
input_tokens = 250
output_tokens = { kind = "exponential", mean = 80 }

[[kind]]                    # all others: shares of their requests add up to 1
name = "chat"
share = 1
rate = { kind = "diurnal", swing = 0.8, peak_hour = 15 }
input_tokens = { kind = "lognormal", median = 300, sigma = 1.1 }
output_tokens = { kind = "exponential", mean = 400 }

[turns]                     # conversations of all clients, if they hold any: see `turns_toml`
share = 0.1
turns = { kind = "pmf", values = [2, 3, 5], weights = [5, 3, 2] }
gap_s = { kind = "lognormal", median = 100, sigma = 1.5 }

[environment]               # what moves the rates of all clients together, if anything does: see `environment_toml`
margin = { kind = "gamma", variance = 0.2 }
octaves = { 3 = 0.4, 8 = 0.6 }

Clients have the keys of a ``[[client]]`` in `toml_file`, but `count`. Of a rate, only the shape in time counts; it is
steady if left out, and a diurnal one needs no mean.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import DAY_S, MAX_CLIENTS
from servegen_gpu.clients.population.preset import Kind, Preset, Spread
from servegen_gpu.clients.population.skew import Skew
from servegen_gpu.clients.population.strata import HEAD
from servegen_gpu.clients.scaled import scaled
from servegen_gpu.clients.stated.diurnal import Diurnal, settled
from servegen_gpu.clients.stated.environment import Environment
from servegen_gpu.clients.stated.environment_toml import read_environment
from servegen_gpu.clients.stated.in_time import window_rates
from servegen_gpu.clients.stated.spec import ClientSpec
from servegen_gpu.clients.stated.tabulate import MAX_BINS, Lengths, grid_of, tabulate
from servegen_gpu.clients.stated.toml_file import CLIENT_KEYS, read_client
from servegen_gpu.clients.stated.toml_text import parse_toml, read_toml
from servegen_gpu.clients.stated.toml_values import attempt, read_number, read_time, read_whole
from servegen_gpu.clients.stated.turns_toml import read_turns
from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.request.schema import FIELDS, INPUT, KINDS, OUTPUT, of
from servegen_gpu.schedules import MAX_RATE_RPS

WINDOW_S = 600
MAX_DAYS = 28
TOP_KEYS = (
    *("name", "category", "clients", "requests", "over", "period"),
    *("skew", "default", "top", "kind", "turns", "environment"),
)
BEHAVIOUR_KEYS = tuple(key for key in CLIENT_KEYS if key != "count")
SPREADS = {"cv": 3.0, "input_tokens": 3.0, "text_tokens": 3.0, "output_tokens": 3.0, "hours": 24.0}
"""Keys of a spread, and the most that each may be."""
MAX_CELLS = 1 << 18
"""Most windows of all kinds together."""
MOST_STEPS = 5
"""Of a spread of lengths, each with tables of its own."""
SHARES_MAY_MISS = 1e-6
GAPS = ("arrivals", "shape", "cv")
"""Keys that belong together: a client that has one of them takes none from ``[default]``."""


def read_preset(path: str | os.PathLike[str]) -> Preset:
    """Read a population from a TOML file of at most 4 MiB.

    Raises
    ------
    ProfileError
        If the file cannot be read, or something in it is unknown, missing, contradictory or out of range: names the
        file, the line and the key.
    """
    return _preset(*read_toml(Path(path)))


def parse_preset(text: str, path: Path) -> Preset:
    """A population from the text of a file; `path` is for messages."""
    return _preset(*parse_toml(text, path))


def is_population(path: str | os.PathLike[str]) -> bool:
    """Whether a TOML file describes a population rather than clients one by one."""
    table, _ = read_toml(Path(path))
    return "client" not in table and any(key in table for key in ("skew", "kind", "default", "top"))


def _preset(table: dict[str, Any], where: Where) -> Preset:
    where.check_keys(table, TOP_KEYS, ("clients", "requests", "over", "skew", "kind"))
    clients = read_whole(table["clients"], 1, MAX_CLIENTS, where / "clients")
    windows = _days(table.get("period", "1d"), where / "period") * (DAY_S // WINDOW_S)
    default = (where / "default").table(table.get("default", {}))
    (where / "default").check_keys(default, (*BEHAVIOUR_KEYS, "spread"))
    known = Lengths()
    top = tuple(
        Kind(*_behaviour(place.table(entry), default, windows, place, known))
        for entry, place in _entries(table.get("top"), where / "top")
    )
    if len(top) > HEAD:
        (where / "top").refuse(f"at most {HEAD} clients one by one", f"{len(top):,}", "make kinds of them")
    kinds = tuple(
        _kind(place.table(entry), default, windows, place, known)
        for entry, place in _entries(table["kind"], where / "kind")
    )
    _check_size((*top, *kinds), windows, where / "kind")
    category = kinds[0].spec.category
    for key, group in (("top", top), ("kind", kinds)):
        for i, kind in enumerate(group):
            if (got := kind.spec.category) != category:
                (where / key / i).refuse(f"clients of category {category}", f"the fields of {got}", "fix its fields")
    stated = table.get("category", category)
    if (where / "category").text_of(stated) not in FIELDS:
        (where / "category").refuse(f"a category among {', '.join(FIELDS)}", shown(stated), "choose one of them")
    if stated != category:
        (where / "category").refuse(f"kinds of category {stated}", f"the fields of {category}", "fix one of them")
    for key in ("share", "tail_share"):
        total = sum(getattr(kind, key) for kind in kinds)
        if abs(total - 1) > SHARES_MAY_MISS:
            (where / "kind" / (len(kinds) - 1) / key).refuse(
                f"{key} of all kinds that add up to 1", f"{total:.6g}", f"change a {key}"
            )
    return Preset(
        name=(where / "name").text_of(table["name"]) if "name" in table else where.path.stem,
        category=category,
        clients=clients,
        rate_rps=_rate_rps(table, where),
        windows=windows,
        skew=_skew((where / "skew").table(table["skew"]), clients, where / "skew"),
        top=top,
        kinds=kinds,
        turns=read_turns((where / "turns").table(table["turns"]), where / "turns") if "turns" in table else None,
        environment=_environment(table, where),
        text=where.text,
    )


def _environment(table: dict[str, Any], where: Where) -> Environment | None:
    if "environment" not in table:
        return None
    where /= "environment"
    found = read_environment(where.table(table["environment"]), where)
    attempt(found.check_windows, where / "cell_s", WINDOW_S)
    return found


def _check_size(kinds: tuple[Kind, ...], windows: int, where: Where) -> None:
    """Refuse what would take more memory than any population needs."""
    bins = sum(
        len(tabulate(value, grid_of(field)).values) * MOST_STEPS
        for kind in kinds
        for field, steps in kind.spec.lengths.items()
        for value in steps.values
    )
    if len(kinds) * windows > MAX_CELLS or bins > MAX_BINS:
        where.refuse(
            f"at most {MAX_CELLS:,} windows of all kinds together, and {MAX_BINS:,} bins of their lengths in every "
            f"step of their spread",
            f"{len(kinds):,} kinds and explicit clients, {windows:,} windows, {bins:,} bins",
            "make fewer kinds, shorten period, or state a smaller max= of lengths",
        )


def _entries(value: Any, where: Where) -> list[tuple[Any, Where]]:
    return [] if value is None else [(entry, where / i) for i, entry in enumerate(where.list(value))]


def _days(value: Any, where: Where) -> int:
    days = read_time(value, where) / DAY_S
    if not (1 <= days <= MAX_DAYS and float(days).is_integer()):
        where.refuse(f"a period of 1 to {MAX_DAYS} whole days", shown(value), 'write it like "1d" or "7d"')
    return int(days)


def _rate_rps(table: dict[str, Any], where: Where) -> float:
    requests, over_s = read_number(table["requests"], where / "requests"), read_time(table["over"], where / "over")
    if not over_s > 0:
        (where / "over").refuse("a time above 0", shown(table["over"]), 'write it like "7d"')
    if not 0 < requests / over_s <= MAX_RATE_RPS:
        got = f"{shown(table['requests'])} in {over_s:g} s"
        (where / "requests").refuse(f"requests at a rate above 0, up to {MAX_RATE_RPS:g} req/s", got, "change requests")
    return requests / over_s


def _skew(table: dict[str, Any], clients: int, where: Where) -> Skew:
    where.check_keys(table, ("top", "share", "largest"), ("top", "share"))
    if clients == 1:
        where.refuse("2 clients or more where there is a skew", "1", "raise clients")
    top = read_whole(table["top"], 1, clients - 1, where / "top")
    largest = _share(table["largest"], where / "largest") if "largest" in table else None
    skew = Skew(top, _share(table["share"], where / "share"), largest)
    attempt(skew.law, where, clients)
    return skew


def _share(value: Any, where: Where) -> float:
    share = read_number(value, where)
    if not 0 <= share <= 1:
        where.refuse("a share from 0 to 1", shown(value), "change it")
    return share


def _kind(table: dict[str, Any], default: dict[str, Any], windows: int, where: Where, known: Lengths) -> Kind:
    where.check_keys(table, (*BEHAVIOUR_KEYS, "share", "tail_share", "spread"), ("share",))
    share = _share(table["share"], where / "share")
    tail_share = _share(table["tail_share"], where / "tail_share") if "tail_share" in table else share
    own = {key: value for key, value in table.items() if key not in ("share", "tail_share", "spread")}
    spec, rate = _behaviour(own, default, windows, where, known)
    place = (where if "spread" in table else Where(where.path, where.text, ("default",))) / "spread"
    spread = _spread(place.table(table.get("spread", default.get("spread", {}))), spec.category, place)
    for field, steps in spec.lengths.items():
        lengths = {"text_tokens": spread.input_tokens}.get(field, getattr(spread, field, 0.0))
        for value in steps.values if lengths else ():
            attempt(scaled, where / field, value, 2.0)
    return Kind(spec, rate, share, tail_share, spread)


def _spread(table: dict[str, Any], category: str, where: Where) -> Spread:
    where.check_keys(table, [k for k in SPREADS if k not in KINDS or k in of(category).names])
    numbers = {key: read_number(value, where / key) for key, value in table.items()}
    for key, number in numbers.items():
        if not 0 <= number <= SPREADS[key]:
            (where / key).refuse(f"a spread from 0 to {SPREADS[key]:g}", f"{number:g}", "change it")
    if "text_tokens" in numbers:
        numbers["input_tokens"] = numbers.pop("text_tokens")
    return Spread(**numbers)


def _behaviour(
    table: dict[str, Any], default: dict[str, Any], windows: int, where: Where, known: Lengths
) -> tuple[ClientSpec, NDArray[np.float64]]:
    """What a client does, by its own keys and the default ones it lacks; and the shape of its rate in time."""
    where.check_keys(table, BEHAVIOUR_KEYS)
    own_gaps = any(key in table for key in GAPS)
    kept = {k: v for k, v in default.items() if k != "spread" and not (own_gaps and k in GAPS)}
    both = {"rate": 1.0} | kept | table
    if isinstance(both["rate"], dict) and both["rate"].get("kind") == "diurnal":
        both["rate"] = {"mean": 1.0} | both["rate"]
    spec = read_client(both, where, known)
    one_day = isinstance(spec.rate.function, Diurnal)  # the same every day
    rate = attempt(window_rates, where / "rate", spec.rate, DAY_S // WINDOW_S if one_day else windows, WINDOW_S)
    rate = settled(rate / (math.fsum(rate.tolist()) / len(rate)))
    for key, steps in (("cv", spec.arrivals), *spec.lengths.items()):
        attempt(steps.at, where / key, windows, WINDOW_S)
    _check_context(spec, where if "context_tokens" in table else Where(where.path, where.text, ("default",)))
    return spec, np.tile(rate, windows // len(rate))


def _check_context(spec: ClientSpec, where: Where) -> None:
    """Refuse a limit that would cut about every second request: it does not hold one turn."""
    medians = []
    for field in (of(spec.category).names[lane] for lane in (INPUT, OUTPUT)):
        tables = [tabulate(value, grid_of(field)) for value in spec.lengths[field].values]
        medians.append(min(int(t.values[np.searchsorted(np.cumsum(t.words), t.words.sum() // 2)]) for t in tables))
    if 0 < spec.context_tokens < sum(medians):
        (where / "context_tokens").refuse(
            f"a context that holds one turn (medians of {medians[0]:,} tokens in, {medians[1]:,} out)",
            f"{spec.context_tokens:,}",
            "raise it, or shorten the lengths",
        )
