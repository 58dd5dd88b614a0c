"""Times, lengths and ids of foreign files: exact, tolerant, and refused in words with line, column and value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.reading import csv_lines, sources, text_blocks
from servegen_gpu.formats.reading.units import Spread, unit_of

HEADER = "time,input,output\n"


def written(tmp_path: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read_times(path: Path, times: list[str], separator: str = ",", **keywords: Any) -> list[int]:
    body = "".join(separator.join((time, "1", "2")) + "\n" for time in times)
    path.write_text(HEADER.replace(",", separator) + body)
    return sg.read_trace(path, **keywords)["arrival_us"].tolist()


# -- times ------------------------------------------------------------------------------------------------------------

PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("times") / "t.csv"


@settings(deadline=None)
@given(
    st.lists(st.decimals(0, 10**9, places=9), min_size=1, max_size=20),
    st.sampled_from(sorted(PER_S)),
    st.sampled_from([Decimal(0), Decimal(1_700_000_000)]),
)
def test_numbers_are_exact_in_every_unit(path, seconds, unit, epoch):
    """To the microsecond, halves up, by fractions; numbers of nanoseconds have no part."""
    stated = [(epoch + time) * PER_S[unit] for time in seconds]
    stated = [
        time if unit in ("s", "ms") else time.quantize(Decimal("0.001" if unit == "us" else "1")) for time in stated
    ]
    since_ns = sorted((Fraction(time) - Fraction(min(stated))) * 10**9 / PER_S[unit] for time in stated)
    nearest_ns = [int(time + Fraction(1, 2)) for time in since_ns]
    expected = [(time + 500) // 1000 for time in nearest_ns]
    found = read_times(path, [f"{time:f}" for time in stated], unit=unit)
    assert np.abs(np.array(found) - expected).max() <= (unit == "ms")  # nine digits of a millisecond are kept
    if unit != "ms":
        assert found == expected


@pytest.mark.parametrize(
    ("date", "hours"),
    [
        ("14:00:00-03:30", 17.5),
        ("14:00:00 -03:30", 17.5),
        ("14:00:00 +03:30", 10.5),
        ("14:00:00-11", 25),
        ("14:00Z", 14),
    ],
)
def test_offsets_from_utc_have_a_sign(tmp_path, date, hours):
    rows = ["2024-05-10T00:00:00Z", f"2024-05-10T{date}", "2024-05-12T00:00:00Z"]
    path = tmp_path / "t.csv"
    path.write_text("timestamp,input,output\n" + "".join(f"{time},1,1\n" for time in rows))
    assert sg.read_trace(path)["arrival_us"].tolist() == [0, int(hours * 3_600_000_000), 172_800_000_000]


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)), min_size=1, max_size=20),
    st.sampled_from(["", "Z", " UTC", "+00:00", "+0530", "-08", "mixed"]),
    st.sampled_from([" ", "T"]),
    st.sampled_from([".", ","]),
    st.integers(0, 999),
)
def test_dates_are_exact_however_they_are_spelled(path, dates, zone, between, point, rest_ns):
    texts, instants = [], []
    for at, date in enumerate(dates):
        own = ["Z", "+02:00", " UTC", "-0730"][at % 4] if zone == "mixed" else zone
        offset = {"+0530": 330, "-08": -480, "+02:00": 120, "-0730": -450}.get(own, 0)
        texts.append(f"{date:%Y-%m-%d}{between}{date:%H:%M:%S}{point}{date.microsecond:06}{rest_ns:03}{own}")
        utc = date.replace(tzinfo=timezone(timedelta(minutes=offset)))
        instants.append((utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    assert read_times(path, [f'"{text}"' for text in texts]) == sorted(time - min(instants) for time in instants)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([1_700_000_000, 1_700_000_002], "s"),
        ([1_700_000_000_000, 1_700_000_002_000], "ms"),
        ([1_700_000_000_000_000, 1_700_000_002_000_000], "us"),
        ([1_700_000_000_000_000_000, 1_700_000_002_000_000_000], "ns"),
        ([140 * at for at in range(20)], "ms"),
        ([at // 3 for at in range(20)], "s"),
        ([0.25 * at for at in range(20)], "s"),
        ([at * 3_000_000_000 for at in range(20)], "ns"),
    ],
)
def test_units_are_told_by_size_and_rate(path, times, unit):
    expected = [(time - times[0]) * 10**6 / PER_S[unit] for time in times]
    assert read_times(path, [str(time) for time in times]) == expected
    assert sg.read_trace(path).provenance["unit"] == unit


@pytest.mark.parametrize(("unit", "least"), [("s", 10**9), ("ms", 10**12), ("us", 10**15), ("ns", 10**18)])
def test_numbers_of_a_time_since_2001_tell_their_unit(unit, least):
    def told(low: int, high: int) -> str:
        return unit_of(Spread(2, low, high, whole=True, fine=False), "s", "t.csv")[1]

    assert told(least, 10 * least - 1024).endswith(" since 1970, by their size")
    for low, high in ((least - 1024, least), (least // 2, least // 2 + 1), (9 * least, 10 * least)):
        assert told(low, high) == "seconds, as usual in this format"


@pytest.mark.parametrize(
    ("columns", "stated"),
    [
        ("arrival_us,input_tokens,output_tokens", 1),
        ("arrival_time_us,input_tokens,output_tokens", 1),
        ("arrival_time_ns,input_toks,output_toks", 1000),
    ],
)
def test_units_that_columns_name_are_believed(path, columns, stated):
    """Also where numbers look like seconds since 1970, or like times in another unit by their rate."""
    for first, step in ((1_700_000_000, 3000), (0, 3000), (0, 10**10)):
        path.write_text(f"{columns}\n" + "".join(f"{first + step * k * stated},1,2\n" for k in range(30)))
        assert set(np.diff(sg.read_trace(path)["arrival_us"])) == {step}


def test_units_that_cannot_be_told_are_refused(path):
    with pytest.raises(
        OptionError, match=r"whose unit can be told.*0\.1 requests/s in seconds, 100 requests/s in mill.*--unit"
    ):
        read_times(path, [str(10 * at) for at in range(20)])
    assert read_times(path, [str(10 * at) for at in range(20)], unit="ms")[-1] == 190_000
    renamed = path.read_text().replace("time,", "time_ms,")
    path.write_text(renamed)
    assert sg.read_trace(path)["arrival_us"][-1] == 190_000


MS, S, DOUBT = "ms", "s", "doubt"
GAPS = [1e-4, 0.01, 0.3, 3.0, 30.0, 300.0, 30_000.0]


@pytest.mark.parametrize(
    ("usual", "whole", "fine", "expected"),
    [
        #                      gap 1e-4   0.01   0.3    3      30     300  30,000 of the number
        ("ms", True, False, [MS, DOUBT, DOUBT, MS, MS, MS, MS]),
        ("ms", False, False, [MS, DOUBT, DOUBT, MS, MS, MS, MS]),
        ("ms", False, True, [MS, S, S, S, S, MS, MS]),
        ("s", True, False, [S, S, S, S, S, MS, DOUBT]),
        ("s", False, True, [S, S, S, S, S, S, S]),
        (None, True, False, [DOUBT, S, S, DOUBT, DOUBT, MS, DOUBT]),
        (None, False, False, [S, S, S, DOUBT, DOUBT, MS, DOUBT]),
        (None, False, True, [S, S, S, S, S, MS, DOUBT]),
    ],
)
def test_the_table_of_units(usual, whole, fine, expected):
    for gap, unit in zip(GAPS, expected, strict=True):
        times = Spread(1001, 0.0, 1000 * gap, whole, fine)
        try:
            found = unit_of(times, usual, "t.csv")[0]
        except OptionError:
            found = DOUBT
        assert found == unit, gap


# -- lengths ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9),
    st.sampled_from(["{}", "{}.0", " {} ", "{}.", "+{}", "{}e0"]),
)
def test_whole_tokens_however_they_are_spelled(path, tokens, spelled):
    path.write_text(HEADER + "".join(f"{at},{spelled.format(n)},0\n" for at, n in enumerate(tokens)))
    assert sg.read_trace(path, unit="s")["input_tokens"].tolist() == tokens


def test_decimal_commas_where_semicolons_part_columns(path):
    found = read_times(path, ["0,25", "1,5", "2,123456"], ";", unit="s")
    assert found == [0, 1_250_000, 1_873_456]


def test_columns_of_any_type(tmp_path):
    given_ = {
        "time": pa.array([Decimal("0.000001"), Decimal("1.5")]),
        "input": pa.array([1, 2], pa.uint64()),
        "output": pa.array(["3", "4"]).dictionary_encode(),
        "client": pa.array(["x", "y"], pa.large_string()),
        "hash_ids": pa.array([[1], None], pa.large_list(pa.int32())),
    }
    trace = sg.read_trace(pa.table(given_), unit="s")
    assert trace["arrival_us"].tolist() == [0, 1_499_999]
    assert trace["output_tokens"].tolist() == [3, 4]
    assert [ids.tolist() for ids in trace["hash_ids"]] == [[1], []]
    for type_ in (pa.timestamp("s"), pa.timestamp("ms", "Asia/Tokyo"), pa.date32()):
        times = (
            pa.array([19_000, 19_001] if type_ == pa.date32() else [0, 60], pa.int32()).cast(type_)
            if type_ == pa.date32()
            else pa.array([0, 60], type_)
        )
        found = sg.read_trace(pa.table(given_ | {"time": times}))["arrival_us"]
        assert found[1] > 0


# -- ids --------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9), min_size=1, max_size=30))
def test_names_are_numbered_in_order_of_appearance(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / "t.parquet"
    n = len(names)
    pq.write_table(pa.table({"time": [0.0] * n, "input": [1] * n, "output": [1] * n, "user": names}), path)
    numbers = {name: at for at, name in enumerate(dict.fromkeys(names))}
    whole = all(name.isascii() and name.strip().lstrip("+-").isdigit() for name in names)
    if not whole:
        assert sg.read_trace(path, unit="s")["client"].tolist() == [numbers[name] for name in names]


def test_the_tables_of_names_lie_beside_the_file(tmp_path, capsys):
    path = written(tmp_path, 'time,input,output,user,session\n0,1,2,"a, b",x\n1,1,2,c,\n2,1,2,"a, b",x\n')
    assert main(["convert", str(path), "--unit", "s", "-o", f"{tmp_path}/out.parquet"]) == 0
    assert (tmp_path / "out.parquet.clients.csv").read_text() == 'id,client\n0,"a, b"\n1,c\n'
    assert (tmp_path / "out.parquet.sessions.csv").read_text() == "id,session\n0,x\n"
    assert "clients by their number: " in capsys.readouterr().err
    trace = sg.read_trace(tmp_path / "out.parquet")
    assert trace["client"].tolist() == [0, 1, 0]
    assert trace["conversation"].tolist() == [0, -1, 0]


# -- the command line -------------------------------------------------------------------------------------------------


def test_every_command_takes_foreign_files(tmp_path, capsys):
    text = "Zeit;ein;aus;wer;gespräch\n" + "".join(
        f"{i // 10},{i % 10};{i % 97 + 1};{i % 7 + 1};{i % 5};g{i % 40}\n" for i in range(4_000)
    )
    path = str(written(tmp_path, text))
    given_ = [
        "--time",
        "Zeit",
        "--input",
        "ein",
        "--output-tokens",
        "aus",
        "--client",
        "wer",
        "--session",
        "gespräch",
        "--unit",
        "s",
    ]
    assert main(["inspect", path, *given_]) == 0
    said = capsys.readouterr()
    assert "4,000 in 400 s" in said.out
    assert "ids of sessions numbered" in said.err
    assert main(["inspect", path, *given_[:4], "--output", *given_[5:], "--json"]) == 0
    assert main(["scale", path, *given_, "--factor", "2", "-o", f"{tmp_path}/s.parquet"]) == 0
    assert sg.read_trace(tmp_path / "s.parquet")["arrival_us"][1] == 50_000
    assert (
        main(["generate", path, *given_, "--naive", "poisson", "--duration", "100s", "-o", f"{tmp_path}/n.parquet"])
        == 0
    )
    assert 800 < len(sg.read_trace(tmp_path / "n.parquet")) < 1_200  # ten standard deviations
    capsys.readouterr()
    assert main(["convert", path, *given_, "--to", "jsonl", "-o", f"{tmp_path}/c.jsonl", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


# -- bad input --------------------------------------------------------------------------------------------------------

GOOD = "0,1,2\n" * 30
LINE = '{"timestamp":0,"input_length":1,"output_length":2}\n'
BAD: dict[str, tuple[str | bytes, str]] = {
    "cut short": (HEADER + GOOD + "5,6", r"3 fields, as the first line has, got others: '5,6' in .*t\.csv, line 32"),
    "too many": (HEADER + GOOD + "5,6,7,8\n" + GOOD, "3 fields.*'5,6,7,8' in .*line 32"),
    "a word": (HEADER + GOOD + "5,six,7\n", "whole tokens, got 'six' in .*line 32, column 'input'"),
    "half a token": (HEADER + GOOD + "5,6.5,7\n", r"whole tokens, got '6\.5' in .*line 32, column 'input'; round it"),
    "negative": (HEADER + GOOD + "5,-6,7\n", "tokens from 0 to 2,147,483,647, got '-6' in .*line 32, column 'input'"),
    "too large": (HEADER + GOOD + "5,6,2147483648\n", "tokens from 0 .*'2147483648' in .*line 32, column 'output'"),
    "infinite": (HEADER + GOOD + "5,inf,7\n", "whole tokens, got 'inf' in .*line 32"),
    "missing": (HEADER + GOOD + "5,,7\n", "a value in every row, got '' in .*line 32, .*--missing drop"),
    "NaN": (HEADER + GOOD + "5,6,NaN\n", "a value in every row, got 'NaN' in .*line 32, column 'output'"),
    "no time": (HEADER + GOOD + "soon,6,7\n", "a time as a number, got 'soon' in .*line 32, column 'time'"),
    "no date": (HEADER + "2024-01-01,1,1\n2024-13-01,1,1\n", "ISO 8601 without .*'2024-13-01' in .*line 3"),
    "too far": (HEADER + GOOD + "1e11,6,7\n", "times within"),
    "quotes": (HEADER + '0,"1",2\n\n\n0,"\n\n1",2\n0,x,2\n', "whole tokens, got 'x' in .*line 8, column 'input'"),
    "blank lines": (HEADER + "\n\r\n" + GOOD + "\n5,x,7\n", "whole tokens, got 'x' in .*line 35"),
    "Latin-1": (HEADER.encode() + b"0,\xe9,2\n", "UTF-8 text, got other bytes in .*line 2"),
    "no header": ("1,2,3\n4,5,6\n", "names of columns in the first line .*numbers: '1,2,3'"),
    "header alone": (HEADER, "rows of requests, got none in .*t.csv"),
    "nothing": ("", "an empty file"),
    "blank": ("\n \n\n", "an empty file"),
    "binary": (b"\x7fELF\x02\x01\x01\x00\x00\x00", "a text file, got .*byte 7 is null"),
    "an archive": (b"PK\x03\x04junk", "a zip archive in"),
    "no columns": ("colour,shape\nred,round\n", "a column of time, got .*colour, shape.*name it: --time COLUMN"),
    "two times": ("time,time,input,output\n1,2,3,4\n", "one column 'time' in the first line"),
    "JSON cut short": (LINE + '{"timest', "one JSON object a line, got '{\"timest' in .*line 2"),
    "JSON of a word": (LINE.replace("1", '"x"'), "whole tokens, got 'x' in .*line 1, column 'input_length'"),
    "JSON without a key": (LINE + LINE[:31] + "}", "a value in every row.*line 2, column 'output_length'"),
    "JSON of a list": (LINE.replace("1", "[1]"), "whole tokens.*the column holds list"),
    "JSON of true": (LINE.replace("1", "true"), "whole tokens, got True.*the column holds bool"),
    "JSON array of numbers": ("[1, 2]", "a JSON array of objects, got int in .*item 1"),
    "JSON array cut short": ('[{"timestamp":0}', "a JSON array of objects"),
    "one JSON object": ('{"a":\n{"b": 1}}', "one JSON object a line.*line 1"),
    "Parquet cut short": (b"PAR1abc", "a Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_wrong_is_said_with_its_line(tmp_path, monkeypatch, capsys, name, streamed):
    text, message = BAD[name]
    if streamed:
        monkeypatch.setattr(sources, "SMALL_BYTES", -1)
        monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 64)
    path = written(tmp_path, text)
    unit = {} if "date" in name or "JSON" in name else {"unit": "s"}
    with pytest.raises(OptionError, match=message):
        sg.Trace.concat(list(sg.formats.read_slabs(path, **unit)))
    assert main(["convert", str(path), "-o", f"{tmp_path}/out.parquet", *(("--unit", "s") if unit else ())]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("servegen-gpu: error: expected ")
    assert list(tmp_path.iterdir()) == [path]


def test_directories_and_things_that_are_no_tables(tmp_path):
    with pytest.raises(OptionError, match="files of requests, got none in the directory"):
        sg.read_trace(tmp_path)
    with pytest.raises(OptionError, match="an existing trace"):
        sg.read_trace(tmp_path / "none.csv")
    for given_ in (5, [1, 2], None):
        with pytest.raises(OptionError, match="a path, or a table of pandas, polars or Arrow"):
            sg.read_trace(given_)
    with pytest.raises(OptionError, match="rows of requests, got an empty table"):
        sg.read_trace(pa.table({"time": []}))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(text_blocks, "MAX_LINE_BYTES", 1 << 12)
    for text, message in (
        (HEADER + "0,1," + "2" * 10_000, r"lines of at most .*line 2"),
        (HEADER + '0,1,"' + "2\n" * 10_000, r"lines of at most .*line 2; a quote there has no end"),
        ("t" * 10_000, "lines of at most .*line 1"),
    ):
        with pytest.raises(OptionError, match=message):
            sg.read_trace(written(tmp_path, text), unit="s")


def test_more_columns_than_a_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_lines, "MOST_COLUMNS", 100)
    with pytest.raises(OptionError, match="names of columns in the first line"):
        sg.read_trace(written(tmp_path, ",".join(f"c{at}" for at in range(101)) + "\n"))
    names = HEADER.strip() + "".join(f",c{at}" for at in range(97))
    assert len(sg.read_trace(written(tmp_path, f"{names}\n0,1,2{',' * 97}\n"), unit="s")) == 1


def test_dropping_everything_leaves_no_trace(tmp_path):
    with pytest.raises(OptionError, match=r"rows of requests, got none in .*after those without a value were dropped"):
        sg.read_trace(written(tmp_path, HEADER + ",1,2\n,3,4\n"), missing="drop")


SEEDS = (
    b'time;input;output;user;session\n0,5;1;2;a;x\n1,5;"3\n";4;b;\n',
    b'{"timestamp":0,"input_length":600,"output_length":3,"hash_ids":[1,2]}\n' * 2,
    b'{"session_id":"s","turns":[{"timestamp":0,"text":"a b","output_length":3},{"delay":5,"text":"c"}]}\n',
    b'{"timestamp":1,"requests":[{"prompt_length":3,"output_length":2,"session_id":1}]}\n',
    b'[{"timestamp":1,"input_length":2,"output_length":3,"chat_id":1,"parent_chat_id":-1}]',
    b"Date,Time,PromptTokenCount,CompletionTokenCount\n2023-08-21,0.5,3,4\n",
)
PIECES = (
    b"\n",
    b'"',
    b",",
    b"{}",
    b"[",
    b"}",
    b"null",
    b"-1",
    b"1e400",
    b"NaN",
    b"\xff",
    b"\0",
    b'"\\ud800"',
    b"9" * 30,
)


@settings(deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40), st.sampled_from(PIECES))))
def test_broken_files_are_refused_in_words_or_read(path, seed, changes):
    """Whatever is in a file: a trace that passes the checks of one made by hand, or one sentence."""
    data = bytearray(seed)
    for at, length, piece in changes[:6]:
        data[at : at + length] = piece
    path.write_bytes(data)
    try:
        trace = sg.read_trace(path, missing="drop")
    except OptionError:
        return
    assert len(sg.Trace(trace.columns)) > 0
