"""What a program would make of a file: a good file passes, and every planted defect is found at its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import foreign
import pytest
from foreign import GOOD, lines, requests, write

import servegen_gpu as sg
from servegen_gpu.validating.report import REFUSED, SILENT, SUSPICIOUS

AT = 17
"""Row with the defect, from 0."""


def edited(text: str, changes: dict[str, object], row: int = AT) -> str:
    """The file with other values in one row; None takes a key out, and functions are given the row."""
    rows = text.splitlines()
    if text.startswith("{"):
        found = json.loads(rows[row])
        inner = found["turns"][0] if "turns" in found and "session_id" not in changes else found
        for key, value in changes.items():
            inner[key] = value(inner) if callable(value) else value
        rows[row] = json.dumps({key: value for key, value in found.items() if value is not None})
    else:
        names, cells = rows[0].split(","), rows[row + 1].split(",")
        for key, value in changes.items():
            cells[names.index(key)] = "" if value is None else str(value)
        rows[row + 1] = ",".join(cells)
    return "\n".join(rows) + "\n"


def line_of(text: str, row: int = AT) -> int:
    return row + 1 if text.startswith("{") else row + 2


def one_less(row: foreign.Row) -> list[int]:
    return row["hash_ids"][:-1]


def one_more(row: foreign.Row) -> list[int]:
    return [*row["hash_ids"], 7_777_777]


@pytest.mark.parametrize("program", GOOD)
def test_a_good_file_passes(program: str, tmp_path: Path):
    path = write(tmp_path, GOOD[program])
    report = sg.validate(path, program)
    assert report.problems == ()
    assert report.rows in (foreign.ROWS, 2 * foreign.ROWS)
    guessed = sg.validate(path, program.split(":")[0])
    assert (guessed.program, guessed.clean, guessed.guessed) == (program, True, ":" in program)


DEFECTS: list[tuple[str, dict[str, object], str, str, str, str]] = [
    ("aiperf:mooncake_trace", {"output_length": 0}, "output_length", REFUSED, "fewer than 1", "0"),
    ("aiperf:mooncake_trace", {"input_length": 0, "hash_ids": None}, "input_length", SUSPICIOUS, "makes it one", "0"),
    ("aiperf:mooncake_trace", {"input_length": -5}, "input_length", REFUSED, "fewer than no tokens", "-5"),
    ("aiperf:mooncake_trace", {"input_length": "many"}, "input_length", REFUSED, "no whole number", '"many"'),
    ("aiperf:mooncake_trace", {"input_length": 10.5}, "input_length", REFUSED, "no whole number", "10.5"),
    (
        "aiperf:mooncake_trace",
        {"input_length": None, "hash_ids": None},
        "input_length",
        REFUSED,
        "nothing to",
        "nothing",
    ),
    (
        "aiperf:mooncake_trace",
        {"text_input": "Hi"},
        "input_length",
        REFUSED,
        "two things",
        "input_length and text_input",
    ),
    ("aiperf:mooncake_trace", {"tools": [{}]}, "tools", REFUSED, "tools without messages", "[{}]"),
    ("aiperf:mooncake_trace", {"session_id": 17}, "session_id", REFUSED, "no text", "17"),
    ("aiperf:mooncake_trace", {"timestamp": None}, "timestamp", SUSPICIOUS, "cannot place", "nothing"),
    ("aiperf:mooncake_trace", {"delay": 5}, "delay", SUSPICIOUS, "takes the timestamp", "5"),
    ("aiperf:mooncake_trace", {"timestamp": "soon"}, "timestamp", REFUSED, "no number", '"soon"'),
    ("aiperf:mooncake_trace", {"timestamp": -3}, "timestamp", SUSPICIOUS, "below 0", "-3"),
    ("aiperf:mooncake_trace", {"hash_ids": one_less}, "hash_ids", SILENT, "fewer ids", "3 ids for 1,554 tokens"),
    ("aiperf:mooncake_trace", {"hash_ids": one_more}, "hash_ids", REFUSED, "more ids", "5 ids for 1,554 tokens"),
    ("aiperf:mooncake_trace", {"hash_ids": "1 2"}, "hash_ids", REFUSED, "no list", '"1 2"'),
    ("aiperf:mooncake_trace", {"hash_ids": [1, None]}, "hash_ids", REFUSED, "no list", "[1, null]"),
    ("aiperf:bailian_trace", {"timestamp": None}, "timestamp", REFUSED, "no time", "nothing"),
    ("aiperf:bailian_trace", {"hash_ids": one_more}, "hash_ids", REFUSED, "more ids", "4 ids for 37 tokens"),
    ("aiperf:burst_gpt_trace", {"Response tokens": 0}, "Response tokens", REFUSED, "fewer than 1", '"0"'),
    ("aiperf:burst_gpt_trace", {"Request tokens": "1.5"}, "Request tokens", SILENT, "no whole number", '"1.5"'),
    ("aiperf:burst_gpt_trace", {"Request tokens": "128.0"}, "Request tokens", SILENT, "no whole number", '"128.0"'),
    ("aiperf:multi_turn", {"delay": 5}, "delay", REFUSED, "timestamp and delay", "5"),
    ("aiperf:multi_turn", {"text": ""}, "text", REFUSED, "nothing to send", '""'),
    ("aiperf:multi_turn", {"output_length": 0}, "output_length", REFUSED, "fewer than 1", "0"),
    ("aiperf:multi_turn", {"session_id": 17, "timestamp": 1.0}, "session_id", REFUSED, "no text", "17"),
    ("aiperf:multi_turn", {"session_id": "s", "timestamp": None}, "timestamp", SUSPICIOUS, "beside turns", "nothing"),
    ("aiperf:multi_turn", {"session_id": "s", "turns": []}, "turns", REFUSED, "no list of requests", "[]"),
    ("dynamo", {"hash_ids": None}, "hash_ids", REFUSED, "no ids", "nothing"),
    ("dynamo", {"hash_ids": one_less}, "hash_ids", SILENT, "is cut", "3 ids for"),
    ("dynamo", {"hash_ids": [1, 2, 3, 2**32]}, "hash_ids", SILENT, "more than 32 bits", "4294967296"),
    ("dynamo", {"hash_ids": [1, 2, 3, -4]}, "hash_ids", REFUSED, "below 0", "-4"),
    ("dynamo", {"input_length": 0, "hash_ids": []}, "input_length", REFUSED, "fewer than 1", "0"),
    ("dynamo", {"input_length": 1600.0}, "input_length", REFUSED, "no whole number", "1600.0"),
    ("dynamo", {"session_id": 4}, "session_id", REFUSED, "no text", "4"),
    ("dynamo", {"timestamp": None}, "timestamp", REFUSED, "no time", "nothing"),
    ("dynamo-delta", {"output_length": 0}, "output_length", REFUSED, "fewer than 1", "0"),
    ("guidellm:mooncake", {"hash_ids": one_less}, "hash_ids", REFUSED, "fewer ids", "3 ids for"),
    ("guidellm:mooncake", {"hash_ids": one_more}, "hash_ids", REFUSED, "more ids", "5 ids for"),
    ("guidellm:mooncake", {"hash_ids": None}, "hash_ids", REFUSED, "no ids", "nothing"),
    ("guidellm:trace_synthetic", {"output_length": None}, "output_length", REFUSED, "no number", "nothing"),
    ("guidellm:servegen", {"input_tokens": -1}, "input_tokens", REFUSED, "fewer than no", '"-1"'),
    ("vllm:timed_trace", {"hash_ids": None}, "hash_ids", SILENT, "its prompt is empty", "nothing"),
    ("vllm:timed_trace", {"hash_ids": one_less}, "hash_ids", SILENT, "prompt is cut", "3 ids for"),
    ("vllm:timed_trace", {"timestamp": 0.5}, "timestamp", SILENT, "earlier than the row before", "0.5 after 3.2"),
    ("vllm:custom", {"prompt": None}, "prompt", REFUSED, "no text to send", "nothing"),
    ("vllm:custom", {"prompt": 5}, "prompt", REFUSED, "no text to send", "5"),
    ("vllm:burstgpt", {"Model": "ChatGPT"}, "Model", SILENT, "not GPT-4", '"ChatGPT"'),
    ("vllm:burstgpt", {"Response tokens": 0}, "Response tokens", SILENT, "leaves the row out", '"0"'),
    ("sglang", {"hash_ids": None}, "hash_ids", SILENT, "one sentence", "nothing"),
    ("vidur:Time", {"Date": "2024-01-01"}, "Date", SILENT, "another date", '"2024-01-01"'),
    ("vidur:Time", {"CompletionTokenCount": 5000}, "", SILENT, "over 4,096", "117 + 5,000 = 5,117 tokens"),
    ("vidur:arrived_at", {"num_decode_tokens": "x"}, "num_decode_tokens", REFUSED, "no whole number", '"x"'),
    ("inference-perf", {"TIMESTAMP": "yesterday"}, "TIMESTAMP", SILENT, "no date", '"yesterday"'),
    ("inference-perf", {"TIMESTAMP": "2023-11-16 18:17:15.5"}, "TIMESTAMP", SILENT, "earlier", "18:17:15.5"),
    ("inference-perf", {"TIMESTAMP": "2023-11-16 18:17:17+02:00"}, "TIMESTAMP", SUSPICIOUS, "offset", "+02:00"),
    ("inference-perf", {"GeneratedTokens": "7.5"}, "GeneratedTokens", SILENT, "no whole number", '"7.5"'),
    ("aibrix", {"requests": [{"x": 1}]}, "prompt", REFUSED, "no prompt", "nothing"),
    ("aibrix", {"timestamp": 3}, "timestamp", SUSPICIOUS, "earlier than the row before", "3 after 3200"),
    ("blis", {"slo_class": "gold"}, "slo_class", REFUSED, "an unknown class", '"gold"'),
    ("blis", {"think_time_us": 0}, "think_time_us", SUSPICIOUS, "none was recorded", '"0"'),
    ("llmservingsim:flat", {"input_tok_ids": [1, 2]}, "input_tok_ids", SILENT, "not one id", "2 ids for 20 tokens"),
    ("llmservingsim:sessions", {"sub_requests": 3}, "sub_requests", REFUSED, "no list of requests", "3"),
    ("lmcache", {"hash_ids": one_less}, "hash_ids", SUSPICIOUS, "fewer ids", "3 ids for"),
]


@pytest.mark.parametrize(
    ("program", "changes", "key", "severity", "wrong", "value"), DEFECTS, ids=[f"{d[0]}-{d[2]}-{d[4]}" for d in DEFECTS]
)
def test_a_defect_is_found_at_its_line(
    program: str, changes: dict[str, object], key: str, severity: str, wrong: str, value: str, tmp_path: Path
):
    text = edited(GOOD[program], changes)
    report = sg.validate(write(tmp_path, text), program)
    found = [p for p in report.problems if p.key == key and wrong in p.wrong]
    assert len(found) == 1, report
    assert found[0].severity == severity
    assert (found[0].line, found[0].rows) == (line_of(text), 1)
    assert value in found[0].value
    assert len(found[0].fix) > 3
    assert f"{line_of(text)}: {found[0].value}" in str(report)


@pytest.mark.parametrize("program", GOOD)
def test_a_broken_line_does_not_stop_the_check(program: str, tmp_path: Path):
    rows = GOOD[program].splitlines(keepends=True)
    rows[AT] = rows[AT][:6].rstrip(",") + "\n"
    report = sg.validate(write(tmp_path, "".join(rows)), program)
    broken = next(p for p in report.problems if "no JSON object" in p.wrong or "no row of the table" in p.wrong)
    assert (broken.line, broken.rows) == (AT + 1, 1)
    assert broken.value.startswith(rows[AT][:5])
    assert report.rows in (foreign.ROWS - 1, 2 * foreign.ROWS - 2)


def test_an_id_at_two_sizes(tmp_path: Path):
    """As AIPerf says it: the partial block of one request is the full block of another, before or behind it."""
    good = GOOD["aiperf:mooncake_trace"]
    for other in (3, 33):
        rows = [json.loads(line) for line in good.splitlines()]
        rows[AT]["hash_ids"][-1] = rows[other]["hash_ids"][0]
        (found,) = sg.validate(write(tmp_path, lines(rows)), "aiperf").problems
        assert (found.line, found.key, found.severity) == (AT + 1, "hash_ids", REFUSED)
        assert found.value == f"id {rows[other]['hash_ids'][0]}: 18 tokens, 512 in line {other + 1}"
    rows = [json.loads(line) for line in good.splitlines()]
    rows[AT]["hash_ids"][-1] = rows[3]["hash_ids"][-1]  # two partial blocks
    (found,) = sg.validate(write(tmp_path, lines(rows)), "aiperf").problems
    assert (found.line, found.value) == (AT + 1, f"id {rows[3]['hash_ids'][-1]}: 18 tokens, 4 in line 4")
    assert not sg.validate(tmp_path / "f.jsonl", "dynamo-delta").problems


def test_history_counted_twice(tmp_path: Path):
    """Whole inputs given to a program that appends the history; with ids that is certain, without them likely."""
    whole = requests(1e-3, 512, deltas=False)
    later = [
        i
        for i, row in enumerate(whole)
        if row.get("session_id") in [r.get("session_id") for r in whole[:i]] and i % 2 == 0
    ]
    stated = sum(row["input_length"] for row in whole)
    appended = sum(whole[i - 2]["input_length"] + whole[i - 2]["output_length"] for i in later)
    for program in ("aiperf", "dynamo-delta"):
        for given, severity in ((whole, SILENT), (foreign.without(whole, "hash_ids"), SUSPICIOUS)):
            report = sg.validate(write(tmp_path, lines(given)), program)
            (found,) = [p for p in report.problems if "history counted twice" in p.wrong]
            assert (found.severity, found.rows, found.line) == (severity, len(later), later[0] + 1)
            assert f"{appended / stated:+.0%}" in found.value
            assert f"after a turn of {whole[0]['input_length'] + whole[0]['output_length']:,} tokens" in found.value


def test_history_counted_twice_by_links_to_parents(tmp_path: Path):
    """Bailian's inputs are whole, and AIPerf appends the history to them; parents may be turns themselves."""
    rows = [
        {"chat_id": i, "parent_chat_id": i - 1 if i % 4 else -1, "timestamp": i, "input_length": 32 * (1 + i % 4),
         "output_length": 16, "hash_ids": [1000 * (i // 4) + j for j in range(2 * (1 + i % 4))]}
        for i in range(40)
    ]  # fmt: skip
    report = sg.validate(write(tmp_path, lines(rows)), "aiperf")
    (found,) = report.problems
    assert (report.program, found.line, found.rows, found.severity) == ("aiperf:bailian_trace", 2, 30, SILENT)
    appended = sum(sum(32 * (1 + j) + 16 for j in range(i % 4)) for i in range(40))
    assert f"{appended / sum(row['input_length'] for row in rows):+.0%}" in found.value


def test_history_lost(tmp_path: Path):
    """New tokens only, given to a program that takes inputs as they are."""
    for program, unit in (("dynamo", 1e-3), ("guidellm", 1.0)):
        path = write(tmp_path, lines(requests(unit, 512)))
        (found,) = sg.validate(path, program).problems
        assert (found.severity, found.rows, found.line) == (SILENT, 10, 3)
        assert "history lost" in found.wrong


def test_gaps_in_place_of_times(tmp_path: Path):
    """A delay is from the turn before: a first turn, or a request alone, cannot have it in place of a time."""
    for program, severity in (("aiperf", SUSPICIOUS), ("dynamo-delta", REFUSED)):
        rows = requests(1e-3, 512)
        for i in (AT, 0, 2):  # alone, a first turn, a later turn
            rows[i] = {"delay": 5} | foreign.without([rows[i]], "timestamp")[0]
        found = {(p.line, p.key, p.severity) for p in sg.validate(write(tmp_path, lines(rows)), program).problems}
        assert found == {(AT + 1, "timestamp", severity), (1, "session_id", severity)}


def test_turns_out_of_order(tmp_path: Path):
    """Mutated turns: AIPerf keeps the order of the file inside a session."""
    rows = requests(1e-3, 512)
    rows[2]["timestamp"], rows[0]["timestamp"] = rows[0]["timestamp"], rows[2]["timestamp"]
    (found,) = sg.validate(write(tmp_path, lines(rows)), "aiperf").problems
    assert (found.line, found.severity, found.key) == (3, SILENT, "session_id")


@pytest.mark.parametrize(
    ("program", "factor", "option"),
    [("aiperf", 1e-3, "multiply"), ("vllm", 1e3, "--timed-trace-sec-multiplier"), ("guidellm", 1e3, "time_scale")],
)
def test_times_in_another_unit(program: str, factor: float, option: str, tmp_path: Path):
    unit = {"aiperf": 1e-3}.get(program, 1.0)
    rows = requests(unit, 16 if program == "vllm" else 512, deltas=program == "aiperf") * 2
    rows = [row | {"timestamp": i * 60.0 / unit * factor} for i, row in enumerate(foreign.without(rows, "session_id"))]
    rows = rows if program != "aiperf" else [row | {"timestamp": row["timestamp"] / 300} for row in rows]
    path = write(tmp_path, lines(rows))
    (found,) = sg.validate(path, program).problems
    assert (found.line, found.severity, found.key) == (0, SUSPICIOUS, "timestamp")
    assert "another unit" in found.wrong
    assert option in found.fix
    assert sg.validate(path, program, time_scale=1 / factor).clean


def test_times_far_from_zero(tmp_path: Path):
    rows = [row | {"timestamp": row["timestamp"] + 1.7e9} for row in requests(1.0, 16, deltas=False)]
    (found,) = sg.validate(write(tmp_path, lines(rows)), "vllm").problems
    assert (found.line, found.severity) == (1, SILENT)
    assert "begin near 0" in found.wrong
    assert sg.validate(write(tmp_path, lines(requests(1.0, 16, deltas=False))), "vllm").clean


def test_sizes_of_blocks_are_told(tmp_path: Path):
    """Another size than the program's is a note if all rows have it, and a problem if it was stated otherwise."""
    path = write(tmp_path, lines(requests(1.0, 512, deltas=False)))
    report = sg.validate(path, "vllm")
    assert report.clean
    assert "--timed-trace-chunk-hash-size 512" in " ".join(report.notes)
    stated = sg.validate(path, "vllm", block_tokens=256)
    assert (stated.problems[0].rows, stated.problems[0].key) == (foreign.ROWS, "hash_ids")


def test_a_context_that_is_too_short(tmp_path: Path):
    path = write(tmp_path, GOOD["lmcache"])
    assert sg.validate(path, "lmcache", max_model_len=5000).clean
    (found,) = sg.validate(path, "lmcache", max_model_len=1600).problems
    assert "over 1,600 tokens" in found.wrong
    assert found.rows > 20


WHOLE_FILE: list[tuple[str, Callable[[str], str], str, str]] = [
    ("vllm:burstgpt", lambda t: t.replace("Model,Request tokens", "Request tokens,Model"), SILENT, "by position"),
    ("inference-perf", lambda t: t.replace("TIMESTAMP,", "TIMESTAMP,NumImages,"), SILENT, "by position"),
    ("vidur:Time", lambda t: t.replace("Date,", "Day,"), REFUSED, "no such column"),
    ("blis", lambda t: t.replace("arrival_time_us", "arrival"), REFUSED, "no such column"),
    ("vllm:timed_trace", lambda t: t.replace("\n", "\n\n", 1), REFUSED, "a blank line"),
    ("aiperf:mooncake_trace", lambda t: "\ufeff" + t, REFUSED, "byte order mark"),
    ("aiperf:mooncake_trace", lambda _: "a,b\n1,2\n", REFUSED, "reads JSON lines"),
    ("aiperf:mooncake_trace", lambda _: '[{"timestamp": 1}]', REFUSED, "reads JSON lines"),
    ("aiperf:mooncake_trace", lambda _: "", REFUSED, "reads JSON lines"),
    ("vidur:Time", lambda t: t.split("\n")[0] + "\n", REFUSED, "no requests"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "change", "severity", "wrong"), WHOLE_FILE)
def test_what_concerns_the_whole_file(
    program: str, change: Callable[[str], str], severity: str, wrong: str, tmp_path: Path
):
    report = sg.validate(write(tmp_path, change(GOOD[program])), program)
    (found,) = [p for p in report.problems if wrong in p.wrong]
    assert found.severity == severity
    assert found.fix
