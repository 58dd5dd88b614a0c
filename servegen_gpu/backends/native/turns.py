"""Conversations with compiled kernels: from the cells of first turns to records of turns, in order.

Axes: cells, conversations, rows (turns of conversations).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.host.turns import Course, Starts
from servegen_gpu.backends.native.library import Library, address, sessions, turns
from servegen_gpu.blocks import thread_count
from servegen_gpu.law.address import ALONE
from servegen_gpu.law.session_ids import LAYOUTS, folded
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import Cells
from servegen_gpu.request.tables import PackedTables


def sessions_of(cells: Cells) -> Any:
    """An SgSessions: how the sessions of cells are named."""
    alone = cells.stream == ALONE
    return sessions(
        {
            "window": cells.window if alone else folded(cells.window),
            "layouts": np.array(LAYOUTS, np.int64),
            "count": len(LAYOUTS),
            "ordinal_shift": 0 if alone else 1,
            "flipped": -1 if alone else 0,
        }
    )


def turns_of(packed: PackedWorkload, cells: Cells, span_us: tuple[int, int], offset_us: int) -> Any:
    """An SgTurns: how the conversations of cells go on, and which span of the packed one is wanted."""
    model = packed.turns
    assert model is not None
    return turns(
        {
            "model": model.model[cells.profile],
            **_tables("count", model.counts),
            **_tables("gap", model.gaps),
            "gap_us": model.gap_us,
            "gap_width_us": model.gap_width_us,
            **_tables("new", model.new),
            "new_table": model.new_table,
            "growth": model.growth,
            "session_us": model.session_us,
            "any_new": int((model.new_table >= 0).any()),
            "from_us": span_us[0] - offset_us,
            "to_us": span_us[1] - offset_us,
            "offset_us": offset_us,
        }
    )


def _tables(name: str, tables: PackedTables) -> dict[str, Any]:
    return {f"{name}_{part}": getattr(tables, part) for part in ("thresholds", "values", "guide", "guide_bits")}


def drawn_course(library: Library, handle: ctypes.c_void_p, rows: int, cells: Cells, offset_us: int) -> Course:
    """When the turns come that were drawn last."""
    n = library.call("sg_conversations", handle)
    us, cell, ordinal = np.empty(n, np.int64), np.empty(n, np.int32), np.empty(n, np.uint32)
    count, since_us = np.empty(n, np.int32), np.empty(rows, np.int64)
    library.call("sg_courses", handle, us, cell, ordinal, count, since_us)
    of = np.repeat(np.arange(n, dtype=np.int32), count)
    turn = np.arange(rows) - np.repeat(np.cumsum(count) - count, count)
    return Course(Starts(us + offset_us, cells.client[cell], cells.window[cell], ordinal), of, turn, since_us)


def ordered(library: Library, parts: list[NDArray[np.void]]) -> NDArray[np.void]:
    """Records of several parts by arrival, conversation and turn."""
    count = np.array([len(part) for part in parts], np.int64)
    kept = [np.ascontiguousarray(part) for part in parts]
    rows = np.array([address(part) for part in kept], np.int64)
    out = np.empty(int(count.sum()), parts[0].dtype)
    parts_, threads = ctypes.c_int64(len(parts)), ctypes.c_int64(thread_count())
    library.call("sg_ordered", rows, count, parts_, threads, out)
    return out
