"""The harness of tests/consumers, without its consumers: what fails is a failure, what is missing is said."""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
from profiles import REPOSITORY

FOLDER = REPOSITORY / "tests" / "consumers"
LOCAL = ("consumers", "environments", "stub")
CHECKS = """
import subprocess, sys, time
from checking import SkippedError, close, run, same

def check_good(): return "3 rows"
def check_other(): same("rows", [1, 2], [1, 3])
def check_late(): close("times", [1.0, 2.5], [1.0, 2.0], 0.4)
def check_shorter(): same("rows", [1], [1, 2])
def check_slow(): time.sleep(60)
def check_elsewhere(): raise SkippedError("no such thing here")

run(check_good, check_other, check_late, check_shorter, check_slow, check_elsewhere, limit_s=1)
"""


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in LOCAL:
        sys.modules.pop(name, None)


def outcomes(consumers: ModuleType, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **stated) -> list[str]:
    (folder / "expected.json").write_text("{}")
    (folder / "check.py").write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n{script}")
    monkeypatch.setattr(consumers, "ready", lambda *_: (Path(sys.executable), False))
    consumer = consumers.Consumer(consumers.Environment("some"), str(folder / "check.py"), **stated)
    results = consumers.Results()
    consumers._run(consumer, folder, time.monotonic() + 60, results)
    return sorted(results.count.elements())


def test_every_consumer_has_checks_and_exact_pins(harness):
    consumers = harness("consumers").CONSUMERS
    scripts = {consumer.script for consumer in consumers}
    assert scripts == {path.name for path in FOLDER.glob("check_*")}
    pinned = {path.stem for path in (FOLDER / "pins").glob("*.txt")}
    named = {consumer.environment.name for consumer in consumers if not consumer.environment.cut[0]} - {""}
    assert named <= pinned <= {consumer.name for consumer in consumers}
    for path in (FOLDER / "pins").glob("*.txt"):
        assert all(line.count("==") == 1 for line in path.read_text(encoding="utf-8").split()), path


def test_a_wrong_result_is_a_failure(harness, tmp_path, monkeypatch, capsys):
    found = outcomes(harness("consumers"), CHECKS, tmp_path, monkeypatch)
    assert found == ["fail"] * 4 + ["pass", "skip"]
    said = capsys.readouterr().out
    assert "pass  some: good, 3 rows" in said
    assert "fail  some: other: AssertionError: rows: 2 instead of 3 in row 1" in said
    assert "fail  some: late: AssertionError: times: 2.5 instead of 2.0 in row 1" in said
    assert "fail  some: shorter: AssertionError: rows: 1 instead of 2" in said
    assert "fail  some: slow: TimeoutError" in said
    assert "skip  some: elsewhere: no such thing here" in said


@pytest.mark.parametrize("script", ["", "print('pass one'); sys.exit(3)", "print('pass one'); import nothing_like_it"])
def test_a_script_that_ends_badly_is_a_failure(harness, tmp_path, monkeypatch, script):
    assert "fail" in outcomes(harness("consumers"), script, tmp_path, monkeypatch)


def test_a_script_without_end_is_killed_with_what_it_started(harness, tmp_path, monkeypatch):
    still_there = tmp_path / "still-there"
    child = f"import time; time.sleep(3); open({str(still_there)!r}, 'w')"
    script = f"import subprocess, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    begun = time.monotonic()
    assert outcomes(harness("consumers"), script, tmp_path, monkeypatch, limit_s=1) == ["fail"]
    assert time.monotonic() - begun < 10
    time.sleep(3)
    assert not still_there.exists()


def test_what_is_not_installed_is_skipped_with_the_reason(harness, tmp_path, monkeypatch, capsys):
    consumers, environments = harness("consumers"), harness("environments")
    (tmp_path / "none.txt").write_text("servegen-gpu-no-such-package==1.0")
    monkeypatch.setattr(environments, "PINS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(consumers, "CACHE", tmp_path / "cache")
    results = consumers.Results()
    for environment in (environments.Environment("none"), environments.Environment("", program="no-such-program")):
        consumers._run(consumers.Consumer(environment, "check.py"), tmp_path, time.monotonic() + 60, results)
    assert results.count == {"skip": 2}
    said = capsys.readouterr().out
    assert "servegen-gpu-no-such-package" in said
    assert "no-such-program: no no-such-program on the path" in said


def test_the_stub_counts_what_it_is_asked(harness):
    body = {
        "messages": [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": [{"text": "d e"}]}],
        "max_completion_tokens": 70,
    }
    with harness("stub").serving() as server:
        for stream in (False, True):
            data = json.dumps(body | {"stream": stream}).encode()
            with urllib.request.urlopen(f"{server.url}/v1/chat/completions", data, timeout=10) as answer:
                assert len(re.findall(rb"\bunk\b", answer.read())) == 70
    assert [(seen.input_tokens, seen.new_tokens, seen.output_tokens) for seen in server.seen] == [(5, 2, 70)] * 2
