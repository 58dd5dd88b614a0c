"""TOML text of plain values, of conversations and of environments: what is read back is what was written.

Long distributions go into CSV files, which the text then names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.environment import Environment
from servegen_gpu.clients.stated.toml_values import PLAIN
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.errors import OptionError

MOST_LISTED = 64
"""Longer lists of a distribution go into a file."""
KINDS = {kind: name for name, kind in PLAIN.items()}

Beside = Callable[[str, str], str]
"""Takes the stem of a file and its text, and gives the name under which it will be beside the TOML file."""


def value_text(value: Any) -> str:
    """A value on one line; floats with all their digits."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(str(key))} = {value_text(v)}" for key, v in value.items() if v is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(each) for each in value if each is not None) + "]"
    raise OptionError("a number, a text, a list or a table", f"{type(value).__name__} {value!r}"[:60], "change it")


def key_text(key: str) -> str:
    """A key, quoted where it must be."""
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isascii() and bare.isalnum() else value_text(key)


def section(header: str, table: Mapping[str, Any]) -> str:
    """A section with a key on each line; None is left out."""
    lines = [f"{key_text(key)} = {value_text(value)}" for key, value in table.items() if value is not None]
    return "\n".join([header, *lines, ""])


def distribution_table(distribution: d.Distribution, stem: str, beside: Beside) -> dict[str, Any]:
    """A distribution as `servegen_gpu.clients.stated.toml_values.read_distribution` reads it."""
    bounds = {name: bound for name in ("min", "max") if (bound := getattr(distribution, name)) is not None}
    if isinstance(distribution, d.Samples):  # as often as each occurred
        pmf = distribution.pmf
        return _listed("pmf", {"value": pmf.values, "weight": pmf.weights}, stem, beside) | bounds
    if isinstance(distribution, d.Pmf):
        return _listed("pmf", {"value": distribution.values, "weight": distribution.weights}, stem, beside) | bounds
    if isinstance(distribution, d.Histogram):
        return _listed("histogram", {"edge": distribution.edges, "weight": distribution.weights}, stem, beside) | bounds
    if isinstance(distribution, d.Mixture):
        assert distribution.weights is not None
        parts = [
            {"weight": weight} | distribution_table(part, f"{stem}-{i}", beside)
            for i, (part, weight) in enumerate(zip(distribution.parts, distribution.weights, strict=True), 1)
        ]
        return {"kind": "mixture", "parts": parts} | bounds
    if isinstance(distribution, d.FromScipy):
        return _scipy(distribution) | bounds
    if (kind := KINDS.get(type(distribution))) is None:
        raise OptionError("a distribution that a file can hold", repr(distribution)[:60], "state it as a histogram")
    stated = {f.name: getattr(distribution, f.name) for f in fields(distribution) if f.name not in ("min", "max")}
    return {"kind": kind} | {name: value for name, value in stated.items() if value is not None} | bounds


def _listed(kind: str, columns: Mapping[str, Any], stem: str, beside: Beside) -> dict[str, Any]:
    """Lists here, or in a CSV file if they are long."""
    lists = {name: [_short(x) for x in np.asarray(column).tolist()] for name, column in columns.items()}
    longest = max(map(len, lists.values()))
    if longest <= MOST_LISTED:
        return {"kind": kind} | {f"{name}s": column for name, column in lists.items()}
    padded = [column + [0] * (longest - len(column)) for column in lists.values()]  # beside the last edge is no bin
    rows = "\n".join(",".join(map(repr, row)) for row in zip(*padded, strict=True))
    return {"kind": kind, "file": beside(stem, f"{','.join(lists)}\n{rows}\n")}


def _short(x: float) -> float | int:
    return int(x) if x == int(x) and abs(x) < 2**53 else x


def _scipy(distribution: d.FromScipy) -> dict[str, Any]:
    frozen = distribution.frozen
    try:
        law = frozen.dist
        shapes = law.shapes.split(", ") if law.shapes else []
        named = dict(zip([*shapes, "loc", "scale"], frozen.args, strict=False)) | dict(frozen.kwds)
        return {"kind": "scipy", "name": str(law.name)} | {name: float(value) for name, value in named.items()}
    except (AttributeError, TypeError, ValueError):
        got = repr(frozen)[:60]
        raise OptionError("a distribution that a file can hold", got, "state it as a histogram") from None


def turns_table(model: TurnModel, stem: str, beside: Beside) -> dict[str, Any]:
    """A model as `servegen_gpu.clients.stated.turns_toml.read_turns` reads it."""
    table: dict[str, Any] = {}
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, d.Distribution):
            value = distribution_table(value, f"{stem}-{field.name}", beside)
        table["session" if field.name == "session_s" else field.name] = value
    return table


def environment_table(environment: Environment) -> dict[str, Any]:
    """An environment as `servegen_gpu.clients.stated.environment_toml.read_environment` reads it."""
    margin = environment.margin
    knots = {"kind": "quantiles", "at": margin.at, "values": margin.values, "zero": margin.zero}
    octaves = {str(octave): weight for octave, weight in environment.octaves.items()}
    plain = {f.name: getattr(environment, f.name) for f in fields(environment) if f.name not in ("margin", "octaves")}
    return {"margin": knots, "octaves": octaves} | plain
