"""A trace as a frame of Spark: each partition samples its own share of it, and nothing goes through the driver."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

import servegen_gpu as sg

PARTS = 8
pool = sg.population("deepseek-r1", clients=500).with_conversations(None)
SCHEMA = "arrival_us long, client int, input_tokens int, output_tokens int"
COLUMNS = [column.split()[0] for column in SCHEMA.split(", ")]


def rows(numbers: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The rows of the shares whose numbers a partition has, slab by slab."""
    for frame in numbers:
        for k in frame["id"]:
            for slab in sg.stream(pool, rate=20, duration="1h", shard=(int(k), PARTS), memory="200MB"):
                yield slab.to_pandas()[COLUMNS]


if __name__ == "__main__":
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    trace = spark.range(0, PARTS, 1, PARTS).mapInPandas(rows, SCHEMA)
    trace.write.mode("overwrite").parquet(str(Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "trace"))
    whole = sg.generate(pool, rate=20, duration="1h")
    found = trace.agg({"client": "count", "output_tokens": "sum", "arrival_us": "sum"}).first().asDict()
    assert found["count(client)"] == len(whole)
    assert found["sum(output_tokens)"] == whole["output_tokens"].sum()
    assert found["sum(arrival_us)"] == whole["arrival_us"].sum()
    print(f"{found['count(client)']:,} requests in {PARTS} partitions")
