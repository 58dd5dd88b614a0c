"""Arrivals from files that others wrote: one column of times, and lengths where the file has them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.trace import Trace

Unit = Literal["s", "ms", "us", "ns", "iso"]


def read_arrivals(
    path: str | os.PathLike[str],
    column: str,
    unit: Unit | None = None,
    *,
    lengths: Mapping[str, str] | None = None,
) -> Trace:
    """Arrivals of a table of others, counted from the first of them; `read_trace` reads lengths and sessions with them.

    Parameters
    ----------
    path : path
        CSV with a header, or anything else that `read_trace` takes.
    column : str
        Column of times.
    unit : {"s", "ms", "us", "ns", "iso"}, optional
        Of the numbers, or dates and times by ISO 8601 such as ``2023-11-16 18:17:03.9799600`` (all of them with an
        offset from UTC, or none). Left out, the first value tells: a number is one of seconds.
    lengths : mapping of str to str, optional
        Columns of whole tokens to keep, by the name that they get:
        ``{"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}``.

    Returns
    -------
    Trace
        ``arrival_us`` to the nearest microsecond, ``client`` (0 for all), and `lengths`; sorted by arrival, what
        arrives at the same time in the order of the file. It lasts a mean inter-arrival time beyond the last request.

    Raises
    ------
    OptionError
        If the file cannot be read, has no such column or no rows, or a value is no time or length; it names the line.
    """
    from servegen_gpu.formats.reading.foreign import UNITS, Foreign
    from servegen_gpu.formats.reading.layout import TABLE
    from servegen_gpu.formats.reading.parsed import OPTIONAL
    from servegen_gpu.formats.reading.plan import Plan, check_there
    from servegen_gpu.formats.reading.sources import open_source

    if unit is not None and unit not in UNITS:
        raise unknown("a unit", unit, UNITS, "change unit")
    if not isinstance(lengths, Mapping | None):
        raise OptionError("lengths as {name: column}", repr(lengths)[:60], "change lengths")
    wanted = dict(lengths or {})
    names = {"arrival_us", *(name for name in OPTIONAL if not name.endswith("_tokens"))}
    if taken := sorted(names & set(wanted)):
        raise OptionError("names of lengths", f"{taken[0]!r}", "name it like input_tokens")
    source = open_source(path)
    columns = {"time": column} | wanted
    check_there(source, columns)
    reads = tuple(dict.fromkeys(columns.values()))
    return Foreign(source, Plan(replace(TABLE, unit="s", sure=True), columns, reads, unit, (), ())).trace()
