"""Settings in files of studies of replicas: files are of anybody's making, so what figures depend on is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from servegen_gpu.errors import OptionError
from servegen_gpu.serving.objective import Objective
from servegen_gpu.studies.stopping import parse_until

AXES = ("draw", "replica")
"""Columns of a table that say which row it is; then come parameters, metrics and controls."""


def columns_of(settings: Mapping[str, Any]) -> list[Any] | None:
    """Columns of the table, if settings name them as they should."""
    columns = [settings.get(name) or [] for name in ("metrics", "controls")]
    vary = settings.get("vary") or {}
    known = all(isinstance(names, list) for names in columns) and isinstance(vary, dict)
    return [*AXES, *vary, *columns[0], *columns[1]] if known else None


def wrong_in(settings: Mapping[str, Any]) -> str:
    """Name of a setting that is not what it should be; empty if there is none."""
    return next((name for name, well in _CHECKS.items() if not well(settings.get(name))), "")


def assumed_in_words(settings: Mapping[str, Any]) -> list[str]:
    """What figures of service assume, in a sentence; none where they assume nothing."""
    assumed = settings.get("assumed")
    if assumed is None:
        return []
    server = assumed["server"]
    numbers = ", ".join(f"{name} {one['value']:,.6g}" for name, one in server["parameters"].items())
    count = "one instance" if assumed["instances"] == 1 else f"{assumed['instances']:,} instances"
    said = f"Figures of service assume {count} of {server['name'] or 'a server'} ({numbers})"
    return [f"{said}; instances are counted that hold a {Objective(**assumed['objective'])}."]


def _assumed(value: Any) -> bool:
    try:
        return bool(assumed_in_words({"assumed": value})) or value is None
    except (OptionError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _until(value: Any) -> bool:
    try:
        return value is None or (isinstance(value, list) and parse_until(value) is not None)
    except OptionError:
        return False


def _rate(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(_number(value.get(name, 0)) for name in ("rps", "factor")))


def _range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    low, high, scale = value
    if not _number(low) or not _number(high) or not low <= high:
        return False
    return bool(scale == "linear" or (scale == "log" and low > 0))


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "assumed": _assumed,
    "confidence": lambda value: value is None or (_number(value) and 0 < value < 1),
    "replicas": lambda value: value is None or (type(value) is int and 1 <= value < 2**32),
    "duration_s": lambda value: value is None or _number(value),
    "until": _until,
    "rate": _rate,
    "vary": lambda value: value is None or all(map(_range, value.values())),
}
