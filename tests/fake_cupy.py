"""A stand-in for CuPy on the host, so that everything that calls CuPy runs without a device.

It is stricter than CuPy: an array of NumPy is refused where one of the device is due, an array of a device that is not
current is refused, fresh memory and what is given back are poisoned, a copy to the host is done only when somebody
waits for it, and memory that another stream uses needs an event between them. Pools fragment (fake_memory.py), nothing
is at a null pointer, and whatever can fail may be planned to (`fake_cuda.Fault`).
Kernels are those of kernels/slab.cu, compiled for the host. What it has by name, CuPy has (test_fake_cupy.py).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import CudaStandIn
from fake_memory import POISON, Memory, OutOfMemoryError
from numpy.lib.mixins import NDArrayOperatorsMixin

FUNCTIONS = (
    *("arange", "argsort", "concatenate", "copyto", "cumsum", "diff", "flatnonzero", "full", "maximum"),
    *("minimum", "ones", "searchsorted", "stack", "unique", "where", "zeros"),
)
"""Functions of NumPy that CuPy has too and that we use."""

TYPES = ("uint8", "int32", "uint32", "int64", "uint64", "float64")


class DeviceArray(NDArrayOperatorsMixin):
    """An array on a device: a NumPy array that only the stand-in may see."""

    def __init__(self, xp: StandIn, host: np.ndarray, memory: Memory | None = None) -> None:
        self.xp, self.host = xp, host
        self.memory = memory or xp.cuda.allocate(host)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)

    @property
    def flags(self) -> Any:
        return self.host.flags

    @property
    def data(self) -> Any:
        """The memory, by address; of nothing, a null pointer."""
        return SimpleNamespace(ptr=self.host.ctypes.data if self.memory.chunk else 0, device_id=self.memory.device)

    def checked(self, write: bool = False) -> np.ndarray:
        """The host's array, if its device is current, to read it or to write to it."""
        assert self.memory.device == self.xp.cuda.current, f"device {self.xp.cuda.current} is current, not the array's"
        self.xp.cuda.use(self.memory, write)
        return self.host

    def waited(self) -> np.ndarray:
        """The host's array, once all before it on the stream is done."""
        host = self.checked()
        self.xp.cuda.get_current_stream().synchronize()
        return host

    def get(self) -> np.ndarray:
        """A copy on the host."""
        self.xp.brought_bytes += self.nbytes
        with self.xp.cuda.Device(self.memory.device):
            return self.waited().copy()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        if out := keywords.pop("out", None):
            into = tuple(a.checked(write=True) if isinstance(a, DeviceArray) else self.xp.host_of(a) for a in out)
            getattr(ufunc, method)(*map(self.xp.host_of, inputs), out=into, **keywords)
            return out[0]
        return self.xp.made(getattr(ufunc, method)(*map(self.xp.host_of, inputs), **keywords))

    def __len__(self) -> int:
        return len(self.host)

    def __int__(self) -> int:
        return int(self.waited())

    def __bool__(self) -> bool:
        return bool(self.waited())

    def __float__(self) -> float:
        return float(self.waited())

    def __getitem__(self, at: Any) -> DeviceArray:
        found = np.asarray(self.checked()[self.xp.host_of(at)])
        return DeviceArray(self.xp, found, self.memory if found.base is not None else None)

    def __setitem__(self, at: Any, value: Any) -> None:
        self.checked(write=True)[self.xp.host_of(at)] = self.xp.host_of(value)

    def all(self) -> DeviceArray:
        return self.xp.made(self.checked().all())

    def astype(self, kind: Any) -> DeviceArray:
        return self.xp.made(self.checked().astype(kind))

    def copy(self) -> DeviceArray:
        return self.xp.made(self.checked().copy())

    def sort(self) -> None:
        """As some CuPy 14 do it: wrongly, without a word, if there is no memory for its scratch."""
        host = self.checked(write=True)
        try:
            scratch = self.xp.cuda.allocate(np.empty(host.nbytes + host.nbytes // 16, np.uint8))
        except OutOfMemoryError:
            host[:] = host[::-1].copy()
            return
        host.sort(kind="stable")
        del scratch

    def max(self, keepdims: bool = False) -> DeviceArray:
        return self.xp.made(self.checked().max(keepdims=keepdims))

    def sum(self) -> DeviceArray:
        return self.xp.made(self.checked().sum())

    def view(self, kind: Any) -> DeviceArray:
        return DeviceArray(self.xp, self.checked().view(kind), self.memory)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.memory.device  # kDLCUDA

    def __dlpack__(self, **_: Any) -> DeviceArray:
        return self


class Generator:
    """CuPy's random numbers, with other values."""

    def __init__(self, xp: StandIn, seed: int) -> None:
        self._xp, self._rng = xp, np.random.Generator(np.random.SFC64(seed))

    def integers(self, low: int, high: int, size: int, dtype: Any) -> DeviceArray:
        return self._xp.made(self._rng.integers(low, high, size, dtype=dtype))

    def random(self, size: int) -> DeviceArray:
        return self._xp.made(self._rng.random(size))

    def standard_exponential(self, size: int) -> DeviceArray:
        return self._xp.made(self._rng.standard_exponential(size))

    def standard_gamma(self, shape: DeviceArray) -> DeviceArray:
        return self._xp.made(self._rng.standard_gamma(self._xp.host_of(shape)))


class StandIn:
    """What ``import cupy`` gives; parameters are those of `CudaStandIn`."""

    __version__ = "14.2.0"
    __spec__ = ModuleSpec("cupy", None)
    ndarray = DeviceArray

    def __init__(self, **faults: Any) -> None:
        self.cuda = CudaStandIn(**faults)
        self.brought_bytes = 0
        self.random = SimpleNamespace(default_rng=lambda seed: Generator(self, seed))
        self.RawModule = self.cuda.raw_module

    def __getattr__(self, name: str) -> Any:
        if name in TYPES:
            return getattr(np, name)
        if name not in FUNCTIONS:
            raise AttributeError(f"the stand-in for CuPy has no {name}")
        function = getattr(np, name)

        def call(*given: Any, **named: Any) -> Any:
            hosts = [self.host_of(value) for value in given]
            found = function(*hosts, **{key: self.host_of(value) for key, value in named.items()})
            if isinstance(found, tuple):
                return tuple(map(self.made, found))
            return None if found is None else self.made(found)

        return call

    def host_of(self, value: Any) -> Any:
        """What stands for a value on the host; an array of NumPy is refused."""
        if isinstance(value, DeviceArray):
            return value.checked()
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(value, tuple | list):
            return type(value)(map(self.host_of, value))
        return value

    def made(self, host: Any) -> DeviceArray:
        """A new array on the current device."""
        return DeviceArray(self, np.asarray(host))

    def asarray(self, value: Any) -> DeviceArray:
        """An array of the host, uploaded."""
        if isinstance(value, DeviceArray):
            return value
        made = self.made(np.array(value, order="C"))
        made.memory.uploaded = True
        return made

    def empty(self, shape: Any, dtype: Any = np.float64) -> DeviceArray:
        """Poisoned memory."""
        host = np.empty(shape, dtype)
        host.reshape(-1).view(np.uint8)[:] = POISON
        return self.made(host)

    def bincount(self, x: DeviceArray, weights: DeviceArray | None = None, minlength: int = 0) -> DeviceArray:
        """NumPy's, but for nothing at all, of which there is no largest number."""
        if not x.size:
            raise ValueError("zero-size array to reduction operation cupy_max which has no identity")
        return self.made(np.bincount(self.host_of(x), self.host_of(weights), minlength))

    def from_dlpack(self, array: Any) -> DeviceArray:
        """The same memory."""
        found = array.__dlpack__()
        return DeviceArray(self, found.host, found.memory)

    def get_default_memory_pool(self) -> Any:
        """The pool of arrays that nobody chose another for."""
        return self.cuda.default_pool


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import fake_cupy
from servegen_gpu.backends.cuda import driver as cuda_driver
cuda_driver.driver_version = lambda: 13000
sys.modules[__name__] = fake_cupy.StandIn()
"""


def for_children(folder: Path) -> None:
    """A folder for ``PYTHONPATH``: processes find the stand-in as cupy there, and a driver."""
    folder.mkdir(exist_ok=True)
    (folder / "cupy.py").write_text(CHILD.format(tests=str(Path(__file__).parent)))


def install(monkeypatch: Any, **faults: Any) -> StandIn:
    """The stand-in as CuPy of this process, with a driver; devices of other tests are forgotten."""
    from servegen_gpu.backends.cuda import device as cuda_device
    from servegen_gpu.backends.cuda import driver as cuda_driver
    from servegen_gpu.backends.cuda import sort as cuda_sort

    xp = StandIn(**faults)
    monkeypatch.setitem(sys.modules, "cupy", xp)
    monkeypatch.setattr(cuda_driver, "has_cupy", lambda: True)
    monkeypatch.setattr(cuda_driver, "cupy_packages", lambda: ["cupy-cuda13x"])
    monkeypatch.setattr(cuda_driver, "driver_version", lambda: xp.cuda.version)
    monkeypatch.delenv("SERVEGEN_GPU_DEVICES", raising=False)
    monkeypatch.setenv("SERVEGEN_GPU_SORT", "cupy")
    cuda_device.open_device.cache_clear()
    cuda_sort.built.cache_clear()
    return xp
