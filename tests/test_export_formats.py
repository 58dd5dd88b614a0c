"""What single formats of other programs demand, and what theirs alone is."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import rows_of, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import ROWS, Rows, cut, talk

from servegen_gpu import Trace
from servegen_gpu.exports import turns, write
from servegen_gpu.exports.export import ExportOptions

DAY_US = 86_400 * 10**6
TRACE_V2 = (
    "request_id,client_id,tenant_id,slo_class,session_id,round_index,prefix_group,prefix_length,streaming,input_tokens,"
    "output_tokens,text_tokens,image_tokens,audio_tokens,video_tokens,reason_ratio,model,deadline_us,server_input_tokens,"
    "arrival_time_us,send_time_us,first_chunk_time_us,last_chunk_time_us,num_chunks,status,error_message,finish_reason"
)


def rates_of(trace: Any, path: Path, window_s: float) -> tuple[list[dict[str, Decimal]], tuple[str, ...]]:
    written = write(trace, path, "aiperf-rates", ExportOptions(window_s=window_s))
    return json.loads(path.read_bytes(), parse_float=Decimal), written.notes


@settings(max_examples=25, deadline=None)
@given(made=ROWS, at=st.lists(st.integers(0, 30), max_size=3), window_s=st.sampled_from((0.5, 7.0, 3600.0)))
def test_lines_between_rates_are_the_requests(made: Rows, at: list[int], window_s: float, tmp_path_factory: Any):
    """AIPerf goes in straight lines from point to point: over a window that is its number of requests."""
    made = [(gap % 5_000_000, *rest) for gap, *rest in made]  # type: ignore[misc]
    trace = talk(made)
    points, notes = rates_of(cut(trace, at), tmp_path_factory.getbasetemp() / "r.json", window_s)
    time_us = [int(point["time_s"] * 10**6) for point in points]
    qps = [float(point["qps"]) for point in points]
    assert all(a < b for a, b in pairwise(time_us))
    assert len(points) >= 2
    assert min(qps) > 0
    window_us = round(window_s * 1e6)
    wanted = np.bincount(trace["arrival_us"] // window_us, minlength=len(points) // 2)
    begins, ends = time_us[::2], [end + 1 for end in time_us[1::2]]
    assert begins == [k * window_us for k in range(len(wanted))]
    area = [q * (end - begin) / 1e6 for q, begin, end in zip(qps[::2], begins, ends, strict=True)]
    assert qps[::2] == qps[1::2]
    np.testing.assert_allclose(area, wanted, atol=1e-6 * window_s, rtol=1e-9)
    assert any("without requests" in note for note in notes) == bool((wanted == 0).any())


def test_rates_go_on_to_the_end_of_the_trace(tmp_path: Path):
    trace = Trace({"arrival_us": [1], "input_tokens": [1], "output_tokens": [1]}, {"duration_s": 25.0})
    points, _ = rates_of(trace, tmp_path / "r.json", 24.999999)
    assert [float(point["time_s"]) for point in points] == [0, 24.999998, 24.999999, 25]
    points, _ = rates_of(trace, tmp_path / "r.json", 10.0)
    assert [float(point["time_s"]) for point in points] == [0, 9.999999, 10, 19.999999, 20, 24.999999]
    assert [float(point["qps"]) for point in points] == [0.1, 0.1, 1e-6, 1e-6, 1e-6, 1e-6]


@settings(max_examples=20, deadline=None)
@given(made=ROWS, at=st.lists(st.integers(0, 30), max_size=4), first=st.integers(0, 20))
def test_bailian_links_every_turn_to_the_row_before(made: Rows, at: list[int], first: int, tmp_path_factory: Any):
    trace = talk(made)
    trace = trace.rows(min(first, len(trace)), len(trace))  # conversations may have begun before
    path = tmp_path_factory.getbasetemp() / "t.jsonl"
    write(cut(trace, at), path, "bailian")
    latest: dict[int, int] = {}
    for row, found in enumerate(rows_of(path)):
        name, number = int(trace["conversation"][row]), trace.first_row + row
        assert found["chat_id"] == number
        assert found["parent_chat_id"] == (latest.get(name, -1) if name >= 0 else -1)
        assert found["turn"] == trace["turn"][row]
        assert len(found["hash_ids"]) == -(-found["input_length"] // 16)
        latest[name] = number


def test_bailian_says_what_came_with_the_text(tmp_path: Path):
    write(talk([(1, -1, 100, 1, 0)] * 4, "multimodal"), tmp_path / "t.jsonl", "bailian")
    assert [row["type"] for row in rows_of(tmp_path / "t.jsonl")] == ["image", "video", "text", "image"]


def test_bailian_warns_of_a_history_counted_twice(tmp_path: Path):
    for who, warned in ((-1, False), (0, True)):
        notes = write(talk([(1, who, 10, 1, 0)]), tmp_path / "t.jsonl", "bailian").notes
        assert any("behind their history" in note for note in notes) == warned


@settings(max_examples=20, deadline=None)
@given(made=ROWS, at=st.lists(st.integers(0, 30), max_size=4), first=st.integers(0, 20))
def test_blis_counts_rounds_in_the_file(made: Rows, at: list[int], first: int, tmp_path_factory: Any):
    trace = talk(made)
    trace = trace.rows(min(first, len(trace)), len(trace))
    path = tmp_path_factory.getbasetemp() / "t.csv"
    write(cut(trace, at), path, "blis")
    rounds: dict[str, list[int]] = {}
    for row in table_of(path):
        rounds.setdefault(row["session_id"], []).append(int(row["round_index"]))
    alone = rounds.pop("", [])
    assert set(alone) <= {0}
    assert all(numbers == list(range(len(numbers))) for numbers in rounds.values())


def test_rounds_that_forget_earlier_slabs_are_found(tmp_path: Path, monkeypatch: Any):
    """The planted defect of the two tests above."""
    slabs = [talk([(1, 0, 10, 1, 0)] * 4).rows(a, a + 2) for a in (0, 2)]
    write(slabs, tmp_path / "t.csv", "blis")
    assert [row["round_index"] for row in table_of(tmp_path / "t.csv")] == ["0", "1", "2", "3"]
    monkeypatch.setattr(turns.Latest, "keep", lambda *_: None)
    write(slabs, tmp_path / "t.csv", "blis")
    assert [row["round_index"] for row in table_of(tmp_path / "t.csv")] == ["0", "1", "0", "1"]


def test_blis_has_27_columns_and_a_header_beside_it(tmp_path: Path):
    trace = talk([(5, 0, 100, 7, 3), (9, -1, 41, 3, 4)], "multimodal")
    replay = write(trace, tmp_path / "t.csv", "blis").replay
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == TRACE_V2.split(",")
    assert [len(line) for line in lines] == [27] * 3
    assert ",".join(lines[1]) == "0,3,,,0,0,,0,true,100,7,50,50,0,0,0,,0,0,5,0,0,0,0,ok,,"  # two images of 25 tokens
    assert ",".join(lines[2]) == "1,4,,,,0,,0,true,41,3,31,0,0,10,0,,0,0,14,0,0,0,0,ok,,"
    header = dict(line.split(": ") for line in (tmp_path / "t.csv.yaml").read_text().splitlines())
    assert header == {"trace_version": "3", "time_unit": "microseconds", "mode": "generated", "warm_up_requests": "0"}
    assert f"--trace-header {tmp_path}/t.csv.yaml" in replay


def test_blis_keeps_shares_of_reasoning_in_range(tmp_path: Path):
    columns = {"arrival_us": [0, 1, 2], "input_tokens": [5] * 3, "output_tokens": [0, 3, 7], "reason_tokens": [0, 1, 7]}
    write(Trace(columns), tmp_path / "t.csv", "blis")
    assert [float(row["reason_ratio"]) for row in table_of(tmp_path / "t.csv")] == [0, 1 / 3, 1]


@pytest.mark.parametrize(
    ("origin", "begin"),
    [
        (None, datetime(2023, 11, 16)),
        ("2024-05-10T00:00:00.009930Z", datetime(2024, 5, 10, 0, 0, 0, 9930)),
        ("2024-02-28 23:59:59+00:00", datetime(2024, 2, 28, 23, 59, 59)),
        ("2023-11-16T18:17:03.979960000Z", datetime(2023, 11, 16, 18, 17, 3, 979_960)),
        ("NaT", datetime(2023, 11, 16)),
        ("1700000000", datetime(2023, 11, 16)),
        ("0 s", datetime(2023, 11, 16)),
        ("last Tuesday", datetime(2023, 11, 16)),
    ],
)
def test_azure_begins_at_the_origin(origin: str | None, begin: datetime, tmp_path: Path):
    at = [0, 1, 999_999, DAY_US - 1, DAY_US, 40 * DAY_US + 123_456]
    provenance = {} if origin is None else {"origin": origin}
    write(
        Trace({"arrival_us": at, "input_tokens": at[:1] * 6, "output_tokens": [1] * 6}, provenance),
        tmp_path / "t",
        "azure",
    )
    found = [row["TIMESTAMP"] for row in table_of(tmp_path / "t")]
    assert found == [f"{begin + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S.%f}0" for us in at]


def test_only_azure_counts_images(tmp_path: Path):
    trace = talk([(1, -1, 100, 1, 0)] * 3, "multimodal")
    written = write(trace, tmp_path / "t.csv", "azure")
    assert [row["NumImages"] for row in table_of(tmp_path / "t.csv")] == ["2", "0", "0"]
    assert list(table_of(tmp_path / "t.csv")[0]) == ["TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens"]
    assert written.replay == ""
    assert any("replay a file of the format inference-perf" in note for note in written.notes)
    written = write(trace, tmp_path / "t.csv", "inference-perf")
    assert list(table_of(tmp_path / "t.csv")[0]) == ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
    assert written.replay.startswith("inference-perf ")


def test_burstgpt_tells_conversations(tmp_path: Path):
    write(talk([(1, 0, 10, 1, 0), (1, -1, 10, 1, 0)]), tmp_path / "t.csv", "burstgpt")
    header, first, second = (tmp_path / "t.csv").read_text().splitlines()
    assert header == "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    assert first == "0.000001,GPT-4,10,1,11,Conversation log"
    assert second == "0.000002,GPT-4,10,1,11,API log"


def test_totals_of_burstgpt_do_not_overflow(tmp_path: Path):
    most = 2**31 - 1
    write(Trace({"arrival_us": [0], "input_tokens": [most], "output_tokens": [most]}), tmp_path / "t.csv", "burstgpt")
    assert table_of(tmp_path / "t.csv")[0]["Total tokens"] == str(2 * most)


def test_sessions_are_in_order_of_their_first_turns(tmp_path: Path):
    trace = talk([(1, 2, 10, 1, 0), (1, -1, 10, 1, 0), (1, 0, 10, 1, 0), (1, 2, 10, 1, 0), (1, -1, 10, 1, 0)])
    written = write(cut(trace, [2, 3]), tmp_path / "t.jsonl", "aiperf-multi-turn")
    lines = rows_of(tmp_path / "t.jsonl")
    times = [[float(turn["timestamp"]) for turn in line["turns"]] for line in lines]
    assert times == [[0.001, 0.004], [0.002], [0.003], [0.005]]
    assert [line.get("session_id") for line in lines] == [str(2**53 + 1), None, "0", None]
    assert any("held in memory" in note for note in written.notes)
