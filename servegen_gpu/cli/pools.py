"""Which clients: arguments of all commands that take a workload."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import servegen_gpu as sg
from servegen_gpu.cli.arguments import Parser
from servegen_gpu.clients.named import data_directory, is_file, named
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.formats.store import is_there

WORKLOAD_HELP = (
    "name of a workload (see `servegen-gpu presets`), a TOML file of your own population or clients, or the directory "
    "of a saved profile"
)


def add(parser: Parser, what: str = WORKLOAD_HELP) -> None:
    """Add the arguments."""
    workload, clients = parser.group("workload"), parser.group("clients")
    workload.add_argument("workload", nargs="?", help=what)
    workload.add_argument("--population", metavar="FILE", help="population from a TOML file, instead of a workload")
    workload.add_argument("--profiles", metavar="DIR", help="ServeGen's data directory (default: built-in population)")
    workload.add_argument("--released", action="store_true", help="the same, the directory of $SERVEGEN_DATA")
    workload.add_argument("--drop-incomplete", action="store_true", help="go on without clients that lack a file")
    parser.group("performance").add_argument(
        "--no-cache", action="store_true", help="neither read nor write the cache of parsed profiles"
    )
    workload.add_argument("--clients", type=int, metavar="N", help="size of a population (default: its own)")
    workload.add_argument(
        "--clients-seed", type=int, default=0, metavar="S", help="decides which client behaves how (default: 0)"
    )
    clients.add_argument("--resample", type=int, metavar="N", help="N clients drawn from these, as unequal as they are")
    clients.add_argument("--only", metavar="IDS", help="clients by id, such as 3,7,10-20")
    clients.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIGURE=LOW:HIGH",
        help="windows by a figure such as rate_rps, cv, mean_input_tokens or p95_output_tokens; repeat for more",
    )
    clients.add_argument("--largest", type=int, metavar="K", help="the K clients with most requests in the data")
    clients.add_argument(
        "--smallest", type=int, metavar="K", help="the K clients with fewest requests, of those with any"
    )
    clients.add_argument(
        "--keep-shares",
        action="store_true",
        help="chosen clients keep their shares of --rate and --peak, instead of having all of it",
    )
    clients.add_argument(
        "--conversations",
        metavar="NAME|FILE|none",
        help="of a population with conversations, or from the [turns] of a TOML file, for all clients; or none",
    )
    clients.add_argument(
        "--environment",
        metavar="NAME|FILE|none",
        help="a random factor on all rates: of a workload or saved profile with one, or of a TOML file; or none",
    )
    clients.add_argument("--clones", type=int, metavar="N", help="each client N times at 1/N of its rate")


def pool_of(options: argparse.Namespace) -> tuple[sg.ClientPool, tuple[str, ...]]:
    """The pool that is asked for, and what a user should know of it."""
    workload = options.workload or options.population
    if workload is None or (options.workload and options.population):
        raise OptionError(
            "a workload or --population", "both" if workload else "neither", "name one: see `servegen-gpu presets`"
        )
    if options.released and options.profiles is not None:
        raise OptionError("--profiles or --released", "both", "leave out one of them")
    if options.population:
        if options.profiles is not None or options.released:
            raise OptionError("--population without --profiles", options.population, "leave out one of them")
        pool = sg.population(Path(options.population), clients=options.clients, seed=options.clients_seed)
        options.origin, notes = options.population, tuple[str, ...]()
    else:
        pool, options.origin, notes = named(
            workload,
            clients=options.clients,
            seed=options.clients_seed,
            data_dir=data_directory() if options.released else options.profiles,
            missing="drop" if options.drop_incomplete else "error",
            cache=not options.no_cache,
        )
    pool, selected = _select(pool, options)
    if options.resample is not None:
        pool = sg.resample(pool, options.resample, seed=options.clients_seed)
    if options.conversations is not None:
        pool = pool.with_conversations(None if options.conversations == "none" else options.conversations)
    if options.environment is not None:
        pool = pool.with_environment(None if options.environment == "none" else options.environment)
    return (pool if options.clones is None else pool.clone(options.clones)), (*notes, *selected)


def _select(pool: sg.ClientPool, options: argparse.Namespace) -> tuple[sg.ClientPool, tuple[str, ...]]:
    """What --only, --where, --largest and --smallest leave of a pool, and a note on how much that is."""
    if options.largest is not None and options.smallest is not None:
        raise OptionError("--largest or --smallest", "both", "leave out one of them")
    some = pool
    if options.only is not None:
        some = some.select(ids(options.only, some))
    if options.where:
        some = some.filter(**ranges(options.where))
    if options.largest is not None:
        some = some.top(options.largest)
    if options.smallest is not None:
        some = some.bottom(options.smallest)
    if not selects(options):
        if options.keep_shares:
            raise OptionError(
                "--only, --where, --largest or --smallest with --keep-shares", "none", "say which clients"
            )
        return pool, ()
    if options.keep_shares:
        some = some.with_shares_of(pool)
    share = some.own_rps.sum() / max(pool.own_rps.sum(), sys.float_info.min)
    return some, (f"{len(some):,} of {len(pool):,} clients selected, {share:.2%} of the requests",)


def selects(options: argparse.Namespace) -> bool:
    """Whether some clients or windows are chosen."""
    return bool(options.where) or any(getattr(options, name) is not None for name in ("only", "largest", "smallest"))


def is_clients(options: argparse.Namespace) -> bool:
    """Whether options say that the workload is one of clients, and no trace."""
    stated = (options.profiles, options.population)
    return options.released or any(value is not None for value in stated) or is_file(options.workload or ".toml")


def is_trace(options: argparse.Namespace) -> bool:
    """Whether the workload is the path of a trace: of something that is there, and no clients."""
    from servegen_gpu.clients.saved.profile import is_profile

    path = options.workload
    return not is_clients(options) and is_there(path) and not is_profile(path)


def ranges(texts: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    """``["cv=1:3", "mean_input_tokens=100:"]`` as closed ranges by name; an end left out is open."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for text in texts:
        name, _, ends = text.partition("=")
        low, colon, high = ends.partition(":")
        try:
            if not colon or name.strip() in found:
                raise ValueError
            found[name.strip()] = (float(low) if low.strip() else None, float(high) if high.strip() else None)
        except ValueError:
            raise OptionError(
                "a range as FIGURE=LOW:HIGH, one for each figure, either end left out if open",
                repr(text),
                "write it like cv=1:3 or mean_input_tokens=100:",
            ) from None
    return found


def ids(text: str, pool: ClientPool) -> list[int]:
    """The ids in ``"3,7,10-20"`` that a pool has; every part must name at least one."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        known = pool.client_ids[(pool.client_ids >= low) & (pool.client_ids <= high)].tolist()
        if not known:
            raise OptionError(
                f"ids like 3,7,10-20 among the {len(pool):,} clients of {pool.name} "
                f"({pool.client_ids[0]} to {pool.client_ids[-1]})",
                repr(part),
                "look them up with `servegen-gpu inspect`",
            )
        found += known
    return found
