"""Where a trace in parts lies: a directory, or any store that fsspec knows, such as ``s3://bucket/folder``.

A file appears complete or not at all: in a directory by a rename, in an object store because an object is there once
all of it has arrived, in other stores by a move within the folder. Credentials and endpoints are those of fsspec's own
configuration (files in ``~/.config/fsspec``, or variables such as ``FSSPEC_S3_ENDPOINT_URL``).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from servegen_gpu.disk import explained, scratch_directory
from servegen_gpu.errors import OptionError, OutputError, ServeGenError
from servegen_gpu.formats.atomic import new_file
from servegen_gpu.formats.checked import MOST_BYTES
from servegen_gpu.text import open_file

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory"})
"""Protocols whose files appear once all of them has arrived, and whose folders need not be made."""


class Entry(NamedTuple):
    """A file in a folder.

    Attributes
    ----------
    size : int
        Bytes.
    mark : str
        What the store itself says of the content, such as an ETag of S3; empty if it says nothing.
    """

    size: int
    mark: str = ""


@dataclass(frozen=True)
class Directory:
    """A directory of this machine, or one that many machines have mounted."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Directory, (Path(os.path.abspath(self.path)),)  # other processes may be elsewhere

    def at(self, name: str) -> Path:
        """The file of a name."""
        return self.path / name

    def files(self, folder: str = "") -> dict[str, Entry]:
        """Files of a folder by name; none if there is no such folder."""
        try:
            with explained(self.path), os.scandir(self.path / folder) as found:
                names = [file.name for file in found if file.is_file()]
        except OutputError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return {}
            raise
        entries = {name: self.entry(os.path.join(folder, name)) for name in names}
        return {name: entry for name, entry in entries.items() if entry is not None}  # others rename files meanwhile

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents of small files, of those that are there; of larger ones, no more than shows that they are."""
        found = {}
        for name in names:
            try:
                with open_file(self.at(name)) as file:
                    found[name] = file.read(MOST_BYTES + 1)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise OptionError(f"{name} of a trace in parts", f"{error.strerror}: {self}", "check it") from error
        return found

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears complete or not at all; its folder is made."""
        path = self.at(name)
        with explained(path):
            self.path.mkdir(exist_ok=True)
            path.parent.mkdir(exist_ok=True)
        with new_file(path) as sink:
            sink.write(data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A path to write a file to, which must appear there complete or not at all."""
        yield self.at(name)

    def entry(self, name: str) -> Entry | None:
        """What is known of a file; None if there is none."""
        with explained(self.at(name)):
            try:
                return Entry(self.at(name).stat().st_size)
            except (FileNotFoundError, NotADirectoryError):
                return None


@dataclass(frozen=True)
class Remote:
    """A folder of a store that fsspec knows.

    Attributes
    ----------
    url : str
    files_of : fsspec.AbstractFileSystem
    root : str
        The folder as the file system calls it.
    objects : bool
        Whether it is an object store.
    """

    url: str
    files_of: Any
    root: str
    objects: bool

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return store_at, (self.url,)

    def at(self, name: str) -> RemoteFile:
        """The file of a name."""
        return RemoteFile(self, name)

    def files(self, folder: str = "") -> dict[str, Entry]:
        """Files of a folder by name; none if there is no such folder."""
        path = self._path(folder)
        with _explained(self.url, "read"):
            self.files_of.invalidate_cache(path)
            try:
                found = self.files_of.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        files = [one for one in found if one["type"] == "file" and not one["name"].endswith("/")]
        return {one["name"].rsplit("/", 1)[-1]: _entry(one) for one in files}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents of small files, of those that are there; of larger ones, no more than shows that they are."""
        named = list(names)
        paths, count = [self._path(name) for name in named], len(named)
        with _explained(self.url, "read"):
            ends = [MOST_BYTES + 1] * count
            found = self.files_of.cat_ranges(paths, [0] * count, ends, on_error="return") if named else []
            for error in found:
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
        return {name: data for name, data in zip(named, found, strict=True) if isinstance(data, bytes)}

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears complete or not at all; its folder is made."""
        with _explained(self.url, "written"), self._arriving(name) as path:
            self.files_of.pipe_file(path, data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A path to write a file to, on this machine, from where it is copied once it is complete."""
        with scratch_directory() as folder:
            made = folder / name
            yield made
            with _explained(self.url, "written"), self._arriving(name) as path:
                self.files_of.put_file(str(made), path)

    def entry(self, name: str) -> Entry | None:
        """What is known of a file; None if there is none."""
        with _explained(self.url, "read"):
            self.files_of.invalidate_cache(self.root)
            try:
                return _entry(self.files_of.info(self._path(name)))
            except FileNotFoundError:
                return None

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

    @contextmanager
    def _arriving(self, name: str) -> Iterator[str]:
        """The name under which a file is sent."""
        path = self._path(name)
        if self.objects:
            yield path
            return
        folder, _, last = path.rpartition("/")
        self.files_of.makedirs(folder, exist_ok=True)
        hidden = f"{folder}/.servegen-{secrets.token_hex(8)}-{last}.tmp"
        try:
            yield hidden
            self.files_of.mv(hidden, path)
        except BaseException:
            if self.files_of.exists(hidden):
                self.files_of.rm_file(hidden)
            raise


Store = Directory | Remote


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store, as far as readers of formats need a path: it is opened, and named in messages."""

    store: Remote
    name: str

    def __str__(self) -> str:
        return f"{self.store.url}/{self.name}"

    def __fspath__(self) -> str:
        return str(self)

    def open(self) -> BinaryIO:
        """The file, read piece by piece."""
        with _explained(str(self), "read"):
            opened: BinaryIO = self.store.files_of.open(self.store._path(self.name), "rb")
            return opened


def opened(path: Path | RemoteFile) -> BinaryIO:
    """A file of this machine or of a store, opened for reading its bytes."""
    return path.open() if isinstance(path, RemoteFile) else open_file(path)


def is_url(path: Any) -> bool:
    """Whether a path is an address, as ``s3://bucket/folder`` is; that of a directory here begins with ``file://``."""
    return isinstance(path, str) and re.match(r"[a-z][a-z0-9+.-]*(::|://)", path) is not None


def is_there(path: str) -> bool:
    """Whether a path may lead to something: an address of a store is not looked at."""
    return is_url(path) or Path(path).exists()


def store_at(path: str | os.PathLike[str]) -> Store:
    """The store or directory of a path.

    Raises
    ------
    OptionError
        If fsspec, or its module for such a store, is not installed or knows no such store.
    """
    text = os.fspath(path)
    if text.startswith("file://"):
        return Directory(Path(text.removeprefix("file://")))
    if not is_url(text):
        return Directory(Path(text))
    protocol = re.split("::|://", text)[0]
    try:
        import fsspec
    except ImportError as error:
        fix = "pip install fsspec, or 'servegen-gpu[s3]' for s3://"
        raise OptionError(f"fsspec for {protocol}://", "no such package", fix) from error
    url = text.rstrip("/")
    try:
        with _explained(url, "read"):
            files_of, root = fsspec.core.url_to_fs(url)
    except OutputError as error:
        if not isinstance(error.__cause__, ImportError | ValueError):
            raise
        fix = f"install what fsspec needs for {protocol}:// (s3fs for s3://, gcsfs for gs://)"
        raise OptionError("a store that fsspec can open", _first_line(error.__cause__), fix) from error
    return Remote(url, files_of, root.rstrip("/"), protocol in OBJECT_STORES)


@contextmanager
def _explained(url: str, what: str) -> Iterator[None]:
    """Turn whatever a store raises, each has errors of its own, into an error that says what to do."""
    try:
        yield
    except ServeGenError:
        raise
    except PermissionError as error:
        fix = "change the rights, or name other credentials in fsspec's configuration"
        raise OutputError(f"a store that may be {what}", f"{_first_line(error)}: {url}", fix) from error
    except Exception as error:
        fix = "check the address, and the endpoint and credentials in fsspec's configuration"
        raise OutputError(f"a store that can be {what}", f"{_first_line(error)}: {url}", fix) from error


def _entry(stated: Any) -> Entry:
    return Entry(int(stated["size"]), str(stated.get("ETag", "")))


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
