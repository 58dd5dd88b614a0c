"""The compiled kernels as a library of C functions: found, loaded, typed. ctypes releases the interpreter's lock."""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.backends.native.build import EXTENSIONS, BuildError, own_name
from servegen_gpu.backends.native.kept import OWN_CACHE, build_into, cached_library, is_whole
from servegen_gpu.cache_dir import cache_dir, distrusted
from servegen_gpu.errors import OptionError, VariableError
from servegen_gpu.forks import in_children
from servegen_gpu.request.schema import MODALITIES

NAMED = "backend 'native'"
MAX_FIELDS = 8
PAD = 64
"""Numbers that loops may read beyond an array of sums."""

LARGE = 1 << 20
"""Bytes of an array from which on its memory is used again."""

Scalar = TypeVar("Scalar", bound=np.generic)
_log = logging.getLogger(__name__)

_NO_MEMORY = "not enough memory for a slab; give a smaller memory="
_POINTERS = ctypes.c_void_p
_JOB: tuple[tuple[str, Any], ...] = (
    *((name, ctypes.c_uint64) for name in ("key0", "key1")),
    ("cells", ctypes.c_int64),
    *((name, np.uint64) for name in ("client", "window")),
    ("client_column", np.int32),
    *((name, np.uint8) for name in ("family", "rule")),
    *((name, np.float64) for name in ("d", "c", "log_d", "boost")),
    *((name, np.int64) for name in ("count", "capacity", "rotation")),
    *((name, np.float64) for name in ("occupancy", "ticks_per_unit")),
    ("first_ticks", np.int64),
    ("log_unit", np.float64),
    ("ticks_in_all", np.int64),
    *((name, np.int64) for name in ("clock_table", "origin_us")),
    ("table", np.int32),
    ("thresholds", np.uint32),
    *((name, np.int32) for name in ("values", "guide")),
    ("guide_bits", ctypes.c_int64),
    ("clock_thresholds", np.uint32),
    ("clock_guide", np.int32),
    ("clock_guide_bits", ctypes.c_int64),
    *((name, np.uint64) for name in ("clock_first", "clock_start_us", "clock_slope")),
    *((name, ctypes.c_int64) for name in ("window_us", "fields", "scalar_fields", "dependence", "ratio_field")),
    ("mixing", np.float64),
    ("mixing_of", np.int32),
    ("ties", ctypes.c_int64),
    ("context", np.int32),
    *((name, ctypes.c_int64) for name in ("modalities", "count_field", "item_field", "ordinals", "span_us", "threads")),
    ("stop", np.int32),
)
"""Fields of SgJob in kernels/job.h: arrays by their type, numbers by their C type."""

_SESSIONS = (
    *((name, np.int64) for name in ("window", "layouts")),
    *((name, ctypes.c_int64) for name in ("count", "ordinal_shift", "flipped")),
)


def _tables(name: str) -> tuple[tuple[str, Any], ...]:
    kinds = {"thresholds": np.uint32, "values": np.int32, "guide": np.int32, "guide_bits": ctypes.c_int64}
    return tuple((f"{name}_{part}", kind) for part, kind in kinds.items())


_TURNS: tuple[tuple[str, Any], ...] = (
    ("model", np.int32),
    *_tables("count"),
    *_tables("gap"),
    *((name, np.int64) for name in ("gap_us", "gap_width_us")),
    *_tables("new"),
    ("new_table", np.int32),
    ("growth", np.uint8),
    ("session_us", np.int64),
    *((name, ctypes.c_int64) for name in ("any_new", "from_us", "to_us", "offset_us")),
)

_GRID: tuple[tuple[str, Any], ...] = (
    *((name, ctypes.c_uint64) for name in ("key0", "key1")),
    *((name, ctypes.c_int64) for name in ("clients", "profiles", "laws", "windows")),
    ("client", np.uint64),
    ("profile", np.int64),
    ("rate_factor", np.float64),
    ("group", np.int64),
    ("rule", np.uint8),
    ("rate_rps", np.float64),
    ("first_draw", np.uint8),
    *((name, np.float64) for name in ("log_mean_gap", "d", "c", "log_d", "boost", "power")),
    *((name, np.int64) for name in ("row", "law")),
    ("number", np.uint64),
    ("scale", np.float64),
    ("threads", ctypes.c_int64),
    ("stop", np.int32),
)
"""Fields of SgGrid in kernels/job.h, likewise."""

_SERVING: tuple[tuple[str, Any], ...] = (
    ("arrival_ns", np.int64),
    *((name, np.int32) for name in ("input_tokens", "output_tokens")),
    *((name, np.int64) for name in ("reserved_tokens", "work_ns")),
    ("session", np.int32),
    *((name, np.int64) for name in ("wait_ns", "ttft_ns", "decode_ns")),
    *((name, ctypes.c_int64) for name in ("requests", "sessions", "instances", "routing", "decode_only")),
    *((name, ctypes.c_int64) for name in ("step_ps", "prefill_step_ps", "prefill_ps", "decode_ps")),
    *((name, ctypes.c_int64) for name in ("step_tokens", "max_sequences", "kv_tokens")),
    ("stop", np.int32),
)
"""Fields of SgServing in kernels/job.h, likewise."""

