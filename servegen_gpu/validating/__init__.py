"""What a program would make of somebody's file: what it refuses, and what it gets wrong without a word.

`rules` has the words in which `programs` says what each program demands; `pieces` and `cells` read any file, broken
lines included; `rows`, `times`, `sizes` and `turns` check; `report` has what was found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from servegen_gpu.errors import OptionError
from servegen_gpu.validating import own
from servegen_gpu.validating.nested import unnested
from servegen_gpu.validating.pieces import Head, Piece, head_of, pieces
from servegen_gpu.validating.programs import OWN, chosen, of_name
from servegen_gpu.validating.report import REFUSED, SUSPICIOUS, Findings, Report
from servegen_gpu.validating.rows import View, check_blocks, check_length, view
from servegen_gpu.validating.rules import Facts, Program
from servegen_gpu.validating.sizes import Sizes
from servegen_gpu.validating.times import Times
from servegen_gpu.validating.turns import Turns

BLOCK_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Of which one is found, where a file does not have the program's."""
KINDS = {"jsonl": "JSON lines", "array": "a JSON array", "csv": "a table with commas", "parquet": "Parquet"}
EXACT_BITS = 53


def validate(
    path: str | os.PathLike[str],
    program: str,
    *,
    block_tokens: int | None = None,
    max_model_len: int | None = None,
    time_scale: float = 1.0,
) -> Report:
    """Check a file against what a program demands of it, in bounded memory.

    Parameters
    ----------
    path : path
        JSON lines, CSV or Parquet; text also in gzip or zstd.
    program : str
        A name of `servegen_gpu.validating.programs.NAMES`, such as ``"aiperf"``, or program and kind,
        ``"aiperf:bailian_trace"``. Without a kind it is told from the file.
    block_tokens : int, optional
        Tokens of a block, if the program will be told. By default the program's own size, or another common one if all
        of the first rows have that; a note says so.
    max_model_len : int, optional
        Most tokens of input and output together.
    time_scale : float
        What the program will be told to multiply times by.

    Returns
    -------
    Report
        Every kind of problem, with its first lines. A line that cannot be read is one more problem.

    Raises
    ------
    OptionError
        If the file cannot be read at all, or an argument is out of range.
    """
    file = Path(path)
    if block_tokens is not None and block_tokens < 1:
        raise OptionError("blocks of one token at least", f"{block_tokens}", "change block_tokens")
    if not 0 < time_scale < np.inf:
        raise OptionError("a factor for times above 0", f"{time_scale}", "change time_scale")
    if program == OWN:
        return own.validate(file)
    kinds, head = of_name(program), head_of(file)
    rules, findings = chosen(kinds, head), Findings()
    rows, notes = 0, list[str]()
    if _is_readable(file, head, rules, findings):
        rows, notes = _Check(file, head, rules, findings, block_tokens, max_model_len, time_scale).run()
    unit = "row" if head.kind == "parquet" else "line"
    return Report(os.fspath(path), rules.name, len(kinds) > 1, rows, findings.problems(), tuple(notes), unit)


def _is_readable(path: Path, head: Head, rules: Program, findings: Findings) -> bool:
    """Whether rows are worth a look; notes what concerns the file as a whole."""
    reads = " or ".join(KINDS[kind] for kind in rules.reads)
    if head.kind not in rules.reads:
        got = "nothing" if head.kind == "empty" else KINDS[head.kind]
        fix = "write one object a line: jq -c '.[]'" if head.kind == "array" else f"give it {reads}"
        findings.add([], "", f"the program reads {reads}", fix, REFUSED, got, 1)
        return False
    if head.packed:
        findings.add([], "", "a compressed file", "unpack it first", REFUSED, path.name, 1)
    if rules.suffixes and path.suffix not in rules.suffixes:
        fix = "give it another name"
        findings.add([], "", f"a name that does not end in {' or '.join(rules.suffixes)}", fix, REFUSED, path.name, 1)
    if head.marked and rules.marked:
        fix = "save it as UTF-8 without a byte order mark"
        findings.add([1], "", "a byte order mark", fix, rules.marked, path.name, 1)
    if head.kind == "jsonl":
        return True
    needed = [part.key for part in (rules.time, rules.input, rules.output) if part and part.needed]
    missing = [name for name in (*needed, *rules.columns) if name not in head.names]
    listed = ", ".join(head.names)
    if rules.places:
        wrong = [f"{name} in column {at}" for at, name in rules.places.items() if head.names[at : at + 1] != (name,)]
        if wrong and not (missing and not set(head.names) & {*rules.places.values()}):
            fix = f"write {', '.join(wrong)} (columns are counted from 0)"
            findings.add([head.line], "", "columns are read by position", fix, "silently wrong", listed, 1)
    for name in missing:
        findings.add([head.line], name, "no such column", f"name a column {name}", REFUSED, listed, 1)
    return not missing


