"""Kinds that say who sends requests: released profiles, TOML files of clients and populations, saved profiles."""

from __future__ import annotations

import json
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
from profiles import dataset, talking, tiny_pool, trace_text, write_servegen

import servegen_gpu as sg
from fuzz.invariants import check_count, check_pool, check_trace
from fuzz.kind import Good, Place, kind, must

BACKEND = "numpy"
EXPECTED = 200
"""Requests of a small trace."""


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a directory by their names from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sample(pool: sg.ClientPool, counts: str = "auto") -> None:
    """A pool must be sound; then so is a small trace of it."""
    check_pool(pool)
    span_s = min(pool.window_s, 600)
    own = float(pool.own_rps[0])
    if own <= 0:
        return
    workload = sg.stream(pool, rate=EXPECTED / span_s, duration=span_s, warmup=0, counts=counts, backend=BACKEND)
    must(np.isfinite(workload.expected_requests), "no finite number of requests")
    trace = workload.joined()
    check_trace(trace)
    if counts == "exact" and not pool.turn_models and not pool.environments:
        check_count(len(trace), EXPECTED)


# --- released profiles


@cache
def _released() -> list[Good]:
    good = []
    with tempfile.TemporaryDirectory() as folder:
        for category in ("language", "reason", "multimodal"):
            root = Path(folder, category)
            write_servegen(root, category, clients=2)
            for path in root.rglob("*-trace.csv"):  # a quarter of a day is enough
                path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:36]))
            good.append(Good(files_of(root)))
    return good


def _only(suffix: str) -> list[Good]:
    return [Good(g.files, g.words, tuple(n for n in g.files if n.endswith(suffix))) for g in _released()]


def _load_released(place: Place) -> None:
    sample(sg.load_servegen(place.here, "tiny", cache=False, missing="drop"))


kind("released-dataset-json", partial(_only, "dataset.json"))(_load_released)
kind("released-trace-csv", partial(_only, "trace.csv"))(_load_released)


@kind("released-renewal", partial(_only, "trace.csv"), share=0.5)
def _renewal_of_released(place: Place) -> None:
    sample(sg.load_servegen(place.here, "tiny", cache=False), counts="renewal")


# --- clients of one's own

CLIENTS = (
    b"""\
name = "own"
window_s = 600
period = "1h"

[[client]]
name = "chat"
count = 20
rate = { kind = "diurnal", mean = 0.02, swing = 0.8, peak_hour = 14 }
arrivals = "gamma"
cv = 2.5
input_tokens = { kind = "mixture", max = 30_000, parts = [
  { weight = 0.9, kind = "lognormal", median = 300, sigma = 1.1 },
  { weight = 0.1, kind = "pareto", alpha = 1.5, scale = 2000 },
] }
output_tokens = { kind = "exponential", mean = 400, max = 8192 }
rank_correlation = { "input_tokens:output_tokens" = 0.3 }
context_tokens = 32_768

[[client]]
name = "batch"
rate = "rates.csv"
arrivals = "weibull"
shape = 0.6
input_tokens = { kind = "samples", file = "samples.csv" }
output_tokens = { kind = "histogram", file = "bins.csv" }
""",
    b"""\
window_s = 60
period = 3600

[[client]]
rate = { kind = "linear", knots = [["0h", 0.2], ["30m", 1.0], ["1h", 0.2]] }
arrivals = "lognormal"
cv = { kind = "steps", knots = [["0h", 1.5], ["20m", 0.4]] }
input_tokens = { kind = "steps", knots = [
  ["0h", { kind = "uniform", low = 100, high = 200 }],
  ["30m", { kind = "zipf", exponent = 1.2, max = 900 }],
] }
output_tokens = [1, 5, 5, 70]
reason_ratio = { kind = "beta", a = 2, b = 3 }

[environment]
margin = { kind = "gamma", variance = 0.4 }
octaves = { 2 = 0.3, 6 = 0.7 }
cell_s = 1
""",
    b"""\
[[client]]
rate = { kind = "steps", knots = [["0h", 4.0], ["6h", 0.0], ["22h", 4.0]] }
input_tokens = { kind = "pmf", values = [1, 2, 5], weights = [60, 30, 10] }
output_tokens = { kind = "normal", mean = 60, std = 20, min = 1 }

[turns]
share = 0.4
turns = { kind = "pmf", values = [2, 3, 4, 8], weights = [4, 3, 2, 1] }
gap_s = { kind = "lognormal", median = 10, sigma = 2 }
growth = "history"
new_tokens = { kind = "lognormal", median = 60, sigma = 1 }
session = "10m"
""",
)
BESIDE = {
    "rates.csv": b"time_s,rate_rps\n0,0.5\n1800,2\n2400,0.5\n",
    "samples.csv": b"values\n12\n400\n512\n2048\n",
    "bins.csv": b"edge,weight\n1,5\n10,3\n100,2\n1000,0\n",
}


@cache
def _clients() -> list[Good]:
    first = {"clients.toml": CLIENTS[0], **BESIDE}
    return [
        Good(first, change=("clients.toml",)),
        Good(first, change=tuple(BESIDE)),
        *(Good({"clients.toml": text}) for text in CLIENTS[1:]),
    ]


@kind("clients-toml", _clients, share=2)
def _read_clients(place: Place) -> None:
    sample(sg.read_clients(place.here / "clients.toml"))


