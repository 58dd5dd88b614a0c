"""ServeGen's names: what its README promises, retyped with our imports; its messages; the traps that are gone."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from profiles import REAL_DATA, dataset, needs_real_data, trace_row, write_client, write_servegen

from servegen_gpu.compat import ArrivalPat, Category, Client, ClientPool, ClientWindow, Request, generate_workload
from servegen_gpu.compat.clientpool import ClientPoolView
from servegen_gpu.compat.utils import get_bounded_rate_fn, get_constant_rate_fn, get_scaled_rate_fn, sample_from_cdf
from servegen_gpu.errors import ServeGenError


def window(rate: float, cv: float = 1.0, shape: float = 1.0, family: str = "Gamma") -> dict:
    return {"rate": rate, "cv": cv, "pat": (family, (shape, 1.0))}


def clients(starts: tuple[int, ...] = (0, 60, 120)) -> list[Client]:
    lengths = {"input_tokens": [0.0, 0.25, 0.75], "output_tokens": [0.0, 0.0, 0.0, 1.0]}
    later = {"input_tokens": [0.0, 0.0, 0.0, 0.0, 1.0], "output_tokens": [0.5, 0.5]}
    bursty = Client(1, {t: window(1.0, 2.0, 0.25) for t in starts}, {starts[0]: lengths, starts[1]: later})
    stable = Client(2, {t: window(3.0, 0.5, 4.0, "Weibull") for t in starts}, {starts[0]: lengths})
    return [bursty, stable]


def pool(starts: tuple[int, ...] = (0, 60, 120)) -> ClientPool:
    return ClientPool.from_clients(Category.LANGUAGE, "custom", clients(starts))


def test_custom_workload_of_the_readme():
    requests = generate_workload(pool(), {0: 10.0, 60: 15.0, 120: 8.0}, duration=180, seed=0)
    assert isinstance(requests, list)
    assert all(isinstance(request, Request) for request in requests)
    assert [request.request_id for request in requests] == list(range(len(requests)))
    assert all(a.timestamp <= b.timestamp for a, b in pairwise(requests))
    per_window = np.bincount([int(request.timestamp // 60) for request in requests])
    # upstream's rule: n = ceil(r T) gaps of each of two clients, and the last arrival falls on the window's end
    np.testing.assert_array_equal(per_window, [598, 898, 478])
    assert {tuple(request.data) for request in requests} == {("input_tokens", "output_tokens")}
    assert json.loads(json.dumps([request.data for request in requests]))[0] == requests[0].data
    assert type(requests[0].timestamp) is float


def test_the_dataset_of_a_window_is_the_latest_before_it():
    only = ClientPool.from_clients(Category.LANGUAGE, "one", clients()[:1])
    requests = generate_workload(only, {0: 5.0, 60: 5.0, 120: 5.0}, duration=180, seed=3)
    early = {r.data["input_tokens"] for r in requests if r.timestamp < 60}
    late = {r.data["input_tokens"] for r in requests if r.timestamp >= 60}
    assert (early, late) == ({1, 2}, {4})


def test_seeds():
    rates = {0: 10.0, 60: 15.0, 120: 8.0}
    first, again, other = (generate_workload(pool(), rates, duration=180, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert generate_workload(pool(), rates, 180) != generate_workload(pool(), rates, 180)


def test_uneven_and_endless_windows():
    """Timestamps of any distance; the last window goes on past the end of the data, here for a day."""
    requests = generate_workload(pool((0, 600, 90_000)), {0: 1.0, 600: 0.5, 90_000: 0.1}, duration=180_000, seed=1)
    edges = [0, 600, 90_000, 180_000]
    counts = np.histogram([request.timestamp for request in requests], edges)[0]
    np.testing.assert_allclose(counts, [600, 44_700, 9_000], atol=3)


def test_what_is_changed_in_clients_counts():
    changed = pool()
    changed.clients[1].trace[60]["rate"] = 5.0
    assert [w.rate for w in changed.get()] == [1.0, 5.0, 1.0, 3.0, 3.0, 3.0]
    assert get_scaled_rate_fn(changed, 1.0) == {0: 4.0, 60: 8.0, 120: 4.0}
    changed.clients[2].dataset[0]["input_tokens"] = [0.0] * 9 + [1.0]
    longest = max(r.data["input_tokens"] for r in generate_workload(changed, {0: 9.0}, duration=60, seed=0))
    assert longest == 9
    changed.clients[2].dataset[0]["input_tokens"][8:] = [1.0, 0.0]
    changed.validate()
    longest = max(r.data["input_tokens"] for r in generate_workload(changed, {0: 9.0}, duration=60, seed=0))
    assert longest == 8
    del changed.clients[1]
    assert {w.client_id for w in changed.get()} == {2}
    changed.clients = {1: clients()[0]}
    assert {w.client_id for w in changed.get()} == {1}
    changed.clients[1].trace[0]["rate"] = math.nan
    with pytest.raises(ValueError, match="Rate at 0 must be a non-negative number"):
        changed.get()


def read_pool(tmp_path) -> ClientPool:
    write_servegen(tmp_path)
    return ClientPool(Category.LANGUAGE, "tiny", data_dir=tmp_path)


def test_clients_from_files_are_as_scripts_expect_them(tmp_path):
    read = read_pool(tmp_path)
    client = read.clients[0]
    assert list(client.trace)[:3] == [0, 600, 1200]
    assert client.trace[0] is None
    assert client.trace[600] == {"rate": 0.5, "cv": 2.0, "pat": ("Gamma", (0.25, 4.0))}
    assert list(client.dataset) == [0, 21_600, 43_200]
    assert client.dataset[0]["input_tokens"][90] == 0.5
    assert len(client.dataset[0]["input_tokens"]) == 2001
    found = read.span(600, 1800).get()
    assert found[0].dataset is client.dataset[0]
    assert [(w.timestamp, w.rate) for w in found if w.client_id == 0] == [(0, 0.5), (600, 0.5)]
    again = Client(0, client.trace, client.dataset)
    rates = {0: 1.0, 600: 2.0}
    alone = [ClientPool(Category.LANGUAGE, "one", clients={0: c}).span(600, 1800) for c in (client, again)]
    assert generate_workload(alone[0], rates, 1200, seed=1) == generate_workload(alone[1], rates, 1200, seed=1)
    client.trace[600]["rate"] = 8.0
    assert read.span(600, 1800).get()[0].rate == 8.0
    assert get_scaled_rate_fn(read.span(600, 1200), 1.0)[0] == pytest.approx(8.0 + 0.1)  # client 2 is silent


def test_a_dataset_in_a_file_is_never_run(tmp_path):
    target = tmp_path / "made"
    evil = f"[open({str(target)!r}, 'w').write('x'), {{1: 1.0}}][1]"
    write_client(tmp_path / "language" / "tiny", 0, data=dataset(input_tokens=evil))
    with pytest.raises(ValueError, match="histogram"):
        ClientPool(Category.LANGUAGE, "tiny", data_dir=tmp_path)
    assert not target.exists()


def test_any_starts_in_files(tmp_path):
    trace = "".join(f"{trace_row(start)}\r\n" for start in (0, 90, 7200))
    write_client(tmp_path / "language" / "tiny", 4, trace, {"0": dataset()["0"]})
    read = ClientPool(Category.LANGUAGE, "tiny", data_dir=tmp_path)
    assert [w.window_size for w in read.span(0, 10_000).get()] == [90, 7110, 2800]


def test_gaps_and_ends():
    entry = window(2.0)
    gap = Client(1, {0: entry, 600: None, 1200: entry}, {0: {"output_tokens": [0.0, 1.0]}})
    view = ClientPool.from_clients(Category.LANGUAGE, "gap", [gap]).span(0, 1800)
    for rates in (get_constant_rate_fn(view, 5.0), get_scaled_rate_fn(view, 2.5)):
        requests = generate_workload(view, rates, duration=1800, seed=0)
        assert len(requests) == 2 * 2999
        assert not any(600 <= r.timestamp < 1200 for r in requests)
    short = view.span(0, 600)
    assert len(generate_workload(short, {0: 5.0}, duration=1800)) == 2999
    with pytest.raises(ValueError, match="don't match pool timestamps"):
        generate_workload(short, {0: 5.0, 1200: 5.0}, duration=1800)
    assert generate_workload(view.filter(lambda w: False), {0: 5.0}, duration=600) == []


def test_requests_of_any_fields():
    """Fields of a request follow its client's dataset; lists where it counts images; numbers of one draw."""
    steps = {"n": [0.25, 0.25, 0.5], "twice": [0.25, 0.0, 0.25, 0.0, 0.5], "reason_ratio": [0.25, 0.25, 0.5]}
    items = {"text_tokens": [0.0, 1.0], "image_count": [0.0, 0.0, 1.0], "image_tokens": [0.0, 0.5, 0.5]}
    both = [Client("a", {0: window(1.0)}, {0: steps}), Client("b", {0: window(1.0)}, {0: items})]
    requests = generate_workload(ClientPool.from_clients(Category.LANGUAGE, "any", both), {0: 2.0}, 600, seed=5)
    counted = [r.data for r in requests if "n" in r.data]
    listed = [r.data for r in requests if "text_tokens" in r.data]
    assert len(counted) == len(listed) == 599
    assert {d["n"] for d in counted} == {0, 1, 2}
    assert all(d == {"n": d["n"], "twice": 2 * d["n"], "reason_ratio": d["n"] / 2} for d in counted)
    assert all(set(d) == {"text_tokens", "image_tokens", "audio_tokens", "video_tokens"} for d in listed)
    assert all(len(d["image_tokens"]) == 2 and d["audio_tokens"] == d["video_tokens"] == [] for d in listed)
    assert {i for d in listed for i in d["image_tokens"]} == {1, 2}


