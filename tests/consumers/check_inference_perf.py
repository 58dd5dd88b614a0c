"""inference-perf's reader of Azure's traces, its timer and its settings, on our CSV.

The package imports all of its clients when it is imported; the modules here are loaded without that.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

from checking import close, exported, run, same


def _without_imports(name: str) -> None:
    package = ModuleType(name)
    package.__path__ = [str(distribution("inference-perf").locate_file(name.replace(".", "/")))]
    sys.modules[name] = package


for name in ("inference_perf", "inference_perf.utils", "inference_perf.loadgen"):
    _without_imports(name)

from inference_perf.loadgen.load_timer import TraceReplayLoadTimer  # noqa: E402
from inference_perf.utils.trace_reader import AzurePublicDatasetReader  # noqa: E402


def _check(name: str) -> str:
    export = exported(name)
    read = AzurePublicDatasetReader().load_traces(export.path)
    same("input tokens", [tokens for _, tokens, _ in read], export.input_tokens)
    same("output tokens", [tokens for _, _, tokens in read], export.output_tokens)
    times_s = list(TraceReplayLoadTimer(AzurePublicDatasetReader(), export.path).start_timer(0.0))
    close("times", times_s, export.times_s, 2e-6)
    return f"{len(read)} requests"


def check_inference_perf() -> str:
    return _check("inference-perf")


def check_azure() -> str:
    return _check("azure")


def check_settings() -> None:
    """Those that we print are accepted."""
    from inference_perf.config.config import Config

    trace = {"file": str(Path("trace.csv")), "format": "AzurePublicDataset"}
    load = {"type": "trace_replay", "trace": trace, "stages": [{"rate": 1, "duration": 1}]}
    same("file", Config(load=load, data={"type": "random", "trace": trace}).load.trace.file, "trace.csv")


run(check_inference_perf, check_azure, check_settings)
