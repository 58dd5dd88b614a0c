"""Whether a trace is what its provenance says: all of it, or slices of it that are made again."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from servegen_gpu import options
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.digest import NO_ROWS, Digest
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.formats.recorded import TraceFile, digest_recorded, files_of, manifest_digest, size_stated
from servegen_gpu.provenance import share_of, whole_of
from servegen_gpu.trace import Trace
from servegen_gpu.verifying.again import Again, again
from servegen_gpu.verifying.compare import Difference, compared

SLICE_ROWS = 1 << 20
FEWEST, MOST = 4, 16
"""Slices of a sample: so many as there are of `SLICE_ROWS` rows, within these."""
MOST_OF_CONVERSATIONS = 2
"""Each of theirs begins with a warm-up."""
ALWAYS_US = 2**62


@dataclass(frozen=True)
class Verified:
    """What was found out of a trace.

    Attributes
    ----------
    path : str
    rows : int
        That it has, as it says.
    compared : int
        Of these, rows that were made again and are the same.
    slices : int
        In how many slices; 0 if nothing was made again.
    digest : Digest or None
        Of all rows: as it was recorded, or else as it is, if all rows were read.
    difference : Difference or None
        The first that was found.
    """

    path: str
    rows: int
    compared: int
    slices: int
    digest: Digest | None
    difference: Difference | None

    @property
    def identical(self) -> bool:
        """Whether all that was looked at is as it should be."""
        return self.difference is None

    def __str__(self) -> str:
        if self.difference is not None:
            return f"{self.path} differs: {self.difference}"
        digest = "" if self.digest is None else f"; digest {self.digest}"
        if not self.slices:
            return f"{self.path}: {self.rows:,} rows, with the digest that was recorded{digest}"
        if self.compared == self.rows:
            return f"{self.path}: {self.rows:,} rows, all of them as made again{digest}"
        slices = f"{self.slices} slice{'s' * (self.slices > 1)}"
        return f"{self.path}: {self.compared:,} of {self.rows:,} rows in {slices}, all as made again{digest}"


def verify(
    path: str | os.PathLike[str],
    pool: ClientPool | None = None,
    *,
    sample: float | str | None = None,
    rate: Any = None,
    digest_only: bool = False,
    backend: str = "auto",
    memory: float | str = "2GB",
) -> Verified:
    """Read a trace, make it again from its provenance, and compare rows and digests.

    Parameters
    ----------
    path : path
        A file or directory that this package wrote: a trace, one share, or all shares.
    pool : ClientPool, optional
        The clients it was made from; not needed for those of a built-in workload, ``population(name, clients=N)``.
    sample : float or str, optional
        About this part of the rows, such as ``"1%"``: slices of the time axis that follow from the digest. Only they
        are read and made again.
    rate : optional
        The rate it was made with, where the provenance cannot tell: functions, and schedules of more than 100 knots.
    digest_only : bool
        Read all rows and compare digests, and make nothing again.
    backend, memory
        As for `generate`.

    Returns
    -------
    Verified

    Raises
    ------
    OptionError, RateError
        If the trace cannot be verified, and why.

    Examples
    --------
    >>> sg.verify("trace.parquet", sample="1%").identical
    True
    """
    share, name = _sample(sample), os.fspath(path)
    if (changed := _size_changed(Path(path))) is not None:
        return Verified(name, 0, 0, 0, None, changed)
    files = files_of(path)
    result = _Result(name, files)
    if difference := _out_of_place(files):
        return result.found(difference)
    try:
        return _looked_at(result, pool, share, rate, digest_only, backend, memory)
    except _DamageError as damage:
        return result.found(damage.difference)


def _looked_at(
    result: _Result,
    pool: ClientPool | None,
    share: float | None,
    rate: Any,
    digest_only: bool,
    backend: str,
    memory: float | str,
) -> Verified:
    """`verify` of files that are where they should be."""
    files = result.files
    if digest_only:
        if share is not None or digest_recorded(files) is None:
            got, fix = ("a sample", "leave out one") if share is not None else ("none", "make the trace again")
            raise OptionError("all rows of a trace with a digest", got, fix)
        return result.found(_other_digest(result, _digests_of(files)))
    about = files[0].provenance
    made = again(about, pool, rate, backend, memory)
    region = share_of(about, result.path) if len(_shares(files)) == 1 else (0, 1)
    if made.requests is not None and made.requests != result.rows:
        return result.found(Difference(result.path, None, "rows:", f"{result.rows:,}", f"{made.requests:,}"))
    if share is None:
        return _all(result, made, region)
    made.check_shares()
    return _slices(result, made, region, share)


@dataclass(frozen=True)
class _Result:
    """A result to be."""

    path: str
    files: Sequence[TraceFile]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def found(self, difference: Difference | None, compared: int = 0, slices: int = 0, digest: Any = None) -> Verified:
        return Verified(self.path, self.rows, compared, slices, digest_recorded(self.files) or digest, difference)


def _sample(stated: float | str | None) -> float | None:
    if stated is None:
        return None
    part = options.number("a sample", str(stated))
    if not 0 < part <= 1:
        raise OptionError("a sample of more than 0 and at most 100%", repr(stated), 'change it, such as to "1%"')
    return None if part == 1 else part


def _size_changed(path: Path) -> Difference | None:
    """A text file that is not as large as the file beside it says."""
    size = size_stated(path) if path.is_file() else None
    if size is None or size == path.stat().st_size:
        return None
    return Difference(path, None, "size:", f"{path.stat().st_size:,} bytes", f"{size:,}, as the file beside it says")


def _shares(files: Sequence[TraceFile]) -> dict[Any, TraceFile]:
    return {str(file.provenance.get("shard")): file for file in files}


def _out_of_place(files: Sequence[TraceFile]) -> Difference | None:
    """The first of several files whose rows are not the next ones."""
    if len(_shares(files)) == 1:
        begins = accumulate((file.rows for file in files), initial=files[0].first_row)
        for file, begin in zip(files, begins, strict=False):
            if file.first_row != begin:
                return Difference(file.path, None, "rows", f"from {file.first_row:,} on", f"from {begin:,} on")
        return None
    numbered = sorted(((share_of(file.provenance, str(file.path)), file) for file in files), key=lambda pair: pair[0])
    ordered = [file for _, file in numbered]
    whole_of([file.provenance for file in ordered], [str(file.path) for file in ordered])
    for at, (file, right) in enumerate(zip(files, ordered, strict=True)):
        if file is not right:
            k, n = share_of(file.provenance, str(file.path))
            return Difference(file.path, None, "share", f"{k + 1}/{n}", f"{at + 1}/{n}")
    return None


class _DamageError(Exception):
    """Rows that cannot be read."""

    def __init__(self, file: TraceFile, error: ServeGenError) -> None:
        super().__init__(str(error))
        got = f"cannot be read: expected {error.expected}, got {error.got}:"
        self.difference = Difference(file.path, None, "rows", got, "those that were written")


def _read(file: TraceFile, slabs: Iterator[Trace]) -> Iterator[Trace]:
    """Slabs of a file of ours: what cannot be read is not what was written."""
    try:
        yield from slabs
    except ServeGenError as error:
        raise _DamageError(file, error) from None


def _digests_of(files: Iterable[TraceFile]) -> list[Digest]:
    return [sum((Digest.of(slab.columns) for slab in _read(file, file.slabs())), NO_ROWS) for file in files]


def _other_digest(result: _Result, digests: Sequence[Digest]) -> Difference | None:
    """The first file whose rows have another digest than it says, or all of them than their manifest says."""
    for file, digest in zip(result.files, digests, strict=True):
        if file.digest is not None and file.digest != digest:
            return Difference(file.path, None, "digest", f"{digest} of its rows", f"{file.digest}, as recorded")
    whole, stated = sum(digests, NO_ROWS), manifest_digest(result.path)
    if stated is not None and stated != whole.hex:
        return Difference(result.path, None, "digest", f"{whole} of its rows", f"{stated}, as its manifest says")
    return None


def _all(result: _Result, made: Again, region: tuple[int, int]) -> Verified:
    """Compare all rows, and digests on the way."""
    digests = [NO_ROWS] * len(result.files)

    def read() -> Iterator[tuple[TraceFile, Trace]]:
        for at, file in enumerate(result.files):
            for slab in _read(file, file.slabs()):
                digests[at] += Digest.of(slab.columns)
                yield file, slab

    rows, difference = compared(result.path, read(), made.slabs(region))
    difference = difference or _other_digest(result, digests)
    return result.found(difference, rows, 1, sum(digests, NO_ROWS) if difference is None else None)


def _slices(result: _Result, made: Again, region: tuple[int, int], part: float) -> Verified:
    """Compare some slices of the region."""
    # only what was cut may end before the time that it was made for
    last_us = ALWAYS_US if made.requests is None else max(file.last_us for file in result.files)
    chosen, of = _chosen(result, made, region, part, last_us)
    rows, readers = 0, [(file, file.in_spans()) for file in result.files]
    for k in chosen:
        begin_us, end_us = made.span_us((k, of))
        first, last = region[0] * of // region[1], (region[0] + 1) * of // region[1] - 1
        span_us = (-ALWAYS_US if k == first else begin_us, ALWAYS_US if k == last else end_us)
        found = ((file, slab) for file, rows_in in readers for slab in _read(file, rows_in(span_us)))
        same, difference = compared(result.path, found, made.slabs((k, of)), begin_us <= last_us < end_us)
        rows += same
        if difference is not None:
            return result.found(difference, rows, len(chosen))
    if not rows and result.rows:
        raise OptionError("a sample with requests in it", f"none in {len(chosen)} slices", "take a larger sample")
    return result.found(None, rows, len(chosen))


def _chosen(result: _Result, made: Again, region: tuple[int, int], part: float, last_us: int) -> tuple[list[int], int]:
    """Numbers of slices, spread over the rows, and how many there are in all; they follow from the digest."""
    talks = made.workload.packed.conversations is not None
    count = min(max(int(part * result.rows) // SLICE_ROWS, FEWEST), MOST_OF_CONVERSATIONS if talks else MOST)
    of = there = max(round(count / part), count)
    if made.requests is not None:  # of a span that goes on after the last row
        of = max(round(there * made.workload.expected_requests / max(result.rows, 1)), there)
        there = bisect_right(range(of), last_us, key=lambda k: made.span_us((k, of))[0])
        count = min(count, there)
    word = digest_recorded(result.files) or repr(sorted(result.files[0].provenance.items()))
    numbers = [int.from_bytes(hashlib.sha256(f"{word} {at}".encode()).digest()[:8]) for at in range(count)]
    inside = [at * there // count + number % (there // count) for at, number in enumerate(numbers)]
    return [region[0] * of + k for k in inside], of * region[1]
