"""Writers under faults: killed, full disks, limits, other people's files; and what the next run makes of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from faults import kills
from faults.writers import WRITERS, Writer, trace, warm
from profiles import REPOSITORY, tiny_pool

import servegen_gpu as sg
from servegen_gpu.arrays import save_arrays
from servegen_gpu.cli import main
from servegen_gpu.conversations.carry import Carry
from servegen_gpu.disk import commit, directory, new_directory, new_temporary, scratch_directory, sweep, temporary
from servegen_gpu.errors import OptionError, OutputError, ServeGenError
from servegen_gpu.formats.atomic import new_file
from servegen_gpu.formats.own import is_own

pytestmark = pytest.mark.filterwarnings(
    # of JAX, where an earlier test has imported it, and of Python 3.12: children use no thread of their parent
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
    r"ignore:.*use of fork\(\) may lead to deadlocks:DeprecationWarning",
)

warm()
BY_NAME = {writer.name: writer for writer in WRITERS}
root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
OTHERS = 12_345


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def killed(work: Callable[[], object]) -> None:
    """Work in a child that kills itself in the end, wherever it is."""

    def and_die() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert kills.run(and_die)[0] == -signal.SIGKILL


def left_by_a_kill(folder: Path, directory: bool = False) -> Path:
    """A temporary whose maker was killed."""
    before = set(folder.iterdir())
    made = new_temporary(folder, directory=directory)
    killed(made.__enter__)
    (left,) = set(folder.iterdir()) - before
    return left


# Kills


def test_every_writer_is_killed(tmp_path: Path) -> None:
    """A few of the kills of ``python tests/faults/kills.py``, in an interpreter without the threads of this one."""
    script = REPOSITORY / "tests" / "faults" / "kills.py"
    command = [sys.executable, script, "--kills", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[0], row[1], row[5]) for row in rows] == [(writer.name, "5", "0") for writer in WRITERS]


def test_a_writer_in_place_is_caught(tmp_path: Path) -> None:
    def write(folder: Path, version: int) -> None:
        for at in range(20):
            with open(folder / "t.txt", "ab" if at else "wb") as file:
                file.write(bytes([version]) * 1000)

    found = kills.try_writer(Writer("in place", write, lambda _: None), 12, tmp_path, 0)
    assert any("neither old nor new" in fault for fault in found.faults)


def test_files_of_two_runs_are_caught(tmp_path: Path) -> None:
    def write(folder: Path, version: int) -> None:
        for name in "abcdefghijkl":
            with new_file(folder / name) as sink:
                sink.write(bytes([version]))

    found = kills.try_writer(Writer("one by one", write, lambda _: None), 12, tmp_path, 0)
    assert any("of two runs" in fault for fault in found.faults)


# Leftovers


def test_leftovers_of_killed_runs_go_and_nothing_else(tmp_path: Path) -> None:
    gone = [left_by_a_kill(tmp_path), left_by_a_kill(tmp_path, directory=True)]
    kept = left_by_a_kill(tmp_path, directory=True)
    (gone[1] / "part-00000.parquet").write_bytes(b"half")
    (kept / "part-00000.parquet").write_bytes(b"half")
    (kept / "thesis.tex").write_text("years")
    with new_temporary(tmp_path) as running:
        trace(0).write(tmp_path / "t.csv")
        assert names(tmp_path) == sorted([kept.name, running.path.name, "t.csv", "t.csv.provenance.json"])
        assert names(kept) == ["thesis.tex"]


def test_what_another_machine_made_goes_when_it_is_old(tmp_path: Path) -> None:
    other = tmp_path / ".servegen-00000000-7-0123abcd.tmp"
    older_version = tmp_path / ".servegen-7-0123abcd.tmp"
    for path in (other, older_version):
        path.touch()
    sweep(tmp_path)
    assert len(names(tmp_path)) == 2
    long_ago = time.time() - 4 * 86_400
    for path in (other, older_version):
        os.utime(path, (long_ago, long_ago))
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_without_locks_only_what_is_old_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    left = left_by_a_kill(tmp_path)
    monkeypatch.setattr(temporary.fcntl, "flock", none)
    sweep(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    sweep(tmp_path)
    assert not left.exists()


@root
def test_what_another_user_left_stays(tmp_path: Path) -> None:
    left = left_by_a_kill(tmp_path)
    os.chown(left, OTHERS, OTHERS)
    os.utime(left, (0, 0))
    sweep(tmp_path)
    assert left.exists()


def test_a_link_under_a_temporary_name_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    left = left_by_a_kill(tmp_path)
    left.unlink()
    left.symlink_to(precious)
    sweep(tmp_path)
    assert precious.read_text() == "x"
    assert left.is_symlink()


def spilled(carry: Carry) -> Path:
    """The file of a carry that has rows in one."""
    time_us = np.arange(0, 3000, 2)
    carry.add({"arrival_us": time_us, "conversation": time_us, "turn": time_us})
    return sorted(carry._files.values())[0]


def test_spills_of_killed_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    carry = Carry(100, 2000)
    killed(lambda: spilled(carry))
    (left,) = tmp_path.iterdir()
    assert any(left.iterdir())
    with scratch_directory() as mine:
        assert names(tmp_path) == [mine.name]
    assert names(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_a_spill_that_was_changed_is_said(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Carry(100, 2000) as carry:
        file = spilled(carry)
        data = file.read_bytes()
        file.unlink() if damage == "gone" else file.write_bytes({"cut": data[:-9], "foreign": b"x" * len(data)}[damage])
        with pytest.raises(OutputError, match=r"expected temporary files as they were written, got .*TMPDIR"):
            carry.due(None)
    assert names(tmp_path) == []


# Two files, or two directories, in one step


def pending(folder: Path, done: int) -> None:
    """Replace a trace in CSV, and die with so many of the two renames made."""
    renamed = [0]
    replace = os.replace

    def one(old: Path, new: Path) -> None:
        if renamed[0] == done:
            os.kill(os.getpid(), signal.SIGKILL)
        renamed[0] += 1
        replace(old, new)

    def work() -> None:
        commit.os.replace = one
        trace(1).write(folder / "t.csv")

    killed(work)


@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("by", ["reader", "writer"])
def test_renames_that_are_missing_are_made(done: int, by: str, tmp_path: Path) -> None:
    trace(0).write(tmp_path / "t.csv")
    pending(tmp_path, done)
    assert any(name.startswith(commit.JOURNAL) for name in names(tmp_path))
    if by == "writer":
        trace(0).write(tmp_path / "other.csv")  # the leftovers of the first are what is to be renamed, and stay
    found = sg.read_trace(tmp_path / "t.csv")
    assert found.provenance["version"] == 1
    assert (found["input_tokens"] == trace(1)["input_tokens"]).all()
    assert all(not name.startswith(".") for name in names(tmp_path))


@pytest.mark.parametrize("text", ["", "[[", '[["t.csv", "../x"]]\n', '[["precious", "t.csv"]]\n', "[1]\n"])
def test_a_journal_that_is_none_does_nothing(text: str, tmp_path: Path) -> None:
    trace(0).write(tmp_path / "t.csv")
    (tmp_path / "precious").write_text("x")
    (tmp_path / f"{commit.JOURNAL}t.csv").write_text(text)
    assert sg.read_trace(tmp_path / "t.csv").provenance["version"] == 0
    assert names(tmp_path) == ["precious", "t.csv", "t.csv.provenance.json"]


@root
def test_a_journal_of_another_user_is_not_followed(tmp_path: Path) -> None:
    trace(0).write(tmp_path / "t.csv")
    journal = tmp_path / f"{commit.JOURNAL}t.csv"
    journal.write_text(json.dumps([[".servegen-00000000-7-0123abcd.tmp", "t.csv"]]) + "\n")
    os.chown(journal, OTHERS, OTHERS)
    (tmp_path / ".servegen-00000000-7-0123abcd.tmp").write_text("planted")
    assert sg.read_trace(tmp_path / "t.csv").provenance["version"] == 0
    with pytest.raises(OutputError, match=r"the unfinished work of .*, which you cannot finish"):
        trace(1).write(tmp_path / "t.csv")


@pytest.mark.parametrize("kind", ["directory", "link", "renames that fail"])
def test_a_journal_that_cannot_be_finished_is_said(kind: str, tmp_path: Path) -> None:
    """Also where it is this user's own: nobody waits for ever."""
    trace(0).write(tmp_path / "t.csv")
    journal = tmp_path / f"{commit.JOURNAL}t.csv"
    if kind == "directory":
        journal.mkdir()
    elif kind == "link":
        journal.symlink_to("nowhere")
    else:
        (tmp_path / "t.csv.more").mkdir()
        (tmp_path / ".servegen-00000000-7-0123abcd.tmp").write_text("a file, for the name of a directory")
        journal.write_text(json.dumps([[".servegen-00000000-7-0123abcd.tmp", "t.csv.more"]]) + "\n")
    with pytest.raises(OutputError, match="which you cannot finish"):
        trace(1).write(tmp_path / "t.csv")
    assert sg.read_trace(tmp_path / "t.csv").provenance["version"] == 0


