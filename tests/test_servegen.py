"""Reading released profiles: the right numbers, and one clear error for every kind of bad file."""

import ast
import json
import logging
import os

import numpy as np
import pytest
from profiles import (
    HISTOGRAMS,
    REAL_DATA,
    dataset,
    needs_real_data,
    trace_row,
    trace_text,
    write_client,
    write_servegen,
)

from servegen_gpu.clients.released import cache
from servegen_gpu.clients.released.histogram_text import parse_histograms
from servegen_gpu.clients.released.servegen import load_servegen, load_servegen_with_notes
from servegen_gpu.errors import OptionError, ProfileError
from servegen_gpu.request.families import EXPONENTIAL, GAMMA, NO_FAMILY, WEIBULL
from servegen_gpu.request.schema import FIELDS


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path_factory.mktemp("cache")))


def load(root, **options):
    return load_servegen(root, "tiny", **({"cache": False} | options))


# the right numbers


@pytest.mark.parametrize("category", list(FIELDS))
def test_reads_a_workload(tmp_path, category):
    write_servegen(tmp_path, category, clients=4)
    pool = load(tmp_path)
    assert (pool.name, pool.category, pool.window_s, pool.first_window) == ("tiny", category, 600, 0)
    assert pool.client_ids.tolist() == [0, 2, 4, 6]
    assert pool.rate_rps.shape == (4, 144)
    assert pool.measured.all()
    assert pool.family[:, 2].tolist() == [GAMMA, WEIBULL, NO_FAMILY, EXPONENTIAL]
    assert pool.shape[:, 10].tolist() == [0.25, 0.3, 4.0, 1.0]
    assert pool.occupancy[:, 10].tolist() == [0.5, 1.0, 1.0, 1.0]
    assert pool.cv[:, 10].tolist() == [2.0, 5.0, 0.5, 1.0]
    silent = pool.rate_rps == 0
    assert np.argwhere(silent[0]).ravel().tolist() == [0, 3]
    for name in ("cv", "family", "shape", "occupancy"):
        assert (getattr(pool, name)[silent] == 0).all()
    assert (pool.table[silent] == -1).all()
    for field, t in zip(pool.fields, pool.table[3, 20], strict=True):
        values, probabilities = pool.tables.table(t)
        expected = {round(k * 501) if field == "reason_ratio" else k: p for k, p in HISTOGRAMS[field].items() if p}
        assert dict(zip(values.tolist(), probabilities.tolist(), strict=True)) == expected


def test_windows_use_the_latest_slot_with_requests(tmp_path):
    data = dataset(slots=4, empty=(1, 3))
    data["43200"]["input_tokens"] = "{7: 1.0}"
    write_client(tmp_path / "language" / "tiny", 0, trace_text(silent=()), data)
    pool = load(tmp_path)
    first = pool.table[0, :, 0]
    assert len(set(first[:72])) == len(set(first[72:])) == 1
    assert pool.tables.table(first[71])[0].tolist() == [5, 90, 2000]
    assert pool.tables.table(first[72])[0].tolist() == [7]
    assert len(pool.tables) == 4


def test_keys_in_any_order_and_off_the_ratio_grid(tmp_path):
    texts = {"input_tokens": "{90: 0.5, 5: 0.5}", "reason_ratio": "{0.5: 0.25, 0.5001: 0.25, 1: 0.25, 0: 0.25}"}
    write_client(tmp_path / "reason" / "tiny", 0, data=dataset("reason", **texts), category="reason")
    pool = load(tmp_path)
    tables = [pool.tables.table(t) for t in pool.table[0, 0]]
    assert tables[0][0].tolist() == [5, 90]
    assert tables[2][0].tolist() == [0, 250, 251, 501]
    assert tables[2][1].tolist() == [0.25] * 4


def test_ratios_on_one_step_become_one_bin():
    tables = parse_histograms(["{0.5: 0.5, 0.4991: 0.25, 0.4992: 0.25}", "{3: 1}"], np.array([True, False]), str)
    assert [v.tolist() for v in tables.table(0)] == [[250], [1.0]]
    assert tables.table(1)[0].tolist() == [3]


