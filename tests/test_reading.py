"""Traces of others, format by format, against readers of the standard library."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from profiles import REAL_DATA
from traces import same

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.exports import EXPORTS, write
from servegen_gpu.formats import read_slabs
from servegen_gpu.formats.reading import sources, text_blocks
from servegen_gpu.formats.reading.foreign import open_trace

TRACES = REAL_DATA.parent / "traces"


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(tmp_path: Path, text: str, name: str = "t.txt") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def columns_of(trace: sg.Trace) -> dict[str, list[Any]]:
    plain = {}
    for name, column in trace.columns.items():
        is_list = isinstance(column, sg.Ragged)
        plain[name] = [column[at].tolist() for at in range(len(trace))] if is_list else column.tolist()
    return plain


def column(trace: sg.Trace, *names: str) -> list[tuple[int, ...]]:
    return list(zip(*(trace[name].tolist() for name in names), strict=True))


BASIC = ("arrival_us", "input_tokens", "output_tokens")
TURNS = ("conversation", "turn", "new_tokens")
TWO = [(0, 10, 1), (1_500_000, 20, 2)]
"""What most files below hold: two requests."""

MOONCAKE = lines(
    {"timestamp": 27482, "input_length": 1025, "output_length": 52, "hash_ids": [46, 47, 2354]},
    {"timestamp": 28982, "input_length": 512, "output_length": 3, "hash_ids": [46]},
)
FLAT: dict[str, tuple[str, list[tuple[int, ...]]]] = {
    "mooncake": (MOONCAKE, [(0, 1025, 52), (1_500_000, 512, 3)]),
    "burstgpt": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,10,1,11,API log\n6.5,GPT-4,20,2,22,API log\n",
        TWO,
    ),
    "azure": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,10,1\n2023-11-16 18:17:05.4799600,20,2\n",
        TWO,
    ),
    "azure (2024)": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,10,1\n"
        "2024-05-10 00:00:01.509930+00:00,20,2\n",
        TWO,
    ),
    "azure (multimodal)": (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-10 00:00:00.5,3,10,1\n2024-10-10 00:00:02,0,20,2\n",
        TWO,
    ),
    "vidur": ("arrived_at,num_prefill_tokens,num_decode_tokens\n4.314579,10,1\n5.814579,20,2\n", TWO),
    "vidur-dates": (
        "Date,Time,PromptTokenCount,CompletionTokenCount\n2023-08-21,23:59:59.250,10,1\n2023-08-22,00:00:00.750,20,2\n",
        TWO,
    ),
    "vidur-dates (seconds)": (
        "Date,Time,PromptTokenCount,CompletionTokenCount\n2023-08-21,0.072,10,1\n2023-08-21,1.572,20,2\n",
        TWO,
    ),
    "vidur (both)": (
        "arrived_at,num_prefill_tokens,num_decode_tokens,Date,Time,PromptTokenCount,CompletionTokenCount\n"
        "0,10,1,2023-08-21,00:00:00,10,1\n1.5,20,2,2023-08-21,00:00:37.5,20,2\n",
        TWO,
    ),
    "splitwise": (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
        "0,2,0,3.25,1,10,1\n1,2,0,4.75,1,20,2\n",
        TWO,
    ),
    "aibrix": (
        lines(
            {"timestamp": 19, "requests": [{"prompt": "x", "prompt_length": 10, "output_length": 1}]},
            {"timestamp": 1519, "requests": [{"prompt": "y", "prompt_length": 20, "output_length": 2}]},
        ),
        TWO,
    ),
    "aibrix (old)": (
        lines(
            {"Timestamp": 0, "timestamp": 0, "requests": [{"Prompt Length": 10, "Output Length": 1}]},
            {"timestamp": 1500, "requests": [{"Prompt Length": 20, "Output Length": 2}]},
        ),
        TWO,
    ),
    "llmservingsim": (
        lines(
            {"input_toks": 10, "output_toks": 1, "arrival_time_ns": 46926808, "input_tok_ids": [1]},
            {"input_toks": 20, "output_toks": 2, "arrival_time_ns": 1546926808, "input_tok_ids": [2]},
        ),
        TWO,
    ),
    "blis": ("request_id,input_tokens,output_tokens,arrival_time_us\na,10,1,500\nb,20,2,1500500\n", TWO),
    "table (a log of an API)": (
        lines(
            {"created": 1700000000, "id": "a", "usage": {"prompt_tokens": 10, "completion_tokens": 1, "x": {"y": 3}}},
            {"created": 1700000001.5, "id": "b", "usage": {"prompt_tokens": 20, "completion_tokens": 2}},
        ),
        TWO,
    ),
    "table (as issue 4 of ServeGen has it)": ("timestamp,input,output\n0.25,10,1\n1.75,20,2\n", TWO),
    "table": ("created_at_ms;prompt tokens;Completion-Tokens\n7;10;1\n1507;20;2\n", TWO),
}


@pytest.mark.parametrize("name", FLAT)
def test_formats_are_told_by_their_columns(tmp_path, name):
    text, expected = FLAT[name]
    trace = sg.read_trace(written(tmp_path, text))
    assert column(trace, *BASIC) == expected
    assert trace["client"].tolist() == [0, 0]
    assert trace.provenance["format"] == name.split(" ")[0]
    assert "conversation" not in trace
    assert trace.provenance["duration_s"] == pytest.approx(3.0)
    assert not any(word in trace.provenance["note"] for word in ("dropped", "sorted", "numbered"))


def test_ids_of_blocks_stay_and_their_size_is_told(tmp_path):
    trace = sg.read_trace(written(tmp_path, MOONCAKE))
    assert columns_of(trace)["hash_ids"] == [[46, 47, 2354], [46]]
    assert trace.provenance["hash_ids"] == {"block_tokens": 512}
    assert trace.provenance["origin"] == "27482 ms"
    sixteen = MOONCAKE.replace("1025", "33").replace("512", "3")
    found = sg.read_trace(written(tmp_path, sixteen))
    assert found.provenance["hash_ids"] == {"block_tokens": 16}
    assert "blocks of 16 tokens" in found.provenance["note"]
    short = sg.read_trace(written(tmp_path, MOONCAKE.replace("[46]", "[46, 47]")))
    assert "hash_ids" not in short.provenance
    assert "1 of 2 lists of ids do not have one id for every 512 tokens" in short.provenance["note"]
    with pytest.raises(OptionError, match=r"a list of whole numbers from 0 on, got -1 in .*line 2, column 'hash_ids'"):
        sg.read_trace(written(tmp_path, MOONCAKE.replace("[46]", "[46, -1]")))


# -- sessions ---------------------------------------------------------------------------------------------------------

WHOLE = [
    {"session_id": "b", "timestamp": 0, "input_length": 600, "output_length": 50, "hash_ids": [0, 1]},
    {"session_id": "a", "timestamp": 500, "input_length": 30, "output_length": 5, "hash_ids": [7]},
    {"session_id": "b", "timestamp": 2000, "input_length": 800, "output_length": 20, "hash_ids": [0, 2]},
    {"session_id": "b", "timestamp": 3000, "input_length": 840, "output_length": 1, "hash_ids": [0, 3]},
    {"timestamp": 4000, "input_length": 9, "output_length": 1, "hash_ids": [8]},
]
EXPECTED = [(0, 1, 600), (1, 1, 30), (0, 2, 150), (0, 3, 20), (-1, 1, 9)]
NEW = [
    row | {"input_length": n, "hash_ids": [i]} for i, (row, (_, _, n)) in enumerate(zip(WHOLE, EXPECTED, strict=True))
]


def test_sessions_with_whole_inputs(tmp_path):
    trace = sg.read_trace(written(tmp_path, lines(*WHOLE)))
    assert column(trace, *TURNS) == EXPECTED
    assert trace["input_tokens"].tolist() == [600, 30, 800, 840, 9]
    assert "2 of 2 later turns begin with the same block as the turn before" in trace.provenance["note"]
    assert trace.provenance["format"] == "dynamo"
    assert open_trace(written(tmp_path, lines(*WHOLE))).names("session") == []  # not read yet


@pytest.mark.parametrize("format", ["auto", "aiperf", "dynamo-delta"])
def test_sessions_with_what_is_new(tmp_path, format):
    path = written(tmp_path, lines(*NEW))
    trace = sg.read_trace(path, format)
    assert column(trace, *TURNS) == EXPECTED
    assert trace["input_tokens"].tolist() == [600, 30, 800, 840, 9]
    assert "hash_ids" not in trace
    assert "hash_ids left out" in trace.provenance["note"]
    assert "hash_ids" not in trace.provenance
    told = "0 of 2 later turns begin with the same block" in trace.provenance["note"]
    assert told == (format == "auto")
    taken_as_whole = sg.read_trace(path, "dynamo")
    assert taken_as_whole["input_tokens"].tolist() == [600, 30, 150, 20, 9]


def test_without_ids_a_shorter_later_turn_tells_what_is_new(tmp_path):
    bare = [{key: value for key, value in row.items() if key != "hash_ids"} for row in NEW]
    trace = sg.read_trace(written(tmp_path, lines(*bare)))
    assert column(trace, *TURNS) == EXPECTED
    assert "2 of 2 later turns are shorter than before" in trace.provenance["note"]


def test_later_turns_that_add_nothing_are_not_shorter(tmp_path):
    rows = [
        {"session_id": "a", "timestamp": t, "input_length": n, "output_length": 5} for t, n in enumerate((9, 14, 30, 8))
    ]
    trace = sg.read_trace(written(tmp_path, lines(*rows)), "dynamo")
    assert trace["input_tokens"].tolist() == [9, 14, 30, 8]
    assert "1 later turns are shorter than the turn before" in trace.provenance["note"]


def test_delays_after_the_turn_before(tmp_path):
    rows = [
        {"session_id": "s1", "timestamp": 1000, "input_length": 600, "output_length": 50, "hash_ids": [0, 1]},
        {"session_id": "s1", "delay": 2000, "input_length": 150, "output_length": 20, "hash_ids": [2]},
        {"session_id": "s1", "delay": 500.5, "input_length": 10, "output_length": 2, "hash_ids": [3]},
        {"session_id": "s2", "timestamp": 2500, "input_length": 7, "output_length": 1, "hash_ids": [4]},
    ]
    trace = sg.read_trace(written(tmp_path, lines(*rows)))
    assert column(trace, *BASIC, *TURNS) == [
        (0, 600, 50, 0, 1, 600),
        (1_500_000, 7, 1, 1, 1, 7),
        (2_000_000, 800, 20, 0, 2, 150),
        (2_500_500, 830, 2, 0, 3, 10),
    ]
    assert "service times, which the file does not have, count as 0" in trace.provenance["note"]
    with pytest.raises(OptionError, match="a time in the first request of every session, got none in request 1"):
        sg.read_trace(written(tmp_path, lines(*rows[1:])))


def test_chats_that_name_their_parents(tmp_path):
    def row(chat, parent, time, size):
        return {"chat_id": chat, "parent_chat_id": parent, "timestamp": time, "input_length": size, "output_length": 4}

    rows = [row(159, -1, 61.114, 521), row(160, -1, 62, 16), row(170, 159, 70, 600), row(180, 170, 71, 700)]
    rows.append(row(190, 5, 80, 90))  # its parent was left out
    ids = [{"hash_ids": list(range(-(-r["input_length"] // 16))), "type": "text", "turn": 1} for r in rows]
    trace = sg.read_trace(written(tmp_path, lines(*(a | b for a, b in zip(rows, ids, strict=True)))))
    assert column(trace, "arrival_us", *TURNS) == [
        (0, 159, 1, 521),
        (886_000, -1, 1, 16),
        (8_886_000, 159, 2, 75),
        (9_886_000, 159, 3, 96),
        (18_886_000, 5, 1, 90),
    ]
    assert trace.provenance["hash_ids"] == {"block_tokens": 16}


def test_burstgpt_with_sessions(tmp_path):
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "0,12,1.5,ChatGPT,100,10,110,Conversation log\n1,,1,GPT-4,7,1,8,API log\n2,,1,GPT-4,7,1,8,API log\n"
        "9,12,1.5,ChatGPT,150,10,160,Conversation log\n"
    )
    trace = sg.read_trace(written(tmp_path, text))
    assert column(trace, *TURNS) == [(12, 1, 100), (-1, 1, 7), (-2, 1, 7), (12, 2, 40)]
    alone = sg.read_trace(written(tmp_path, text.replace(",12,", ",,")))
    assert "conversation" not in alone


def test_blis_with_clients_sessions_prefixes_and_reasoning(tmp_path):
    text = (
        "request_id,client_id,session_id,round_index,prefix_group,prefix_length,input_tokens,output_tokens,"
        "reason_ratio,arrival_time_us\n"
        "r0,web,s,0,p,64,36,10,0.5,0\nr1,batch,,0,,,20,4,,7\nr2,web,s,1,p,64,86,10,0,1000000\n"
    )
    path = written(tmp_path, text)
    opened = open_trace(path)
    trace = opened.trace()
    assert column(trace, *BASIC, "client", "reason_tokens", *TURNS) == [
        (0, 100, 10, 0, 5, 0, 1, 100),
        (7, 20, 4, 1, 0, -1, 1, 20),
        (1_000_000, 150, 10, 0, 0, 0, 2, 40),
    ]
    assert opened.names("client") == ["web", "batch"]
    assert opened.names("session") == ["s"]


def test_rows_with_several_requests(tmp_path):
    aibrix = lines(
        {"timestamp": 19, "requests": [{"prompt_length": 1, "output_length": 2, "session_id": 0}] * 2},
        {"timestamp": 20, "requests": []},
        {"timestamp": 21, "requests": [{"prompt_length": 9, "output_length": 2, "session_id": 3}]},
    )
    trace = sg.read_trace(written(tmp_path, aibrix))
    assert column(trace, *BASIC, "conversation") == [(0, 1, 2, 0), (0, 4, 2, 0), (2000, 9, 2, 3)]
    calls = [{"input_toks": 10, "output_toks": 1, "tool_duration_ns": 5_000}, {"input_toks": 20, "output_toks": 2}]
    simulated = lines(
        {"session_id": "x", "arrival_time_ns": 1_000, "sub_requests": calls},
        {"session_id": "y", "arrival_time_ns": 2_000, "sub_requests": calls[:1]},
    )
    trace = sg.read_trace(written(tmp_path, simulated))
    assert column(trace, *BASIC, *TURNS) == [(0, 10, 1, 0, 1, 10), (1, 10, 1, 1, 1, 10), (5, 20, 2, 0, 2, 9)]
    turns = [
        {"timestamp": 0, "text": "Hi there", "output_length": 3},
        {"delay": 1000, "text": "More", "output_length": 1},
    ]
    trace = sg.read_trace(written(tmp_path, lines({"session_id": "s", "turns": turns})))
    assert column(trace, *BASIC, *TURNS) == [(0, 2, 3, 0, 1, 2), (1_000_000, 6, 1, 0, 2, 1)]
    assert "input tokens are the words of the text" in trace.provenance["note"]
    single = lines(
        {"text": "a b c", "timestamp": 5, "output_length": 8}, {"text": "d", "timestamp": 7, "output_length": 2}
    )
    assert column(sg.read_trace(written(tmp_path, single)), *BASIC) == [(0, 3, 8), (2000, 1, 2)]


# -- tables -----------------------------------------------------------------------------------------------------------


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "when": pd.to_datetime(["2024-01-01T00:00:03", "2024-01-01T00:00:01", "2024-01-01T00:00:02"]),
            "user": ["b", "a", "b"],
            "prompt_tokens": [3.0, 1.0, 2.0],
            "completion_tokens": [30, 10, 20],
            "reasoning_tokens": [5, 0, 20],
        }
    )


@pytest.mark.parametrize("make", [frame, lambda: pa.Table.from_pandas(frame())], ids=["pandas", "arrow"])
def test_tables_in_memory(make: Callable[[], Any]):
    opened = open_trace(make())
    trace = opened.trace()
    assert column(trace, *BASIC, "client", "reason_tokens") == [
        (0, 1, 10, 1, 0),
        (1_000_000, 2, 20, 0, 20),
        (2_000_000, 3, 30, 0, 5),
    ]
    assert opened.names("client") == ["b", "a"]
    assert trace.provenance["origin"] == "2024-01-01T00:00:01.000000000"
    assert "1 requests earlier than the one before, sorted" in opened.note


def test_a_polars_frame():
    polars = pytest.importorskip("polars")
    trace = sg.read_trace(polars.from_pandas(frame()))
    assert same(trace, sg.Trace(sg.read_trace(frame()).columns, trace.provenance))


def test_files_of_every_kind_hold_the_same(tmp_path):
    given = frame()
    expected = columns_of(sg.read_trace(given))
    given.to_parquet(tmp_path / "t.parquet")
    given.to_csv(tmp_path / "comma.csv", index=False)
    given.to_csv(tmp_path / "semicolon.csv", index=False, sep=";", decimal=",")
    given.to_csv(tmp_path / "tab.tsv", sep="\t", encoding="utf-16")
    given.to_csv(tmp_path / "bom.csv", encoding="utf-8-sig", lineterminator="\r\n")
    given.to_csv(tmp_path / "packed.csv.gz")
    given.to_json(tmp_path / "t.jsonl", orient="records", lines=True, date_format="iso")
    numbers = given.assign(when=given["when"].astype("datetime64[ns]").astype("int64"))
    numbers.to_json(tmp_path / "epoch.jsonl", orient="records", lines=True)
    given.to_json(tmp_path / "t.json", orient="records", date_format="iso", indent=2)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    for path in tmp_path.iterdir():
        assert columns_of(sg.read_trace(path)) == expected, path.name


def test_columns_are_named_by_the_user(tmp_path):
    path = written(tmp_path, "a,b,c,d,timestamp\n1,2,3,x,0\n4,5,6,y,1\n")
    columns = {"time": "a", "input": "b", "output": "c", "client": "d"}
    trace = sg.read_trace(path, columns=columns, unit="ms")
    assert column(trace, *BASIC, "client") == [(0, 2, 3, 0), (3000, 5, 6, 1)]
    assert trace.provenance["columns"] == {"time": "a", "input_tokens": "b", "output_tokens": "c", "client": "d"}
    for wrong, message in (
        (columns | {"time": "z"}, "one column 'z' for time"),
        (columns | {"colour": "d"}, "meanings of columns among time, client"),
        ("a", "columns as"),
        ({"time": "a"}, "a column of input_tokens"),
    ):
        with pytest.raises(OptionError, match=message):
            sg.read_trace(path, columns=wrong)
    for arguments, message in (
        ({"format": "excel"}, "a format among"),
        ({"format": "vidur"}, "'time' in the format vidur"),
        ({"unit": "h"}, "a unit among"),
        ({"missing": "keep"}, "missing as error or drop"),
    ):
        with pytest.raises(OptionError, match=message):
            sg.read_trace(path, **arguments)


def test_what_was_guessed_and_what_was_left_out_is_said(tmp_path):
    path = written(tmp_path, "timestamp,prompt_tokens,input,completion_tokens,model\n0,1,2,3,m\n9,1,2,3,m\n")
    note = sg.read_trace(path).provenance["note"]
    assert "input_tokens from 'prompt_tokens' (not 'input')" in note
    assert "not read: input, model" in note


# -- ours -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", ["deepseek-r1", "mm-image"])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_trace_of_ours_without_its_provenance(tmp_path, workload, suffix):
    trace = sg.generate(sg.population(workload, clients=20), rate=50, duration=20, seed=3, start=600)
    if workload == "deepseek-r1":
        trace = trace.with_hash_ids(512)
    trace.write(tmp_path / f"t.{suffix}")
    if suffix == "parquet":
        table = pq.read_table(tmp_path / "t.parquet")
        pq.write_table(
            table.filter(pa.compute.greater(table["output_tokens"], 5)).replace_schema_metadata(),
            tmp_path / "u.parquet",
        )
        trace = trace.where(trace["output_tokens"] > 5)
    else:
        (tmp_path / f"t.{suffix}").rename(tmp_path / f"u.{suffix}")
    found = sg.read_trace(tmp_path / f"u.{suffix}")
    assert columns_of(found) == columns_of(trace)
    assert found.schema() == trace.schema()
    assert "seed" not in found.provenance


# -- large files ------------------------------------------------------------------------------------------------------


def in_slabs(path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: Any, **keywords: Any) -> list[sg.Trace]:
    with monkeypatch.context() as patch:
        patch.setattr(sources, "SMALL_BYTES", 0)
        patch.setattr(text_blocks, "BLOCK_BYTES", 2_000)
        return list(read_slabs(path, *arguments, **keywords))


@pytest.mark.parametrize("ids", ["numbers", "text", "text at last", "none"])
def test_slabs_are_the_whole(tmp_path, monkeypatch, ids):
    rng = np.random.default_rng(1)
    rows = []
    for at in range(2_000):
        row = {
            "timestamp": at * 7,
            "input_length": int(rng.integers(1, 5000)),
            "output_length": int(rng.integers(1, 99)),
        }
        session = int(rng.integers(0, 100))
        if ids != "none" and session < 80:
            row["session_id"] = f"s{session}" if ids == "text" or (ids == "text at last" and at > 1_900) else session
        rows.append(row | {"hash_ids": [session, at]})
    path = written(tmp_path, lines(*rows))
    whole = sg.read_trace(path, "dynamo")
    slabs = in_slabs(path, monkeypatch, "dynamo")
    assert len(slabs) > 10
    assert [slab.first_row for slab in slabs] == np.cumsum([0, *map(len, slabs)])[:-1].tolist()
    joined = sg.Trace.concat(slabs)
    assert columns_of(joined) == columns_of(whole)
    note = "ids of sessions numbered in order of appearance"
    assert (
        (note in joined.provenance["note"]) == (ids in ("text", "text at last")) == (note in whole.provenance["note"])
    )
    assert joined.provenance["duration_s"] == whole.provenance["duration_s"]


def test_a_large_file_out_of_order_is_sorted_in_memory(tmp_path, monkeypatch):
    times = np.random.default_rng(2).permutation(3_000)
    path = written(tmp_path, "timestamp_ms,input,output\n" + "".join(f"{t},{t % 9},{t % 7}\n" for t in times))
    (slab,) = in_slabs(path, monkeypatch)
    assert slab["arrival_us"].tolist() == [t * 1000 for t in range(3_000)]
    assert slab["input_tokens"].tolist() == [t % 9 for t in range(3_000)]
    assert "earlier than the one before, sorted" in slab.provenance["note"]


def test_many_equal_times_out_of_order_keep_their_order(tmp_path):
    n = np.arange(3_000)
    rows = zip((n * 7 % 3).tolist(), n.tolist(), strict=True)
    path = written(tmp_path, "timestamp_s,input,output\n" + "".join(f"{t},{i},5\n" for t, i in rows))
    trace = sg.read_trace(path)
    assert (np.diff(trace["arrival_us"]) >= 0).all()
    for at in range(3):
        assert (np.diff(trace["input_tokens"][trace["arrival_us"] == at * 10**6]) >= 0).all()


def test_rows_are_dropped_in_slabs_as_in_the_whole(tmp_path, monkeypatch):
    text = "timestamp,input,output\n" + "".join(
        f"{t},{'' if t % 50 == 3 else t % 9},{'NaN' if t == 70 else 1}\n" for t in range(999)
    )
    path = written(tmp_path, text)
    keywords = {"unit": "s", "missing": "drop"}
    whole = sg.read_trace(path, **keywords)
    assert len(whole) == 999 - 21
    assert "21 rows without a value dropped" in whole.provenance["note"]
    assert whole.provenance["counts"] == {"rows without a value dropped": 21}
    joined = sg.Trace.concat(in_slabs(path, monkeypatch, **keywords))
    assert columns_of(joined) == columns_of(whole)
    assert "21 rows without a value dropped" in joined.provenance["note"]


# -- published files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mooncake-synthetic.jsonl", "mooncake-toolagent-head1000.jsonl"])
def test_mooncake_s_published_files(name):
    path = TRACES / name
    if not path.exists():
        pytest.skip("needs ../shared/data/traces")
    rows = sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["timestamp"])
    trace = sg.read_trace(path)
    assert columns_of(trace) == {
        "arrival_us": [(row["timestamp"] - rows[0]["timestamp"]) * 1000 for row in rows],
        "client": [0] * len(rows),
        "input_tokens": [row["input_length"] for row in rows],
        "output_tokens": [row["output_length"] for row in rows],
        "hash_ids": [row["hash_ids"] for row in rows],
    }
    assert trace.provenance["hash_ids"] == {"block_tokens": 512}


def test_azure_s_published_file(capsys):
    path = TRACES / "azure-2023-code.csv"
    if not path.exists():
        pytest.skip("needs ../shared/data/traces")
    with path.open() as file:
        rows = list(csv.DictReader(file))

    def hundreds_of_ns(text: str) -> int:
        whole, part = text.split(".")
        return int((datetime.fromisoformat(whole) - datetime(2023, 11, 16)).total_seconds()) * 10**7 + int(part)

    times = [hundreds_of_ns(row["TIMESTAMP"]) for row in rows]
    trace = sg.read_trace(path)
    assert trace["arrival_us"].tolist() == [(time - times[0] + 5) // 10 for time in times]
    assert trace["input_tokens"].tolist() == [int(row["ContextTokens"]) for row in rows]
    assert trace["output_tokens"].tolist() == [int(row["GeneratedTokens"]) for row in rows]
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr()
    assert "8,819" in said.out
    assert said.err.startswith("note: azure-2023-code.csv: 8,819 requests read as azure; times in dates")


# -- what this package exports ----------------------------------------------------------------------------------------

READABLE = [name for name, export in EXPORTS.items() if export.inputs != "none" and export.time != "none"]


def history() -> sg.Trace:
    """Conversations whose inputs are their history and what is new, and requests that stand alone."""
    rng = np.random.default_rng(7)
    n, talks = 600, 90
    conversation = np.where(rng.random(n) < 0.3, -1 - np.arange(n), rng.integers(0, talks, n) * 10**12)
    new, output = rng.integers(1, 900, n), rng.integers(1, 300, n)
    columns = {"turn": np.ones(n, int), "input_tokens": new.copy()}
    last: dict[int, int] = {}
    for at, name in enumerate(conversation.tolist()):
        if name >= 0 and name in last:
            columns["turn"][at] = columns["turn"][last[name]] + 1
            columns["input_tokens"][at] += columns["input_tokens"][last[name]] + output[last[name]]
        last[name] = at
    times = 20_000 + np.cumsum(rng.integers(1, 99_999, n))
    known = {"client": rng.integers(0, 5, n), "conversation": conversation, "new_tokens": new}
    return sg.Trace({"arrival_us": times, "output_tokens": output, **known, **columns}, {"duration_s": 33.0, "seed": 5})


@pytest.mark.parametrize("beside", [True, False], ids=["provenance beside it", "alone"])
@pytest.mark.parametrize("name", READABLE)
def test_exports_are_read_back(tmp_path, monkeypatch, name, beside):
    trace, export = history(), EXPORTS[name]
    path = tmp_path / f"t{(export.suffixes or ('.txt',))[0]}"
    write(trace, path, name)
    if not beside:
        (tmp_path / f"{path.name}.provenance.json").unlink()
    shift = 0 if beside else int(trace["arrival_us"][0])
    for found in (sg.read_trace(path), sg.read_trace(path, name), sg.Trace.concat(in_slabs(path, monkeypatch))):
        assert (found["arrival_us"] + shift).tolist() == trace["arrival_us"].tolist()
        shared = {"input_tokens", "output_tokens", "client"} & {*export.columns}
        assert {"input_tokens", "output_tokens"} <= shared
        for column_ in sorted(shared):
            assert found[column_].tolist() == trace[column_].tolist(), column_
        assert ("conversation" in found) == ("conversation" in export.columns)
        if "conversation" in found:
            assert found["turn"].tolist() == trace["turn"].tolist()
            assert found["new_tokens"].tolist() == trace["new_tokens"].tolist()
            together = {
                (a, b) for a, b in column(sg.Trace({"a": found["conversation"], "b": trace["conversation"]}), "a", "b")
            }
            assert len(together) == len({a for a, _ in together}) == len({b for _, b in together})
        assert (found.provenance.get("seed") == 5) == beside
        assert found.provenance["duration_s"] == pytest.approx(33.0 if beside else 30, rel=0.1)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name not in READABLE])
def test_exports_without_requests_or_times_are_refused(tmp_path, name):
    path = tmp_path / f"t{(EXPORTS[name].suffixes or ('.txt',))[0]}"
    write(history(), path, name)
    for format in (None, name):
        with pytest.raises(OptionError, match=f"requests with their times, got .* as {name} has them"):
            sg.read_trace(path, format)


def test_a_line_of_turns_without_a_name_is_a_session_of_its_own(tmp_path):
    turns = [{"timestamp": 0, "text": "a b", "output_length": 3}, {"delay": 1000, "text": "c", "output_length": 4}]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"turns": turns[:n]}) + "\n" for n in (2, 1, 2)))
    trace = sg.read_trace(path)
    found = sorted(
        zip(trace["conversation"].tolist(), trace["turn"].tolist(), trace["input_tokens"].tolist(), strict=True)
    )
    assert [row[1:] for row in found] == [(1, 2), (1, 2), (2, 6), (1, 2), (2, 6)]
    assert len({row[0] for row in found if row[0] >= 0}) == 2


def test_a_directory_of_parts_that_others_wrote(tmp_path):
    whole = {"timestamp": np.arange(3000) / 7, "input_length": np.arange(3000), "output_length": np.full(3000, 5)}
    for kind in ("parquet", "csv"):
        folder = tmp_path / kind
        folder.mkdir()
        for at, name in enumerate(("part-00000-4e", "part-00001-9a", "part-00002-00")):
            part = pd.DataFrame(whole)[at * 1000 : (at + 1) * 1000]
            getattr(part, f"to_{kind}")(folder / f"{name}.{kind}", index=False)
        for litter in ("_SUCCESS", ".part-00000-4e.crc", "part-00003-aa.csv"):
            (folder / litter).write_bytes(b"")
        trace = sg.read_trace(folder)
        assert trace["input_tokens"].tolist() == list(range(3000))
        assert trace["arrival_us"][-1] == round(2999 / 7 * 1e6)
        pd.DataFrame({"a": [1]}).to_csv(folder / "zz.csv", index=False)
        with pytest.raises(OptionError, match=r"files with the columns timestamp.*got a in .*zz\.csv"):
            sg.read_trace(folder)
        (folder / "zz.csv").unlink()
        (folder / "more").mkdir()
        with pytest.raises(OptionError, match="another directory in it"):
            sg.read_trace(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(OptionError, match="none in the directory"):
        sg.read_trace(tmp_path / "none")
