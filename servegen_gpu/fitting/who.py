"""Who sends the requests of a log, and what they are like: by ids, or latent clients; what carries dependence.

Axes: clients, profiles (of one client or of similar ones), fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.fitting.dependence import POOLED, Dependence, choose_dependence, label_spearman
from servegen_gpu.fitting.ids import identified, profile_spearman
from servegen_gpu.fitting.latent import Latent, first_blocks_of, latent_clients
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

WINDOW_US = 600_000_000
FAR = 6.0
"""Standard deviations of a chi-square that are beyond chance: requests of a burst are not independent of each other."""


@dataclass(frozen=True, eq=False)
class Who:
    """Clients of a log.

    Attributes
    ----------
    ids : int64[clients]
        What the log calls them; 0, 1, 2, … for latent ones.
    client : int64[requests]
        Row of `ids`.
    profile : int64[clients]
    profiles : int
    spearman : float64[profiles, fields, fields] or None
        Rank correlations to state; None if fields are independent.
    how, dependence : str
    energy : dict of str to float
    notes : tuple of str
    """

    ids: NDArray[np.int64]
    client: NDArray[np.int64]
    profile: NDArray[np.int64]
    profiles: int
    spearman: NDArray[np.float64] | None
    how: str
    dependence: str
    energy: dict[str, float]
    notes: tuple[str, ...]

    @property
    def label(self) -> NDArray[np.int64]:
        """Profile of each request, int64[requests]."""
        return self.profile[self.client]


def one_client(n: int, why: str) -> Who:
    """All requests from one client with independent fields."""
    zero = np.zeros(1, np.int64)
    return Who(zero, np.zeros(n, np.int64), zero, 1, None, why, "independent", {}, ())


def named_clients(trace: Trace, values: NDArray[np.int64], seed: int) -> Who:
    """Clients as the log names them."""
    found = identified(trace["client"], trace["input_tokens"], trace["output_tokens"], seed=seed)
    profiles = len(found.profile_sizes)
    chosen = choose_dependence(values, {"clients": found.label}, seed=seed)
    spearman = None
    if chosen.chosen.copula:
        spearman, _ = profile_spearman(values, found.label, profiles, seed=seed)
    what = "clients, with a copula each" if spearman is not None else "clients"
    return Who(
        found.ids,
        found.client.astype(np.int64),
        found.profile.astype(np.int64),
        profiles,
        spearman,
        f"{len(found):,} clients by their ids",
        what,
        _energy(chosen),
        found.notes,
    )


def latent(trace: Trace, values: NDArray[np.int64], begins: NDArray[np.bool_], most: int, seed: int) -> Who:
    """Latent clients, as many as carry the dependence of lengths, or of lengths and time."""
    ids = trace.columns.get("hash_ids")
    blocks = first_blocks_of(ids) if isinstance(ids, Ragged) else None
    talks = np.asarray(trace["conversation"], np.int64)

    def clusters(count: int) -> Latent:
        return latent_clients(trace.columns, first_blocks=blocks, conversation=talks, most=count, seed=seed)

    full = clusters(most)
    if len(full) == 1:
        chosen = choose_dependence(values, {}, seed=seed)
        return _of_latent(full, values, chosen, chosen.chosen.copula, "")
    several = {str(count): clusters(count) for count in sorted({max(most // 2, 2), most})}
    chosen = choose_dependence(values, {name: one.label for name, one in several.items()}, seed=seed)
    why = ""
    if chosen.chosen.labels == POOLED:
        # latent clients are for lengths that go with the rate or with conversations, too
        label = full.label[begins].astype(np.int64)
        window = np.asarray(trace["arrival_us"])[begins] // WINDOW_US
        if _differ(label, (talks[begins] >= 0).astype(np.int64)):
            why = ", which converse to different degrees"
        elif full.how == "first blocks" or _differ(label, window):
            why = ", which send at different times"
        else:
            one = Latent(np.zeros(len(trace), np.int32), np.array([len(trace)]), np.array([-1]), "one", ())
            return _of_latent(one, values, chosen, chosen.chosen.copula, "")
    labels = several.get(chosen.chosen.labels, full)
    return _of_latent(labels, values, chosen, chosen.chosen.copula, why)


def _differ(label: NDArray[np.int64], kind: NDArray[np.int64]) -> bool:
    """Whether labels differ in their kinds of requests, far beyond chance (chi-square)."""
    labels, kinds = int(label.max()) + 1, int(kind.max()) + 1
    seen = np.bincount(label * kinds + kind, minlength=labels * kinds).reshape(labels, kinds).astype(np.float64)
    seen = seen[:, seen.any(axis=0)]
    expected = seen.sum(axis=1)[:, None] * seen.sum(axis=0) / len(label)
    off = float(((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    free = max((labels - 1) * (seen.shape[1] - 1), 1)
    return bool(off > free + FAR * np.sqrt(2 * free))


def _of_latent(found: Latent, values: NDArray[np.int64], chosen: Dependence, copula: bool, why: str) -> Who:
    count = len(found)
    spearman = label_spearman(values, found.label.astype(np.int64), count) if copula else None
    what = "latent clients" if count > 1 else "none"
    if copula:
        what = "a copula" if count == 1 else "latent clients, with a copula each"
    return Who(
        np.arange(count),
        found.label.astype(np.int64),
        np.arange(count),
        count,
        spearman,
        (f"{count} latent clients by {found.how}" if count > 1 else "one client") + why,
        what,
        _energy(chosen),
        found.notes,
    )


def _energy(chosen: Dependence) -> dict[str, float]:
    names = {(POOLED, False): "independent", (POOLED, True): "copula"}
    found = {"floor": chosen.floor, "noise": chosen.noise}
    for one in chosen.candidates:
        inside = f"{one.labels} clients" if one.labels.isdecimal() else one.labels
        found[names.get((one.labels, one.copula), inside + ", copula" * one.copula)] = one.energy
    return found
