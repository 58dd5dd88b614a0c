"""Which law: the rules that a user chooses by name, checked."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.correlation import spearman_matrix
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.law.dependence import KINDS, mixing_matrix
from servegen_gpu.options import check_choice
from servegen_gpu.request.schema import scalar_field_count

COUNT_RULES = ("auto", "exact", "renewal", "servegen")
DEPENDENCE_KINDS = ("auto", *KINDS)
"""``auto`` is every client's own: the copula of its correlations, or independent fields."""

OCCUPANCIES = ("profile", "window")
EMPTIES = ("error", "skip")
PAST_ENDS = ("wrap", "end")


class CountRule(IntEnum):
    """How the number of requests in a cell comes about (law, section 2)."""

    EXACT = 0
    RENEWAL = 1
    SERVEGEN = 2


def check_rules(counts: str, dependence: str, occupancy: str, empty: str, past_end: str) -> None:
    """Refuse unknown names of rules."""
    check_choice("counts", counts, COUNT_RULES)
    check_choice("dependence", dependence, DEPENDENCE_KINDS)
    check_choice("occupancy", occupancy, OCCUPANCIES)
    check_choice("empty", empty, EMPTIES)
    check_choice("past_end", past_end, PAST_ENDS)


def count_rules(counts: str, measured: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Rule of every profile, uint8[profiles]; ``auto`` keeps the counts of measured ones."""
    if counts == "auto":
        return np.where(measured, CountRule.EXACT, CountRule.RENEWAL).astype(np.uint8)
    return np.full(len(measured), CountRule[counts.upper()], np.uint8)


def mixings(dependence: str, spearman: Any, pool: ClientPool) -> tuple[str, NDArray[np.float64], NDArray[np.int32]]:
    """What ties the fields of every profile's requests.

    Parameters
    ----------
    dependence : str
        Among `DEPENDENCE_KINDS`.
    spearman : mapping or float64[scalar fields, scalar fields], optional
        Of all clients, in any form of `spearman_matrix`; needed by ``copula``, refused elsewhere.
    pool : ClientPool

    Returns
    -------
    kind : str
        What sampling needs: ``copula`` only if it ties fields of some client.
    mixing : float64[mixings, scalar fields, scalar fields]
        Matrices of `mixing_matrix`; the first is the identity.
    mixing_of : int32[profiles]
        Row of `mixing`.
    """
    row = np.full(len(pool.rate_rps), -1)
    matrices = pool.correlations
    if dependence == "copula":
        if spearman is None:
            raise OptionError("a rank correlation for the copula", "none", "pass rank_correlation=")
        matrices, row = spearman_matrix(spearman, pool.category)[None], np.zeros_like(row)
    elif spearman is not None:
        raise OptionError(
            "a rank correlation only with dependence='copula'", f"dependence={dependence!r}", "drop one of the two"
        )
    elif dependence == "auto":
        row[pool.profile] = pool.correlation[pool.profile]
    used = np.unique(row[row >= 0])
    mixing = np.stack([np.eye(scalar_field_count(pool.category)), *(mixing_matrix(matrices[n]) for n in used)])
    of = np.where(row >= 0, np.searchsorted(used, row) + 1, 0)
    of = np.where((mixing != mixing[0]).any(axis=(1, 2))[of], of, 0)
    kind = "comonotone" if dependence == "comonotone" else "copula" if of.any() else "independent"
    return kind, mixing, of.astype(np.int32)
