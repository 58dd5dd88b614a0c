"""Mutators that know a format: values of JSON trees, cells of CSV, columns and metadata of Parquet, arrays of NPZ."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from fuzz import hostile, mutate

Structured = Callable[[bytes, Random], bytes]


def mutate_file(name: str, data: bytes, random: Random) -> tuple[bytes, str]:
    """The bytes of a file, changed by a mutator of its format, of text or of bytes; and what that was called."""
    suffix = name.rpartition(".")[2]
    structured, text = STRUCTURED.get(suffix, ()), suffix in TEXT_SUFFIXES
    choice = random.random()
    if structured and choice < 0.6:
        how = random.choice(structured)
        return how(data, random), how.__name__
    if text and choice < 0.85:
        token = random.choice(mutate.TEXT)
        return token(data, random, "json" if suffix == "jsonl" else suffix), token.__name__
    plain = random.choice(mutate.BYTES)
    return plain(data, random), plain.__name__


# --- JSON


def json_value(data: bytes, random: Random) -> bytes:
    """One place of the tree is missing, hostile, doubled, renamed, or has something more beside it."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutate.flip(data, random)
    raw: list[str] = []
    changed = _changed_tree(tree, random, raw)
    text = json.dumps(changed)
    for number, literal in enumerate(raw):
        text = text.replace(f'"@raw{number}@"', literal).replace(f'"@raw{number}@', '"')
    return text.encode("utf-8", "surrogatepass")


def _changed_tree(tree: Any, random: Random, raw: list[str]) -> Any:
    """A copy of a tree with one change; `raw` gets the literals that JSON's writer does not make."""
    path, node = [], tree
    while isinstance(node, dict | list) and node and random.random() < 0.85:
        step = random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        path.append((node, step))
        node = node[step]
    if not path or random.random() < 0.02:
        raw.append(hostile.json_literal(random))
        return f"@raw{len(raw) - 1}@"
    holder, step = path[-1]
    what = random.randrange(8)
    if what == 0:
        del holder[step]
    elif what == 1 and isinstance(holder, dict):
        raw.append("")
        holder[f"@raw{len(raw) - 1}@{step}"] = node  # the same key twice
    elif what == 2 and isinstance(holder, dict):
        holder[random.choice(hostile.TEXTS)] = holder.pop(step)
    elif what == 3 and isinstance(node, str):  # text that is itself a tree, or a list
        raw.append(
            json.dumps(mutate.literal(node.encode("utf-8", "surrogatepass"), random, "json").decode("utf-8", "replace"))
        )
        holder[step] = f"@raw{len(raw) - 1}@"
    else:
        raw.append(hostile.json_literal(random))
        holder[step] = f"@raw{len(raw) - 1}@"
    return tree


def json_line(data: bytes, random: Random) -> bytes:
    """One line of JSON lines, changed as JSON."""
    lines = data.split(b"\n")
    at = random.randrange(max(len(lines) - 1, 1))
    return b"\n".join((*lines[:at], json_value(lines[at], random), *lines[at + 1 :]))


# --- CSV


def csv_cell(data: bytes, random: Random) -> bytes:
    """One cell is hostile, missing, one too many, or a column of them is."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    at = random.randrange(len(rows))
    column = random.randrange(len(rows[at]))
    value = hostile.cell(random).encode("utf-8", "replace")
    what = random.randrange(6)
    if what == 0:
        del rows[at][column]
    elif what == 1:
        rows[at].insert(column, value)
    elif what == 2:
        for row in rows[random.randrange(2) :]:
            if column < len(row) and row != [b""]:
                row[column] = value
    elif what == 3:
        for row in rows:
            del row[column : column + 1]
    else:
        rows[at][column] = value
    return b"\n".join(b",".join(row) for row in rows)


# --- Parquet


def parquet_table(data: bytes, random: Random) -> bytes:
    """A column, a value, or the metadata is another; the file is a good Parquet file all the same."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
        changed = _changed_table(table, random)
        sink = io.BytesIO()
        whole, ours = random.choice((None, 1, 7)), random.random() < 0.7  # we never write dictionaries
        pq.write_table(changed, sink, row_group_size=whole, use_dictionary=not ours)
    except (pa.ArrowException, OverflowError, ValueError, TypeError, OSError, RecursionError):
        return mutate.flip(data, random)
    return sink.getvalue()


