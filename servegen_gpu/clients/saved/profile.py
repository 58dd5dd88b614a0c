"""A pool as a directory: ``profile.toml``, which a person can read and edit, and data files beside it.

Data are files as ServeGen released them, where these can hold the pool, or else one file of arrays. A directory
appears complete or not at all, and is only made if it gives the pool again when it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from servegen_gpu.clients.pool import MAX_CLIENT_ID, ClientPool
from servegen_gpu.clients.saved import packed_arrays, servegen_files
from servegen_gpu.clients.saved.summary import names_text, summary_text
from servegen_gpu.clients.saved.toml_writer import environment_table, section, turns_table, value_text
from servegen_gpu.clients.stated.environment_toml import read_environment
from servegen_gpu.clients.stated.toml_text import MAX_FILE_BYTES, read_toml
from servegen_gpu.clients.stated.toml_values import read_whole
from servegen_gpu.clients.stated.turns_toml import read_turns
from servegen_gpu.clients.stated.where import Where, shown
from servegen_gpu.disk import explained, new_directory, settle
from servegen_gpu.errors import OptionError, OutputError, ProfileError, unknown
from servegen_gpu.request.schema import FIELDS
from servegen_gpu.request.tables import Tables
from servegen_gpu.text import open_file

Layout = Literal["auto", "servegen", "packed"]
PROFILE = "profile.toml"
FORMAT = 1
"""Of ``profile.toml``; raised whenever an older reader would misread it."""
NAMES = "names.csv"
TOP_KEYS = ("format", "name", "category", "window_s", "first_window", "clients", "layout")
SECTIONS = ("files", "turns", "environment", "summary", "client", "fit")
_FILE = re.compile(r"[A-Za-z0-9_][\w.-]{0,120}", re.ASCII)
_OURS = re.compile(
    r"profile\.toml|names\.csv|pool\.npz|(turns|environment)[\w-]*\.csv|chunk-\d+-(trace\.csv|dataset\.json)", re.ASCII
)
HEAD = """\
# Clients for servegen-gpu: `servegen-gpu generate DIRECTORY -o trace.parquet`.
# Read back: the keys up to `layout`, [files], [turns] and [environment]. All else is for people.
# [files] has the size and SHA-256 of each data file. A file that you edit on purpose: remove its line.
"""
One = TypeVar("One")


def save_profile(
    pool: ClientPool,
    path: str | os.PathLike[str],
    *,
    layout: Layout = "auto",
    fit: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    keep_names: bool = False,
    salt: bytes | None = None,
    overwrite: bool = False,
) -> None:
    """Save a pool as a directory, see `load_profile`.

    Parameters
    ----------
    pool : ClientPool
    path : path-like
        Where nothing is yet, or an older profile, which is replaced.
    layout : {"auto", "servegen", "packed"}
        ``servegen``: two files a client, as alibaba/ServeGen reads them; ``packed``: one file of arrays, which holds
        any pool; ``auto``: the first if it holds all of the pool.
    fit : mapping, optional
        Facts about where the pool comes from, for people: plain values, lists and tables of them.
    names : sequence of str, optional
        What clients are called, in the order of ``pool.client_ids``.
    keep_names : bool
        Save the names, beside the profile as ``names.csv``. Otherwise the profile shows keyed hashes of them, whose key
        is not saved.
    salt : bytes, optional
        Key of these hashes, at most 64 bytes, so that several profiles have the same; random by default.
    overwrite : bool
        Save into a directory with files of others, too: they stay where they are.

    Raises
    ------
    OptionError
        If a layout does not hold the pool.
    OutputError
        If it cannot be written; then nothing is there that was not there before.
    """
    if layout not in get_args(Layout):
        raise unknown("a layout", layout, get_args(Layout))
    if names is not None and len(names) != len(pool):
        raise OptionError("a name for every client", f"{len(names):,} for {len(pool):,} clients", "fix names")
    path = Path(path)
    check_target(path, overwrite)
    with new_directory(path, _is_own if (path / PROFILE).is_file() else lambda _: False) as folder, explained(path):
        chosen = _write_data(folder, pool, layout)
        if keep_names and names is not None:
            (folder / NAMES).write_text(names_text(pool, names), encoding="utf-8")
        shown_names = None if names is None else _hashed(names, salt or os.urandom(32))
        _write_toml(folder, pool, chosen, fit or {}, names if keep_names else shown_names)
        _check_written(folder, pool, chosen)


def check_target(path: Path, overwrite: bool = False) -> None:
    """Refuse to replace what is no profile."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise OutputError("a directory to save the pool in", f"the file {path}", "choose another path")
    there = sorted(os.listdir(path))
    known = PROFILE in there  # else the names are those of released data, too
    if (strange := [name for name in there if not (known and _OURS.fullmatch(name))]) and not overwrite:
        raise OutputError(
            "a new directory, or an older profile to replace", f"{strange[0]!r:.60} in {path}", "choose another path"
        )


