"""The one check of traces that are read: a file may say anything, and nothing is believed before it came here.

What the parts of a file say of themselves (provenance, types, numbers of rows) is checked by `provenance_of`,
`types_of` and `number_of`, which raise ValueErrors; what requests say of one another by `checked`, slab by slab.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from servegen_gpu.errors import OptionError, printable
from servegen_gpu.options import MAX_TIME_S
from servegen_gpu.request import by_hand
from servegen_gpu.trace import Trace

MOST_BYTES = 1 << 24
"""Of a provenance, and of a file beside a trace."""
MOST_DEPTH = 64
MOST_ROWS = 2**62
AGAIN = "the file was changed or is damaged: generate or convert the trace again"

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def json_of(text: bytes) -> Any:
    """Finite numbers within 64 bits, text, lists and objects from UTF-8 JSON; halves of surrogate pairs become escapes.

    Raises
    ------
    ValueError
        If it is no JSON, has other numbers, or is larger or deeper than any provenance.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text):,} bytes of JSON, more than {MOST_BYTES:,}")
    if (depth := depth_of(text)) > MOST_DEPTH:  # parsers run out of stack
        raise ValueError(f"brackets nested {depth:,} deep, more than {MOST_DEPTH}")
    found = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_number, parse_float=_finite, parse_int=_whole)
    return _unicode(found) if b"\\ud" in text.lower() else found


def depth_of(text: bytes) -> int:
    """How deep brackets are inside brackets at most, but for those in strings."""
    raw = np.frombuffer(_STRING.sub(b"", text), np.uint8) | 0x20  # makes one of the two kinds of brackets
    opens, closes = np.flatnonzero(raw == ord("{")), np.flatnonzero(raw == ord("}"))
    return int((np.arange(1, len(opens) + 1) - np.searchsorted(closes, opens)).max(initial=0))


def provenance_of(found: Any) -> dict[str, Any]:
    """A provenance: a JSON object."""
    if not isinstance(found, dict):
        raise ValueError(f"a provenance that is no object but {printable(str(found)[:60])}")
    return found


def number_of(found: Any, what: str) -> int:
    """A number of rows or bytes."""
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < MOST_ROWS:
        raise ValueError(f"{what} {printable(str(found)[:60])}")
    return found


def types_of(found: Any) -> dict[str, str]:
    """Types of the columns of a trace by their names, as `Trace.schema` gives them."""
    if not isinstance(found, dict) or not found:
        raise ValueError("no types of columns")
    for name, kind in found.items():
        known = by_hand.NUMBERS.get(name) or by_hand.LISTS.get(name)
        wanted = {np.dtype(known).name} if known else _INTEGERS
        listed = isinstance(kind, str) and kind.startswith("list<") and kind.endswith(">")
        item = kind[5:-1] if listed else kind
        if not isinstance(item, str) or item not in wanted or (known and listed != (name in by_hand.LISTS)):
            raise ValueError(f"the column {name[:60]!r} of type {str(kind)[:60]!r}")
    return found


def checked(
    slabs: Iterable[Trace], source: str | os.PathLike[str], rows: int | None = None, *, own: bool = True
) -> Iterator[Trace]:
    """The slabs of one trace, each looked at before it is given.

    Parameters
    ----------
    slabs : iterable of Trace
    source : path
        For messages.
    rows : int, optional
        How many there are to be.
    own : bool
        Lists of ids of blocks have one for every block, as in traces of this package.

    Raises
    ------
    OptionError
        If columns, types or numbers of rows differ from slab to slab, times go back or begin before 0, tokens are
        negative or more than those that they are a part of, or lists have others than they should.
    """
    columns: dict[str, str] | None = None
    first = count = last_us = 0
    for slab in slabs:
        if columns is None:
            columns, first = slab.schema(), slab.first_row
        if slab.schema() != columns:
            _refuse(source, f"the columns {columns} in every part", f"{slab.schema()}")
        if slab.first_row != first + count:
            _refuse(source, f"row {first + count:,} next", f"row {slab.first_row:,}")
        try:
            by_hand.check(slab.columns, slab.provenance if own else {}, slab.first_row)
        except OptionError as error:
            got, fix = f"{error.got} of {os.fspath(source)}", AGAIN if own else error.fix
            raise OptionError(error.expected, got, fix) from error
        if len(slab) and isinstance(time_us := slab.columns.get("arrival_us"), np.ndarray):
            if time_us[0] < last_us:
                got = f"{time_us[0]} us after {last_us} us in row {slab.first_row:,}"
                _refuse(source, "requests in order of time (arrival_us)", got)
            last_us = int(time_us[-1])
            if last_us > MAX_TIME_S * 1e6:
                _refuse(source, f"times within {MAX_TIME_S:.0f} s (270 years)", f"arrival_us {last_us}")
        count += len(slab)
        if rows is not None and count > rows:
            _refuse(source, f"{rows:,} rows, as its provenance says", "more")
        yield slab
        del slab  # not kept while the next one is read
    if rows is not None and count < rows:
        _refuse(source, f"{rows:,} rows, as its provenance says", f"{count:,}")


def _refuse(source: str | os.PathLike[str], expected: str, got: str) -> NoReturn:
    raise OptionError(expected, f"{got} in {os.fspath(source)}", AGAIN)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} as a number")


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        _refuse_number(text[:40])
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**64) < (number := int(text)) < 2**64:
        _refuse_number(text[:40])
    return number


def _unicode(value: Any) -> Any:
    """The same with text that can be encoded: names of files that are no Unicode become escapes."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_unicode(item) for item in value]
    if isinstance(value, Mapping):
        return {_unicode(key): _unicode(item) for key, item in value.items()}
    return value
