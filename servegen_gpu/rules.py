"""Which law: the rules that a user chooses by name, checked."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.law.dependence import KINDS, is_rank_correlation, mixing_matrix

COUNT_RULES = ("auto", "exact", "renewal", "servegen")
OCCUPANCIES = ("profile", "window")
EMPTIES = ("error", "skip")
PAST_ENDS = ("wrap", "end")


class CountRule(IntEnum):
    """How the number of requests in a cell comes about (law, section 2)."""

    EXACT = 0
    RENEWAL = 1
    SERVEGEN = 2


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise OptionError(f"{name} among {', '.join(choices)}", repr(value), "choose one of them")


def check_rules(counts: str, dependence: str, occupancy: str, empty: str, past_end: str) -> None:
    """Refuse unknown names of rules."""
    check_choice("counts", counts, COUNT_RULES)
    check_choice("dependence", dependence, KINDS)
    check_choice("occupancy", occupancy, OCCUPANCIES)
    check_choice("empty", empty, EMPTIES)
    check_choice("past_end", past_end, PAST_ENDS)


def count_rules(counts: str, measured: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Rule of every profile, uint8[profiles]; ``auto`` keeps the counts of measured ones."""
    if counts == "auto":
        return np.where(measured, CountRule.EXACT, CountRule.RENEWAL).astype(np.uint8)
    return np.full(len(measured), CountRule[counts.upper()], np.uint8)


def mixing(dependence: str, spearman: NDArray[np.float64] | None, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Mixing matrix of the copula, after checking that a matrix was given exactly when it is needed."""
    if dependence != "copula":
        if spearman is not None:
            raise OptionError(
                "a rank correlation only with dependence='copula'", f"dependence={dependence!r}", "drop one of the two"
            )
        return np.eye(len(names))
    if spearman is None:
        raise OptionError("a rank correlation for the copula", "none", "pass rank_correlation=")
    try:
        matrix = np.asarray(spearman, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)  # ragged, or no numbers at all
    if matrix.shape != (len(names), len(names)) or not is_rank_correlation(matrix):
        raise OptionError(
            f"a symmetric matrix of Spearman correlations in [-1, 1] for {names}, ones on the diagonal",
            repr(spearman.tolist() if isinstance(spearman, np.ndarray) else spearman),
            "mend rank_correlation",
        )
    return mixing_matrix(matrix)
