"""Dependence of fields: what carries it is found, and is what the log has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gates import check
from scipy.stats import binomtest, spearmanr

import servegen_gpu as sg
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.dependence import (
    POOLED,
    choose_dependence,
    draw_fields,
    energy_distance,
    label_spearman,
    noise_of_halves,
)
from servegen_gpu.fitting.ids import identified, profile_spearman
from servegen_gpu.fitting.latent import latent_clients

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"


def clusters(fields: np.ndarray) -> dict[str, np.ndarray]:
    columns = {"input_tokens": fields[0], "output_tokens": fields[1]}
    return {f"{most} clusters": latent_clients(columns, most=most).label for most in (4, 8)}


def copula(n: int, latent: float, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2, n))
    z[1] = latent * z[0] + np.sqrt(1 - latent**2) * z[1]
    return np.exp(np.array([[6.0], [4.0]]) + z).astype(np.int64)


def quartiles(n: int) -> np.ndarray:
    """Mean outputs of 116, 198, 402 and 144 tokens by quartile of the input: hardly a rank correlation."""
    rng = np.random.default_rng(2)
    quarter = rng.integers(0, 4, n)
    mean = np.array([116, 198, 402, 144])[quarter]
    output = mean * np.exp(rng.normal(0, 0.3, n) - 0.045)
    return np.stack([np.exp(5 + quarter + rng.random(n)), output]).astype(np.int64)


def test_clusters_carry_what_ranks_do_not_show():
    fields = quartiles(40_000)
    found = choose_dependence(fields, clusters(fields))
    energy = {(c.labels, c.copula): c.energy for c in found.candidates}
    assert found.chosen.labels != POOLED
    best = min(energy.values())
    for copula_too in (False, True):
        assert energy[POOLED, copula_too] > 10 * found.noise
    assert found.chosen.energy <= best + 1.5 * found.noise
    assert found.chosen.energy < energy[POOLED, True] / 5
    assert abs(found.floor) < 2 * found.noise


def test_a_copula_is_found_again():
    """The standard error of Spearman's ρ at 100,000 requests is 0.003."""
    fields = copula(100_000, 0.5)
    found = choose_dependence(fields, clusters(fields))
    assert (found.chosen.labels, found.chosen.copula) == (POOLED, True)
    assert found.spearman[0, 0, 1] == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.012)
    independent = found.candidates[0]
    assert independent.energy > 5 * found.noise


def test_independent_fields_stay_so():
    fields = copula(50_000, 0.0)
    found = choose_dependence(fields, clusters(fields))
    assert (found.chosen.labels, found.chosen.copula) == (POOLED, False)
    assert np.array_equal(found.spearman, np.eye(2)[None])
    again = choose_dependence(fields, clusters(fields))
    assert again.candidates == found.candidates


def test_clients_may_carry_dependence_and_have_some_left():
    """Three fields; the middle of two depends on the client, and inside a client they go together, too."""
    rng = np.random.default_rng(8)
    n = 60_000
    client = rng.integers(0, 3, n)
    z = rng.normal(size=(3, n))
    z[1] = 0.7 * z[0] + 0.5 * z[1]
    middle = np.array([[5.0, 8.0, 6.0], [7.0, 4.0, 4.0], [5.0, 5.0, 5.0]])[:, client]
    fields = np.exp(middle + 1.2 * z).astype(np.int64)
    found = choose_dependence(fields, {"clients": client})
    assert (found.chosen.labels, found.chosen.copula) == ("clients", True)
    assert found.spearman.shape == (3, 3, 3)
    inside = 0.7 / np.hypot(0.7, 0.5)
    assert np.abs(found.spearman[:, 0, 1] - 6 / np.pi * np.arcsin(inside / 2)).max() < 0.02
    assert np.abs(found.spearman[:, 2, :2]).max() < 0.03
    without = next(c for c in found.candidates if c.labels == "clients" and not c.copula)
    assert without.energy > found.chosen.energy + 2 * found.noise


