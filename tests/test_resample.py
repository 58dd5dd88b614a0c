"""Clients drawn from a pool: total, skew, who is drawn; refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError

POOL = sg.population("m-small", clients=600, seed=3)


def requests(pool):
    return pool.rate_factor * pool.rate_rps.mean(axis=1)[pool.profile]


def lorenz(pool):
    sent = np.concatenate(([0], np.cumsum(np.sort(requests(pool))[::-1])))
    return np.interp(np.linspace(0.02, 1, 50), np.linspace(0, 1, len(sent)), sent / sent[-1])


@pytest.mark.parametrize("clients", [1, 2, 50, 600, 601, 5_000])
def test_total_and_skew_survive(clients):
    some = sg.resample(POOL, clients, seed=1)
    assert some.client_ids.tolist() == list(range(clients))
    assert requests(some).sum() == pytest.approx(requests(POOL).sum(), rel=1e-9)
    assert (np.diff(requests(some)) <= 1e-12).all()
    if clients >= 50:
        np.testing.assert_allclose(lorenz(some), lorenz(POOL), atol=1e-4)


def test_independent_draws_would_lose_the_skew():
    """What the stratification is for: plain bootstraps spread the share of the top by far more."""
    sent = np.sort(requests(POOL))[::-1]
    generator = np.random.default_rng(0)
    plain = [np.sort(generator.choice(sent, 600))[::-1] for _ in range(200)]
    top = np.array([x[:29].sum() / x.sum() for x in plain])
    ours = [sg.resample(POOL, 600, seed=s).skew().of_top(29) for s in range(5)]
    assert np.ptp(ours) < 1e-9 < 0.05 < np.ptp(top)


def test_the_seed_decides_who_is_drawn_with_replacement():
    pools = [sg.resample(POOL, 600, seed=seed) for seed in (0, 0, 1)]
    assert pools[0].digest() == pools[1].digest() != pools[2].digest()
    drawn = len(np.unique(pools[0].profile))
    assert drawn < len(np.unique(POOL.profile))
    # the largest is a stratum of its own: four sixteenths of the requests
    assert pools[0].profile[0] == pools[2].profile[0] == POOL.profile[0]


def test_what_clients_are_like_goes_by_requests():
    """Burstiness, weighted by requests, is on average that of the pool."""
    cv = POOL.cv.mean(axis=1)
    means = [np.average(cv[p.profile], weights=requests(p)) for p in (sg.resample(POOL, 600, s) for s in range(20))]
    assert np.mean(means) == pytest.approx(np.average(cv[POOL.profile], weights=requests(POOL)), rel=0.02)


def test_jitter_spreads_rates_and_keeps_the_total():
    plain, some = sg.resample(POOL, 2_000, seed=1), sg.resample(POOL, 2_000, seed=1, jitter=0.3)
    ratio = np.log(requests(some) / requests(plain))
    assert requests(some).sum() == pytest.approx(requests(plain).sum(), rel=1e-9)
    assert ratio.std() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(some.profile, plain.profile)


def test_silent_clients_are_not_drawn():
    pool = tiny_pool("language", 4)
    silent = pool.span(0, 600).filter(rate_rps=(0, None))
    assert set(sg.resample(silent, 20).profile.tolist()) <= set(range(len(silent.rate_rps)))


@pytest.mark.parametrize("clients", [0, -1, 1.5, True, "5", 10_000_001, 2**31])
def test_bad_counts_are_refused(clients):
    with pytest.raises(OptionError, match="clients"):
        sg.resample(POOL, clients)


@pytest.mark.parametrize("keywords", [{"seed": -1}, {"seed": 2**64}, {"jitter": -0.1}, {"jitter": 9}, {"jitter": "x"}])
def test_bad_options_are_refused(keywords):
    with pytest.raises(OptionError):
        sg.resample(POOL, 5, **keywords)


def test_on_the_command_line(capsys):
    assert main(["inspect", "m-rp", "--clients", "300", "--resample", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clients"] == 40
    assert main(["inspect", "m-rp", "--resample", "0"]) == 2
    assert "clients" in capsys.readouterr().err
