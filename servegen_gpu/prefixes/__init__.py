"""Which prompts begin alike: an id for every block of every request's input, as prefix caches see them.

An input is a client's system prompt, then the history of its conversation, then what is new. It is cut into blocks of
`block_tokens` tokens; two requests have the same id at block k if, and only if, their inputs agree up to the end of
that block and both hold all of it. What an id stands for:

=================================================  =======================
block k of an input                                is known by
=================================================  =======================
inside the client's system prompt                  client, k
beyond it                                          conversation, k
beyond it, once the context limit cut the history  conversation, turn, k
the last one, if the input does not fill it        conversation, turn, k
beyond it, if the request stands alone             client, time, rank, k
=================================================  =======================

So turn j begins with the ``input_tokens // block_tokens`` full blocks of turn j - 1, and with no more of it. The answer
of turn j - 1, a part of the input of turn j where contexts grow by their history, fills blocks that no earlier *input*
had: a cache that keeps inputs only misses them, one that keeps what was decoded holds
``(input_tokens - new_tokens) // block_tokens`` blocks of a turn (less where reasoning came before the answer, which
later inputs leave out). Edits repeat no answer, so what they repeat was an input before.

The history is cut where a turn after the first has ``new_tokens == input_tokens``; the system prompt stays. From then
on every input of the conversation counts as new. An input shorter than the system prompt holds its beginning, and the
conversation goes on with the rest of it: state lengths below a client's inputs. A request without a conversation
shares its client's system prompt only; its time counts from the beginning of the time axis, not of the trace, and its
rank says which of its client's requests of that microsecond it is.

An id is 63 bits at the address of what it stands for (`ids`): nothing is stored, and ids are the same however a trace
is cut into slabs and shards, and in every slice of it. Different blocks have different addresses, so they share an id
by chance only: among m different blocks some two do with a probability of about m**2 / 2**64, 5e-8 for a million, 5 %
for a billion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.prefixes.dense import Numbering, refuse_shares
from servegen_gpu.prefixes.ids import BLOCK_TOKENS, Rule, ids_of, offsets_of, ranks_of, rule_of
from servegen_gpu.prefixes.ranks import NOBODY
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace

PIECE_BLOCKS = 1 << 22
"""Blocks of a piece of a slab, where ids must not be in memory all at once: 32 MB of ids."""


def hash_ids(
    trace: Trace, block_tokens: int = BLOCK_TOKENS, *, system_tokens: Any = 0, seed: int = 0, dense: bool = False
) -> Ragged:
    """Ids of the blocks of every request's input, in order.

    Parameters
    ----------
    trace : Trace
        A trace or a slab, with ``client``, ``input_tokens``, and either ``conversation``, ``turn`` and ``new_tokens``
        or, where every request stands alone, ``arrival_us``. A slab that begins amid a microsecond needs those before
        it: see `hash_slabs`.
    block_tokens : int
        Tokens of a block.
    system_tokens : int, mapping of int to int, or distribution
        Tokens of every client's system prompt, shared by its conversations; tokens by client (none for clients left
        out); or a distribution that each client's length is drawn from, once, by its id.
    seed : int
        0 to 2**64 - 1. Traces made with different seeds need different ones here if their blocks are ever to meet:
        numbers of conversations, and some times, come back in each.
    dense : bool
        Number the ids 0, 1, 2, … in the order in which they appear in `trace`, as the traces of Mooncake do. For a
        whole trace only.

    Returns
    -------
    Ragged
        int64, ``ceil(input_tokens / block_tokens)`` ids for each request, from 0 to 2**63 - 1.

    Raises
    ------
    OptionError
        If an argument is out of range, or the columns are not those of such a trace.
    """
    return ids_of(trace, rule_of(block_tokens, system_tokens, seed, dense))


def with_hash_ids(
    trace: Trace, rule: Rule, rank: NDArray[np.int64] | None = None, numbers: Numbering | None = None
) -> Trace:
    """The trace with one more column, ``hash_ids``, and a note of the rule in its provenance.

    Dense ids go on from those in `numbers`.
    """
    provenance = dict(trace.provenance) | {"hash_ids": rule.about()}
    return Trace.trusted(trace.columns | {"hash_ids": ids_of(trace, rule, rank, numbers)}, provenance, trace.first_row)


def hash_slabs(
    slabs: Iterable[Trace],
    block_tokens: int = BLOCK_TOKENS,
    *,
    system_tokens: Any = 0,
    seed: int = 0,
    dense: bool = False,
) -> Iterator[Trace]:
    """Slabs in order of time with the column ``hash_ids``, in pieces, so that ids take 32 MB however large a slab is.

    Parameters are those of `hash_ids`; they are checked at once, before the first slab is made. With `dense`, which the
    share of a trace cannot have, every different id of the trace stays in memory: 32 to 64 bytes each.
    """
    return _pieces(slabs, rule_of(block_tokens, system_tokens, seed, dense))


def _pieces(slabs: Iterable[Trace], rule: Rule) -> Iterator[Trace]:
    last, numbers = NOBODY, Numbering()
    for slab in slabs:
        if rule.dense:
            refuse_shares(slab)
        offsets = offsets_of(slab, rule)
        rank, last = ranks_of(slab, last)
        lo = 0
        while lo < len(slab) or lo == 0:
            hi = int(np.searchsorted(offsets, offsets[lo] + PIECE_BLOCKS, side="right")) - 1
            hi = min(max(hi, lo + 1), len(slab))
            yield with_hash_ids(slab.rows(lo, hi), rule, rank[lo:hi], numbers)
            lo = max(hi, 1)
        del slab  # not kept while the next one is made


def prefix_hits(
    trace: Trace, block_tokens: int = BLOCK_TOKENS, *, system_tokens: Any = 0, seed: int = 0
) -> NDArray[np.int64]:
    """How many blocks of each input an earlier input of the trace began with: the hits of a cache that never forgets.

    Parameters are those of `hash_ids`. Answers do not count: a cache that keeps what was decoded holds up to
    ``(input_tokens - new_tokens) // block_tokens`` blocks.

    Returns
    -------
    int64[n]
    """
    ids = hash_ids(trace, block_tokens, system_tokens=system_tokens, seed=seed, dense=True)
    # An input that has a block has all those before it, so the blocks that came up before are the first ones.
    highest = np.maximum.accumulate(ids.values)
    known = np.zeros(len(highest) + 1, np.int64)
    np.cumsum(np.diff(highest, prepend=-1) == 0, out=known[1:])
    return np.diff(known[ids.offsets])
