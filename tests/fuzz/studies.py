"""Kinds of studies: servers, benchmarks of them, and options of `montecarlo`, `sensitivity` and `provision`."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from profiles import tiny_pool

import servegen_gpu as sg
from fuzz.case import command
from fuzz.clients import CLIENTS
from fuzz.kind import Good, Place, kind, must
from fuzz.options import too_much
from servegen_gpu.serving.profiles import server_text
from servegen_gpu.serving.server import PARAMETERS, Server

# --- servers

SERVER = server_text(Server(name="mine", model="m", hardware="h")).encode()


@cache
def _trace() -> sg.Trace:
    return sg.generate(tiny_pool(clients=2, windows=3), rate=2, duration=20, backend="numpy")


@kind("server-toml", lambda: [Good({"server.toml": SERVER})])
def _server(place: Place) -> None:
    server = sg.load_server(place.here / "server.toml")
    must(all(np.isfinite(getattr(server, name)) for name in PARAMETERS), "a number that is none")
    served = sg.simulate(_trace(), server)
    must(bool(np.isfinite(served.ttft_s).all() and (served.ttft_s >= 0).all()), "a time to first token that is none")


SWEEP = (
    b"input_tokens,output_tokens,concurrency,ttft_ms,tpot_ms\n"
    + b"".join(
        f"{n},{m},{c},{20 + n * 0.09 + 4 * (n // 2048):.3f},{12 + 0.15 * c + 0.01 * c * n / m:.3f}\n".encode()
        for n, m in ((100, 50), (1000, 100), (3000, 200), (5000, 400))
        for c in (1, 4, 32)
    )
)  # fmt: skip


@cache
def _sweeps() -> list[Good]:
    from pyarrow import csv
    from pyarrow import parquet as pq

    sink = io.BytesIO()
    pq.write_table(csv.read_csv(io.BytesIO(SWEEP)), sink)
    return [Good({"sweep.csv": SWEEP}), Good({"sweep.csv": SWEEP}), Good({"sweep.parquet": sink.getvalue()})]


@kind("server-sweep", _sweeps)
def _sweep(place: Place) -> None:
    fit = sg.fit_server(next(place.here.iterdir()))
    must(all(np.isfinite(getattr(fit.server, name)) for name in PARAMETERS), "a number that is none")
    must(np.isfinite(fit.residuals["fitted_s"]).all(), "a fitted time that is none")
    str(fit)


# --- options of studies

CLIENT = {"clients.toml": CLIENTS[2][: CLIENTS[2].index(b"[turns]")], "server.toml": SERVER}
SHARED: dict[str, tuple[str, ...]] = {
    "--rate": ("5", "1e12", "nan"),
    "--duration": ("10s", "0", "1e303"),
    "--seed": ("7", "-1"),
    "--metrics": (
        *("requests_peak_1s", "requests_peak_0s", "output_tokens_p99_10s", "requests_idc_2s", "ttft_p99", "instances"),
        *("requests_peak_1e303s", "input_tokens_p101_10s", "none", ",", "requests_peak_10s,requests_peak_10s"),
        *("kv_tokens_peak", "requests_p0_1s", "requests_peak_-1s", "requests_peak_1us", "requests_peak_nans"),
    ),
    "--server": ("llama-3-8b-a100", "{here}/server.toml", "none", "{here}"),
    "--instances": ("1", "0", "1000000000000"),
    "--slo": ("ttft=2s", "ttft=-1s", "tbt=nan", "ttft=1s,ttft=2s", "none=1s", "ttft=1e303s"),
    "--at": ("p99", "p0", "p100", "p101", "pnan", "99%"),
    "--confidence": ("0.95", "0", "1", "nan"),
    "--vary": (
        *("rate=0.8:1.2", "burstiness=0.5:2:log", "rate=nan:1", "rate=1.2:0.8", "rate=0:1:log", "none=1:2", "rate="),
        *("clients=0.5:2", "length_scale=1e-300:1", "conversation_share=0:1", "rate=1:2:3", "rate=1e400:2"),
    ),
    "--output": ("{out}/study.csv", "{out}/study.parquet", "", "{out}", "{out}/none/study.parquet"),
}
MONTECARLO = SHARED | {
    "--replicas": ("2", "0", "-1", "1"),
    "--draws": ("2", "0"),
    "--until": (
        "1%",
        "requests_peak_1s:1%",
        "requests_peak_1s<=900@95%",
        "0%",
        "nan%",
        "none:1%",
        "requests_peak_1s<=nan",
    ),
    "--against": ("{here}/clients.toml", "{out}/none"),
}
SENSITIVITY = SHARED | {
    "--replicas": ("2", "0", "-1"),
    "--method": ("tornado", "none"),
    "--samples": ("2", "0", "-3"),
}
PROVISION = SHARED | {
    "--replicas": ("2", "0"),
    "--routing": ("round-robin", "none", "session-affine"),
    "--window": ("10s", "0", "nan", "1e303", "1us"),
    "--naive": ("gamma", "none"),
}
SMALL = ("{here}/clients.toml", "--duration=10s", "--backend=numpy", "--rate=4")


def _command(place: Place) -> None:
    if not too_much(place.words):
        command(place.words)


kind(
    "montecarlo-options",
    lambda: [Good(CLIENT, ("montecarlo", *SMALL, "--replicas=2", *more), ()) for more in ((), ("--json",))],
    hostile_words=MONTECARLO,
    share=0.15,
)(_command)
kind(
    "sensitivity-options",
    lambda: [Good(CLIENT, ("sensitivity", *SMALL, "--replicas=2", "--vary=rate=0.8:1.2"), ())],
    hostile_words=SENSITIVITY,
    share=0.1,
)(_command)
kind(
    "provision-options",
    lambda: [
        Good(
            CLIENT,
            ("provision", *SMALL, "--replicas=2", "--slo=ttft=2s", "--server={here}/server.toml", "--window=2s"),
            (),
        )
    ],
    hostile_words=PROVISION,
    share=0.1,
)(_command)
