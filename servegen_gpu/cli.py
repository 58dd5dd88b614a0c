"""The command line: arguments in, messages out. Everything else is in the library."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import servegen_gpu as sg
from servegen_gpu import cli_naive, cli_scale
from servegen_gpu.clients.servegen import load_servegen_with_notes
from servegen_gpu.clients.toml_file import read_clients
from servegen_gpu.errors import OptionError, ServeGenError
from servegen_gpu.options import ids, ranges
from servegen_gpu.rules import COUNT_RULES, EMPTIES, OCCUPANCIES, PAST_ENDS

BAD_INPUT, INTERRUPTED = 2, 130
PROGRESS_EVERY_S = 0.2
WORKLOAD_HELP = "name of a workload (see `servegen-gpu presets`), or a TOML file of your own population or clients"
SAMPLING_OPTIONS = (
    *("rate", "scale", "peak", "start", "duration", "seed", "replica"),
    *("counts", "dependence", "occupancy", "empty", "past_end", "warmup", "backend", "memory", "shard"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if arguments is None:  # as a process: a polite kill tidies up as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        return int(options.run(options))
    except ServeGenError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("expected enough memory, got none left; lower --memory, or write to a file instead of a list")
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, and with it whoever would read a message
        return 0
    except KeyboardInterrupt:
        print("servegen-gpu: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED


def _fail(message: str) -> int:
    print(f"servegen-gpu: error: {message}", file=sys.stderr)
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="servegen-gpu", description="LLM serving workloads: thousands of clients, one time-sorted trace."
    )
    parser.add_argument("--version", action="version", version=f"servegen-gpu {sg.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    make = commands.add_parser(
        "generate",
        help="make a trace",
        description="Make a trace and write it to a file.",
        usage="servegen-gpu generate WORKLOAD -o PATH [options]; --help lists them",
    )
    make.set_defaults(run=_generate)
    _add_pool(make)
    make.add_argument(
        "-o", "--output", required=True, metavar="PATH", help=".parquet, .csv, .jsonl, or a directory of Parquet parts"
    )
    make.add_argument("--format", help="file format, if the suffix does not tell")
    cli_naive.add(make)
    make.add_argument("--rate", metavar="RPS|FILE", help="target total rate in req/s, or a schedule (CSV or JSON)")
    make.add_argument("--scale", type=float, metavar="X", help="multiply the clients' own rates instead")
    make.add_argument(
        "--squeeze-turns", action="store_true", help="divide inter-turn times by --scale, too (naive upsampling)"
    )
    make.add_argument("--peak", type=float, metavar="RPS", help="scale own rates down to this in the busiest window")
    make.add_argument("--start", metavar="TIME", help="on the profiles' time axis, such as 10h (default: their begin)")
    make.add_argument("--duration", default="1h", metavar="TIME", help="such as 600s, 1h or 7d (default: 1h)")
    make.add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (default: 0)")
    make.add_argument("--replica", type=int, default=0, help="independent repetition of the same seed (default: 0)")
    make.add_argument("--counts", choices=COUNT_RULES, default="auto", help="how many requests a client sends")
    make.add_argument(
        "--dependence",
        choices=sg.DEPENDENCE_KINDS,
        default="auto",
        help="between the fields of one request: every client's own (auto, the default), or one kind for all",
    )
    make.add_argument(
        "--rank-correlation",
        action="append",
        default=[],
        metavar="A:B=RHO",
        help="Spearman correlation of two fields under --dependence copula; repeat for more pairs",
    )
    make.add_argument("--occupancy", choices=OCCUPANCIES, default="profile", help="keep bursts short, or spread them")
    make.add_argument("--empty", choices=EMPTIES, default="error", help="windows where nobody is active")
    make.add_argument("--past-end", choices=PAST_ENDS, default="wrap", help="repeat whole days, or stop")
    make.add_argument(
        "--warmup",
        metavar="TIME",
        help="how long before the start conversations may have begun (default: as long as they last)",
    )
    make.add_argument("--backend", default="auto", help="what computes: see `servegen-gpu backends`")
    make.add_argument("--memory", default="2GB", help="budget for sampling (default: 2GB); never changes the trace")
    make.add_argument("--shard", default="1/1", metavar="K/N", help="the k-th of n shares of the trace")
    make.add_argument("--hash-ids", type=int, metavar="TOKENS", help="add ids of the inputs' blocks of so many tokens")
    make.add_argument("--system-tokens", type=int, metavar="N", help="of every client's system prompt, for --hash-ids")
    make.add_argument("--quiet", action="store_true", help="print nothing but errors")

    show = commands.add_parser(
        "inspect", help="figures of a trace or of clients", usage="servegen-gpu inspect TRACE|WORKLOAD [options]"
    )
    show.set_defaults(run=_inspect)
    _add_pool(show, "a trace file, a directory of parts, or a workload: its name, or a TOML file of your own clients")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.add_argument("--top", type=int, default=10, metavar="N", help="how many clients to list (default: 10)")

    cli_scale.add(commands)

    built_in = commands.add_parser(
        "presets",
        help="the built-in populations",
        description="List the built-in populations, or print one as TOML, to copy and edit.",
        usage="servegen-gpu presets [show NAME]",
    )
    built_in.set_defaults(run=_presets)
    built_in.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    built_in.add_argument("name", nargs="?", help="which one to show")
    built_in.add_argument("--json", action="store_true", help="the list as JSON")

    here = commands.add_parser("backends", help="what can compute here")
    here.set_defaults(run=_backends)
    here.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _add_pool(parser: argparse.ArgumentParser, what: str = WORKLOAD_HELP) -> None:
    parser.add_argument("workload", nargs="?", help=what)
    parser.add_argument("--population", metavar="FILE", help="population from a TOML file, instead of a workload")
    parser.add_argument("--profiles", metavar="DIR", help="ServeGen's data directory (default: built-in population)")
    parser.add_argument("--drop-incomplete", action="store_true", help="go on without clients that lack a file")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write the cache of parsed profiles")
    parser.add_argument("--clients", type=int, metavar="N", help="size of a population (default: its own)")
    parser.add_argument(
        "--clients-seed", type=int, default=0, metavar="S", help="decides which client behaves how (default: 0)"
    )
    parser.add_argument("--resample", type=int, metavar="N", help="N clients drawn from these, as unequal as they are")
    parser.add_argument("--only", metavar="IDS", help="clients by id, such as 3,7,10-20")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIGURE=LOW:HIGH",
        help="windows by a figure such as rate_rps, cv, mean_input_tokens or p95_output_tokens; repeat for more",
    )
    parser.add_argument("--largest", type=int, metavar="K", help="the K clients with most requests in the data")
    parser.add_argument("--smallest", type=int, metavar="K", help="the K clients with fewest requests, but some")
    parser.add_argument(
        "--conversations",
        metavar="NAME|FILE|none",
        help="of a population with conversations, or from the [turns] of a TOML file, for all clients; or none",
    )
    parser.add_argument("--clones", type=int, metavar="N", help="each client N times at 1/N of its rate")


def _pool(options: argparse.Namespace) -> tuple[sg.ClientPool, tuple[str, ...]]:
    from servegen_gpu.clients.preset_toml import is_population

    notes: tuple[str, ...] = ()
    workload = options.workload or options.population
    if workload is None or (options.workload and options.population):
        raise OptionError(
            "a workload or --population", "both" if workload else "neither", "name one: see `servegen-gpu presets`"
        )
    if _is_toml(workload) or options.population:
        if options.profiles is not None:
            raise OptionError("a TOML file without --profiles", workload, "leave out one of them")
        if options.population or is_population(workload):
            pool = sg.population(Path(workload), clients=options.clients, seed=options.clients_seed)
        elif options.clients is not None:
            raise OptionError("a TOML file of clients without --clients", workload, "leave it out, or use --resample")
        else:
            pool = read_clients(workload)
    elif options.profiles is None:
        pool = sg.population(workload, clients=options.clients, seed=options.clients_seed)
    elif options.clients is not None:
        raise OptionError(
            "--clients with a population only", "--profiles as well", "leave out one of them, or use --resample"
        )
    else:
        pool, notes = load_servegen_with_notes(
            options.profiles,
            workload,
            missing="drop" if options.drop_incomplete else "error",
            cache=not options.no_cache,
        )
    pool, selected = _select(pool, options)
    if options.resample is not None:
        pool = sg.resample(pool, options.resample, seed=options.clients_seed)
    if options.conversations is not None:
        pool = pool.with_conversations(None if options.conversations == "none" else options.conversations)
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
    if not _selects(options):
        return pool, ()
    share = some.own_rps.sum() / max(pool.own_rps.sum(), sys.float_info.min)
    return some, (f"{len(some):,} of {len(pool):,} clients selected, {share:.2%} of the requests",)


def _selects(options: argparse.Namespace) -> bool:
    return bool(options.where) or any(getattr(options, name) is not None for name in ("only", "largest", "smallest"))


def _is_toml(workload: str) -> bool:
    return workload.lower().endswith(".toml")


def _generate(options: argparse.Namespace) -> int:
    begun = time.perf_counter()
    as_one = cli_naive.wanted(options)
    from_trace = as_one and cli_naive.is_trace(options)
    pool, notes = cli_naive.of_trace(options) if from_trace else _pool(options)
    if as_one and not from_trace:
        pool, chosen = cli_naive.of(pool, options)
        notes += chosen
    keywords = {name: getattr(options, name) for name in SAMPLING_OPTIONS}
    if options.squeeze_turns:
        if options.scale is None or options.rate is not None or options.peak is not None:
            got = "none" if options.scale is None else "--rate" if options.peak is None else "--peak"
            raise OptionError("--scale alone with --squeeze-turns", got, "say by --scale how much, and nothing else")
        pool = pool.rescaled(keywords.pop("scale"), "naive")
    workload = sg.stream(pool, rank_correlation=_correlations(options.rank_correlation), **keywords)
    if not options.quiet:
        for note in notes + workload.notes:
            print(f"note: {note}", file=sys.stderr)
    slabs = _with_progress(workload, sys.stderr.isatty() and not options.quiet)
    if options.hash_ids is not None:
        slabs = sg.hash_slabs(slabs, options.hash_ids, system_tokens=options.system_tokens or 0)
    elif options.system_tokens is not None:
        raise OptionError("--hash-ids with --system-tokens", "--system-tokens alone", "add --hash-ids 512")
    from servegen_gpu.formats import write_stream

    written = write_stream(slabs, options.output, options.format)
    if not options.quiet:
        spent_s = time.perf_counter() - begun
        files = f" in {written.files} files" if written.files > 1 else ""
        print(
            f"{options.output}: {written.rows:,} requests, {written.bytes / 1e6:,.1f} MB{files}; "
            f"{spent_s:.2f} s, {written.rows / spent_s / 1e6:.2f} million requests/s on {workload.backend.name}"
        )
    return 0


def _correlations(pairs: Sequence[str]) -> dict[str, float] | None:
    """Rank correlations from ``a:b=rho`` arguments, or None without any."""
    stated = {}
    for pair in pairs:
        fields, _, rho = pair.partition("=")
        try:
            number = float(rho)
        except ValueError:
            raise OptionError("--rank-correlation as FIELD:FIELD=RHO", repr(pair), "change it") from None
        if fields in stated:
            raise OptionError("--rank-correlation once for a pair", repr(pair), "leave out one of them")
        stated[fields] = number
    return stated or None


def _with_progress(workload: sg.Workload, show: bool) -> Iterator[sg.Trace]:
    """The slabs, with a line that says how far they are."""
    begun = shown = time.perf_counter()
    expected = workload.expected_requests / workload.shard[1]
    rows = 0
    for slab in workload:
        rows += len(slab)
        now = time.perf_counter()
        if show and now - shown > PROGRESS_EVERY_S:
            shown = now
            part = min(rows / expected, 1.0) if expected else 1.0
            bar = "█" * round(30 * part) + "·" * (30 - round(30 * part))
            pace = rows / (now - begun) / 1e6
            print(f"\r{bar} {part:4.0%}  {rows:,} requests  {pace:.1f} M/s ", end="", file=sys.stderr, flush=True)
        yield slab
    if show and shown > begun:
        print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)


def _inspect(options: argparse.Namespace) -> int:
    from servegen_gpu.clients.describe import describe_pool, format_description
    from servegen_gpu.describe import describe_trace, format_trace_description
    from servegen_gpu.formats import read_slabs

    own = options.profiles is None and options.population is None and not _is_toml(options.workload or ".toml")
    if own and Path(options.workload).exists():
        if _selects(options):
            raise OptionError(
                "--only, --where, --largest and --smallest with a workload",
                f"the trace {options.workload!r}",
                "leave them out, or name ServeGen's data directory with --profiles",
            )
        figures, text = describe_trace(read_slabs(options.workload)), format_trace_description
    elif own and options.workload not in sg.PRESETS:
        raise OptionError(
            "a trace, or a workload",
            f"{options.workload!r}: no such file, nor one of {', '.join(sg.PRESETS)}",
            "check the path, or name ServeGen's data directory with --profiles",
        )
    else:
        pool, notes = _pool(options)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        figures, text = describe_pool(pool, top=options.top), format_description
        if own:
            from servegen_gpu.clients.origins import origins
            from servegen_gpu.clients.presets import preset_text

            figures["origins"] = origins(preset_text(options.workload))
    print(json.dumps(figures, indent=2) if options.json else text(figures))
    return 0


def _presets(options: argparse.Namespace) -> int:
    from servegen_gpu.clients.presets import describe_presets, preset_text

    if options.action == "show":
        if options.name not in sg.PRESETS:
            sg.population(options.name or "")  # its message names the nearest one
        print(preset_text(options.name), end="")
        return 0
    rows = describe_presets()
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'name':12} {'category':11} {'clients':>8} {'req/s':>8}  what it is")
        for row in rows:
            print(f"{row['name']:12} {row['category']:11} {row['clients']:8,} {row['rate_rps']:8,.2f}  {row['what']}")
    return 0


def _backends(options: argparse.Namespace) -> int:
    from servegen_gpu.backends import describe_backends

    rows = describe_backends()
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['name']:8} {row['state']:10} {row['detail']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
