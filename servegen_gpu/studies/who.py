"""Pools with other clients, or with other shares of the same: who sends, and how much of the total.

The total rate over the data of a pool, mean over its windows, stays what it was.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.stated.turns import TurnModel
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key, Purpose, draw
from servegen_gpu.law.variates import uniform52
from servegen_gpu.studies.changed import changed

TOP = 10
WHO = 64
"""Which choice of a client its drawing is; populations and `resample` have those below."""


def mean_rps(pool: ClientPool) -> NDArray[np.float64]:
    """Mean rate of every client over the data, float64[clients]."""
    return np.asarray(pool.rate_factor * (order_free_sum(pool.rate_rps.T) / pool.windows)[pool.profile])


def drawn(pool: ClientPool, factor: float, key: Key) -> ClientPool:
    """As many clients times `factor`, at least one, each drawn from those of the pool with the same chance.

    A bootstrap of clients: one may be drawn twice, and another never, so that shares of the largest differ from draw to
    draw. Client j of the new pool is the same one for every factor. Its id is j.
    """
    wanted = max(round(factor * len(pool)), 1)
    ids = np.arange(wanted, dtype=np.int64)
    words = draw(np, key, Purpose.POPULATION, ordinal=0, client=ids, window=0, item=WHO)
    rate = mean_rps(pool)
    active = np.flatnonzero(rate > 0)
    if not len(active):
        raise OptionError("a pool with requests, to draw its clients", "silence throughout", "give another pool")
    source = active[np.minimum((uniform52(np, words[0], words[1]) * len(active)).astype(np.int64), len(active) - 1)]
    total = math.fsum(rate.tolist()) / math.fsum(rate[source].tolist())
    return changed(pool, client_ids=ids, profile=pool.profile[source], rate_factor=pool.rate_factor[source] * total)


def grown(pool: ClientPool, growth: float) -> ClientPool:
    """New clients beside the old ones, each like one of them, as many as `growth` says; everyone at 1 / `growth`.

    Beside every client there are as many new ones as `growth` - 1 has whole parts, and one more that sends the rest. At
    `growth` times the rate, the old clients send the requests that they sent before.
    """
    if growth == 1:
        return pool
    whole = int(growth - 1)
    parts = np.array([1.0, *[1.0] * whole, *([growth - 1 - whole] if growth - 1 > whole else [])]) / growth
    step = int(pool.client_ids[-1]) + 1
    if step * len(parts) > MAX_CLIENT_ID:
        most = MAX_CLIENT_ID // step
        got = f"{growth:g} with client ids up to {step - 1:,}"
        raise OptionError(f"growth up to {most}, so that new clients have ids below 2**31", got, "renumber the clients")
    return changed(
        pool,
        client_ids=(pool.client_ids + step * np.arange(len(parts))[:, None]).ravel(),
        profile=np.tile(pool.profile, len(parts)),
        rate_factor=(parts[:, None] * pool.rate_factor).ravel(),
    )


def own_top_share(pool: ClientPool) -> float:
    """Share of the requests of the ten largest clients, over the data."""
    _, share = _top(pool)
    return share


def with_top_share(pool: ClientPool, share: float) -> ClientPool:
    """The ten clients that are the largest now send a share of all requests, in the proportions that they have."""
    top, own = _top(pool)
    factor = np.full(len(pool), (1.0 - share) / (1.0 - own))
    factor[top] = share / own
    return changed(pool, rate_factor=pool.rate_factor * factor)


def _top(pool: ClientPool) -> tuple[NDArray[np.intp], float]:
    rate = mean_rps(pool)
    if np.count_nonzero(rate) <= TOP:
        raise OptionError(
            f"more than {TOP} clients with requests, for the share of the top ten",
            f"{np.count_nonzero(rate)} in {pool.name}",
            "leave out top_share",
        )
    least = np.partition(rate, -TOP)[-TOP]
    largest = np.flatnonzero(rate >= least)
    top = largest[np.argsort(-rate[largest], kind="stable")[:TOP]]  # of equals those with the smaller ids
    return top, math.fsum(rate[top].tolist()) / math.fsum(rate.tolist())


def own_conversation_share(pool: ClientPool) -> float:
    """Share of the requests that belong to conversations, over the data."""
    shares = np.array([*(model.share for model in pool.turn_models), 0.0])[pool.turn_model[pool.profile]]  # -1 is last
    rate = mean_rps(pool)
    own = math.fsum((rate * shares).tolist()) / max(math.fsum(rate.tolist()), 1e-300)
    if own <= 0:
        raise OptionError(
            "a pool with conversations, for their share of the requests",
            f"{pool.name} without any",
            "give it some with pool.with_conversations(model) (--conversations), or leave out conversation_share",
        )
    return own


def with_conversation_share(pool: ClientPool, share: float) -> ClientPool:
    """A share of all requests belong to conversations: those of all clients change in proportion."""
    own = own_conversation_share(pool)
    used = [pool.turn_models[row].share for row in np.unique(pool.turn_model[pool.profile]) if row >= 0]
    most = own / max(used)
    if share > most * (1 + 1e-9):
        raise OptionError(
            f"conversation_share up to {most:.4g}, where some clients have nothing but conversations",
            f"{share:g} in {pool.name}, whose own is {own:.4g}",
            "lower it",
        )
    return changed(pool, turn_models=tuple(_with_share(model, share / own) for model in pool.turn_models))


def _with_share(model: TurnModel, factor: float) -> TurnModel:
    """The model with another share; its tables, which took time to make, hold for it too."""
    new = copy.copy(model)
    object.__setattr__(new, "share", min(model.share * factor, 1.0))
    return new
