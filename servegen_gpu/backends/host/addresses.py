"""Where cells are in the random stream, and the words that are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Key, Purpose, draw
from servegen_gpu.law.philox import Words

Index = slice | NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Addresses:
    """Addresses of cells.

    Attributes
    ----------
    key : tuple of int
    client, window : uint64[cells]
        Id, and number as in `Cells.number`.
    """

    key: Key
    client: NDArray[np.uint64]
    window: NDArray[np.uint64]

    def words(self, purpose: Purpose, cell: Index, ordinal: Any, *, turn: Any = 0, item: Any = 0) -> Words:
        """The four words of requests of the given cells; `turn` counts from 0."""
        at = {"ordinal": ordinal, "client": self.client[cell], "window": self.window[cell]}
        return draw(np, self.key, purpose, **at, turn=turn, item=item)