def test_unused_files_and_fields_are_ignored(tmp_path):
    directory = write_servegen(tmp_path)
    digest = load(tmp_path).digest()
    (directory / "chunk-x-trace.csv").write_text("not ours")
    (directory / "chunk-1.5-dataset.json").write_text("not ours")
    (directory / "README.md").write_text("not ours")
    (directory / "chunk-77-trace.csv").mkdir()
    assert load(tmp_path).digest() == digest


def test_one_window_and_no_last_line_end(tmp_path):
    write_client(tmp_path / "language" / "tiny", 5, trace_row(1200), dataset())
    pool = load(tmp_path)
    assert (pool.windows, pool.first_window, pool.window_s) == (1, 2, 600)


def test_many_batches_are_one_load(tmp_path, monkeypatch):
    write_servegen(tmp_path, clients=6)
    whole = load(tmp_path).digest()
    monkeypatch.setattr("servegen_gpu.clients.released.servegen.BATCH_BYTES", 10)
    assert load(tmp_path).digest() == whole


# what is missing


def test_trace_without_dataset(tmp_path, caplog):
    directory = write_servegen(tmp_path, clients=4)
    (directory / "chunk-6-dataset.json").unlink()
    with pytest.raises(ProfileError, match=r"1 client \(6\), 65\.\d\d% of the requests.*--drop-incomplete"):
        load(tmp_path)
    pool, notes = load_servegen_with_notes(tmp_path, "tiny", missing="drop", cache=False)
    assert pool.client_ids.tolist() == [0, 2, 4]
    assert len(notes) == 1
    assert "1 client (6) without a dataset file, 65." in notes[0]
    with caplog.at_level(logging.INFO):
        load(tmp_path, missing="drop")
    assert notes[0] in caplog.text


def test_dataset_without_trace(tmp_path):
    (write_servegen(tmp_path) / "chunk-2-trace.csv").unlink()
    with pytest.raises(ProfileError, match=r"trace file.*1 client \(2\)"):
        load(tmp_path, missing="drop")


def test_clients_that_are_never_active_are_left_out(tmp_path):
    write_client(write_servegen(tmp_path), 9, trace_text(rate=0), data=False)
    pool, notes = load_servegen_with_notes(tmp_path, "tiny", cache=False)
    assert pool.client_ids.tolist() == [0, 2, 4]
    assert notes == ("1 client (9) never active: left out",)


def test_nobody_ever_active(tmp_path):
    write_client(tmp_path / "language" / "tiny", 0, trace_text(rate=0))
    with pytest.raises(ProfileError, match="ever active"):
        load(tmp_path)


def test_bad_option():
    with pytest.raises(OptionError, match="missing"):
        load_servegen("anywhere", "tiny", missing="ignore")


def test_wrong_directories(tmp_path):
    with pytest.raises(ProfileError, match=r"no directory .*absent"):
        load(tmp_path / "absent")
    with pytest.raises(ProfileError, match="should hold language, reason, multimodal"):
        load(tmp_path)
    directory = write_servegen(tmp_path)
    write_servegen(tmp_path, "reason", "other")
    with pytest.raises(ProfileError, match=r"unknown workload 'm-huge'.*there are other, tiny"):
        load_servegen(tmp_path, "m-huge")
    with pytest.raises(ProfileError, match="looks like a category"):
        load(tmp_path / "language")
    with pytest.raises(ProfileError, match="looks like a workload"):
        load(directory)
    with pytest.raises(ProfileError, match=r"unknown workload '\.\./language/tiny'"):
        load_servegen(tmp_path, "../language/tiny")
    (tmp_path / "language" / "bare").mkdir()
    with pytest.raises(ProfileError, match=r"chunk-<id>.*none in .*bare"):
        load_servegen(tmp_path, "bare")


def test_two_files_of_one_client(tmp_path):
    write_client(write_servegen(tmp_path), "02")
    with pytest.raises(ProfileError, match="one file a client"):
        load(tmp_path)


def test_client_id_too_large(tmp_path):
    write_client(write_servegen(tmp_path), 2**31)
    with pytest.raises(ProfileError, match="chunk-2147483648"):
        load(tmp_path)


def test_huge_file_is_refused(tmp_path):
    directory = write_servegen(tmp_path)
    with open(directory / "chunk-2-dataset.json", "wb") as file:
        file.truncate(2**30 + 1)  # sparse: takes no space
    with pytest.raises(ProfileError, match=r"1 GiB.*chunk-2-dataset"):
        load(tmp_path)


