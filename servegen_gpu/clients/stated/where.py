"""Where in a TOML file something is: for messages, with the line where it can be found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from servegen_gpu.errors import ProfileError, nearest


@dataclass(frozen=True)
class Where:
    """A place in a file: keys, and numbers of list items from 0.

    Attributes
    ----------
    path : Path
        Of the file; data files beside it are found from here.
    text : str
        Of the file; empty where there is none.
    keys : tuple of str and int
    """

    path: Path
    text: str = ""
    keys: tuple[str | int, ...] = ()

    def __truediv__(self, key: str | int) -> Where:
        return Where(self.path, self.text, (*self.keys, key))

    def __str__(self) -> str:
        line = self.line()
        place = "".join(f" {key + 1}" if isinstance(key, int) else f", {key}" for key in self.keys)
        return f"{self.path}{f', line {line}' if line else ''}{place}"

    def line(self) -> int | None:
        """Line of the innermost key that can be found."""
        found, begin, end = None, 0, len(self.text)
        for key, after in zip(self.keys, (*self.keys[1:], None), strict=False):
            if isinstance(key, int):
                continue
            headers = [m.start() for m in _matches(rf"^[ \t]*\[\[[ \t]*{re.escape(key)}[ \t]*\]\]", self.text)]
            if isinstance(after, int) and after < len(headers) and not found:
                begin = found = headers[after]
                end = headers[after + 1] if after + 1 < len(headers) else end
                continue
            pattern = rf"(?:^|[\s{{,.\[])[\"']?{re.escape(key)}[\"']?[ \t]*[=.\]]"
            match = next((m for m in _matches(pattern, self.text[begin:end])), None)
            if match is None:
                break
            begin = found = begin + match.end() - 1
        return None if found is None else self.text.count("\n", 0, found) + 1

    def refuse(self, expected: str, got: object, fix: str) -> NoReturn:
        """Raise a `ProfileError` that names this place."""
        raise ProfileError(expected, f"{self}: {got}", fix)

    def check_keys(self, table: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()) -> None:
        """Refuse keys that are not known, with the nearest that is, and missing ones."""
        known = list(known)
        for key in table:
            if key not in known:
                near = nearest(key, known)
                fix = f"did you mean {near!r}?" if near else "remove it"
                (self / key).refuse(f"one of the keys {', '.join(known)}", f"unknown key {key[:60]!r}", fix)
        if missing := [key for key in needed if key not in table]:
            self.refuse(f"the key {missing[0]!r}", "a table without it", "add it")

    def table(self, value: Any) -> dict[str, Any]:
        """A value that must be a table."""
        if not isinstance(value, dict):
            self.refuse("a table of keys and values", shown(value), "write { … }")
        return value

    def list(self, value: Any) -> list[Any]:
        """A value that must be a list with something in it."""
        if not isinstance(value, list) or not value:
            self.refuse("a list, not empty", shown(value), "write [ … ]")
        return value

    def text_of(self, value: Any) -> str:
        """A value that must be text."""
        if not isinstance(value, str) or not value or not value.isprintable():
            self.refuse("text", shown(value), 'write it as "…"')
        return value


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _matches(pattern: str, text: str) -> Iterable[re.Match[str]]:
    """Matches outside of comments."""
    for match in re.finditer(pattern, text, re.MULTILINE):
        start = match.end() - 1
        if "#" not in text[text.rfind("\n", 0, start) + 1 : start]:
            yield match
