"""inference-perf's reader of Azure's traces, its timer and its options, on our CSV and our command.

The package imports all of its clients when it is imported; the modules here are loaded without that.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib.metadata import distribution
from types import ModuleType

from checking import close, exported, run, same


def _without_imports(name: str) -> None:
    package = ModuleType(name)
    package.__path__ = [str(distribution("inference-perf").locate_file(name.replace(".", "/")))]
    sys.modules[name] = package


for name in ("inference_perf", "inference_perf.utils", "inference_perf.loadgen"):
    _without_imports(name)

from inference_perf.config.config import Config, read_config  # noqa: E402
from inference_perf.config.loadgen import LoadType  # noqa: E402
from inference_perf.loadgen.load_timer import TraceReplayLoadTimer  # noqa: E402
from inference_perf.utils.cli_parser import add_pydantic_args, unflatten_dict  # noqa: E402
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


def check_command() -> None:
    """What we print is parsed as the program does it, and its settings are valid."""
    export = exported("inference-perf")
    parser = ArgumentParser()
    add_pydantic_args(parser, Config)
    stated = vars(parser.parse_args(export.command[1:]))
    config = read_config(None, unflatten_dict(stated))
    same("program", export.command[0], "inference-perf")
    same("kind of load", config.load.type, LoadType.TRACE_REPLAY)
    same("file of times", config.load.trace.file, str(export.path))
    same("file of lengths", config.data.trace.file, str(export.path))
    same("stages", len(config.load.stages), 1)


run(check_inference_perf, check_azure, check_command)
