"""How many tokens a block of ``hash_ids`` has, as inputs and lengths of lists tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def block_tokens(
    input_tokens: NDArray[np.integer], ids: NDArray[np.int64], usual: int | None
) -> tuple[int | None, str]:
    """Tokens of a block (None if lists have other lengths), and a word for the note where it is not the usual number.

    Parameters
    ----------
    input_tokens : int[n]
    ids : int64[n]
        How many ids each request has.
    usual : int, optional
        Of the format.
    """
    some = (ids > 0) & (input_tokens > 0)
    if not some.any():
        return usual, ""
    size, count = input_tokens[some].astype(np.int64), ids[some]
    # ceil(size / block) == count for every block from -(-size // count) to (size - 1) // (count - 1)
    least = int((-(-size // count)).max())
    most = int(((size - 1) // np.maximum(count - 1, 1))[count > 1].min(initial=2**31 - 1))
    if usual is not None and least <= usual <= most:
        return usual, ""
    powers = [1 << at for at in range(31) if least <= 1 << at <= most]
    if powers and most < 2**31 - 1:
        return powers[0], f"blocks of {powers[0]:,} tokens, by the lengths of lists of ids"
    if usual is None:
        return None, "lists of ids do not tell how many tokens a block has"
    short = int((-(-size // usual) != count).sum())
    return None, f"{short:,} of {len(size):,} lists of ids do not have one id for every {usual:,} tokens"
