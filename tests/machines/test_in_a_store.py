"""Parts in a store like S3: the same bytes as in a directory, and what stores refuse in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machines.stores import BUCKET, Store

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.formats.store import store_at

# s3fs leaves its sessions to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

KEYWORDS: dict[str, Any] = {"rate": 5, "duration": "20m", "warmup": "20m", "seed": 7}
SIZES = ["--clients", "40", "--rate", "5", "--duration", "20m", "--warmup", "20m", "--seed", "7"]
COMMAND = ["generate", "deepseek-r1", *SIZES, "--parts", "4", "--quiet", "-o"]


@pytest.fixture(scope="module")
def pool() -> sg.ClientPool:
    return sg.population("deepseek-r1", clients=40)


def test_parts_are_those_of_a_directory(pool: sg.ClientPool, store: Store, tmp_path: Path) -> None:
    url = f"{store.needed()}/trace/"
    for path in (url, str(tmp_path / "out")):
        assert main([*COMMAND, path]) == 0
        assert main(["join", path, "-o", str(tmp_path / f"{path[:2]}.parquet".replace("/", "_"))]) == 0
    there, here = store_at(url), store_at(tmp_path / "out")
    assert there.read(there.files()) == here.read(here.files())
    assert len(there.files()) == 5
    joined = list(tmp_path.glob("*.parquet"))
    assert len(joined) == 2
    assert len({path.read_bytes() for path in joined}) == 1
    assert (sg.read_trace(url)["arrival_us"] == sg.generate(pool, **KEYWORDS)["arrival_us"]).all()


def test_only_what_was_removed_is_made_again(pool: sg.ClientPool, store: Store) -> None:
    url = f"{store.needed()}/again"
    made = sg.distributed(pool, url, 4, **KEYWORDS)
    kept = store_at(url)
    before = kept.read(kept.files())
    kept.files_of.rm_file(f"{BUCKET}/again/part-00002.parquet")
    with pytest.raises(sg.OptionError, match=r"expected all 4 parts of a trace, got 3 in .*, without part-00002\."):
        sg.read_trace(url)
    again = sg.distributed(pool, url, 4, **KEYWORDS)
    assert (again.made, again.digest) == (1, made.digest)
    assert kept.read(kept.files()) == before


def test_a_part_of_other_bytes_is_refused(pool: sg.ClientPool, store: Store) -> None:
    url = f"{store.needed()}/changed"
    sg.distributed(pool, url, 4, **KEYWORDS)
    kept = store_at(url)
    name = "part-00001.parquet"
    data = bytearray(kept.read([name])[name])
    data[1000] ^= 1
    kept.files_of.pipe_file(f"{BUCKET}/changed/{name}", bytes(data))
    for work in (lambda: sg.distributed(pool, url, 4, **KEYWORDS), lambda: sg.read_trace(url)):
        with pytest.raises(sg.OptionError, match=r"of part-00001.parquet that its record in .* says, got others"):
            work()


def test_a_store_without_rights_is_one_sentence(pool: sg.ClientPool, store: Store) -> None:
    url = f"{store.needed()}/mine"
    sg.distributed(pool, url, 4, shard="1/4", **KEYWORDS)
    store.without_rights()
    try:
        with pytest.raises(sg.OutputError, match=r"expected a store that may be .*, got PermissionError: .*; change"):
            sg.distributed(pool, url, 4, **KEYWORDS)
    finally:
        store.with_rights()
    assert sg.distributed(pool, url, 4, **KEYWORDS).made == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/out", "expected a store that can be written, got FileNotFoundError: "),
        (
            "nostore://out",
            "expected a store that fsspec can open, got ValueError: Protocol not known: nostore; ",
        ),
    ],
)
def test_what_is_no_store(pool: sg.ClientPool, store: Store, url: str, message: str) -> None:
    store.needed()
    with pytest.raises(sg.ServeGenError, match=message):
        sg.distributed(pool, url, 4, **KEYWORDS)


def test_nobody_answers(pool: sg.ClientPool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.needed()
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(sg.OutputError, match="expected a store that can be read, got EndpointConnectionError: "):
        sg.distributed(pool, f"s3://{BUCKET}/out", 4, **KEYWORDS)
    s3fs.S3FileSystem.clear_instance_cache()
