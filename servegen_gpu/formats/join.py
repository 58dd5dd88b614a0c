"""Shares of a trace, each in files of its own, joined again to the trace."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from servegen_gpu.errors import OptionError
from servegen_gpu.formats import own_slabs
from servegen_gpu.provenance import share_of, whole_of
from servegen_gpu.trace import Trace


def join_files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Trace]:
    """The slabs of the trace whose shares are in files, as it would be without shares.

    Parameters
    ----------
    paths : sequence of path
        Files, or directories of parts, also with a manifest: all shares ``1/n`` to ``n/n`` of one trace, in any order.
        They are checked to belong together before the first slab is read.

    Raises
    ------
    OptionError
        If one cannot be read, is missing, doubled, without provenance, or of another trace.
    """
    parts = []
    for path in paths:
        head = next(own_slabs(path)).rows(0, 0)
        parts.append((share_of(head.provenance, os.fspath(path)), path, head))
    parts.sort(key=lambda part: (part[0][0], os.fspath(part[1])))
    names = [os.fspath(path) for _, path, _ in parts]
    provenance = whole_of([head.provenance for _, _, head in parts], names)
    return _slabs([path for _, path, _ in parts], provenance)


def _slabs(paths: Sequence[str | os.PathLike[str]], provenance: dict[str, object]) -> Iterator[Trace]:
    """Rows of the files in order, numbered through."""
    first_row = 0
    for path in paths:
        begin = first_row
        for slab in own_slabs(path):
            if begin + slab.first_row != first_row:
                raise OptionError(
                    f"row {first_row - begin:,} of {os.fspath(path)} next",
                    f"row {slab.first_row:,}",
                    "generate the share again",
                )
            yield Trace.trusted(slab.columns, provenance, first_row)
            first_row += len(slab)
            del slab  # not kept while the next one is read
