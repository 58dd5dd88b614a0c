"""Where the numbers of a preset come from, read from the comments of its file.

A comment that begins with an origin counts for its line; on a line of its own, for all lines below it that have none,
up to the next empty line.
"""

from __future__ import annotations

import re

ORIGINS = ("published", "fitted", "assumed")
UNSTATED = "unstated"
_NUMBER = re.compile(r"(?<![\w.\-+])[-+]?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_TEXT = re.compile(r"^\s*(name|category)\s*=")


def numbers_by_line(text: str) -> list[tuple[int, int, str]]:
    """Line (from 1), how many numbers it has and their origin, for every line with numbers."""
    found: list[tuple[int, int, str]] = []
    block = UNSTATED
    for line, whole in enumerate(text.splitlines(), 1):
        content, _, comment = whole.partition("#")
        origin = _origin(comment)
        if not whole.strip():
            block = UNSTATED
        elif not content.strip():
            block = origin or block
        elif not _TEXT.match(content) and (numbers := _NUMBER.findall(content)):
            found.append((line, len(numbers), origin or block))
    return found


def _origin(comment: str) -> str | None:
    first = re.match(r"\s*([a-z]+)", comment)
    return first[1] if first and first[1] in ORIGINS else None


def origins(text: str) -> dict[str, int]:
    """How many numbers are published, fitted, assumed, or of no stated origin."""
    counts = dict.fromkeys((*ORIGINS, UNSTATED), 0)
    for _, numbers, origin in numbers_by_line(text):
        counts[origin] += numbers
    return counts
