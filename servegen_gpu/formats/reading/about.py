"""Provenance of a foreign trace, and the note that says how it was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from servegen_gpu.errors import printable
from servegen_gpu.formats.reading.clock import Clock
from servegen_gpu.formats.reading.finish import Finisher
from servegen_gpu.formats.reading.parsed import Parser
from servegen_gpu.formats.reading.plan import Plan
from servegen_gpu.request.schema import category_of

MOST_NAMED = 8
"""Columns that are not read and named in a note."""


def about(
    source: str,
    plan: Plan,
    parser: Parser,
    finisher: Finisher,
    clock: Clock,
    count: int,
    stated: Mapping[str, Any] | None,
    before: Sequence[str],
) -> dict[str, Any]:
    """Provenance of `count` requests: that which is stated beside the file, if any, and how they were read."""
    name = unicode(Path(source).name)
    note = printable(_note(name, plan, parser, finisher, clock, count, before))
    read = {
        "source": name,
        "format": plan.layout.name,
        "columns": plan.columns,
        "unit": "iso" if parser.dates else clock.unit,
        "origin": clock.origin,
        "counts": dict(parser.counts),
    }
    found: dict[str, Any] = {"workload": name.split(".")[0], "category": category_of(plan.columns, True)}
    if stated is not None:
        found, read = dict(stated["provenance"]), {"read": read}
    return read | found | _blocks(plan, finisher, found.get("hash_ids")) | {"note": note}


def with_duration(provenance: dict[str, Any], first_us: int, last_us: int, count: int) -> dict[str, Any]:
    """Provenance with a duration, if it has none: to a mean inter-arrival time after the last request."""
    if "duration_s" in provenance or last_us <= first_us:
        return provenance
    return provenance | {"duration_s": round(last_us + (last_us - first_us) / (count - 1)) / 1e6}


def _blocks(plan: Plan, finisher: Finisher, stated: Any) -> dict[str, Any]:
    """How many tokens a block of the ids has that were read."""
    if "hash_ids" not in plan.columns or finisher.adds_history or not finisher.block:
        return {}
    same = isinstance(stated, dict) and stated.get("block_tokens") == finisher.block
    return {"hash_ids": stated if same else {"block_tokens": finisher.block}}


def _note(
    name: str, plan: Plan, parser: Parser, finisher: Finisher, clock: Clock, count: int, before: Sequence[str]
) -> str:
    notes = [f"{name}: {count:,} requests read as {plan.layout.name}", *before]
    if plan.guessed:
        notes.append(f"columns by usual names: {', '.join(plan.guessed)}")
    if clock.from_first:
        notes.append(f"times in {clock.how}, counted from {clock.origin}")
    notes += finisher.said()
    notes += [f"{number:,} {what}" for what, number in parser.counts.items()]
    named = [role for role, numbering in parser.numbering.items() if numbering.as_text]
    notes += [f"ids of {role}s numbered in order of appearance" for role in named]
    if plan.ignored:
        more = f" and {len(plan.ignored) - MOST_NAMED:,} more" * (len(plan.ignored) > MOST_NAMED)
        notes.append(f"not read: {', '.join(plan.ignored[:MOST_NAMED])}{more}")
    return "; ".join(notes)


def unicode(text: str) -> str:
    """Text that can be encoded: names of files and of JSON fields may be no Unicode."""
    return text.encode(errors="backslashreplace").decode()
