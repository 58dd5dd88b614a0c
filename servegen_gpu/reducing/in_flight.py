"""Requests and KV tokens in flight where the time that a request is served is stated: no server is simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from servegen_gpu.reducing.loads import Figures, bins_in
from servegen_gpu.reducing.reduction import Reduction, Rows, State, column_of, counted, numbers
from servegen_gpu.serving.server import Server, check_time


@dataclass(frozen=True)
class ServiceTime:
    """How long a request is served, whatever else is: ``base_s + s_per_input_token * … + s_per_output_token * …``.

    Raises
    ------
    OptionError
        If a time is negative, or longer than a day, or than a second a token.
    """

    base_s: float = 0.0
    s_per_input_token: float = 0.0
    s_per_output_token: float = 0.0

    def __post_init__(self) -> None:
        for name, most_s in (("base_s", 86_400.0), ("s_per_input_token", 1.0), ("s_per_output_token", 1.0)):
            check_time(self, name, 0.0, most_s)

    @classmethod
    def of(cls, server: Server) -> ServiceTime:
        """Of a request that is alone on a server: a step for every output token, and the prefill."""
        return cls(server.prefill_s_per_step, server.prefill_s_per_token, server.step_s + server.decode_s_per_sequence)

    def end_us(self, rows: Rows) -> Any:
        """When requests end, int64[n]; computed in whole nanoseconds."""
        base_ns, input_ns, output_ns = (
            round(s * 1e9) for s in (self.base_s, self.s_per_input_token, self.s_per_output_token)
        )
        served_ns = base_ns + column_of(rows, "input_tokens").astype(np.int64) * input_ns
        return rows["arrival_us"] + (served_ns + column_of(rows, "output_tokens").astype(np.int64) * output_ns) // 1000


def in_flight(
    service: ServiceTime, every_s: float, span_s: float, figures: Figures = numbers, name: str = "in_flight"
) -> Reduction:
    """Requests that are in flight at instants, and their tokens.

    A request is in flight from its arrival until its end, and holds its input and its output all that time, as a
    `Server` reserves them. Those that arrived before the start of the trace are not there: it begins empty.

    Parameters
    ----------
    service : ServiceTime
    every_s, span_s : float
        Time between instants, and length of the trace.
    figures : function of a state

    Returns
    -------
    Reduction
        Its state has differences from instant to instant, which `levels` sums: ``requests`` and ``tokens``,
        int64[instants + 1], from the start of the trace on.
    """
    every_us, last = bins_in(every_s, span_s)

    def none(xp: Any) -> State:
        return {name: xp.zeros(last + 2, np.int64) for name in ("requests", "tokens")}

    def step(xp: Any, rows: Rows) -> State:
        # an instant sees what arrived at it or before, and did not end at it or before
        begin, end = (
            xp.minimum((us + (every_us - 1)) // every_us, last + 1) for us in (rows["arrival_us"], service.end_us(rows))
        )
        tokens = column_of(rows, "input_tokens").astype(np.int64) + column_of(rows, "output_tokens")
        more, fewer = ((counted(xp, last + 2, at), counted(xp, last + 2, at, tokens)) for at in (begin, end))
        return {"requests": more[0] - fewer[0], "tokens": more[1] - fewer[1]}

    return Reduction(name, none, step, figures=figures, span_s=span_s)


def levels(state: State, what: str) -> Any:
    """Requests or tokens in flight at every instant, int64[instants + 1]."""
    return np.cumsum(state[what])[:-1]
