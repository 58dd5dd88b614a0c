"""Hit curves of LRU caches against a cache that is a list."""

from __future__ import annotations

import numpy as np
import pytest
from profiles import TURNS, talking

import servegen_gpu as sg
from servegen_gpu import OptionError, Ragged, Trace
from servegen_gpu.prefixes import lru


def cached(rows: list[list[int]], size: int) -> list[int]:
    """Hits of each request, by a list whose last block was used last."""
    cache: list[int] = []
    hits = []
    for row in rows:
        hits.append(len(set(row) & set(cache[len(cache) - min(size, len(cache)) :])))
        for block in reversed(row):
            if block in cache:
                cache.remove(block)
            cache.append(block)
    return hits


def ragged(rows: list[list[int]]) -> Ragged:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    return Ragged(offsets, np.array([block for row in rows for block in row], np.int64))


def random_rows(seed: int, requests: int = 120) -> list[list[int]]:
    """Inputs that begin as an earlier one does, or anew; some are empty."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    serial = 2**40
    for _ in range(requests):
        history = rows[int(rng.integers(len(rows)))] if rows and rng.random() < 0.6 else []
        kept = history[: int(rng.integers(len(history) + 1))]
        new = int(rng.integers(0, 5))
        rows.append(kept + list(range(serial, serial + new)))
        serial += new
    return rows


def agrees() -> bool:
    for seed in range(4):
        rows = random_rows(seed)
        ids = ragged(rows)
        sizes = [*range(40), 64, 300, 10_000]
        hits = [sum(cached(rows, size)) / len(ids.values) for size in sizes]
        if not np.allclose(lru.lru_curve(ids, sizes), hits, rtol=0, atol=1e-12):
            return False
    return True


def test_curves_are_those_of_a_cache_that_is_a_list() -> None:
    assert agrees()


@pytest.mark.parametrize("defect", ["all uses count", "some uses count twice", "the last block last"])
def test_the_list_notices_other_distances(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = lru._greater
    if defect == "all uses count":
        monkeypatch.setattr(lru, "_greater", lambda numbers, first, than: right(numbers, first, than) * 0)
    elif defect == "some uses count twice":
        monkeypatch.setattr(lru, "_greater", lambda numbers, first, than: right(numbers, first, than + 1))
    else:
        rows = random_rows(0)
        turned = ragged([row[::-1] for row in rows])
        assert lru.lru_curve(turned, [20])[0] != sum(cached(rows, 20)) / len(turned.values)
        return
    assert not agrees()


def test_what_a_cache_holds_of_an_input_is_its_beginning() -> None:
    trace = sg.generate(talking().with_conversations(TURNS["history"]), duration=900).with_hash_ids(16)
    distance = lru.stack_distances(trace)
    assert (distance >= 0).mean() > 0.2
    far = np.where(distance == lru.NEVER, np.iinfo(np.int64).max, distance)
    inside = np.ones(len(far), np.bool_)
    inside[trace["hash_ids"].offsets[:-1][trace["hash_ids"].lengths > 0]] = False
    assert (np.diff(far, prepend=0)[inside] >= 0).all()


def test_a_cache_without_end_has_the_hits_of_the_package() -> None:
    trace = sg.generate(talking(), duration=900)
    hits = sg.prefix_hits(trace, 16).sum()
    marked = trace.with_hash_ids(16)
    blocks = len(marked["hash_ids"].values)
    assert lru.lru_curve(marked, [blocks])[0] == hits / blocks
    sizes = lru.cache_sizes(marked)
    assert len(sizes) == 5
    assert sizes[-1] == len(np.unique(marked["hash_ids"].values))
    assert (np.diff(lru.lru_curve(marked, sizes)) >= 0).all()


def test_edges() -> None:
    assert lru.lru_curve(ragged([[5, 6], [], [5, 6]]), [0, 1, 2]).tolist() == [0, 0.25, 0.5]
    assert lru.lru_curve(ragged([[5, 5]]), [0, 1]).tolist() == [0, 0.5]
    assert np.isnan(lru.lru_curve(ragged([[], []]), [1])).all()
    assert lru.cache_sizes(ragged([[1]])).tolist() == [1] * 5
    with pytest.raises(OptionError, match="with_hash_ids"):
        lru.lru_curve(Trace({"arrival_us": [1]}), [1])
    for sizes in ([-1], [0.5]):
        with pytest.raises(OptionError, match="from 0 on"):
            lru.lru_curve(ragged([[1]]), sizes)  # type: ignore[arg-type]