def test_datasets_that_cannot_be_drawn_from():
    for dataset_, message in (
        ({60: {"n": [1.0]}}, "No dataset found for client 1 at timestamp 0"),
        ({0: {"reason_ratio": [1.0]}}, "reason_ratio without a range"),
        ({0: {"image_count": [0.0, 1.0]}}, "Items without tokens"),
    ):
        one = Client(1, {0: window(1.0), 60: window(1.0)}, dataset_)
        with pytest.raises(ValueError, match=message):
            generate_workload(ClientPool(Category.LANGUAGE, "one", clients={1: one}), {0: 5.0, 60: 5.0}, 120)


def test_views_do_not_change():
    view = pool().span(0, 120)
    assert isinstance(view, ClientPoolView)
    calm = view.filter_by_cv(0, 1)
    assert {w.client_id for w in view.get()} == {1, 2}
    assert {w.client_id for w in calm.get()} == {2}
    assert {w.timestamp for w in view.span(60, 120).get()} == {0}
    assert [w.window_size for w in pool().span(30, 90).get() if w.client_id == 1] == [30, 30]
    short = pool().filter_by_avg_input_len(0, 2).filter_by_max_output_len(3).get()
    assert {(w.client_id, w.timestamp) for w in short} == {(1, 0), (2, 0), (2, 60), (2, 120)}
    fast = pool().filter(lambda w: w.rate is not None and w.rate > 2).get()
    assert {w.client_id for w in fast} == {2}
    assert pool().filter_by_avg_output_len(2.5, 3.5).filter_by_max_input_len(2).get()


