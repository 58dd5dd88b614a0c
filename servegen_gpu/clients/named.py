"""Workloads by name, as the command line takes them, and functions that take a pool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, unknown

VARIABLE = "SERVEGEN_DATA"
"""Of the environment: ServeGen's data directory."""
BUILT_IN, RELEASED = "built-in", "released"

AnyPool = ClientPool | str | os.PathLike[str]
"""Clients, or what `as_pool` finds by name or path."""


class Named(NamedTuple):
    """A pool, where it is from (``"built-in"``, ``"released"`` or a path), and what a user should know of it."""

    pool: ClientPool
    origin: str
    notes: tuple[str, ...] = ()


def as_pool(source: AnyPool) -> ClientPool:
    """A pool as it is, or by the name of a workload.

    Parameters
    ----------
    source : ClientPool, str or path
        A name is that of a built-in workload (`servegen_gpu.PRESETS`), or else of one of the released profiles in the
        directory ``$SERVEGEN_DATA``. A path is that of a TOML file of clients or of a population, or of a saved
        profile.

    Raises
    ------
    OptionError, ProfileError
        If it is none of these.
    """
    if isinstance(source, ClientPool):
        return source
    if not isinstance(source, str | os.PathLike):
        expected = "a pool, the name of a workload, or the path of a TOML file or of a saved profile"
        raise OptionError(
            expected, repr(source)[:60], "give what population, load_servegen, fit or read_clients return"
        )
    return named(source).pool


def named(
    workload: str | os.PathLike[str],
    *,
    clients: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    missing: Literal["error", "drop"] = "error",
    cache: bool = True,
) -> Named:
    """A pool by the name of its workload or by the path of its file: see `as_pool`.

    Parameters
    ----------
    workload : str or path
    clients, seed : int
        Of a population.
    data_dir : path, optional
        ServeGen's data directory, in which the name is looked for instead.
    missing, cache
        As `servegen_gpu.load_servegen` takes them.
    """
    from servegen_gpu.clients.population.population import population
    from servegen_gpu.clients.population.preset_toml import is_population
    from servegen_gpu.clients.population.presets import PRESETS
    from servegen_gpu.clients.saved.profile import is_profile, load_profile

    name = os.fspath(workload)
    if is_profile(name):
        if data_dir is not None or clients is not None:
            fix = "leave them out, or use --resample"
            raise OptionError("a saved profile without --profiles and --clients", name, fix)
        return Named(load_profile(name), name)
    if is_file(workload):
        if data_dir is not None:
            raise OptionError("a TOML file without --profiles", name, "leave out one of them")
        if not name.lower().endswith(".toml") or is_population(name):
            return Named(population(Path(name), clients=clients, seed=seed), name)
        if clients is not None:
            raise OptionError("a TOML file of clients without --clients", name, "leave it out, or use --resample")
        from servegen_gpu.clients.stated.toml_file import read_clients

        return Named(read_clients(name), name)
    if data_dir is None and name in PRESETS:
        return Named(population(name, clients=clients, seed=seed), BUILT_IN)
    if data_dir is None:
        released = _released_names()
        if name not in released and os.path.exists(name):
            expected = "a workload: a name, a TOML file of clients or of a population, or a saved profile"
            raise OptionError(expected, f"{name!r}, another file", f"for a trace: servegen-gpu fit {name} -o PROFILE")
        if name not in released:
            fix = "check the path, or name ServeGen's data directory with --profiles"
            raise unknown("a file that is there, or a workload", name, (*PRESETS, *released), fix)
        data_dir = data_directory()
    if clients is not None:
        fix = "leave out one of them, or use --resample"
        raise OptionError("--clients with a population only", "released profiles as well", fix)
    from servegen_gpu.clients.released.servegen import load_servegen_with_notes

    pool, notes = load_servegen_with_notes(data_dir, name, missing=missing, cache=cache)
    return Named(pool, RELEASED, notes)


def pool_or_trace(source: Any) -> Any:
    """A pool for text or a path that names clients and no trace that is there; everything else as it is."""
    from servegen_gpu.clients.saved.profile import is_profile

    if not isinstance(source, str | os.PathLike):
        return source
    name = os.fspath(source)
    clients = name.lower().endswith(".toml") or is_profile(name)
    return as_pool(source) if clients or (is_known(name) and not os.path.exists(name)) else source


def is_file(workload: str | os.PathLike[str]) -> bool:
    """Whether a workload is meant as a TOML file: text that ends so, or any path."""
    return not isinstance(workload, str) or workload.lower().endswith(".toml")


def is_known(workload: str) -> bool:
    """Whether text names a workload without a file: built in, or released and in ``$SERVEGEN_DATA``."""
    from servegen_gpu.clients.population.presets import PRESETS

    return workload in PRESETS or workload in _released_names()


def data_directory() -> str:
    """ServeGen's data directory of ``$SERVEGEN_DATA``."""
    if not (found := os.environ.get(VARIABLE, "").strip()):
        raise OptionError(f"${VARIABLE}, ServeGen's data directory", "none", "set it, or name one: --profiles DIR")
    return found


def _released_names() -> tuple[str, ...]:
    """Workloads in the directory of the environment that are not built in; none where it is not set."""
    from servegen_gpu.clients.population.presets import PRESETS
    from servegen_gpu.clients.released.servegen import workloads_in

    found = os.environ.get(VARIABLE, "").strip()
    return tuple(name for name in workloads_in(Path(found)) if name not in PRESETS) if found else ()
