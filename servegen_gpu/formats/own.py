"""Whether a file that is in the way may be replaced: one that this package wrote may, one of others not unasked."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from servegen_gpu.disk import explained
from servegen_gpu.errors import OutputError
from servegen_gpu.formats import parquet
from servegen_gpu.formats.atomic import is_special
from servegen_gpu.formats.text import known_sidecar

MARKS = {
    b"<!DOCTYPE html>": b"<footer>servegen_gpu ",
    b"<svg": b'role="img" aria-labelledby="title desc" font-family="sans-serif" font-size="12">',
    b"<?xml": b"servegen_gpu",
    b"\x89PNG": b"servegen_gpu",
    b"%PDF": b"servegen_gpu",
    b"PK\x03\x04": b"__header__.npy",
}
"""How pages, comparisons, pictures and arrays begin, and what only ours have."""
TEXT = re.compile(
    rb'\{\n  "rows": \[\n    \{\n      "name": |log    .*\nother  |name,label,unit,group,kind,log,'
    rb"|trace_version: 3\ntime_unit: "
)
"""How comparisons and headers of BLIS begin, which have no mark."""
NAMES = re.compile(rb"id,(client|session)\n")
"""How tables of names begin; their own names end as `NAMED` says."""
NAMED = (".clients.csv", ".sessions.csv")
MOST_BYTES = 1 << 26


def refuse_foreign(path: Path, overwrite: bool = False) -> None:
    """Refuse to replace a file of others, unless `overwrite` is set. An empty file is nobody's.

    Raises
    ------
    OutputError
        If there is one.
    """
    with explained(path):
        if overwrite or is_special(path) or not os.path.isfile(path) or not path.stat().st_size or is_own(path):
            return
    raise OutputError(
        "a new file, or one that this package wrote, to replace",
        f"{path}, which is another's",
        "give another path, or allow it: --overwrite, overwrite=True",
    )


def is_own(path: Path) -> bool:
    """Whether this package wrote a file: a trace, a study, a page, a picture, a comparison, or arrays."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
        if head.startswith(parquet.MAGIC):
            return parquet.is_ours(path) or _is_study(path)
        for begin, mark in MARKS.items():
            if head.startswith(begin):
                return path.stat().st_size <= MOST_BYTES and mark in head + file.read()
        if NAMES.match(head):
            return path.name.endswith(NAMED)
    return TEXT.match(head) is not None or known_sidecar(path) is not None or _is_sidecar(path)


def _is_study(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from servegen_gpu.formats.reading.sources import STUDY_KEY

    try:
        with path.open("rb") as file:
            return STUDY_KEY in (pq.read_metadata(file).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _is_sidecar(path: Path) -> bool:
    """Whether a file is the provenance of another one."""
    if path.stat().st_size > MOST_BYTES:
        return False
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and {"provenance", "first_row", "rows", "bytes"} <= about.keys()