def test_windows_are_as_scripts_expect_them():
    first = pool().get()[0]
    assert isinstance(first, ClientWindow)
    assert (first.client_id, first.timestamp, first.rate, first.cv) == (1, 0, 1.0, 2.0)
    assert first.arrival_pat == ("Gamma", (0.25, 1.0))
    assert list(first.dataset["input_tokens"]) == pytest.approx([0.0, 0.25, 0.75])
    assert math.isclose(sum(first.dataset["output_tokens"]), 1.0)
    assert np.average(np.arange(3), weights=first.dataset["input_tokens"]) == pytest.approx(1.75)


def test_rate_functions():
    assert get_constant_rate_fn(pool(), 7.0) == {0: 7.0, 60: 7.0, 120: 7.0}
    assert get_scaled_rate_fn(pool(), 2.0) == {0: 8.0, 60: 8.0, 120: 8.0}
    assert get_bounded_rate_fn(pool(), 1.0) == {0: 1.0, 60: 1.0, 120: 1.0}
    assert get_bounded_rate_fn(pool(), 9.0) == {0: 4.0, 60: 4.0, 120: 4.0}


def test_cdfs():
    cdfs = pool().get_cdfs()
    values, probabilities = cdfs["rate"][0]
    np.testing.assert_allclose(values, [1, 3])
    np.testing.assert_allclose(probabilities, [0.5, 1])
    values, probabilities = cdfs["cv"][60]
    np.testing.assert_allclose(values, [0.5, 2])
    np.testing.assert_allclose(probabilities, [0.75, 1])
    values, probabilities = cdfs["input_tokens"]["avg"][60]
    np.testing.assert_allclose(values, [1.75, 4])
    np.testing.assert_allclose(probabilities, [0.75, 1])
    drawn = sample_from_cdf(cdfs["rate"][0], 400, np.random.RandomState(0))
    assert set(drawn) == {1, 3}


