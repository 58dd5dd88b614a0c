"""Ids of blocks for formats that cannot do without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.exports.export import ExportOptions, Say
from servegen_gpu.prefixes import hash_slabs
from servegen_gpu.prefixes.dense import Numbering, refuse_shares
from servegen_gpu.prefixes.ids import BLOCK_TOKENS
from servegen_gpu.request.columns import Column, Ragged
from servegen_gpu.trace import Trace

OWN_IDS = 1 << 51
"""From here on are the ids of inputs without a token."""


def with_ids(
    slabs: Iterator[Trace], options: ExportOptions, default_tokens: int, say: Say
) -> tuple[Iterator[Trace], int]:
    """Slabs with the column ``hash_ids``, and the tokens of a block.

    Ids that are there stay. Others are added, as `hash_ids` makes them without system prompts.

    Raises
    ------
    OptionError
        If ids are there in blocks of another size than asked for, or not enough of them.
    """
    slabs, size = given_ids(slabs, options, default_tokens)
    if size:
        return slabs, size
    size = options.block_tokens or default_tokens
    say(f"ids of blocks of {size} tokens added; --hash-ids and --system-tokens of generate say more about them")
    return hash_slabs(slabs, size), size


def given_ids(
    slabs: Iterator[Trace], options: ExportOptions, default_tokens: int = BLOCK_TOKENS
) -> tuple[Iterator[Trace], int]:
    """The slabs, and the tokens of a block if they have the column ``hash_ids``, or 0; refusals as in `with_ids`."""
    first = next(slabs, None)
    if first is None:
        return iter(()), 0
    slabs = chain([first], slabs)
    if "hash_ids" not in first:
        return slabs, 0
    stated = first.provenance.get("hash_ids")
    known = stated.get("block_tokens") if isinstance(stated, dict) else None
    size = options.block_tokens or known or default_tokens
    if known not in (None, size):
        raise OptionError(f"ids of blocks of {size} tokens", f"a trace with ids of {known}", "leave out --block-tokens")
    return (_checked(slab, size) for slab in slabs), size


def with_a_token(slabs: Iterable[Trace], say: Say) -> Iterator[Trace]:
    """Slabs whose requests have one token of input and of output at least, for readers that refuse others."""
    changed = 0
    for slab in slabs:
        columns: dict[str, Column] = {}
        for name in ("input_tokens", "output_tokens"):
            if (none := slab[name] < 1).any():
                changed += int(none.sum())
                columns[name] = np.where(none, 1, slab[name]).astype(np.int32)
                if name == "input_tokens" and "hash_ids" in slab:
                    columns["hash_ids"] = _with_an_id(slab, none)
        yield Trace.trusted(slab.columns | columns, slab.provenance, slab.first_row) if columns else slab
    if changed:
        say(f"{changed:,} inputs and outputs without a token have one, because the reader refuses others")


def _with_an_id(slab: Trace, rows: NDArray[np.bool_]) -> Ragged:
    """The ids of a slab, and one that nobody else has for some rows that have none."""
    ids: Ragged = slab["hash_ids"]
    rows = rows & (ids.lengths == 0)
    own = OWN_IDS + slab.first_row + np.flatnonzero(rows)
    values: NDArray[np.int64] = np.insert(ids.values.astype(np.int64), ids.offsets[:-1][rows], own)
    return Ragged(ids.offsets + np.append(0, np.cumsum(rows)), values)


def with_small_ids(slabs: Iterable[Trace]) -> Iterator[Trace]:
    """Slabs whose ids of blocks are numbered 0, 1, 2, … as they appear; all are kept in memory."""
    numbering = Numbering()
    for slab in slabs:
        refuse_shares(slab)
        ids: Ragged = slab["hash_ids"]
        small = Ragged(ids.offsets, numbering.of(np.asarray(ids.values, np.int64)))
        yield Trace.trusted(slab.columns | {"hash_ids": small}, slab.provenance, slab.first_row)


def _checked(slab: Trace, block_tokens: int) -> Trace:
    """A slab whose inputs have as many ids as they fill blocks: readers make shorter prompts of fewer, silently."""
    ids = slab["hash_ids"]
    found = ids.lengths if isinstance(ids, Ragged) else np.full(len(slab), -1)
    wrong = found != -(-slab["input_tokens"].astype(np.int64) // block_tokens)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise OptionError(
            f"an id for every {block_tokens} tokens of input",
            f"{found[at]:,} for {slab['input_tokens'][at]:,} tokens in row {slab.first_row + at:,}",
            "state the size of a block with --block-tokens, or leave the column hash_ids out to get new ids",
        )
    if isinstance(slab.provenance.get("hash_ids"), dict):
        return slab
    about = dict(slab.provenance) | {"hash_ids": {"block_tokens": block_tokens}}
    return Trace.trusted(slab.columns, about, slab.first_row)
