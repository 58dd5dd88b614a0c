"""A trace in parts that were made apart, by one process or by many machines.

========================  =============================================================================================
``part-00000.parquet`` …  share k/N of the trace each, as ``generate --shard k/N`` writes it
``_parts/workload.json``  what the trace is made from: written first, and compared by everybody who comes later
``_parts/00000.json`` …   record of a finished part, written after it
``_manifest.json``        all of this in one file, written once all parts are there; it depends on the workload alone
========================  =============================================================================================

Readers of whole directories pass over names that begin with ``_``. A file or record appears complete or not at all, no
file is written by two who would write different bytes, and there is nothing to lock: stores without renames will do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from servegen_gpu.digest import NO_ROWS, Digest
from servegen_gpu.errors import OptionError
from servegen_gpu.formats import parquet
from servegen_gpu.formats.checked import json_of, number_of
from servegen_gpu.formats.store import Directory, Store, opened, store_at
from servegen_gpu.trace import Trace

RECORDS = "_parts"
WORKLOAD = f"{RECORDS}/workload.json"
MANIFEST = "_manifest.json"
FORMAT = 1
"""Of workloads, records and manifests; raised whenever older ones can no longer be read."""
MOST_PARTS = 50_000
"""Whose manifest is still within what is read of one."""
READ_BYTES = 1 << 22
"""Of a file at once."""


@dataclass(frozen=True)
class Part:
    """The record of a finished part.

    Attributes
    ----------
    rows : int
    size : int
        Bytes of the file.
    digest : str
        Of the rows; see `servegen_gpu.digest`.
    sha256 : str
        Of the file.
    mark : str
        What the store itself said of the file when it was written (`store.Entry`).
    """

    rows: int
    size: int
    digest: str
    sha256: str
    mark: str = ""

    @classmethod
    def of(cls, stated: Any) -> Part:
        """A record as it was read; a file may say anything."""
        texts = ("digest", "sha256", "mark")
        part = cls(*(stated.get(name, "") for name in ("rows", "size", *texts)))
        number_of(part.rows, "rows"), number_of(part.size, "bytes")
        Digest.parse(part.digest, part.rows)
        int(part.sha256, 16), part.mark.encode()
        return part


@dataclass(frozen=True)
class Parted:
    """A trace in parts, some of which may be missing.

    Attributes
    ----------
    store : Store
    workload : mapping
        Of `workload_of`.
    finished : dict
        Parts that have a record and are there, by number from 0 on.
    gone : tuple of int
        Parts that have a record and are not there.
    known : frozenset of int
        Finished parts of whose contents the store itself says that they are those of the record.
    """

    store: Store
    workload: Mapping[str, Any]
    finished: dict[int, Part]
    gone: tuple[int, ...] = ()
    known: frozenset[int] = frozenset()

    @property
    def parts(self) -> int:
        """How many parts the trace has."""
        return int(self.workload["parts"])

    @property
    def missing(self) -> list[int]:
        """Parts that are not finished."""
        return [k for k in range(self.parts) if k not in self.finished]

    @property
    def rows(self) -> int:
        """Of all finished parts."""
        return sum(part.rows for part in self.finished.values())

    @property
    def size(self) -> int:
        """Bytes of all finished parts."""
        return sum(part.size for part in self.finished.values())

    @property
    def digest(self) -> str | None:
        """Of the rows of the whole trace; None while parts are missing."""
        if self.missing:
            return None
        total = NO_ROWS
        for k in range(self.parts):
            total += Digest.parse(self.finished[k].digest, self.finished[k].rows)
        return total.hex

    def manifest(self) -> bytes:
        """Contents of the manifest of a complete trace, a part a line."""
        about = {
            "format": FORMAT,
            "workload": self.workload,
            "rows": self.rows,
            "size": self.size,
            "digest": self.digest,
        }
        lines = []
        for k in range(self.parts):
            record = {name: value for name, value in asdict(self.finished[k]).items() if name != "mark"}
            lines.append(_canonical({"name": part_name(k, self.parts)} | record))
        joined = ",\n".join(lines)
        return f'{_canonical(about)[:-1]},"parts":[\n{joined}\n]}}\n'.encode(errors="backslashreplace")

    def refuse_incomplete(self) -> None:
        """Name the parts that are missing, if any are."""
        if missing := self.missing:
            named = ", ".join(part_name(k, self.parts) for k in missing[:5]) + ", …" * (len(missing) > 5)
            raise OptionError(
                f"all {self.parts:,} parts of a trace",
                f"{len(self.finished):,} in {self.store}, without {named}",
                "run the command that makes them once more: it makes only what is missing",
            )

    def slabs(self) -> Iterator[Trace]:
        """Rows of all parts, numbered through; what was read of a part is compared with its record."""
        provenance = dict(self.workload["provenance"])
        first_row = 0
        for k in range(self.parts):
            begin, seen = first_row, NO_ROWS
            for slab in parquet.read_slabs(self.store.at(part_name(k, self.parts))):
                seen += Digest.of(slab.columns)
                yield Trace.trusted(slab.columns, provenance, first_row)
                first_row += len(slab)
                del slab  # not kept while the next one is read
            if (seen.rows, seen.hex) != (self.finished[k].rows, self.finished[k].digest):
                raise changed(self.store, k, self.parts, f"others: {first_row - begin:,}, digest {seen.hex}", "rows")


def changed(store: Store, k: int, parts: int, got: str, what: str = "bytes") -> OptionError:
    """What to say of a part that is not what was written."""
    name = part_name(k, parts)
    fix = "remove the file to have it made again; all other parts are kept"
    return OptionError(f"the {what} of {name} that its record in {store}/{RECORDS} says", got, fix)


def part_name(k: int, parts: int) -> str:
    """Name of a part's file; names sort in the order of the trace."""
    return f"part-{k:0{_digits(parts)}d}.parquet"


