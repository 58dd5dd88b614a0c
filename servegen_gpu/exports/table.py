"""What each format holds, as a table: README.md beside this file has it."""

from __future__ import annotations

from servegen_gpu.exports import EXPORTS
from servegen_gpu.exports.export import Export

HELD = {"client": "client", "session": "conversation", "turn": "turn", "ids": "hash_ids", "reasoning": "reason_tokens"}
HEAD = ("format", "what", "times", "inputs", *HELD, "items", "reader")


def rows() -> list[tuple[str, ...]]:
    """A row for every export, with the fields of `HEAD`."""
    return [_row(export) for export in EXPORTS.values()]


def _row(export: Export) -> tuple[str, ...]:
    held = ("yes" if column in export.columns else "" for column in HELD.values())
    about = (export.name, export.what, export.time, export.inputs)
    return (*about, *held, export.items, export.readers)


def as_markdown() -> str:
    """The table for README.md; ``servegen-gpu formats --markdown`` prints it."""
    lines = [HEAD, ("---",) * len(HEAD), *rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
