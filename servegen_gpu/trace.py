"""What comes out: one row per request, in time order, held as columns.

No Python object per request exists at any size. Columns are NumPy arrays, or `Ragged` for a column of lists, and go to
pandas, Arrow and DLPack without a copy where the other side allows it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.digest import Digest
from servegen_gpu.errors import ColumnError, OptionError
from servegen_gpu.request import by_hand
from servegen_gpu.request.columns import MAX_LIST_ITEMS, Column, Ragged, rows_between, take

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from servegen_gpu.exports.export import ExportOptions
    from servegen_gpu.formats import WriteSummary
    from servegen_gpu.plotting.plots import Plots

PROVENANCE_KEY = b"servegen_gpu"
FIRST_ROW_KEY = b"servegen_gpu.first_row"


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Trace:
    """Requests in time order: a whole trace, or one slab of a stream.

    Made by hand, ``Trace({"arrival_us": …, "input_tokens": …})`` takes arrays, Series and lists; whole numbers become
    integers of the right type, lists of lists become `Ragged`, and what is no trace is refused with row and value.
    `Trace.sorted` takes rows in any order.

    Attributes
    ----------
    columns : dict of str to array or Ragged
        In order: ``arrival_us`` int64 (microseconds from the start of the trace), ``client`` int32, ``input_tokens``
        and ``output_tokens`` int32. Reasoning adds ``reason_tokens``; multimodal has ``text_tokens`` and the lists
        ``image_tokens``, ``audio_tokens``, ``video_tokens``, with ``input_tokens`` their sum (and the history, where
        conversations grow by it). Each is one NumPy array
        and exports ``__dlpack__`` (``torch.from_dlpack(trace["arrival_us"])`` shares its memory); columns that we
        make or read are writable, because older NumPy refuses to export read-only ones.
    provenance : mapping of str to JSON value
        What made the trace: enough to make it again.
    first_row : int
        Number of the first row in the whole trace. The row number is the request id.
    """

    columns: dict[str, Column]
    provenance: Mapping[str, Any]
    first_row: int

    def __init__(
        self, columns: Mapping[str, Any], provenance: Mapping[str, Any] | None = None, first_row: int = 0
    ) -> None:
        own = by_hand.columns_of(columns, first_row)
        about = {} if provenance is None else provenance
        by_hand.check(own, about, first_row)
        vars(self).update(columns=own, provenance=about, first_row=first_row)

    @classmethod
    def trusted(
        cls, columns: dict[str, Column], provenance: Mapping[str, Any] | None = None, first_row: int = 0
    ) -> Trace:
        """A trace of columns that are right by construction: nothing is looked at, however many rows there are."""
        trace = cls.__new__(cls)
        about = {} if provenance is None else provenance
        vars(trace).update(columns=columns, provenance=about, first_row=first_row)
        return trace

    @classmethod
    def sorted(
        cls, columns: Mapping[str, Any], provenance: Mapping[str, Any] | None = None, first_row: int = 0
    ) -> Trace:
        """A trace made by hand from rows in any order; those that arrive at the same time keep theirs."""
        own = by_hand.columns_of(columns, first_row)
        time_us = own.get("arrival_us")
        if not isinstance(time_us, np.ndarray):
            raise OptionError("a column arrival_us to sort by", f"columns {', '.join(own)}", "add it")
        return cls(take(own, np.argsort(time_us, kind="stable")), provenance, first_row)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str | slice) -> Any:
        """A column by its name; or the requests of a slice, such as ``trace[:10]``, numbered anew, as a trace."""
        if isinstance(name, slice):
            from servegen_gpu.cutting import rows_of

            return rows_of(self, name)
        if not isinstance(name, str):
            fix = "take one request as trace[5:6], and those of a mask as trace.where(mask)"
            raise OptionError("the name of a column, or a slice", repr(name)[:60], fix)
        if name not in self.columns:
            there = f"the columns {', '.join(self.columns)}"
            raise ColumnError(f"a column {name!r}", there, "give a trace that has it")
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __repr__(self) -> str:
        named = ", ".join(self.columns)
        until = ""
        if len(self) and "arrival_us" in self.columns:
            first, last = (int(self["arrival_us"][at]) / 1e6 for at in (0, -1))
            until = f" from {first:.3f} s to {last:.3f} s"
        return f"<Trace: {len(self):,} requests{until} ({named})>"

    def __str__(self) -> str:
        from servegen_gpu.describe import first_rows

        return f"{self!r}\n{first_rows(self)}" if len(self) and self.columns else repr(self)

    def _repr_html_(self) -> str:
        from servegen_gpu.reporting.notebook import summary_html

        return summary_html(self)

    @property
    def plot(self) -> Plots:
        """Pictures of this trace, as ``trace.plot.gaps()``: see `servegen_gpu.plotting.plots.Plots`."""
        from servegen_gpu.plotting.plots import Plots

        return Plots(self)

    def rows(self, lo: int, hi: int) -> Trace:
        """Rows `lo` to `hi` (exclusive) as views, counted from the first row of this object."""
        lo, hi, _ = slice(lo, hi).indices(len(self))
        return Trace.trusted(rows_between(self.columns, lo, hi), self.provenance, self.first_row + lo)

    def take(self, rows: NDArray[np.integer]) -> Trace:
        """The rows at given numbers, counted from the first row of this object, in their order and numbered anew."""
        return Trace.trusted(
            {n: c.take(rows) if isinstance(c, Ragged) else c[rows] for n, c in self.columns.items()}, self.provenance
        )

    def rescaled(
        self, factor: float, method: Literal["itt", "naive"] = "itt", *, tails: Literal["keep", "cut"] = "keep"
    ) -> Trace:
        """The same requests at `factor` times the rate; see `servegen_gpu.rescale`."""
        from servegen_gpu.scaling import rescale

        return rescale(self, factor, method, tails=tails)

    def between(
        self, start: float | str | None = None, end: float | str | None = None, *, keep_times: bool = False
    ) -> Trace:
        """The requests that arrive from `start` up to, not at, `end`; see `servegen_gpu.between`."""
        from servegen_gpu.scaling import between

        return between(self, start, end, keep_times=keep_times)

    def thinned(self, share: float, *, seed: int = 0) -> Trace:
        """A share of the conversations, or of the requests where there are none; see `servegen_gpu.thin`."""
        from servegen_gpu.scaling import thin

        return thin(self, share, seed=seed)

    def head(self, n: int = 5) -> Trace:
        """The first `n` requests, all if there are fewer; see `servegen_gpu.head`."""
        from servegen_gpu.cutting import head

        return head(self, n)

    def limited(
        self, *, max_input: int | None = None, max_output: int | None = None, over: Literal["cap", "drop"] = "cap"
    ) -> Trace:
        """Requests above a number of tokens capped, or left out; see `servegen_gpu.limit`."""
        from servegen_gpu.cutting import limit

        return limit(self, max_input=max_input, max_output=max_output, over=over)

    def where(self, keep: Any) -> Trace:
        """The requests for which a mask or a predicate holds, numbered anew; times and duration stay.

        Parameters
        ----------
        keep : bool[n], Series, or function of the trace
            A function returns one.

        Examples
        --------
        >>> trace.where(trace["input_tokens"] < 4096)
        >>> trace.where(lambda t: (t["client"] == 3) | (t["output_tokens"] > 100))
        """
        from servegen_gpu.cutting import where

        return where(self, keep)

    @staticmethod
    def concat(parts: Sequence[Trace]) -> Trace:
        """All rows of `parts`, in order, in memory of their own.

        Parts are slabs of one trace, whose provenance is that of the first; or all shares ``1/n`` to ``n/n`` of a
        trace, each whole or in slabs, which together are the trace ``1/1``.

        Raises
        ------
        OptionError
            If there are none, columns differ, or shares do not make a trace.
        """
        if not parts:
            raise OptionError("at least one slab", "none", "an empty slab will do")
        first = parts[0]
        provenance = first.provenance
        if any(part.provenance.get("shard") != provenance.get("shard") for part in parts):
            provenance = _whole_of(parts)
        for part in parts:
            if part.schema() != first.schema():
                raise OptionError(f"columns {first.schema()}", f"{part.schema()}", "join slabs of one trace only")
        joined: dict[str, Column] = {}
        for name, column in first.columns.items():
            if isinstance(column, Ragged):
                joined[name] = Ragged.concat([part[name] for part in parts])
            else:
                joined[name] = np.concatenate([part[name] for part in parts])
        return Trace.trusted(joined, provenance, first.first_row)

    def schema(self) -> dict[str, str]:
        """Type of each column in order, such as ``"int64"`` or ``"list<int32>"``."""
        return {
            name: f"list<{c.values.dtype}>" if isinstance(c, Ragged) else str(c.dtype)
            for name, c in self.columns.items()
        }

    def header(self) -> bytes:
        """Provenance as canonical JSON (sorted keys, no spaces, UTF-8; names of files that are not, as escapes)."""
        text = json.dumps(
            dict(self.provenance), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode(errors="backslashreplace")

    def digest(self) -> Digest:
        """Digest of the rows, whatever file or memory they are in; see `servegen_gpu.digest`."""
        return Digest.of(self.columns)

    def to_arrow(self) -> pa.Table:
        """An Arrow table on the same memory (list offsets are converted); no field is nullable.

        Provenance is in the schema's metadata, as canonical JSON under ``servegen_gpu``.
        """
        import pyarrow as pa

        lists = [column for column in self.columns.values() if isinstance(column, Ragged)]
        if len(self) > 1 and any(len(column.values) > MAX_LIST_ITEMS for column in lists):
            middle = len(self) // 2
            parts = [part.to_arrow() for part in (self.rows(0, middle), self.rows(middle, len(self)))]
            return pa.concat_tables([parts[0], parts[1].replace_schema_metadata(parts[0].schema.metadata)])
        arrays = [arrow_array(column) for column in self.columns.values()]
        fields = [pa.field(name, a.type, nullable=False) for name, a in zip(self.columns, arrays, strict=True)]
        metadata = {PROVENANCE_KEY: self.header(), FIRST_ROW_KEY: str(self.first_row).encode()}
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata))

    def to_pandas(self) -> pd.DataFrame:
        """A frame on the same memory, indexed by request id; lists are Arrow columns, not Python objects."""
        import pandas as pd

        series: dict[str, Any] = {
            name: pd.arrays.ArrowExtensionArray(arrow_array(column)) if isinstance(column, Ragged) else column
            for name, column in self.columns.items()
        }
        index = pd.RangeIndex(self.first_row, self.first_row + len(self), name="request")
        return pd.DataFrame(series, index=index, copy=False)

    def with_hash_ids(
        self, block_tokens: int = 512, *, system_tokens: Any = 0, seed: int = 0, dense: bool = False
    ) -> Trace:
        """This trace with one more column: ``hash_ids``, ids of the blocks of every input (list of int64).

        Parameters are those of `servegen_gpu.hash_ids`; provenance notes them.
        """
        from servegen_gpu.prefixes import with_hash_ids
        from servegen_gpu.prefixes.ids import rule_of

        return with_hash_ids(self, rule_of(block_tokens, system_tokens, seed, dense))

    def with_dense_ids(self) -> Trace:
        """This trace with its conversations and blocks numbered 0, 1, 2, …; see `servegen_gpu.dense_ids`."""
        from servegen_gpu.prefixes.dense import dense_ids

        return next(dense_ids([self]))

    def write(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        options: ExportOptions | None = None,
        *,
        overwrite: bool = False,
    ) -> WriteSummary:
        """Write to a file, a directory of Parquet parts, or as another program reads it; see `servegen_gpu.write`.

        A file of others is replaced only with `overwrite`. Columns are looked at once more before: arrays can be
        changed in place.
        """
        from servegen_gpu.exports import write

        by_hand.check(self.columns, self.provenance, self.first_row)
        return write(self, path, format, options, overwrite=overwrite)

    @staticmethod
    def read(path: str | os.PathLike[str], format: str | None = None) -> Trace:
        """Read what `write` wrote."""
        return read_trace(path, format)


def _whole_of(parts: Sequence[Trace]) -> dict[str, Any]:
    """Provenance of the trace that shares make, each of them one part or more."""
    from servegen_gpu.provenance import whole_of

    heads: list[Trace] = []
    rows = 0  # of the share so far
    for part in parts:
        begins = not heads or part.provenance.get("shard") != heads[-1].provenance.get("shard")
        if begins:
            heads.append(part)
            rows = 0
        if part.first_row != rows:
            raise OptionError(
                f"row {rows:,} of share {part.provenance.get('shard')} next",
                f"row {part.first_row:,}",
                "join every share once, with all of its slabs in order",
            )
        rows += len(part)
    return whole_of([head.provenance for head in heads], [f"part {at}" for at in range(1, len(heads) + 1)])


def arrow_array(column: Column) -> pa.Array:
    """A column as one Arrow array; list items are not nullable."""
    import pyarrow as pa

    if not isinstance(column, Ragged):
        return arrow_numbers(column)
    items = arrow_numbers(column.values)
    type_ = pa.list_(pa.field("element", items.type, nullable=False))
    return pa.ListArray.from_arrays(arrow_numbers(column.offsets.astype(np.int32)), items, type=type_)


def arrow_numbers(numbers: NDArray[Any]) -> pa.Array:
    """Integers as an Arrow array on the same memory.

    ``pa.array`` would import pandas, to see whether it is given a series: 0.15 s of every first command.
    """
    import pyarrow as pa

    if numbers.dtype.kind not in "iu":
        return pa.array(numbers)
    numbers = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [None, pa.py_buffer(numbers)])


def from_arrow(table: pa.Table, provenance: Mapping[str, Any], first_row: int, source: os.PathLike[str]) -> Trace:
    """A trace from integer and list columns without nulls, in writable memory of its own."""
    import pyarrow as pa

    columns: dict[str, Column] = {}
    for field_, column in zip(table.schema, table.columns, strict=True):
        ragged = pa.types.is_list(field_.type)
        item = field_.type.value_type if ragged else field_.type
        nulls = column.null_count + sum(chunk.flatten().null_count for chunk in column.chunks if ragged)
        if not pa.types.is_integer(item) or nulls or field_.name in columns:
            raise OptionError(
                "columns of integers or lists of integers, without nulls, each once",
                f"{field_.name!r} of {field_.type} with {nulls:,} nulls in {source}",
                "give a trace that this package wrote",
            )
        if ragged:
            offsets = np.zeros(len(column) + 1, np.int64)
            lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
            np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int32)]), out=offsets[1:])
            flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=field_.type.value_type)
            columns[field_.name] = Ragged(offsets, _own(flat))
        else:
            columns[field_.name] = _own(column)
    return Trace.trusted(columns, provenance, first_row)


def _own(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of integers as one writable array, on the memory that a parser has made for it if that is one piece."""
    array: NDArray[Any] = column.to_numpy()
    if array.flags.writeable:
        return array
    (chunk,) = column.chunks
    values = chunk.buffers()[1]
    if values is None or not values.is_mutable:
        return array.copy()
    return np.frombuffer(values, array.dtype, len(chunk), chunk.offset * array.itemsize)