class _Check:
    """One run over a file, or two where sizes of blocks matter."""

    def __init__(
        self,
        path: Path,
        head: Head,
        rules: Program,
        findings: Findings,
        block_tokens: int | None,
        max_model_len: int | None,
        time_scale: float,
    ) -> None:
        self.path, self.head, self.rules, self.findings = path, head, rules, findings
        self.time_scale = time_scale
        self.block_tokens = block_tokens or (self._told_blocks() if rules.ids else 1)
        self.most_tokens = max_model_len or rules.max_tokens
        self.too_long = SUSPICIOUS if max_model_len else rules.too_long
        self.rows = 0
        self.wide_ids = self.has_ids = False

    def run(self) -> tuple[int, list[str]]:
        """Check everything; returns the number of rows, and notes."""
        rules, findings = self.rules, self.findings
        times = Times(rules.time) if rules.time else None
        turns = Turns(rules.sessions) if rules.sessions else None
        sizes = Sizes(rules.ids) if rules.ids and rules.ids.two_sizes else None
        for piece in self._pieces(findings):
            seen = self._view(piece, findings)
            self._check(seen)
            if times:
                times.add(seen, findings)
            if turns:
                turns.add(seen, findings)
            if sizes:
                sizes.add_parts(seen, findings)
        if times:
            times.finish(self.path, findings)
        if turns:
            turns.finish(findings)
        del turns  # its memory is not needed for the second pass
        if sizes and sizes.parts:
            for piece in self._pieces(Findings()):
                sizes.add_full(self._view(piece, Findings()))
            sizes.finish(findings, self.block_tokens)
        if not self.rows and not findings.problems():
            findings.add([], "", "no requests", "give a file with rows", REFUSED, "nothing", 1)
        notes = rules.notes(Facts(self.rows, self.block_tokens if self.has_ids else 0))
        if self.wide_ids:
            notes.append(f"ids of more than {EXACT_BITS} bits are not exact in JavaScript, jq and other JSON readers")
        return self.rows, notes

    def _check(self, seen: View) -> None:
        """The rules for rows."""
        self.rows += len(seen.piece)
        for check in self.rules.checks:
            check(seen.piece, self.findings)
        check_blocks(seen, self.rules, self.findings)
        if self.most_tokens:
            check_length(seen, self.most_tokens, self.too_long, self.findings)
        if seen.ids is not None and len(seen.ids.values):
            self.has_ids = True
            self.wide_ids |= bool((seen.ids.values >> EXACT_BITS > 0).any())

    def _view(self, piece: Piece, findings: Findings) -> View:
        return view(piece, self.rules, self.block_tokens, self.time_scale, findings)

    def _pieces(self, findings: Findings) -> Iterator[Piece]:
        """Rows of the file; notes lines that are none."""
        rules = self.rules
        whole = () if rules.lenient else [part.key for part in (rules.input, rules.output, rules.ids) if part]
        for piece in pieces(self.path, self.head, rules.keys(), whole):
            for fault in piece.faults:
                fix = "the line is broken or cut short: fix or remove it"
                wrong = "no JSON object" if self.head.kind == "jsonl" else "no row of the table"
                findings.add([fault.line], "", wrong, fix, rules.broken, f"{fault.text[:30]} ({fault.reason})", 1)
            if rules.blank and piece.blank:
                fix = "remove it"
                findings.add(piece.blank[:5], "", "a blank line", fix, rules.blank, "nothing", len(piece.blank))
            if not len(piece):
                continue
            for check in rules.outer:
                check(piece, findings)
            yield unnested(piece, rules.nested, rules.keys(), findings) if rules.nested else piece

    def _told_blocks(self) -> int:
        """The program's size of blocks, or the one that the first rows have."""
        assert self.rules.ids is not None
        default = self.rules.ids.block_tokens
        first = next((piece for piece in self._pieces(Findings()) if len(piece)), None)
        if first is None:
            return default
        seen = view(first, self.rules, default, 1.0, Findings())
        if seen.ids is None:
            return default
        known = (seen.input > 0) & (seen.ids.lengths > 0)
        fitting = {
            size: int((seen.ids.lengths == -(-seen.input // size))[known].sum()) for size in (default, *BLOCK_SIZES)
        }
        best = max(fitting, key=lambda size: fitting[size])
        return best if fitting[best] > 0.9 * known.sum() and fitting[default] < 0.5 * known.sum() else default
