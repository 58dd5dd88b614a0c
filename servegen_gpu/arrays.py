"""Named arrays and a header in one file: an uncompressed ``.npz`` that ``numpy.load`` reads, without pickle."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.disk import explained, new_temporary, sweep
from servegen_gpu.disk.commit import rename_all
from servegen_gpu.errors import ProfileError
from servegen_gpu.text import open_file

HEADER = "__header__"
"""Name of the member that holds the header: UTF-8 bytes of a JSON object, uint8[bytes]."""


def _check_sizes(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Refuse what would take more memory than the file has bytes: compressed members, or several in one place."""
    members = archive.infolist()
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > file_bytes:
        raise ValueError("arrays that are compressed, or larger than the file")


_DAMAGE = (
    *(ValueError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
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
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    if HEADER in arrays:
        raise ValueError(f"{HEADER} is a reserved name")
    members = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)} | dict(arrays)
    real = Path(os.path.realpath(path))
    sweep(real.parent)
    with explained(path), new_temporary(real.parent) as made:
        with open(os.dup(made.descriptor), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in members.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        rename_all(real.parent, [(made.path.name, real.name)])


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
