"""The twelve workloads of ServeGen's Table 1 as populations of clients: one TOML file each, to read, copy and edit.

A file has the keys of `servegen_gpu.clients.population.preset_toml`. Every number says where it comes from, in a
comment on its line or on a line of its own above a paragraph:

- published: ServeGen, arXiv 2505.09999 and NSDI '26;
- fitted: to figures that are named, of the released profiles of the workload that is named or of the paper;
- assumed: neither has it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from servegen_gpu.clients.population.preset import Preset

PRESETS = (
    *("m-large", "m-mid", "m-small", "m-long", "m-rp", "m-code"),
    *("mm-image", "mm-audio", "mm-video", "mm-omni"),
    *("deepseek-r1", "deepqwen-r1"),
)
"""Names of the built-in populations, in the order of the paper's Table 1."""


def preset_text(name: str) -> str:
    """The file of a built-in population."""
    return (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")


@lru_cache(maxsize=len(PRESETS))
def built_in(name: str) -> Preset:
    """A built-in population by its name, one of `PRESETS`."""
    from servegen_gpu.clients.population.preset_toml import parse_preset

    return parse_preset(preset_text(name), Path(f"{name}.toml"))


def describe_presets() -> list[dict[str, Any]]:
    """Name, category, clients, rate and what it is, of every built-in population."""
    rows = []
    for preset in map(built_in, PRESETS):
        what = preset.text.splitlines()[0].partition(": ")[2].rstrip(".")
        rows.append(
            {
                "name": preset.name,
                "category": preset.category,
                "clients": preset.clients,
                "rate_rps": preset.rate_rps,
                "what": what,
            }
        )
    return rows
