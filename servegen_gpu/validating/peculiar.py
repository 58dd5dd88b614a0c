"""Rules of one program alone: each looks at some rows and notes what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.validating.cells import lists, mask, names, numbers, texts
from servegen_gpu.validating.pieces import Piece
from servegen_gpu.validating.report import REFUSED, SILENT, SUSPICIOUS, Findings
from servegen_gpu.validating.rows import note
from servegen_gpu.validating.rules import Program

VIDUR_DATE = "2023-08-21"
SLO_CLASSES = ("critical", "standard", "sheddable", "batch", "background")


def changed(program: Program, **changes: Any) -> Program:
    """A program that differs in some rules."""
    return replace(program, **changes)


def there(piece: Piece, key: str) -> NDArray[np.bool_]:
    """Where a key has a value, bool[n]."""
    column = piece.columns.get(key)
    if column is None:
        return np.zeros(len(piece), np.bool_)
    if isinstance(column, list):
        return np.array([value is not None for value in column], np.bool_)
    return mask(column.is_valid())


def filled(piece: Piece, key: str) -> NDArray[np.bool_]:
    """Where a key has a value that is neither empty text nor an empty list, bool[n]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = piece.columns.get(key)
    if isinstance(column, list):
        return np.array([bool(value) for value in column], np.bool_)
    if column is not None and pa.types.is_string(column.type):
        return mask(pc.fill_null(pc.not_equal(column, ""), False))
    if column is not None and pa.types.is_list(column.type):
        return mask(pc.fill_null(pc.greater(pc.list_value_length(column), 0), False))
    return there(piece, key)


def one_input(piece: Piece, findings: Findings) -> None:
    """AIPerf: exactly one way to say what is sent."""
    ways = ("input_length", "text_input", "messages", "payload")
    count = np.sum([there(piece, key) for key in ways], axis=0)
    fix = f"give exactly one of {', '.join(ways)}"
    note(findings, piece, count == 0, "input_length", "nothing to send", fix, REFUSED, "nothing")
    both = count > 1
    if both.any():
        row = int(np.argmax(both))
        shown = " and ".join(key for key in ways if there(piece, key)[row])
        note(findings, piece, both, "input_length", "two things to send", fix, REFUSED, shown)
    lost = there(piece, "hash_ids") & ~there(piece, "input_length")
    note(findings, piece, lost, "hash_ids", "ids without input_length", "leave hash_ids out", REFUSED)
    lost = there(piece, "tools") & ~there(piece, "messages")
    note(findings, piece, lost, "tools", "tools without messages", "leave tools out", REFUSED)


def fixed_schedule(piece: Piece, findings: Findings) -> None:
    """AIPerf: times, or gaps behind the turn before."""
    time, delay = there(piece, "timestamp"), there(piece, "delay")
    wrong = "no timestamp: --fixed-schedule cannot place it"
    alone = ~there(piece, "session_id")
    note(findings, piece, ~time & (alone | ~delay), "timestamp", wrong, "give every request a timestamp", SUSPICIOUS)
    wrong = "timestamp and delay: --fixed-schedule takes the timestamp"
    note(findings, piece, time & delay, "delay", wrong, "leave delay out", SUSPICIOUS)


def time_or_delay(piece: Piece, findings: Findings) -> None:
    """Dynamo: times, or gaps behind the turn before."""
    time, delay = there(piece, "timestamp"), there(piece, "delay")
    fix = "give every request a timestamp, or later turns a delay"
    alone = ~there(piece, "session_id")
    note(findings, piece, ~time & (alone | ~delay), "timestamp", "no time", fix, REFUSED)
    wrong = "timestamp and delay: the delay is taken, behind the end of the turn before"
    note(findings, piece, time & delay, "delay", wrong, "leave one of them out", SUSPICIOUS)


def session_is_text(piece: Piece, findings: Findings) -> None:
    """AIPerf: ids of sessions are text."""
    other = names(piece, "session_id")[2]
    note(findings, piece, other, "session_id", "no text", 'write it between quotes: "17"', REFUSED)


