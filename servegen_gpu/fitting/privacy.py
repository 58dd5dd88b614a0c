"""What a pool that was fitted to a log tells of single requests, taken out of it before it is shared.

A pool of counts is nearly the log: a length that occurs once is a request, and so are a client of three requests and
a window of one. After `private`, at least `least` requests stand behind all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.private_bins import private_tables
from servegen_gpu.fitting.private_clients import even_windows, groups_of, with_groups
from servegen_gpu.fitting.private_draft import Draft
from servegen_gpu.fitting.private_turns import private_model


@dataclass(frozen=True, eq=False)
class Behind:
    """How many requests of a log stand behind each part of a pool.

    Attributes
    ----------
    bins : int64[bins]
        Requests that were counted in each bin of ``pool.tables``; below 0 in tables that come of a few parameters,
        which tell of nobody.
    windows : int64[profiles, windows]
        Requests of all clients of a profile in each window.
    clients : int64[clients]
        Requests of each client.
    users : int64[clients], optional
        How many of those whom the log names stand behind each client, if it names them and they are to be protected:
        a client then needs as many users as requests.
    conversations : int
        Conversations of the log that models of conversations rest on; 0 if there are none, or models are stated.
    """

    bins: NDArray[np.int64]
    windows: NDArray[np.int64]
    clients: NDArray[np.int64]
    users: NDArray[np.int64] | None = None
    conversations: int = 0


@dataclass(frozen=True)
class Suppressed:
    """How much was taken out.

    Attributes
    ----------
    least : int
        Requests (or users) behind all that is left.
    bins_before, bins_after : int
        Of lengths.
    bin_share : float
        Share of all draws of a length that are of bins that were merged.
    clients, client_groups : int
        Clients that had too few, and how many kinds they became.
    client_share : float
        Their share of the requests.
    windows, window_share : int, float
        Windows of profiles that have the mean rate of several, and the share of the requests in them.
    turn_notes : tuple of str
        What became of models of conversations.
    """

    least: int
    bins_before: int
    bins_after: int
    bin_share: float
    clients: int
    client_groups: int
    client_share: float
    windows: int
    window_share: float
    turn_notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For a profile or a report: plain numbers and texts by name."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def notes(self) -> tuple[str, ...]:
        """In sentences."""
        said = [
            f"at least {self.least:,} requests stand behind every length, client and window: "
            f"{self.bins_before:,} bins of lengths became {self.bins_after:,} ({self.bin_share:.2%} of the draws)"
        ]
        if self.clients:
            said.append(
                f"{self.clients:,} clients with fewer ({self.client_share:.2%} of the requests) became "
                f"{self.client_groups:,} kinds of clients alike"
            )
        if self.windows:
            said.append(f"{self.windows:,} windows ({self.window_share:.2%} of the requests) have the rate of several")
        return (*said, *self.turn_notes)


def private(pool: ClientPool, behind: Behind, least: int = 10) -> tuple[ClientPool, Suppressed]:
    """The pool without anything that fewer than `least` requests stand behind.

    Small clients become groups of clients alike, with the mean rate and the lengths of all in the group, exponential
    gaps and ids as they were; windows with few requests have the mean rate of several; tables of few requests are
    merged with others of the same field, and then bins with their neighbours (`merged_bins`). Clients are renumbered
    0, 1, 2, … in their order, so that names can still be told by position.

    Parameters
    ----------
    pool : ClientPool
    behind : Behind
        Of this pool.
    least : int
        From 1, which changes nothing.

    Raises
    ------
    OptionError
        If the whole log has fewer requests, or users, than `least`.
    """
    if isinstance(least, bool) or not isinstance(least, int | np.integer) or least < 1:
        raise OptionError("min_count as a whole number from 1 on", repr(least)[:60], "change min_count")
    _check(pool, behind)
    if least == 1:
        return pool, Suppressed(1, len(pool.tables.values), len(pool.tables.values), 0.0, 0, 0, 0.0, 0, 0.0)
    total = max(int(behind.clients.sum()), 1)
    draft = Draft.of(pool, behind.bins, behind.windows)
    small, group = groups_of(behind.clients, behind.users, least)
    draft = with_groups(draft, pool.profile, pool.rate_factor, group) if small.any() else draft
    draft, window_count, in_windows = even_windows(draft, least)
    table, tables, bin_share = private_tables(draft, least)
    turned = [private_model(model, least, behind.conversations) for model in pool.turn_models]
    changed: dict[str, Any] = dict(draft.rows)
    pool = replace(
        pool,
        client_ids=np.arange(len(pool), dtype=np.int64),
        profile=draft.profile,
        rate_factor=np.where(small, 1.0, pool.rate_factor),
        turn_models=tuple(model for model, _ in turned),
        table=table,
        tables=tables,
        **changed,
    )
    return pool, Suppressed(
        least=int(least),
        bins_before=len(behind.bins),
        bins_after=len(pool.tables.values),
        bin_share=bin_share,
        clients=int(small.sum()),
        client_groups=int(group.max(initial=-1)) + 1,
        client_share=float(behind.clients[small].sum() / total),
        windows=window_count,
        window_share=in_windows / total,
        turn_notes=tuple(note for _, notes in turned for note in notes),
    )


def _check(pool: ClientPool, behind: Behind) -> None:
    """Refuse counts of another pool."""
    shapes = {
        "bins": (len(pool.tables.values),),
        "windows": pool.rate_rps.shape,
        "clients": (len(pool),),
        "users": (len(pool),),
    }
    for name, shape in shapes.items():
        counts = getattr(behind, name)
        if counts is not None and np.shape(counts) != shape:
            raise OptionError(
                f"counts behind {name} of shape {shape}", f"{np.shape(counts)}", "count them for this pool"
            )
