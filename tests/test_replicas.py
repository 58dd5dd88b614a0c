"""One packed workload, many keys: replicas, other processes, and what backends keep of it meanwhile."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cuda_host import COMPILER
from native import library
from profiles import REPOSITORY, talking, tiny_pool
from traces import joined, same

import servegen_gpu as sg
from servegen_gpu.backends import BACKENDS, choose_backend
from servegen_gpu.backends.cuda.device import open_device
from servegen_gpu.backends.cuda.job import NAMES
from servegen_gpu.backends.host import survey as host_survey
from servegen_gpu.backends.per_workload import MOST, PerWorkload
from servegen_gpu.errors import OptionError
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.pipeline import Workload
from servegen_gpu.plan import plan
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.trace import Trace

CATEGORIES = tuple(FIELDS)
needs_stand_in = pytest.mark.skipif(not COMPILER, reason="no g++ to play the device")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every backend by name; the host plays the device."""
    if request.param == "native":
        library()
    elif request.param == "jax":
        pytest.importorskip("jax")
    elif request.param == "cupy":
        if not COMPILER:
            pytest.skip("no g++ to play the device")
        fake_cupy.install(monkeypatch, devices=2)
    yield request.param
    open_device.cache_clear()


# -- the same rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
def test_replicas_of_what_is_packed(category: str, backend: str) -> None:
    for pool in (tiny_pool(category), talking(category)):
        keywords: dict[str, Any] = {"rate": 3.0, "start": 250, "duration": 1500}
        packed = sg.stream(pool, **keywords).packed
        traces = [sg.generate(packed, seed=9, replica=replica, backend=backend) for replica in (0, 4)]
        for replica, trace in zip((0, 4), traces, strict=True):
            assert same(trace, sg.generate(pool, seed=9, replica=replica, backend="numpy", **keywords))
        assert not same(*traces)


def test_shares_of_what_is_packed() -> None:
    pool = talking()
    packed = sg.stream(pool, duration=2400).packed
    parts = [sg.generate(packed, seed=2, shard=(k, 3), memory="2MB") for k in range(3)]
    assert same(Trace.concat(parts), sg.generate(pool, duration=2400, seed=2))


def test_provenance_of_what_is_packed_says_what_is_known() -> None:
    pool = tiny_pool("reason", clients=5)
    packed = sg.stream(pool, rate=2.0, start=250, duration=1500, counts="renewal").packed
    whole = sg.stream(pool, rate=2.0, start=250, duration=1500, counts="renewal", seed=3, replica=1, shard="2/3")
    known = sg.stream(packed, seed=3, replica=1, shard="2/3").provenance
    rules = {"counts": "renewal", "dependence": "independent"}
    told = {name: value for name, value in whole.provenance.items() if name in known} | {"rules": rules}
    assert known == told
    assert whole.provenance.keys() - known.keys() == {"workload", "pool_digest", "rate"}


