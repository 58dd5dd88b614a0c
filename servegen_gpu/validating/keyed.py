"""Values by key in sorted arrays that grow: what a check over a whole file has to remember."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Keyed:
    """A table of 64-bit keys, each with a value of several fields.

    It is a few sorted arrays, each at least twice as long as the next, so a key is moved some log2(n) times. It takes
    the bytes of keys and values, and as much again while the longest arrays are merged.
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
        while len(self._levels) > 1 and 2 * len(self._levels[-1][0]) > len(self._levels[-2][0]):
            (keys_2, values_2), (keys_1, values_1) = self._levels.pop(), self._levels.pop()
            both = np.concatenate((keys_1, keys_2))
            order = np.argsort(both, kind="stable")
            self._levels.append((both[order], np.concatenate((values_1, values_2))[order]))

    def items(self) -> tuple[NDArray[np.uint64], NDArray[Any]]:
        """All keys, in no order, and their values."""
        if not self._levels:
            return np.zeros(0, np.uint64), np.zeros(0, self._fields)
        return np.concatenate([keys for keys, _ in self._levels]), np.concatenate([of for _, of in self._levels])
