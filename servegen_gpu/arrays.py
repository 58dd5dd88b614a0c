"""Named arrays and a header in one file: an uncompressed ``.npz`` that ``numpy.load`` reads, without pickle."""

from __future__ import annotations

import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.disk import new_temporary, sweep
from servegen_gpu.disk.commit import rename_all
from servegen_gpu.errors import ProfileError, printable
from servegen_gpu.text import open_file

HEADER = "__header__"
"""Name of the member that holds the header: UTF-8 bytes of a JSON object, uint8[bytes]."""


def _check_sizes(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Refuse what would take more memory than the file has bytes: compressed members, or several in one place."""
    members = archive.infolist()
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > file_bytes:
        raise ValueError("arrays that are compressed, or larger than the file")


_DAMAGE = (
    *(ValueError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, OverflowError, IndexError),
    *(tokenize.TokenError, SyntaxError),  # of NumPy, which parses what an array says of itself as Python
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What NumPy and zipfile raise over files that are not what they should be."""


def save_arrays(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays and a header at once: a reader sees the old file or the new one, never half of it.

    Parameters
    ----------
    path : path-like
        The file to write; its name is taken as it is.
    header : mapping
        Anything JSON can hold.
    arrays : mapping of str to array
        Plain numbers of any shape; objects are refused.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    if HEADER in arrays:
        raise ValueError(f"{HEADER} is a reserved name")
    members = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)} | dict(arrays)
    real = Path(os.path.realpath(path))
    sweep(real.parent)
    with new_temporary(real.parent, like=[real]) as made:
        with open(os.dup(made.descriptor), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in members.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        rename_all(real.parent, [(made.path.name, real.name)])


def is_free(path: str | os.PathLike[str]) -> bool:
    """Whether nothing is at a path, or nothing but an empty file, or what `save_arrays` wrote."""
    if not os.path.exists(path):
        return True
    with open(path, "rb") as file:
        head = file.read(1 << 8)
    return not head or f"{HEADER}.npy".encode() in head


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `save_arrays` wrote.

    Returns
    -------
    header : dict
    arrays : dict of str to array

    Raises
    ------
    ProfileError
        If the file is missing, cut short, changed, or something else altogether.
    """
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as archive:
            _check_sizes(archive.zip, os.fstat(file.fileno()).st_size)
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
    except OSError as error:
        raise ProfileError("a readable file of arrays", f"{error}", "check the path and its permissions") from None
    except KeyError:
        raise ProfileError("a file of arrays with a header", f"{path} without one", "write it again") from None
    except _DAMAGE as error:
        raise ProfileError("a complete file of arrays", f"{path}: {error}", "write it again") from None
    return header, arrays


def flatten(part: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Numbers and names of a dataclass, and its arrays, by dotted name; the same of the dataclasses inside."""
    header: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(part):
        value, name = getattr(part, field.name), prefix + field.name
        if is_dataclass(value):
            inner_header, inner_arrays = flatten(value, f"{name}.")
            header |= {name: True} | inner_header
            arrays |= inner_arrays
        elif isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            header[name] = value
    return header, arrays


def unflatten(kind: type[Any], everything: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass whose parts have these dotted names.

    Raises
    ------
    ValueError
        If one is missing or of another type than the dataclass says; shapes and values are for its own check.
    """
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if prefix + name not in everything:
            raise ValueError(f"no {prefix + name!r}")
        value = everything[prefix + name]
        inner = next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
        if inner is not None and (value is not None or NoneType not in get_args(hint)):
            value = unflatten(inner, everything, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif (wanted := _dtype_of(hint)) is not None:
            if not isinstance(value, np.ndarray) or value.dtype != wanted:
                raise ValueError(f"{prefix + name} that is no array of {wanted}")
            value = np.ascontiguousarray(value)
        elif inner is None and type(value) is not hint:
            raise ValueError(f"{prefix + name} that is no {hint.__name__}")
        values[name] = value
    return kind(**values)


def _dtype_of(hint: Any) -> np.dtype[Any] | None:
    """Of ``NDArray[…]``, which is an alias of its own from NumPy 2.5 on; None of anything else."""
    if get_origin(hint) is np.ndarray:
        hint = get_args(hint)[1]
    elif get_origin(hint) is not NDArray:
        return None
    found: np.dtype[Any] = np.dtype(get_args(hint)[0])
    return found


def need(holds: bool | np.bool_, what: str, got: object) -> None:
    """Raise a `ValueError` unless something holds, for checks of what a file says."""
    if not holds:
        raise ValueError(f"{what} {printable(str(got)[:60])}")


def need_within(array: NDArray[Any], low: float, high: float, what: str) -> None:
    """Raise a `ValueError` with the first number that is outside `low` to `high`, both included, or NaN."""
    wrong = ~((array >= low) & (array <= high))
    if wrong.any():
        raise ValueError(f"{what} {array[wrong].flat[0]}, not from {low:g} to {high:g}")
