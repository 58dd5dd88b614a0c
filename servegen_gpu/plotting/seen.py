"""What pictures need of a trace: one pass over its slabs, in memory that does not grow with them.

Most is what a comparison keeps (`servegen_gpu.comparing.seen`); added are sums by client, and how outputs and inputs
are made up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import PAIR_SIDE, Counts, pair_bin
from servegen_gpu.comparing.seen import Seen
from servegen_gpu.errors import OptionError
from servegen_gpu.plotting.by_client import ByClient
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace
from servegen_gpu.windowed import slabs_of

SHARE_STEPS = 100
"""Steps in which shares of inputs are counted."""


class Pictured:
    """What is kept of a trace.

    Attributes
    ----------
    seen : Seen
    by_client : ByClient
    answers : Counts
        Output tokens that are not reasoning.
    reason_pairs : int64[PAIR_SIDE**2] or None
        Reasoning and answers, by `pair_bin`.
    modal_shares : dict of str to int64[SHARE_STEPS + 1]
        By column of items: requests whose input is made of it to so many percent.
    provenance : dict
        Of the first slab.
    columns : tuple of str
        Of the first slab.
    """

    def __init__(self) -> None:
        self.seen = Seen()
        self.by_client = ByClient()
        self.answers = Counts()
        self.reason_pairs: NDArray[np.int64] | None = None
        self.modal_shares: dict[str, NDArray[np.int64]] = {}
        self.provenance: dict[str, Any] = {}
        self.columns: tuple[str, ...] = ()

    def add(self, slab: Trace) -> None:
        """See the next slab."""
        if not self.columns:
            self.provenance, self.columns = dict(slab.provenance), tuple(slab)
        self.seen.add(slab)
        if not len(slab):
            return
        if "client" in slab:
            self.by_client.add(slab)
        if "reason_tokens" in slab and "output_tokens" in slab:
            reason = slab["reason_tokens"]
            answer = np.maximum(slab["output_tokens"] - reason, 0)
            self.answers.add(answer)
            found = np.bincount(pair_bin(reason, answer), minlength=PAIR_SIDE**2)
            self.reason_pairs = found if self.reason_pairs is None else self.reason_pairs + found
        for name in slab:
            if isinstance(slab[name], Ragged) and name.endswith("_tokens") and "input_tokens" in slab:
                self._add_shares(name, slab[name].sums(), slab["input_tokens"])

    def _add_shares(self, name: str, tokens: NDArray[np.int64], of: NDArray[np.integer]) -> None:
        share = np.minimum(tokens * SHARE_STEPS // np.maximum(of, 1), SHARE_STEPS)
        found = np.bincount(share, minlength=SHARE_STEPS + 1)
        self.modal_shares[name] = self.modal_shares.get(name, np.zeros(SHARE_STEPS + 1, np.int64)) + found

    @property
    def rows(self) -> int:
        """How many requests there were."""
        return self.seen.rows


def pictured(source: Trace | Iterable[Trace] | str | os.PathLike[str]) -> Pictured:
    """What pictures need of a trace, in one pass.

    Parameters
    ----------
    source : Trace, its slabs in order of time, or path
        A `Workload` is an iterable of slabs.

    Raises
    ------
    OptionError
        If it is no trace, has no times, or is not in order.
    """
    if isinstance(source, str | os.PathLike):
        from servegen_gpu.formats import read_slabs

        source = read_slabs(source)
    kept = Pictured()
    for slab in slabs_of(source):
        if "arrival_us" not in slab:
            raise OptionError("a trace with the column arrival_us", f"columns {', '.join(slab)}", "add it")
        kept.add(slab)
        del slab  # not kept while the next one is made
    return kept
