"""Figures by their names: loads of bins, lengths, gaps, clients, requests in flight, waiting times.

COLUMN is ``requests`` or a column of tokens, W a length in seconds, Q a percentage:

- ``COLUMN``, ``COLUMN_mean``: of the whole trace, and by request; ``rate_rps``
- ``COLUMN_peak_Ws``, ``COLUMN_mean_Ws``, ``COLUMN_pQ_Ws``: the largest, mean and quantile of bins of W seconds
- ``COLUMN_idc_Ws``: index of dispersion of such bins, of tokens over tokens per request
- ``COLUMN_pQ``: quantile of the tokens of requests, or of the items of lists
- ``gap_cv``, ``gap_pQ_s``, ``client_gap_pQ_s``: inter-arrival times of the trace, and of every client by itself
- ``top_client_share``, ``top_N_share``: share of the largest client, or of the N largest
- ``concurrency_peak|mean|pQ``, ``kv_tokens_peak|mean|pQ``: in flight at instants, if service takes as long as assumed
- ``ttft_pQ``, ``wait_pQ``, ``tbt_pQ``: seconds, under a server that is assumed; ``instances`` that meet its objective
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError, nearest
from servegen_gpu.reducing.clients import by_client, top_share
from servegen_gpu.reducing.histograms import client_gaps, gap_cv, gaps, lengths, quantile_of
from servegen_gpu.reducing.in_flight import ServiceTime, in_flight, levels
from servegen_gpu.reducing.loads import index_of_dispersion, loads, totals
from servegen_gpu.reducing.reduction import Reduction, State
from servegen_gpu.reducing.served import Outcome, arrivals
from servegen_gpu.request.schema import COLUMNS
from servegen_gpu.serving.objective import Objective, parse_objective
from servegen_gpu.serving.profiles import described, load_server
from servegen_gpu.serving.server import Server

Figure = Callable[[Any], float]

GRAMMAR = (
    "COLUMN, COLUMN_mean, COLUMN_peak_10s, COLUMN_mean_10s, COLUMN_p99_10s, COLUMN_idc_60s, COLUMN_p99 "
    f"(COLUMN: requests, {', '.join(COLUMNS)}), rate_rps, gap_cv, gap_p99_s, client_gap_p99_s, top_client_share, "
    "top_5_share, concurrency_peak, kv_tokens_peak (or _mean, _p99), ttft_p99, wait_p99, tbt_p99, instances"
)
_COLUMN = "|".join(("requests", *COLUMNS))
_NUMBER = r"\d+(?:\.\d+)?"
_PATTERNS = {
    "total": re.compile(rf"(?!requests_mean)({_COLUMN})(_mean)?"),
    "load": re.compile(rf"({_COLUMN})_(peak|mean|idc|p{_NUMBER})_({_NUMBER})s"),
    "length": re.compile(rf"({'|'.join(COLUMNS)})_p({_NUMBER})"),
    "gap": re.compile(rf"(client_)?gap_p({_NUMBER})_s"),
    "top": re.compile(r"top_(client|[1-9]\d*)_share"),
    "in_flight": re.compile(rf"(concurrency|kv_tokens)_(peak|mean|p{_NUMBER})"),
    "served": re.compile(rf"(ttft|wait|tbt)_p({_NUMBER})"),
}


@dataclass(frozen=True)
class Assumed:
    """What figures of service assume: nothing of it is in a trace.

    Attributes
    ----------
    server : Server
    instances : int
        That serve the trace, for ``ttft_p99`` and the like.
    objective : Objective
        Of ``instances``.
    service : ServiceTime, optional
        How long requests are in flight; by default as long as one that is alone on the server.
    every_s : float
        Time between the instants at which requests in flight are counted.
    """

    server: Server = field(default_factory=Server)
    instances: int = 1
    objective: Objective = field(default_factory=lambda: Objective(2.0, None, 0.99))
    service: ServiceTime | None = None
    every_s: float = 1.0

    @classmethod
    def of(
        cls,
        server: str | os.PathLike[str] | Server | None = None,
        instances: int = 1,
        slo: str = "ttft=2s",
        at: str | float = "p99",
    ) -> Assumed:
        """From words: a server by its name or TOML file (`servegen_gpu.load_server`), and bounds of a quantile.

        >>> sg.Assumed.of("llama-3-70b-4xa100", instances=30, slo="ttft=5s,tbt=100ms", at="p99")
        """
        return cls(Server() if server is None else load_server(server), instances, parse_objective(slo, at))

    def described(self) -> dict[str, Any]:
        """In terms that JSON has: every number of the server with its origin."""
        return {
            "server": described(self.server),
            "instances": self.instances,
            "objective": asdict(self.objective),
            "service": None if self.service is None else asdict(self.service),
            "every_s": self.every_s,
        }


def assumes(name: str) -> bool:
    """Whether a figure hangs on what is `Assumed`."""
    return name == "instances" or any(_PATTERNS[kind].fullmatch(name) for kind in ("in_flight", "served"))


class Wanted(NamedTuple):
    """A figure of a state, and what kind of state.

    Attributes
    ----------
    source : tuple
        What makes states equal: figures of one source share it.
    columns : tuple of str
        That the state must have.
    figure : function of a state, or of an `Outcome`
    """

    source: tuple[str, ...]
    columns: tuple[str, ...]
    figure: Figure


def metric(name: str, span_s: float, assumed: Assumed | None = None) -> Reduction:
    """The reduction that gives one figure, under its name.

    Parameters
    ----------
    name : str
        As above, such as ``"output_tokens_peak_10s"``.
    span_s : float
        Length of the trace.
    assumed : Assumed, optional

    Raises
    ------
    OptionError
        If there is no such figure, or its bins are longer than the trace.
    """
    return metrics((name,), span_s, assumed)[0]


def metrics(names: Iterable[str], span_s: float, assumed: Assumed | None = None) -> tuple[Reduction, ...]:
    """Reductions that give all of some figures, with the parameters of `metric`: those of one state share it."""
    by_source: dict[tuple[str, ...], dict[str, Wanted]] = {}
    assumed = assumed or Assumed()
    for name in (names,) if isinstance(names, str) else names:
        wanted = _wanted(name, span_s, assumed)
        by_source.setdefault(wanted.source, {})[name] = wanted
    return tuple(_reduction(source, wanted, span_s, assumed) for source, wanted in by_source.items())


def _wanted(name: str, span_s: float, assumed: Assumed) -> Wanted:
    kind, match = next(((k, m) for k, p in _PATTERNS.items() if (m := p.fullmatch(str(name)))), ("", None))
    if match is None:
        return _plain(name, span_s, assumed)
    a, b = match[1], match[2] if len(match.groups()) > 1 else ""
    if kind == "total":
        if b:
            return Wanted(("totals",), ("requests", a), partial(_by_request, a))
        return Wanted(("totals",), (a,), lambda state: float(state[a].sum()))
    if kind == "top":
        return Wanted(("clients",), (), lambda state: top_share(state, 1 if a == "client" else int(a)))
    if kind == "load":
        source = ("loads", f"{float(match[3]):g}")
        if b == "idc":
            return Wanted(source, (a, "requests"), partial(_dispersion, a))
        of = _statistic(b, name)
        return Wanted(source, (a,), lambda state: of(state[a][:-1]))
    if kind == "in_flight":
        of, what = _statistic(b, name), "requests" if a == "concurrency" else "tokens"
        return Wanted(("in_flight",), (), lambda state: of(levels(state, what)))
    share = _share(b, name)
    if kind == "length":
        return Wanted(("lengths", a), (), lambda state: quantile_of(state["counts"], share))
    if kind == "gap":
        return Wanted((f"{a or ''}gaps",), (), lambda state: quantile_of(state["counts"], share) / 1e6)
    return Wanted(("served",), (), lambda outcome: outcome.quantile(a, share))


def _plain(name: str, span_s: float, assumed: Assumed) -> Wanted:
    if name == "rate_rps":
        return Wanted(("totals",), ("requests",), lambda state: float(state["requests"].sum()) / span_s)
    if name == "gap_cv":
        return Wanted(("gaps",), (), gap_cv)
    if name == "instances":
        return Wanted(("served",), (), lambda outcome: outcome.instances_for(assumed.objective))
    near = nearest(name, _alike(str(name)))
    raise OptionError(
        f"a figure among {GRAMMAR}", repr(name)[:60], f"did you mean {near!r}?" if near else "choose one of them"
    )


def _alike(name: str) -> list[str]:
    """Names of figures with the numbers of another name, to find which one was meant."""
    digits = re.findall(_NUMBER, name[:60])
    q, s = (digits[0], digits[-1]) if digits else ("99", "10")
    loads = [f"{a}_{b}_{s}s" for a in ("requests", *COLUMNS) for b in ("peak", "mean", "idc", f"p{q}")]
    lengths = [f"{a}_{b}" for a in COLUMNS for b in ("mean", f"p{q}")]
    levels = [f"{a}_{b}" for a in ("concurrency", "kv_tokens") for b in ("peak", "mean", f"p{q}")]
    served = [f"{a}_p{q}" for a in ("ttft", "wait", "tbt")]
    plain = ["requests", "rate_rps", "gap_cv", "instances", "top_client_share", f"top_{q}_share"]
    return [*loads, *lengths, *levels, *served, *plain, *COLUMNS, f"gap_p{q}_s", f"client_gap_p{q}_s"]


def _share(percent: str, name: str) -> float:
    if float(percent) > 100:
        raise OptionError("a quantile of p0 to p100", repr(name), "change it")
    return float(percent) / 100


def _by_request(column: str, state: State) -> float:
    requests = float(state["requests"].sum())
    return float(state[column].sum()) / requests if requests else float("nan")


def _dispersion(column: str, state: State) -> float:
    return index_of_dispersion(state[column][:-1], None if column == "requests" else state["requests"][:-1])


def _statistic(kind: str, name: str) -> Callable[[NDArray[np.int64]], float]:
    """Peak, mean or quantile of some numbers; quantiles are linear between order statistics."""
    if kind in ("peak", "mean"):
        return lambda numbers: float(numbers.max() if kind == "peak" else numbers.mean())
    share = _share(kind.removeprefix("p"), name)
    return lambda numbers: float(np.quantile(numbers, share))


def _reduction(source: tuple[str, ...], wanted: dict[str, Wanted], span_s: float, assumed: Assumed) -> Reduction:
    columns = tuple(dict.fromkeys(column for one in wanted.values() for column in one.columns))

    def figures(state: State) -> dict[str, float]:
        of = Outcome(state, assumed.server, assumed.instances) if source == ("served",) else state
        return {name: one.figure(of) for name, one in wanted.items()}

    match source:
        case ("totals",):
            return replace(totals(columns, figures), span_s=span_s if "rate_rps" in wanted else 0.0)
        case ("loads", width):
            return loads(columns, float(width), span_s, figures)
        case ("lengths", column):
            return lengths(column, figures)
        case ("gaps",):
            return gaps(figures)
        case ("client_gaps",):
            return client_gaps(figures)
        case ("clients",):
            return by_client(figures)
        case ("in_flight",):
            service = assumed.service or ServiceTime.of(assumed.server)
            return in_flight(service, assumed.every_s, span_s, figures)
    return arrivals(figures)
