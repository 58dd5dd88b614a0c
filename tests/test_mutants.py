"""The mutation run's own parts: what it changes and what it leaves alone."""

from __future__ import annotations

import ast

from mutants.calls import Calls
from mutants.changes import Change, described, of_c, of_python
from mutants.run import named_in
from mutants.sample import PACKAGES, equivalents, mutants_of, sampled

SOURCE = '''"""A text < of > words."""
SIZE = 4

@overload
def cut(rows: None, at: int = 7) -> None: ...
def cut(rows: dict[str, int], at: int = 1) -> list[int]:
    """Doc: 1 < 2."""
    if not rows or at < 0:
        raise ValueError(f"at {at + 1}")
    total = max(rows["a"], 2) - 1
    rows["b"] = total
    for _ in zip(rows, rows, strict=True):
        return sorted(rows, key=len)[at:]

class Row:
    def __repr__(self) -> str:
        return "<" + str(1 + 2)
'''


def lines(changes: list[Change], source: str) -> set[str]:
    return {text[1:].strip() for change in changes for text in described(source, change) if text.startswith("+")}


def test_changes_of_python_are_small_parse_and_leave_words_alone():
    found = of_python(SOURCE)
    assert all(ast.parse(change.applied(SOURCE)) and change.applied(SOURCE) != SOURCE for change in found)
    assert lines(found, SOURCE) == {
        *("SIZE = 3", "SIZE = 5"),
        *(f"def cut(rows: dict[str, int], at: int = {n}) -> list[int]:" for n in (0, 2)),
        *("if not rows and at < 0:", "if not rows or at <= 0:", "if not rows or at >= 0:", "if not rows or at < 1:"),
        *("if rows or at < 0:", "if not (not rows or at < 0):", "pass"),
        *('total = min(rows["a"], 2) - 1', 'total = max(rows["a"], 2) + 1', "return sorted(rows, key=len)[:]"),
        *(f'total = max(rows["a"], {n}) - 1' for n in (1, 3)),
        *(f'total = max(rows["a"], 2) - {n}' for n in (0, 2)),
    }
    assert {change.function for change in found} == {"", "cut"}


def test_changes_of_c_leave_comments_directives_and_hints_alone():
    source = "#define N 3\n// 1 < 2\nSG_PREFETCH(a + 1);\nif (a < b && !c) x = a >> 2;  // > 1\n"
    assert lines(of_c(source), source) == {
        *(f"if (a {sign} b && !c) x = a >> 2;  // > 1" for sign in ("<=", ">")),
        *("if (a < b || !c) x = a >> 2;  // > 1", "if (a < b && c) x = a >> 2;  // > 1"),
        *("if (a < b && !c) x = a << 2;  // > 1", "if (a < b && !c) x = a >> 1;  // > 1"),
        "if (a < b && !c) x = a >> 3;  // > 1",
    }


def test_a_sample_is_that_of_its_seed():
    def names(seed: int) -> list[str]:
        return [mutant.name for mutant in sampled(seed, 40, ["scaling"])[0]]

    assert names(0) == names(0)
    assert names(0) != names(1)
    assert sum(int(share) for share, *_ in PACKAGES.values()) == 200


def test_what_is_listed_as_equivalent_is_there_and_is_left_out():
    every = {(m.file, m.diff[0][1:].strip(), m.diff[-1][1:].strip()) for m in mutants_of("scaling")}
    (taken,) = sampled(0, 10**5, ["scaling"])
    listed = every & equivalents()
    assert listed
    assert every - {(m.file, m.diff[0][1:].strip(), m.diff[-1][1:].strip()) for m in taken} == listed


def test_the_test_that_a_line_names_may_have_blanks_and_dashes():
    tests = ["tests/test_a.py::test_b", "tests/test_a.py::test_b[x - y]", "tests/test_a.py::test_bc"]
    assert named_in("FAILED tests/test_a.py::test_b[x - y] - assert 1 - 1", tests) == tests[1]
    assert named_in("FAILED tests/test_a.py::test_b - assert", tests) == tests[0]
    assert named_in("ERROR tests/test_a.py::test_bc", tests) == tests[2]
    assert named_in("FAILED tests/test_z.py::test_b - assert", tests) is None


def test_a_test_that_fails_without_a_mutant_kills_none(tmp_path):
    class Clean:
        def built(self, mutated: bool) -> bool:
            return not mutated

        def tests(self, tests, cpu_s, fresh):
            return (1 if tests == ["tests/test_a.py::test_broken"] else 0), ""

    calls = Calls(tmp_path / "none.json")
    calls.index()
    calls.seconds = {"tests/test_a.py::test_broken": 0.1, "tests/test_a.py::test_sound": 0.2}
    mutant = next(iter(sampled(0, 40, ["scaling"])[0]))
    calls._by_file[mutant.file.removeprefix("servegen_gpu/")] = list(calls.seconds)
    assert calls.tests(mutant, 10, more=False) == list(calls.seconds)
    assert not calls.holds("tests/test_a.py::test_broken", Clean())
    assert calls.holds("tests/test_a.py::test_sound", Clean())
    assert calls.tests(mutant, 10, more=False) == ["tests/test_a.py::test_sound"]
