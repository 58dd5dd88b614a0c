"""Philox4x32-10: four random words from a counter and a key, with no state in between.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. A round multiplies two of the four
counter words by constants, splits the 64-bit products into halves, mixes in the key, and swaps; ten rounds, the key
bumped by two Weyl constants after each.

Words are 32-bit values carried in uint64 arrays, so that a product needs no special multiplication.
"""

from __future__ import annotations

from typing import Any

ROUNDS = 10
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF

Words = tuple[Any, Any, Any, Any]


def philox4x32(xp: Any, counter: Words, key: tuple[int, int]) -> Words:
    """The four words at a counter.

    Parameters
    ----------
    xp : module
        NumPy, or an array namespace like it.
    counter : 4 of uint64 arrays that broadcast against each other
        32-bit values, word 0 first.
    key : 2 of int
        32-bit values.

    Returns
    -------
    4 of uint64 arrays
        32-bit values.
    """
    m0, m1, mask, half = xp.uint64(M0), xp.uint64(M1), xp.uint64(MASK), xp.uint64(32)
    c0, c1, c2, c3 = xp.broadcast_arrays(*counter)
    for r in range(ROUNDS):
        k0, k1 = xp.uint64((key[0] + r * W0) & MASK), xp.uint64((key[1] + r * W1) & MASK)
        even, odd = c0 * m0, c2 * m1
        c0, c2 = odd >> half, even >> half
        # augmented assignment works in place on NumPy arrays of our own and rebinds elsewhere
        c0 ^= c1 ^ k0
        c2 ^= c3 ^ k1
        odd &= mask
        even &= mask
        c1, c3 = odd, even
    return c0, c1, c2, c3
