"""What the footer of a Parquet file says of its columns; pyarrow, asked for it, ends the process at a broken one."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from servegen_gpu.formats import thrift

MOST_BYTES = 1 << 28
# Numbers of fields: of the file, of a row group, of a column in it, and of what is known of that column.
_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
_PATH, _VALUES, _DICTIONARY = 3, 5, 11


@dataclass(frozen=True)
class Chunk:
    """A column in a row group.

    Attributes
    ----------
    group, rows : int
        Which row group, and how many rows it has.
    path : str
        Names, with points.
    values : int
        Those in lists one by one.
    has_dictionary : bool
    """

    group: int
    rows: int
    path: str
    values: int
    has_dictionary: bool


def chunks(file: BinaryIO, groups: int | None = None) -> Iterator[Chunk]:
    """The columns of the first row groups, or of all.

    Raises
    ------
    OSError
        If it is no footer.
    """
    try:
        for at, group in enumerate(_footer(file)[_GROUPS][1][1][:groups]):
            rows = int(group[_ROWS][1])
            for column in group[_COLUMNS][1][1]:
                about = column[_META][1]
                path = b".".join(about[_PATH][1][1]).decode(errors="replace")
                yield Chunk(at, rows, path, int(about[_VALUES][1]), _DICTIONARY in about)
    except (ValueError, LookupError, TypeError, struct.error, RecursionError, MemoryError, AttributeError) as error:
        raise OSError(f"a broken footer ({type(error).__name__})") from None


def _footer(file: BinaryIO) -> dict[int, tuple[int, Any]]:
    end = file.seek(0, io.SEEK_END) - 8
    file.seek(max(end, 0))
    size = int.from_bytes(file.read(4), "little")
    if not 0 < size <= min(end, MOST_BYTES):
        raise ValueError(f"a footer of {size:,} bytes")
    file.seek(end - size)
    return thrift.read(file.read(size))
