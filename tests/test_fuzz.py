"""A short fuzz run over every kind of input; good inputs are accepted, and planted defects are found."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import pytest
from fuzz import case, run
from fuzz.kind import Good, Kind, Place, Refused, all_kinds, must

from servegen_gpu.errors import ProfileError

pytestmark = pytest.mark.filterwarnings(
    # of JAX, where an earlier test has imported it, and of Python 3.12: children use no thread of their parent
    r"ignore:os\.fork\(\) was called:RuntimeWarning",
    r"ignore:.*use of fork\(\) may lead to deadlocks:DeprecationWarning",
)

KINDS = all_kinds()
CASES, SHARDS, SEED = 10_000, 20, 15
JOBS = [(name, i) for name, n in run.shares(CASES, list(KINDS.values())).items() for i in range(n)]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_mutated_inputs_are_refused_in_a_sentence_or_right(shard):
    verdicts = [case.run_case(KINDS[name], SEED, i) for name, i in JOBS[shard::SHARDS]]
    defects = [str(verdict) for verdict in verdicts if verdict.outcome == case.DEFECT]
    assert not defects, "\n".join(defects[:10])
    assert {verdict.outcome for verdict in verdicts} == {case.REFUSED, case.ACCEPTED}


@pytest.mark.parametrize("name", KINDS)
def test_good_inputs_are_accepted(name, tmp_path):
    for number, good in enumerate(case.given(KINDS[name])):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert case.judged(KINDS[name], good, folder) == (case.ACCEPTED, "")


def test_a_case_is_the_same_again():
    first, second = (case.run_case(KINDS["schedule"], 3, 5) for _ in range(2))
    assert first == second
    assert len({case.run_case(KINDS["schedule"], 3, i).mutations for i in range(20)}) > 1


# --- what the harness has to find


def _crash(place: Place) -> None:
    raise KeyError("a reader that trusts its file")


def _hang(place: Place) -> None:
    while True:
        pass


def _accept(place: Place) -> None:
    must(b"," not in (place.here / "a.csv").read_bytes(), "a comma")


def _eat(place: Place) -> None:
    bytearray(b"x" * (80 << 20))


def _refuse(message: str, leave: str = "") -> Callable[[Place], None]:
    def use(place: Place) -> None:
        if leave:
            (place.out / leave).write_text("half")
        raise Refused(message)

    return use


def _leave(place: Place) -> None:
    (place.out / ".trace.parquet.tmp").write_text("half")


def _overwrite(place: Place) -> None:
    (place.here / "a.csv").write_text("")


def _warn(place: Place) -> None:
    warnings.warn("overflow encountered in multiply", RuntimeWarning, stacklevel=1)


def _refuse_all(place: Place) -> None:
    raise ProfileError("a file", "another", "fix it")


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (_crash, "traceback: KeyError"),
        (_hang, "hang"),
        (_accept, "wrong acceptance: a comma"),
        (_eat, "memory"),
        (_refuse("a\x1b[31mb"), "words: the character '\\x1b'"),
        (_refuse("x" * 5000), "words: 5,0"),
        (_refuse("half of it", leave="trace.csv"), "left over: ['trace.csv'] though refused"),
        (_leave, "left over: ['.trace.parquet.tmp']"),
        (_overwrite, "left over: the input's directory is another"),
        (_warn, "warning: 'overflow"),
    ],
)
def test_planted_defects_are_found(use, what, monkeypatch, tmp_path):
    monkeypatch.setattr(case, "SECONDS", 0.2 if use is _hang else 5.0)
    monkeypatch.setattr(case, "MORE_BYTES", 50 << 20)
    kind = Kind("planted", lambda: [Good({"a.csv": b"1,2\n"})], use)
    outcome, found = case.judged(kind, kind.given()[0], tmp_path)
    assert outcome == case.DEFECT
    assert found.startswith(what)


def test_refusing_everything_is_a_defect():
    kind = Kind("planted", lambda: [Good({"a.csv": b"1,2\n"})], _refuse_all)
    found = {v.what[:20] for i in range(300) if (v := case.run_case(kind, 0, i)).outcome == case.DEFECT}
    assert found == {"a good input refused"}


def test_a_process_that_dies_is_reported_and_others_go_on(monkeypatch):
    def die(place: Place) -> None:
        if (place.here / "a.csv").read_bytes() != b"1,2\n":
            os.kill(os.getpid(), 9)

    kind = Kind("planted", lambda: [Good({"a.csv": b"1,2\n"})], die)
    monkeypatch.setitem(run.all_kinds(), "planted", kind)
    verdicts = run.run_all([("planted", 0, i) for i in range(4)], 2, say=False)
    assert sorted(v.case for v in verdicts) == list(range(4))
    dead = [v for v in verdicts if v.what.startswith("crash: the process ended with -9")]
    assert len(dead) >= 3