def test_directories_are_replaced_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "exchange", lambda *_: False)
    found = kills.try_writer(BY_NAME["parts"], 6, tmp_path, 1)
    assert found.faults == []
    tiny_pool().save(tmp_path / "mine")
    tiny_pool().save(tmp_path / "mine")
    assert names(tmp_path / "mine")


def test_an_interruption_between_two_renames_finishes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace(0).write(tmp_path / "t.csv")
    replace, calls = os.replace, [0]

    def one(old: Path, new: Path) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(commit.os, "replace", one)
    with pytest.raises(KeyboardInterrupt):
        trace(1).write(tmp_path / "t.csv")
    assert names(tmp_path) == ["t.csv", "t.csv.provenance.json"]
    assert sg.read_trace(tmp_path / "t.csv").provenance["version"] == 1


# Other people's files


def test_what_others_put_into_a_directory_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    BY_NAME["parts"].write(tmp_path, 0)
    with new_directory(target, lambda file: file.name.startswith("part-")) as new:
        (new / "part-00000.parquet").write_bytes((target / "part-00000.parquet").read_bytes())
        (target / "notes.txt").write_text("mine")
        (target / "deep").mkdir()
        (target / "deep" / "er").write_text("mine, too")
    assert names(target) == ["deep", "notes.txt", "part-00000.parquet"]
    assert (target / "deep" / "er").read_text() == "mine, too"
    assert names(tmp_path) == ["out"]


