"""From somebody's log to clients.

One pass of a ladder, each step where the log carries it: how much and how bursty (`log_facts`, `surroundings`, `gaps`),
who (`who`), how long (`lengths`), and how requests follow each other (`sessions`, `turns`, `prefixes`). The result is a
pool like any other.

>>> pool = sg.fit("log.csv")
>>> again = sg.generate(pool, duration="1h", seed=1)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.baselines.of_trace import category_of, lengths
from servegen_gpu.clients.pool import MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.fitting.calibrate import calibrated
from servegen_gpu.fitting.gaps import GapFamilies, GapShapes, cell_shapes, gap_families
from servegen_gpu.fitting.lengths import FieldTables, Form, default_forms, field_tables, scalar_values
from servegen_gpu.fitting.log_facts import LogFacts, log_facts
from servegen_gpu.fitting.prefixes import system_tokens
from servegen_gpu.fitting.privacy import Behind, private
from servegen_gpu.fitting.report import FitReport, environment_of, families_of, length_fits, sessions_of
from servegen_gpu.fitting.sessions import SessionFacts, block_tokens, with_sessions
from servegen_gpu.fitting.surroundings import Surroundings, surroundings
from servegen_gpu.fitting.times_of_day import kinds_in_time
from servegen_gpu.fitting.turns import TurnFacts, models_of
from servegen_gpu.fitting.who import Who, latent, named_clients, one_client
from servegen_gpu.options import integer
from servegen_gpu.provenance import duration_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.families import NO_FAMILY, family_of, settled
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.trace import Trace, read_trace

WINDOW_S = 600
FEW = 250
"""Requests below which a log says no more than a mean rate and its lengths."""
LATENT = 8
Clients = Literal["auto", "ids", "latent", "one"]
Counts = Literal["random", "measured"]


def fit(log: Trace | str | os.PathLike[str] | Any, **options: Any) -> ClientPool:
    """Clients that send requests like those of a log; see `fit_with_report` for the parameters."""
    return fit_with_report(log, **options)[0]


def fit_with_report(
    log: Trace | str | os.PathLike[str] | Any,
    *,
    clients: Clients = "auto",
    most_latent: int = LATENT,
    environment: bool = True,
    sessions: bool = True,
    lengths_as: Form | Literal["auto"] = "counts",
    counts: Counts = "random",
    min_count: int = 1,
    keep_ids: bool = False,
    name: str | None = None,
    seed: int = 0,
) -> tuple[ClientPool, FitReport]:
    """Clients that send requests like those of a log, and what that rests on.

    Parameters
    ----------
    log : Trace, path or table
        Whatever `read_trace` takes; in memory as a whole.
    clients : {"auto", "ids", "latent", "one"}
        Who sends: the log's own clients; clusters of requests that begin alike or are alike in length; or all from
        one. By default the log's own, if it names more than one, else latent ones.
    most_latent : int
        Most latent clients.
    environment : bool
        Look for what moves all clients together.
    sessions : bool
        Look for conversations.
    lengths_as : {"counts", "knots", "parametric", "exponential", "auto"}
        Length distributions: as counted; by 256 bins and the exact top 1 %; Pareto and log-normal by EM; exponential.
        ``auto`` takes the paper's forms: inputs parametric, outputs exponential.
    counts : {"random", "measured"}
        Whether counts of windows are random around rates that are drawn to their mean, or kept as they are
        (``exact`` replay).
    min_count : int
        Fewest requests that must stand behind every length, client and window; see `servegen_gpu.fitting.privacy`.
    keep_ids : bool
        Keep the log's numbers of clients, with `min_count` 1; by default they are 0, 1, 2, …
    name : str, optional
        Of the pool.
    seed : int
        Of samples that are looked at.

    Returns
    -------
    pool : ClientPool
        Its windows begin with the log: 600 s each.
    report : FitReport

    Raises
    ------
    OptionError
        If the log cannot be read, or says too little: two requests at different times are needed for a rate.
    """
    _check(clients, counts, lengths_as)
    least = integer("min_count", min_count, 2**31 - 1)
    if least < 1:
        raise OptionError("min_count of at least 1", f"{min_count}", "1 keeps all")
    if keep_ids and least > 1:
        raise OptionError("keep_ids with min_count=1", f"min_count {least:,}", "leave out one of them")
    trace, source = _log(log)
    trace, facts, span_s = _from_zero(trace, source)
    few = len(trace) < FEW
    notes = list(facts.notes)
    trace, talks = with_sessions(trace) if sessions and not few else (_alone(trace), SessionFacts("none", 0.0, 0))
    category = category_of(trace)
    every = lengths(trace, category)
    found = {field: every[field] for field in FIELDS[category]}  # lanes of tables are in this order
    values = scalar_values(found, category, len(trace))
    begins = np.asarray(trace["turn"]) == 1
    begins = begins if begins.any() else ~begins
    who, step = _who(trace, values, begins, clients, most_latent, few, seed)
    notes += [*who.notes, *talks.notes, *_equal(found)]
    if few:
        notes.append(f"{len(trace):,} requests are few: a constant rate, exponential gaps and their lengths, no more")

    labelled = _with_client(trace, who.label)
    models, turn_facts = models_of(labelled) if talks.conversations else ({}, None)
    notes += [] if turn_facts is None else turn_facts.notes
    if not models:  # then turns are requests like others
        begins = np.ones(len(trace), np.bool_)
    first_us, first_client = np.asarray(trace["arrival_us"])[begins], who.client[begins]
    by_clock = len(first_us) > 2 and float(np.ptp(np.diff(first_us))) == 0
    each, shapes = _shapes(first_us, first_client, who, facts.tick_us, bursty=step == "ids" or by_clock)
    families = _families(first_us, first_client, who, each, shapes, facts.tick_us)
    # where blocks tell who goes on with whom, turns of conversations from before the log look like first ones
    known = np.ones(len(trace), np.bool_) if talks.found == "blocks" else begins
    around = surroundings(
        np.asarray(trace["arrival_us"]),
        np.asarray(trace["arrival_us"])[known],
        who.client[known] if step == "ids" else np.zeros(int(known.sum()), np.int64),
        who.label[known],
        who.profiles,
        span_s=span_s,
        tick_us=facts.tick_us,
        window_s=WINDOW_S,
        shape=np.array([_cv(int(f), float(s)) ** -2 for f, s in zip(families.family, families.shape, strict=True)]),
        wanted=environment and not few,
    )
    even_us = around.rates.even_us(first_us, who.profile[first_client], around.rps)
    families = _families(even_us, first_client, who, each, shapes, facts.tick_us)
    notes += around.notes
    forms = default_forms(category) if lengths_as == "auto" else lengths_as
    grows = {model.growth for model in models.values()}
    drawn = _first_inputs(found, begins) if grows & {"history", "edit"} else found
    window = np.asarray(trace["arrival_us"]) // (WINDOW_S * 1_000_000)
    kinds = kinds_in_time(values[:2, begins], window[begins], who.label[begins], who.profiles, around.rates.windows)
    kind = kinds[who.label, np.minimum(window, around.rates.windows - 1)]
    tables = field_tables(drawn, kind, int(kinds.max()) + 1, form=forms, least=least)
    # nor does such a log tell when conversations began that last longer than a window
    steady = few or (talks.found == "blocks" and any(model.session_s > WINDOW_S for model in models.values()))
    rate_rps = _rates(around, {} if known.all() else models, who, counts, steady)
    pool = ClientPool(
        name=name or f"{source}-fit",
        category=category,
        window_s=WINDOW_S,
        first_window=0,
        **_clients(who, keep_ids),
        **_profiles(who, rate_rps, families, tables.row[kinds], models, around),
        tables=tables.tables,
        measured=np.full(who.profiles, counts == "measured"),
        context_tokens=np.full(who.profiles, _context(trace) if "history" in grows else 0, np.int32),
        system_tokens=_system_tokens(labelled, who.profiles),
    )
    if around.environment is not None and (models or step == "ids"):
        pool, moved = calibrated(pool, around.environment, np.asarray(trace["arrival_us"]), span_s)
        around = replace(around, environment=moved)
    elif around.environment is not None:
        notes += around.environment.notes
    pool, hidden = private(pool, _behind(trace, who, tables, rate_rps.shape[1], turn_facts), least)
    notes += hidden.notes() if least > 1 else ()
    report = FitReport(
        requests=len(trace),
        span_s=span_s,
        tick_s=facts.tick_us / 1e6,
        horizon_s=facts.horizon_s,
        step=step,
        clients=len(pool),
        profiles=who.profiles,
        how=who.how,
        **families_of(families, who),
        dependence=who.dependence,
        energy=who.energy,
        lengths=length_fits(found, who, forms),
        sessions=sessions_of(talks, pool.turn_models),
        environment=environment_of(around),
        window_weight=0.0 if steady else 1.0 if counts == "measured" else _kept(around),
        suppressed=hidden.facts() if least > 1 else {},
        notes=tuple(dict.fromkeys(notes)),
    )
    return pool, report


def _check(clients: str, counts: str, form: str) -> None:
    for what, value, known in (
        ("clients", clients, get_args(Clients)),
        ("counts", counts, get_args(Counts)),
        ("lengths_as", form, ("auto", *get_args(Form))),
    ):
        if value not in known:
            raise unknown(what, value, known)


def _log(log: Any) -> tuple[Trace, str]:
    """The log in memory, and what to call it."""
    if isinstance(log, Trace):
        return log, str(log.provenance.get("workload", "trace"))
    source = Path(os.fspath(log)).name.split(".")[0] if isinstance(log, str | os.PathLike) else "table"
    return read_trace(log), source


def _from_zero(trace: Trace, source: str) -> tuple[Trace, LogFacts, float]:
    """The log from its begin on, what it can say, and its length: as it states, or to just after its last request."""
    arrival_us = np.asarray(trace["arrival_us"])
    stated = round((duration_of(trace.provenance) or 0.0) * 1e6)
    if len(arrival_us) and stated > arrival_us[-1]:
        begin_us, end_us = 0, stated
    else:
        begin_us = int(arrival_us[0]) if len(arrival_us) else 0
        end_us = int(arrival_us[-1]) if len(arrival_us) else 0
    facts = log_facts(arrival_us, begin_us=begin_us, end_us=end_us, name=source)
    moved = trace.columns | {"arrival_us": arrival_us - begin_us}
    span_us = end_us - begin_us + (end_us != stated)  # a request at the very end is within the log
    return Trace.trusted(moved, trace.provenance), facts, span_us / 1e6


def _alone(trace: Trace) -> Trace:
    n = len(trace)
    turns: dict[str, Any] = {"conversation": -1 - np.arange(n), "turn": np.ones(n, np.int32)}
    return Trace.trusted(trace.columns | turns | {"new_tokens": trace["input_tokens"]}, trace.provenance)


def _equal(found: Mapping[str, Any]) -> list[str]:
    """Notes on fields that have one value only."""
    lengths = ((field, value) for field, (_, value) in found.items() if field.endswith("_tokens") and len(value))
    return [f"All {field} are {value[0]:,}" for field, value in lengths if value.min() == value.max()]


def _with_client(trace: Trace, label: NDArray[np.int64]) -> Trace:
    return Trace.trusted(trace.columns | {"client": label.astype(np.int32)}, trace.provenance)


def _who(
    trace: Trace,
    values: NDArray[np.int64],
    begins: NDArray[np.bool_],
    clients: str,
    most: int,
    few: bool,
    seed: int,
) -> tuple[Who, str]:
    """Clients, and the step of the ladder."""
    named = "client" in trace.columns and len(trace) > 0
    several = named and int(trace["client"].min()) != int(trace["client"].max())
    if clients == "ids" and not several:
        got = "one client in all rows" if named else "one without a column client"
        raise OptionError("a log that names several clients", got, "name their column: --client NAME")
    if few:
        return one_client(len(trace), "few requests"), "mean rate"
    if clients == "ids" or (clients == "auto" and several):
        return named_clients(trace, values, seed), "ids"
    if clients == "one":
        return one_client(len(trace), "one client, as asked"), "one client"
    return latent(trace, values, begins, most, seed), "latent clients"


def _shapes(
    arrival_us: NDArray[np.int64], client: NDArray[np.int64], who: Who, tick_us: int, *, bursty: bool
) -> tuple[GapShapes, NDArray[np.float64]]:
    """Shapes of clients and of profiles in terms of Gamma; 1 where gaps are exponential by the ladder."""
    if not bursty:
        return GapShapes(np.zeros(len(who.ids), np.int64), np.ones(len(who.ids))), np.ones(who.profiles)
    each = cell_shapes(arrival_us, client, cells=len(who.ids), client=who.profile, tick_us=tick_us)
    gaps = np.bincount(who.profile, each.gaps, minlength=who.profiles)
    log_shape = np.bincount(who.profile, each.gaps * np.log(each.shape), minlength=who.profiles)
    return each, np.exp(np.divide(log_shape, gaps, out=np.zeros(who.profiles), where=gaps > 0))


def _families(
    arrival_us: NDArray[np.int64],
    client: NDArray[np.int64],
    who: Who,
    each: GapShapes,
    shape: NDArray[np.float64],
    tick_us: int,
) -> GapFamilies:
    """Families of profiles, from arrivals at an even rate: that of the client with most gaps."""
    families = gap_families(arrival_us, client, GapShapes(each.gaps, shape[who.profile]), tick_us=tick_us)
    first = np.full(who.profiles, -1)
    order = np.argsort(each.gaps, kind="stable")
    first[who.profile[order]] = order
    return GapFamilies(families.family[first], families.shape[first], families.ks[first], families.gain[first])


def _kept(around: Surroundings) -> float:
    """Share of their own rate that windows keep, mean over requests: clients may change where their sum does not."""
    return float(np.average(around.rates.weight, weights=around.rates.mean_rps))


def _rates(
    around: Surroundings, models: Mapping[int, TurnModel], who: Who, counts: str, steady: bool
) -> NDArray[np.float64]:
    """Rates of profiles, float64[profiles, windows], of which what begins was counted if there are `models`."""
    rates = around.rates
    if steady:
        rps = np.repeat(rates.mean_rps[:, None], rates.windows, axis=1)
    elif counts == "measured":
        rps = np.zeros((who.profiles, rates.windows))
        rps[rates.client, rates.window] = rates.own_rps
    else:
        rps = around.rps.copy()
    for profile, model in models.items():
        # rates are those of all requests; of these, what begins is the part that was counted
        rps[profile] /= 1.0 - model.share + model.share / model.mean_turns
    return rps


def _behind(trace: Trace, who: Who, tables: FieldTables, windows: int, turns: TurnFacts | None) -> Behind:
    """How many requests stand behind each part of the pool."""
    window = np.minimum(np.asarray(trace["arrival_us"]) // (WINDOW_S * 1_000_000), windows - 1)
    counted = np.bincount(who.label * windows + window, minlength=who.profiles * windows)
    clients = np.bincount(who.client, minlength=len(who.ids))
    conversations = turns.conversations if turns is not None else 0
    return Behind(tables.requests, counted.reshape(who.profiles, windows), clients, conversations=conversations)


def _clients(who: Who, keep_ids: bool) -> dict[str, Any]:
    """Ids, profiles and rate factors."""
    size = np.bincount(who.client, minlength=len(who.ids)).astype(np.float64)
    factor = size / np.bincount(who.profile, size, minlength=who.profiles)[who.profile]
    ids = np.arange(len(who.ids))
    if keep_ids:
        if who.ids[0] < 0 or who.ids[-1] > MAX_CLIENT_ID:
            got = f"{who.ids[0]} to {who.ids[-1]}"
            raise OptionError(f"ids of clients from 0 to {MAX_CLIENT_ID:,}", got, "leave out keep_ids")
        ids = who.ids
    return {"client_ids": ids, "profile": who.profile.astype(np.int32), "rate_factor": factor}


def _profiles(
    who: Who,
    rate_rps: NDArray[np.float64],
    families: GapFamilies,
    row: NDArray[np.int32],
    models: Mapping[int, TurnModel],
    around: Surroundings,
) -> dict[str, Any]:
    """Tensors over profiles."""
    active = rate_rps > 0
    cv = np.array([_cv(int(f), float(s)) for f, s in zip(families.family, families.shape, strict=True)])
    different = list({id(model): model for model in models.values()}.values())
    place = {id(model): i for i, model in enumerate(different)}
    scalar = len(who.spearman[0]) if who.spearman is not None else 0
    moved = around.environment is not None
    return {
        "rate_rps": rate_rps,
        "cv": np.where(active, cv[:, None], 0.0),
        "family": np.where(active, families.family[:, None], NO_FAMILY).astype(np.uint8),
        "shape": np.where(active, families.shape[:, None], 0.0),
        "occupancy": active.astype(np.float64),
        "table": np.where(active[..., None], row, -1).astype(np.int32),
        "correlations": np.empty(0) if who.spearman is None else who.spearman.reshape(-1, scalar, scalar),
        "correlation": np.where(who.spearman is None, -1, np.arange(who.profiles)).astype(np.int32),
        "turn_models": tuple(different),
        "turn_model": np.array([place[id(models[p])] if p in models else -1 for p in range(who.profiles)], np.int32),
        "environments": (around.environment.environment,) if around.environment is not None else (),
        "environment": np.full(who.profiles, 0 if moved else -1, np.int32),
    }


def _cv(family: int, shape: float) -> float:
    row = family_of(family)
    return settled(row.cv_of(shape)) if row.has_shape else 1.0


def _first_inputs(found: Mapping[str, Any], begins: NDArray[np.bool_]) -> dict[str, Any]:
    """Fields as found, with inputs of requests alone and first turns only: later ones follow from these."""
    field, (row, value) = next(iter(found.items()))
    kept = begins[row]
    return dict(found) | {field: (row[kept], value[kept])}


def _context(trace: Trace) -> int:
    """A power of two that the most tokens of an input and an output together stay below: it tells of no request."""
    most = int((np.asarray(trace["input_tokens"], np.int64) + trace["output_tokens"]).max())
    return min(1 << most.bit_length(), 2**31 - 1)


def _system_tokens(trace: Trace, profiles: int) -> NDArray[np.int32]:
    """Tokens of the system prompts of profiles, int32[profiles]."""
    found = np.zeros(profiles, np.int32)
    if isinstance(ids := trace.columns.get("hash_ids"), Ragged) and len(ids.values):
        for profile, tokens in system_tokens(trace, block_tokens(trace)).items():
            found[profile] = tokens
    return found
