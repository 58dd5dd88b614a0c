"""What turns of conversations need to know of the turns before them, slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.trace import Trace

NOTHING = -1


@dataclass(frozen=True)
class Turns:
    """Rows of a slab that are turns of conversations, conversation by conversation.

    Attributes
    ----------
    row : int64[m]
        Where they are in the slab.
    begins : bool[m]
        The first of its conversation in the slab.
    before : int64[m]
        Of rows that begin, what was kept of the conversation in earlier slabs; -1 if it begins here.
    """

    row: NDArray[np.int64]
    begins: NDArray[np.bool_]
    before: NDArray[np.int64]


class Latest:
    """A number from 0 on for every conversation so far: that of its latest turn. It takes 16 bytes."""

    def __init__(self) -> None:
        self.conversation = np.empty(0, np.int64)
        self.number = np.empty(0, np.int64)

    def turns(self, slab: Trace) -> Turns:
        """The turns of a slab, and what came before them."""
        names: NDArray[np.int64] = slab["conversation"]
        row = np.flatnonzero(names >= 0)
        row = row[np.argsort(names[row], kind="stable")]
        named = names[row]
        begins = np.append(True, named[1:] != named[:-1])[: len(row)]
        before = np.full(len(row), NOTHING)
        if len(self.conversation):
            first = np.flatnonzero(begins)
            at = np.minimum(np.searchsorted(self.conversation, named[first]), len(self.conversation) - 1)
            known = self.conversation[at] == named[first]
            before[first[known]] = self.number[at[known]]
        return Turns(row, begins, before)

    def keep(self, slab: Trace, turns: Turns, number: NDArray[np.int64]) -> None:
        """Remember the last turn of every conversation of a slab; `number` is that of each turn."""
        last = np.append(turns.begins[1:], True)[: len(turns.row)]
        names = slab["conversation"][turns.row[last]]
        stays = ~np.isin(self.conversation, names, assume_unique=True)
        joined = np.concatenate((self.conversation[stays], names))
        order = np.argsort(joined, kind="stable")
        self.conversation = joined[order]
        self.number = np.concatenate((self.number[stays], number[last]))[order]


def with_previous(slabs: Iterable[Trace]) -> Iterator[Trace]:
    """Slabs with the column ``previous``, int64: the row of the trace with the turn before; -1 if it has none."""
    latest = Latest()
    for slab in slabs:
        previous = np.full(len(slab), NOTHING)
        if "conversation" in slab:
            turns = latest.turns(slab)
            row = turns.row + slab.first_row
            previous[turns.row] = np.where(turns.begins, turns.before, np.roll(row, 1))
            latest.keep(slab, turns, row)
        yield Trace.trusted(slab.columns | {"previous": previous}, slab.provenance, slab.first_row)


def with_rounds(slabs: Iterable[Trace]) -> Iterator[Trace]:
    """Slabs with the column ``round``, int64: how many turns of the conversation come before; 0 if it has none."""
    latest = Latest()
    for slab in slabs:
        rounds = np.zeros(len(slab), np.int64)
        if "conversation" in slab:
            turns = latest.turns(slab)
            at = np.arange(len(turns.row))
            begin = np.maximum.accumulate(np.where(turns.begins, at, 0))
            number = at - begin + turns.before[begin] + 1
            rounds[turns.row] = number
            latest.keep(slab, turns, number)
        yield Trace.trusted(slab.columns | {"round": rounds}, slab.provenance, slab.first_row)
