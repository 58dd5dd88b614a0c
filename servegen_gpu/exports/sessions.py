"""Later turns of conversations as what is new in them.

A format with deltas says of a later turn what is new in it: its reader puts the conversation so far, its own answers
included, in front. So turn j of a conversation has a delta if, and only if, its input is longer than input and output
of turn j - 1 together: the difference is the delta. Where the context was cut, or reasoning or whole answers left out
of the history (``growth="edit"``), or lengths of turns were drawn without their history, there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.exports.export import Deltas, Say
from servegen_gpu.exports.turns import Latest, Turns
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.trace import Trace

MADE_BELOW = 1 << 52
"""Ids that are made here are from this up to its double, which a double holds exactly."""
MIX = np.uint64(0x9E3779B97F4A7C15)


def as_deltas(slabs: Iterable[Trace], block_tokens: int, deltas: Deltas, say: Say) -> Iterator[Trace]:
    """Slabs whose later turns have new tokens only as ``input_tokens``, and only their ``hash_ids``.

    What is kept of each conversation is 16 bytes.

    Parameters
    ----------
    slabs : iterable of Trace
    block_tokens : int
        Of the ids; 0 if there are none.
    deltas : {"exact", "nearest"}
        Refuse turns without a delta, or let them have the shortest input that has one.

    Raises
    ------
    OptionError
        If a turn has no delta; it names conversation and row.
    """
    latest = Latest()  # tokens of a conversation up to its latest answer
    count = without = input_tokens = extra_tokens = 0
    for slab in slabs:
        later = np.zeros(len(slab), np.bool_)
        delta = slab["input_tokens"].copy()
        if "conversation" in slab:
            turns = latest.turns(slab)
            inputs, history = _replayed(slab, turns)
            extra = inputs - slab["input_tokens"][turns.row]
            if deltas == "exact" and extra.any():
                at = int(turns.row[extra > 0].min())
                _refuse(slab, at, int(history[turns.row == at][0]))
            later[turns.row] = history > 0
            count += int(later.sum())
            without += int((extra > 0).sum())
            extra_tokens += int(extra.sum())
            delta[turns.row] = inputs - history
            latest.keep(slab, turns, inputs + slab["output_tokens"][turns.row])
        input_tokens += int(slab["input_tokens"].sum(dtype=np.int64))
        columns: dict[str, Column] = {"input_tokens": delta}
        if block_tokens:
            columns["hash_ids"] = _last_ids(slab, delta, later, block_tokens)
        yield Trace.trusted(slab.columns | columns, slab.provenance, slab.first_row)
    if without:
        say(
            f"{without:,} of {count:,} later turns have inputs no longer than the conversation before them, and are "
            f"replayed with one new token: {extra_tokens / max(input_tokens, 1):.1%} more input tokens than there are"
        )


def _replayed(slab: Trace, turns: Turns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs of turns as a reader of deltas makes them, and the history in each (0 in a first turn), int64[m] each.

    With r for such inputs, i for inputs and o for outputs of a trace: r_j = max(i_j, r_{j-1} + o_{j-1} + 1). Less the
    sum of o + 1 over the turns before j, that is the largest so far.
    """
    inputs, outputs = (slab[name][turns.row].astype(np.int64) for name in ("input_tokens", "output_tokens"))
    group = np.cumsum(turns.begins) - 1
    said = np.cumsum(outputs + 1) - (outputs + 1)
    said -= said[turns.begins][group]
    level = np.maximum(inputs - said, np.where(turns.begins, turns.before + 1, 0))
    height = int(level.max(initial=0)) - int(level.min(initial=0)) + 1
    if height * (len(group) + 1) >= 2**62:
        raise OptionError("conversations below 2**40 tokens", f"one of {height:,}", "check the columns of tokens")
    replayed = np.maximum.accumulate(level + group * height) - group * height + said
    before = np.where(turns.begins, np.maximum(turns.before, 0), np.roll(replayed + outputs, 1))
    return replayed, before


def _refuse(slab: Trace, row: int, history_tokens: int) -> NoReturn:
    raise OptionError(
        "turns whose input is their history and new tokens",
        f"an input of {slab['input_tokens'][row]:,} tokens after a history of {history_tokens:,} in row "
        f"{slab.first_row + row:,}, conversation {slab['conversation'][row]}: its context was cut, it leaves out "
        "answers (an edit), or its lengths were drawn without history",
        "write a format with whole inputs (mooncake, dynamo), or take --deltas nearest",
    )


def _last_ids(slab: Trace, delta: NDArray[np.int32], later: NDArray[np.bool_], block_tokens: int) -> Ragged:
    """The ids of the new tokens, as many as they fill blocks: the last ones of the whole input.

    A reader makes every id one text of one length. Where new tokens end amid a block that the whole input fills, its id
    may stand for the full block elsewhere, so the request gets an id of its own.
    """
    ids: Ragged = slab["hash_ids"]
    count = np.where(later, -(-delta.astype(np.int64) // block_tokens), ids.lengths)
    offsets = np.concatenate(([0], np.cumsum(count)))
    from_ = ids.offsets[1:] - count
    values = ids.values[np.arange(offsets[-1]) + np.repeat(from_ - offsets[:-1], count)]
    own = later & (delta % block_tokens > 0) & (slab["input_tokens"] % block_tokens == 0)
    last = offsets[1:][own] - 1
    mixed = (values[last].astype(np.uint64) + np.uint64(1)) * MIX >> np.uint64(12)
    values[last] = (mixed % np.uint64(MADE_BELOW)).astype(np.int64) + MADE_BELOW
    return Ragged(offsets, values)
