"""Histograms as text, ``"{45: 0.0096, 46: 0.0117}"``, read in bulk without running anything.

The texts become lines ``45,0.0096`` by swapping two characters, and Arrow parses all of them at once. Texts that do
not survive this, or that hold wrong numbers, are read again one by one to name the first culprit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import ProfileError
from servegen_gpu.request.schema import MAX_TOKENS, RATIO_STEPS
from servegen_gpu.request.tables import Tables

SUM_TOLERANCE = 1e-6
FIX = "fix the file, or download it again"

_TO_LINES = bytes.maketrans(b",:", b"\n,")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Bins = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def parse_histograms(texts: Sequence[str], is_ratio: NDArray[np.bool_], where: Callable[[int], str]) -> Tables:
    """Length tables from histogram texts.

    Parameters
    ----------
    texts : sequence of str
        At least one; keys in any order but each once, probabilities that sum to 1 within 1e-6.
    is_ratio : bool[texts]
        True where keys are ratios from 0 to 1, stored as ``k = rint(key * 501)`` (keys off that grid are rounded to
        it); elsewhere keys are whole numbers from 0 to 2**31 - 1.
    where : callable
        The place of a text by its index, for messages.
    """
    bins = _parse(texts)
    if bins is None or _any_fault(*bins, is_ratio):
        raise _culprit(texts, is_ratio, where)
    offsets, keys, weights = bins
    sizes = np.diff(offsets)
    if is_ratio.any():
        keys = np.where(np.repeat(is_ratio, sizes), np.rint(keys * RATIO_STEPS), keys)
    ascending = np.diff(keys) > 0
    ascending[offsets[1:-1] - 1] = True
    if not ascending.all():
        offsets, keys, weights = _sort_and_merge(offsets, keys, weights)
    return Tables.from_weights(offsets, keys.astype(np.int32), weights)


def _parse(texts: Sequence[str]) -> Bins | None:
    """Offsets int64[texts + 1], keys and weights float64[bins]; None if a text is not a histogram."""
    import pyarrow as pa
    from pyarrow import csv

    if not all(text[:1] == "{" and text[-1:] == "}" for text in texts):
        return None
    sizes = np.array([text.count(",") + 1 for text in texts], np.int64)
    try:
        lines = ",".join([text[1:-1] for text in texts]).encode("ascii").translate(_TO_LINES)
        table = csv.read_csv(
            pa.BufferReader(lines),
            read_options=csv.ReadOptions(column_names=["key", "weight"]),
            parse_options=csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types={"key": pa.float64(), "weight": pa.float64()}, null_values=[]
            ),
        )
    except (UnicodeEncodeError, pa.ArrowException):
        return None
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    if table.num_rows != offsets[-1]:  # line ends inside a text
        return None
    return offsets, table["key"].to_numpy(), table["weight"].to_numpy()


def _any_fault(
    offsets: NDArray[np.int64], keys: NDArray[np.float64], weights: NDArray[np.float64], is_ratio: NDArray[np.bool_]
) -> bool:
    """Whether any histogram is at fault: the rules of `_check_text`, on whole columns."""
    sizes = np.diff(offsets)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(weights, offsets[:-1])
        top = np.where(is_ratio, 1.0, float(MAX_TOKENS))
        whole = np.rint(keys) == keys
        if is_ratio.any():
            whole |= np.repeat(is_ratio, sizes)
        fine = (
            whole.all()
            and (keys >= 0).all()
            and (np.maximum.reduceat(keys, offsets[:-1]) <= top).all()
            and (weights >= 0).all()
            and (np.abs(sums - 1) <= SUM_TOLERANCE).all()
        )
    if not fine:
        return True
    ascending = np.diff(keys) > 0
    ascending[offsets[1:-1] - 1] = True
    if ascending.all():
        return False
    table = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((keys, table))
    twice = (np.diff(keys[order]) == 0) & (np.diff(table[order]) == 0)
    return bool(twice.any())


def _sort_and_merge(offsets: NDArray[np.int64], keys: NDArray[np.float64], weights: NDArray[np.float64]) -> Bins:
    """Bins in ascending order of keys; ratios that fall on one step of the grid become one bin."""
    table = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((keys, table))
    table, keys, weights = table[order], keys[order], weights[order]
    first = np.concatenate(([True], (np.diff(keys) != 0) | (np.diff(table) != 0)))
    starts = np.flatnonzero(first)
    sizes = np.bincount(table[starts], minlength=len(offsets) - 1)
    return np.concatenate(([0], np.cumsum(sizes))), keys[starts], np.add.reduceat(weights, starts)


def _culprit(texts: Sequence[str], is_ratio: NDArray[np.bool_], where: Callable[[int], str]) -> ProfileError:
    """The first fault among texts that the fast path refused."""
    for n, text in enumerate(texts):
        fault = _check_text(text, bool(is_ratio[n]))
        if fault is not None:
            expected, got = fault
            return ProfileError(expected, f"{got} {where(n)}", FIX)
    return ProfileError("histograms that Arrow can read", f"others from {where(0)} on", FIX)


def _check_text(text: str, is_ratio: bool) -> tuple[str, str] | None:
    """What was expected and what came at the first fault of a histogram text."""
    if text[:1] != "{" or text[-1:] != "}":
        return "a histogram {key: probability, ...}", _quote(text)
    seen: set[float] = set()
    total = 0.0
    for pair in text[1:-1].split(","):
        key_text, colon, weight_text = (part.strip(" \t") for part in pair.partition(":"))
        key, weight = _number(key_text), _number(weight_text)
        if not colon or key is None:
            return "a histogram {key: probability, ...}", f"{_quote(pair)}"
        if is_ratio and not 0 <= key <= 1:
            return "ratios from 0 to 1", f"{_quote(key_text)}"
        if not is_ratio and (key != int(key) or not 0 <= key <= MAX_TOKENS):
            return "whole numbers from 0 to 2**31 - 1", f"{_quote(key_text)}"
        if key in seen:
            return "each key once", f"{_quote(key_text)} twice"
        if weight is None or weight < 0:
            return "a finite probability >= 0", f"{_quote(weight_text)} of {_quote(key_text)}"
        seen.add(key)
        total += weight
    if abs(total - 1) > SUM_TOLERANCE:
        return "probabilities that sum to 1", f"a sum of {total:.9g}"
    return None


def _number(text: str) -> float | None:
    """A finite decimal number, or None."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