def session_time(piece: Piece, findings: Findings) -> None:
    """AIPerf: the line itself needs a time, beside its turns."""
    wrong = "no timestamp beside turns: --fixed-schedule is refused"
    fix = "give the line the timestamp of its first turn"
    note(findings, piece, ~there(piece, "timestamp"), "timestamp", wrong, fix, SUSPICIOUS)


def text_of_turn(piece: Piece, findings: Findings) -> None:
    """AIPerf: a turn has text, or something else to send."""
    ways = ("text", "texts", "image", "images", "audio", "audios", "video", "videos")
    some = np.any([filled(piece, key) for key in ways], axis=0)
    note(findings, piece, ~some, "text", "a turn with nothing to send", "give it text that is not empty", REFUSED)


def not_both(piece: Piece, findings: Findings) -> None:
    """AIPerf: times or delays; 0 counts as none."""
    time, delay = (numbers(piece, key).values != 0 for key in ("timestamp", "delay"))
    note(findings, piece, time & delay, "delay", "timestamp and delay", "leave one of them out", REFUSED)


def prompt_is_text(piece: Piece, findings: Findings) -> None:
    """VLLM: prompts."""
    column = texts(piece, "prompt")
    empty = np.array(column.fill_null("").to_numpy(zero_copy_only=False) == "", np.bool_)
    note(findings, piece, empty, "prompt", "no text to send", "give every request a prompt", REFUSED)


def gpt_4(piece: Piece, findings: Findings) -> None:
    """VLLM: rows of one model alone."""
    model = texts(piece, "Model").fill_null("").to_numpy(zero_copy_only=False)
    fix = "write GPT-4 in every row that is to be sent"
    note(findings, piece, model != "GPT-4", "Model", "not GPT-4: the program leaves the row out", fix, SILENT)


def date_of_vidur(piece: Piece, findings: Findings) -> None:
    """Vidur: rows of one date alone."""
    date = texts(piece, "Date").fill_null("").to_numpy(zero_copy_only=False)
    wrong = f"another date than {VIDUR_DATE}: the program leaves the row out"
    fix = f"write {VIDUR_DATE} in every row, or pass --trace_request_generator_config_date"
    note(findings, piece, date != VIDUR_DATE, "Date", wrong, fix, SILENT)


def prompt_or_length(piece: Piece, findings: Findings) -> None:
    """AIBrix: a prompt, or its length."""
    some = there(piece, "prompt") | there(piece, "prompt_length") | there(piece, "Prompt Length")
    note(findings, piece, ~some, "prompt", "no prompt", "give every request a prompt, or prompt_length", REFUSED)


def slo_classes(piece: Piece, findings: Findings) -> None:
    """BLIS: classes of service."""
    if "slo_class" not in piece.columns:
        return
    stated = texts(piece, "slo_class").fill_null("").to_numpy(zero_copy_only=False)
    other = ~np.isin(stated.astype(str), ["", *SLO_CLASSES])
    note(findings, piece, other, "slo_class", "an unknown class", f"write one of {', '.join(SLO_CLASSES)}", REFUSED)


def think_times(piece: Piece, findings: Findings) -> None:
    """BLIS: a gap of 0 means that none was recorded."""
    if "think_time_us" in piece.columns:
        found = numbers(piece, "think_time_us", text=True)
        wrong = "0 means that none was recorded"
        note(findings, piece, found.there & (found.values == 0), "think_time_us", wrong, "write 1", SUSPICIOUS)


def token_ids(piece: Piece, findings: Findings) -> None:
    """LLMServingSim: as many ids of tokens as tokens."""
    for key, of in (("input_tok_ids", "input_toks"), ("output_tok_ids", "output_toks")):
        ids, tokens = lists(piece, key), numbers(piece, of)
        note(findings, piece, ids.wrong, key, "no list of whole numbers", "write [1, 2, 3]", REFUSED)
        other = ~ids.missing & ~ids.wrong & tokens.there & (ids.lengths != tokens.values)
        if other.any():
            row = int(np.argmax(other))
            value = f"{ids.lengths[row]:,} ids for {json.dumps(tokens.values[row].item())} tokens"
            note(findings, piece, other, key, f"not one id for each of {of}", "give one for each", SILENT, value)
