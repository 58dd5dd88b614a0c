"""How long the system prompt of each client is: the same for all, stated client by client, or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.distributions import Distribution, as_distribution
from servegen_gpu.clients.stated.tabulate import Grid, new_table
from servegen_gpu.errors import OptionError
from servegen_gpu.options import integer, whole
from servegen_gpu.request.schema import MAX_TOKENS

PROMPT = Grid("tokens of a system prompt", 1, 0, 1 << 20, MAX_TOKENS)

Clients = NDArray[Any]
Words = Callable[[Clients], NDArray[np.uint64]]


@dataclass(frozen=True)
class SystemPrompts:
    """Lengths of system prompts.

    Attributes
    ----------
    tokens : callable
        ``tokens(client, words)``: lengths of some clients' prompts, int64[n], from their ids and a function that gives
        each of them a random word of 32 bits.
    about : int or dict
        For provenance: the number, or a digest of what was stated.
    """

    tokens: Callable[[Clients, Words], NDArray[np.int64]]
    about: int | dict[str, Any]


def system_prompts(stated: Any) -> SystemPrompts:
    """Lengths as a user states them.

    Parameters
    ----------
    stated : int, mapping of int to int, or distribution
        Tokens of every client's prompt; tokens by client, none for those left out; or what each client's length is
        drawn from, once: one of `servegen_gpu.distributions`, or a frozen SciPy distribution.
    """
    if isinstance(stated, Mapping):
        return _by_client(stated)
    if isinstance(stated, Distribution) or callable(getattr(stated, "cdf", None)):
        return _drawn(as_distribution(stated))
    if whole(stated) is None:
        raise OptionError(
            "system_tokens as an integer, as {client: tokens} or as a distribution",
            f"{type(stated).__name__} {str(stated)[:60]}",
            "change system_tokens",
        )
    number = integer("system_tokens", stated, MAX_TOKENS)
    return SystemPrompts(lambda client, words: np.full(len(client), number, np.int64), number)


def _by_client(stated: Mapping[Any, Any]) -> SystemPrompts:
    clients = [integer("a client of system_tokens", client, MAX_TOKENS) for client in stated]
    lengths = [integer(f"system_tokens of client {client}", tokens, MAX_TOKENS) for client, tokens in stated.items()]
    order = np.argsort(clients, kind="stable")
    # one more client, above all ids, with no prompt: every search ends at some entry
    ids = np.append(np.array(clients, np.int64)[order], MAX_TOKENS + 1)
    tokens = np.append(np.array(lengths, np.int64)[order], 0)

    def find(client: Clients, words: Words) -> NDArray[np.int64]:
        at = np.searchsorted(ids, client)
        return np.where(ids[at] == client, tokens[at], 0)

    return SystemPrompts(find, {"clients": len(stated), "digest": _digest(ids, tokens)})


def _drawn(distribution: Distribution) -> SystemPrompts:
    table = new_table(distribution, PROMPT)
    last_word = np.cumsum(table.words) - 1

    def draw(client: Clients, words: Words) -> NDArray[np.int64]:
        return table.values[np.searchsorted(last_word, words(client).astype(np.int64))]

    return SystemPrompts(draw, {"kind": type(distribution).__name__, "digest": _digest(table.values, last_word)})


def _digest(*arrays: NDArray[np.int64]) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(array.astype("<i8").tobytes())
    return hasher.hexdigest()