POPULATION = b"""\
name = "my-service"
clients = 30
requests = 8e4
over = "6h"
period = "1d"

[skew]
top = 5
share = 0.7
largest = 0.25

[default]
context_tokens = 32768
spread = { cv = 0.3, input_tokens = 0.5, output_tokens = 0.3, hours = 1 }

[[top]]
name = "batch"
rate = { kind = "linear", knots = [["0h", 1], ["9h", 4], ["24h", 1]] }
arrivals = "gamma"
cv = 3
input_tokens = 250
output_tokens = { kind = "exponential", mean = 80 }

[[kind]]
name = "chat"
share = 1
rate = { kind = "diurnal", swing = 0.8, peak_hour = 15 }
input_tokens = { kind = "lognormal", median = 300, sigma = 1.1 }
output_tokens = { kind = "exponential", mean = 400 }

[turns]
share = 0.1
turns = { kind = "pmf", values = [2, 3, 5], weights = [5, 3, 2] }
gap_s = { kind = "lognormal", median = 100, sigma = 1.5 }
session = 600

[environment]
margin = { kind = "lognormal", variance = 0.2 }
octaves = { 3 = 0.4, 8 = 0.6 }
"""


def _population() -> list[Good]:
    return [Good({"population.toml": POPULATION})]


@kind("population-toml", _population, share=0.7)
def _read_population(place: Place) -> None:
    sample(sg.population(place.here / "population.toml", clients=20))


@cache
def _small() -> sg.ClientPool:
    return tiny_pool(clients=2, windows=4, silent=False)


ENVIRONMENTS = (
    b'[environment]\nmargin = { kind = "gamma", variance = 0.4 }\noctaves = { 2 = 0.3, 6 = 0.4, 9 = 0.3 }\ncell_s = 1\n'
    b'each = "pool"\nnumber = 2\n',
    b'[environment]\nmargin = { kind = "quantiles", zero = 0.2, at = [0.2, 0.6, 1.0], values = [0.5, 1.0, 3.0] }\n'
    b'octaves = { 1 = 1.0 }\ncell_s = 2\neach = "client"\ncommon = 0.5\n',
    b'[environment]\nmargin = { kind = "lognormal", variance = 0.7, zero = 0.3 }\noctaves = { 0 = 0.5, 12 = 0.5 }\n',
)


@kind("environment-toml", lambda: [Good({"environment.toml": text}) for text in ENVIRONMENTS])
def _read_environment(place: Place) -> None:
    sample(_small().with_environment(place.here / "environment.toml"))


TURNS = (
    CLIENTS[2][CLIENTS[2].index(b"[turns]") :],
    b'[turns]\nshare = 0.9\nturns = { kind = "zipf", exponent = 1.5, min = 2, max = 50 }\n'
    b'gap_s = { kind = "exponential", mean = 20 }\ngrowth = "edit"\nnew_tokens = [0, 1, 3]\nsession = 300\n',
    b"[turns]\nshare = 0.5\nturns = 3\ngap_s = [1.5, 20, 300]\nsession = 400\n",
)


@kind("turns-toml", lambda: [Good({"turns.toml": text}) for text in TURNS])
def _read_turns(place: Place) -> None:
    pool = _small().with_conversations(place.here / "turns.toml")
    check_pool(pool)
    check_trace(sg.generate(pool, rate=1, duration=60, warmup=60, backend=BACKEND))


# --- saved profiles


@cache
def _saved() -> list[Good]:
    made = []
    with tempfile.TemporaryDirectory() as folder:
        write_servegen(Path(folder), clients=2)
        released = sg.load_servegen(folder, "tiny", cache=False)
        for number, pool in enumerate((released, talking(windows=4), tiny_pool(clients=2, windows=3))):
            path = Path(folder, str(number))
            sg.save_profile(pool, path, fit={"rows": 7})
            files = files_of(path)
            made.append(Good(files))
            text = files["profile.toml"]
            without = text[: text.rindex(b"\n[files]")]
            made.append(Good(files | {"profile.toml": without}))  # what was edited on purpose
    return made


@kind("saved-profile", _saved)
def _load_saved(place: Place) -> None:
    sample(sg.load_profile(place.here))


# --- histograms as text


def _histograms() -> list[Good]:
    """Texts of histograms, which JSON's mutators seldom reach."""
    slot = dataset("language", slots=1)["0"]
    trace = trace_text(windows=6, silent=()).encode()
    return [Good({"trace.csv": trace} | {f"{name}.csv": text.encode() for name, text in slot.items()}, (), tuple(
        f"{name}.csv" for name in slot))]  # fmt: skip


@kind("released-histogram", _histograms)
def _histogram(place: Place) -> None:
    slot = {path.stem: path.read_bytes().decode("latin-1") for path in place.here.glob("*tokens.csv")}
    folder = place.out / "language" / "tiny"
    folder.mkdir(parents=True)
    trace, data = folder / "chunk-0-trace.csv", folder / "chunk-0-dataset.json"
    trace.write_bytes((place.here / "trace.csv").read_bytes())
    data.write_text(json.dumps({"0": slot}))
    try:
        sample(sg.load_servegen(place.out, "tiny", cache=False))
    finally:
        trace.unlink()
        data.unlink()
