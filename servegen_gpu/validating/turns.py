"""Turns of sessions: whether the history is counted twice, or lost.

A program that puts earlier turns in front of an input needs what is new in it. Given whole inputs, it replays the
history twice. The ids tell: a whole input begins with the blocks of the turn before. Without ids, it tells that next to
all turns are at least as long as the turn before and its answer. A program that takes inputs as they are loses the
history if it is given what is new alone: then many inputs are shorter than the one before, which whole ones are only
where a context was cut. What is kept of a session is its last turn, 52 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.validating.cells import names
from servegen_gpu.validating.keyed import Keyed
from servegen_gpu.validating.pieces import Piece
from servegen_gpu.validating.report import LINES, SILENT, SUSPICIOUS, Findings
from servegen_gpu.validating.rows import View, note
from servegen_gpu.validating.rules import Sessions

FIELDS = np.dtype(
    [
        ("history", np.float64),  # input and output of all turns so far
        ("last", np.float64),  # of the last one
        ("input", np.int64),  # of the last one, without its output
        ("time_s", np.float64),
        ("blocks", np.int32),  # that the input of the last one fills
        ("id", np.int64),  # of the last of these
    ]
)
NEARLY_ALL, MOST, SOME = 0.9, 0.5, 0.25


@dataclass
class _Count:
    """Turns of one kind: how many, and the first of them."""

    rows: int = 0
    lines: tuple[int, ...] = ()
    value: str = ""

    def add(self, seen: View, rows: NDArray[np.int64], before: NDArray[np.float64]) -> None:
        if len(rows):
            if not self.rows:
                self.value = f"input {seen.input[rows[0]]:,} after a turn of {int(before[0]):,} tokens"
            self.rows += len(rows)
            self.lines = (*self.lines, *seen.piece.lines[rows[:LINES]].tolist())[:LINES]


class Turns:
    """Watches the sessions of a file."""

    def __init__(self, rule: Sessions) -> None:
        self._rule = rule
        self._latest = Keyed(FIELDS)
        self._roots = Keyed(np.dtype([("root", np.uint64)]))
        self._later = self._compared = 0
        self._alike, self._longer, self._shorter = _Count(), _Count(), _Count()
        self._stated = self._appended = 0.0

    def add(self, seen: View, findings: Findings) -> None:
        """Look at some rows."""
        piece, rule = seen.piece, self._rule
        words, missing, other = names(piece, rule.key)
        if rule.text:
            note(findings, piece, other, rule.key, "no text", 'write it between quotes: "17"', "refused by the program")
        if rule.parent:
            words = self._root_of(piece, words)
        self._stated += float(np.maximum(seen.input, 0).sum())
        row = np.flatnonzero(~missing & (seen.input >= 0))
        row = row[np.argsort(words[row], kind="stable")]
        if len(row):
            self._add(seen, row, words[row], findings)

    def _add(self, seen: View, row: NDArray[np.int64], words: NDArray[np.uint64], findings: Findings) -> None:
        begins = np.ones(len(row), np.bool_)
        begins[1:] = words[1:] != words[:-1]
        ends = np.append(begins[1:], True)
        now = self._state(seen, row)
        group = np.cumsum(begins) - 1
        known, kept = self._latest.get(words[begins])
        before = np.roll(now, 1)
        before[begins] = kept
        total = np.cumsum(now["last"])
        history = total - now["last"]
        history += kept["history"][group] - history[begins][group]
        now["history"] = history + now["last"]
        later = ~begins | known[group]
        self._latest.put(words[ends], now[ends])
        self._appended += float(history[later].sum())
        at = np.flatnonzero(later)
        at = at[np.argsort(row[at], kind="stable")]
        self._compare(seen, row[at], before[at])
        if self._rule.first:
            rows = np.zeros(len(seen.piece), np.bool_)
            rows[row[~later]] = np.isnan(now["time_s"][~later])
            wrong, fix = "the first turn of a session has no time", "give it a timestamp"
            note(findings, seen.piece, rows, self._rule.key, wrong, fix, self._rule.first)
        if self._rule.order:
            back = row[at][seen.time_s[row[at]] < before["time_s"][at]]
            if len(back):
                fix = "sort the turns of a session by time"
                lines = seen.piece.lines[back[:LINES]].tolist()
                value = f"{seen.time_s[back[0]]:.12g} s in session {seen.piece.value(self._rule.key, int(back[0]))}"
                wrong = "a turn earlier than the turn before it"
                findings.add(lines, self._rule.key, wrong, fix, self._rule.order, value, len(back))

    def _state(self, seen: View, row: NDArray[np.int64]) -> NDArray[np.void]:
        """What is kept of rows."""
        state = np.zeros(len(row), FIELDS)
        state["last"] = seen.input[row] + np.maximum(seen.output[row], 0)
        state["input"] = seen.input[row]
        state["time_s"] = seen.time_s[row]
        if seen.ids is not None:
            state["blocks"] = np.minimum(seen.input[row] // seen.block_tokens, seen.ids.lengths[row])
            some = state["blocks"] > 0
            state["id"][some] = seen.ids.values[seen.ids.offsets[row[some]] + state["blocks"][some] - 1]
        return state

    def _compare(self, seen: View, row: NDArray[np.int64], before: NDArray[np.void]) -> None:
        """Compare later turns with the turns before."""
        whole = (before["last"] > 0) & (seen.input[row] >= before["last"])
        alike = np.zeros(len(row), np.bool_)
        compared = before["blocks"] > 0
        if seen.ids is not None:
            long = np.flatnonzero(compared & (seen.ids.lengths[row] >= before["blocks"]))
            place = seen.ids.offsets[row[long]] + before["blocks"][long] - 1
            alike[long] = seen.ids.values[place] == before["id"][long]
            compared &= ~seen.ids.missing[row]
        self._later += len(row)
        self._compared += int(compared.sum())
        for count, which in (
            (self._alike, alike),
            (self._longer, whole),
            (self._shorter, (seen.input[row] < before["input"]) & ~alike),
        ):
            count.add(seen, row[which], before["last"][which])

    def _root_of(self, piece: Piece, own: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The first turn of each row's session, by the links to parents that came before."""
        parent, missing, _ = names(piece, self._rule.parent)
        known, kept = self._roots.get(parent)
        root = np.where(known & ~missing, kept["root"], own)
        order = np.argsort(own, kind="stable")
        at = np.searchsorted(own[order], parent).clip(0, max(len(own) - 1, 0))
        link = np.where((own[order][at] == parent) & ~known & ~missing, order[at], np.arange(len(own)))
        for _ in range(64):  # every step doubles the way to the root
            if (link[link] == link).all():
                break
            link = link[link]
        root = root[link]
        unique, first = np.unique(own, return_index=True)
        made = np.zeros(len(unique), np.dtype([("root", np.uint64)]))
        made["root"] = root[first]
        self._roots.put(unique, made)
        return root

    def finish(self, findings: Findings) -> None:
        """Look at the file as a whole."""
        key, later = self._rule.key, max(self._later, 1)
        if self._rule.history == "appended":
            more = f"; {self._appended / max(self._stated, 1.0):+.0%} prompt tokens in all"
            fix = "write what is new in each turn (servegen-gpu convert --to aiperf or dynamo-delta)"
            wrong = "history counted twice: the program puts earlier turns in front of "
            if self._alike.rows:
                self._note(findings, key, self._alike, wrong + "inputs that have them", fix, SILENT, more)
            elif self._compared < MOST * later and self._longer.rows >= max(NEARLY_ALL * later, 2):
                self._note(findings, key, self._longer, wrong + "inputs that seem to have them", fix, SUSPICIOUS, more)
        elif self._shorter.rows >= max(SOME * later, 2):
            less = f"; with it {self._appended / max(self._stated, 1.0):+.0%} prompt tokens in all"
            wrong = "history lost: the program takes inputs as they are, and these have what is new only"
            fix = "write whole inputs (servegen-gpu convert --to mooncake or dynamo)"
            severity = SILENT if self._compared >= MOST * later else SUSPICIOUS
            self._note(findings, key, self._shorter, wrong, fix, severity, less)

    def _note(
        self, findings: Findings, key: str, count: _Count, wrong: str, fix: str, severity: object, more: str
    ) -> None:
        findings.add(count.lines, key, wrong, fix, severity, count.value + more, count.rows)  # type: ignore[arg-type]