def _is_own(file: Path) -> bool:
    """Whether a file goes with an older profile."""
    return _OURS.fullmatch(file.name) is not None


def _write_data(folder: Path, pool: ClientPool, layout: Layout) -> str:
    """Write the data files, and say in which layout."""
    if layout != "packed":
        reason = servegen_files.why_not(pool)
        if reason is None:
            wanted = servegen_files.client_by_client(pool)
            servegen_files.write(folder, wanted)
            exact = layout == "servegen" or (pool.rate_factor == 1).all()
            if exact and servegen_files.same(wanted, servegen_files.read(folder, pool.name, pool.category)):
                return "servegen"
            for file in folder.iterdir():
                file.unlink()
            reason = "numbers that come out otherwise when they are read"
        if layout == "servegen":
            raise OptionError(
                "a pool that ServeGen's files can hold", reason, 'choose layout="packed", or --layout packed'
            )
    packed_arrays.write(folder, pool)
    return "packed"


def _write_toml(
    folder: Path, pool: ClientPool, layout: str, fit: Mapping[str, Any], names: Sequence[str] | None
) -> None:
    """Write ``profile.toml``, with the digests of all other files."""

    def beside(stem: str, text: str) -> str:
        (folder / f"{stem}.csv").write_text(text, encoding="ascii")
        return f"{stem}.csv"

    turns = [turns_table(model, f"turns-{i}", beside) for i, model in enumerate(pool.turn_models, 1)]
    parts = [_sections("turns", turns), _sections("environment", [environment_table(e) for e in pool.environments])]
    stated = {"format": FORMAT} | pool.header() | {"clients": len(pool), "layout": layout}
    head = [f"{key} = {value_text(stated[key])}" for key in TOP_KEYS]
    listed = {
        file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.iterdir())
        if file.name != NAMES
    }
    files = section("[files]", listed)
    about = section("[fit]", dict(fit)) if fit else ""
    text = "\n".join([HEAD, *head, "", *filter(None, [*parts, about, summary_text(pool, names), files])])
    if len(text.encode()) > MAX_FILE_BYTES:
        got = f"{len(text.encode()):,} bytes of {PROFILE}"
        raise OptionError(f"a profile of at most {MAX_FILE_BYTES >> 20} MiB of text", got, "choose the packed layout")
    with open(folder / PROFILE, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sections(name: str, tables: Sequence[Mapping[str, Any]]) -> str:
    """One section, or an array of them where there are several."""
    header = f"[{name}]" if len(tables) == 1 else f"[[{name}]]"
    return "\n".join(section(header, table) for table in tables)


def _check_written(folder: Path, pool: ClientPool, layout: str) -> None:
    """Refuse a directory that does not give the pool again: distributions of users may be anything."""
    read = load_profile(folder)
    same = read.digest() == pool.digest()
    if layout == "servegen":  # numbered otherwise, so compared in parts
        same = all(
            [a.digest() for a in getattr(read, kind)] == [b.digest() for b in getattr(pool, kind)]
            for kind in ("turn_models", "environments")
        )
    if not same:
        raise OptionError("a pool that a directory can hold", f"another one when it is read: {pool!r}", "report it")


def is_profile(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a directory that `save_profile` made, or its ``profile.toml``."""
    return folder_of(path) is not None


def folder_of(path: str | os.PathLike[str]) -> Path | None:
    """The directory of a saved pool, also by its ``profile.toml``; None if it is none."""
    found = Path(path)
    settle(found)
    if found.is_dir():
        return found if (found / PROFILE).is_file() else None
    if found.name != PROFILE or not found.is_file():
        return None
    with open_file(found) as file:
        return found.parent if b"\nlayout" in file.read(1 << 12) else None


def load_profile(path: str | os.PathLike[str]) -> ClientPool:
    """Read a pool that `save_profile`, or `ClientPool.save`, has saved.

    Parameters
    ----------
    path : path-like
        The directory.

    Returns
    -------
    ClientPool
        The one that was saved; in the layout ``servegen`` with a profile for every client.

    Raises
    ------
    ProfileError
        If a file is missing, or is not the one that was saved, or anything in one is at fault.
    """
    folder = folder_of(path)
    if folder is None:
        raise ProfileError(f"a directory with {PROFILE}", f"none in {path}", "check the path")
    table, where = read_toml(folder / PROFILE)
    where.check_keys(table, (*TOP_KEYS, *SECTIONS), TOP_KEYS)
    read_format = read_whole(table["format"], 1, 10**6, where / "format")
    if read_format > FORMAT:
        (where / "format").refuse(f"a profile of format {FORMAT} at most", read_format, "update servegen-gpu")
    name, category, layout = ((where / key).text_of(table[key]) for key in ("name", "category", "layout"))
    if category not in FIELDS:
        (where / "category").refuse(f"a category among {', '.join(FIELDS)}", shown(category), "choose one of them")
    layouts = get_args(Layout)[1:]
    if layout not in layouts:
        (where / "layout").refuse(f"a layout among {', '.join(layouts)}", shown(layout), "choose one of them")
    window_s = read_whole(table["window_s"], 1, 4294, where / "window_s")
    first_window = read_whole(table["first_window"], 0, 2**40, where / "first_window")
    clients = read_whole(table["clients"], 1, MAX_CLIENT_ID, where / "clients")
    _check_files(folder, table.get("files", {}), where / "files")
    turn_models = tuple(_read_sections("turns", table, where, read_turns))
    environments = tuple(_read_sections("environment", table, where, read_environment))
    if layout == "packed":
        arrays = packed_arrays.read(folder)
        tables = Tables(*(arrays.pop(f.name) for f in fields_of(Tables)))
        header = {"name": name, "category": category, "window_s": window_s, "first_window": first_window}
        models: dict[str, Any] = {"turn_models": turn_models, "environments": environments}
        pool = ClientPool(**header, **arrays, **models, tables=tables)  # type: ignore[arg-type]
        packed_arrays.check_draws(pool, folder / packed_arrays.FILE)
        if len(pool) != clients:
            (where / "clients").refuse(f"{len(pool):,}, as the arrays have", f"{clients:,}", "fix it")
        return pool
    pool = servegen_files.read(folder, name, category)
    if (pool.window_s, pool.first_window) != (window_s, first_window):
        got = f"{pool.window_s} s from window {pool.first_window} on in the files"
        where.refuse(f"windows of {window_s} s from window {first_window} on", got, "fix `window_s` or the files")
    for key, several in (("turns", turn_models), ("environment", environments)):
        if len(several) > 1:
            (where / key).refuse("one for all clients in this layout", f"{len(several)}", "leave the others out")
    rows = len(pool.rate_rps)
    return replace(
        pool,
        turn_models=turn_models,
        turn_model=np.full(rows, len(turn_models) - 1, np.int32),
        environments=environments,
        environment=np.full(rows, len(environments) - 1, np.int32),
    )


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The section ``[fit]`` of a saved pool, for people; empty if there is none."""
    folder = folder_of(path)
    found = read_toml(folder / PROFILE)[0].get("fit", {}) if folder else {}
    return found if isinstance(found, dict) else {}


def _read_sections(
    name: str, table: Mapping[str, Any], where: Where, read: Callable[[dict[str, Any], Where], One]
) -> list[One]:
    """One section or several of a name, read one by one."""
    where /= name
    entries = table.get(name, [])
    if isinstance(entries, list):
        return [read((where / i).table(entry), where / i) for i, entry in enumerate(entries)]
    return [read(where.table(entries), where)]


def _check_files(folder: Path, listed: Any, where: Where) -> None:
    """Refuse listed files that are missing, elsewhere or not those that were saved."""
    home = os.path.realpath(folder)
    for name, entry in where.table(listed).items():
        place = where / name
        if not _FILE.fullmatch(name) or os.path.dirname(os.path.realpath(folder / name)) != home:
            place.refuse("names of files in this directory", shown(name), "remove the line")
        place.check_keys(place.table(entry), ("bytes", "sha256"), ("sha256",))
        digest = (place / "sha256").text_of(entry["sha256"])
        file = folder / name
        if not file.is_file():
            place.refuse(f"the file {name}", "none", "copy it here as well, or save the pool again")
        if _sha256(file) != digest.lower():
            place.refuse(
                "the file that was saved, by its SHA-256",
                f"another {name} of {file.stat().st_size:,} bytes",
                f"if you edited it on purpose, remove its line in [files] of {PROFILE}, else copy it again",
            )


def _sha256(file: Path) -> str:
    try:
        with open_file(file) as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise ProfileError("a readable data file", f"{error}", "check its permissions") from None


def _hashed(names: Sequence[str], salt: bytes) -> list[str]:
    """Keyed hashes of names: without the key, nobody can try names."""
    key = hashlib.blake2b(salt).digest()
    return [hashlib.blake2b(name.encode(), key=key, digest_size=6).hexdigest() for name in names]
