"""Mutators of bytes and of lines and tokens of text; `structured.py` has those that know a format."""

from __future__ import annotations

import re
from random import Random

from fuzz import hostile
from fuzz.kind import Good, Kind

MOST_BYTES = 1 << 22
"""A mutated file is not larger."""

_VALUE = re.compile(rb"\"[^\"\n]*\"|'[^'\n]*'|(?<![\w.])[-+]?\d[\w.+-]*|\[[^\[\]]*\]|\{[^{}]*\}|true|false|null")
_KEY = re.compile(rb"(?<!\w)[A-Za-z_]\w*(?=[ \t]*[=:\]])|\"[^\"\n]*\"(?=[ \t]*:)")


def flip(data: bytes, random: Random) -> bytes:
    """One to eight bytes are others."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if changed else 0):
        changed[random.randrange(len(changed))] = random.choice((random.randrange(256), *b'\x00\xff"{[,\n\x1b-.eE'))
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """A piece is missing, often the end."""
    begin = random.randrange(len(data) + 1)
    return data[:begin] if random.random() < 0.6 else data[:begin] + data[begin + random.randint(1, 64) :]


def insert(data: bytes, random: Random) -> bytes:
    """Something more at one place."""
    extra = random.choice(
        (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"#", b'"', b",", b"\x1b[2J", b"9" * 400)
    )
    at = random.choice((0, len(data), random.randrange(len(data) + 1)))
    return data[:at] + extra + data[at:]


def repeat(data: bytes, random: Random) -> bytes:
    """A piece comes again, up to a thousand times."""
    begin = random.randrange(len(data) + 1)
    piece = data[begin : begin + random.randint(1, 200)]
    times = min(random.choice((1, 2, 10, 1000)), MOST_BYTES // max(len(piece), 1))
    return data[:begin] + piece * times + data[begin:]


def empty(data: bytes, random: Random) -> bytes:
    """Nothing, or nothing but white space."""
    return random.choice((b"", b"\n", b" \t\n", b"\x00" * 100))


BYTES = (flip, flip, cut, insert, repeat, empty)


def literal(data: bytes, random: Random, of: str) -> bytes:
    """One value of a text is a hostile one."""
    return _replaced(data, _VALUE, random, _literal(of, random))


def key(data: bytes, random: Random, of: str) -> bytes:
    """One key is another: of another place, hostile, or long."""
    names = [match[0] for match in _KEY.finditer(data)] or [b"a"]
    word = random.choice((*names, *names, b"", b'"\\u001b"', b"a" * 5000, b"a.b", b"__proto__", b'"\xc3\xa9"'))
    return _replaced(data, _KEY, random, word)


def line(data: bytes, random: Random, of: str) -> bytes:
    """A line is missing, comes twice, comes later, or is many."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    what = random.randrange(5)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(other, lines[at])
    elif what == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif what == 3:
        lines[at : at + 1] = [lines[at]] * random.choice((2, 30, 3000))
    else:
        del lines[at : at + random.randint(1, 20)]
    return b"".join(lines)[:MOST_BYTES]


TEXT = (literal, literal, literal, key, line)


def _literal(of: str, random: Random) -> bytes:
    make = {"toml": hostile.toml_literal, "csv": hostile.cell}.get(of, hostile.json_literal)
    return make(random).encode("utf-8", "surrogatepass")


def _replaced(data: bytes, pattern: re.Pattern[bytes], random: Random, by: bytes) -> bytes:
    places = [match.span() for match in pattern.finditer(data[: 1 << 16])]
    if not places:
        return data + by
    begin, end = random.choice(places)
    return data[:begin] + by + data[end:]


def mutated(good: Good, kind: Kind, random: Random) -> tuple[Good, list[str]]:
    """A good input with some things wrong, and what was done to it; one in fifty is left as it is."""
    from fuzz.structured import mutate_file

    if random.random() < 0.02:
        return good, []
    files, words, done = dict(good.files), good.words, []
    names = tuple(files) if good.change is None else good.change
    for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3))):
        if kind.hostile_words and (not names or random.random() < 0.8):
            words, what = _mutated_words(words, kind.hostile_words, random)
        elif names:
            name = random.choice(names)
            files[name], what = mutate_file(name, files[name], random)
            what = f"{what} in {name}"
        else:
            continue
        done.append(what)
    return Good(files, words, good.change), done


def _mutated_words(
    words: tuple[str, ...], known: dict[str, tuple[str, ...]], random: Random
) -> tuple[tuple[str, ...], str]:
    """A command line with one option changed, added, repeated or left out."""
    option = random.choice(list(known))
    value = random.choice(known[option]) if known[option] and random.random() < 0.5 else hostile.word(random)
    there = [i for i, word in enumerate(words) if word.split("=")[0] == option]
    if there and random.random() < 0.8:
        at = there[0]
        return (*words[:at], f"{option}={value}", *words[at + 1 :]), f"{option}={value[:60]!r}"
    if there and random.random() < 0.3:
        return (*words[: there[0]], *words[there[0] + 1 :]), f"no {option}"
    return (*words, f"{option}={value}"), f"and {option}={value[:60]!r}"
