"""AIPerf validates what we write for it, and replays it with the command that we print, against a stub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import median

import aiperf
from checking import FOLDER, Exported, exported, run, same
from stub import Seen, Server, serving
from words import directory_of

PROGRAM = str(Path(sys.executable).with_name("aiperf"))
HUB = FOLDER / "hub"
LATE_S, USUALLY_LATE_S = 1.0, 0.1
"""How far from its time a request may come, the latest and the median one; two busy cores have to send it."""


def _aiperf(*arguments: str) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(HUB), "HF_HOME": str(FOLDER)}
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise AssertionError(f"aiperf {arguments[0]}: {done.stdout[-2_000:]} {done.stderr[-500:]}")
    return done.stdout


def _replay(command: list[str], server: Server, export: Exported) -> None:
    same("program", command[:2], ["aiperf", "profile"])
    command[command.index("--url") + 1] = server.url
    _aiperf(*command[1:], "--ui", "none", "--output-artifact-dir", str(FOLDER / f"aiperf-{export.path.stem}"))


def _replayed(export: Exported, command: list[str]) -> list[Seen]:
    """What a server saw of a replay, as many requests as the trace has, in the order they came."""
    with serving() as server:
        _replay(command, server, export)
        seen = sorted(server.seen, key=lambda request: request.time_s)
    same("requests", len(seen), len(export.arrival_us))
    return seen


def _on_time(export: Exported, seen: list[Seen], sizes: list[tuple[int, int]], new: bool = False) -> str:
    """Check sizes and times; requests that are alike in size are told apart by their order."""
    got = [(request.new_tokens if new else request.input_tokens, request.output_tokens) for request in seen]
    same("input and output tokens", sorted(got), sorted(sizes))
    expected: dict[tuple[int, int], list[float]] = defaultdict(list)
    for size, time_s in zip(sizes, export.times_s, strict=True):
        expected[size].append(time_s)
    nth: Counter[tuple[int, int]] = Counter()
    late_s = []
    for request, size in zip(seen, got, strict=True):
        late_s.append(request.time_s - expected[size][nth[size]])
        nth[size] += 1
    begin_s = median(late_s)
    late_s = [abs(each - begin_s) for each in late_s]
    if max(late_s) > LATE_S or median(late_s) > USUALLY_LATE_S:
        raise AssertionError(f"requests are up to {max(late_s):.3f} s off their times, {median(late_s):.3f} s usually")
    return f"{len(seen)} requests, at most {max(late_s) * 1e3:.0f} ms off"


def check_validate_mooncake() -> str:
    return _validated("mooncake")


def check_validate_aiperf() -> str:
    return _validated("aiperf")


def _validated(name: str) -> str:
    said = _aiperf("validate", "mooncake-trace", str(exported(name).path))
    rows = len(exported(name).arrival_us)
    same("what it says", said.strip(), f"Validation passed: {rows} rows are Mooncake-compatible.")
    return f"{rows} rows"


def check_replay_mooncake() -> str:
    """Every row on its own, whole."""
    export = exported("mooncake")
    return _on_time(export, _replayed(export, export.command), _sizes(export))


def check_replay_aiperf() -> str:
    """The history that AIPerf keeps and the new tokens make up the inputs of the trace."""
    export = exported("aiperf")
    seen = _replayed(export, export.command)
    if not any(request.new_tokens < request.input_tokens for request in seen):
        raise AssertionError("no request came with a history")
    return _on_time(export, seen, _sizes(export))


def check_replay_bailian() -> str:
    """AIPerf puts a history of its own before inputs that hold theirs already: only the last message is the row's."""
    export = exported("bailian")
    return _on_time(export, _replayed(export, _command(export, "bailian_trace")), _sizes(export), new=True)


def check_replay_burstgpt() -> str:
    export = exported("burstgpt")
    return _on_time(export, _replayed(export, _command(export, "burst_gpt_trace")), _sizes(export))


def check_replay_multi_turn() -> str:
    export = exported("aiperf-multi-turn")
    return _on_time(export, _replayed(export, export.command), _sizes(export))


def check_rate_series() -> str:
    """The area under its points is the number of requests."""
    from aiperf.config.rate_series import read_rate_series_json

    export = exported("aiperf-rates")
    points = read_rate_series_json(str(export.path))
    requests = sum((b.time_s - a.time_s) * (a.qps + b.qps) / 2 for a, b in pairwise(points))
    if abs(requests - len(export.arrival_us)) > 0.01 * len(export.arrival_us) + 1:
        raise AssertionError(f"{requests:.1f} requests under the series instead of {len(export.arrival_us)}")
    return f"{requests:.1f} requests"


def check_replay_rates() -> str:
    """Requests at equal distances, as many as the trace has."""
    export = exported("aiperf-rates")
    command = [*export.command, "--arrival-pattern", "constant"]
    with serving() as server:
        _replay(command, server, export)
        times_s = sorted(request.time_s for request in server.seen)
    if abs(len(times_s) - len(export.arrival_us)) > 0.05 * len(export.arrival_us):
        raise AssertionError(f"{len(times_s)} requests instead of {len(export.arrival_us)}")
    return f"{len(times_s)} requests in {times_s[-1] - times_s[0]:.1f} s"


def _sizes(export: Exported) -> list[tuple[int, int]]:
    return list(zip(export.input_tokens, export.output_tokens, strict=True))


def _command(export: Exported, kind: str) -> list[str]:
    """For files that other programs are the first to read."""
    server = ["--model", "words", "--url", "", "--endpoint-type", "chat", "--streaming", "--tokenizer", "local/words"]
    file = ["--input-file", str(export.path), "--custom-dataset-type", kind, "--fixed-schedule"]
    return ["aiperf", "profile", *server, *file]


corpus = Path(aiperf.__file__).parent / "dataset" / "generator" / "assets" / "shakespeare.txt"
directory_of(HUB, corpus.read_text(encoding="utf-8"))
run(
    check_validate_mooncake,
    check_validate_aiperf,
    check_replay_mooncake,
    check_replay_aiperf,
    check_replay_bailian,
    check_replay_burstgpt,
    check_replay_multi_turn,
    check_rate_series,
    check_replay_rates,
    limit_s=90,
)
