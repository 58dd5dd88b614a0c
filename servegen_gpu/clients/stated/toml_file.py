"""Clients of your own from a TOML file.

name = "my-service"

[[client]]
name = "chat"
count = 200
rate = { kind = "diurnal", mean = 0.02, swing = 0.8, peak_hour = 14 }
arrivals = "gamma"
cv = 2.5
input_tokens = { kind = "lognormal", median = 300, sigma = 1.1, max = 30000 }
output_tokens = { kind = "exponential", mean = 400, max = 8192 }
context_tokens = 32768
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from servegen_gpu.clients.correlation import spearman_matrix
from servegen_gpu.clients.pool import MAX_CLIENTS, ClientPool
from servegen_gpu.clients.stated.distributions import Distribution
from servegen_gpu.clients.stated.environment_toml import read_environment
from servegen_gpu.clients.stated.parametric import pool
from servegen_gpu.clients.stated.spec import MAX_CONTEXT, ClientSpec, client
from servegen_gpu.clients.stated.tabulate import Lengths, grid_of
from servegen_gpu.clients.stated.toml_text import read_toml
from servegen_gpu.clients.stated.toml_values import (
    attempt,
    read_arrivals,
    read_distribution,
    read_number,
    read_rate,
    read_steps,
    read_whole,
)
from servegen_gpu.clients.stated.turns_toml import read_turns
from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.request.schema import FIELDS

TOP_KEYS = ("name", "category", "window_s", "period", "client", "turns", "environment")
LENGTH_KEYS = tuple(dict.fromkeys(field for fields in FIELDS.values() for field in fields))
CLIENT_KEYS = (
    *("name", "count", "rate", "arrivals", "shape", "cv"),
    *LENGTH_KEYS,
    *("rank_correlation", "context_tokens"),
)


def read_clients(path: str | os.PathLike[str]) -> ClientPool:
    """Read a pool of clients from a TOML file.

    Parameters
    ----------
    path : path-like
        At most 4 MiB. Top level: `name` (the file's by default), `category`, `window_s` (600), `period` ("1d"), and a
        ``[[client]]`` for every kind of client, with the keys of `client` (see ``examples/own_clients.toml``); for all
        of them ``[turns]`` (`turns_toml`) and ``[environment]`` (`environment_toml`).

    Returns
    -------
    ClientPool
        Ids are 0, 1, 2, … in the order of the file.

    Raises
    ------
    ProfileError
        If the file cannot be read, or something in it is unknown, missing, contradictory or out of range: names the
        file, the line and the key.
    """
    path = Path(path)
    table, where = read_toml(path)
    where.check_keys(table, TOP_KEYS, ("client",))
    name = (where / "name").text_of(table["name"]) if "name" in table else path.stem
    category = table.get("category")
    if category is not None and (where / "category").text_of(category) not in FIELDS:
        (where / "category").refuse(f"a category among {', '.join(FIELDS)}", shown(category), "choose one of them")
    window_s = read_whole(table.get("window_s", 600), 1, 4294, where / "window_s")
    period = table.get("period", "1d")
    if not isinstance(period, str):
        period = read_number(period, where / "period")

    specs: list[ClientSpec] = []
    lengths = Lengths()
    total = 0
    for i, entry in enumerate((where / "client").list(table["client"])):
        place = where / "client" / i
        specs.append(read_client(place.table(entry), place, lengths))
        if category not in (None, specs[-1].category) or specs[-1].category != specs[0].category:
            wanted = category or specs[0].category
            place.refuse(f"a client of category {wanted}", f"the fields of {specs[-1].category}", "fix its fields")
        total += specs[-1].count
        if total > MAX_CLIENTS:
            (place / "count").refuse(f"at most {MAX_CLIENTS:,} clients", f"{total:,} up to here", "lower count")
    made: ClientPool = attempt(pool, where, specs, name=name, window_s=window_s, period=period)
    if "turns" in table:
        made = made.with_conversations(read_turns((where / "turns").table(table["turns"]), where / "turns"))
    if "environment" in table:
        place = where / "environment"
        made = attempt(made.with_environment, place, read_environment(place.table(table["environment"]), place))
    return made


def read_client(table: dict[str, Any], where: Where, known: Lengths) -> ClientSpec:
    """One ``[[client]]``: the keys of `client`; `known` has the distributions of the file, and gets new ones."""
    where.check_keys(table, CLIENT_KEYS, ("rate",))
    context = None
    if "context_tokens" in table:
        context = read_whole(table["context_tokens"], 2, MAX_CONTEXT, where / "context_tokens")
    lengths = {key: read_steps(table[key], where / key, _length_of(key, known)) for key in LENGTH_KEYS if key in table}
    made: ClientSpec = attempt(
        client,
        where,
        name=(where / "name").text_of(table["name"]) if "name" in table else "",
        count=read_whole(table.get("count", 1), 1, MAX_CLIENTS, where / "count"),
        rate=read_rate(table["rate"], where / "rate"),
        arrivals=read_arrivals(table, where),
        context_tokens=context,
        **lengths,
    )
    if "rank_correlation" not in table:
        return made
    place = where / "rank_correlation"
    pairs = {pair: read_number(rho, place / pair) for pair, rho in place.table(table["rank_correlation"]).items()}
    return replace(made, correlation=attempt(spearman_matrix, place, pairs, made.category))


def _length_of(field: str, known: Lengths) -> Callable[[Any, Where], Distribution]:
    """Reader of distributions for a field, which tries them on its grid."""

    def read(value: Any, where: Where) -> Distribution:
        distribution = read_distribution(value, where)
        attempt(known.row, where, distribution, grid_of(field))
        return distribution

    return read
