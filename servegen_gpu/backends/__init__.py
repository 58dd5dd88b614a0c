"""What computes the law: one module per array library or device, behind one contract."""

from __future__ import annotations

from servegen_gpu.backends.contract import Backend
from servegen_gpu.errors import OptionError, VariableError
from servegen_gpu.options import check_choice

BACKENDS = ("numpy", "native", "cupy", "jax")


def choose_backend(name: str = "auto") -> Backend:
    """A backend by name, or the fastest that works here; a name never gives another backend."""
    from servegen_gpu.backends.host.backend import NumpyBackend

    check_choice("a backend", name, ("auto", *BACKENDS))
    if name == "numpy":
        return NumpyBackend()
    if name == "jax":
        return _jax_backend()
    if name in ("auto", "cupy") and (cupy := _cupy_backend(name)):
        return cupy
    from servegen_gpu.backends.native.backend import NativeBackend
    from servegen_gpu.backends.native.library import load_library

    if name == "native":
        return NativeBackend()
    try:
        return NativeBackend(load_library())
    except VariableError:
        raise
    except OptionError:
        return NumpyBackend()


def note_of_numpy() -> str:
    """What would be faster where nothing was named, and NumPy computes."""
    from servegen_gpu.backends.native.build import BuildError, compiler

    try:
        compiler()
        what, fix = "which are not here", "run python -m servegen_gpu.backends.native.build"
    except BuildError as error:
        what, fix = (
            f"which are not here, and {error.why}",
            f"{error.fix}, then run python -m servegen_gpu.backends.native.build",
        )
    return f"NumPy computes, several times slower than compiled kernels, {what}; {fix}"


def describe_backends() -> list[dict[str, str]]:
    """What is here: name, state, and detail of every backend."""
    import numpy as np

    from servegen_gpu.backends.cuda import backend as cuda
    from servegen_gpu.backends.native.library import load_library
    from servegen_gpu.blocks import thread_count

    threads = f"on {thread_count()} threads"
    rows = [{"name": "numpy", "state": "ready", "detail": f"NumPy {np.__version__} {threads}"}]
    try:
        library = load_library()
        detail = f"compiled kernels with {library.extension} {threads}"
        rows.append({"name": "native", "state": "ready", "detail": detail})
    except OptionError as error:
        rows.append({"name": "native", "state": "missing", "detail": f"got {error.got}; {error.fix}"})
    return [*rows, cuda.describe(), _describe_jax()]


GET_JAX = 'pip install "servegen-gpu[jax]"'


def _jax_backend() -> Backend:
    try:
        from servegen_gpu.backends.xla.backend import JaxBackend
    except (ImportError, RuntimeError) as error:  # a JAX and a jaxlib that do not fit raise the latter
        raise OptionError("JAX for backend='jax'", str(error), GET_JAX) from error
    return JaxBackend()


def _describe_jax() -> dict[str, str]:
    """Found without importing it: that takes a second, and on a GPU most of its memory."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        return {"name": "jax", "state": "missing", "detail": GET_JAX}
    return {"name": "jax", "state": "ready", "detail": f"JAX {version} on its default device; never chosen by auto"}


def _cupy_backend(name: str) -> Backend | None:
    """By name or not at all; for ``auto`` only where it works: where it makes the same rows as NumPy."""
    from servegen_gpu.backends.cuda import backend as cuda

    if name == "cupy":
        return cuda.CupyBackend()
    if not cuda.is_likely():
        return None
    try:
        backend = cuda.CupyBackend()
        return backend if _agrees(backend) else None
    except VariableError:
        raise
    except Exception:  # whatever a driver, a compiler or a device may raise: there are other backends
        return None


def _agrees(backend: Backend) -> bool:
    """Whether a backend makes the rows of a small workload that NumPy makes."""
    import numpy as np

    from servegen_gpu.backends.host.backend import NumpyBackend
    from servegen_gpu.clients.population.population import population
    from servegen_gpu.law.address import derive_key
    from servegen_gpu.packing import pack
    from servegen_gpu.plan import plan
    from servegen_gpu.rates import Rate

    packed, _ = pack(population(clients=100), Rate("constant", 20.0), start_s=0, end_s=1200, warmup_s=0)
    key = derive_key(0)
    slab = next(plan(packed, 1 << 20))
    ours, theirs = (one.sample_slab(packed, key, slab) for one in (backend, NumpyBackend()))
    return all(np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name])) for name in theirs)