@pytest.mark.parametrize(
    ("rates", "duration", "message"),
    [
        ({0: 10.0}, 180, "don't match pool timestamps"),
        ({0: 10.0, 60: 1.0, 120: 1.0}, 0, "Duration must be positive"),
        ({0: -1.0, 60: 1.0, 120: 1.0}, 180, "finite numbers >= 0"),
        ({0: math.nan, 60: 1.0, 120: 1.0}, 180, "finite numbers >= 0"),
    ],
)
def test_bad_rates(rates, duration, message):
    with pytest.raises(ValueError, match=message) as refused:
        generate_workload(pool(), rates, duration=duration)
    assert isinstance(refused.value, ServeGenError)


@pytest.mark.parametrize(
    ("trace", "dataset", "message"),
    [
        ({60: window(1), 0: window(1)}, {}, "Trace timestamps must be in ascending order"),
        ({0: []}, {}, "Trace data at 0 must be a dictionary"),
        ({0: {"rate": 1.0}}, {}, "missing required fields"),
        ({0: window(-1.0)}, {}, "Rate at 0 must be a non-negative number"),
        ({0: window(1.0, family="Poisson")}, {}, "Invalid arrival pattern at 0"),
        ({0: window(1.0)}, {0: {"input_tokens": [0.0, 0.5]}}, "PDF for input_tokens at 0 must sum to 1.0"),
        ({0: window(1.0)}, {0: {"input_tokens": {1: 1.0}}}, "PDF for input_tokens at 0 must be a list"),
        ({0: window(1.0, shape=math.nan)}, {0: {"input_tokens": [1.0]}}, "shape"),
    ],
)
def test_bad_clients(trace, dataset, message):
    with pytest.raises(ValueError, match=message):
        Client(1, trace, dataset).validate()


def test_bad_pools(tmp_path, monkeypatch):
    monkeypatch.delenv("SERVEGEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Data directory not found"):
        ClientPool(Category.LANGUAGE, "m-none")
    with pytest.raises(ValueError, match="Duplicate client ID: 1"):
        ClientPool.from_clients(Category.LANGUAGE, "twice", [clients()[0], clients()[0]])
    other = Client(3, {0: window(1.0), 90: window(1.0)}, {0: {"input_tokens": [1.0], "output_tokens": [1.0]}})
    with pytest.raises(ValueError, match="different trace timestamps"):
        ClientPool.from_clients(Category.LANGUAGE, "grids", [clients()[0], other])


def test_patterns_have_serve_gens_values():
    assert {pattern.value for pattern in ArrivalPat} >= {"Gamma", "Weibull"}
    assert [category.value for category in Category] == ["language", "multimodal", "reason"]


@needs_real_data
@pytest.mark.parametrize(
    ("category", "model", "fields"),
    [
        (Category.REASON, "deepseek-r1", {"input_tokens", "output_tokens", "reason_ratio"}),
        (
            Category.MULTIMODAL,
            "mm-image",
            {"text_tokens", "output_tokens", "image_tokens", "audio_tokens", "video_tokens"},
        ),
    ],
)
def test_released_profiles(category, model, fields, monkeypatch):
    monkeypatch.setenv("SERVEGEN_DATA", str(REAL_DATA))
    view = ClientPool(category, model).span(36_000, 37_200)
    requests = generate_workload(view, {0: 20.0, 600: 10.0}, duration=1200, seed=0)
    assert abs(len(requests) - 18_000) < 60
    assert set(requests[0].data) == fields
    json.dumps([request.data for request in requests])
    if category is Category.REASON:
        assert {type(request.data["reason_ratio"]) for request in requests} == {float}
        assert all(0 <= request.data["reason_ratio"] < 1 for request in requests)
    else:
        assert all(isinstance(request.data["image_tokens"], list) for request in requests)
    direct = ClientPool(category, model, data_dir=REAL_DATA).span(36_000, 37_200)
    assert generate_workload(direct, {0: 20.0, 600: 10.0}, duration=1200, seed=0) == requests
