"""Blocks of text and JSON lines, against the standard library; a planted fault for every message."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import text
from servegen_gpu.formats.reading import text_blocks
from servegen_gpu.formats.reading.json_lines import json_tables
from servegen_gpu.trace import read_trace

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.list_(pa.int64()))])


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "t.jsonl"
    path.write_bytes(data)
    return path


def plainly(data: bytes) -> list[tuple[int, dict]]:
    lines = data.decode().split("\n")
    return [(at, json.loads(line)) for at, line in enumerate(lines, 1) if line.strip()]


def read(path: Path, schema: pa.Schema | None = None) -> list[tuple[int, dict]]:
    return [(rows.line(at), row) for rows in json_tables(path, schema) for at, row in enumerate(rows.table.to_pylist())]


@pytest.mark.parametrize("block_bytes", [8, 64, 1 << 24])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n"])
def test_lines_and_their_numbers(tmp_path, monkeypatch, block_bytes, end):
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    data = "".join(json.dumps({"a": at, "b": [at] * (at % 5)}) + end for at in range(200)).encode()
    assert read(written(tmp_path, data), SCHEMA) == plainly(data)
    assert read(written(tmp_path, data.rstrip()), SCHEMA) == plainly(data)


def test_lines_of_blanks_are_passed_over_and_counted(tmp_path):
    data = b'{"a":1} \n  \n {"a":2}\t\n\n{"a":3}   '
    assert read(written(tmp_path, data)) == [(1, {"a": 1}), (3, {"a": 2}), (5, {"a": 3})]
    with pytest.raises(OptionError, match=r"'x' in .*, line 7 "):
        read(written(tmp_path, data + b"\n \nx \n"))


def test_fields_are_chosen_and_missing_ones_null(tmp_path):
    path = written(tmp_path, b'{"z":{"y":[1,{}]},"a":1}\n{"b":[]}\n{}\n')
    assert [row for _, row in read(path, SCHEMA)] == [{"a": 1, "b": None}, {"a": None, "b": []}, {"a": None, "b": None}]
    assert read(written(tmp_path, b'{"a":1.5}\n')) == [(1, {"a": 1.5})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [None, "gzip", "zstd"])
def test_encodings_and_compression(tmp_path, monkeypatch, encoding, pack):
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 333)
    text = "".join(f'{{"a":{at},"name":"é中😀"}}\n' for at in range(100))
    data = text.encode(encoding)
    if pack == "gzip":
        data = gzip.compress(data[:500]) + gzip.compress(data[500:])  # two members, as log rotation makes them
    elif pack:
        data = pa.compress(data, codec=pack, asbytes=True)
    assert read(written(tmp_path, data)) == plainly(text.encode())


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 100), st.booleans())
def test_any_numbers_in_any_blocks(tmp_path_factory, values, size, blank):
    data = "".join(f'{{"a": {value}}}\n' + "\n" * (blank and value % 3 == 0) for value in values).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "BLOCK_BYTES", size)
        found = read(written(tmp_path_factory.mktemp("json"), data), pa.schema([("a", pa.int64())]))
    assert found == plainly(data)


def test_a_line_longer_than_a_thread_parses(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "PARSE_BYTES", 100)
    data = b'{"a":1}\n' * 30 + json.dumps({"a": 2, "b": list(range(1000))}).encode() + b'\n{"a":3}\n'
    last = [(31, {"a": 2, "b": [*range(1000)]}), (32, {"a": 3, "b": None})]
    assert read(written(tmp_path, data), SCHEMA)[-2:] == last


GOOD = b'{"a":1}\n' * 49 + b"\n"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"a":2', r"""'{"a":2' in .*t\.jsonl, line 51 \(Expecting ',' delimiter.*cut short"""),
        (b"[1, 2]", r"line 51 \(list, not an object"),
        (b"17", r"line 51 \(int, not an object"),
        (b"null", r"line 51 \(NoneType, not an object"),
        (b"  null", r"line 51 \(NoneType, not an object"),
        (b'{"a":2}null', r"line 51 \(Extra data"),
        (b'{"a":2}{"a":3}', r"line 51 \(Extra data"),
        (b'{"a":\n2}', r"line 51 \(Expecting value"),
        (b'{"a":"x"}', r"line 51 \(Column\(/a\) changed from number to string.*fix the value"),
        (b'{"a":2.5}', r"line 51 \(.*couldn't parse:2\.5"),
        (b'{"a":[2]}', r"line 51 \(Column\(/a\) changed from number to array"),
        (b'{"a":9223372036854775808}', r"line 51 \("),
        (b'{"b":7}', r"line 51 \(Column\(/b\) changed"),
        (b'{"a":2,"a":3}', r"line 51 \(Column\(/a\) was specified twice"),
        (b"timestamp,input_length", r"line 51 \(Expecting value"),
        (b'{"a":' * 10_000, r"line 51 \("),
    ],
)
@pytest.mark.parametrize("block_bytes", [16, 1 << 24])
def test_the_first_bad_line_is_named(tmp_path, monkeypatch, bad, message, block_bytes):
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    for after in (b"", b"\n" + GOOD, b"\n" + bad + b"\n"):
        with pytest.raises(OptionError, match=message):
            read(written(tmp_path, GOOD + bad + after), SCHEMA)


@pytest.mark.parametrize("bad", [b"null\n", b"\n null\n" + GOOD, b"null", b"\xef\xbb\xbf\xef\xbb\xbfnull\n"])
def test_a_first_line_of_null_is_refused(tmp_path, bad):
    """Where pyarrow crashes."""
    for schema in (SCHEMA, None):
        with pytest.raises(OptionError, match=r"one JSON object a line.*line [12] "):
            read(written(tmp_path, bad), schema)


NULLED = b'{"a":[null,{"b":1}]}\n{"a":[{"b":2},{"b":3}]}\n'


def test_a_null_before_the_first_object_of_a_list_is_refused(tmp_path):
    """Where pyarrow moves the values after it; a field that is not asked for may have some."""
    with pytest.raises(OptionError, match=r"line 2 \(a null before the first object of a list\)"):
        read(written(tmp_path, b"\n" + NULLED))
    path = tmp_path / "log.jsonl"
    path.write_bytes(NULLED.replace(b'{"a"', b'{"timestamp":1,"input_length":2,"output_length":3,"a"'))
    assert read_trace(path)["output_tokens"].tolist() == [3, 3]


def test_names_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(OptionError, match=r"one JSON object a line.*line 51 \("):
        read(written(tmp_path, GOOD + b'{"\xff":2}\n'))


def test_what_is_no_text_is_refused(tmp_path, monkeypatch):
    for data, message in (
        (b"\x7fELF\0\0", "a text file.*binary file, byte 4 is null"),
        (b"PAR1\0\0\0\0", "a text file.*a Parquet file"),
        (gzip.compress(GOOD)[:20], "a whole gzip file.*t.jsonl"),
        (b"\x28\xb5\x2f\xfd broken", "a whole zstd file"),
        ("{}".encode("utf-16")[:-1], "a text file that can be read.*truncated data"),
    ):
        with pytest.raises(OptionError, match=message):
            read(written(tmp_path, data))
    for path in (tmp_path, tmp_path / "none", "null\0"):
        with pytest.raises(OptionError, match="a text file that can be read"):
            read(path)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(text_blocks, "MAX_LINE_BYTES", 1 << 12)
    with pytest.raises(OptionError, match=r"lines of at most.*line 51"):
        read(written(tmp_path, GOOD + b'{"a":' + b"1" * 10_000 + b"}"))
    assert read(written(tmp_path, b"")) == read(written(tmp_path, b"\n \r\n")) == []


@pytest.mark.parametrize("before", [0, 1, 5])
def test_the_line_of_a_value_of_another_type_is_named(tmp_path, before):
    good = b'{"timestamp":0,"input_length":5,"output_length":2}\n'
    path = written(tmp_path, good * before + b"\n" + b'{"timestamp":0,"input_length":"abc","output_length":2}\n')
    with pytest.raises(OptionError, match=f"'abc' in .*t.jsonl, line {before + 2},"):
        read_trace(path)


def test_deep_nesting_is_refused_without_a_schema(tmp_path):
    """Arrow itself would run out of stack; with a schema, fields of others are passed over."""
    deep = b'{"x": ' + b"[" * 300_000 + b"]" * 300_000 + b"}"
    path = written(tmp_path, b'{"a": 1}\n' * 9 + deep + b'\n{"a": 2}\n')
    with pytest.raises(OptionError, match="line 10"):
        read(path)
    assert len(read(path, SCHEMA)) == 11
    assert read(written(tmp_path, b'{"a": "' + b"[{" * 400 + b'"}\n')) == [(1, {"a": "[{" * 400})]
