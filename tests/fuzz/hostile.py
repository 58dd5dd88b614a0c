"""Values that break readers: as literals of JSON, TOML, CSV and command lines, as Python objects, and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np

NUMBERS = (
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "-inf", "1e400", "-1e400", "1e308", "-1e308", "1e303"),
    *("1e-300", "5e-324", "-0.0", "0", "-1", "1", "2", "0.5", "1.5", "1e6", "1e12", "1e15", "1e18", "1e30"),
    *(str(10**30), str(2**31 - 1), str(2**31), str(2**32), str(2**53 + 1), str(2**63 - 1), str(2**63), str(-(2**63))),
    *(str(2**64), "0.1e1", "1_000", "0x10", "٣", "1e", "--1", "+1", ".5", "5.", "007"),
)
"""Numbers as text: too large, too small, none, and in other words."""

TEXTS = (
    *("", " ", "a\nb", "a\r\nb", "\x00", "a\x1b[31mb", "\u202eevil", "\ud800", "é" * 40, "nul\u2028l", "x" * 300),
    *("../../etc/passwd", "/dev/null", "/dev/zero", ".", "{}", "{0}", "%s", "None", "true", "-", "--help", "a,b", '"'),
)
"""Texts: empty, with control characters, that turn the direction, that are no Unicode, and paths elsewhere."""

LONG = 100_000
"""Length of what is long."""


def json_literal(random: Random) -> str:
    """A hostile value as JSON has it, or as Python's reader of it takes it."""
    return _literal(random, _JSON, ('{"a":' * LONG, "[" * LONG + "]" * LONG))


def toml_literal(random: Random) -> str:
    """A hostile value as TOML has it."""
    return _literal(random, _TOML, ("{a=" * 1000, "[" * 900 + "]" * 900))


_JSON = ("null", "true", "false", "[]", "{}", "[[]]", '[null, "a", -1]', '{"": null}', "[1e400]")
_TOML = (
    *("true", "[]", "{}", "[[]]", "[0]", "[-1]", "[nan]", '["a", 1]', "{ a = 1 }", "1979-05-27", "''", "07:32:00"),
    *("[1, 2, 3]", "[1e308, 1e308]", '{ kind = "steps", knots = [] }', '{ kind = "constant", value = 1 }'),
)


def _literal(random: Random, values: Sequence[str], deep: Sequence[str]) -> str:
    import json

    choice = random.random()
    if choice < 0.5:
        return random.choice(NUMBERS)
    if choice < 0.75:
        return json.dumps(random.choice(TEXTS))
    if choice < 0.97:
        return random.choice(values)
    return random.choice((*deep, "[" * LONG, "1" * 5000, json.dumps("k" * LONG)))


def cell(random: Random) -> str:
    """A hostile cell of a CSV file."""
    if random.random() < 0.6:
        return random.choice(NUMBERS)
    return random.choice((*TEXTS[:11], "1,2", '"', '"a', "x" * 5000)).encode("utf-8", "replace").decode()


def word(random: Random) -> str:
    """A hostile value of an option; what no command line can hold is left out."""
    if random.random() < 0.6:
        number = random.choice(NUMBERS)
        return number + random.choice(("", "", "", "s", "h", "d", "%", "GB", "rps", "/2", ":", ":1", "k"))
    return random.choice([text.replace("\x00", "") for text in TEXTS] + ["y" * 5000, "1:2:3", "1/0", "0/1", "2/1", "="])


def python_value(random: Random) -> Any:
    """A hostile Python object."""
    objects: tuple[Any, ...] = (
        *(None, True, False, [], {}, (), "", b"1", object(), 1j, print, Ellipsis, float, "1"),
        *(float("nan"), float("inf"), -1, 0, -0.0, 1e308, 1e-300, 10**30, 2**63, 2**64, 0.5, 1.0),
        *(np.float64("nan"), np.int64(-1), np.int64(3), np.array([]), np.array([1.0, 2.0]), np.array(1)),
        *(np.array("a"), np.uint64(2**64 - 1), np.float32(1.5), Decimal("NaN"), Decimal("1.5"), Fraction(1, 3)),
        *([None], [1, 2], [(0, 1)], [(0, "a")], [(0, 1), (0, 2)], {0: 1}, {"a": "b"}, {None: None}, [[[]]], {1}),
        *(np.datetime64("NaT"), "x" * 10_000, (1, 0), (-1, 3), (0, 1, 2), ("1", "2"), range(3), lambda time_s: None),
        *(lambda time_s: "a", lambda time_s: time_s * np.nan, lambda time_s: -time_s - 1, lambda time_s: 1 / 0),
    )
    return random.choice((*objects, *NUMBERS, *TEXTS)) if random.random() < 0.3 else random.choice(objects)