# bad traces: client 2 of three, most faults in its third line


def replace_line(line, number=3):
    lines = trace_text().splitlines(keepends=True)
    lines[number - 1] = line + "\r\n"
    return "".join(lines)


HERE = r"chunk-2-trace\.csv, line 3 \(client 2, window 1200 s\)"

BAD_TRACES = {
    "truncated line": (replace_line("1200,0.5,2.0"), rf"6 cells.*{HERE}"),
    "truncated file": (trace_text()[:-20], r"6 cells.*chunk-2-trace\.csv, line 144 \(client 2, window 85800 s\)"),
    "too many cells": (replace_line(trace_row(1200) + ",1"), rf"6 cells.*{HERE}"),
    "header": ("time,rate,cv,family,a,b\r\n" + trace_text(), r"no header row.*'time'.*line 1 \(client 2\)"),
    "header on all": (replace_line("t,r,c,f,a,b", 1), r"no header row.*line 1 \(client 2\)"),
    "empty": ("", r"empty file .*chunk-2-trace\.csv, line 1 \(client 2\)"),
    "blank": ("\r\n\r\n", r"empty file .*chunk-2-trace\.csv"),
    "blank last line": (trace_text() + "\r\n", r"6 cells.*line 145"),
    "NaN rate": (replace_line("1200,nan,1,Gamma,1,1"), rf"rate_rps 'nan' in .*{HERE}"),
    "infinite rate": (replace_line("1200,inf,1,Gamma,1,1"), rf"rate_rps 'inf' in .*{HERE}"),
    "overflowing rate": (replace_line("1200,1e999,1,Gamma,1,1"), rf"rate_rps '1e999' in .*{HERE}"),
    "negative rate": (replace_line("1200,-0.5,1,Gamma,1,1"), rf"rate_rps '-0.5' in .*{HERE}"),
    "NaN cv": (replace_line("1200,1,nan,Gamma,1,1"), rf"cv 'nan' in .*{HERE}"),
    "negative cv": (replace_line("1200,1,-1,Gamma,1,1"), rf"cv '-1' in .*{HERE}"),
    "NaN shape": (replace_line("1200,1,1,Gamma,nan,1"), rf"shape 'nan' in .*{HERE}"),
    "infinite shape": (replace_line("1200,1,1,Gamma,-inf,1"), rf"shape '-inf' in .*{HERE}"),
    "zero shape": (replace_line("1200,1,1,Gamma,0,1"), rf"shape > 0.*shape 0 in .*{HERE}"),
    "negative shape": (replace_line("1200,1,1,Gamma,-2,1"), rf"shape '-2' in .*{HERE}"),
    "zero scale": (replace_line("1200,1,1,Weibull,1,0"), rf"scale > 0.*scale 0 in .*{HERE}"),
    "negative scale": (replace_line("1200,1,1,Weibull,1,-3"), rf"scale '-3' in .*{HERE}"),
    "infinite scale": (replace_line("1200,1,1,Weibull,1,inf"), rf"scale 'inf' in .*{HERE}"),
    "no number": (replace_line("1200,fast,1,Gamma,1,1"), rf"rate_rps 'fast' in .*{HERE}"),
    "no value": (replace_line("1200,,1,Gamma,1,1"), rf"rate_rps '' in .*{HERE}"),
    "unknown family": (replace_line("1200,1,1,Pareto,1,1"), rf"Gamma, Weibull.*family 'Pareto' in .*{HERE}"),
    "no family": (replace_line("1200,1,1,,1,1"), rf"family '' in .*{HERE}"),
    "unsorted": (replace_line("60,1,1,Gamma,1,1"), r"same windows.*1200 s.*time_s 60 .*line 3 \(client 2"),
    "duplicate time": (replace_line("600,1,1,Gamma,1,1"), r"same windows.*time_s 600 .*line 3 \(client 2"),
    "fractional time": (replace_line("1200.5,1,1,Gamma,1,1"), r"whole number.*'1200.5' in .*line 3"),
    "negative time": (replace_line("-1200,1,1,Gamma,1,1"), r"whole number.*'-1200' in .*line 3"),
    "other grid": (trace_text(step_s=300), r"same windows.*600 s.*time_s 300 .*line 2 \(client 2, window 300 s\)"),
    "shorter": (trace_text(windows=100), r"144 windows.*100 lines.*chunk-2-trace\.csv \(client 2, window 59400 s"),
    "longer": (trace_text(windows=145), r"144 windows.*145 lines.*chunk-2-trace\.csv"),
    "rubbish": (bytes(range(256)) * 20, r"chunk-2-trace\.csv, line 1 \(client 2\)"),
    "rubbish with line ends": (b"\n".join([b"\xff\xfe,\x00,,\r,,"] * 144), r"chunk-2-trace\.csv, line 1 \(client 2\)"),
    "lone carriage returns": (trace_text().replace("\r\n", "\r"), r"chunk-2-trace\.csv, line 1 "),
    "quotes": (replace_line('"1200",1,1,Gamma,1,1'), r"whole number.*line 3"),
}


