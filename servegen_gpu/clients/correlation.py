"""Rank correlations between the fields of a request, as a user states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.law.dependence import is_rank_correlation
from servegen_gpu.request.schema import FIELDS, scalar_field_count


def spearman_matrix(stated: Any, category: str) -> NDArray[np.float64]:
    """Spearman matrix of the fields that are drawn once per request.

    A matrix that no fields can have together is kept as it is; sampling repairs it (see `law.dependence`).

    Parameters
    ----------
    stated : mapping or float64[fields, fields]
        ``{"input_tokens:output_tokens": 0.3}`` or ``{("input_tokens", "output_tokens"): 0.3}``, others being 0; or the
        whole matrix.
    category : str

    Returns
    -------
    float64[scalar fields, scalar fields]
    """
    names = FIELDS[category][: scalar_field_count(category)]
    if isinstance(stated, Mapping):
        return _of_pairs(stated, names)
    try:
        matrix = np.array(stated, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)  # ragged, or no numbers at all
    if matrix.shape != (len(names), len(names)) or not is_rank_correlation(matrix):
        raise OptionError(
            f"a symmetric matrix of Spearman correlations in [-1, 1] for {', '.join(names)}, ones on the diagonal",
            str(stated)[:100],
            "fix rank_correlation",
        )
    return matrix


def _of_pairs(stated: Mapping[Any, Any], names: tuple[str, ...]) -> NDArray[np.float64]:
    matrix = np.eye(len(names))
    for pair, rho in stated.items():
        a, b = pair if isinstance(pair, tuple) and len(pair) == 2 else (*str(pair).split(":", 1), "")[:2]
        if a not in names or b not in names or a == b:
            raise OptionError(
                f"a pair such as {names[0]}:{names[1]}, of {', '.join(names)}", repr(pair), "fix rank_correlation"
            )
        real = isinstance(rho, int | float | np.integer | np.floating) and not isinstance(rho, bool)
        if not real or not -1 <= float(rho) <= 1:
            raise OptionError("a rank correlation from -1 to 1", f"{rho!r} of {a}:{b}", "fix rank_correlation")
        i, j = names.index(a), names.index(b)
        if matrix[i, j] not in (0, rho):
            raise OptionError("one rank correlation for a pair", f"{matrix[i, j]} and {rho} of {a}:{b}", "drop one")
        matrix[i, j] = matrix[j, i] = rho
    return matrix
