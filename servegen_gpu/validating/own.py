"""Files of this package: whether they are what they say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.formats import parsed_slabs, read_slabs
from servegen_gpu.formats.parquet import is_ours
from servegen_gpu.formats.text import known_sidecar
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace
from servegen_gpu.validating.report import LINES, REFUSED, SILENT, SUSPICIOUS, Findings, Report

LINES_BEFORE = {".csv": 2, ".jsonl": 1}
"""Line of the first row, by the end of a text file's name."""
AGAIN = "generate or convert the trace again"


def validate(path: Path) -> Report:
    """Check a trace of ours: its provenance, its columns, their order and what they say of one another."""
    findings = Findings()
    suffix = "".join(path.suffixes[-2:]).removesuffix(".gz").removesuffix(".zst")
    before = next((line for end, line in LINES_BEFORE.items() if suffix.endswith(end)), 0)
    rows, last_us = 0, -1
    if not path.exists():
        raise OptionError("a file that can be read", f"nothing at {path}", "check the path")
    try:
        about = known_sidecar(path) or {}
    except ServeGenError as error:
        findings.add([], "", f"cannot be read: expected {error.expected}", error.fix, REFUSED, error.got, 1)
        return Report(os.fspath(path), "servegen-gpu", False, rows, findings.problems())
    if "format" in about:
        wrong = "a file for another program, not one of this package's own"
        findings.add(
            [], "", wrong, f"check it --for the program that reads {about['format']}", REFUSED, about["format"], 1
        )
        return Report(os.fspath(path), "servegen-gpu", False, 0, findings.problems())
    if not about and not path.is_dir() and not is_ours(path):
        try:
            rows = sum(map(len, read_slabs(path)))
            wrong = "no provenance that belongs to the file: it is read as anybody's table"
            findings.add([], "", wrong, AGAIN, SUSPICIOUS, os.fspath(path), 1)
        except ServeGenError as error:
            findings.add([], "", f"cannot be read: expected {error.expected}", error.fix, REFUSED, error.got, 1)
        return Report(os.fspath(path), "servegen-gpu", False, rows, findings.problems())
    try:
        for slab in parsed_slabs(path):
            lines = before + rows + np.arange(len(slab))
            _check(slab, lines, last_us, findings)
            if len(slab) and "arrival_us" in slab:
                last_us = int(slab["arrival_us"][-1])
            rows += len(slab)
    except ServeGenError as error:
        findings.add([], "", f"cannot be read: expected {error.expected}", error.fix, REFUSED, error.got, 1)
    unit = "line" if before else "row"
    return Report(os.fspath(path), "servegen-gpu", False, rows, findings.problems(), (), unit)


def _check(slab: Trace, lines: NDArray[np.int64], last_us: int, findings: Findings) -> None:
    def note(rows: NDArray[np.bool_], key: str, wrong: str, fix: str) -> None:
        where = np.flatnonzero(rows)
        if len(where):
            first = where[:LINES]
            findings.add(lines[first].tolist(), key, wrong, fix, SILENT, str(slab[key][int(first[0])]), len(where))

    needed = ("arrival_us", "client", "input_tokens", "output_tokens")
    for name in needed:
        if name not in slab:
            findings.add([], name, "no such column", AGAIN, REFUSED, ", ".join(slab), 1)
    if any(name not in slab for name in needed):
        return
    arrival_us = slab["arrival_us"]
    note(arrival_us < np.concatenate(([last_us], arrival_us[:-1])), "arrival_us", "earlier than the row before",
         "sort the rows by arrival_us")  # fmt: skip
    for name in slab:
        column = slab[name]
        if not isinstance(column, Ragged) and name not in ("conversation", "client"):
            note(column < 0, name, "below 0", AGAIN)
    for part, whole in (("reason_tokens", "output_tokens"), ("new_tokens", "input_tokens")):
        if part in slab:
            note(slab[part] > slab[whole], part, f"more than {whole}", "cut both columns, not one of them")
    stated = slab.provenance.get("hash_ids")
    size = stated.get("block_tokens") if isinstance(stated, dict) else None
    ids = slab.columns.get("hash_ids")
    if isinstance(ids, Ragged) and isinstance(size, int) and size > 0:
        wrong = ids.lengths != -(-slab["input_tokens"].astype(np.int64) // size)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = f"{ids.lengths[row]:,} ids for {slab['input_tokens'][row]:,} tokens"
            first = np.flatnonzero(wrong)[:LINES]
            text = f"not an id for every {size:,} tokens of input"
            fix = "leave the column out, and make it again with --hash-ids"
            findings.add(lines[first].tolist(), "hash_ids", text, fix, SILENT, value, int(wrong.sum()))
