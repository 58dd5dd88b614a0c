"""Requests' fields from one draw.

ServeGen draws all scalar fields of a request from one uniform, so a request's fields depend on that uniform alone: the
distributions of a slot, joined at all their steps, are one distribution over *joint bins*, each with a value for every
field. The package draws the joint bin where it would draw a length, and any set of fields fits.

Axes: kinds (sets of fields), slots, joint bins (of all slots, one behind the other).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.compat.errors import InputError
from servegen_gpu.compat.grid import RATIO, Datasets, ratio_of
from servegen_gpu.request.schema import MODALITIES
from servegen_gpu.request.tables import WORDS, Tables

COUNTS = tuple(f"{modality}_count" for modality in MODALITIES)
ITEMS = tuple(f"{modality}_tokens" for modality in MODALITIES)


@dataclass(frozen=True, eq=False)
class Column:
    """Values of one field. Requests share the Python numbers: fewer of them, which stay in the processor's cache.

    Attributes
    ----------
    numbers : object[distinct values]
        Python numbers.
    code : int32[joint bins]
        Which of them.
    """

    numbers: NDArray[np.object_]
    code: NDArray[np.int32]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Column:
        """A column of the given values."""
        distinct, code = np.unique(values, return_inverse=True)
        numbers: NDArray[np.object_] = np.empty(len(distinct), np.object_)
        numbers[:] = distinct.tolist()
        return cls(numbers, code.astype(np.int32))

    def at(self, rows: NDArray[np.int32]) -> list[Any]:
        """The values of joint bins."""
        values: list[Any] = self.numbers[self.code[rows]].tolist()
        return values


@dataclass(frozen=True, eq=False)
class Kind:
    """The fields of requests that have the same.

    Attributes
    ----------
    scalars : dict of str to Column
        Values by joint bin.
    names : tuple of str
        Fields in order, scalars and lists.
    lists : tuple of str
        Which of them are lists of items.
    """

    scalars: dict[str, Column]
    names: tuple[str, ...]
    lists: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Joint:
    """Joint distributions of some slots.

    Attributes
    ----------
    tables : Tables
        One for each slot; its values are joint bins.
    kinds : list of Kind
    kind : int64[joint bins]
        Which kind a joint bin belongs to.
    """

    tables: Tables
    kinds: list[Kind]
    kind: NDArray[np.int64]


def join_fields(datasets: Datasets, slots: NDArray[np.int64]) -> Joint:
    """Join the fields of slots.

    Parameters
    ----------
    datasets : Datasets
    slots : int64[slots]
        Rows of `datasets`, ascending.
    """
    table = datasets.table[slots]
    has_items = (
        table[:, datasets.fields.index(COUNTS[0])] >= 0 if COUNTS[0] in datasets.fields else np.zeros(len(slots))
    )
    is_item = np.array([field in ITEMS for field in datasets.fields])
    drawn_once = (table >= 0) & ~(is_item & (has_items > 0)[:, None])
    keys = {
        f: _keys(datasets.tables, table[:, f], np.flatnonzero(drawn_once[:, f])) for f in range(len(datasets.fields))
    }
    joint = np.unique(np.concatenate([key for key, _ in keys.values()]))
    of_slot = (joint >> np.uint64(32)).astype(np.int64)
    sizes = np.bincount(of_slot, minlength=len(slots))
    if not sizes.all():
        raise InputError("at least one field in every dataset", "none", "fix the dataset")
    tables = Tables(
        np.concatenate(([0], np.cumsum(sizes))),
        np.arange(len(joint), dtype=np.int32),
        (joint & np.uint64(WORDS - 1)).astype(np.uint32),
    )
    with_items = np.concatenate((table >= 0, has_items[:, None] > 0), axis=1)
    sets, kind_of_slot = np.unique(with_items, axis=0, return_inverse=True)
    kind_of_slot = kind_of_slot.reshape(-1)
    values = {
        field: _values(datasets, field, *keys[f], joint) for f, field in enumerate(datasets.fields) if len(keys[f][0])
    }
    kinds = [
        _kind([f for f, there in zip(datasets.fields, row, strict=False) if there], bool(row[-1]), values)
        for row in sets
    ]
    return Joint(tables, kinds, kind_of_slot[of_slot])


def _kind(fields: Sequence[str], items: bool, values: dict[str, Column]) -> Kind:
    lists = ITEMS if items else ()
    names = [field for field in fields if not (items and field in COUNTS)]
    names += [field for field in lists if field not in names]
    return Kind({name: values[name] for name in names if name not in lists}, tuple(names), lists)


def _keys(
    tables: Tables, table: NDArray[np.int32], slots: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Slot and threshold of every bin of a field in one word, ascending, uint64[bins], and where the bins are."""
    starts = tables.offsets[table[slots]]
    sizes = tables.offsets[table[slots] + 1] - starts
    ends = np.cumsum(sizes)
    bins = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)
    slot = np.repeat(slots.astype(np.uint64), sizes)
    return (slot << np.uint64(32)) | tables.thresholds[bins], bins


def _values(
    datasets: Datasets, field: str, keys: NDArray[np.uint64], bins: NDArray[np.int64], joint: NDArray[np.uint64]
) -> Column:
    """Value of a field in every joint bin; where a slot lacks the field, something."""
    at = bins[np.minimum(np.searchsorted(keys, joint), len(keys) - 1)]
    values: NDArray[Any] = datasets.tables.values[at]
    if field == RATIO:
        size = datasets.size[np.searchsorted(datasets.tables.offsets, at, side="right") - 1]
        values = ratio_of(values, np.maximum(size, 2))
    return Column.of(values)


def requests_data(joint: Joint, rows: NDArray[np.int32], lists: dict[str, list[list[int]]]) -> list[dict[str, Any]]:
    """``data`` of every request.

    Parameters
    ----------
    joint : Joint
    rows : int32[requests]
        Joint bin of each.
    lists : dict of str to list of list
        Items of each request by field; empty where no request has any.
    """
    if len(joint.kinds) == 1:
        return _dicts(joint.kinds[0], rows, lists)
    found: NDArray[np.object_] = np.empty(len(rows), np.object_)
    kind = joint.kind[rows]
    for k, of_kind in enumerate(joint.kinds):
        chosen = np.flatnonzero(kind == k)
        some = {name: [lists[name][i] for i in chosen.tolist()] for name in of_kind.lists}
        found[chosen] = _dicts(of_kind, rows[chosen], some)
    made: list[dict[str, Any]] = found.tolist()
    return made


def _dicts(kind: Kind, rows: NDArray[np.int32], lists: dict[str, list[list[int]]]) -> list[dict[str, Any]]:
    """One dictionary a request; written out for the usual numbers of fields, as that takes a third of the time."""
    columns = [lists[name] if name in kind.lists else kind.scalars[name].at(rows) for name in kind.names]
    if len(columns) == 2:
        (a, b), (xs, ys) = kind.names, columns
        return [{a: x, b: y} for x, y in zip(xs, ys, strict=True)]
    if len(columns) == 3:
        (a, b, c), (xs, ys, zs) = kind.names, columns
        return [{a: x, b: y, c: z} for x, y, z in zip(xs, ys, zs, strict=True)]
    if len(columns) == 5:
        (a, b, c, d, e), (vs, ws, xs, ys, zs) = kind.names, columns
        return [{a: v, b: w, c: x, d: y, e: z} for v, w, x, y, z in zip(vs, ws, xs, ys, zs, strict=True)]
    return [dict(zip(kind.names, row, strict=True)) for row in zip(*columns, strict=True)]
