"""Numbers from CSV files that lie beside a TOML file. They are hostile: bounded, and never outside its directory."""

from __future__ import annotations

import io
import os
from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.text import read_text

MAX_DATA_BYTES = 64 << 20


def file_beside(name: object, where: Where) -> Path:
    """Path of a file in the directory of the TOML file or below it."""
    text = where.text_of(name)
    home = Path(os.path.realpath(where.path.parent))  # unlike Path.resolve, silent about links in circles
    path = Path(text)
    if path.is_absolute() or ".." in path.parts or not Path(os.path.realpath(home / path)).is_relative_to(home):
        where.refuse(f"a file in {home} or below", text, "move the file there, and name it from there")
    return home / path


def read_columns(name: object, wanted: tuple[str, ...], where: Where) -> list[NDArray[np.float64]]:
    """Columns of a CSV file with a header, float64[rows] each; a lone column of numbers needs no header.

    Parameters
    ----------
    name : str
        Of the file, from the directory of the TOML file.
    wanted : tuple of str
        Headers of the columns.
    where : Where
        Of the name.
    """
    path = file_beside(name, where)
    text = read_text(path, "CSV file", MAX_DATA_BYTES, where.refuse, smaller="use a sample")
    return _parse(text, path.name, wanted, where)


def _parse(text: str, name: str, wanted: tuple[str, ...], where: Where) -> list[NDArray[np.float64]]:
    import csv

    rows = csv.reader(io.StringIO(text))
    columns = [array("d") for _ in wanted]
    at: list[int] | None = None
    try:
        for row in rows:
            if not row:
                continue
            cells = [cell.strip() for cell in row]
            if at is None:
                at = _header(cells, name, wanted, where)
                if not (len(wanted) == len(cells) == 1 and _is_number(cells[0])):
                    continue
            for column, index in zip(columns, at, strict=True):
                cell = cells[index] if index < len(cells) else ""
                if not _is_number(cell):
                    place = f"{name}, line {rows.line_num}: {shown(cell)} in column {index + 1}"
                    where.refuse("numbers", place, "fix the file")
                column.append(float(cell))
    except csv.Error as error:
        where.refuse("a CSV file", f"{name}, line {rows.line_num}: {error}", "fix the file")
    if not columns[0]:
        where.refuse("rows of numbers", f"none in {name}", "fill the file")
    return [np.frombuffer(column, np.float64) for column in columns]


def _header(cells: list[str], name: str, wanted: tuple[str, ...], where: Where) -> list[int]:
    """Numbers of the wanted columns."""
    if len(wanted) == len(cells) == 1:
        return [0]
    missing = [column for column in wanted if column not in cells]
    if missing:
        expected = f"a header with {' and '.join(wanted)} in {name}"
        where.refuse(expected, shown(",".join(cells)), "name the columns in the first line, or give column = …")
    return [cells.index(column) for column in wanted]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
