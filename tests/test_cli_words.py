"""What the command line says: help in groups, faults of arguments, the words after a run, and progress."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import servegen_gpu as sg
from servegen_gpu.cli import _parser, main
from servegen_gpu.cli.arguments import GROUPS, PURPOSES
from servegen_gpu.cli.progress import Progress

COMMANDS = sorted(_parser().commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_groups_and_an_example(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    parser = _parser()
    found = parser.commands[command]
    assert found.summary
    text = found.format_help()
    assert max(map(len, text.split("\nexample:\n")[0].splitlines()[2:])) <= 72
    assert "\x1b" not in text
    titles = re.findall(r"^([a-z][a-z -]+):$", text, re.MULTILINE)
    assert [*titles] == [title for title in (*GROUPS, "example") if title in titles]
    assert {"help", "example"} <= {*titles} <= {*GROUPS, "example"}  # no option outside of a group
    line = text.split("\nexample:\n  ")[1].split("\n")[0].split(" > ")[0]
    assert parser.parse_known_args(line.split()[1:])[0].command == command


def test_the_program_lists_its_commands_by_purpose() -> None:
    text = _parser().format_help()
    for command in COMMANDS:
        assert re.search(rf"^    {command} +\S", text, re.MULTILINE)
    assert {name for names in PURPOSES.values() for name in names} >= {*COMMANDS}
    assert text.count("\n  servegen-gpu ") == 2


FAULTS = {
    "--rats 5 -o x": r"expected arguments of servegen-gpu generate, got '--rats', .*did you mean --rate\?",
    "-o x extra": r"expected arguments of .*, got 'extra', which it does not have; see servegen-gpu generate --help",
    "": r"expected -o PATH, got none; see servegen-gpu generate --help",
    "-o x --rate": r"expected a value after --rate, got none; see",
    "-o x --requests many": r"expected --requests as a whole number, such as 500, 10k.*, got 'many'; change --requests",
    "-o x --scale 1,5": r"expected --scale as a number, .*, got '1,5'; change --scale",
    "-o x --counts renewl": r"expected --counts among auto, exact, .*, got 'renewl'; did you mean 'renewal'\?",
    "-o x --quiet=3": r"expected --quiet without a value, got '3'; see",
    "-o x --re 5": r"expected one of .*--replica.*, got '--re', which may be any of them; write it out",
    "-o x --duration -1h": r"expected a duration of at least a microsecond, got '-1h'; time runs forward",
    "-o x --start -1h": r"expected a start from 0 s on, got '-1h'; times count from the start of the data",
}


@pytest.mark.parametrize(("arguments", "said"), FAULTS.items(), ids=FAULTS)
def test_faults_of_arguments_are_one_message(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "m-small", *arguments.split()]) == 2
    message = capsys.readouterr().err
    assert re.match(rf"servegen-gpu: error: {said}", message)
    assert message.count("\n") == 1


def test_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genrate"]) == 2
    assert "a command among generate" in (said := capsys.readouterr().err)
    assert "did you mean 'generate'" in said
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().err


def test_words_after_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a trace.parquet"
    made = ["generate", "m-small", "--clients", "20", "--rate", "300/min", "--start", "1:00", "--duration", "20m"]
    assert main([*made, "-o", str(out)]) == 0
    said, trace = capsys.readouterr().out, sg.read_trace(out)
    rates = [trace[name].sum() / 1200 for name in ("input_tokens", "output_tokens")]
    digest = re.search(r"digest +([0-9a-f]{32})\n", said)
    assert digest is not None
    lines = said.splitlines()
    assert lines[0].startswith(f"{out}: {len(trace):,} requests, ")
    assert lines[1:4] == [
        "  workload  m-small (built-in), 20 clients",
        f"  span      20 min from 1 h on, {len(trace) / 1200:,.4g} requests/s",
        f"  tokens    {rates[0]:,.0f} input/s, {rates[1]:,.0f} output/s",
    ]
    assert lines[-1].startswith(f"next: servegen-gpu inspect '{out}', or servegen-gpu convert ")
    assert len(lines) == 7

    assert main([*made, "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*made, "-o", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == digest[1]
    assert (found["requests"], found["origin"], found["start_s"]) == (len(trace), "built-in", 3600)
    assert found["input_tokens"] == trace["input_tokens"].sum()
    assert found["input_tokens_per_s"] == pytest.approx(rates[0])
    assert main(["convert", str(out), "--to", "mooncake", "-o", str(tmp_path / "m.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "replay it with:"


def test_words_after_a_share_are_of_the_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its requests are spread over its own part of the time, not over all of it."""
    out = tmp_path / "t.parquet"
    made = ["generate", "m-small", "--clients", "20", "--rate", "20", "--start", "1h", "--duration", "20m"]
    assert main([*made, "--shard", "2/4", "-o", str(out), "--json"]) == 0
    found, time_us = json.loads(capsys.readouterr().out), sg.read_trace(out)["arrival_us"]
    span_s = (time_us[-1] + 1 - time_us[0]) / 1e6
    assert found["requests_per_s"] == pytest.approx(len(time_us) / span_s)
    assert 15 < found["requests_per_s"] < 25
    assert main([*made, "--shard", "2/4", "-o", str(out)]) == 0
    assert re.search(r"  span      \S+ (s|min), share 2/4, ", capsys.readouterr().out)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: Any, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("servegen_gpu.cli.progress.DELAY_S", 0)
    monkeypatch.setattr("servegen_gpu.cli.progress.EVERY_S", 0)
    progress = Progress(argparse.Namespace(quiet=quiet), "replicas")
    progress(1, 4, lambda: "met")
    progress(3, 4, lambda: "met")
    progress.end()
    return str(stream.getvalue())


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), False, monkeypatch) == ""
    assert shown(Terminal(), True, monkeypatch) == ""
    monkeypatch.setitem(sys.modules, "tqdm.std", None)
    assert shown(Terminal(), False, monkeypatch) == ""  # where tqdm is not installed
    monkeypatch.undo()
    pytest.importorskip("tqdm.std")
    said = shown(Terminal(), False, monkeypatch)
    assert "3/4" in said
    assert "replicas" in said
    assert said.rstrip(" ").endswith("\r")  # and the line is taken away


def test_words_are_beside_a_trace_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    made = ["generate", "m-small", "--clients", "5", "--duration", "10s", "--rate", "2", "--warmup", "0", "-o", "-"]
    assert main([*made, "--format", "csv", "--json"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.err)["requests"] == said.out.count("\n") - 1


def test_a_log_where_a_workload_belongs_is_told_to_be_fitted(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("time,input,output\n0,1,2\n")
    assert main(["generate", str(tmp_path / "log.csv"), "-o", str(tmp_path / "t.parquet")]) == 2
    said = capsys.readouterr().err
    assert "expected a workload: a name, a TOML file" in said
    assert f"servegen-gpu fit {tmp_path / 'log.csv'} -o PROFILE" in said
