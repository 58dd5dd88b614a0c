"""Reading many small files in batches, so that memory is set by the batch and not by the data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from servegen_gpu.errors import ProfileError
from servegen_gpu.text import open_file

MAX_FILE_BYTES = 1 << 30
BATCH_BYTES = 8 << 20


class ClientFile(NamedTuple):
    """A file of one client, read."""

    client: int
    path: Path
    data: bytes


def batches(paths: Mapping[int, Path], limit: int = BATCH_BYTES) -> Iterator[list[ClientFile]]:
    """Read files in order of client ids, a list of about `limit` bytes at a time.

    Parameters
    ----------
    paths : mapping of int to Path
        One file for every client.
    limit : int
        Bytes in a batch; a batch has at least one file.
    """
    batch: list[ClientFile] = []
    size = 0
    for client in sorted(paths):
        file = ClientFile(client, paths[client], read(paths[client]))
        if batch and size + len(file.data) > limit:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += len(file.data)
    if batch:
        yield batch


def read(path: Path) -> bytes:
    """All bytes of a file of at most 1 GiB."""
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ProfileError("a profile file of at most 1 GiB", f"{size:,} bytes in {path}", "split the client")
            return file.read()
    except OSError as error:
        raise ProfileError("a readable profile file", f"{error}", "check the path and its permissions") from None