@pytest.mark.parametrize("latent", [-0.8, 0.3, 0.95])
def test_ties_do_not_weaken_a_copula(latent):
    """Fields of three and of two values; the standard error of a rank correlation at 400,000 requests is 0.0016."""
    rng = np.random.default_rng(3)
    n = 400_000
    z = rng.normal(size=(2, n))
    z[1] = latent * z[0] + np.sqrt(1 - latent**2) * z[1]
    fields = np.stack([np.digitize(z[0], [-0.5, 1.0]), np.digitize(z[1], [0.8])]).astype(np.int64)
    zero = np.zeros(n, np.int64)
    stated = label_spearman(fields, zero, 1)
    assert stated[0, 0, 1] == pytest.approx(6 / np.pi * np.arcsin(latent / 2), abs=0.01)
    wanted = spearmanr(fields[0], fields[1]).statistic
    rows = draw_fields(fields, zero, zero, stated, 0, 1)
    drawn = fields[0][rows[0]], fields[1][rows[1]]
    assert spearmanr(*drawn).statistic == pytest.approx(wanted, abs=0.008)
    plain = np.eye(2)[None] * (1 - wanted) + wanted  # planted defect: the log's own, as if nothing were tied
    rows = draw_fields(fields, zero, zero, plain, 0, 1)
    assert abs(spearmanr(fields[0][rows[0]], fields[1][rows[1]]).statistic - wanted) > 0.03


def test_fields_are_drawn_inside_their_labels():
    fields = np.stack([np.arange(3_000), np.arange(3_000)[::-1]])
    label = np.repeat([0, 1, 2], [500, 1_000, 1_500])
    wanted = np.tile([2, 0, 1], 400)
    for row in draw_fields(fields, label, wanted, None, 0, 1):
        assert np.array_equal(label[row], wanted)


