"""Parsed pools kept in the user's cache directory, found again by what the files contain.

A cache never breaks a load: what cannot be read or written is passed over.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.cache_dir import cache_dir, distrusted
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.released.files import read
from servegen_gpu.clients.saved import packed_arrays
from servegen_gpu.errors import OutputError, ProfileError

CACHE_VERSION = 2
"""Part of every key: to be raised whenever the same files would give another pool."""

_log = logging.getLogger(__name__)


def content_key(paths: Iterable[Path], *options: object) -> str:
    """SHA-256 over the names and contents of files, and over options, as hexadecimal text."""
    ordered = sorted(paths, key=lambda path: path.name)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        digests = list(threads.map(lambda path: hashlib.sha256(read(path)).hexdigest(), ordered))
    lines = [repr((CACHE_VERSION, *options))]
    lines += [f"{path.name!r} {digest}" for path, digest in zip(ordered, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_pool(key: str) -> tuple[ClientPool, tuple[str, ...]] | None:
    """The pool and notes stored under a key, or None."""
    try:
        file = _file(key)
        if why := distrusted(file):
            _log.debug("no pool from the cache: %s", why)
            return None
        header, arrays = load_arrays(file)
        if header.pop("key") != key:
            return None
        digest, notes = header.pop("digest"), tuple(str(note) for note in header.pop("notes"))
        pool = ClientPool.from_arrays(header, packed_arrays.checked(arrays, file))
        packed_arrays.check_draws(pool, file)
        if digest != _digest(key, pool, notes):
            _log.debug("no pool from the cache: %s was changed", file)
            return None
        return pool, notes
    except (ProfileError, OSError, RuntimeError, KeyError, TypeError, ValueError, IndexError) as error:
        _log.debug("no pool from the cache: %s", error)
        return None


def store_pool(key: str, pool: ClientPool, notes: Iterable[str]) -> None:
    """Keep a pool under a key, if the cache directory can be written."""
    try:
        path = _file(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        said = tuple(notes)
        about = {"key": key, "notes": said, "digest": _digest(key, pool, said)}
        save_arrays(path, pool.header() | about, pool.arrays())
    except (OutputError, OSError, RuntimeError) as error:  # RuntimeError: no home directory
        _log.debug("no pool into the cache: %s", error)


def _digest(key: str, pool: ClientPool, notes: tuple[str, ...]) -> str:
    """Of what is kept: an archive that was damaged, or put together by somebody else, is not that of its key."""
    return hashlib.sha256(repr((key, pool.digest(), notes)).encode()).hexdigest()


def _file(key: str) -> Path:
    return cache_dir() / f"{key}.npz"
