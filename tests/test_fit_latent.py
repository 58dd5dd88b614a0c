"""Latent clients: known clusters are found again, first blocks come first, thin and odd logs get fewer."""

from __future__ import annotations

import numpy as np
import pytest

from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.latent import first_blocks_of, latent_clients
from servegen_gpu.fitting.prefixes import system_tokens
from servegen_gpu.request.columns import Ragged
from servegen_gpu.trace import Trace


def known(n: int, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A log of three sorts of requests, six standard deviations apart, 50, 30 and 20 %."""
    rng = np.random.default_rng(seed)
    sort = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    centers = np.array([[7.0, 3.0], [4.0, 6.0], [9.0, 6.0]])
    lengths = np.exp(centers[sort] + rng.normal(0, 0.25, (n, 2))).astype(np.int32)
    return {"input_tokens": lengths[:, 0], "output_tokens": lengths[:, 1]}, sort


def test_known_clusters_are_found_again():
    columns, sort = known(20_000)
    latent = latent_clients(columns, most=3)
    assert latent.how == "lengths"
    assert latent.sizes.tolist() == np.bincount(latent.label).tolist() == sorted(latent.sizes, reverse=True)
    assert (latent.label == sort).mean() > 0.999  # six deviations: about 3e-5 are on the wrong side
    again = latent_clients(columns, most=3)
    assert np.array_equal(again.label, latent.label)


def test_clusters_are_as_many_as_the_log_has_requests_for():
    for n, most in ((150, 1), (450, 4), (5_000, 8)):
        latent = latent_clients(known(n)[0])
        assert 1 <= len(latent) <= most
        assert len(latent.notes) == 1
    assert len(latent_clients(known(5_000)[0])) == 8
    assert latent_clients(known(20_000)[0]).sizes.min() >= 50


@pytest.mark.parametrize("n", [1, 99, 5_000])
def test_equal_lengths_are_one_client(n):
    latent = latent_clients({"input_tokens": np.full(n, 7), "output_tokens": np.zeros(n, np.int64)})
    assert latent.how == "one"
    assert latent.sizes.tolist() == [n]
    assert len(latent.notes) == 1


def test_two_lengths_are_two_clients():
    columns = {"input_tokens": np.repeat([10, 1_000], [300, 700]), "output_tokens": np.full(1_000, 5)}
    latent = latent_clients(columns)
    assert latent.sizes.tolist() == [700, 300]
    assert (np.bincount(latent.label, columns["input_tokens"]) / latent.sizes).tolist() == [1_000, 10]


def test_common_first_blocks_are_clients():
    columns, _ = known(10_000)
    rng = np.random.default_rng(2)
    block = rng.choice([11, 12, 13, -1], 10_000, p=[0.45, 0.3, 0.15, 0.1])
    alone = np.flatnonzero(block < 0)
    block[alone[::2]] = 1_000 + np.arange(len(alone[::2]))  # blocks that nobody shares
    for most in (4, 8):
        latent = latent_clients(columns, first_blocks=block, most=most)
        assert latent.how == "first blocks"
        assert len(latent) == most
        for shared in (11, 12, 13):
            assert np.array_equal(latent.block[latent.label] == shared, block == shared)
    few = latent_clients(columns, first_blocks=block, most=2)
    assert few.block.tolist() == [-1, 11]  # the rest is a client, too
    assert latent_clients(columns, first_blocks=np.arange(10_000)).how == "lengths"


def ragged(lists: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0] + [len(one) for one in lists])
    return Ragged(offsets.astype(np.int64), np.array([b for one in lists for b in one], np.int64))


def test_system_prompts_are_measured_in_blocks():
    """Prompts of 3 and of 1 blocks, requests without any, and one sort that goes on alike in half of the cases only."""
    rows = []
    for i in range(400):
        rows.append([1, 2, 3, 1_000 + i])
        rows.append([5, *[6] * (i % 2), 2_000 + i])
        rows.append([3_000 + i, 9])
        rows.append([])
    hash_ids = ragged(rows)
    first = first_blocks_of(hash_ids)
    assert first[:4].tolist() == [1, 5, 3_000, -1]
    label = np.tile([0, 1, 2, 3], 400)
    trace = Trace.trusted({"client": label, "hash_ids": hash_ids}, {})
    assert system_tokens(trace, 16) == {0: 48, 1: 16}
    columns = {"input_tokens": np.full(1_600, 10), "output_tokens": np.full(1_600, 10)}
    latent = latent_clients(columns, first_blocks=first)
    assert sorted(latent.block.tolist()) == [-1, 1, 5]


def test_conversations_stay_together():
    columns, _ = known(9_000)
    conversation = np.random.default_rng(3).integers(0, 3_000, 9_000)
    latent = latent_clients(columns, conversation=conversation)
    assert len(latent) > 1
    pairs = np.unique(np.stack([conversation, latent.label]), axis=1)
    assert pairs.shape[1] == len(np.unique(conversation))


def test_what_cannot_be_is_refused():
    with pytest.raises(OptionError, match="expected a log with requests"):
        latent_clients({"input_tokens": np.zeros(0, np.int32), "output_tokens": np.zeros(0, np.int32)})
    with pytest.raises(OptionError, match="at least 1 latent client"):
        latent_clients(known(100)[0], most=0)
