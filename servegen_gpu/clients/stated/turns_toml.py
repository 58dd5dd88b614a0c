"""Conversations as TOML files state them, in the section ``[turns]`` of a population or in a file of their own.

[turns]
share = 0.096
turns = { kind = "pmf", values = [2, 3, 4, 8], weights = [4, 3, 2, 1] }
gap_s = { kind = "lognormal", median = 100, sigma = 2 }
growth = "history"                                          # or "edit", or "sorted", the default
new_tokens = { kind = "lognormal", median = 60, sigma = 1 } # not with growth = "sorted"; "edit" needs them
session = "12h"
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from servegen_gpu.clients.stated.distribution import Distribution
from servegen_gpu.clients.stated.tabulate import Table, new_table
from servegen_gpu.clients.stated.toml_text import read_toml
from servegen_gpu.clients.stated.toml_values import attempt, read_distribution, read_number, read_time
from servegen_gpu.clients.stated.turn_tables import GAPS, MAX_SESSION_S, new_tokens_grid, several_turns
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.clients.stated.where import Where
from servegen_gpu.errors import OptionError, unknown

NEEDED = ("share", "turns", "gap_s")
KEYS = (*NEEDED, "growth", "new_tokens", "session")


def read_turns(table: dict[str, Any], where: Where) -> TurnModel:
    """The section ``[turns]``; its keys are the parameters of `TurnModel`."""
    where.check_keys(table, KEYS, NEEDED)
    keywords: dict[str, Any] = {"share": read_number(table["share"], where / "share")}
    if not 0 <= keywords["share"] <= 1:
        (where / "share").refuse("a share from 0 to 1", f"{keywords['share']:g}", "change it")
    if "growth" in table:
        keywords["growth"] = (where / "growth").text_of(table["growth"])
    tables: dict[str, Callable[[Distribution], Table]] = {
        "turns": several_turns,
        "gap_s": partial(new_table, grid=GAPS),
        "new_tokens": partial(new_table, grid=new_tokens_grid(keywords.get("growth", "sorted"))),
    }
    for key, tabulated in tables.items():  # which find the faults of each, so that a message names its key
        if key in table:
            keywords[key] = read_distribution(table[key], where / key)
            attempt(tabulated, where / key, keywords[key])
    if "session" in table:
        session_s = keywords["session_s"] = read_time(table["session"], where / "session")
        if not 1 <= session_s <= MAX_SESSION_S:
            (where / "session").refuse(f"a time from 1 to {MAX_SESSION_S:,.0f} s", f"{session_s:g} s", "change it")
    model: TurnModel = attempt(TurnModel, where, **keywords)
    return model


def turn_model(source: str | os.PathLike[str] | TurnModel) -> TurnModel:
    """A model by the name of a built-in workload, or from the section ``[turns]`` of a TOML file."""
    from servegen_gpu.clients.population.presets import PRESETS, built_in

    if isinstance(source, TurnModel):
        return source
    if not isinstance(source, str | os.PathLike):
        raise OptionError("a TurnModel, a built-in workload, or a TOML file", repr(source)[:60], "name one")
    name = os.fspath(source)
    known = [preset for preset in PRESETS if built_in(preset).turns is not None]
    if name in known:
        found = built_in(name).turns
        assert found is not None
        return found
    if isinstance(source, str) and not name.lower().endswith(".toml"):
        raise unknown("a TOML file, or a workload with conversations", name, known)
    table, where = read_toml(Path(name))
    if "turns" not in table:
        where.refuse("a section [turns]", "none", "add one")
    return read_turns((where / "turns").table(table["turns"]), where / "turns")
