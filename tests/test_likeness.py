"""A fit of a real log is like it, and models that are known to be unlike are found out: bench/bench_likeness.py."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from profiles import REPOSITORY

import servegen_gpu as sg
from servegen_gpu.comparing.figures import figures_of
from servegen_gpu.comparing.floors import Floor
from servegen_gpu.fitting.dependence import energy_distance
from servegen_gpu.serving.server import Server
from servegen_gpu.serving.simulate import instances_needed

CODE = REPOSITORY.parent / "shared" / "data" / "traces" / "azure-2023-code.csv"
MOONCAKE = CODE.with_name("mooncake-toolagent-head1000.jsonl")
pytestmark = pytest.mark.skipif(not CODE.exists(), reason="needs the public logs in ../shared/data/traces")


@pytest.fixture(scope="module")
def likeness():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "bench"))
        import bench_likeness

        yield bench_likeness
    sys.modules.pop("bench_likeness", None)


@pytest.fixture(scope="module")
def log():
    return sg.read_trace(CODE)


@pytest.fixture(scope="module")
def faults_of(likeness, log):
    """What means over replicas of a model are, and which of them are not like the log."""
    models, figures = likeness.models(log), figures_of(log)
    floor, needed = Floor(figures), float(instances_needed(log, Server(), slo_ttft_s=likeness.SLO_S))

    def of(name: str, replicas: int) -> tuple[dict[str, float], list[str]]:
        found = likeness.seen([models[name](r) for r in range(replicas)], True)
        return found, likeness.faults(found, figures, floor, needed)

    return of


def test_replicas_of_a_fit_are_like_the_log(faults_of):
    """Means of 200 replicas: dispersion, peaks, instances for a P99 TTFT of 2 s; share of near copies."""
    found, faults = faults_of("fit", 200)
    assert faults == []
    assert found["match_share"] == pytest.approx(0.35, abs=0.05)


@pytest.mark.parametrize(
    "name", ["one renewal, 600 s", "one renewal, 60 s", "poisson, constant rate", "hidden markov, 4 states"]
)
def test_worse_models_are_found_out(name, faults_of):
    """Planted defects: each must miss at least two of the figures, far beyond the noise of 40 replicas."""
    _, faults = faults_of(name, 40)
    assert len(faults) >= 2


def test_the_first_half_tells_of_the_second(likeness, log):
    fitted, floor = likeness.half_to_half(log, 200)
    assert fitted <= 0.45
    assert floor == pytest.approx(0.36, abs=0.01)


def test_lengths_of_halves(log):
    middle = len(log) // 2
    first, second = log[:middle], log[middle:]
    pool = sg.fit(first)
    replica = sg.Trace.sorted(  # requests of one replica come in near copies, so one has few lengths of its own
        {
            name: np.concatenate([sg.generate(pool, duration="30m", replica=r)[name] for r in range(40)])
            for name in ("arrival_us", "input_tokens", "output_tokens")
        }
    )
    for name in ("input_tokens", "output_tokens"):
        values = [np.sort(trace[name]) for trace in (replica, first, second)]
        every = np.unique(np.concatenate(values))
        share = [np.searchsorted(v, every, side="right") / len(v) for v in values]
        ks, floor = (float(np.abs(share[i] - share[2]).max()) for i in (0, 1))
        assert ks <= floor + 0.01, name
    points = []
    for trace in (replica, first, second):
        rows = np.linspace(0, len(trace) - 1, 4000).astype(int)
        columns = [trace[name][rows].astype(float) for name in ("input_tokens", "output_tokens")]
        points.append(np.log1p(np.stack(columns, axis=1)))
    assert energy_distance(points[0], points[2]) <= energy_distance(points[1], points[2]) + 0.005


def test_caches_of_an_agent_log(likeness):
    """Blocks found by LRU caches of five sizes, within .02."""
    trace = sg.read_trace(MOONCAKE)
    assert sg.fit_with_report(trace)[1].tick_s == 3
    found = likeness.caches(trace, 12)
    assert np.abs(np.array(found["fit"]) - found["log"]).max() <= 0.02
