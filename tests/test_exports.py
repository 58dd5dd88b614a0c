"""Exports: what reading back gives, deltas and ids of later turns, commands that replay, refusals."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import READERS, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import REPOSITORY, TURNS, tiny_pool
from talks import ALONE, CONVERSATIONS, ROWS, Rows, cumulated, cut, replayed, shortened, talk

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.exports import EXPORTS, sessions, write
from servegen_gpu.exports.export import Export, ExportOptions
from servegen_gpu.exports.table import HEAD, as_markdown, rows

OF_REQUESTS = sorted(set(EXPORTS) - {"aiperf-rates"})
DELTAS = sorted(name for name, export in EXPORTS.items() if export.inputs == "new")
PROMPTS = ("vllm-custom", "aiperf-multi-turn", "aibrix")
BLOCK = 16
LESS = st.lists(st.integers(0, 500), min_size=1, max_size=30)


def file_of(folder: Path, name: str) -> Path:
    return folder / f"t{(EXPORTS[name].suffixes or ('.jsonl',))[0]}"


def text_of(trace: Any, folder: Path, name: str, **options: Any) -> bytes:
    path = file_of(folder, name)
    write(trace, path, name, ExportOptions(**options))
    return path.read_bytes()


def first_rows(trace: Trace) -> list[int]:
    """Of every row, the first row of its conversation; its own if it stands alone."""
    first: dict[int, int] = {}
    return [first.setdefault(c if c >= 0 else -1 - row, row) for row, c in enumerate(trace["conversation"].tolist())]


def expected(trace: Trace, export: Export) -> tuple[dict[str, list[Any]], np.ndarray]:
    """What the columns that a format holds should be when read back, and the order of its rows."""
    order = np.arange(len(trace))
    if export.name == "aiperf-multi-turn":
        order = np.argsort(first_rows(trace), kind="stable")
    held = {name: trace[name][order].tolist() for name in export.columns if name in trace and name != "hash_ids"}
    if "conversation" in held:
        held["conversation"] = [max(name, -1) for name in held["conversation"]]
    if export.name == "bailian":
        held["conversation"] = first_rows(trace)
    return held, order


def check_ids(found: list[list[Any]], trace: Trace, export: Export, order: np.ndarray) -> None:
    """Equal ids where the trace has equal ones, and no others, in whole blocks; of deltas, as many as fill blocks."""
    ids = [trace["hash_ids"][row].tolist() for row in order.tolist()]
    if export.inputs == "new":
        return
    if export.name in PROMPTS:
        found = [[tuple(row[k : k + BLOCK]) for k in range(0, len(row), BLOCK)] for row in found]
    assert [len(row) for row in found] == [len(row) for row in ids]
    pairs = {(a, b) for theirs, ours in zip(found, ids, strict=True) for a, b in zip(theirs, ours, strict=True)}
    whole = {(a, b) for a, b in pairs if export.name not in PROMPTS or len(a) >= 10}
    assert len(whole) == len({a for a, _ in whole}) == len({b for _, b in whole})
    if not export.name.startswith(("dynamo", *PROMPTS)):
        assert found == ids


@pytest.mark.parametrize("name", OF_REQUESTS)
@settings(max_examples=15, deadline=None)
@given(made=ROWS, extra=st.sampled_from(("", "reasoning", "multimodal")))
def test_reading_back_gives_what_the_table_says(name: str, made: Rows, extra: str, tmp_path_factory: Any):
    trace = talk(made, extra)
    trace = trace.with_hash_ids(BLOCK) if "hash_ids" in EXPORTS[name].columns else trace
    path = file_of(tmp_path_factory.getbasetemp(), name)
    written = write(trace, path, name)
    found = READERS[name](path)
    held, order = expected(trace, EXPORTS[name])
    if EXPORTS[name].inputs == "new":
        names = found.get("conversation", [-1] * len(trace))
        found["input_tokens"] = cumulated(names, found["input_tokens"], found["output_tokens"])
    if len(trace):
        check_ids(found.pop("hash_ids", []), trace, EXPORTS[name], order) if "hash_ids" in found else None
        if max(held.get("conversation", [-1])) < 0:  # no session is named, so there is no such column
            found.pop("conversation", None), held.pop("conversation", None)
        if name == "blis" and extra != "multimodal":
            held["text_tokens"] = held["input_tokens"]
        if name == "blis" and extra != "reasoning":
            assert set(found.pop("reason_tokens")) == {0}
        assert found == held
    assert written.rows == len(trace)


@pytest.mark.parametrize("name", [name for name in OF_REQUESTS if name != "vllm-custom"])
@settings(max_examples=6, deadline=None)
@given(made=ROWS.filter(bool))
def test_this_package_reads_its_exports(name: str, made: Rows, tmp_path_factory: Any):
    trace = talk(made)
    path = file_of(tmp_path_factory.getbasetemp(), name)
    path = path.with_suffix(EXPORTS[name].format(ExportOptions()).suffix)
    write(trace, path, name)
    found = sg.read_trace(path)
    columns = [c for c in ("arrival_us", "client", "input_tokens", "output_tokens") if c in EXPORTS[name].columns]
    read, written = (sorted(zip(*(t[c].tolist() for c in columns), strict=True)) for t in (found, trace))
    assert read == written
    if "conversation" in EXPORTS[name].columns and "conversation" in found:
        sizes = [np.unique(t["conversation"][t["conversation"] >= 0], return_counts=True)[1] for t in (found, trace)]
        assert [n for n in sorted(sizes[0]) if n > 1] == [n for n in sorted(sizes[1]) if n > 1]


@pytest.mark.parametrize("name", DELTAS)
def test_a_history_counted_twice_would_be_seen(name: str, tmp_path: Path, monkeypatch: Any):
    """The planted defect of the test above: whole inputs where the reader puts the history in front."""
    trace = talk([(10, 0, 20, 5, 1), (10, 0, 7, 5, 1)])
    for module in ("mooncake", "aiperf", "aibrix"):
        monkeypatch.setattr(f"servegen_gpu.exports.{module}.as_deltas", lambda slabs, *_: slabs)
    write(trace, file_of(tmp_path, name), name)
    found = READERS[name](file_of(tmp_path, name))
    assert cumulated(found["conversation"], found["input_tokens"], found["output_tokens"]) == [20, 20 + 5 + 32]
    assert trace["input_tokens"].tolist() == [20, 32]


def test_the_readme_has_the_table_of_the_registry():
    text = (REPOSITORY / "servegen_gpu" / "exports" / "README.md").read_text(encoding="utf-8")
    assert as_markdown() in text
    assert [row[0] for row in rows()] == list(EXPORTS)
    assert all(row[HEAD.index("client")] == ("yes" if "client" in EXPORTS[row[0]].columns else "") for row in rows())


@pytest.mark.parametrize("name", sorted(EXPORTS))
@settings(max_examples=6, deadline=None)
@given(made=ROWS, at=st.lists(st.integers(0, 30), max_size=4), less=LESS)
def test_files_do_not_depend_on_slabs(name: str, made: Rows, at: list[int], less: list[int], tmp_path_factory: Any):
    trace = shortened(talk(made), less)
    folder = tmp_path_factory.getbasetemp()
    options = {"deltas": "nearest"}
    assert text_of(cut(trace, at), folder, name, **options) == text_of(trace, folder, name, **options)


@pytest.mark.parametrize("name", sorted(EXPORTS))
@pytest.mark.parametrize("count", [0, 1])
def test_small_traces(name: str, count: int, tmp_path: Path):
    trace = talk([(7, 0, 20, 5, 1)][:count])
    written = write(trace, file_of(tmp_path, name), name)
    assert written.rows == count
    assert written.path.with_name(f"{written.path.name}.provenance.json").is_file()
    if name in READERS:
        assert {len(column) for column in READERS[name](written.path).values()} == {count}


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_traces_of_three_columns_will_do(name: str, tmp_path: Path):
    trace = Trace({"arrival_us": [0, 5, 1_500_000], "input_tokens": [1, 40, 17], "output_tokens": [3, 1, 2]})
    if "hash_ids" in EXPORTS[name].columns and name not in PROMPTS:
        trace = Trace(trace.columns | {"hash_ids": [[1], [2, 3, 4], [2, 5]]})
    assert write(trace, file_of(tmp_path, name), name, ExportOptions(block_tokens=BLOCK)).rows == 3


def test_no_slab_is_refused(tmp_path: Path):
    for name in EXPORTS:
        with pytest.raises(OptionError, match="at least one slab"):
            write(iter(()), file_of(tmp_path, name), name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DELTAS)
def test_rows_of_a_slice_keep_their_conversations(name: str, tmp_path: Path):
    trace = talk([(10, 0, 30, 20, 1), (10, 1, 9, 3, 1), (10, 0, 30, 20, 1), (10, 0, 30, 20, 1)]).rows(1, 4)
    write(trace, file_of(tmp_path, name), name)
    found = READERS[name](file_of(tmp_path, name))
    assert sorted(found["input_tokens"]) == [9, 30, 80]  # the first turn in the slice is whole


@settings(max_examples=40, deadline=None)
@given(made=ROWS, less=LESS, at=st.lists(st.integers(0, 30)))
def test_nearest_deltas_are_those_of_a_loop(made: Rows, less: list[int], at: list[int], tmp_path_factory: Any):
    trace = shortened(talk(made), less)
    path = tmp_path_factory.getbasetemp() / "t.jsonl"
    written = write(cut(trace, at), path, "aiperf", ExportOptions(deltas="nearest"))
    rows = rows_of(path)
    names = [int(row.get("session_id", "-1")) for row in rows]
    whole = cumulated(names, [row["input_length"] for row in rows], [row["output_length"] for row in rows])
    assert whole == replayed(trace)
    changed = sum(a != b for a, b in zip(whole, trace["input_tokens"].tolist(), strict=True))
    assert any(note.startswith(f"{changed:,} of ") for note in written.notes) == (changed > 0)
    if changed:
        with pytest.raises(OptionError, match="its context was cut"):
            write(cut(trace, at), path, "aiperf")


@pytest.mark.parametrize("name", DELTAS)
def test_a_cut_context_is_refused_by_row_and_conversation(name: str, tmp_path: Path):
    trace = talk([(10, 1, 30, 20, 1), (10, -1, 9, 3, 1), (10, 1, 30, 20, 1)])
    trace["input_tokens"][2] = 50  # as long as the history
    with pytest.raises(OptionError) as error:
        write([trace.rows(0, 2), trace.rows(2, 3)], file_of(tmp_path, name), name)
    assert "an input of 50 tokens after a history of 50 in row 2, conversation 3" in str(error.value)
    assert "--deltas nearest" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_edits_are_whole_inputs_or_refused(name: str, tmp_path: Path):
    pool = tiny_pool(rate_rps=0.2).with_conversations(TURNS["edit"])
    trace = sg.generate(pool, duration=400, seed=2)
    assert (trace["turn"] > 1).sum() > 20
    if name in DELTAS:
        with pytest.raises(OptionError, match=r"leaves out answers \(an edit\)"):
            write(trace, file_of(tmp_path, name), name)
        written = write(trace, file_of(tmp_path, name), name, ExportOptions(deltas="nearest"))
        assert any("replayed with one new token" in note for note in written.notes)
    elif name in READERS:
        write(trace, file_of(tmp_path, name), name)
        found = READERS[name](file_of(tmp_path, name))
        assert list(found["input_tokens"]) == expected(trace, EXPORTS[name])[0]["input_tokens"]


def sizes_of_ids(path: Path, block: int) -> dict[int, set[int]]:
    """How many tokens every id of a file stands for."""
    sizes: dict[int, set[int]] = defaultdict(set)
    for row in rows_of(path):
        ids, tokens = row["hash_ids"], row["input_length"]
        assert len(ids) == -(-tokens // block)
        for at, one in enumerate(ids):
            sizes[one].add(min(block, tokens - at * block))
    return sizes


@pytest.mark.parametrize("block", [1, 16, 512])
@pytest.mark.parametrize("name", ["mooncake", "aiperf", "dynamo-delta"])
@settings(max_examples=12, deadline=None)
@given(made=ROWS, system=st.integers(0, 40))
def test_no_id_has_two_sizes(name: str, block: int, made: Rows, system: int, tmp_path_factory: Any):
    path = tmp_path_factory.getbasetemp() / "t.jsonl"
    write(talk(made).with_hash_ids(block, system_tokens=system), path, name)
    assert all(len(sizes) == 1 for sizes in sizes_of_ids(path, block).values())


def test_without_ids_of_their_own_a_short_last_block_would_have_two_sizes(tmp_path: Path, monkeypatch: Any):
    """Block 1 of the system prompt is whole in the second turn, of which 7 tokens are new, and in the third request."""
    trace = talk([(10, 0, 20, 5, 1), (10, 0, 7, 5, 1), (10, 1, 40, 5, 1)]).with_hash_ids(16, system_tokens=40)
    write(trace, tmp_path / "t.jsonl", "aiperf")
    assert all(len(sizes) == 1 for sizes in sizes_of_ids(tmp_path / "t.jsonl", 16).values())

    def careless(slab: Trace, delta: Any, later: Any, block_tokens: int) -> Ragged:
        count = np.where(later, -(-delta.astype(np.int64) // block_tokens), slab["hash_ids"].lengths)
        own = [slab["hash_ids"][row][-n:] if n else [] for row, n in enumerate(count.tolist())]
        return Ragged(np.concatenate(([0], np.cumsum(count))), np.concatenate(own).astype(np.int64))

    monkeypatch.setattr(sessions, "_last_ids", careless)
    write(trace, tmp_path / "t.jsonl", "aiperf")
    assert any(len(sizes) > 1 for sizes in sizes_of_ids(tmp_path / "t.jsonl", 16).values())


def test_small_ids_say_the_same(tmp_path: Path, monkeypatch: Any):
    trace = talk([(10, k % 3, 30, 20, 1) for k in range(40)]).with_hash_ids(BLOCK)
    write(cut(trace, [7, 9, 30]), tmp_path / "t.jsonl", "dynamo")
    small = [number for row in rows_of(tmp_path / "t.jsonl") for number in row["hash_ids"]]
    wide = trace["hash_ids"].values.tolist()
    seen: dict[int, int] = {}
    assert small == [seen.setdefault(one, len(seen)) for one in wide], "numbered as they appear"
    assert 0 <= min(small) <= max(small) < 2**32

    monkeypatch.setattr("servegen_gpu.exports.mooncake.with_small_ids", lambda slabs: slabs)
    write(trace, tmp_path / "t.jsonl", "dynamo")
    assert max(number for row in rows_of(tmp_path / "t.jsonl") for number in row["hash_ids"]) >= 2**32


@pytest.mark.parametrize("name", ["mooncake", "dynamo", "aiperf", "bailian", "burstgpt", "vllm-custom", "aibrix"])
def test_requests_without_a_token_get_one(name: str, tmp_path: Path):
    columns = {"arrival_us": [0, 1], "client": [0, 0], "input_tokens": [0, 5], "output_tokens": [4, 0]}
    written = write(Trace(columns), tmp_path / "t.jsonl", name)
    found = READERS[name](tmp_path / "t.jsonl")
    assert (found["input_tokens"], found["output_tokens"]) == ([1, 5], [4, 1])
    assert any(note.startswith("2 inputs and outputs without a token") for note in written.notes)


@pytest.mark.parametrize("name", sorted(EXPORTS))
@pytest.mark.parametrize("folder", ["plain", "a b", "it's", 'say "hi" $HOME', "a;b,c"])
def test_commands_survive_any_path(name: str, folder: str, tmp_path: Path):
    (tmp_path / folder).mkdir()
    path = file_of(tmp_path / folder, name)
    options = ExportOptions(tokenizer=None, model="org/it's a model", url="http://host:1/?a=b&c=d")
    words = shlex.split(write(talk([(7, 0, 20, 5, 1), (8, -1, 3, 4, 2)]), path, name, options).replay)
    named = [word for word in words if str(path) in word or json.dumps(str(path)) in word]
    assert named
    for word in named:
        if word.startswith("{"):
            assert json.loads(word)["source"]["path"] == str(path)
        else:
            assert word in (str(path), f"{path}.yaml")
    assert any("org/it's a model" in word for word in words) or name in (
        "dynamo",
        "dynamo-delta",
        "vidur",
        "llmservingsim",
    )


@pytest.mark.parametrize(("suffix", "program"), [("gz", "gzip"), ("zst", "zstd")])
def test_compressed_files_are_to_be_unpacked_first(suffix: str, program: str, tmp_path: Path):
    path = tmp_path / f"a b.csv.{suffix}"
    written = write(talk([(7, 0, 20, 5, 1)]), path, "vidur")
    assert str(path)[: -1 - len(suffix)] in shlex.split(written.replay)
    (note,) = [note for note in written.notes if note.startswith("to replay: ")]
    assert shlex.split(note)[2:] == ["first", "run", program, "-d", "-k", str(path)]


def test_blocks_of_another_size_are_told_to_the_reader(tmp_path: Path):
    trace = talk([(7, -1, 20, 5, 1)])
    for name, words in (
        ("aiperf", ["--isl-block-size", "64"]),
        ("bailian", ["--isl-block-size", "64"]),
        ("vllm-timed", ["--timed-trace-chunk-hash-size", "64"]),
        ("dynamo", ["--trace-block-size", "64"]),
        ("guidellm", ['"hash_id_block_size":64}']),
    ):
        replay = write(trace, tmp_path / "t.jsonl", name, ExportOptions(block_tokens=64)).replay
        assert " ".join(words) in " ".join(shlex.split(replay))


def test_what_a_format_has_no_place_for_is_named(tmp_path: Path):
    written = write(talk([(7, 0, 20, 5, 1)], "multimodal"), tmp_path / "t.csv", "azure")
    (note,) = [note for note in written.notes if "no place for" in note]
    assert "client, conversation, turn, new_tokens, text_tokens, image_tokens, audio_tokens, video_tokens" in note


@pytest.mark.parametrize(
    ("name", "path", "options", "message"),
    [
        ("moonshot", "t.jsonl", {}, "a format among"),
        ("vllm-custom", "t.json", {}, "ends in .jsonl.*write to t.jsonl"),
        ("vllm-custom", "t.jsonl.gz", {}, "ends in .jsonl"),
        ("guidellm", "t.txt", {}, "ends in .jsonl or .json"),
        ("blis", "t", {}, "ends in .csv"),
        ("aiperf", "t.jsonl", {"deltas": "roughly"}, "deltas among exact, nearest"),
        ("aiperf", "t.jsonl", {"block_tokens": 0}, "block_tokens"),
        ("aiperf", "t.jsonl", {"block_tokens": 32}, "ids of blocks of 32 tokens.*with ids of 16"),
        ("aiperf-rates", "t.json", {"window_s": 0}, "window_s"),
    ],
)
def test_refusals(name: str, path: str, options: dict[str, Any], message: str, tmp_path: Path):
    trace = talk([(7, 0, 20, 5, 1)]).with_hash_ids(16)
    with pytest.raises(OptionError, match=message):
        write(trace, tmp_path / path, name, ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_pipes_have_no_name_to_replay_and_no_header_beside():
    trace = talk([(7, 0, 20, 5, 1)])
    assert "FILE" in shlex.split(write(trace, "/dev/null", "vidur").replay)
    with pytest.raises(OptionError, match="a file, because a header goes beside it, got /dev/null"):
        write(trace, "/dev/null", "blis")


def test_too_few_ids_are_refused(tmp_path: Path):
    trace = Trace({"arrival_us": [0], "input_tokens": [33], "output_tokens": [1], "hash_ids": [[1, 2]]})
    with pytest.raises(OptionError, match="an id for every 16 tokens of input, got 2 for 33 tokens in row 0"):
        write(trace, tmp_path / "t.jsonl", "aiperf", ExportOptions(block_tokens=16))


def test_generated_conversations_go_everywhere(tmp_path: Path):
    model = sg.TurnModel(0.6, turns=sg.distributions.Pmf([2, 4], [1, 1]), gap_s=sg.distributions.LogNormal(20, 1.0))
    pool = sg.population("m-small", clients=20).with_conversations(model)
    trace = sg.generate(pool, rate=20, duration="60s", seed=3)
    assert (trace["turn"] > 1).any()
    for name in OF_REQUESTS:
        write(trace, file_of(tmp_path, name), name, ExportOptions(deltas="nearest"))
        found = READERS[name](file_of(tmp_path, name))
        assert len(found["input_tokens"]) == len(trace)


def test_the_commands(tmp_path: Path, capsys: Any):
    talk([(7, CONVERSATIONS.index(3), 20, 5, 1), (9, -1, 600, 5, 1)]).write(tmp_path / "t.parquet")
    source, target = str(tmp_path / "t.parquet"), str(tmp_path / "t.jsonl")
    assert main(["convert", source, "--to", "aiperf", "-o", target, "--replay-command"]) == 0
    printed = capsys.readouterr().out
    assert shlex.split(printed)[:2] == ["aiperf", "profile"]
    assert printed.count("\n") == 1
    assert main(["convert", source, "--to", "dynamo", "-o", target, "--model", "m"]) == 0
    shown = capsys.readouterr()
    assert "\n  python -m dynamo.replay" in shown.out
    assert "note: to replay: ai-dynamo 1.5 and later" in shown.err
    assert "note: dynamo files have no place for turn, new_tokens: left out" in shown.err
    assert main(["convert", source, "--to", "aiperf-rates", "-o", str(tmp_path / "r.json"), "--window", "5us"]) == 2
    assert main(["formats"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(EXPORTS)
    assert main(["formats", "--json"]) == 0
    assert [row["format"] for row in json.loads(capsys.readouterr().out)] == list(EXPORTS)
    assert main(["formats", "--markdown"]) == 0
    assert capsys.readouterr().out == as_markdown()


def test_ids_of_requests_alone_name_no_session(tmp_path: Path):
    trace = talk([(7, -1, 20, 5, 1)])
    assert trace["conversation"][0] == ALONE
    for name in ("aiperf", "dynamo", "aibrix", "aiperf-multi-turn"):
        assert b"session_id" not in text_of(trace, tmp_path, name)
