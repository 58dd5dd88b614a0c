"""An environment as TOML files state it, in the section ``[environment]``.

[environment]
margin = { kind = "gamma", variance = 0.4 }        # or lognormal; zero = 0.3 adds cells without requests
octaves = { 2 = 0.3, 6 = 0.4, 9 = 0.3 }            # weights of lattices of 4, 64 and 512 cells
cell_s = 1
each = "pool"                                      # or "group", "client", with common = 0.5

A margin may be knots of its quantile function, too: ``{ kind = "quantiles", zero = 0.2, at = […], values = […] }``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servegen_gpu.clients.stated.environment import Environment, Margin
from servegen_gpu.clients.stated.toml_text import read_toml
from servegen_gpu.clients.stated.toml_values import attempt, read_kind, read_number, read_numbers, read_whole
from servegen_gpu.clients.stated.where import Where
from servegen_gpu.errors import OptionError
from servegen_gpu.law.environment import MAX_OCTAVE

SMOOTH: dict[str, Callable[..., Margin]] = {"gamma": Margin.gamma, "lognormal": Margin.lognormal}
MARGIN_KINDS = (*SMOOTH, "quantiles")
KEYS = ("margin", "octaves", "cell_s", "each", "common", "number")


def read_environment(table: dict[str, Any], where: Where) -> Environment:
    """The section ``[environment]``; its keys are the parameters of `Environment`."""
    where.check_keys(table, KEYS, ("margin", "octaves"))
    keywords: dict[str, Any] = {"margin": _margin(where, table["margin"])}
    octaves: dict[int, float] = {}
    for key, weight in (where / "octaves").table(table["octaves"]).items():
        place = where / "octaves" / key
        if not (key.isdecimal() and int(key[:9]) <= MAX_OCTAVE):
            place.refuse(f"an octave from 0 to {MAX_OCTAVE}", key[:60], "change it")
        octaves[int(key)] = read_number(weight, place)
    keywords["octaves"] = octaves
    for key in ("cell_s", "common"):
        if key in table:
            keywords[key] = read_number(table[key], where / key)
    if "each" in table:
        keywords["each"] = (where / "each").text_of(table["each"])
    if "number" in table:
        keywords["number"] = read_whole(table["number"], 0, 2**31 - 1, where / "number")
    found: Environment = attempt(Environment, where, **keywords)
    return found


def _margin(where: Where, value: Any) -> Margin:
    where /= "margin"
    table = where.table(value)
    kind = read_kind(table, MARGIN_KINDS, where)
    numbers = {key: read_number(table[key], where / key) for key in ("zero", "variance") if key in table}
    margin: Margin
    if kind in SMOOTH:
        where.check_keys(table, ("kind", "variance", "zero"), ("variance",))
        margin = attempt(SMOOTH[kind], where, **numbers)
        return margin
    where.check_keys(table, ("kind", "at", "values", "zero"), ("at", "values"))
    knots = {key: read_numbers(table[key], where / key) for key in ("at", "values")}
    margin = attempt(Margin, where, **knots, **numbers)
    return margin


def environment(source: Environment | str | os.PathLike[str]) -> Environment:
    """An environment by the name of a workload, or from ``[environment]`` of a TOML file or saved profile."""
    from servegen_gpu.clients.population.presets import PRESETS, built_in

    if isinstance(source, Environment):
        return source
    if not isinstance(source, str | os.PathLike):
        raise OptionError("an Environment, a built-in workload, or a TOML file", repr(source)[:60], "name one")
    name = os.fspath(source)
    known = {preset: found for preset in PRESETS if (found := built_in(preset).environment) is not None}
    if name in known:
        return known[name]
    if Path(name).is_dir():
        name = os.path.join(name, "profile.toml")
    elif isinstance(source, str) and not name.lower().endswith(".toml"):
        names = f" ({', '.join(known)})" if known else ""
        raise OptionError(f"a workload with an environment{names}, or a TOML file", repr(name)[:60], "choose another")
    table, where = read_toml(Path(name))
    if "environment" not in table:
        where.refuse("a section [environment]", "none", "add one")
    return read_environment((where / "environment").table(table["environment"]), where / "environment")