def test_noise_is_what_halves_of_a_log_differ_by():
    """A log beyond its 95th percentile in 1 of 20: within a gate's budget of that in 60 logs."""
    beyond = 0
    for seed in range(60):
        points = np.random.default_rng(seed).normal(size=(600, 2))
        noise = noise_of_halves(points, seed)
        beyond += energy_distance(points[::2], points[1::2]) > noise
    check(binomtest(beyond, 60, 0.05).pvalue, "halves beyond the noise")
    shifted = np.random.default_rng(9).normal(size=(600, 2))
    shifted[::2] += 0.5
    assert energy_distance(shifted[::2], shifted[1::2]) > 3 * noise_of_halves(shifted, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
@pytest.mark.parametrize("value", [0, 7])
def test_odd_logs_are_independent(n, value):
    fields = np.full((2, n), value)
    found = choose_dependence(fields, {"clients": np.zeros(n, np.int64)})
    assert (found.chosen.labels, found.chosen.copula) == (POOLED, False)
    assert np.isfinite(found.spearman).all()
    assert np.isfinite([found.floor, found.noise]).all()


def test_an_empty_log_is_refused():
    with pytest.raises(OptionError, match="a log with requests"):
        choose_dependence(np.zeros((2, 0), np.int64), {})
    with pytest.raises(OptionError, match="a log with requests"):
        identified(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def named(n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Clients 0, 7, 14, … of very different sizes, with mean lengths of their own."""
    rng = np.random.default_rng(4)
    weight = 1 / np.arange(1, 2_001) ** 1.1
    client = rng.choice(2_000, n, p=weight / weight.sum())
    middle = rng.choice([4.0, 8.0], 2_000)
    lengths = np.exp(np.stack([middle[client], np.full(n, 5.0)]) + rng.normal(0, 0.4, (2, n)))
    return client * 7, lengths.astype(np.int64)


def test_large_clients_stand_alone_and_small_ones_in_groups_of_their_like():
    client, lengths = named()
    found = identified(client, *lengths)
    ids, sizes = np.unique(client, return_counts=True)
    assert np.array_equal(found.ids, ids)
    assert np.array_equal(found.sizes, sizes)
    assert np.array_equal(found.ids[found.client], client)
    assert found.large == (sizes >= 300).sum()
    assert np.array_equal(np.bincount(found.profile)[: found.large], np.ones(found.large))
    assert np.array_equal(np.bincount(found.label), found.profile_sizes)
    assert 1 < len(found.profile_sizes) - found.large <= 32
    small = found.label >= found.large
    total = np.log(lengths[0][small]).var()
    means = np.bincount(found.label[small], np.log(lengths[0][small])) / np.maximum(np.bincount(found.label[small]), 1)
    inside = (np.log(lengths[0][small]) - means[found.label[small]]).var()
    assert inside < 0.1 * total  # 0.16 of 4.2 is what clients have themselves
    assert "clients have fewer than 300 requests" in found.notes[0]
    assert len(found.changed) == 0
    assert len(found.notes) == 1


def test_ids_that_change_meaning_are_told():
    client, lengths = named()
    late = np.arange(len(client)) >= len(client) // 2
    lengths[0][late & (client == 14)] *= 3
    found = identified(client, *lengths)
    assert found.changed.tolist() == [14]
    assert "1 of" in found.notes[1]
    assert "may have changed meaning" in found.notes[1]


def test_a_client_for_each_request():
    rng = np.random.default_rng(5)
    n = 300_000
    lengths = np.exp(rng.normal(6, 1, (2, n))).astype(np.int64)
    found = identified(np.arange(n) * 7_000, *lengths)
    assert len(found) == n
    assert found.large == 0
    assert len(found.profile_sizes) <= 32
    one = identified(np.array([5]), np.array([0]), np.array([0]))
    assert one.profile.tolist() == [0]
    assert one.profile_sizes.tolist() == [1]


def test_correlations_of_clients_are_shrunk_as_far_as_they_are_alike():
    """200 clients of 50 requests: an own ρ has a standard error of 0.13, the pooled one of 0.01."""
    n, each = 200, 50
    label = np.repeat(np.arange(n), each)
    alike, m = profile_spearman(copula(n * each, 0.5), label, n)
    assert m > 150
    assert np.abs(alike[:, 0, 1] - 0.483).max() < 0.12
    own = [spearmanr(*copula(n * each, 0.5)[:, label == one]).statistic for one in range(n)]
    assert np.abs(np.array(own) - 0.483).max() > 0.25  # planted defect: no shrinking
    two = np.concatenate([copula(each * n // 2, r, seed) for r, seed in ((-0.8, 6), (0.8, 7))], axis=1)
    apart, m = profile_spearman(two, label, n)
    assert m == 30.0
    assert apart[: n // 2, 0, 1].mean() < -0.4
    assert apart[n // 2 :, 0, 1].mean() > 0.4


@pytest.mark.skipif(not (TRACES / "azure-2023-code.csv").is_file(), reason="needs a public trace")
def test_half_of_a_public_trace_against_the_other():
    trace = sg.read_trace(TRACES / "azure-2023-code.csv")
    fields = np.stack([trace["input_tokens"], trace["output_tokens"]]).astype(np.int64)
    half = fields.shape[1] // 2
    early, late = fields[:, :half], fields[:, half:]
    latent = latent_clients({"input_tokens": early[0], "output_tokens": early[1]})
    assert len(latent) == 8
    label = latent.label.astype(np.int64)
    rows = draw_fields(early, label, label, None, 0, 1)
    model = np.stack([field[row] for field, row in zip(early, rows, strict=True)])

    def points(lengths: np.ndarray) -> np.ndarray:
        log = np.log1p(fields)
        return ((np.log1p(lengths) - log.mean(axis=1)[:, None]) / log.std(axis=1)[:, None]).T

    floor = energy_distance(points(early), points(late))
    assert energy_distance(points(model), points(late)) <= floor + 0.005
    from scipy.stats import ks_2samp

    for own, drawn, other in zip(early, model, late, strict=True):
        assert ks_2samp(drawn, other).statistic <= ks_2samp(own, other).statistic + 0.01
