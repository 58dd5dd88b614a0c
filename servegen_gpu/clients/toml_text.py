"""TOML files, which are hostile: bounded before they are parsed.

Python's parser spends memory with the square of the dots in a key, and about a hundred times the size of a file of
small tables; so keys and files are short. Long data belongs into CSV files (see `beside`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from servegen_gpu.clients.where import Where
from servegen_gpu.errors import ProfileError

MAX_FILE_BYTES = 4 << 20
MAX_DOTS = 8
_DOTTED = re.compile(rf"(?:\.[^.,=\[\]{{}}\"']*){{{MAX_DOTS + 1}}}")
_AFTER_QUOTES = re.compile(r"[\"'][ \t]*\.")


def read_toml(path: Path) -> tuple[dict[str, Any], Where]:
    """The top-level table of a TOML file of at most 4 MiB, and its place."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ProfileError("a readable TOML file", f"{path}: {error}", "check the path") from None
    if len(data) > MAX_FILE_BYTES:
        limit = f"a TOML file of at most {MAX_FILE_BYTES >> 20} MiB"
        raise ProfileError(limit, f"{path}: more", "put samples into CSV files beside it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError("UTF-8 text", f"{path}, line {line}: other bytes", "save it as text") from None
    return parse_toml(text, path)


def parse_toml(text: str, path: Path) -> tuple[dict[str, Any], Where]:
    """The top-level table of the text of a TOML file, and its place."""
    import tomllib

    _check_dots(text, path)
    try:
        return tomllib.loads(text), Where(path, text)
    except (ValueError, RecursionError) as error:  # ValueError: tomllib's own, and numbers with too many digits
        got = "tables too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise ProfileError("a TOML file", f"{path}: {got}", "mend it there") from None


def _check_dots(text: str, path: Path) -> None:
    """Refuse dotted keys that are longer than any of ours."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") <= MAX_DOTS:
            continue
        before, sign, _ = line.partition("#")
        code = before if sign and '"' not in before and "'" not in before else line
        if _DOTTED.search(code) or len(_AFTER_QUOTES.findall(code)) > MAX_DOTS:
            raise ProfileError(f"keys with at most {MAX_DOTS} dots", f"{path}, line {number}: more", "shorten the key")