_RUNS = (*((name, np.int64) for name in ("cell", "first", "count", "before")), ("runs", ctypes.c_int64))


def _structure(name: str, fields: tuple[tuple[str, Any], ...]) -> type[ctypes.Structure]:
    typed = [(field, _POINTERS if issubclass(kind, np.generic) else kind) for field, kind in fields]
    return type(name, (ctypes.Structure,), {"_fields_": typed})


Job, Grid, Runs = _structure("SgJob", _JOB), _structure("SgGrid", _GRID), _structure("SgRuns", _RUNS)
Sessions, Turns = _structure("SgSessions", _SESSIONS), _structure("SgTurns", _TURNS)
Serving = _structure("SgServing", _SERVING)


class Out(ctypes.Structure):
    """SgOut in kernels/job.h."""

    _fields_ = (
        *((name, _POINTERS) for name in ("arrival_us", "client", "inputs")),
        ("field", _POINTERS * MAX_FIELDS),
        *((name, _POINTERS) for name in ("ordinal",)),
        ("offsets", _POINTERS * len(MODALITIES)),
        ("offset_us", ctypes.c_int64),
        *((name, _POINTERS) for name in ("sessions", "conversation", "turn", "new_tokens", "due")),
        ("due_count", ctypes.c_int64),
    )


class Digested(ctypes.Structure):
    """SgDigested in kernels/job.h."""

    _fields_ = (
        ("values", _POINTERS),
        ("offsets", _POINTERS),
        ("wide", ctypes.c_int64),
        ("words", ctypes.c_uint64 * 5),
    )


class Loads(ctypes.Structure):
    """SgLoads in kernels/job.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("offset_us", "width_us", "bins")),
        ("requests", _POINTERS),
        ("field", _POINTERS * MAX_FIELDS),
    )


def job(values: Mapping[str, Any]) -> Any:
    """An SgJob, with nulls and zeros for what is not given; it keeps the arrays it points into alive."""
    return _filled(Job, _JOB, values)


def grid(values: Mapping[str, Any]) -> Any:
    """An SgGrid, likewise."""
    return _filled(Grid, _GRID, values)


def runs(values: Mapping[str, Any]) -> Any:
    """Runs as the library takes them."""
    return _filled(Runs, _RUNS, values)


def sessions(values: Mapping[str, Any]) -> Any:
    """An SgSessions."""
    return _filled(Sessions, _SESSIONS, values)


def turns(values: Mapping[str, Any]) -> Any:
    """An SgTurns."""
    return _filled(Turns, _TURNS, values)


def serving(values: Mapping[str, Any]) -> Any:
    """An SgServing; the columns that it fills must be arrays of int64 already."""
    return _filled(Serving, _SERVING, values)


def _filled(kind: type[ctypes.Structure], fields: tuple[tuple[str, Any], ...], values: Mapping[str, Any]) -> Any:
    made: Any = kind()
    made.kept = []
    types = dict(fields)
    for name, value in values.items():
        if issubclass(types[name], np.generic):
            made.kept.append(np.ascontiguousarray(value, types[name]))
            setattr(made, name, address(made.kept[-1]))
        else:
            setattr(made, name, value)
    return made


def address(array: NDArray[Any]) -> int:
    """Where the array's memory begins."""
    return int(array.ctypes.data)


class NoRoomForId(Exception):
    """The id of a session does not fit: NumPy says which."""


