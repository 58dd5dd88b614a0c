"""Thrift's compact protocol, in which the footer of a Parquet file is written: as much of it as footers have.

A struct is a dict from a field's number to its type and value, in the order of the bytes; a list is its elements' type
and values. What is not known is kept as it was read, so that a footer of any version passes through.
"""

from __future__ import annotations

import struct
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
STOP = b"\0"

Struct = dict[int, tuple[int, Any]]


def read(data: bytes) -> Struct:
    """The struct that begins where `data` does.

    Raises
    ------
    ValueError
        If it has a type that no footer has.
    """
    return _Reader(data).struct()


def write(fields: Struct) -> bytes:
    """The bytes of a struct: those it was read from, if nothing was changed."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


class _Reader:
    """A place in some bytes, which reading moves on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = (head & 15, self.value(head & 15))
        return fields

    def value(self, kind: int) -> Any:
        if kind in (TRUE, FALSE):  # as a field; the type is the value
            return None
        if kind == BYTE:
            return self.byte()
        if kind in (I16, I32, I64):
            return self.integer()
        if kind == DOUBLE:
            return struct.unpack("<d", self.bytes(8))[0]
        if kind == BINARY:
            return self.bytes(self.varint())
        if kind == LIST:
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.varint()
            if head & 15 in (TRUE, FALSE):
                raise ValueError("expected a footer without lists of booleans")
            return head & 15, [self.value(head & 15) for _ in range(count)]
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"expected a type that footers have, got {kind}")

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def bytes(self, count: int) -> bytes:
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def varint(self) -> int:
        found = shift = 0
        while (byte := self.byte()) >= 128:
            found |= (byte & 127) << shift
            shift += 7
        return found | byte << shift

    def integer(self) -> int:
        zigzag = self.varint()
        return (zigzag >> 1) ^ -(zigzag & 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (kind, value) in fields.items():
        if 0 < number - before < 16:
            out.append(number - before << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        _write_value(out, kind, value)
        before = number
    out += STOP


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind == BYTE:
        out.append(value)
    elif kind in (I16, I32, I64):
        _write_integer(out, value)
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == LIST:
        of, values = value
        out.append(min(len(values), 15) << 4 | of)
        if len(values) >= 15:
            _write_varint(out, len(values))
        for item in values:
            _write_value(out, of, item)
    elif kind == STRUCT:
        _write_struct(out, value)


def _write_varint(out: bytearray, number: int) -> None:
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _write_integer(out: bytearray, number: int) -> None:
    _write_varint(out, number << 1 if number >= 0 else (-number << 1) - 1)
