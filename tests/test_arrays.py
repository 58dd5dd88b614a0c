"""Arrays in one file: whole or refused, and never pickled."""

import numpy as np
import pytest

from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.blocks import distinct
from servegen_gpu.errors import ProfileError

HEADER = {"name": "größer", "numbers": [1, 2.5], "none": None}
ARRAYS = {
    "a": np.arange(6, dtype=np.int32).reshape(2, 3),
    "empty": np.zeros((0, 4)),
    "flags": np.array([True, False]),
    "u": np.array([2**32 - 1], np.uint32),
}


def test_round_trip(tmp_path):
    save_arrays(tmp_path / "x.npz", HEADER, ARRAYS)
    header, arrays = load_arrays(tmp_path / "x.npz")
    assert header == HEADER
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)


def test_nothing_else_is_left_behind(tmp_path):
    save_arrays(tmp_path / "x.npz", HEADER, ARRAYS)
    save_arrays(tmp_path / "x.npz", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
    assert load_arrays(tmp_path / "x.npz") == ({}, {})


def test_objects_are_refused_and_the_old_file_stays(tmp_path):
    save_arrays(tmp_path / "x.npz", HEADER, ARRAYS)
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path / "x.npz", {}, {"o": np.array([{}], object)})
    assert load_arrays(tmp_path / "x.npz")[0] == HEADER
    assert len(list(tmp_path.iterdir())) == 1


def test_pickled_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "x.npz", o=np.array([{}], object))
    with pytest.raises(ProfileError, match=r"x\.npz.*allow_pickle"):
        load_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("cut", [0, 1, 40, 300, -1])
def test_cut_short(tmp_path, cut):
    save_arrays(tmp_path / "x.npz", HEADER, ARRAYS)
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[:cut])
    with pytest.raises(ProfileError, match=r"x\.npz"):
        load_arrays(tmp_path / "x.npz")


def test_any_changed_byte_is_refused_or_harmless(tmp_path):
    save_arrays(tmp_path / "x.npz", HEADER, ARRAYS)
    data = (tmp_path / "x.npz").read_bytes()
    for at in range(0, len(data), 3):
        (tmp_path / "x.npz").write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            _, arrays = load_arrays(tmp_path / "x.npz")
        except ProfileError:
            continue
        assert all(np.array_equal(array, ARRAYS[name]) for name, array in arrays.items() if name in ARRAYS)


@pytest.mark.parametrize("data", [b"rubbish", b"PK\x03\x04", b"\x93NUMPY\x01\x00"], ids=["text", "zip", "npy"])
def test_something_else(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ProfileError, match=r"x\.npz"):
        load_arrays(tmp_path / "x.npz")


def test_without_header(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(ProfileError, match="header"):
        load_arrays(tmp_path / "x.npz")


def test_one_array_instead_of_many(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(2))
    with pytest.raises(ProfileError, match=r"x\.npy"):
        load_arrays(tmp_path / "x.npy")


def test_missing_file(tmp_path):
    with pytest.raises(ProfileError, match=r"absent\.npz"):
        load_arrays(tmp_path / "absent.npz")


@pytest.mark.parametrize("values", [[], [3], [3, 3], [[5, -1], [5, 2**62]], [2.5, 1.5, 2.5]])
def test_distinct_is_unique(values):
    found = distinct(np.array(values))
    assert found.tolist() == np.unique(values).tolist()
