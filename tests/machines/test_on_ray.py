"""Parts and studies on Ray: the same bytes as here, also where workers die."""

from __future__ import annotations

import filecmp
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from children import started
from machines.killed import killing, watching
from machines.stores import Store
from profiles import REPOSITORY

import servegen_gpu as sg
from servegen_gpu.formats.parted import MANIFEST, open_parted
from servegen_gpu.formats.store import store_at

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("cluster")

PARTS = 12
# slow, so that there is a middle to be killed in
KEYWORDS: dict[str, Any] = {"rate": 400, "duration": "30m", "warmup": "10m", "seed": 7, "backend": "numpy"}


@pytest.fixture(scope="module")
def pool() -> sg.ClientPool:
    return sg.population("deepseek-r1", clients=200)


@pytest.fixture(scope="module")
def here(pool: sg.ClientPool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("here") / "out"
    sg.distributed(pool, path, PARTS, **KEYWORDS)
    return path


def contents(path: Any) -> dict[str, bytes]:
    """Parts and manifest; records have what a store says of them."""
    store = store_at(path)
    names = [name for name in store.files() if not name.startswith(".")]
    return store.read(names)


def test_workers_that_are_killed_lose_nothing(pool: sg.ClientPool, here: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    with watching(path) as wrong, killing(2) as killed:
        made = sg.distributed(pool, path, PARTS, on="ray", workers=4, **KEYWORDS)
    assert len(killed) == 2
    assert wrong == []
    assert made.complete
    assert made.made == PARTS
    assert contents(path) == contents(here)
    assert len(contents(path)) == PARTS + 1
    # what they were writing has no name of a part, and goes with the next run
    assert sg.distributed(pool, path, PARTS, on="ray", **KEYWORDS).made == 0


def test_the_same_with_parts_in_a_store(pool: sg.ClientPool, here: Path, store: Store) -> None:
    path = f"{store.needed()}/killed"
    with watching(path) as wrong, killing(2) as killed:
        made = sg.distributed(pool, path, PARTS, on="ray", workers=4, **KEYWORDS)
    assert len(killed) == 2
    assert wrong == []
    assert contents(path) == contents(here)
    assert made.digest == sg.Trace.concat(list(open_parted(here).slabs())).digest().hex


NODES = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import servegen_gpu as sg
out, rate, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
node = cluster.add_node(num_cpus=3, object_store_memory=100 << 20)
ray.init(address=cluster.address, log_to_driver=False)
cluster.wait_for_nodes()

def remove():
    while len(list(out.glob("_parts/0*"))) < 2:
        time.sleep(0.02)
    there = len(list(out.glob("_parts/0*")))
    cluster.remove_node(node, allow_graceful=False)
    print("removed after", there, "parts")

removed = threading.Thread(target=remove, daemon=True)
removed.start()
pool = sg.population("deepseek-r1", clients=200)
more = {"duration": "30m", "warmup": "10m", "seed": 7, "backend": "numpy"}
sg.distributed(pool, out, parts, on="ray", rate=rate, **more)
removed.join()
ray.shutdown()
cluster.shutdown()
"""


def test_a_machine_that_is_lost_loses_nothing(here: Path, tmp_path: Path) -> None:
    """With three of four processors, after two parts."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", NODES, str(tmp_path / "out"), str(KEYWORDS["rate"]), str(PARTS)]
    done = subprocess.run(
        command,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"removed after (\d+) parts", done.stdout)[1]) < PARTS
    assert contents(tmp_path / "out") == contents(here)


def test_workers_that_die_each_time_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servegen_gpu.distributing import on_ray

    monkeypatch.setattr(on_ray, "TRIES", 2)
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    tries = tmp_path / "tries"
    tries.mkdir()

    def dies(folder: str, item: int) -> None:
        Path(folder, str(time.time_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(sg.OutputError, match=r"expected workers that live, got WorkerCrashedError \d times; look at"):
        list(on_ray.tasks(dies, str(tries), [1]))
    assert len(list(tries.iterdir())) == 4


def test_what_a_worker_refuses_is_one_sentence(pool: sg.ClientPool, tmp_path: Path) -> None:
    def in_words(trace: sg.Trace) -> str:
        return "many"

    with pytest.raises(sg.OptionError, match="expected a number, or numbers by name, of a trace, got str from"):
        sg.monte_carlo(pool, rate=5, duration="5m", replicas=3, metrics=[in_words], on="ray")
    path = tmp_path / "out"
    sg.distributed(pool, path, PARTS, on="ray", shard="1/4", **KEYWORDS)
    with pytest.raises(sg.OptionError, match=r"got another: seed 7 there, 8 here; .* 3 finished parts are kept"):
        sg.distributed(pool, path, PARTS, on="ray", **KEYWORDS | {"seed": 8})


@pytest.mark.parametrize(
    "more", [{"replicas": 70}, {"vary": "rate=0.8:1.2", "draws": 20}, {"until": "requests_peak_10s:2%"}], ids=str
)
def test_a_study_has_the_bytes_of_one_made_here(pool: sg.ClientPool, more: dict[str, Any], tmp_path: Path) -> None:
    paths = [tmp_path / "here.parquet", tmp_path / "ray.parquet"]
    for path, on in zip(paths, ("here", "ray"), strict=True):
        sg.monte_carlo(pool, rate=20, duration="10m", warmup="10m", path=path, on=on, **more)
    assert filecmp.cmp(*paths, shallow=False)


def test_a_study_goes_on_where_another_place_stopped(pool: sg.ClientPool, tmp_path: Path) -> None:
    paths = [tmp_path / "both.parquet", tmp_path / "here.parquet"]
    for path, first in zip(paths, ("ray", "here"), strict=True):
        for on, replicas in ((first, 40), ("here", 50), (first, 90)):
            sg.monte_carlo(pool, rate=20, duration="10m", warmup="10m", path=path, on=on, replicas=replicas)
    assert filecmp.cmp(*paths, shallow=False)


def test_ctrl_c_keeps_finished_parts(tmp_path: Path) -> None:
    """Of a trace that takes a minute or more, so that no machine has made it before it is interrupted."""
    path = tmp_path / "out"
    generate = ["generate", "deepseek-r1", "--clients", "200", "--rate", "400", "--duration", "24h", "--warmup", "10m"]
    generate += ["--backend", "numpy", "--parts", "900", "--on", "ray", "-o", str(path)]
    command = [sys.executable, "-m", "servegen_gpu", *generate]
    address = ray.get_runtime_context().gcs_address
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": address}
    with started(command, env=environment, stderr=subprocess.PIPE) as running:
        until = time.monotonic() + 60
        while len(store_at(path).files("_parts")) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    found = open_parted(path)
    assert 2 <= len(found.finished) < 900
    assert f"{len(found.finished)} of 900 parts are finished in {path}: run the same command to go on" in said
    assert "Traceback" not in said
    assert not (path / MANIFEST).exists()
    assert not list(path.glob(".servegen-*"))