def test_what_others_put_where_there_was_nothing_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_directory(target, lambda _: False) as new:
        (new / "part-00000.parquet").write_text("new")
        target.mkdir()
        (target / "part-00000.parquet").write_text("mine")
    assert names(target) == ["part-00000.parquet", "part-00000.parquet.kept"]
    assert (target / "part-00000.parquet").read_text() == "new"


def writes() -> Iterator[tuple[str, Callable[..., object]]]:
    yield "t.parquet", lambda path, **how: trace(1).write(path, **how)
    yield "t.csv", lambda path, **how: trace(1).write(path, **how)
    yield "t.jsonl.gz", lambda path, **how: sg.write(trace(1), path, **how)
    yield "m.jsonl", lambda path, **how: sg.write(trace(1), path, "mooncake", **how)
    yield "s.parquet", study
    yield "p.npz", lambda path, **how: sg.stream(tiny_pool(), rate=1.0, duration=600).packed.save(path, **how)
    yield "f.png", picture
    yield "f.svg", picture
    yield "f.pdf", picture


def study(path: Path, **how: bool) -> None:
    import pandas as pd

    from servegen_gpu.studies.file import write_study

    write_study(path, "montecarlo", {}, pd.DataFrame({"x": [1.0]}), **how)


def picture(path: Path, **how: bool) -> None:
    from servegen_gpu.plotting.picture import Picture

    Picture(figsize=(1, 1)).savefig(path, **how)


