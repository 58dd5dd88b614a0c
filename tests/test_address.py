"""Addresses: one field of the counter for every coordinate, and keys that never coincide."""

import numpy as np
import pytest

from servegen_gpu.law import address
from servegen_gpu.law.address import (
    MAX_ATTEMPTS,
    MAX_ITEMS,
    MAX_STREAMS,
    MAX_TURNS,
    MAX_WINDOW,
    STREAM_VERSION,
    Purpose,
    derive_key,
    draw,
)

LARGEST = {
    "ordinal": 2**32 - 1,
    "client": 2**32 - 1,
    "window": MAX_WINDOW - 1,
    "stream": MAX_STREAMS - 1,
    "turn": MAX_TURNS - 1,
    "item": MAX_ITEMS // 4 - 1,
}
"""The last address of each coordinate; items come four to a draw."""
KEYS = {(0, 0): (0x58FE6CD3, 0x067FEBBC), (2**64 - 1, 2**32 - 1): (0x198C1278, 0x60A258E9)}
WORDS = [0x02780BBB, 0x85442522, 0xD0FDF370, 0x74B0D3BA]
ORIGIN = dict.fromkeys(LARGEST, 0)


@pytest.fixture
def counter(monkeypatch):
    """The 128-bit counter of an address, as one integer."""
    monkeypatch.setattr(address, "philox4x32", lambda xp, counter, key: counter)

    def of(purpose=Purpose.COUNT, **coordinates):
        parts = [int(word) for word in draw(np, (0, 0), purpose, **(ORIGIN | coordinates))]
        assert all(0 <= part < 2**32 for part in parts)
        return sum(part << (32 * i) for i, part in enumerate(parts))

    return of


def test_coordinates_fill_fields_that_do_not_overlap(counter):
    taken = 31 << 88  # the purpose
    for name, largest in LARGEST.items():
        field = counter(**{name: largest})
        assert field.bit_count() == largest.bit_length()
        assert not taken & field, name
        taken |= field
    assert taken == 2**128 - 1


def test_purpose_has_its_own_field(counter):
    for purpose in Purpose:
        assert counter(purpose) == purpose << 88
    assert max(Purpose) < 32
    assert MAX_ATTEMPTS <= MAX_ITEMS // 4  # tries have the place of items


def test_coordinates_add_up(counter):
    middle = {name: largest // 3 for name, largest in LARGEST.items()}
    alone = [counter(**{name: value}) for name, value in middle.items()]
    assert counter(Purpose.VIDEO, **middle) == sum(alone) + counter(Purpose.VIDEO)


@pytest.mark.parametrize("name", list(LARGEST))
def test_one_coordinate_changes_all_four_words(name):
    here = ORIGIN | {"ordinal": 3, "client": 5, "window": 7}
    one = draw(np, (1, 2), Purpose.GAP, **here)
    for value in (here[name] + 1, LARGEST[name]):
        other = draw(np, (1, 2), Purpose.GAP, **(here | {name: value}))
        assert all(a != b for a, b in zip(one, other, strict=True))


def test_arguments_broadcast():
    column, row = np.arange(4)[:, None], np.arange(3)
    grid = draw(np, (1, 2), Purpose.IMAGE, ordinal=column, client=row + 9, window=column + 5, turn=row, item=column)
    for word in grid:
        assert word.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            point = draw(np, (1, 2), Purpose.IMAGE, ordinal=i, client=j + 9, window=i + 5, turn=j, item=i)
            assert [int(word[i, j]) for word in grid] == [int(word) for word in point]


def test_purposes_are_part_of_the_stream():
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "COUNT": 0,
        "GAP": 1,
        "DATA": 2,
        "IMAGE": 3,
        "AUDIO": 4,
        "VIDEO": 5,
        "TURN": 6,
        "DATASET": 7,
        "THINNING": 8,
        "DESCRIPTION": 9,
        "POPULATION": 10,
        "ENVIRONMENT": 11,
        "STUDY": 12,
    }


def test_stream_is_what_it_was():
    """Changing any of these changes every trace: STREAM_VERSION must then change too."""
    assert STREAM_VERSION == 2
    assert derive_key(0) == KEYS[0, 0]
    assert derive_key(2**64 - 1, 2**32 - 1) == KEYS[2**64 - 1, 2**32 - 1]
    words = draw(np, derive_key(7), Purpose.DATA, ordinal=10, client=20, window=30, stream=1, turn=2, item=3)
    assert [int(word) for word in words] == WORDS


def test_keys_of_seeds_and_replicas_all_differ():
    keys = {derive_key(seed, replica) for seed in range(40) for replica in range(40)}
    assert len(keys) == 1600  # seed + replica would give 79
    assert derive_key(2**32) not in keys
    assert derive_key(0, 1) != derive_key(1, 0)


def test_both_halves_of_a_seed_count():
    base = derive_key(0)
    for bit in (0, 31, 32, 63):
        assert derive_key(1 << bit) != base


def test_key_is_two_words():
    for seed in (0, 1, 2**64 - 1):
        key = derive_key(seed)
        assert len(key) == 2
        assert all(type(word) is int and 0 <= word < 2**32 for word in key)
