"""Kinds of traces and of what is kept of them: own files, parts, packed workloads, caches, studies, foreign files."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import tempfile
import zlib
from functools import cache
from pathlib import Path
from unittest import mock

import foreign
from profiles import talking, tiny_pool, write_servegen

import servegen_gpu as sg
from fuzz.case import command
from fuzz.clients import BACKEND, files_of
from fuzz.invariants import check_trace
from fuzz.kind import Good, Place, Refused, kind, must
from servegen_gpu.packed import PackedWorkload

ROWS = 12
COMMANDS = (
    *(("inspect", "{}", "--json"), ("inspect", "{}"), ("convert", "{}", "-o", "{out}/t.csv")),
    *(("convert", "{}", "-o", "{out}/t.csv", "--format", "azure"), ("convert", "{}", "-o", "{out}/t.jsonl")),
    *(("convert", "{}", "-o", "{out}/t.jsonl", "--format", "mooncake"), ("validate", "{}", "--for", "servegen-gpu")),
    *(("scale", "{}", "--factor", "2", "-o", "{out}/t.parquet"), ("compare", "{}", "{}", "--json")),
    *(("join", "{}", "-o", "{out}/t.parquet"), ("scale", "{}", "--from", "1s", "-o", "{out}/t.parquet")),
)
"""What is done with a trace that was accepted: one of these, by its bytes."""


@cache
def _traces() -> list[sg.Trace]:
    """A plain one, one of conversations with blocks, one of reasoning, and one with items."""
    found = []
    for category, pool in (
        ("language", tiny_pool(clients=3, windows=3)),
        ("language", talking()),
        ("reason", tiny_pool(category="reason", clients=2, windows=3)),
        ("multimodal", tiny_pool(category="multimodal", clients=2, windows=3)),
    ):
        trace = sg.generate(pool, rate=1, duration=120, backend=BACKEND)[:ROWS]
        found.append(trace.with_hash_ids(16) if len(found) == 1 else trace)
        assert len(found[-1]) == ROWS, category
    return found


def written(suffix: str) -> list[Good]:
    """The traces as files of one format, with what lies beside them."""
    good = []
    for trace in _traces():
        with tempfile.TemporaryDirectory() as folder:
            trace.write(Path(folder, f"t{suffix}"))
            good.append(Good(files_of(Path(folder))))
    return good


def use_trace(path: Path, place: Place) -> None:
    """Read a trace, and do one more thing with it."""
    check_trace(sg.read_trace(path))
    data = path.read_bytes() if path.is_file() else b"".join(files_of(path).values())
    words = COMMANDS[zlib.crc32(data) % len(COMMANDS)]
    if words[0] == "validate":
        str(sg.validate(path, "servegen-gpu"))
        return
    with contextlib.suppress(Refused):  # not all that can be read can also be scaled or exported
        command([word.format(path, out=place.out) for word in words])


# --- own files


@kind("own-parquet", lambda: written(".parquet"), share=2)
def _parquet(place: Place) -> None:
    use_trace(place.here / "t.parquet", place)


def _own_text(place: Place) -> None:
    """The file beside says how many bytes there are: with the number that it should have, more is looked at."""
    (path,) = (path for path in place.here.iterdir() if not path.name.endswith(".json"))
    beside = path.with_name(f"{path.name}.provenance.json")
    if beside.exists():
        text = re.sub(rb'"bytes": \d+', b'"bytes": %d' % path.stat().st_size, beside.read_bytes())
        folder = place.out.parent / "sized"
        folder.mkdir()
        (folder / beside.name).write_bytes(text)
        path = path.rename(folder / path.name)
    try:
        use_trace(path, place)
    finally:
        path.rename(place.here / path.name)


for suffix in (".csv", ".jsonl", ".csv.gz", ".jsonl.zst"):
    kind(f"own{suffix.replace('.', '-')}", lambda suffix=suffix: written(suffix))(_own_text)  # type: ignore[misc]


def _parts() -> list[Good]:
    good = []
    for trace in _traces()[:2]:
        with tempfile.TemporaryDirectory() as folder:
            for k in range(3):
                trace.rows(4 * k, 4 * k + 4).write(Path(folder, f"part-{k:05d}.parquet"))
            good.append(Good({f"t/{name}": data for name, data in files_of(Path(folder)).items()}))
    return good


@kind("own-parts", _parts)
def _directory(place: Place) -> None:
    use_trace(place.here / "t", place)


def _parted() -> list[Good]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "t")
        sg.distributed(tiny_pool(clients=2, windows=3), made, parts=2, on="here", rate=1, duration=12, backend=BACKEND)
        return [Good({f"t/{name}": data for name, data in files_of(made).items()})]


kind("parted", _parted)(_directory)

# --- packed workloads and caches


@cache
def _packed() -> list[Good]:
    moved = sg.Environment(sg.Margin.gamma(variance=0.4, zero=0.1), {2: 0.3, 6: 0.7})
    pools = [
        tiny_pool(clients=3, windows=3),
        talking(),
        tiny_pool(category="multimodal", clients=2, windows=3),
        tiny_pool(category="reason", clients=2, windows=3).with_environment(moved),
    ]
    good = []
    for pool in pools:
        for rate in (0.5, {0: 0.5, 300: 0.1, 900: 1}):
            with tempfile.TemporaryDirectory() as folder:
                sg.stream(pool, rate=rate, duration=1500, counts="renewal").packed.save(Path(folder, "packed.npz"))
                good.append(Good(files_of(Path(folder))))
    return good


@kind("packed-workload", _packed, share=3)
def _sample_packed(place: Place) -> None:
    packed = PackedWorkload.load(place.here / "packed.npz")
    must(packed.expected.sum() < 1e5, f"{packed.expected.sum():g} requests expected")
    for backend in ("auto", BACKEND):
        check_trace(sg.generate(packed, seed=1, backend=backend))


@cache
def _released() -> tuple[Path, str]:
    """Released profiles, which stay where they are, and the digest of their pool."""
    folder = Path(tempfile.mkdtemp(prefix="servegen-fuzz-data-"))
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_servegen(folder, "language", clients=2)
    (workload,) = (path for path in (folder / "language").iterdir())
    return folder, workload.name


def _load_cached(cached: Path) -> sg.ClientPool:
    folder, name = _released()
    with mock.patch.dict(os.environ, {"SERVEGEN_GPU_CACHE": str(cached)}):
        return sg.load_servegen(folder, name)


def _caches() -> list[Good]:
    with tempfile.TemporaryDirectory() as folder:
        _load_cached(Path(folder))
        (file,) = Path(folder).rglob("*.npz")
        return [Good({str(file.relative_to(folder)): file.read_bytes()})]


@cache
def _digest() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return _load_cached(Path(folder)).digest()


@kind("cached-pool", _caches)
def _cached(place: Place) -> None:
    import shutil

    kept = place.out.parent / "cache"
    shutil.copytree(place.here, kept)
    kept.chmod(0o700)
    must(_load_cached(kept).digest() == _digest(), "another pool from the cache")


# --- studies


@cache
def _studies() -> list[Good]:
    pool, good = tiny_pool(clients=2, windows=3), []
    common = {"rate": 2, "duration": 20, "backend": BACKEND}
    found = [
        sg.monte_carlo(pool, replicas=3, metrics=["requests_peak_1s", "output_tokens_p99_10s"], **common),
        sg.sensitivity(pool, {"rate": (0.8, 1.2)}, replicas=2, metrics=["requests_peak_1s"], **common),
        sg.provision(pool, {"ttft": "2s"}, server="llama-3-8b-a100", replicas=2, window_s=10, **common),
    ]
    for study in found:
        with tempfile.TemporaryDirectory() as folder:
            study.write(Path(folder, "study.parquet"))
            good.append(Good(files_of(Path(folder))))
    return good


@kind("study-file", _studies, share=0.5)
def _study(place: Place) -> None:
    command(["report", str(place.here / "study.parquet"), "-o", str(place.out / "page.html")])


# --- files of others


def _as_parquet(text: str) -> bytes:
    from pyarrow import csv
    from pyarrow import json as lines
    from pyarrow import parquet as pq

    sink, data = io.BytesIO(), io.BytesIO(text.encode())
    pq.write_table(lines.read_json(data) if text.startswith("{") else csv.read_csv(data), sink)
    return sink.getvalue()


def _of(program: str) -> list[Good]:
    text = foreign.GOOD[program]
    rows, suffix = text.splitlines(keepends=True), foreign.suffix(text)
    text = "".join(rows[:ROWS])
    seconds = ("guidellm:mooncake", "guidellm:trace_synthetic", "vllm:timed_trace", "vllm:burstgpt")
    unit = ("s",) if program in seconds else ()
    good = [Good({f"t{suffix}": text.encode()})] * 2
    good += [Good({f"t{suffix}.gz": gzip.compress(text.encode(), mtime=0)}), Good({"t.parquet": _as_parquet(text)})]
    if suffix == ".jsonl":
        good.append(Good({"t.json": json.dumps([json.loads(row) for row in rows[:ROWS]]).encode()}))
    return [Good(one.files, unit) for one in good]


def _read_foreign(place: Place) -> None:
    (path,) = place.here.iterdir()
    check_trace(sg.read_trace(path, unit=next(iter(place.words), None)))  # type: ignore[arg-type]


for program in foreign.GOOD:
    if program not in ("vllm:custom", "aibrix"):  # prompts without times or lengths are no trace
        kind(f"foreign-{program.replace(':', '-')}", lambda p=program: _of(p), share=0.3)(_read_foreign)  # type: ignore[misc]


def _validated() -> list[Good]:
    return [Good({f"t{foreign.suffix(text)}": text.encode()}, (program,)) for program, text in foreign.GOOD.items()]


@kind("validated", _validated)
def _validate(place: Place) -> None:
    (path,) = place.here.iterdir()
    report = sg.validate(path, *place.words)
    must(report.rows >= 0, "a number of rows that is none")
    str(report)


@kind(
    "comparison-json", lambda: [Good({"c.json": sg.compare(_traces()[0], _traces()[0]).to_json().encode()})], share=0.3
)
def _comparison(place: Place) -> None:
    from servegen_gpu.comparing.comparison import Comparison

    comparison = Comparison.from_json((place.here / "c.json").read_text("utf-8", "replace"))
    str(comparison), comparison.to_json(), comparison.svg()
    must(0 <= comparison.block_s < 1e10, "a block without a length")
