"""DuckDB, polars, pandas, fastparquet, pyarrow 17 and Spark sum the columns of our Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from checking import EXPECTED, FOLDER, NAME, run, same

Sums = tuple[int, dict[str, Any]]
"""Rows; of each column the sum, of a column of lists the sum and the number of items."""


def duckdb(path: Path) -> Sums:
    import duckdb

    table = duckdb.read_parquet(str(path))
    wanted, lists = ["count(*)"], {}
    for name, kind in zip(table.columns, table.types, strict=True):
        lists[name] = str(kind).endswith("[]")
        item = f"list_sum({name}::hugeint[])" if lists[name] else name
        wanted += [f"sum({item}::hugeint)", f"sum(len({name}))" if lists[name] else "0"]
    rows, *found = table.aggregate(", ".join(wanted)).fetchall()[0]
    pairs = zip(table.columns, found[::2], found[1::2], strict=True)
    return rows, {name: [int(a or 0), int(b or 0)] if lists[name] else int(a or 0) for name, a, b in pairs}


def polars(path: Path) -> Sums:
    import polars as pl

    table = pl.read_parquet(path)
    sums: dict[str, Any] = {}
    for column in table:
        if column.dtype == pl.List:
            items = column.explode(empty_as_null=False)
            sums[column.name] = [items.cast(pl.Int128).sum(), len(items)]
        else:
            sums[column.name] = column.cast(pl.Int128).sum()
    return len(table), sums


def pandas(path: Path) -> Sums:
    return _frame(path, "pyarrow")


def fastparquet(path: Path) -> Sums:
    return _frame(path, "fastparquet")


def _frame(path: Path, engine: str) -> Sums:
    import pandas as pd

    table = pd.read_parquet(path, engine=engine)
    sums: dict[str, Any] = {}
    for name in table:
        values = table[name]
        if values.dtype == object:
            items = [int(x) for row in values for x in row]
            sums[name] = [sum(items), len(items)]
        else:
            sums[name] = sum(map(int, values))
    return len(table), sums


def pyarrow17(path: Path) -> Sums:
    import pyarrow
    import pyarrow.parquet

    same("version", pyarrow.__version__.split(".")[0], "17")
    table = pyarrow.parquet.read_table(path)
    sums: dict[str, Any] = {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pyarrow.types.is_list(field.type):
            items = column.flatten().to_pylist()
            sums[field.name] = [sum(items), len(items)]
        else:
            sums[field.name] = sum(column.to_pylist())
    return len(table), sums


def spark(path: Path) -> Sums:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import ArrayType

    settings = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.sql.shuffle.partitions": "1"}
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    table = session.read.parquet(str(path))
    wide = "decimal(38,0)"
    wanted, lists = ["count(*)"], {}
    for field in table.schema:
        name = field.name
        lists[name] = isinstance(field.dataType, ArrayType)
        add = f"aggregate({name}, cast(0 as {wide}), (sum, item) -> cast(sum + cast(item as {wide}) as {wide}))"
        total = add if lists[name] else f"cast({name} as {wide})"
        wanted += [f"sum({total})", f"sum(size({name}))" if lists[name] else "0"]
    rows, *found = table.selectExpr(*wanted).first()
    pairs = zip(table.columns, found[::2], found[1::2], strict=True)
    return rows, {name: [int(a or 0), int(b or 0)] if lists[name] else int(a or 0) for name, a, b in pairs}


READERS: dict[str, Callable[[Path], Sums]] = {
    read.__name__: read for read in (duckdb, polars, pandas, fastparquet, pyarrow17, spark)
}


def _check(table: str) -> Callable[[], str]:
    def check() -> str:
        about = EXPECTED["tables"][table]
        rows, sums = READERS[NAME](FOLDER / about["file"])
        same("rows", rows, about["rows"])
        same("columns", list(sums), list(about["sums"]))
        for name, expected in about["sums"].items():
            found = sums[name]
            if isinstance(expected, list):
                same(f"items of {name}", found[1], expected[1])
                found, expected = found[0], expected[0]
            same(f"sum of {name}", found % 2**64, expected)
        return f"{rows:,} rows"

    check.__name__ = table
    return check


run(*map(_check, EXPECTED["tables"]))
