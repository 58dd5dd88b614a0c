"""What backends keep of packed workloads from call to call."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from servegen_gpu.packed import PackedWorkload

Kept = TypeVar("Kept")

MOST = 4
"""Workloads that something is kept of: a trace may alternate between two, and a caller between traces."""


class PerWorkload(Generic[Kept]):
    """Something for each of the last few packed workloads, which goes when its workload does.

    Parameters
    ----------
    gone : callable, optional
        Called when something went with its workload, to give memory back.
    """

    def __init__(self, gone: Callable[[], None] | None = None) -> None:
        self._gone = gone
        self._kept: dict[weakref.ref[PackedWorkload], Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, packed: PackedWorkload) -> Kept | None:
        """What is kept of a workload, which becomes the last that was used."""
        refs = tuple(self._kept)
        for ref in refs:
            if ref() is not packed or (kept := self._kept.get(ref)) is None:
                continue
            if ref is not refs[-1] and self._kept.pop(ref, None) is not None:
                self._kept[ref] = kept
            return kept
        return None

    def keep(self, packed: PackedWorkload, kept: Kept) -> None:
        """Keep something of a workload, in the place of what was kept of it, or of the one used longest ago."""
        self.forget(packed)
        mine = weakref.ref(self)

        def drop(ref: weakref.ref[PackedWorkload]) -> None:
            if (owner := mine()) is not None and not sys.is_finalizing():
                owner._drop(ref)

        self._kept[weakref.ref(packed, drop)] = kept
        for ref in tuple(self._kept)[:-MOST]:
            self._kept.pop(ref, None)

    def forget(self, packed: PackedWorkload | None = None) -> None:
        """Let go of what is kept of a workload, or of all."""
        for ref in tuple(self._kept):
            if packed is None or ref() is packed:
                self._kept.pop(ref, None)

    def _drop(self, ref: weakref.ref[PackedWorkload]) -> None:
        if self._kept.pop(ref, None) is not None and self._gone:
            self._gone()
