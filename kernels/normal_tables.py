"""Writes normal_tables.h: the tables of law/normal.py for compilers, row by row.

    python kernels/normal_tables.py > kernels/normal_tables.h

Run it when the law's tables change; tests/test_kernels.py compares the two.
"""

from __future__ import annotations

import textwrap

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.normal import DEGREE, MASS, QUANTILE

HEAD = """\
// Equals the tables of law/normal.py, a row after the other. Written by normal_tables.py: do not edit.
#pragma once

#include "lane.h"

namespace SG_NAMESPACE {

"""


def header() -> str:
    """The text of normal_tables.h."""
    sizes = f"QUANTILE_ROWS = {QUANTILE.shape[1]}, MASS_ROWS = {MASS.shape[1]}"
    parts = [
        f"constexpr int NORMAL_TERMS = {DEGREE + 1}, {sizes};\n",
        _array("QUANTILE", QUANTILE),
        _array("MASS", MASS),
    ]
    return HEAD + "\n".join(parts) + "\n}  // namespace SG_NAMESPACE\n"


def _array(name: str, terms: NDArray[np.float64]) -> str:
    numbers = ", ".join(map(repr, terms.T.ravel().tolist()))
    lines = textwrap.fill(numbers, 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return f"SG_TABLE double {name}[{name}_ROWS * NORMAL_TERMS] = {{\n{lines}}};\n"


if __name__ == "__main__":
    print(header(), end="")  # noqa: T201
