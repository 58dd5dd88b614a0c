"""How clients hold conversations: how many turns, how far apart, and how the context grows.

A conversation has two *turns* or more; all other requests stand alone. Turn j + 1 arrives an *inter-turn time* after
turn j arrived (paper, section 5.2: from arrival to arrival, whatever a server does in between).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from servegen_gpu.clients.stated.distribution import Distribution, number
from servegen_gpu.clients.stated.turn_tables import MAX_SESSION_S, TurnTables, new_tokens_grid, turn_tables
from servegen_gpu.errors import OptionError
from servegen_gpu.options import check_choice

Growth = Literal["sorted", "history", "edit"]
GROWTHS: tuple[Growth, ...] = get_args(Growth)
MOST_SHOWN = 100
SESSION_S = 43_200.0
"""Twelve hours: the span in which the published conversations were found."""


@dataclass(frozen=True, eq=False)
class TurnModel:
    """A model of conversations.

    Parameters
    ----------
    share : float
        Of the requests that belong to conversations of two turns or more, 0 to 1.
    turns : Distribution
        Number of turns of those conversations, 2 to 65,535.
    gap_s : Distribution
        Inter-turn times, seconds.
    growth : {"sorted", "history", "edit"}
        ``sorted``: inputs of a conversation are as many draws from the client's input lengths, the shortest first: for
        lengths that contain the history already, as those of all released profiles do. ``history``: an input is the
        input before, the answer to it, and new tokens; where the client's context limit is passed, the oldest tokens
        of the history are cut. ``edit``: the same without the answer, as completions of a text that is being written
        are asked for. Text and items of multimodal requests stay those of the turn.
    new_tokens : Distribution, optional
        New input (or text) tokens of a turn after the first. Under ``history`` by default the client's own lengths;
        ``edit`` needs them, and they may be 0.
    session_s : float
        A conversation ends this long after its first turn at the latest: what would come later is left out. Also how
        far back sampling has to look for conversations that are still going on when a trace begins.

    Raises
    ------
    OptionError
        If a parameter is out of range.

    Examples
    --------
    >>> from servegen_gpu import distributions as d
    >>> TurnModel(0.3, turns=d.Pmf([2, 3, 5], [5, 3, 2]), gap_s=d.LogNormal(median=100, sigma=1.5, max=7200))
    """

    share: float
    turns: Distribution
    gap_s: Distribution
    growth: Growth = "sorted"
    new_tokens: Distribution | None = None
    session_s: float = SESSION_S

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", number("share", self.share, 0, high=1))
        object.__setattr__(self, "session_s", number("session_s", self.session_s, 1, high=MAX_SESSION_S))
        check_choice("growth", self.growth, GROWTHS)
        if self.growth == "sorted" and self.new_tokens is not None:
            expected = "new_tokens with growth='history' or 'edit'"
            raise OptionError(expected, "new_tokens with 'sorted'", "leave out one of them")
        if self.growth == "edit" and self.new_tokens is None:
            fix = "state how many tokens an edit adds, such as Pmf([0, 1, 2], [1, 1, 1])"
            raise OptionError("growth='edit' with new_tokens", "none", fix)
        for name in ("turns", "gap_s", "new_tokens"):
            value = getattr(self, name)
            if not isinstance(value, Distribution) and (name, value) != ("new_tokens", None):
                raise OptionError(f"{name} as a distribution", repr(value)[:60], "see servegen_gpu.distributions")
        _ = self.tables  # whose faults are this model's

    @cached_property
    def tables(self) -> TurnTables:
        """The model as tables of whole numbers."""
        grid = new_tokens_grid(self.growth)
        return turn_tables(self.turns, self.gap_s, self.new_tokens, grid, self.session_s)

    def describe(self) -> dict[str, Any]:
        """For provenance, in terms that JSON has."""
        return {field.name: _described(getattr(self, field.name)) for field in fields(self)}

    def digest(self) -> bytes:
        """Of everything that sampling depends on."""
        tables = self.tables
        hasher = hashlib.sha256(f"{self.share} {self.growth} {tables.session_us} {tables.mean_turns}".encode())
        for table in (tables.count, tables.gap, tables.new):
            for array in () if table is None else (table.values, table.thresholds):
                hasher.update(array.tobytes())
        hasher.update(tables.gap_us.tobytes() + tables.gap_width_us.tobytes())
        return hasher.digest()

    @property
    def mean_turns(self) -> float:
        """Mean number of requests of a conversation, within `session_s`."""
        return self.tables.mean_turns


def _described(value: Any) -> Any:
    """A value in terms that JSON has: distributions by kind and parameters, long lists by their length."""
    if isinstance(value, Distribution):
        stated = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        stated = {name: _described(given) for name, given in stated.items() if given is not None}
        return {"kind": type(value).__name__.lower()} | stated
    if isinstance(value, np.ndarray):
        return value.tolist() if len(value) <= MOST_SHOWN else f"{len(value):,} numbers"
    if isinstance(value, tuple | list):
        return [_described(each) for each in value]
    return value if isinstance(value, str | int | float | None) else type(value).__name__
