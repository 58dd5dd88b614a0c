"""The JAX backend against NumPy: every column, bit for bit."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from profiles import tiny_pool

import servegen_gpu as sg
from servegen_gpu import stream
from servegen_gpu.backends import choose_backend, describe_backends
from servegen_gpu.backends.host.backend import NumpyBackend
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import derive_key
from servegen_gpu.law.elementary import exp, log
from servegen_gpu.law.normal import normal_of_word, word_of_normal
from servegen_gpu.law.philox import philox4x32
from servegen_gpu.plan import Slab
from servegen_gpu.request.columns import Ragged
from servegen_gpu.request.families import GAMMA, LOGNORMAL

jax = pytest.importorskip("jax", reason='JAX is not installed: pip install "servegen-gpu[jax]"')
xla = pytest.importorskip("servegen_gpu.backends.xla.backend")
xla_exact = pytest.importorskip("servegen_gpu.backends.xla.exact")
xla_rows = pytest.importorskip("servegen_gpu.backends.xla.rows")
jnp = jax.numpy

STEPS = [(0, 1.0), (700, 3.0), (1000, 0.5), (1500, 2.0)]
KEY = derive_key(0)
RULES = ("exact", "renewal", "servegen")


def assert_equal(a, b):
    """Traces with the same columns; says which rows of which column differ."""
    assert a.schema() == b.schema()
    assert len(a) == len(b)
    for name in a:
        x, y = (c.values if isinstance(c, Ragged) else c for c in (a[name], b[name]))
        if isinstance(a[name], Ragged):
            np.testing.assert_array_equal(a[name].offsets, b[name].offsets, name)
        np.testing.assert_array_equal(x, y, name)


def both(pool, least_rows=1, **keywords):
    """The trace of both backends, which are the same."""
    expected = sg.generate(pool, backend="numpy", **keywords)
    found = sg.generate(pool, backend="jax", **keywords)
    assert_equal(expected, found)
    assert len(found) >= least_rows
    return found


def correlation(fields):
    matrix = np.full((fields, fields), 0.5)
    np.fill_diagonal(matrix, 1)
    return {"rank_correlation": matrix}


@pytest.mark.parametrize("category", ["language", "reason", "multimodal"])
def test_clients_with_correlations_and_limits_of_their_own(category):
    for dependent, contexts in ((True, (0,)), (True, (100, 0, 2500, 1, 700)), (False, (1000, 0))):
        pool = tiny_pool(category, clients=5, dependent=dependent, contexts=contexts)
        both(pool, least_rows=1000, rate=1.0, start=307, duration=1200, seed=3)


@pytest.mark.parametrize("dependence", ["independent", "comonotone", "copula"])
@pytest.mark.parametrize(("category", "fields"), [("language", 2), ("reason", 3), ("multimodal", 5)])
def test_categories_rules_and_dependence(category, fields, dependence):
    """A span that begins and ends inside windows."""
    more = correlation(fields) if dependence == "copula" else {}
    for counts in RULES:
        both(
            tiny_pool(category, clients=5),
            least_rows=1500,
            rate=1.0,
            start=307,
            duration=1900,
            seed=3,
            counts=counts,
            dependence=dependence,
            **more,
        )


@pytest.mark.parametrize("counts", RULES)
def test_rates_that_change_inside_windows(counts):
    if counts == "servegen":
        both(tiny_pool(clients=5), scale=2.0, start=100, duration=1800, counts=counts)
    else:
        both(tiny_pool(clients=5), rate=STEPS, start=100, duration=1800, counts=counts)


@pytest.mark.parametrize("counts", ["exact", "renewal"])
def test_lognormal_gaps(counts):
    mixed = tiny_pool(clients=5, silent=False)
    family = np.where(np.arange(5)[:, None] < 3, LOGNORMAL, mixed.family).astype(np.uint8)
    pool = dataclasses.replace(mixed, family=family, shape=np.where(family == LOGNORMAL, 1.3, mixed.shape))
    both(pool, rate=2.0, duration=1200, counts=counts, least_rows=1500)


def test_measured_clients_beside_intensities():
    pool = dataclasses.replace(tiny_pool(clients=6), measured=np.arange(6) % 2 == 0)
    both(pool, rate=1.0, duration=1800, least_rows=1500)


@pytest.mark.parametrize("requests", [1, 4095, 4096, 4097])
def test_sizes_around_a_bucket_of_requests(requests):
    pool = tiny_pool(clients=1, windows=1, silent=False, family=GAMMA, shape=0.3)
    trace = both(pool, rate=requests / 600, duration=600, counts="exact")
    assert len(trace) == requests


@pytest.mark.parametrize("clients", [255, 256, 257])
def test_sizes_around_a_bucket_of_cells(clients):
    both(tiny_pool(clients=clients, windows=1, silent=False), rate=2.0, duration=600, counts="renewal")


def test_many_windows_need_more_than_32_bits():
    both(tiny_pool(clients=2), rate=0.2, start=50, duration="5h", counts="exact", least_rows=3000)


def test_no_requests_at_all():
    assert len(both(tiny_pool("multimodal"), rate=1e-9, duration=600, counts="exact", least_rows=0)) == 0


def test_bursts_take_several_rounds():
    pool = tiny_pool(clients=3, silent=False, family=GAMMA, shape=0.01)
    both(pool, rate=1.5, duration="20m", counts="renewal", least_rows=100)


def test_shards_are_the_trace():
    pool = tiny_pool("multimodal", clients=4)
    parts = [both(pool, rate=1.0, duration=2400, counts="exact", shard=f"{k}/2") for k in (1, 2)]
    whole = sg.generate(pool, rate=1.0, duration=2400, counts="exact")
    assert sum(map(len, parts)) == len(whole)


@pytest.mark.parametrize("counts", RULES)
def test_parts_of_a_window_larger_than_memory(counts):
    """Both backends cut where their own budgets say; the rows are the same."""
    keywords = {"rate": 14.0, "start": 10, "duration": 700, "counts": counts}
    pool = tiny_pool(clients=3, silent=False)
    expected = sg.generate(pool, backend="numpy", **keywords)
    workload = sg.stream(pool, backend="jax", memory=4096 * 301, **keywords)
    slabs = list(workload)
    assert len(slabs) > 2
    assert_equal(expected, sg.Trace.concat(slabs))


def test_many_rows_of_a_population():
    pool = sg.population("deepseek-r1", clients=300, seed=1).with_conversations(None)
    both(pool, rate=200, duration=600, seed=9, least_rows=100_000)


def test_functions_of_the_law_and_the_defect_that_the_guard_prevents():
    """Under jit alone, some results differ in the last bit; under `exact`, none."""
    n = 1 << 16
    words = philox4x32(np, (np.arange(n, dtype=np.uint64), *[np.zeros(n, np.uint64)] * 3), (1, 2))
    u = (words[0].astype(np.float64) + 0.5) * 2.0**-32
    functions = {log: u, exp: 50 * u - 25, normal_of_word: words[0], word_of_normal: 12 * u - 6}
    plainly_different = 0
    with xla.x64():
        zero = jnp.int64(0)
        for function, x in functions.items():
            law = partial(function, jnp)
            exactly = jax.jit(lambda x, zero, law=law: xla_exact.exact(law, zero)(x))(jnp.asarray(x), zero)
            np.testing.assert_array_equal(function(np, x), exactly)
            plainly_different += np.count_nonzero(np.asarray(jax.jit(law)(jnp.asarray(x))) != function(np, x))
    if jax.default_backend() == "cpu":
        assert plainly_different > 0


def test_slabs_of_a_bucket_share_one_compilation(caplog):
    # so many cells that no other test has compiled for them
    pool = tiny_pool(clients=700, silent=False, family=GAMMA, shape=2.0)
    workload = stream(pool, rate=5.0, duration="2h", counts="renewal", backend="jax", seed=1)

    def compiled_for(*windows):
        caplog.clear()
        workload.backend.sample_slab(workload.packed, workload.key, Slab(np.array(windows), 0, 10**15, 6000.0))
        found = (re.search(r"Finished XLA compilation of jit\((\w+)\)", r.getMessage()) for r in caplog.records)
        return sorted(match[1] for match in found if match)

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        # twice for all runs, and for those that need another round
        assert compiled_for(0, 1) == ["begin", "draw_runs", "draw_runs", "finish", "join", "join"]
        assert compiled_for(3, 4) == []
        assert compiled_for(8, 9) == []


def test_a_users_code_keeps_its_types():
    def types():
        return jnp.zeros(2).dtype, jnp.arange(2).dtype, jax.jit(lambda x: x * 1.5)(jnp.float32(2)).dtype

    before = types()
    assert jax.config.jax_enable_x64 is False
    sg.generate(tiny_pool(), rate=1.0, duration=600, backend="jax")
    assert jax.config.jax_enable_x64 is False
    assert types() == before
    assert before[0] == jnp.float32


def test_columns_are_writable_memory_of_their_own():
    trace = sg.generate(tiny_pool("multimodal"), rate=1.0, duration=600, backend="jax")
    for name in trace:
        column = trace[name].values if isinstance(trace[name], Ragged) else trace[name]
        assert column.flags.writeable
        assert column.base is None


@pytest.mark.parametrize("counts", ["exact", "renewal"])
def test_windows_inside_a_users_jitted_code(counts):
    packed = stream(tiny_pool("reason", clients=5), rate=1.0, duration="2h", counts=counts).packed
    expected = NumpyBackend().sample_slab(packed, KEY, Slab(np.array([1, 2]), 0, 10**15, 1200.0))
    tables, cells = xla.device_tables(packed, KEY), xla.window_cells(packed, first=1, count=2)

    @jax.jit
    def simulate(tables, cells, cost_per_token):
        sample = xla.sample_window(tables, cells, capacity=4096)
        tokens = jnp.where(sample.valid, sample.fields["output_tokens"], 0)
        return sample, tokens.sum(), cost_per_token * 2

    with xla.x64() if not hasattr(jax, "enable_x64") else jax.log_compiles(False):
        sample, tokens, cost = simulate(tables, cells, jnp.float32(1.5))
    assert bool(sample.fits)
    assert cost.dtype == jnp.float32
    assert (sample.us.dtype, sample.window.dtype, sample.client.dtype) == (jnp.uint32, jnp.int32, jnp.int32)
    valid = np.asarray(sample.valid)
    n = len(expected["client"])
    assert valid[:n].all()
    assert not valid[n:].any()
    us = np.asarray(sample.us).astype(np.int64) + np.asarray(sample.window).astype(np.int64) * packed.window_us
    np.testing.assert_array_equal(us[:n], expected["arrival_us"])
    np.testing.assert_array_equal(np.asarray(sample.client)[:n], expected["client"])
    for name, column in sample.fields.items():
        np.testing.assert_array_equal(np.asarray(column)[:n], expected[name])
    assert int(tokens) == expected["output_tokens"].sum()


@pytest.mark.parametrize("counts", RULES)
def test_largest_gaps_are_sought_only_where_they_are_units(counts):
    """On a GPU they are atomics, many of one cell at the same place."""
    packed = stream(tiny_pool(clients=5), rate=1.0, duration="1h", counts=counts).packed
    tables, cells = xla.device_tables(packed, KEY), xla.window_cells(packed, first=0)
    text = str(jax.make_jaxpr(partial(xla.sample_window, capacity=4096))(tables, cells))
    assert ("scatter-max" in text or "scatter_max" in text) == (counts != "renewal")


def test_a_capacity_too_small_is_reported():
    packed = stream(tiny_pool(clients=5), rate=1.0, duration="1h", counts="exact").packed
    tables, cells = xla.device_tables(packed, KEY), xla.window_cells(packed, first=0)
    assert bool(xla.sample_window(tables, cells, capacity=4096).fits)
    assert not bool(xla.sample_window(tables, cells, capacity=512).fits)


def test_windows_of_conversations_are_refused():
    packed = stream(sg.population("deepseek-r1", clients=5), duration=600, warmup=0).packed
    with pytest.raises(OptionError, match="with_conversations"):
        xla.window_cells(packed, 0)


def test_without_jax_the_error_says_how_to_get_it(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "servegen_gpu.backends.xla.backend")
    with pytest.raises(OptionError, match=r"pip install \"servegen-gpu\[jax\]\""):
        choose_backend("jax")
    (row,) = (row for row in describe_backends() if row["name"] == "jax")
    assert row["state"] == "missing"
    assert "pip install" in row["detail"]


def test_a_device_without_room_is_one_sentence(monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")

    monkeypatch.setattr(xla, "begin", full)
    with pytest.raises(OptionError, match=r"device memory for .*, got RESOURCE_EXHAUSTED.*; lower memory="):
        sg.generate(tiny_pool(), rate=1.0, duration=600, backend="jax")


@pytest.mark.parametrize("name", ["order_of_pairs", "order_of_words"])
def test_both_sorts_keep_the_order_of_equals(name):
    key = philox4x32(np, (np.arange(5000, dtype=np.uint64), *[np.zeros(5000, np.uint64)] * 3), (1, 2))[0] >> 22 << 22
    with xla.x64():
        order = getattr(xla_rows, name)(jnp.asarray(key.astype(np.uint32)), jnp.arange(5000, dtype=jnp.uint32))
    np.testing.assert_array_equal(order, np.argsort(key, kind="stable"))


def test_gpus_sort_32_bit_keys():
    """What XLA gets for a GPU can be seen without one."""
    export = pytest.importorskip("jax.export", reason="this JAX cannot export")
    packed = stream(tiny_pool(clients=5), rate=1.0, duration="1h").packed
    tables, cells = xla.device_tables(packed, KEY), xla.window_cells(packed, first=0)
    with xla.x64():
        edges = (jnp.int64(0), jnp.int64(1))
        made = export.export(xla_rows.finish, platforms=["cuda"])(tables, cells, xla.nothing(4096), *edges)
    (sort,) = re.findall(r"stablehlo\.sort.*?\) : \((.*?)\)", made.mlir_module(), re.DOTALL)
    assert sort == "tensor<4096xui32>, tensor<4096xui32>"


def test_jax_is_imported_only_when_it_is_asked_for():
    code = (
        "import sys, servegen_gpu as sg\n"
        "from servegen_gpu.backends import choose_backend, describe_backends\n"
        "rows = {row['name']: row for row in describe_backends()}\n"
        "assert rows['jax']['state'] == 'ready', rows\n"
        "assert choose_backend('auto').name != 'jax'\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
