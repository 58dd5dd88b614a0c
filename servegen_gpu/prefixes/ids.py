"""Ids of blocks: a word for each owner of a run of blocks, then one mixing step for each block of the run.

The owner's word is 64 bits of Philox at its address:

====  ====================================================================================
word  content
====  ====================================================================================
0, 1  number of the owner: conversation or client; of a request that stands alone, its time
2     turn 30 bits (0: shared by all turns), or rank of the request + kind of owner 2 bits
3     client of a request that stands alone, else 0
====  ====================================================================================

A request that stands alone has the address (client, time, rank): its arrival on the time axis of all traces, in
microseconds, and how many of the client's requests of that microsecond come before it. Where such requests have an id
below 0 in the column ``conversation``, that is their number.

Block k of the run has value k of the SplitMix64 sequence that begins there (Steele, Lea, Flood, OOPSLA 2014), without
its last bit: a third of the time of Philox for every block, and blocks of one owner differ until that bit is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import BLOCK, for_blocks
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import STREAM_VERSION
from servegen_gpu.law.philox import MASK, philox4x32
from servegen_gpu.options import integer
from servegen_gpu.prefixes.dense import Numbering
from servegen_gpu.prefixes.ranks import NOBODY, LastMicrosecond, ranks
from servegen_gpu.prefixes.system_prompts import SystemPrompts, system_prompts
from servegen_gpu.provenance import start_us_of
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.schema import MAX_TOKENS
from servegen_gpu.trace import Trace

BLOCK_TOKENS = 512
"""As in the traces of Mooncake (FAST '25)."""

MAX_BLOCKS = 1 << 26
"""Of one request: what a field of a text file can hold."""

TURN_COLUMNS = ("conversation", "turn", "new_tokens")
MAX_TURN = (1 << 30) - 1
CONVERSATION, CLIENT, ALONE, PROMPT = (np.uint64(kind << 30) for kind in range(4))
STEP, MIX = np.uint64(0x9E3779B97F4A7C15), (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
NONE = np.uint64(0)
LOW = np.uint64(MASK)
HALF = np.uint64(32)


@dataclass(frozen=True)
class Rule:
    """How inputs are cut, and under which key blocks are named; the arguments of `hash_ids`, checked."""

    block_tokens: int
    prompts: SystemPrompts
    seed: int
    dense: bool

    @property
    def key(self) -> tuple[int, int]:
        """Key of all ids: two words of Philox under the seed, at a counter that no key of sampling comes from."""
        counter = tuple(np.array([word], np.uint64) for word in (0, STREAM_VERSION, 1, 0))
        words = philox4x32(np, counter, (self.seed & MASK, self.seed >> 32))  # type: ignore[arg-type]
        return int(words[0][0]), int(words[1][0])

    def about(self) -> dict[str, Any]:
        """For provenance."""
        stated = {"block_tokens": self.block_tokens, "system_tokens": self.prompts.about, "seed": self.seed}
        return stated | ({"dense": True} if self.dense else {})


def rule_of(block_tokens: int, system_tokens: Any, seed: int, dense: bool = False) -> Rule:
    """Check arguments of `hash_ids`."""
    size = integer("block_tokens", block_tokens, MAX_TOKENS)
    if size == 0:
        raise OptionError("block_tokens of at least 1", "0", "take 512, or the block size of your cache")
    return Rule(size, system_prompts(system_tokens), integer("seed", seed, 2**64 - 1), bool(dense))


def offsets_of(trace: Trace, rule: Rule) -> NDArray[np.int64]:
    """Where each request's blocks begin, int64[n + 1]."""
    tokens = _column(trace, "input_tokens", most=MAX_TOKENS)
    _refuse(tokens > rule.block_tokens * MAX_BLOCKS, trace, "input_tokens", f"of at most {MAX_BLOCKS:,} blocks")
    offsets = np.zeros(len(tokens) + 1, np.int64)
    np.cumsum(-(-tokens.astype(np.int64) // rule.block_tokens), out=offsets[1:])
    return offsets


def ranks_of(trace: Trace, before: LastMicrosecond = NOBODY) -> tuple[NDArray[np.int64], LastMicrosecond]:
    """Ranks of requests that stand alone, int64[n], and what the next slab needs for its own; 0 if there are turns."""
    if any(name in trace for name in TURN_COLUMNS):
        return np.broadcast_to(np.int64(0), len(trace)), before
    return ranks(_column(trace, "arrival_us"), _column(trace, "client", MASK), before)


def ids_of(trace: Trace, rule: Rule, rank: NDArray[np.int64] | None = None, numbers: Numbering | None = None) -> Ragged:
    """Ids of the blocks of every request, computed in cache-sized blocks on threads; `rank` is that of `ranks_of`.

    Dense ones go on from those that `numbers` knows.
    """
    offsets = offsets_of(trace, rule)
    client, tokens = _column(trace, "client"), _column(trace, "input_tokens")
    owners = _owner_columns(trace, tokens, ranks_of(trace)[0] if rank is None else rank)
    ids = np.empty(offsets[-1], np.int64)
    key = rule.key
    steps = np.arange(1, min(len(ids), BLOCK) + 1).astype(np.uint64) * STEP

    def prompt_words(client: NDArray[Any]) -> NDArray[np.uint64]:
        return _words(client.astype(np.uint64), PROMPT, key) >> HALF

    def work(a: int, b: int) -> None:
        """Ids a to b of all, end to end."""
        lo, hi = int(np.searchsorted(offsets, a, side="right")) - 1, int(np.searchsorted(offsets, b))
        length, who = tokens[lo:hi].astype(np.int64), client[lo:hi]
        full = length // rule.block_tokens
        prompt = np.minimum(rule.prompts.tokens(who, prompt_words) // rule.block_tokens, full)
        owner, shares, own, whose = _owners(owners, lo, hi, who, length)
        # An input is three runs of blocks: system prompt, history, and what no other input has.
        ends = np.stack((prompt, np.where(shares, full, prompt), np.diff(offsets[lo : hi + 1])), axis=1)
        ends += offsets[lo:hi, None]
        counts = np.diff(np.clip(ends.ravel(), a, b), prepend=a)
        runs = np.flatnonzero(counts)
        number = _by_run(who.astype(np.uint64), owner, owner)[runs]
        place, alone = _by_run(CLIENT, CONVERSATION, own)[runs], _by_run(NONE, NONE, whose)[runs]
        begin = offsets[lo + runs // 3] - a  # where block 0 of the input is, seen from a
        state = np.repeat(_words(number, place, key, alone) - begin.astype(np.uint64) * STEP, counts[runs])
        state += steps[: b - a]
        ids[a:b] = _mixed(state) >> np.uint64(1)

    for_blocks(len(ids), work)
    if rule.dense:
        ids = (numbers or Numbering()).of(ids)
    return Ragged(offsets, ids)


def _by_run(prompt: Any, history: Any, own: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of the three runs of every input, one input after another."""
    return np.stack(np.broadcast_arrays(prompt, history, own), axis=1).ravel()


def _words(number: NDArray[np.uint64], place: Any, key: tuple[int, int], alone: Any = NONE) -> NDArray[np.uint64]:
    """The 64-bit words of owners."""
    high, low, _, _ = philox4x32(np, (number & LOW, number >> HALF, place, alone), key)
    words: NDArray[np.uint64] = (high << HALF) | low
    return words


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output at a state, in the state's memory."""
    for shift, factor in zip((30, 27), MIX, strict=True):
        state ^= state >> np.uint64(shift)
        state *= factor
    state ^= state >> np.uint64(31)
    return state


def _owner_columns(trace: Trace, tokens: NDArray[Any], rank: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The columns `TURN_COLUMNS`, checked, or times on the axis of all traces and ranks."""
    absent = [name for name in TURN_COLUMNS if name not in trace]
    if len(absent) == len(TURN_COLUMNS):
        return [_column(trace, "arrival_us").astype(np.uint64) + np.uint64(start_us_of(trace.provenance)), rank]
    if absent:
        raise OptionError(
            f"all of {', '.join(TURN_COLUMNS)}, or none", f"no {', '.join(absent)}", "add what is missing"
        )
    columns = [_column(trace, name, least=-(2**63) if name == "conversation" else 0) for name in TURN_COLUMNS]
    conversation, turn, new = columns
    alone = np.flatnonzero(conversation < 0)
    again = np.zeros(len(conversation), np.bool_)
    again[alone[1:]] = conversation[alone[1:]] == conversation[alone[:-1]]
    _refuse(again, trace, "conversation", "below 0 of one request only, which stands alone")
    _refuse((turn < 1) | (turn > MAX_TURN), trace, "turn", f"from 1 to {MAX_TURN:,}")
    _refuse(new > tokens, trace, "new_tokens", "of at most input_tokens")
    return columns


def _owners(
    columns: list[NDArray[Any]], lo: int, hi: int, client: NDArray[Any], length: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.uint64], NDArray[np.uint64]]:
    """Of rows `lo` to `hi`: their owners, whether they share a history, and words 2 and 3 of blocks that are theirs."""
    if len(columns) == 2:
        time_us, rank = (column[lo:hi] for column in columns)
        return time_us, np.zeros(hi - lo, np.bool_), ALONE | rank.astype(np.uint64), client.astype(np.uint64)
    conversation, turn, new = (column[lo:hi] for column in columns)
    place = CONVERSATION | turn.astype(np.uint64)
    return conversation.astype(np.uint64), (turn == 1) | (new < length), place, np.zeros(hi - lo, np.uint64)


def _column(trace: Trace, name: str, most: int = 2**63 - 1, least: int = 0) -> NDArray[Any]:
    """A column of integers from `least` to `most` in the host's memory."""
    if name not in trace:
        fix = "generate the trace with this package, or add the column"
        raise OptionError(f"a trace with the column {name!r}", f"columns {', '.join(trace)}", fix)
    found = trace[name]
    if isinstance(found, Ragged) or found.dtype.kind not in "iu":
        raise OptionError(f"integers in the column {name!r}", trace.schema()[name], "convert it")
    try:
        column = np.asarray(found)
    except TypeError as error:  # CuPy's arrays stay on their device
        raise OptionError("a trace in the host's memory", f"{name!r}: {error}", "leave out device=True") from None
    _refuse((column < least) | (column > most), trace, name, f"from {least:,} to {most:,}")
    return column


def _refuse(wrong: NDArray[np.bool_], trace: Trace, name: str, expected: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise OptionError(f"{name} {expected}", f"{trace[name][row]} in row {trace.first_row + row:,}", f"fix {name}")