def _changed_table(table: Any, random: Random) -> Any:
    import pyarrow as pa

    what = random.randrange(9)
    metadata = dict(table.schema.metadata or {})
    if what <= 2 and metadata:
        name = random.choice(list(metadata))
        metadata[name] = random.choice((json_value, mutate.flip, mutate.cut, _empty_json))(metadata[name], random)
        if random.random() < 0.1:
            del metadata[name]
        return table.replace_schema_metadata(metadata)
    at = random.randrange(max(table.num_columns, 1))
    if not table.num_columns:
        return table
    name, column = table.column_names[at], table.column(at)
    if what == 3:
        return table.drop_columns([name])
    if what == 4:
        return table.rename_columns(
            [*table.column_names[:at], random.choice(hostile.TEXTS[:6]), *table.column_names[at + 1 :]]
        )
    if what == 5:
        kinds = (
            pa.int8(),
            pa.uint64(),
            pa.float64(),
            pa.string(),
            pa.list_(pa.int32()),
            pa.bool_(),
            pa.timestamp("us"),
        )
        kind = random.choice(kinds)
        return table.set_column(at, name, column.cast(kind) if random.random() < 0.5 else pa.nulls(len(column), kind))
    if what == 6:
        order = list(range(len(table)))
        random.shuffle(order)
        return table.take(order[: random.randrange(len(order) + 1)] if random.random() < 0.5 else order)
    if what == 7:
        return table.append_column(random.choice((name, "other")), column)
    values = column.to_pylist()
    for _ in range(random.choice((1, 1, 3))):
        if values:
            real = (1e308, -1e308, 5e-324, float("inf"), float("nan")) if pa.types.is_floating(column.type) else ()
            hostile_values = (None, -1, 0, 2**31 - 1, -(2**31), 2**62, 1, 10**6, *real, *real)
            values[random.randrange(len(values))] = random.choice(hostile_values)
    kind = column.type if random.random() < 0.8 else pa.int64()
    return table.set_column(at, name, pa.array(values, kind))


def _empty_json(data: bytes, random: Random) -> bytes:
    return hostile.json_literal(random).encode("utf-8", "surrogatepass")


# --- arrays


def npz_array(data: bytes, random: Random) -> bytes:
    """One array of an archive has another value, type or shape, is missing, or has another name."""
    import zipfile

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, NotImplementedError, OSError, zipfile.BadZipFile, EOFError, KeyError):
        return mutate.flip(data, random)
    name = random.choice(list(arrays))
    with np.errstate(all="ignore"):
        changed = _changed_array(arrays, name, random)
    sink = io.BytesIO()
    np.savez(sink, **changed)
    return sink.getvalue()


def _changed_array(arrays: dict[str, Any], name: str, random: Random) -> dict[str, Any]:
    array = arrays[name].copy()
    what = random.randrange(8)
    if what == 0:
        del arrays[name]
        return arrays
    if what == 1:
        arrays[random.choice(("other", "a b"))] = arrays.pop(name)
        return arrays
    if what == 2:
        array = array.astype(random.choice((np.int8, np.float32, np.float64, np.int64, np.uint32, "S3", np.bool_)))
    elif what == 3:
        array = random.choice(
            (array.ravel()[:0], array[..., None], array.ravel(), array[:1], np.concatenate((array, array))[: 10**6])
        )
    elif array.dtype == np.uint8 and name.startswith("__"):
        array = np.frombuffer(json_value(array.tobytes(), random), np.uint8)
    elif array.size:
        flat = array.reshape(-1)
        flat[random.randrange(len(flat)) if random.random() < 0.7 else slice(None)] = _element(array.dtype, random)
        array = flat.reshape(array.shape)
    arrays[name] = array
    return arrays


def _element(dtype: np.dtype[Any], random: Random) -> Any:
    if dtype.kind == "f":
        return dtype.type(
            random.choice(("nan", "inf", "-1", "0", "1e308", "1e-300", "1e-6", "1e6", "5e-324", "0.5", "2"))
        )
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return dtype.type(random.choice((ends.min, ends.max, 0, 1, 2, 5, 100, ends.max // 2)))
    return dtype.type(random.randrange(2))


TEXT_SUFFIXES = ("json", "jsonl", "toml", "csv")

STRUCTURED: dict[str, tuple[Structured, ...]] = {
    "json": (json_value,),
    "jsonl": (json_line,),
    "csv": (csv_cell,),
    "parquet": (parquet_table,),
    "npz": (npz_array,),
}
"""Mutators by the suffix of a file's name."""
