"""Distributions of lengths, item counts and reasoning shares from a log, and how far they are from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distributions import Constant, Distribution, Exponential
from servegen_gpu.clients.stated.tabulate import Grid, grid_of, tables_of, tabulate
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.fitting.mixture import pareto_lognormal
from servegen_gpu.fitting.tallies import Tally, knots, tally
from servegen_gpu.request.schema import KINDS, OUTPUT, Kind, of
from servegen_gpu.request.tables import WORDS, Tables

Form = Literal["counts", "knots", "parametric", "exponential"]
FORMS: tuple[Form, ...] = get_args(Form)

Found = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Rows and values by field, as `servegen_gpu.baselines.of_trace.lengths` finds them."""


def length_tables(
    values: NDArray[np.integer],
    label: NDArray[np.integer],
    count: int,
    *,
    form: Form = "counts",
    field: str = "input_tokens",
) -> Tables:
    """One table for each label.

    Parameters
    ----------
    values : int[n]
        Tokens, items, or k of k/501.
    label : int[n]
        0 to `count` - 1.
    count : int
        Labels; one without values always draws 0.
    form : {"counts", "knots", "parametric", "exponential"}
        The counts as they are; at most 256 bins and every value of the top 1 %; Pareto and log-normal by EM; or
        exponential with the mean of the log.
    field : str
        What is drawn, for the bounds of a parametric form.
    """
    return tables_of_tally(tally(values, label, count), form, field)


def tables_of_tally(counted: Tally, form: Form = "counts", field: str = "input_tokens") -> Tables:
    """See `length_tables`."""
    _check(form)
    if form in ("parametric", "exponential"):
        grid: Grid = grid_of(field)
        return tables_of([tabulate(d, grid) for d in distributions_of(counted, form)])
    return (knots(counted) if form == "knots" else counted).tables()


def distributions_of(counted: Tally, form: Form) -> list[Distribution]:
    """A distribution of few parameters for each label, as a TOML file can state it; 0 for a label without values.

    Labels are fitted one by one, some milliseconds each.
    """
    if form not in ("parametric", "exponential"):
        raise OptionError("the form parametric or exponential", repr(form), "change form")
    found: list[Distribution] = []
    for begin, end in zip(counted.offsets[:-1].tolist(), counted.offsets[1:].tolist(), strict=True):
        values, counts = counted.values[begin:end], counted.counts[begin:end]
        if end - begin == 1:
            found.append(Constant(float(values[0])))
        elif form == "parametric":
            found.append(pareto_lognormal(values, counts))
        else:
            low, high = float(values[0]), float(values[-1])
            found.append(Exponential(float(values @ counts / counts.sum()), min=low, max=high))
    return found


@dataclass(frozen=True, eq=False)
class FieldTables:
    """Tables of all fields of a category.

    Attributes
    ----------
    tables : Tables
    row : int32[labels, fields]
        Row of `tables`.
    requests : int64[bins]
        How many values were counted in each bin; -1 in tables that come of a few parameters.
    """

    tables: Tables
    row: NDArray[np.int32]
    requests: NDArray[np.int64]


def field_tables(
    found: Found, label: NDArray[np.integer], count: int, *, form: Form | Mapping[str, Form] = "counts", least: int = 1
) -> FieldTables:
    """Tables of every field that was found, for every label.

    Parameters
    ----------
    found : mapping of str to (int64[m], int64[m])
        Rows and values by field, in the order of the lanes.
    label : int[n]
        Of each row.
    count : int
        Labels.
    form : Form, or mapping of field to Form
        Of lengths; shares and items are kept as counts, unless a mapping says otherwise.
    least : int
        Requests that must stand behind the least and the largest length of a form of few parameters.
    """
    label = np.asarray(label)
    parts: list[Tables] = []
    requests: list[NDArray[np.int64]] = []
    for field, (row, value) in found.items():
        if isinstance(form, str):
            own: Form = form if KINDS[field] is Kind.ONCE else "counts"
        else:
            own = form.get(field, "counts")
        counted = tally(value, label[row], count)
        counted = knots(counted) if own == "knots" else counted
        stated = own in ("parametric", "exponential")
        counted = counted.clipped(least) if stated else counted
        parts.append(tables_of_tally(counted, "counts" if own == "knots" else own, field))
        requests.append(np.full(len(parts[-1].values), -1) if stated else counted.counts)
    row_of = np.arange(count)[:, None] + count * np.arange(len(parts))
    return FieldTables(Tables.join(parts), row_of.astype(np.int32), np.concatenate(requests))


def scalar_values(found: Found, category: str, n: int) -> NDArray[np.int64]:
    """What each request has in the fields that are drawn once, int64[scalar fields, n].

    A reasoning share of a request without output, of which nothing is known, is 0.
    """
    values: NDArray[np.int64] = np.zeros((len(of(category).scalars), n), np.int64)
    for lane, field in enumerate(of(category).scalars):
        row, value = found[field.name]
        values[lane, row] = value
    return values


@dataclass(frozen=True)
class LengthFit:
    """How far a form is from the lengths of a log: Kolmogorov–Smirnov distances of all labels together.

    Attributes
    ----------
    field : str
    form : str
    ks : float
        To the log that it was fitted to.
    ks_later : float
        Fitted to the first half of the log, to the second; nan for a log of one request.
    floor : float
        Of the first half itself to the second.
    """

    field: str
    form: str
    ks: float
    ks_later: float
    floor: float


def length_fit(
    values: NDArray[np.int64],
    label: NDArray[np.int64],
    count: int,
    form: Form,
    field: str = "input_tokens",
) -> LengthFit:
    """Distances of a form to a log, whose rows are in order of time; see `LengthFit`."""
    half = len(values) // 2
    later = floor = float("nan")
    if half:
        early = tally(values[:half], label[:half], count)
        later = distance(tables_of_tally(early, form, field), early.totals, values[half:])
        floor = distance(early.tables(), early.totals, values[half:])
    counted = tally(values, label, count)
    return LengthFit(field, form, distance(tables_of_tally(counted, form, field), counted.totals, values), later, floor)


def distance(tables: Tables, weight: NDArray[np.integer], values: NDArray[np.int64]) -> float:
    """Kolmogorov–Smirnov distance of values to a mixture of tables.

    Parameters
    ----------
    tables : Tables
    weight : int[tables]
        Of each table.
    values : int64[n]
    """
    of_table = np.repeat(np.arange(len(tables)), np.diff(tables.offsets))
    mass = tables.widths() / WORDS * (weight / max(int(weight.sum()), 1))[of_table]
    seen, counts = np.unique(values, return_counts=True)
    every, at = np.unique(np.concatenate((tables.values, seen)), return_inverse=True)
    model = np.bincount(at[: len(mass)], mass, len(every))
    log = np.bincount(at[len(mass) :], counts / len(values), len(every))
    return float(np.abs(np.cumsum(model - log)).max())


def default_forms(category: str) -> dict[str, Form]:
    """The paper's forms: inputs Pareto and log-normal, outputs exponential."""
    schema = of(category)
    return {
        field.name: "exponential" if lane == OUTPUT else "parametric"
        for lane, field in enumerate(schema.fields)
        if field.kind is Kind.ONCE
    }


def _check(form: str) -> None:
    if form not in FORMS:
        raise unknown("a form", form, FORMS)
