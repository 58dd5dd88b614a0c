"""Two streams of a client, requests alone and conversations: how bursty they are together, and that they share nothing.

Counts of a client are those of two renewal processes with the client's CV c, each in equilibrium at the begin of a
window and with its share of the rate. Each has an index of dispersion (variance / mean of counts) that goes to c^2 in
long windows, and so has their sum: what requests and first turns of a client vary by in the long run is as if they
were one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from gates import check, passes
from profiles import tiny_pool
from scipy import stats
from test_oracles import chi_square, equilibrium_tail

import servegen_gpu as sg
from servegen_gpu import Trace, TurnModel
from servegen_gpu import distributions as d
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import number_of, plan
from servegen_gpu.request.families import GAMMA

pytestmark = pytest.mark.statistical

CLIENTS = 20_000
PAIRS = TurnModel(2 / 3, turns=d.Constant(2), gap_s=d.Exponential(mean=5), session_s=3600)
"""As many conversations as requests alone: a third of the requests each, and a third of second turns."""


def workload(shape: float, begun: float, model: TurnModel = PAIRS) -> Workload:
    """Clones in one window that begin so many conversations and send requests alone, on average together."""
    requests = begun / (1 - model.share + model.share / model.mean_turns)
    pool = tiny_pool(clients=1, windows=1, rate_rps=CLIENTS * requests / 600, family=GAMMA, shape=shape)
    pool = pool.clone(CLIENTS).with_conversations(model)
    return sg.stream(pool, duration=600, counts="renewal", occupancy="window", warmup=0, seed=12, backend="numpy")


def begun(trace: Trace) -> np.ndarray:
    """How many requests alone and conversations each client begins, int64[clients]."""
    return np.bincount(trace["client"][trace["turn"] == 1], minlength=CLIENTS)


def law_of_two(shape: float, means: tuple[float, float]) -> np.ndarray:
    """Probabilities of the sum of counts of two independent processes in equilibrium."""
    probability = np.ones(1)
    for mean in means:
        tail = equilibrium_tail(shape, mean, int(mean * 4 + 40 / np.sqrt(shape)))
        probability = np.convolve(probability, np.append(-np.diff(tail), tail[-1]))
    return probability


def dispersion_of(probability: np.ndarray) -> tuple[float, float, float]:
    """Index of dispersion, variance, and standard error of the variance of `CLIENTS` counts."""
    n = np.arange(len(probability))
    mean = float(n @ probability)
    second, fourth = (float((n - mean) ** power @ probability) for power in (2, 4))
    return second / mean, second, float(np.sqrt((fourth - second**2) / CLIENTS))


def dispersion_p(count: np.ndarray, probability: np.ndarray) -> float:
    """P-value of the variance of counts, about a normal one."""
    _, variance, error = dispersion_of(probability)
    return float(2 * stats.norm.sf(abs(count.var() - variance) / error))


def poisson_conversations(found: Workload) -> Workload:
    """A defect: first turns that come as a Poisson process."""
    first_turns = found.packed.conversations
    assert first_turns is not None
    calm = replace(
        first_turns, shape=np.ones_like(first_turns.shape), log_mean_gap=np.zeros_like(first_turns.log_mean_gap)
    )
    return replace(found, packed=replace(found.packed, conversations=calm))


def shared_addresses(found: Workload) -> Workload:
    """A defect: both streams draw at the addresses of one."""
    first_turns = found.packed.conversations
    assert first_turns is not None
    return replace(found, packed=replace(found.packed, conversations=replace(first_turns, stream=0)))


def conversations_at_twice_the_rate(found: Workload) -> Workload:
    """A defect: first turns that take the share of all turns."""
    first_turns = found.packed.conversations
    assert first_turns is not None
    more = replace(first_turns, rate_rps=2 * first_turns.rate_rps)
    return replace(found, packed=replace(found.packed, conversations=more))


@pytest.mark.parametrize(("shape", "mean"), [(0.3, 8.0), (0.3, 40.0), (2.0, 20.0)])
def test_counts_of_both_streams_are_those_of_two_renewal_processes(shape: float, mean: float) -> None:
    law, found = law_of_two(shape, (mean / 2, mean / 2)), workload(shape, mean)

    def of_all(found: Workload) -> tuple[float, float]:
        count = begun(found.joined())
        observed = np.bincount(np.minimum(count, len(law) - 1), minlength=len(law))
        return chi_square(observed, law), dispersion_p(count, law)

    for p, what in zip(of_all(found), ("distribution", "variance"), strict=True):
        check(p, f"{what} of counts, shape {shape}, mean {mean}")
    defects: list[Callable[[Workload], Workload]] = [
        poisson_conversations, shared_addresses, conversations_at_twice_the_rate,
    ]  # fmt: skip
    for defect in defects:
        assert not any(map(passes, of_all(defect(found)))), defect.__name__


@pytest.mark.parametrize("shape", [0.3, 2.0])
@pytest.mark.parametrize("share", [0.1, 2 / 3, 0.95])
def test_dispersion_in_long_windows_is_that_of_the_client(shape: float, share: float) -> None:
    """Theory of the two processes goes to c^2 = 1 / shape, as that of one does; and what is drawn follows theory."""
    model = replace(PAIRS, share=share)
    of_both = [dispersion_of(law_of_two(shape, (n * (1 - share), n * share / 2)))[0] for n in (30, 300, 1500)]
    of_one = [dispersion_of(law_of_two(shape, (n * (1 - share / 2), 0.0)))[0] for n in (30, 300, 1500)]
    off = np.abs(np.array([of_both, of_one]) * shape - 1)
    assert (np.diff(off) < 0).all()
    assert (off[:, -1] < 0.02).all()
    law = law_of_two(shape, (100 * (1 - share), 100 * share / 2))
    count = begun(workload(shape, 100 * (1 - share / 2), model).joined())
    check(dispersion_p(count, law), f"dispersion, shape {shape}, share {share}")
    assert count.var() / count.mean() * shape == pytest.approx(1, abs=0.1)


def test_streams_have_random_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests alone and first turns have the same rate here: with the same numbers they would be the same rows."""

    def in_common(found: Workload) -> tuple[float, float]:
        """Of first turns, how many arrive when a request alone of their client does, and how many have its lengths."""
        first_turns = found.packed.conversations
        assert first_turns is not None
        streams = []
        for packed in (found.packed, first_turns):
            (slab,) = plan(packed, 1 << 20, slab_requests=1 << 20)
            streams.append(found.backend.sample_slab(packed, found.key, slab))
        shared = []
        for names in (("client", "arrival_us"), ("client", "input_tokens", "output_tokens")):
            alone, first = (set(zip(*(rows[name].tolist() for name in names), strict=True)) for rows in streams)
            shared.append(len(alone & first) / len(first))
        return shared[0], shared[1]

    wide = d.Uniform(1, 10**9)
    client = sg.client(rate=5.0, arrivals="gamma", cv=2, count=50, input_tokens=wide, output_tokens=wide)
    pool = sg.pool([client]).with_conversations(PAIRS)

    def packed() -> Workload:
        return sg.stream(pool, duration=600, warmup=0, backend="numpy")

    assert max(in_common(packed())) < 0.001
    assert min(in_common(shared_addresses(packed()))) > 0.999
    # planted: windows without their stream
    monkeypatch.setattr("servegen_gpu.plan.number_of", lambda window, stream: number_of(window, 0))
    assert min(in_common(packed())) > 0.999


def test_each_stream_has_its_share_of_every_window() -> None:
    pool = tiny_pool(clients=4).with_conversations(PAIRS)
    packed = sg.stream(pool, duration=7200, rate=[(0, 1), (3000, 4)]).packed
    assert isinstance(packed.conversations, PackedWorkload)
    first_turns = packed.conversations
    since = packed.first_window - first_turns.first_window
    assert since == 6
    np.testing.assert_allclose(first_turns.expected[since:], packed.expected)
    np.testing.assert_allclose(packed.requests, 3 * packed.expected)
    np.testing.assert_allclose(packed.requests, [600] * 5 + [2400] * 7)
