"""Vidur's generator of requests reads our seven columns: four of the released version, three of the later one."""

from __future__ import annotations

import csv
import sys

from checking import close, exported, run, same
from vidur.config import SimulationConfig
from vidur.config.flat_dataclass import create_flat_dataclass
from vidur.request_generator.trace_replay_request_generator import TraceReplayRequestGenerator


def check_command() -> str:
    """What we print, parsed as the program does it, makes the requests of the trace."""
    export = exported("vidur")
    same("program", export.command[:3], ["python", "-m", "vidur.main"])
    sys.argv[1:] = export.command[3:]
    config = create_flat_dataclass(SimulationConfig).create_from_cli_args().reconstruct_original_dataclass()
    requests = TraceReplayRequestGenerator(config.request_generator_config).generate_requests()
    same("input tokens", [int(request.num_prefill_tokens) for request in requests], export.input_tokens)
    same("output tokens", [int(request.num_decode_tokens) for request in requests], export.output_tokens)
    close("times", [request.arrived_at for request in requests], [us / 1e6 for us in export.arrival_us], 1e-6)
    return f"{len(requests)} requests"


def check_columns_of_the_later_version() -> str:
    export = exported("vidur")
    with export.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    same("input tokens", [int(row["num_prefill_tokens"]) for row in rows], export.input_tokens)
    same("output tokens", [int(row["num_decode_tokens"]) for row in rows], export.output_tokens)
    close("times", [float(row["arrived_at"]) for row in rows], [us / 1e6 for us in export.arrival_us], 1e-6)
    return f"{len(rows)} requests"


run(check_command, check_columns_of_the_later_version)
