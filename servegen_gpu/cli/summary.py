"""What was written, in a few lines or as JSON: sums that are kept while slabs pass."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from servegen_gpu.errors import printable
from servegen_gpu.plotting.words import duration_text
from servegen_gpu.provenance import duration_of, share_stated, start_us_of
from servegen_gpu.trace import Trace

if TYPE_CHECKING:
    from servegen_gpu.formats import WriteSummary

TOKENS = ("input_tokens", "output_tokens")


@dataclass
class Totals:
    """Sums over a trace, and what its last slab says of it."""

    tokens: dict[str, int] = field(default_factory=dict)
    first_us: int = 0
    last_us: int = -1
    rows: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def through(self, slabs: Iterable[Trace]) -> Iterator[Trace]:
        """The slabs, summed up as they pass."""
        for slab in slabs:
            for name in TOKENS:
                if isinstance(column := slab.columns.get(name), np.ndarray):
                    self.tokens[name] = self.tokens.get(name, 0) + int(column.sum(dtype=np.int64))
            if len(slab) and isinstance(time_us := slab.columns.get("arrival_us"), np.ndarray):
                self.first_us = self.first_us if self.rows else int(time_us[0])
                self.last_us = int(time_us[-1])
                self.rows += len(slab)
            self.provenance = slab.provenance
            yield slab
            del slab  # not kept while the next one is made

    @property
    def duration_s(self) -> float:
        """Length of the trace: as its provenance says, or up to its last request; of a share, between its requests."""
        if self.share:
            return (self.last_us + 1 - self.first_us) / 1e6
        return duration_of(self.provenance) or (self.last_us + 1) / 1e6

    @property
    def share(self) -> str | None:
        """Such as 1/4, if it is not the whole trace."""
        return share_stated(self.provenance)


def figures(
    written: WriteSummary, totals: Totals, output: str, spent_s: float, origin: str, backend: str
) -> dict[str, Any]:
    """What was written, in terms that JSON has; without what is not known."""
    about, duration_s = totals.provenance, totals.duration_s
    found: dict[str, Any] = {
        "path": output,
        "requests": written.rows,
        "bytes": written.bytes,
        "files": written.files,
        "workload": about.get("workload"),
        "origin": origin or None,
        "clients": about.get("clients"),
        "shard": totals.share,
        "start_s": start_us_of(about) / 1e6,
        "duration_s": duration_s or None,
        "requests_per_s": written.rows / duration_s if duration_s else None,
    }
    found |= totals.tokens
    found |= {f"{name}_per_s": total / duration_s for name, total in totals.tokens.items() if duration_s}
    found |= {"digest": str(written.digest), "seconds": spent_s, "backend": backend or None}
    found["replay"] = written.replay or None
    return {name: value for name, value in found.items() if value is not None}


def as_json(found: Mapping[str, Any]) -> str:
    """The figures as JSON."""
    return json.dumps(found, indent=2, ensure_ascii=False)


def as_text(found: Mapping[str, Any], next_steps: bool) -> str:
    """The figures in a few lines, and what to do next."""
    files = f" in {found['files']} files" if found["files"] > 1 else ""
    lines = [f"{found['path']}: {found['requests']:,} requests, {size(found['bytes'])}{files}"]
    if isinstance(found.get("workload"), str):
        origin = f" ({found['origin']})" if "origin" in found else ""
        clients = f", {found['clients']:,} clients" if isinstance(found.get("clients"), int) else ""
        lines.append(f"  workload  {printable(found['workload'])}{origin}{clients}")
    if found.get("duration_s"):
        start = f" from {duration_text(start_s)} on" if (start_s := found.get("start_s")) else ""
        if "shard" in found:
            start = f", share {found['shard']}"
        lines.append(
            f"  span      {duration_text(found['duration_s'])}{start}, {found['requests_per_s']:,.4g} requests/s"
        )
    if rates := [f"{found[f'{n}_per_s']:,.0f} {n.split('_')[0]}/s" for n in TOKENS if f"{n}_per_s" in found]:
        lines.append(f"  tokens    {', '.join(rates)}")
    lines.append(f"  digest    {found['digest']}")
    pace = found["requests"] / max(found["seconds"], 1e-9)
    said = f"{pace / 1e6:.2f} million requests/s" if pace >= 1e5 else f"{pace:,.0f} requests/s"
    on = f", {said} on {found['backend']}" if "backend" in found else ""
    lines.append(f"  took      {found['seconds']:.2f} s{on}")
    if "replay" in found:
        lines.append(f"replay it with:\n  {found['replay']}")
    elif next_steps:
        path = shlex.quote(found["path"])
        lines.append(f"next: servegen-gpu inspect {path}, or servegen-gpu convert {path} --to FORMAT -o PATH")
    return "\n".join(lines)


def size(size_bytes: int) -> str:
    """Of a file, in words."""
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:,.1f} kB"
