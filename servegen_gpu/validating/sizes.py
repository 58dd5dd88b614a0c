"""One id for blocks of two sizes: a full block, and a part of one at the end of an input.

A reader makes every id one text. If an id stands for a partial block at the end of an input and for a full block
elsewhere, AIPerf ends the run, and others replay wrong lengths. Only ids of partial blocks are kept: one for a request
at most, 16 bytes each. Full blocks are looked up among them when the file is read for the second time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.validating.cells import Lists
from servegen_gpu.validating.keyed import Keyed, Sieve
from servegen_gpu.validating.report import LINES, Findings
from servegen_gpu.validating.rows import View
from servegen_gpu.validating.rules import Ids

PART = np.dtype([("tokens", np.int32), ("line", np.uint32)])
FULL = np.dtype([("line", np.uint32)])


class Sizes:
    """Watches the sizes of blocks in a file that is read twice: `add_parts` on all of it, then `add_full`."""

    def __init__(self, rule: Ids) -> None:
        self._rule = rule
        self._parts = Keyed(PART)
        self._full = Keyed(FULL)
        self._sieve: Sieve | None = None

    @property
    def parts(self) -> int:
        """How many partial blocks there are."""
        return len(self._parts)

    def add_parts(self, seen: View, findings: Findings) -> None:
        """Look at the last blocks of inputs that do not fill theirs."""
        if seen.ids is None:
            return
        row, last, tokens = _parts(seen, seen.ids)
        keys = seen.ids.values[last].view(np.uint64)
        order = np.argsort(keys, kind="stable")
        keys, tokens, lines = keys[order], tokens[order], seen.piece.lines[row[order]]
        begins = np.ones(len(keys), np.bool_)
        begins[1:] = keys[1:] != keys[:-1]
        first = np.flatnonzero(begins)[np.cumsum(begins) - 1]  # of the same id in this piece
        known, values = self._parts.get(keys)
        expected = np.where(known, values["tokens"], tokens[first])
        elsewhere = np.where(known, values["line"], lines[first])
        new = begins & ~known
        made = np.zeros(int(new.sum()), PART)
        made["tokens"], made["line"] = tokens[new], lines[new]
        self._parts.put(keys[new], made)
        wrong = np.flatnonzero(expected != tokens)
        if len(wrong):
            wrong = wrong[np.argsort(lines[wrong], kind="stable")]
            at = wrong[0]
            value = f"id {keys.view(np.int64)[at]}: {tokens[at]} tokens, {expected[at]} in line {elsewhere[at]}"
            self._note(findings, lines[wrong], value)

    def add_full(self, seen: View) -> None:
        """Look at full blocks."""
        if seen.ids is None or not len(self._parts):
            return
        right = (seen.input >= 0) & (seen.ids.lengths <= -(-seen.input // seen.block_tokens))
        full = np.repeat(right, seen.ids.lengths)
        full[_parts(seen, seen.ids)[1]] = False
        keys = seen.ids.values.view(np.uint64)
        self._sieve = self._sieve or self._parts.sieve()
        likely = np.flatnonzero(full & self._sieve.passes(keys))
        ids, first = np.unique(keys[likely], return_index=True)
        new = np.flatnonzero(self._parts.get(ids)[0] & ~self._full.get(ids)[0])
        if len(new):
            row = np.searchsorted(seen.ids.offsets, likely[first[new]], side="right") - 1
            self._full.put(ids[new], seen.piece.lines[row].astype(FULL))

    def finish(self, findings: Findings, block_tokens: int) -> None:
        """Note what both passes found."""
        keys, full = self._full.items()
        parts = self._parts.get(keys)[1]
        if len(keys):
            order = np.argsort(parts["line"], kind="stable")
            at = order[0]
            value = f"id {keys[at]}: {parts['tokens'][at]} tokens, {block_tokens} in line {full['line'][at]}"
            self._note(findings, parts["line"][order].astype(np.int64), value)

    def _note(self, findings: Findings, lines: NDArray[np.int64], value: str) -> None:
        wrong = "an id for blocks of two sizes"
        fix = "give the partial block at the end of an input an id of its own (servegen-gpu convert does)"
        if self._rule.two_sizes:
            findings.add(lines[:LINES].tolist(), self._rule.key, wrong, fix, self._rule.two_sizes, value, len(lines))


def _parts(seen: View, ids: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows whose input ends in a partial block, where its id is, and its tokens."""
    rest = np.maximum(seen.input, 0) % seen.block_tokens
    row = np.flatnonzero((rest > 0) & (ids.lengths == -(-seen.input // seen.block_tokens)))
    return row, ids.offsets[row + 1] - 1, rest[row]