class Library:
    """The C functions, with the loops of one vector extension.

    Parameters
    ----------
    path : Path
    extension : str, optional
        ``baseline``, ``avx2`` or ``avx512``; by default ``$SERVEGEN_GPU_ISA``, or the best that works here.
    """

    def __init__(self, path: Path, extension: str | None = None) -> None:
        self.path = path
        self._c = ctypes.CDLL(str(path))
        self._c.sg_strips.restype = ctypes.c_void_p
        self._c.sg_function.restype = ctypes.c_void_p
        self._c.sg_take.restype = ctypes.c_void_p
        for name in (
            "sg_draw",
            "sg_loads",
            "sg_cells",
            "sg_cell_rows",
            "sg_has_items",
            "sg_columns",
            "sg_item_count",
            "sg_items",
            "sg_survey",
            "sg_sums",
            "sg_follow",
            "sg_next_turns",
            "sg_turn_rows",
            "sg_conversations",
            "sg_courses",
            "sg_ordered",
            "sg_serve",
            "sg_queue",
            "sg_digest",
        ):
            getattr(self._c, name).restype = ctypes.c_int64
        wanted = extension or os.environ.get("SERVEGEN_GPU_ISA") or self.extensions()[-1]
        if wanted not in self.extensions():
            raise VariableError(
                f"SERVEGEN_GPU_ISA among {', '.join(self.extensions())}, which work here", repr(wanted), "unset it"
            )
        self.extension = wanted
        self._strips = ctypes.c_void_p(self._c.sg_strips(wanted.encode()))

    def extensions(self) -> list[str]:
        """Vector extensions that the library has and this machine can run, the best last."""
        return [name for name in EXTENSIONS if self._c.sg_strips(name.encode())]

    def function(self, name: str) -> Any:
        """A function of the headers over arrays, for tests (kernels/shim.h)."""
        found = self._c.sg_function(self._strips, name.encode())
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(found) if found else None

    def call(self, name: str, *arguments: Any, stop: NDArray[np.int32] | None = None) -> int:
        """Call a function of the C interface; arrays are passed by address.

        Parameters
        ----------
        name : str
        arguments
        stop : int32[1], optional
            The flag of the job. With it, Ctrl-C ends the work: the main thread waits where it can be interrupted, and
            another one is in the library.
        """
        passed = [ctypes.c_void_p(address(a)) if isinstance(a, np.ndarray) else a for a in arguments]
        work = functools.partial(getattr(self._c, name), self._strips, *passed)
        if stop is None or threading.current_thread() is not threading.main_thread():
            found = int(work())
        else:
            future = _worker().submit(work)
            try:
                found = int(future.result())
            except BaseException:
                stop[0] = 1
                concurrent.futures.wait([future])  # the library still uses our memory
                raise
        if found == -1:
            raise MemoryError(_NO_MEMORY)
        if found == -2:
            raise OptionError("fewer than 2**32 requests in a slab", "more", "give a smaller memory=")
        if found == -3:
            raise KeyboardInterrupt
        if found == -4:
            raise NoRoomForId
        return found

    def hold(self, more: int) -> None:
        """Keep memory from slab to slab, while there is someone who holds it."""
        self._c.sg_hold(ctypes.c_int64(more))

    def empty(self, n: int, kind: type[Scalar]) -> NDArray[Scalar]:
        """An array that is not initialised; a large one in memory that an earlier one gave back, if it can."""
        size = n * np.dtype(kind).itemsize
        if size < LARGE:
            return np.empty(n, kind)
        at = self._c.sg_take(ctypes.c_int64(size))
        if at is None:
            raise MemoryError(_NO_MEMORY)
        memory = (ctypes.c_char * size).from_address(at)
        weakref.finalize(memory, self._c.sg_give, ctypes.c_void_p(at), ctypes.c_int64(size)).atexit = False
        return np.frombuffer(memoryview(memory), kind)

    def free(self, handle: Any) -> None:
        """Give back what a draw left."""
        self._c.sg_free(handle)

    def free_turns(self, handle: Any) -> None:
        """Give back what `sg_follow` left."""
        self._c.sg_free_turns(handle)


@functools.cache
def _worker() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="servegen_gpu_native")


in_children(_worker.cache_clear)


def packaged_library() -> Path:
    """Where a wheel has the library."""
    return Path(__file__).with_name(own_name())


def find_library() -> Path | None:
    """The packaged library, or else the one in the cache directory, if that is whole and nobody else's; or None."""
    try:
        packaged = packaged_library()
        if packaged.is_file():
            return packaged
        cached = cached_library(cache_dir())
        if not os.path.lexists(cached):
            return None
    except (RuntimeError, OSError):  # no home directory, or what may not be looked at
        return None
    if why := distrusted(cached):
        _say(f"compiled kernels are not loaded, because {why}; {OWN_CACHE}")
        return None
    return cached if is_whole(cached) else None


@functools.cache
def _say(what: str) -> None:
    """Say it once, on standard error unless logging is set up otherwise."""
    _log.warning("note: %s", what)


def load_library(build: bool = False) -> Library:
    """The library, compiled into the cache directory first if it is nowhere and `build` is set, or if it is damaged."""
    try:
        path = find_library()
        if path is None and (build or _is_damaged()):
            path = build_into(cache_dir())
    except BuildError as error:
        raise OptionError(
            "compiled kernels for backend 'native'", error.why, f"{error.fix}, or choose 'numpy'"
        ) from None
    except RuntimeError as error:
        raise OptionError("a cache directory", str(error), "set SERVEGEN_GPU_CACHE") from None
    if path is None:
        raise OptionError(f"compiled kernels for {NAMED}", "none", "run python -m servegen_gpu.backends.native.build")
    return _loaded(path, os.environ.get("SERVEGEN_GPU_ISA") or "")


def _is_damaged() -> bool:
    """Whether there was a library in the cache, which must be made again."""
    cached = cached_library(cache_dir())
    return os.path.lexists(cached) and not distrusted(cached)


@functools.cache
def _loaded(path: Path, extension: str) -> Library:
    try:
        return Library(path, extension or None)
    except OSError as error:
        raise OptionError(
            "a library that loads", f"{path}: {error}", "delete it and install again, or choose 'numpy'"
        ) from None