@pytest.mark.parametrize(("name", "write"), list(writes()), ids=[name for name, _ in writes()])
def test_a_file_of_others_is_replaced_only_on_demand(name: str, write: Callable[..., object], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("a thesis\n")
    path.chmod(0o600)
    with pytest.raises(OutputError, match=r"another's; .*overwrite=True"):
        write(path)
    assert path.read_text() == "a thesis\n"
    assert names(tmp_path) == [name]
    write(path, overwrite=True)
    first = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write(path)  # our own is replaced
    assert first
    path.write_text("")
    write(path)  # an empty file is nobody's


def test_a_table_of_clients_is_ours_under_our_name_only(tmp_path: Path) -> None:
    table = b"id,client\n0,alice\n"
    for name, own in (("t.parquet.clients.csv", True), ("t.sessions.csv", True), ("clients.csv", False)):
        (tmp_path / name).write_bytes(table)
        assert is_own(tmp_path / name) == own


def test_a_file_of_others_beside_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "t.csv.provenance.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match=r"t\.csv\.provenance\.json, which is another's"):
        trace(0).write(tmp_path / "t.csv")
    (tmp_path / "b.csv.yaml").write_text("mine: 1\n")
    with pytest.raises(OutputError, match=r"b\.csv\.yaml, which is another's"):
        trace(0).write(tmp_path / "b.csv", "blis")
    assert names(tmp_path) == ["b.csv.yaml", "t.csv.provenance.json"]
    oldest = {"provenance": {}, "first_row": 0, "rows": 0, "bytes": 0}  # what provenance beside a file always had
    (tmp_path / "t.csv.provenance.json").write_text(json.dumps(oldest))
    trace(0).write(tmp_path / "t.csv")
    assert len(sg.read_trace(tmp_path / "t.csv"))


def test_directories_with_files_of_others(tmp_path: Path) -> None:
    for name, write in (("out", lambda **how: sg.write(trace(0), tmp_path / "out", **how)),
                        ("mine", lambda **how: tiny_pool().save(tmp_path / "mine", **how))):  # fmt: skip
        write()
        (tmp_path / name / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"notes\.txt"):
            write()
        write(overwrite=True)
        assert (tmp_path / name / "notes.txt").read_text() == "mine"
    assert len(sg.read_trace(tmp_path / "out")) == 3000
    assert len(sg.load_profile(tmp_path / "mine"))


def test_released_data_are_no_older_profile(tmp_path: Path) -> None:
    """Although their files have the names of those of a profile."""
    (tmp_path / "m-small").mkdir()
    file = tmp_path / "m-small" / "chunk-0-trace.csv"
    file.write_text("released")
    with pytest.raises(OutputError, match=r"an older profile to replace, got 'chunk-0-trace\.csv'"):
        tiny_pool().save(file.parent)
    assert file.read_text() == "released"
    tiny_pool().save(file.parent, overwrite=True)
    assert "released" in [path.read_text() for path in file.parent.glob("chunk-0-trace.csv*")]
    assert len(sg.load_profile(file.parent)) == len(tiny_pool())


TOML = """
[[client]]
rate = 1
input_tokens = { kind = "constant", value = 9 }
output_tokens = { kind = "constant", value = 9 }
"""


def test_the_command_keeps_its_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.toml"
    own.write_text(TOML)
    command = ["generate", str(own), "--duration", "60s", "--quiet", "--format", "csv", "-o"]
    assert main([*command, str(own)]) == 2
    assert main([*command, str(own), "--overwrite"]) == 2
    assert own.read_text() == TOML
    said = capsys.readouterr().err
    assert "expected an output that is no input" in said
    thesis = tmp_path / "thesis.csv"
    thesis.write_text("years\n")
    assert main([*command, str(thesis)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, str(thesis), "--overwrite"]) == 0, capsys.readouterr().err
    assert sg.read_trace(thesis).provenance


@root
def test_the_owner_stays(tmp_path: Path) -> None:
    trace(0).write(tmp_path / "t.csv")
    for path in tmp_path.iterdir():
        os.chown(path, OTHERS, OTHERS)
        path.chmod(0o640)
    trace(1).write(tmp_path / "t.csv")
    for path in tmp_path.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (OTHERS, OTHERS, 0o640)


def test_the_provenance_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "data" / "t.csv")
    trace(0).write(link)
    assert names(tmp_path / "data") == ["t.csv", "t.csv.provenance.json"]
    assert names(tmp_path) == ["data", "link.csv"]
    for path in (link, tmp_path / "data" / "t.csv"):
        assert sg.read_trace(path).provenance["version"] == 0
    beside = tmp_path / "data" / "t.csv.provenance.json"
    beside.rename(tmp_path / "link.csv.provenance.json")  # as older versions wrote it
    assert sg.read_trace(link).provenance["version"] == 0


