"""A pytest plugin that writes which tests call which functions of the package, and how long each takes.

python -m pytest -p mutants.called --called FILE …
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

PACKAGE = str(Path(__file__).resolve().parents[2] / "servegen_gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--called", type=Path, help="the file that gets what each test calls")


class Called:
    """Code of the package that has run since the last test; what a fixture of many tests calls is of all of them."""

    def __init__(self) -> None:
        self.seen: set[CodeType] = set()
        self.of_fixture: dict[int, set[CodeType]] = {}
        self.tests: dict[str, tuple[float, set[CodeType]]] = {}

    def trace(self, frame: FrameType, event: str, arg: object) -> None:
        """Note a call, and do not follow its lines."""
        self.seen.add(frame.f_code)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before, self.seen = self.seen, set()
        try:
            return (yield)
        finally:
            self.of_fixture[id(fixturedef)] = self.seen
            self.seen = before | self.seen

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.seen = set()
        begun = time.process_time()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            for definitions in item._fixtureinfo.name2fixturedefs.values():
                for definition in definitions:
                    self.seen |= self.of_fixture.get(id(definition), set())
            own = {code for code in self.seen if code.co_filename.startswith(PACKAGE)}
            self.tests[item.nodeid] = time.process_time() - begun, own

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        codes = {code: 0 for _, own in self.tests.values() for code in own}
        codes = {code: index for index, code in enumerate(codes)}
        functions = [[code.co_filename[len(PACKAGE) + 1 :], code.co_qualname] for code in codes]
        tests = {name: [round(took, 3), sorted(codes[c] for c in own)] for name, (took, own) in self.tests.items()}
        path = session.config.getoption("--called")
        path.write_text(json.dumps({"functions": functions, "tests": tests}))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--called"):
        config.pluginmanager.register(Called())
