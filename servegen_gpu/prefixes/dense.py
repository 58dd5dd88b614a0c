"""Small ids: 0, 1, 2, … in the order in which they appear, for readers whose numbers are doubles.

An id of ours has 63 bits; JavaScript, and what else reads JSON into doubles, holds whole numbers up to 2**53. Numbering
needs every different id in memory: 32 to 64 bytes each, twice that for a moment when the table grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.trace import Trace, arrow_numbers

ID_COLUMNS = ("conversation", "hash_ids")
PIECE = 1 << 16
"""Ids looked up at once: their temporary arrays stay in the cache."""
FREE = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def dense_ids(slabs: Iterable[Trace]) -> Iterator[Trace]:
    """Slabs of a whole trace, in order, with small ids instead of their own, the same however the trace is cut.

    Blocks in ``hash_ids``, and conversations, are numbered 0, 1, 2, … as they appear. Requests without a conversation,
    which have ids below 0, get -1, -2, … instead. Two rows have one id if, and only if, they had one before.

    Parameters
    ----------
    slabs : iterable of Trace
        With ``conversation``, ``hash_ids`` or both. Add ``hash_ids`` before: they depend on the ids of conversations.

    Raises
    ------
    OptionError
        If there are no ids, or the trace is one share of several: theirs would meet when they are joined.
    """
    numberings = {name: Numbering() for name in ID_COLUMNS}
    alone = 0  # requests so far
    for slab in slabs:
        there = [name for name in ID_COLUMNS if name in slab]
        if not there:
            fix = "add them (hash_ids, --hash-ids 512), or leave out dense ids"
            raise OptionError(f"a column of ids: {' or '.join(ID_COLUMNS)}", f"columns {', '.join(slab)}", fix)
        refuse_shares(slab)
        columns: dict[str, Column] = dict(slab.columns)
        for name in there:
            column = columns[name]
            if isinstance(column, Ragged):
                columns[name] = Ragged(column.offsets, numberings[name].of(np.asarray(column.values, np.int64)))
            else:
                columns[name], alone = _conversations(column, numberings[name], alone)
        yield Trace.trusted(columns, dict(slab.provenance) | {"dense_ids": there}, slab.first_row)
        del slab, columns  # not kept while the next one is made


def refuse_shares(slab: Trace) -> None:
    """Refuse to number the ids of one share."""
    if (shard := slab.provenance.get("shard", "1/1")) != "1/1":
        raise OptionError("a whole trace to number its ids", f"shard {shard}", "join the shares first")


def _conversations(ids: NDArray[np.int64], known: Numbering, alone: int) -> tuple[NDArray[np.int64], int]:
    """Small ids of conversations, and how many requests are without one now."""
    single = ids < 0
    dense = np.empty(len(ids), np.int64)
    dense[~single] = known.of(ids[~single])
    now = alone + int(np.count_nonzero(single))
    dense[single] = np.arange(-alone - 1, -now - 1, -1)
    return dense, now


class Numbering:
    """A number for every id that comes: 0, 1, 2, … in the order of their first appearance.

    A hash table with open addressing, at most half full, in which whole arrays look for their places together.
    """

    def __init__(self) -> None:
        self.count = 0
        self._make(12)

    def _make(self, bits: int) -> None:
        self._shift = np.uint64(64 - bits)
        self._last = (1 << bits) - 1
        self._ids = np.empty(1 << bits, np.int64)
        self._numbers = np.full(1 << bits, FREE, np.int64)

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of `ids`, int64[n]; what was not seen before gets the next ones."""
        found = np.empty(len(ids), np.int64)
        for at in range(0, len(ids), PIECE):
            pairs = arrow_numbers(ids[at : at + PIECE]).dictionary_encode()
            # the buffers themselves, because to_numpy would import pandas
            distinct, which = (array.buffers()[1] for array in (pairs.dictionary, pairs.indices))
            numbers = self._of_distinct(np.frombuffer(distinct, np.int64, len(pairs.dictionary)))
            np.take(numbers, np.frombuffer(which, np.int32, len(pairs)), out=found[at : at + PIECE])
        return found

    def _of_distinct(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._known(ids)
        new = np.flatnonzero(numbers == FREE)
        numbers[new] = np.arange(self.count, self.count + len(new))
        self._add(ids[new], numbers[new])
        return numbers

    def _place(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where to begin to look for an id."""
        return ((ids.view(np.uint64) * GOLDEN) >> self._shift).view(np.int64)

    def _known(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of ids, or `FREE`."""
        numbers = np.full(len(ids), FREE, np.int64)
        place, left = self._place(ids), np.arange(len(ids))
        while len(left):
            there = self._numbers[place]
            taken = there != FREE
            same = taken & (self._ids[place] == ids[left])
            numbers[left[same]] = there[same]
            on = np.flatnonzero(taken & ~same)
            place, left = (place[on] + 1) & self._last, left[on]
        return numbers

    def _add(self, ids: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Add different ids, none of which is known."""
        self.count += len(ids)
        if 2 * self.count > len(self._ids):
            taken = np.flatnonzero(self._numbers != FREE)
            ids = np.concatenate((self._ids[taken], ids))
            numbers = np.concatenate((self._numbers[taken], numbers))
            self._make((2 * self.count - 1).bit_length())
        place = self._place(ids)
        while len(ids):
            free = np.flatnonzero(self._numbers[place] == FREE)
            self._numbers[place[free]] = numbers[free]  # of those at one place, one stays
            mine = self._numbers[place] == numbers
            self._ids[place[mine]] = ids[mine]
            on = np.flatnonzero(~mine)
            place, ids, numbers = (place[on] + 1) & self._last, ids[on], numbers[on]