# Limits and full disks


def tried(writer: Writer, folder: Path, limit: Callable[[], object]) -> str:
    """What is said by a child whose resources are limited; empty if it wrote."""
    reader, out = os.pipe()

    def work() -> None:
        limit()
        try:
            kills._write(writer, folder / "out", folder / "spills", 1)
            said = ""
        except (ServeGenError, MemoryError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        except AssertionError:  # of a command, which has said it
            said = "OutputError: expected …; …"
        os.write(out, said.encode())

    assert kills.run(work)[0] == 0
    os.close(out)
    with os.fdopen(reader) as pipe:
        return pipe.read()


def bytes_at_most(n: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


def files_at_most(n: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def memory_left(n: int) -> Callable[[], object]:
    def limit() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + n, used + n))

    return limit


def as_nobody() -> None:
    """Write where this user may not: as another one, where this is root, which may anything."""
    if os.geteuid() == 0:
        os.setgid(OTHERS)
        os.setuid(OTHERS)


LIMITED = [writer for writer in WRITERS if writer.name not in ("library", "arrays", "compare")]


@pytest.mark.parametrize("writer", LIMITED, ids=lambda writer: writer.name)
def test_a_limit_is_one_sentence_and_leaves_what_was_there(writer: Writer, tmp_path: Path) -> None:
    for name in ("out", "spills"):
        (tmp_path / name).mkdir()
    assert kills.run(lambda: kills._write(writer, tmp_path / "out", tmp_path / "spills", 0))[0] == 0
    before = kills.tree(tmp_path)
    said = tried(writer, tmp_path, bytes_at_most(200))
    assert "ile too large" in said
    assert kills.tree(tmp_path) == before
    (tmp_path / "out").chmod(0o555)
    said = tried(writer, tmp_path, as_nobody)
    assert "ermission denied" in said
    assert kills.tree(tmp_path) == before
    (tmp_path / "out").chmod(0o755)
    used = len(os.listdir("/proc/self/fd"))
    for limit in (files_at_most(3), files_at_most(used + 3), memory_left(1 << 20)):
        said = tried(writer, tmp_path, limit)
        assert "\n" not in said
        after, hidden = kills.tree(tmp_path)
        assert hidden == []
        if said:
            assert after == before[0]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl", "mooncake"])
def test_a_full_device_is_said(format: str) -> None:
    with pytest.raises(OutputError, match="expected enough free space, got no space left on device: /dev/full"):
        trace(0).write("/dev/full", format)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "servegen_gpu-test", disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk of its own")
    try:
        for name in ("t.csv", "t.jsonl", "out/", "t.csv.zst"):
            with pytest.raises(OutputError, match="expected enough free space"):
                trace(0).write(f"{disk}/{name}")
            assert names(disk) == []
        with pytest.raises(OutputError, match="expected enough free space"):
            sg.population("m-small", clients=3000).save(disk / "mine")
        with pytest.raises(OSError, match="No space left"):
            save_arrays(disk / "a.npz", {}, {"x": np.arange(9000)})
        assert names(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


# Signals


def test_a_command_outlives_the_end_of_its_terminal_under_nohup(tmp_path: Path) -> None:
    long = "generate deepseek-r1 --scale 100 --duration 7d --warmup 0 -o"
    run = f"trap '' HUP; exec {sys.executable} -m servegen_gpu {long} {tmp_path}/t.csv"
    with subprocess.Popen(["sh", "-c", run], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size for path in tmp_path.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "interrupted" in said
    assert names(tmp_path) == []


def test_a_study_of_others_is_begun_anew_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    path.write_text("a thesis")
    keywords = {"rate": 1.0, "duration": 600, "replicas": 2, "metrics": "requests", "path": path}
    with pytest.raises(OptionError, match="a study that this package wrote"):
        sg.monte_carlo(tiny_pool(), **keywords)
    assert len(sg.monte_carlo(tiny_pool(), **keywords, overwrite=True)) == 2
    assert len(sg.monte_carlo(tiny_pool(), **keywords | {"seed": 1}, overwrite=True)) == 2
