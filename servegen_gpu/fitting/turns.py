"""A model of conversations from a trace that has some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from servegen_gpu.blocks import distinct
from servegen_gpu.clients.stated import distributions as d
from servegen_gpu.clients.stated.turns import SESSION_S, Growth, TurnModel
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.begun import Begun, begun_in
from servegen_gpu.fitting.follow_ups import FEW, FollowUps, follow_ups
from servegen_gpu.trace import Trace

UNKNOWN = "no conversation is known to begin and to end in the log: turns are requests like others"
GOES_ON = 0.9
"""Share of later turns that hold the turn before and its answer, where contexts grow by their history."""
NEAR = 0.5
"""Distance of a conversation's last input from its first, as a share of that from another's first, of edits."""
MOST_CLIENTS = 64
DIFFERENT = 4.0
"""Chi-square per client, from which on clients have shares of their own."""
PRIOR = 30
"""Requests that speak for the common share in each client's own."""
TELLING = 0.05
"""Share of later turns, from which on what is estimated or left out is said."""


@dataclass(frozen=True)
class TurnFacts:
    """What a model of conversations rests on.

    Attributes
    ----------
    conversations : int
        Of two turns or more that were counted.
    session_s : float
        The longest time from a first turn to the last.
    growth : str
        How inputs go on.
    unseen : float
        Share of all later turns that come after the log's end, as estimated.
    notes : tuple of str
    """

    conversations: int
    session_s: float
    growth: Growth
    unseen: float
    notes: tuple[str, ...]


def fit_turns(
    trace: Trace, *, session_s: float | None = SESSION_S, growth: Growth | Literal["auto"] = "sorted"
) -> TurnModel:
    """A model of the conversations of a trace.

    Conversations count that begin in it. What the trace's end cuts is estimated from those that begin earlier (see
    `servegen_gpu.fitting.follow_ups`), at least one of which must begin `session_s` before the last request. What comes
    later than `session_s` after a first turn is not looked at.

    Parameters
    ----------
    trace : Trace
        With the columns `conversation`, `turn` (from 1) and `new_tokens`.
    session_s : float or None
        Longest time from a first turn to the last; None for the longest that the trace has.
    growth : {"sorted", "history", "edit", "auto"}
        With ``history`` and ``edit``, new tokens of later turns are fitted as well. ``auto``: as the trace tells.

    Returns
    -------
    TurnModel
        Turns and new tokens as they were counted; times as a histogram of at most 512 bins.

    Raises
    ------
    OptionError
        If columns are missing, or nothing is left to count.
    """
    model, facts = model_of(trace, session_s=session_s, growth=growth)
    if model is None:
        fix = "give a trace with conversations" if session_s is None else "lower session_s"
        expected = f"conversations that begin {facts.session_s:g} s before the end of the trace"
        raise OptionError(expected, "none", fix)
    return model


def model_of(
    trace: Trace, *, session_s: float | None = None, growth: Growth | Literal["auto"] = "auto"
) -> tuple[TurnModel | None, TurnFacts]:
    """A model of the conversations of a trace, None if there are none, and what it rests on; see `fit_turns`."""
    return _model(begun_in(trace, session_s), growth)


def _model(begun: Begun, growth: Growth | Literal["auto"]) -> tuple[TurnModel | None, TurnFacts]:
    conversations = int((begun.turn == 2).sum())
    grows, why = _growth(begun) if growth == "auto" else (growth, "")
    if not conversations or not begun.ended:
        return None, TurnFacts(0, begun.session_s, grows, 0.0, (UNKNOWN,))
    notes = [why] if why else []
    few = conversations < FEW
    found = follow_ups(begun.turn, begun.gap_s, begun.seen_s, 2 if few else None)
    if few:
        notes.append(f"{conversations} conversations: turns are geometric, inter-turn times log-normal")
    if found.unseen > TELLING:
        notes.append(f"{found.unseen:.0%} of the later turns come after the end of the log, as estimated")
    new, left_out = (None, 0.0) if grows == "sorted" else _new_tokens(begun, grows)
    if left_out > TELLING:
        notes.append(f"{left_out:.0%} of the later inputs are shorter than {BEFORE[grows]}: no new tokens of theirs")
    values, weights = found.turns()
    one = TurnModel(
        share=0.0,
        turns=d.Pmf(values, weights),
        gap_s=_log_normal(begun, found) if few else _histogram(found),
        growth=grows,
        new_tokens=new,
        session_s=begun.session_s,
    )
    many = float(found.more[0]) * one.mean_turns
    model = replace(one, share=many / (many + 1 - float(found.more[0])))
    return model, TurnFacts(conversations, begun.session_s, grows, found.unseen, tuple(notes))


