"""Rules that concern a row by itself: what must be there, of which type and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.validating.cells import Lists, Numbers, dates, lists, numbers, whole_text
from servegen_gpu.validating.pieces import Piece
from servegen_gpu.validating.report import LINES, REFUSED, SILENT, SUSPICIOUS, Findings, Severity
from servegen_gpu.validating.rules import Ids, Program, Time, Tokens


@dataclass(frozen=True, eq=False)
class View:
    """A piece as the program sees it.

    Attributes
    ----------
    piece : Piece
    time_s : float64[n]
        NaN where there is none.
    input, output : int64[n]
        -1 where there is none.
    ids : Lists, optional
    block_tokens : int
    """

    piece: Piece
    time_s: NDArray[np.float64]
    input: NDArray[np.int64]
    output: NDArray[np.int64]
    ids: Lists | None
    block_tokens: int


def note(
    findings: Findings,
    piece: Piece,
    rows: NDArray[np.bool_],
    key: str,
    wrong: str,
    fix: str,
    severity: Severity,
    value: str | None = None,
) -> None:
    """Note the rows of a piece, bool[n], where something is wrong with a key."""
    where = np.flatnonzero(rows)
    if len(where):
        first = where[:LINES]
        shown = value or (lambda at: piece.value(key, int(first[at])))
        findings.add(piece.lines[first].tolist(), key, wrong, fix, severity, shown, len(where))


def view(piece: Piece, program: Program, block_tokens: int, time_scale: float, findings: Findings) -> View:
    """The columns of a piece, checked one by one."""
    return View(
        piece,
        _times(piece, program.time, program, time_scale, findings),
        _tokens(piece, program.input, program, findings),
        _tokens(piece, program.output, program, findings),
        _ids(piece, program.ids, program.lenient, findings) if program.ids else None,
        block_tokens,
    )


def check_blocks(seen: View, program: Program, findings: Findings) -> None:
    """As many ids as the input has blocks."""
    rule, ids, size = program.ids, seen.ids, seen.block_tokens
    if rule is None or ids is None:
        return
    have, need = ids.lengths, -(-seen.input // size)
    known = (seen.input >= 0) & ~ids.missing & ~ids.wrong
    told = f" ({rule.option})" if rule.option else ""
    for severity, rows, what, fix in (
        (rule.short, known & (have < need), f"fewer ids than blocks of {size:,} tokens: {rule.cut}",
         f"give one id for every {size:,} tokens begun, or state another size of blocks{told}"),
        (rule.long, known & (have > need), f"more ids than blocks of {size:,} tokens",
         f"leave out ids beyond the input, or state another size of blocks{told}"),
    ):  # fmt: skip
        where = np.flatnonzero(rows) if severity else np.zeros(0, np.int64)
        if severity and len(where):
            value = f"{have[where[0]]:,} ids for {seen.input[where[0]]:,} tokens, which are {need[where[0]]:,} blocks"
            note(findings, seen.piece, rows, rule.key, what, fix, severity, value)


def check_length(seen: View, most: int, severity: Severity, findings: Findings) -> None:
    """Input and output together within the context of the model."""
    both = np.maximum(seen.input, 0) + np.maximum(seen.output, 0)
    over = both > most
    if over.any():
        row = int(np.argmax(over))
        value = f"{seen.input[row]:,} + {seen.output[row]:,} = {both[row]:,} tokens"
        fix = "cut or leave out such requests, or serve a longer context"
        note(findings, seen.piece, over, "", f"input and output are over {most:,} tokens", fix, severity, value)


def _times(
    piece: Piece, rule: Time | None, program: Program, time_scale: float, findings: Findings
) -> NDArray[np.float64]:
    if rule is None:
        return np.full(len(piece), np.nan)
    if rule.date:
        found, zoned = dates(piece, rule.key)
        note(findings, piece, zoned, rule.key, "an offset from UTC, which the program ignores",
             "write all times in one zone", SUSPICIOUS) if zoned.any() and not zoned.all() else None  # fmt: skip
        expected = "no date and time"
        fix = "write 2023-11-16 18:17:03.979960"
    else:
        found = numbers(piece, rule.key, text=program.lenient or piece.text)
        expected, fix = "no number", "write a number without quotes"
    if rule.needed:
        note(findings, piece, found.missing, rule.key, "no time", "give every request a time", rule.needed)
    note(findings, piece, found.wrong, rule.key, expected, fix, program.broken if rule.date else REFUSED)
    below = found.there & (found.values < 0)
    note(findings, piece, below, rule.key, "a time below 0", "let times begin at 0", SUSPICIOUS)
    scale = 1.0 if rule.date else rule.unit_s * time_scale
    return np.where(found.there, found.values * scale, np.nan)


def _tokens(piece: Piece, rule: Tokens | None, program: Program, findings: Findings) -> NDArray[np.int64]:
    if rule is None:
        return np.full(len(piece), -1)
    found: Numbers = numbers(piece, rule.key, text=program.lenient or piece.text)
    if rule.needed:
        note(findings, piece, found.missing, rule.key, "no number of tokens", "give every request one", rule.needed)
    fix = "write a whole number of tokens, without quotes or point"
    broken = (
        found.broken
        if program.lenient or found.values.dtype.kind == "i"
        else found.broken | _pointed(piece, rule.key, found)
    )
    note(findings, piece, found.wrong | broken, rule.key, "no whole number", fix, rule.wrong)
    whole = found.there & ~found.broken
    values = np.where(whole, np.clip(found.values, -1, 2**62), -1).astype(np.int64)
    below = whole & (values < 0)
    note(findings, piece, below, rule.key, "fewer than no tokens", "give a number from 0 on", REFUSED)
    few = whole & (values >= 0) & (values < rule.least)
    if rule.below:
        fix = f"give at least {rule.least}, or leave the request out"
        note(findings, piece, few, rule.key, f"fewer than {rule.least} token: {rule.means}", fix, rule.below)
    return values


def _pointed(piece: Piece, key: str, found: Numbers) -> NDArray[np.bool_]:
    """Where a whole number is written with a decimal point, as far as known: in CSV, and in lines read one by one."""
    if piece.text:
        return found.there & ~whole_text(piece, key)
    raw = piece.columns.get(key)
    if not isinstance(raw, list):
        return np.zeros(len(piece), np.bool_)
    return np.array([isinstance(value, float) for value in raw], np.bool_) & found.there


def _ids(piece: Piece, rule: Ids, lenient: bool, findings: Findings) -> Lists:
    found = lists(piece, rule.key, lenient=lenient)
    fix = f"give an id for every {rule.block_tokens:,} tokens (servegen-gpu convert does)"
    if rule.needed:
        note(findings, piece, found.missing, rule.key, f"no ids: {rule.without}", fix, rule.needed)
    note(findings, piece, found.wrong, rule.key, "no list of whole numbers", "write [1, 2, 3]", REFUSED)
    _note_items(
        findings, piece, found, found.values < 0, rule.key, "an id below 0", "give ids from 0 on", rule.negative
    )
    if rule.bits < 63:
        wrong = f"an id of more than {rule.bits} bits, which are cut: different blocks may become one"
        fix = "number the blocks 0, 1, 2, …"
        _note_items(findings, piece, found, found.values >> rule.bits > 0, rule.key, wrong, fix, SILENT)
    return found


def _note_items(
    findings: Findings,
    piece: Piece,
    ids: Lists,
    items: NDArray[np.bool_],
    key: str,
    wrong: str,
    fix: str,
    severity: Severity | None,
) -> None:
    """Note the rows with some items, bool[items]."""
    places = np.flatnonzero(items) if severity else np.zeros(0, np.int64)
    if severity and len(places):
        rows = np.zeros(len(piece), np.bool_)
        rows[ids.rows_of(places)] = True
        note(findings, piece, rows, key, wrong, fix, severity, str(ids.values[places[0]]))
