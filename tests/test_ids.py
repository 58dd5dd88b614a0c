"""Ids of conversations and of requests alone: one for each, the same everywhere, and small where they can be."""

from __future__ import annotations

import numpy as np
import pytest
from native import native
from profiles import talking
from traces import between

import servegen_gpu as sg
from servegen_gpu import Trace
from servegen_gpu.errors import RateError
from servegen_gpu.law import session_ids as ids
from servegen_gpu.law.address import ALONE, CONVERSATIONS
from servegen_gpu.law.session_ids import LAYOUTS, Layout, session_ids

SAFE = 2**53
"""Up to here JavaScript, jq and float64 keep whole numbers."""

LAST = [
    *(-4503599627370496, -6755399441055744, -7881299347898368, -8444249301319680, -8725724278030336, -9007199254740992),
    *(-4620693217682128896, -6926536226895822848, -8079457731502669824, -8655918483806093312, -8944148859957805056),
]
"""Ids of requests that stand alone, the last of each layout."""

INSIDE = {
    ALONE: [
        *(-4503496548941825, -6755296462503937, -7881297737286401, -8443424667623425, -8725723875573761),
        *(-9007096188108801, -4620693214461296641, -6926536225285210161, -8079457628424241153, -8655892097137639425),
        -8944148447691276289,
    ],
    CONVERSATIONS: [
        *(4503496547893248, 6755296328286208, 7881297737285376, 8443424667590656, 8725723875311616, 9007096171331584),
        *(4620693214460772352, 6926536225285210096, 8079457628423192576, 8655892094990155776, 8944148447624167424),
    ],
}
"""Of each layout, of its last client but one, the middle of its windows and three quarters of its ordinals."""

Place = tuple[int, int, int, int]


def ids_of(places: list[Place]) -> list[int]:
    """Ids of (stream, client, window, ordinal), all of one stream at a time."""
    found: dict[int, int] = {}
    for stream in (ALONE, CONVERSATIONS):
        at = [i for i, place in enumerate(places) if place[0] == stream]
        client, window, ordinal = np.array([places[i][1:] for i in at], np.int64).reshape(-1, 3).T
        found |= dict(zip(at, session_ids(stream, client, window, ordinal.astype(np.uint32)).tolist(), strict=True))
    return [found[i] for i in range(len(places))]


def one_id(*place: int) -> int:
    return ids_of([place])[0]  # type: ignore[list-item]


def place_of(identity: int) -> Place:
    """The inverse, in plain whole numbers."""
    stream = ALONE if identity < 0 else CONVERSATIONS
    code = -1 - identity if identity < 0 else identity
    layout = max((one for one in LAYOUTS if one.base <= code), key=lambda one: one.base)
    code -= layout.base
    client, window = code >> layout.window + layout.ordinal, code >> layout.ordinal & (1 << layout.window) - 1
    ordinal = code & (1 << layout.ordinal) - 1
    if stream == ALONE:
        return stream, client, window, ordinal
    assert ordinal % 2 == 0, "odd numbers are left for later kinds"
    return stream, client, -(window + 1) // 2 if window % 2 else window // 2, ordinal // 2


def random_places(n: int) -> list[Place]:
    """Places of all sizes, also beside the bounds of layouts, for each of which there is room."""
    rng = np.random.default_rng(4)
    places: list[Place] = []
    while len(places) < n:
        layout = LAYOUTS[int(rng.integers(len(LAYOUTS)))]
        stream = int(rng.integers(2))
        numbers = []
        for bits in (layout.client, layout.window - stream, layout.ordinal - stream):
            low = (1 << bits) - 1 - int(rng.integers(3)) if rng.random() < 0.3 else int(rng.integers(1 << bits))
            numbers.append(max(low, 0) if rng.random() < 0.8 else int(rng.integers(1 << int(rng.integers(bits + 1)))))
        if stream and rng.random() < 0.5:
            numbers[1] = -numbers[1]
        places.append((stream, *numbers))  # type: ignore[arg-type]
    return places


def layout_of(identity: int) -> int:
    code = max(identity, -1 - identity)
    return max(i for i, one in enumerate(LAYOUTS) if one.base <= code)


def test_ids_of_every_layout_are_a_promise() -> None:
    """The last of each: its largest client, window and ordinal."""
    last = [one_id(ALONE, *((1 << bits) - 1 for bits in layout[:3])) for layout in LAYOUTS]
    assert last == LAST
    for stream, stated in INSIDE.items():
        middle = [-(1 << bits - 2) if stream == CONVERSATIONS else 1 << bits - 1 for _, bits, *_ in LAYOUTS]
        places = [
            (stream, (1 << layout.client) - 2, window, 3 << layout.ordinal - 2 - stream)
            for layout, window in zip(LAYOUTS, middle, strict=True)
        ]
        assert [one_id(*place) for place in places] == stated


