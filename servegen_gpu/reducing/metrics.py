"""Figures by their names: the load of bins, lengths, clients.

COLUMN is ``requests`` or a column of tokens, W a length in seconds, Q a percentage:

- ``COLUMN``, ``COLUMN_mean``: of the whole trace, and by request; ``rate_rps``
- ``COLUMN_peak_Ws``, ``COLUMN_mean_Ws``, ``COLUMN_pQ_Ws``: the largest, mean and quantile of bins of W seconds
- ``COLUMN_idc_Ws``: index of dispersion of such bins, of tokens over tokens per request
- ``top_client_share``, ``top_N_share``: share of the largest client, or of the N largest
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.clients import by_client, top_share
from servegen_gpu.reducing.loads import Figures, index_of_dispersion, loads, peak, quantile, totals
from servegen_gpu.reducing.reduction import Reduction, State
from servegen_gpu.request.schema import COLUMNS

Figure = Callable[[State], float]

GRAMMAR = (
    "COLUMN, COLUMN_mean, COLUMN_peak_10s, COLUMN_mean_10s, COLUMN_p99_10s, COLUMN_idc_60s "
    f"(COLUMN: requests, {', '.join(COLUMNS)}), rate_rps, top_client_share, top_5_share"
)
_COLUMN = "|".join(("requests", *COLUMNS))
_NUMBER = r"\d+(?:\.\d+)?"
_PATTERNS = {
    "total": re.compile(rf"({_COLUMN})(_mean)?"),
    "load": re.compile(rf"({_COLUMN})_(peak|mean|idc|p{_NUMBER})_({_NUMBER})s"),
    "top": re.compile(r"top_(client|[1-9]\d*)_share"),
}


class Wanted(NamedTuple):
    """A figure of a state, and what kind of state.

    Attributes
    ----------
    source : tuple
        What makes states equal: figures of one source share it.
    columns : tuple of str
        That the state must have.
    figure : function of a state
    """

    source: tuple[str | float, ...]
    columns: tuple[str, ...]
    figure: Figure


def metric(name: str, span_s: float) -> Reduction:
    """The reduction that gives one figure, under its name.

    Parameters
    ----------
    name : str
        As above, such as ``"output_tokens_peak_10s"``.
    span_s : float
        Length of the trace.

    Raises
    ------
    OptionError
        If there is no such figure, or its bins are longer than the trace.
    """
    return metrics((name,), span_s)[0]


def metrics(names: Iterable[str], span_s: float) -> tuple[Reduction, ...]:
    """Reductions that give all of some figures: those of one state share it."""
    by_source: dict[tuple[str | float, ...], dict[str, Wanted]] = {}
    for name in names:
        wanted = _wanted(name, span_s)
        by_source.setdefault(wanted.source, {})[name] = wanted
    return tuple(_reduction(source, wanted, span_s) for source, wanted in by_source.items())


def _wanted(name: str, span_s: float) -> Wanted:
    if match := _PATTERNS["total"].fullmatch(name):
        column = match[1]
        if not match[2]:
            return Wanted(("totals",), (column,), lambda state: float(state[column].sum()))
        return Wanted(("totals",), ("requests", column), partial(_by_request, column))
    if name == "rate_rps":
        return Wanted(("totals",), ("requests",), lambda state: float(state["requests"].sum()) / span_s)
    if match := _PATTERNS["load"].fullmatch(name):
        column, kind, width = match[1], match[2], float(match[3])
        needs = (column, "requests") if kind == "idc" else (column,)
        return Wanted(("loads", width), needs, partial(_of_load, column, kind))
    if match := _PATTERNS["top"].fullmatch(name):
        largest = 1 if match[1] == "client" else int(match[1])
        return Wanted(("clients",), (), lambda state: top_share(state, largest))
    raise OptionError(f"a figure among {GRAMMAR}", repr(name), "choose one of them")


def _by_request(column: str, state: State) -> float:
    requests = float(state["requests"].sum())
    return float(state[column].sum()) / requests if requests else float("nan")


def _of_load(column: str, kind: str, state: State) -> float:
    load = state[column][:-1]
    if kind == "peak":
        return peak(load)
    if kind == "mean":
        return float(load.mean())
    if kind == "idc":
        return index_of_dispersion(load, None if column == "requests" else state["requests"][:-1])
    return quantile(load, float(kind[1:]) / 100)


def _reduction(source: tuple[str | float, ...], wanted: dict[str, Wanted], span_s: float) -> Reduction:
    columns = tuple(dict.fromkeys(column for one in wanted.values() for column in one.columns))

    def figures(state: State) -> dict[str, float]:
        return {name: one.figure(state) for name, one in wanted.items()}

    return _of_source(source, columns, figures, span_s)


def _of_source(source: tuple[str | float, ...], columns: tuple[str, ...], figures: Figures, span_s: float) -> Reduction:
    if source[0] == "totals":
        return totals(columns, figures)
    if source[0] == "loads":
        return loads(columns, float(source[1]), span_s, figures)
    return by_client(figures)
