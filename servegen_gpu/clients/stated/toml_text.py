"""TOML files, which are hostile: bounded before they are parsed.

Python's parser spends memory with the square of the dots in a key, and about a hundred times the size of a file of
small tables; so keys and files are short. Long data belongs into CSV files (see `beside`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from servegen_gpu.clients.stated.where import Where
from servegen_gpu.errors import ProfileError
from servegen_gpu.text import read_text

MAX_FILE_BYTES = 4 << 20
MAX_DOTS = 8
_DOTTED = re.compile(rf"(?:\.[^.,=\[\]{{}}\"']*){{{MAX_DOTS + 1}}}")
_AFTER_QUOTES = re.compile(r"[\"'][ \t]*\.")


def read_toml(path: Path) -> tuple[dict[str, Any], Where]:
    """The top-level table of a TOML file of at most 4 MiB, and its place."""
    text = read_text(path, "TOML file", MAX_FILE_BYTES, _refuse, smaller="put samples into CSV files beside it")
    return parse_toml(text, path)


def _refuse(expected: str, got: object, fix: str) -> NoReturn:
    raise ProfileError(expected, f"{got}", fix)


def parse_toml(text: str, path: Path) -> tuple[dict[str, Any], Where]:
    """The top-level table of the text of a TOML file, and its place."""
    import tomllib

    _check_dots(text, path)
    try:
        return tomllib.loads(text), Where(path, text)
    except (ValueError, RecursionError) as error:  # ValueError: tomllib's own, and numbers with too many digits
        got = "tables too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise ProfileError("a TOML file", f"{path}: {got}", "fix it there") from None


def _check_dots(text: str, path: Path) -> None:
    """Refuse dotted keys that are longer than any of ours."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") <= MAX_DOTS:
            continue
        before, sign, _ = line.partition("#")
        code = before if sign and '"' not in before and "'" not in before else line
        if _DOTTED.search(code) or len(_AFTER_QUOTES.findall(code)) > MAX_DOTS:
            raise ProfileError(f"keys with at most {MAX_DOTS} dots", f"{path}, line {number}: more", "shorten the key")