def test_every_address_has_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    places = random_places(40_000)
    found = ids_of(places)
    assert [place_of(identity) for identity in found] == places
    assert len(set(found)) == len(set(places)) > 35_000
    assert {layout_of(identity) for identity in found} == set(range(len(LAYOUTS)))
    assert {place[2] < 0 for place in places} == {True, False}
    for place, identity in zip(places[:2000], found, strict=False):  # whoever else is in the array
        assert one_id(*place) == identity
    # planted: ranges that overlap
    monkeypatch.setattr(ids, "LAYOUTS", tuple(Layout(*one[:3], 0) for one in LAYOUTS))
    assert len(set(ids_of(places))) < len(set(places))


def test_signs_say_what_an_id_stands_for() -> None:
    assert one_id(ALONE, 0, 0, 0) == -1
    assert one_id(CONVERSATIONS, 0, 0, 0) == 0
    places = random_places(500)
    assert [identity < 0 for identity in ids_of(places)] == [place[0] == ALONE for place in places]


def test_the_first_layouts_stay_below_two_to_the_53() -> None:
    ends = [one.base + (1 << sum(one[:3])) for one in LAYOUTS]
    assert ends[5] <= SAFE < ends[6]
    assert ends[-1] < 2**63
    assert [one.base for one in LAYOUTS[1:]] == ends[:-1]


STATED: dict[str, list[Place]] = {
    "windows of ten minutes for a year, 65,536 clients": [
        (ALONE, 2**16 - 1, 366 * 144, 2**20 - 1),
        (CONVERSATIONS, 2**16 - 1, 183 * 144, 2**19 - 1),
        (CONVERSATIONS, 2**16 - 1, -72, 2**19 - 1),
    ],
    # 25,913 clients of deepseek-r1 at 277,778 req/s; of the largest one's requests 3 % are first turns
    "a billion requests in an hour of the first days": [
        (ALONE, 25_912, 3 * 144, 110_000_000),
        (CONVERSATIONS, 25_912, 144, 4_000_000),
        (CONVERSATIONS, 25_912, -72, 4_000_000),
    ],
    "windows of one second, a million clients": [
        (ALONE, 2**20 - 1, 12 * 86_400, 2**10 - 1),
        (CONVERSATIONS, 2**20 - 1, 6 * 86_400, 2**9 - 1),
        (CONVERSATIONS, 2**20 - 1, -43_200, 2**9 - 1),
    ],
    "windows of one second, a thousand clients": [
        (ALONE, 2**10 - 1, 180 * 86_400, 2**15 - 1),
        (CONVERSATIONS, 2**10 - 1, 90 * 86_400, 2**14 - 1),
    ],
}
"""The largest of every kind."""


@pytest.mark.parametrize("places", STATED.values(), ids=STATED)
def test_ids_of_common_workloads_are_below_two_to_the_53(places: list[Place]) -> None:
    for identity in ids_of(places):
        assert -SAFE <= identity < SAFE


def test_what_does_not_fit_is_refused_in_three_parts() -> None:
    one_id(ALONE, 2**31 - 1, 2**24 - 1, 63)
    one_id(ALONE, 2**31 - 1, 2**12 - 1, 2**19 - 1)
    one_id(ALONE, 2**15 - 1, 2**13 - 1, 2**31 - 1)
    with pytest.raises(RateError) as caught:
        ids_of([(ALONE, 1, 1, 1), (ALONE, 2**31 - 1, 2**24 - 1, 64)])
    assert caught.value.expected == "ids of requests and conversations that fit 63 bits"
    assert caught.value.got == "request 64 of client 2147483647 in window 16,777,215"
    assert all(way in caught.value.fix for way in ("lower the rate", "pool.clone(n)", "servegen_gpu.join([pool])"))


def by_first_turn(trace: Trace) -> dict[int, tuple[int, int]]:
    """Arrival of the first turn, and client, by id."""
    first = trace.take(np.flatnonzero(trace["turn"] == 1))
    found = zip(first["arrival_us"].tolist(), first["client"].tolist(), strict=True)
    known = dict(zip(first["conversation"].tolist(), found, strict=True))
    assert len(known) == len(first)
    return known


def test_ids_are_the_same_in_slices_shares_backends_and_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, keywords = talking("language"), {"duration": 3000, "seed": 6, "rate": 3.0}
    whole = sg.generate(pool, backend="numpy", **keywords)
    known = by_first_turn(whole)
    assert len(known) > 2000
    assert min(known) < 0 <= max(known)
    later = by_first_turn(sg.generate(pool, start=700.5, duration=1500, seed=6, rate=3.0))
    inside = by_first_turn(between(whole, 700_500_000, 2_200_500_000))
    assert later == {key: (at - 700_500_000, client) for key, (at, client) in inside.items()}
    shares = [by_first_turn(sg.generate(pool, shard=(k, 3), **keywords)) for k in range(3)]
    assert shares[0] | shares[1] | shares[2] == known
    assert by_first_turn(native(pool, **keywords)) == known
    monkeypatch.setattr("servegen_gpu.pipeline.options.requests_in", lambda memory, size: 100)
    assert by_first_turn(native(pool, **keywords)) == known