def record_name(k: int, parts: int) -> str:
    """Name of a part's record."""
    return f"{RECORDS}/{k:0{_digits(parts)}d}.json"


def _digits(parts: int) -> int:
    return max(5, len(str(parts - 1)))


def records_in(store: Store) -> int:
    """How many parts have a record."""
    return sum(name[:1].isdigit() for name in store.files(RECORDS))


def workload_of(head: Trace, parts: int, encoding: str) -> dict[str, Any]:
    """What decides every byte of the parts, as JSON values; `head` is a slab of any share."""
    provenance = json_of(head.header()) | {"shard": "1/1"}
    stated = {"provenance": provenance, "columns": head.schema(), "encoding": encoding, "parts": parts}
    return {"format": FORMAT} | stated


def workload_bytes(workload: Mapping[str, Any]) -> bytes:
    """Contents of the file of a workload."""
    return (json.dumps(workload, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def workload_id(workload: Mapping[str, Any]) -> str:
    """By which records say which workload they are of."""
    return hashlib.sha256(workload_bytes(workload)).hexdigest()


def record_bytes(part: Part, k: int, workload: Mapping[str, Any]) -> bytes:
    """Contents of the record of a part."""
    stated = asdict(part) | {"part": k, "workload": workload_id(workload)}
    return (_canonical(stated | {"check": _check_of(stated)}) + "\n").encode()


def _check_of(stated: Mapping[str, Any]) -> str:
    """What tells that a record is as it was written: what it says is believed until the part is read."""
    return hashlib.sha256(_canonical(stated).encode()).hexdigest()


def is_parted(path: Any) -> bool:
    """Whether a path, or an address of a store, has a trace in parts with records."""
    if not isinstance(path, str | os.PathLike):
        return False
    store = store_at(path)
    if isinstance(store, Directory):
        return any(store.at(name).is_file() for name in (MANIFEST, WORKLOAD))
    return bool(store.read([MANIFEST, WORKLOAD]))


def stated_workload(store: Store) -> dict[str, Any] | None:
    """The workload that the parts in a store are of; None if there is none."""
    data = store.read([WORKLOAD]).get(WORKLOAD)
    return None if data is None else _workload(parsed(store, WORKLOAD, data), f"{store}/{WORKLOAD}")


def parsed(store: Store, name: str, data: bytes) -> dict[str, Any]:
    """A manifest or a record of a store: an OptionError if it is no JSON object."""
    try:
        stated = json_of(data)
    except ValueError as error:
        raise _unreadable(store, name, error) from None
    if not isinstance(stated, dict):
        raise _unreadable(store, name, ValueError("no JSON object"))
    return stated


def _unreadable(store: Store, name: str, error: Exception) -> OptionError:
    got = f"{type(error).__name__}: {error}"[:200]
    return OptionError(f"{store}/{name} as it was written", got, "remove it, and run the command that makes the parts")


def _workload(stated: Any, where: str) -> dict[str, Any]:
    """A workload as it was read; a file may say anything."""
    known = isinstance(stated, dict) and stated.get("format") == FORMAT and isinstance(stated.get("provenance"), dict)
    if not known or type(stated.get("parts")) is not int or not 1 <= stated["parts"] <= MOST_PARTS:
        raise OptionError(f"a workload in format {FORMAT}", f"another in {where}", "give another directory")
    return dict(stated)


def open_parted(
    path: str | os.PathLike[str] | Store, only: Sequence[int] | None = None, *, records: bool = False
) -> Parted:
    """A trace in parts, as far as it is there.

    Sizes are compared with the records; `check_unchanged` looks at contents, and `Parted.slabs` at rows.

    Parameters
    ----------
    path : path or Store
    only : sequence of int, optional
        Look for these parts alone.
    records : bool
        Look at the records of parts also where there is a manifest.

    Raises
    ------
    OptionError
        If there is none, a record cannot be read or is of another workload, or a part was changed.
    """
    store = path if isinstance(path, Store) else store_at(path)
    about = store.read([WORKLOAD] if records else [MANIFEST, WORKLOAD])
    if MANIFEST in about:
        workload, stated = _of_manifest(store, parsed(store, MANIFEST, about[MANIFEST]))
    elif WORKLOAD in about:
        workload = _workload(parsed(store, WORKLOAD, about[WORKLOAD]), f"{store}/{WORKLOAD}")
        stated = _of_records(store, workload, only)
    else:
        raise OptionError("a trace in parts", f"no {WORKLOAD} in {store}", "check the path")
    entries = store.files() if only is None else {}
    finished, gone, known = dict[int, Part](), list[int](), set[int]()
    for k, part in stated.items():
        name = part_name(k, workload["parts"])
        entry = entries.get(name) if only is None else store.entry(name)
        if entry is None:
            gone.append(k)
            continue
        if entry.size != part.size:
            raise changed(store, k, workload["parts"], f"{entry.size:,} instead of {part.size:,}")
        finished[k] = part
        if part.mark and part.mark == entry.mark:
            known.add(k)
    return Parted(store, workload, finished, tuple(gone), frozenset(known))


def _of_manifest(store: Store, stated: Mapping[str, Any]) -> tuple[dict[str, Any], dict[int, Part]]:
    workload = _workload(stated.get("workload"), f"{store}/{MANIFEST}")
    try:
        parts = {k: Part.of(one) for k, one in enumerate(stated["parts"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(store, MANIFEST, error) from None
    if len(parts) != workload["parts"]:
        raise _unreadable(store, MANIFEST, ValueError(f"{len(parts)} parts of {workload['parts']}"))
    return workload, parts


def _of_records(store: Store, workload: Mapping[str, Any], only: Sequence[int] | None) -> dict[int, Part]:
    parts, of = workload["parts"], workload_id(workload)
    names = {record_name(k, parts): k for k in (range(parts) if only is None else only)}
    if only is None:
        there = store.files(RECORDS)
        names = {name: k for name, k in names.items() if name.removeprefix(f"{RECORDS}/") in there}
    return {names[name]: _record(store, name, data, of) for name, data in sorted(store.read(names).items())}


def _record(store: Store, name: str, data: bytes, of: str) -> Part:
    stated = parsed(store, name, data)
    check = stated.pop("check", None)
    try:
        part = Part.of(stated)
        if check != _check_of(stated):
            raise ValueError("changed since")
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(store, name, error) from None
    if stated.get("workload") != of:
        fix = "remove it to have the part made again, or make the parts in another directory"
        raise OptionError(f"a part of the workload in {store}/{WORKLOAD}", f"another one in {name}", fix)
    return part


def sha256_of(store: Store, name: str) -> str:
    """Of the bytes of a file, all of which are read."""
    found = hashlib.sha256()
    with opened(store.at(name)) as file:
        while data := file.read(READ_BYTES):
            found.update(data)
    return found.hexdigest()


def check_unchanged(found: Parted, k: int) -> None:
    """Refuse a finished part whose bytes are others, also where there are as many: all are read, unless it is known."""
    name = part_name(k, found.parts)
    if k not in found.known and (other := sha256_of(found.store, name)) != found.finished[k].sha256:
        raise changed(found.store, k, found.parts, f"others, with the SHA-256 {other[:16]}…")


def _canonical(stated: Any) -> str:
    return json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
