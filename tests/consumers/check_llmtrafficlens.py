"""llmtrafficlens finds as many tokens for a cache without limit in our block ids as `servegen_gpu.prefix_hits`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from checking import EXPECTED, FOLDER, exported, run, same

PROGRAM = str(Path(sys.executable).with_name("llmtrafficlens"))
DIGITS = 4
"""Of the shares that it prints."""


def _profile(name: str) -> str:
    export, out = exported(name), FOLDER / f"lens-{name}"
    options = ["--format", name, "--block-size", str(EXPECTED["block_tokens"]), "--warmup", "0", "--out", str(out)]
    done = subprocess.run([PROGRAM, "profile", str(export.path), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr[-500:])
    found = json.loads(out.with_suffix(".json").read_text())
    tokens = sum(export.input_tokens)
    same("requests", found["sample"]["requests"], len(export.arrival_us))
    same("input tokens", found["reuse_potential"]["total_input_tokens"], tokens)
    same("share of a cache", found["reuse_potential"]["ceiling"], round(EXPECTED["hit_tokens"] / tokens, DIGITS))
    return f"{EXPECTED['hit_tokens']:,} of {tokens:,} tokens from the cache"


def check_mooncake() -> str:
    return _profile("mooncake")


def check_bailian() -> str:
    return _profile("bailian")


run(check_mooncake, check_bailian)
