"""Conversations of a population, as its TOML file states them; no trace has them yet.

[turns]
share = 0.096
turns = { kind = "pmf", values = [2, 3, 4, 8], weights = [4, 3, 2, 1] }
gap_s = { kind = "lognormal", median = 100, sigma = 2 }
"""

from __future__ import annotations

from typing import Any

import numpy as np

from servegen_gpu.clients.tabulate import ITEMS, tabulate
from servegen_gpu.clients.toml_values import attempt, read_distribution, read_number
from servegen_gpu.clients.where import Where

KEYS = ("share", "turns", "gap_s")


def read_turns(table: dict[str, Any], where: Where) -> dict[str, Any]:
    """The section ``[turns]``.

    Parameters
    ----------
    table : dict
        `share`: of the requests that belong to conversations of two turns or more; `turns`: distribution of the
        number of their turns, from 2; `gap_s`: distribution of the time between arrivals of consecutive turns.
    """
    where.check_keys(table, KEYS, KEYS)
    share = read_number(table["share"], where / "share")
    if not 0 <= share <= 1:
        (where / "share").refuse("a share from 0 to 1", f"{share:g}", "change it")
    found = {key: read_distribution(table[key], where / key) for key in ("turns", "gap_s")}
    least = int(np.min(attempt(tabulate, where / "turns", found["turns"], ITEMS).values))
    if least < 2:
        (where / "turns").refuse("conversations of 2 turns or more", f"some of {least}", "state min = 2")
    return {"share": share} | found