def models_of(
    trace: Trace, *, session_s: float | None = None, growth: Growth | Literal["auto"] = "auto"
) -> tuple[dict[int, TurnModel], TurnFacts]:
    """A model for each client, none if there are no conversations, and what they rest on; see `fit_turns`.

    Clients have turns, times and growth in common. Where they converse to different degrees, as system prompts for one
    question each and agents do, each has a `share` of its own, drawn to the common one where a client has few requests.
    """
    begun = begun_in(trace, session_s)
    model, facts = _model(begun, growth)
    if model is None:
        return {}, facts
    first = begun.turn == 1
    clients, of = np.unique(begun.client[first], return_inverse=True)
    begins = np.bincount(of)
    follows = np.bincount(of, np.isfinite(begun.gap_s[first]))
    common = follows.sum() / begins.sum()
    expected = begins * common
    spread = float(((follows - expected) ** 2 / np.maximum(expected * (1 - common), 1e-300)).sum())
    if not 1 < len(clients) <= MOST_CLIENTS or spread < DIFFERENT * len(clients):
        return dict.fromkeys(distinct(trace["client"]).tolist(), model), facts
    # odds of another turn at the model's share, times how much more often one follows for this client
    more = model.share / (model.share + model.mean_turns * (1 - model.share))
    own = np.minimum(more * (follows + PRIOR * common) / ((begins + PRIOR) * common), 0.99)
    shares = own * model.mean_turns / (own * model.mean_turns + 1 - own)
    each = {int(client): replace(model, share=float(share)) for client, share in zip(clients, shares, strict=True)}
    least, most = (float(edge) for edge in (shares.min(), shares.max()))
    notes = (*facts.notes, f"clients converse to different degrees: {least:.1%} to {most:.1%} of their requests")
    others = dict.fromkeys(distinct(trace["client"]).tolist(), model)
    return others | each, replace(facts, notes=notes)


BEFORE = {"history": "the turn before and its answer", "edit": "the turn before"}


def _growth(begun: Begun) -> tuple[Growth, str]:
    """How inputs go on, and why."""
    later = np.flatnonzero(begun.turn > 1)
    if not len(later):
        return "sorted", ""
    goes_on = float((begun.input[later] >= begun.input[later - 1] + begun.said[later - 1]).mean())
    said = f"{goes_on:.0%} of the later inputs hold the turn before and its answer"
    if goes_on >= GOES_ON:
        return "history", f"{said}: contexts grow by their history"
    first = np.flatnonzero((begun.turn == 1) & np.append(begun.turn[1:] > 1, False))
    ends = np.flatnonzero(np.append(begun.turn[1:] == 1, True))
    last = ends[np.searchsorted(ends, first)]
    by_client = np.argsort(begun.client[first], kind="stable")
    first, last = first[by_client], last[by_client]
    same = begun.client[first[1:]] == begun.client[first[:-1]]
    own = np.abs(begun.input[last] - begun.input[first])
    other = np.abs(begun.input[last[1:]] - begun.input[first[:-1]])[same]
    if len(other) and np.median(own) < NEAR * np.median(other):
        return "edit", f"{said}, and inputs of a conversation are near one another: edits of one text"
    return "sorted", f"{said}, and they are as far apart as any: inputs in ascending order"


def _new_tokens(begun: Begun, growth: Growth) -> tuple[d.Distribution, float]:
    """New tokens of later turns, and the share of those that shrank instead."""
    later = np.flatnonzero(begun.turn > 1)
    before = begun.input[later - 1] + (begun.said[later - 1] if growth == "history" else 0)
    new = begun.input[later] - before
    shrank = new < 0
    anew = shrank & (begun.input[later] < begun.input[later - 1]) if growth == "history" else np.zeros(len(new), bool)
    if anew.all():
        anew[:] = False
    tokens, times = np.unique(np.maximum(new[~anew], 0), return_counts=True)
    return d.Pmf(tokens.astype(np.float64), times.astype(np.float64)), float(shrank.mean())


def _histogram(found: FollowUps) -> d.Distribution:
    """Bins that hold about as many values each."""
    if len(found.edges_s) < 2:
        return d.Constant(float(found.edges_s[0]))
    return d.Histogram(found.edges_s, found.weight)


def _log_normal(begun: Begun, found: FollowUps) -> d.Distribution:
    """A smooth distribution of a few times, which weigh what was estimated."""
    if len(found.edges_s) < 2:
        return d.Constant(float(found.edges_s[0]))
    middle = np.log(np.maximum((found.edges_s[1:] + found.edges_s[:-1]) / 2, 1e-3))
    mean = float(np.average(middle, weights=found.weight))
    sigma = float(np.sqrt(np.average((middle - mean) ** 2, weights=found.weight)))
    return d.LogNormal(median=float(np.exp(mean)), sigma=max(sigma, 0.1), max=begun.session_s)
