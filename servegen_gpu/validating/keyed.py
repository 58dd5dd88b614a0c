"""Values by key in sorted arrays that grow: what a check over a whole file has to remember."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MERGED = 1 << 19
"""Keys in an array at most, unless they came at once."""

ODD = np.uint64(0x9E3779B97F4A7C15)
SIEVE_BITS = 25
"""Of a sieve at most: 32 MB."""


class Sieve:
    """Tells at a tenth of the cost that a key is not in a table; of the keys that are not, an eighth pass or more."""

    def __init__(self, tables: list[NDArray[np.uint64]]) -> None:
        count = sum(map(len, tables))
        bits = min(max((8 * count).bit_length(), 10), SIEVE_BITS)
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, np.bool_)
        for keys in tables:
            self._marks[self._place(keys)] = True

    def passes(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which keys may be there, bool[n]; all that are."""
        return np.asarray(self._marks[self._place(keys)])

    def _place(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (keys * ODD) >> self._shift


class Keyed:
    """A table of 64-bit keys, each with a value of several fields.

    It is some sorted arrays, which are merged while they are short, so a key is moved a few times. It takes the bytes
    of keys and values, and little more while two arrays are merged.
    """

    def __init__(self, fields: np.dtype[Any]) -> None:
        self._fields = fields
        self._levels: list[tuple[NDArray[np.uint64], NDArray[Any]]] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._levels)

    def get(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Which keys are there, bool[n], and their values; zeros for others."""
        found, values = np.zeros(len(keys), np.bool_), np.zeros(len(keys), self._fields)
        for known, of in self._levels:
            at = np.searchsorted(known, keys).clip(0, len(known) - 1)
            here = known[at] == keys
            found |= here
            values[here] = of[at[here]]
        return found, values

    def put(self, keys: NDArray[np.uint64], values: NDArray[Any]) -> None:
        """Set the values of keys, each once among them."""
        new = np.ones(len(keys), np.bool_)
        for known, of in self._levels:
            at = np.searchsorted(known, keys).clip(0, len(known) - 1)
            here = known[at] == keys
            of[at[here]] = values[here]
            new &= ~here
        if not new.any():
            return
        order = np.argsort(keys[new])
        self._levels.append((keys[new][order], values[new][order]))
        while len(self._levels) > 1:
            last, before = len(self._levels[-1][0]), len(self._levels[-2][0])
            if 2 * last < before or last + before > MERGED:
                break
            (keys_2, values_2), (keys_1, values_1) = self._levels.pop(), self._levels.pop()
            both = np.concatenate((keys_1, keys_2))
            order = np.argsort(both, kind="stable")
            self._levels.append((both[order], np.concatenate((values_1, values_2))[order]))

    def sieve(self) -> Sieve:
        """A sieve for the keys that are there now."""
        return Sieve([keys for keys, _ in self._levels])

    def items(self) -> tuple[NDArray[np.uint64], NDArray[Any]]:
        """All keys, in no order, and their values."""
        keys = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in self._levels)])
        return keys, np.concatenate([np.zeros(0, self._fields), *(of for _, of in self._levels)])