@pytest.mark.parametrize(("trace", "message"), BAD_TRACES.values(), ids=BAD_TRACES)
def test_bad_trace(tmp_path, trace, message):
    write_client(write_servegen(tmp_path), 2, trace)
    with pytest.raises(ProfileError, match=message):
        load(tmp_path)


IRREGULAR = {
    "unsorted": ([0, 1200, 600], "chunk-0-trace.csv, line 3.*window 600 s"),
    "gap": ([0, 600, 1800], "1200 s.*chunk-0-trace.csv, line 3.*window 1800 s"),
    "descending": ([1200, 600, 0], "line 1"),
    "duplicate": ([0, 0, 600], "line 1"),
    "off its grid": ([300, 900, 1500], "multiples.*line 1.*window 300 s"),
}


@pytest.mark.parametrize(("times", "message"), IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_grid_of_all_clients(tmp_path, times, message):
    for client in range(2):
        rows = "".join(trace_row(t) + "\n" for t in times)
        write_client(tmp_path / "language" / "tiny", client, rows)
    with pytest.raises(ProfileError, match=f"windows of equal length.*{message}"):
        load(tmp_path)


# bad datasets: client 2 of three


def with_slot(slot, key="0"):
    return dataset() | {key: slot}


def with_text(text, field="input_tokens", category="language"):
    return dataset(category, **{field: text})


FIELD = r"in input_tokens in .*chunk-2-dataset\.json \(client 2, window 0 s\)"
FILE = r"in .*chunk-2-dataset\.json \(client 2"

BAD_DATASETS = {
    "truncated": (json.dumps(dataset())[:-20], rf"complete JSON.*line 1.*{FILE}"),
    "empty": ("", rf"complete JSON.*{FILE}"),
    "deeply nested": ('{"0": ' * 100_000, rf"nested too deeply {FILE}"),
    "a list": ([1, 2], rf"object of slots.*list {FILE}"),
    "slot is a list": (with_slot([1]), rf"object of fields.*list {FILE}, window 0 s"),
    "slot key no number": (with_slot({}, "noon"), rf"whole seconds.*'noon' {FILE}"),
    "negative slot": (with_slot({}, "-600"), rf"whole seconds.*'-600' {FILE}"),
    "slot twice": (with_slot(dataset()["0"], "000"), rf"each slot once.*{FILE}, window 0 s"),
    "key twice": ('{"0": {}, "0": {}}', rf"each key once.*'0' twice {FILE}"),
    "field missing": (with_slot({"input_tokens": "{1: 1.0}"}), rf"output_tokens: nothing {FILE}, window 0 s"),
    "field no text": (with_slot(dataset()["0"] | {"input_tokens": {"1": 1}}), rf"input_tokens: dict {FILE}, window 0"),
    "partly empty": (with_text("{}"), rf"all fields of a slot.*input_tokens: \{{\}} {FILE}, window 0 s"),
    "rubbish": (bytes(range(128, 256)) * 9, rf"JSON.*{FILE}"),
    "no slot for the start": ({"21600": dataset()["0"]}, r"at or before.*chunk-2-dataset\.json \(client 2, window 0 s"),
    "all empty": (dataset(empty=range(4)), r"at or before.*client 2, window 0 s"),
    "NaN": (with_text("{1: nan, 2: 1.0}"), rf"finite probability.*'nan' of '1' {FIELD}"),
    "infinite": (with_text("{1: 1.0, 2: inf}"), rf"finite probability.*'inf' of '2' {FIELD}"),
    "overflowing": (with_text("{1: 1e999}"), rf"finite probability.*'1e999' of '1' {FIELD}"),
    "negative": (with_text("{1: 1.5, 2: -0.5}"), rf"probability >= 0.*'-0.5' of '2' {FIELD}"),
    "sum too small": (with_text("{1: 0.5, 2: 0.49}"), rf"sum to 1, got a sum of 0.99 {FIELD}"),
    "sum too large": (with_text("{1: 0.5, 2: 0.500002}"), rf"sum to 1, got a sum of 1.000002 {FIELD}"),
    "sum zero": (with_text("{1: 0.0}"), rf"sum to 1, got a sum of 0 {FIELD}"),
    "negative tokens": (with_text("{-1: 1.0}"), rf"whole numbers from 0.*'-1' {FIELD}"),
    "tokens beyond int32": (with_text("{2147483648: 1.0}"), rf"2\*\*31 - 1.*'2147483648' {FIELD}"),
    "tokens beyond all": (with_text("{1e300: 1.0}"), rf"2\*\*31 - 1.*'1e300' {FIELD}"),
    "half a token": (with_text("{1.5: 1.0}"), rf"whole numbers.*'1.5' {FIELD}"),
    "no number": (with_text("{many: 1.0}"), rf"histogram.*'many: 1.0' {FIELD}"),
    "NaN tokens": (with_text("{nan: 1.0}"), rf"histogram.*'nan: 1.0' {FIELD}"),
    "duplicate key": (with_text("{7: 0.5, 7: 0.5}"), rf"each key once.*'7' twice {FIELD}"),
    "duplicate key, apart": (with_text("{7: 0.25, 8: 0.5, 7: 0.25}"), rf"each key once.*'7' twice {FIELD}"),
    "no weight": (with_text("{7}"), rf"histogram.*'7' {FIELD}"),
    "two weights": (with_text("{7: 0.5: 0.5}"), rf"finite probability.*'0.5: 0.5' of '7' {FIELD}"),
    "trailing comma": (with_text("{7: 1.0, }"), rf"histogram.*' ' {FIELD}"),
    "no braces": (with_text("7: 1.0"), rf"histogram.*'7: 1.0' {FIELD}"),
    "nested": (with_text("{7: {8: 1.0}}"), rf"probability.*of '7' {FIELD}"),
    "line end inside": (with_text("{7: 0.5\n8: 0.5}"), rf"probability.*of '7' {FIELD}"),
    "space inside": (with_text("{7 1: 1.0}"), rf"histogram.*'7 1: 1.0' {FIELD}"),
    "code": (with_text("__import__('os').system('true')"), rf"histogram.*__import__.*{FIELD}"),
    "code inside": (with_text("{7: print('hi') or 1.0}"), rf"probability.*print.*{FIELD}"),
    "not ASCII": (with_text("{٧: 1.0}"), rf"histogram.*{FIELD}"),
    "lone surrogate": (with_text("{\ud800: 1.0}"), rf"histogram.*{FIELD}"),
    "null byte": (with_text("{7\0: 1.0}"), rf"histogram.*{FIELD}"),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_bad_dataset(tmp_path, data, message):
    write_client(write_servegen(tmp_path), 2, data=data)
    with pytest.raises(ProfileError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("key", ["-0.1", "1.01", "nan", "inf", "1e9"])
def test_ratio_outside(tmp_path, key):
    data = with_text(f"{{0.5: 0.5, {key}: 0.5}}", "reason_ratio", "reason")
    write_client(write_servegen(tmp_path, "reason"), 2, data=data, category="reason")
    with pytest.raises(ProfileError, match=rf"{key}.* in reason_ratio in .*\(client 2, window 0 s\)"):
        load(tmp_path)


def test_code_in_a_dataset_is_never_run(tmp_path):
    proof = tmp_path / "proof"
    code = f"[__import__('pathlib').Path({str(proof)!r}).write_text('ran'), {{1: 1.0}}][1]"
    eval(code)  # upstream's reading: the code works
    assert proof.read_text() == "ran"
    proof.unlink()
    for text in (code, f"{{1: {code}}}", f"{{{code}: 1.0}}"):
        write_client(write_servegen(tmp_path), 2, data=with_text(text))
        with pytest.raises(ProfileError):
            load(tmp_path)
        assert not proof.exists()


# the cache


def test_cache_gives_the_same_pool(tmp_path):
    directory = write_servegen(tmp_path, clients=4)
    (directory / "chunk-6-dataset.json").unlink()
    options = {"missing": "drop", "cache": True}
    cold, notes = load_servegen_with_notes(tmp_path, "tiny", **options)
    assert len(list(cache.cache_dir().iterdir())) == 1
    warm, warm_notes = load_servegen_with_notes(tmp_path, "tiny", **options)
    assert warm.digest() == cold.digest()
    assert warm_notes == notes
    with pytest.raises(ProfileError, match="drop"):
        load(tmp_path, cache=True)  # missing="error" is another key


def test_cache_follows_the_contents(tmp_path):
    directory = write_servegen(tmp_path)
    before = load(tmp_path, cache=True)
    path = directory / "chunk-0-trace.csv"
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(tmp_path, cache=True)
    assert before.digest() != after.digest() == load(tmp_path).digest()


@pytest.mark.parametrize("damage", ["empty", "cut", "rubbish", "swapped"])
def test_damaged_cache_is_passed_over(tmp_path, damage):
    write_servegen(tmp_path)
    digest = load(tmp_path, cache=True).digest()
    (file,) = cache.cache_dir().iterdir()
    data = file.read_bytes()
    if damage == "swapped":
        write_servegen(tmp_path, workload="other", clients=1)
        load_servegen(tmp_path, "other")
        (other,) = set(cache.cache_dir().iterdir()) - {file}
        data = other.read_bytes()
    file.write_bytes({"empty": b"", "cut": data[:-500], "rubbish": b"x" * 999, "swapped": data}[damage])
    assert load(tmp_path, cache=True).digest() == digest


def test_unwritable_cache_is_passed_over(tmp_path, monkeypatch):
    write_servegen(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SERVEGEN_GPU_CACHE", str(tmp_path / "file" / "below"))
    assert len(load(tmp_path, cache=True)) == 3


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.delenv("SERVEGEN_GPU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "servegen_gpu"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir().is_absolute()


# the released data


@needs_real_data
def test_deepseek_r1():
    pool = load_servegen(REAL_DATA, "deepseek-r1", cache=False)
    assert len(pool) == 73
    assert pool.windows == 144
    assert pool.own_rps.sum() * 600 == pytest.approx(1.384e6, rel=1e-3)
    gamma = pool.family == GAMMA
    assert pool.shape[gamma] * pool.cv[gamma] ** 2 == pytest.approx(np.ones(gamma.sum()))
    counts = pool.rate_rps * 600
    assert counts == pytest.approx(np.rint(counts), abs=1e-6)


@needs_real_data
def test_mm_image():
    pool = load_servegen(REAL_DATA, "mm-image", cache=False)
    assert len(pool) == 35
    assert pool.own_rps.sum() * 600 == pytest.approx(8.186e5, rel=1e-4)


@needs_real_data
def test_real_tables_equal_a_plain_reading():
    pool = load_servegen(REAL_DATA, "deepseek-r1", cache=False)
    for row in (0, 35, 72):
        client = pool.client_ids[row]
        content = json.loads((REAL_DATA / "reason" / "deepseek-r1" / f"chunk-{client}-dataset.json").read_text())
        window = int(np.flatnonzero(pool.rate_rps[row])[0])
        slot = max(int(s) for s, texts in content.items() if int(s) <= window * 600 and texts["input_tokens"] != "{}")
        for field, t in zip(pool.fields, pool.table[row, window], strict=True):
            histogram = {k: p for k, p in ast.literal_eval(content[str(slot)][field]).items() if p}
            values, probabilities = pool.tables.table(t)
            steps = 501 if field == "reason_ratio" else 1
            assert values / steps == pytest.approx(np.array(list(histogram)), abs=1e-12)
            assert probabilities == pytest.approx(np.array(list(histogram.values())), abs=2**-31)