def read_trace(
    path: Any,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    unit: Literal["s", "ms", "us", "ns", "iso"] | None = None,
    missing: Literal["error", "drop"] = "error",
) -> Trace:
    """Read a trace: one that this package wrote, one of another program, or any table of requests.

    A trace of others is counted from its first request and sorted; ``trace.provenance["note"]`` says what was assumed,
    repaired and left out.

    Parameters
    ----------
    path : path, or table of pandas, polars or Arrow
        A Parquet file, a directory of parts, CSV, JSON lines or a JSON array; text also in gzip or zstd.
    format : str, optional
        A name of `servegen_gpu.formats.FORMATS` or of another program's format, such as ``"mooncake"``; by default, or
        as ``"auto"``, columns and values tell.
    columns : mapping of str to str, optional
        Columns by what they mean: ``{"time": "ts", "input": "prompt", "output": "completion"}``, and ``client``,
        ``session``, ``reason`` and ``hash_ids``. The others are looked for by usual names.
    unit : {"s", "ms", "us", "ns", "iso"}, optional
        Of times; by default names and values tell, and what is doubtful is refused.
    missing : {"error", "drop"}
        Refuse requests without a time or a length, or leave them out.

    Raises
    ------
    OptionError
        If something cannot be read or told; it names file, line, column and value.
    """
    from servegen_gpu.formats import read_slabs

    return Trace.concat(list(read_slabs(path, format, columns=columns, unit=unit, missing=missing)))