@pytest.mark.parametrize(
    "option",
    [
        *({"rate": 5.0}, {"scale": 1.0}, {"peak": 2.0}, {"start": 0}, {"duration": "1h"}, {"counts": "exact"}),
        *({"dependence": "comonotone"}, {"rank_correlation": np.eye(2)}, {"occupancy": "window"}, {"empty": "skip"}),
        *({"past_end": "end"}, {"warmup": 0}),
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_only_packing_could_heed_is_refused(option: dict[str, Any]) -> None:
    packed = sg.stream(tiny_pool(), duration=600).packed
    (name,) = option
    with pytest.raises(OptionError, match=rf"with a packed workload, got {name}; give them with the pool"):
        sg.stream(packed, **option)


def test_conversations_of_what_is_packed_stay_off_devices() -> None:
    with pytest.raises(OptionError, match="stand alone for device=True, got conversations"):
        sg.stream(sg.stream(talking(), duration=600).packed, device=True)


# -- workloads as values -----------------------------------------------------------------------------------------------


def test_a_workload_says_in_a_line_what_it_is() -> None:
    workload = sg.stream(tiny_pool(), rate=2, start=600, duration=1800, shard="2/3", backend="numpy")
    assert repr(workload) == "<Workload tiny-language: 600 s to 2400 s, 3,600 requests expected, numpy, shard 2/3>"
    again = repr(sg.stream(workload.packed, backend="numpy"))
    assert again == "<Workload a packed workload: 600 s to 2400 s, 3,600 requests expected, numpy>"


@pytest.mark.parametrize("name", ["numpy", "native", "jax"])
def test_a_workload_goes_to_another_process(name: str) -> None:
    if name == "native":
        library()
    elif name == "jax":
        pytest.importorskip("jax")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as workers:
        for pool in (tiny_pool("multimodal"), talking("reason")):
            workload = sg.stream(pool, duration=1200, seed=4, replica=2, backend=name)
            found = workers.submit(Workload.joined, workload).result(120)
            assert same(found, sg.generate(pool, duration=1200, seed=4, replica=2, backend="numpy"))
            assert found.provenance == workload.provenance


CHILD = """
import pickle, sys
workload = pickle.load(open(sys.argv[1], "rb"))
assert type(workload.backend).__name__ == "CupyBackend"
pickle.dump(workload.joined(), open(sys.argv[2], "wb"))
"""


@needs_stand_in
def test_a_workload_of_a_device_goes_to_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_cupy.install(monkeypatch)
    workload = sg.stream(tiny_pool(), duration=1800, seed=4, backend="cupy")
    (tmp_path / "workload").write_bytes(pickle.dumps(workload))
    fake_cupy.for_children(tmp_path / "children")
    path = os.pathsep.join((str(REPOSITORY), str(tmp_path / "children")))
    command = [sys.executable, "-c", CHILD, tmp_path / "workload", tmp_path / "trace"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pickle.loads((tmp_path / "trace").read_bytes())
    assert same(found, sg.generate(tiny_pool(), duration=1800, seed=4, backend="numpy"))


def test_backends_are_pickled_by_name(backend: str) -> None:
    chosen = choose_backend(backend)
    again = pickle.loads(pickle.dumps(chosen))
    assert type(again) is type(chosen)
    assert again.name == backend
    assert len(pickle.dumps(chosen)) < 200
    if backend == "cupy":
        assert pickle.loads(pickle.dumps(chosen.on_device())).stays
    else:
        with pytest.raises(OptionError, match=f"device of its own for device=True, got '{backend}'; pass"):
            chosen.on_device()


# -- what backends keep ------------------------------------------------------------------------------------------------


def some_packed() -> PackedWorkload:
    return sg.stream(tiny_pool(), duration=600, backend="numpy").packed


def test_what_is_kept_goes_with_its_workload() -> None:
    gone: list[int] = []
    kept: PerWorkload[str] = PerWorkload(lambda: gone.append(1))
    first, second = some_packed(), some_packed()
    kept.keep(first, "first")
    kept.keep(second, "second")
    assert (kept.find(first), kept.find(second), kept.find(some_packed())) == ("first", "second", None)
    kept.keep(first, "first again")
    assert (kept.find(first), len(kept), gone) == ("first again", 2, [])
    del first
    assert (len(kept), gone) == (1, [1])
    assert kept.find(second) == "second"
    kept.forget()
    del second
    assert (len(kept), gone) == (0, [1])


def test_the_workload_used_longest_ago_makes_room() -> None:
    kept: PerWorkload[int] = PerWorkload()
    several = [some_packed() for _ in range(MOST + 1)]
    for number, packed in enumerate(several[:MOST]):
        kept.keep(packed, number)
    assert kept.find(several[0]) == 0
    kept.keep(several[MOST], MOST)
    assert [kept.find(packed) for packed in several] == [0, None, *range(2, MOST + 1)]


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_surveys_are_made_once_for_a_window_and_a_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two workloads take turns, as a trace with conversations has them."""
    if name == "native":
        library()
    made: list[int] = []
    right = host_survey.survey
    monkeypatch.setattr(host_survey, "survey", lambda *of: made.append(1) or right(*of))
    chosen = choose_backend(name)
    workloads = [sg.stream(tiny_pool(), rate=rate, duration=600, seed=seed) for rate, seed in ((9, 1), (7, 1), (9, 2))]
    slabs = [list(plan(workload.packed, 2000)) for workload in workloads]
    for pair in zip(*slabs[:2], strict=False):
        for workload, slab in zip(workloads[:2], pair, strict=True):
            assert slab.surveyed
            chosen.sample_slab(workload.packed, workload.key, slab)
    assert len(made) == 2
    packed, key = workloads[0].packed, workloads[2].key  # another key of the same workload is surveyed anew
    parts = [Trace(chosen.sample_slab(packed, key, slab)) for slab in slabs[0]]
    assert len(made) == 3
    assert same(Trace.concat(parts), sg.generate(tiny_pool(), rate=9, duration=600, seed=2))


@needs_stand_in
@pytest.mark.parametrize("memory", ["2GB", "1MB"])
def test_a_replica_uploads_no_table(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a stream of its own, in which requests that stand alone and conversations take turns."""
    xp = fake_cupy.install(monkeypatch)
    uploaded: list[np.ndarray] = []
    right = xp.asarray

    def counted(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            uploaded.append(value)
        return right(value)

    monkeypatch.setattr(xp, "asarray", counted, raising=False)
    pool, keywords = talking("reason"), {"rate": 20.0, "duration": 3000}
    packed = sg.stream(pool, backend="numpy", **keywords).packed
    assert packed.conversations is not None

    def tables() -> int:
        """How often the tables of lengths went up, which both streams of the clients have."""
        return sum(array.tobytes() == packed.tables.values.tobytes() for array in uploaded)

    first = sg.generate(packed, replica=0, backend="cupy", memory=memory)
    assert tables() == 2
    bytes_before = sum(array.nbytes for array in uploaded)
    uploaded.clear()
    second = sg.generate(packed, replica=1, backend="cupy", memory=memory)
    assert tables() == 0
    if memory == "2GB":  # otherwise surveys go up
        longest = max(len(NAMES), len(packed.expected), len(packed.conversations.expected))
        assert max(array.size for array in uploaded) <= longest  # jobs and windows
        assert sum(array.nbytes for array in uploaded) < bytes_before / 2
    for replica, trace in enumerate((first, second)):
        assert same(trace, joined(pool, replica=replica, backend="numpy", **keywords))
    uploaded.clear()
    again = sg.stream(pool, backend="numpy", **keywords).packed  # equal, but another
    sg.generate(again, replica=1, backend="cupy", memory=memory)
    assert tables() == 2


@needs_stand_in
def test_tables_leave_the_device_with_their_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = fake_cupy.install(monkeypatch, devices=2)
    packed = sg.stream(tiny_pool(), duration="12h", backend="numpy").packed
    sg.generate(packed, backend="cupy", memory="300kB")
    devices = [open_device(0), open_device(1)]
    for device in devices:
        assert len(device.tables) == 1
        with device.current():
            assert device.pool.used_bytes() == 0  # slabs leave nothing
            assert device._table_pool.used_bytes() > 0
    del packed
    gc.collect()
    for device in devices:
        assert len(device.tables) == 0
        with device.current():
            assert device._table_pool.used_bytes() == 0
        device.release()
    assert xp.cuda.free_bytes(0) == xp.cuda.memory_bytes - xp.cuda.default_pool.total_bytes(0)


def test_jax_compiles_and_uploads_once_for_all_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")
    xla = pytest.importorskip("servegen_gpu.backends.xla.backend")
    made: list[int] = []
    right = xla.device_tables
    monkeypatch.setattr(xla, "device_tables", lambda *of: made.append(1) or right(*of))
    packed = sg.stream(tiny_pool("reason"), rate=2.0, duration=1800, counts="exact", backend="numpy").packed
    first = sg.generate(packed, replica=0, backend="jax")
    with xla.x64():
        tables, others = (xla._tables(packed, sg.stream(packed, replica=n).key) for n in (0, 1))
    assert made == [1]
    assert not np.array_equal(tables.key, others.key)
    kept = [a is b for a, b in zip(jax.tree.leaves(tables), jax.tree.leaves(others), strict=True)]
    assert kept.count(False) == 1  # the key
    traced: list[int] = []
    monkeypatch.setattr("servegen_gpu.backends.xla.arrivals.words_of", lambda *_: traced.append(1))
    second = sg.generate(packed, replica=1, backend="jax")
    assert traced == []
    assert made == [1]
    for replica, trace in enumerate((first, second)):
        assert same(trace, sg.generate(packed, replica=replica, backend="numpy"))
    gone = weakref.ref(packed)
    del packed
    gc.collect()
    assert gone() is None
    assert all(ref() is not None for ref in xla.KEPT._kept)
