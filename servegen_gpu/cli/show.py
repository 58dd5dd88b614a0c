"""The commands that show what there is: ``inspect``, ``presets``, ``servers``, ``formats`` and ``backends``."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

import servegen_gpu as sg
from servegen_gpu.cli import pools, reading
from servegen_gpu.errors import OptionError


def add(commands: Any) -> None:
    """Add the commands to the subparsers of the program."""
    show = commands.add_parser(
        "inspect",
        summary="figures of a trace or of clients",
        description="Print figures of a trace or of the clients of a workload.",
        usage="servegen-gpu inspect TRACE|WORKLOAD [options]",
        example="servegen-gpu inspect trace.parquet",
    )
    show.set_defaults(run=_inspect)
    pools.add(
        show,
        "a trace file, a directory of parts, or a workload: its name, a TOML file of your own clients, a saved profile",
    )
    show.group("output").add_argument("--json", action="store_true", help="as JSON")
    show.group("figures").add_argument(
        "--top", type=int, default=10, metavar="N", help="how many clients to list (default: 10)"
    )
    show.group("output").add_argument(
        "--plot", action=argparse.BooleanOptionalAction, help="small pictures (default: where a terminal shows them)"
    )
    reading.add(show, "--output")

    built_in = commands.add_parser(
        "presets",
        summary="the built-in workloads",
        description="List the built-in workloads, populations of clients, or print one as TOML, to copy and edit.",
        usage="servegen-gpu presets [show NAME]",
        example="servegen-gpu presets show m-small > my.toml",
    )
    built_in.set_defaults(run=_presets)
    built_in.group("workload").add_argument("action", nargs="?", choices=("list", "show"), default="list")
    built_in.group("workload").add_argument("name", nargs="?", help="which one to show")
    built_in.group("output").add_argument("--json", action="store_true", help="the list as JSON")

    served = commands.add_parser(
        "servers",
        summary="the built-in profiles of servers",
        description="List the built-in profiles of servers, or print one as TOML, to copy and edit.",
        usage="servegen-gpu servers [show NAME]",
        example="servegen-gpu servers show llama-3-8b-a100 > mine.toml",
    )
    served.set_defaults(run=_servers)
    served.group("workload").add_argument("action", nargs="?", choices=("list", "show"), default="list")
    served.group("workload").add_argument("name", nargs="?", help="which one to show")
    served.group("output").add_argument(
        "--json", action="store_true", help="the list as JSON, with the origin of every number"
    )

    known = commands.add_parser(
        "formats",
        summary="files of other programs that can be written, and who reads them",
        example="servegen-gpu formats",
    )
    known.set_defaults(run=_formats)
    known.group("output").add_argument("--json", action="store_true", help="as JSON, with what each holds")
    known.group("output").add_argument("--markdown", action="store_true", help="the same as a table")

    here = commands.add_parser("backends", summary="what can compute here", example="servegen-gpu backends")
    here.set_defaults(run=_backends)
    here.group("output").add_argument("--json", action="store_true", help="as JSON")


def _inspect(options: argparse.Namespace) -> int:
    from servegen_gpu.clients.describe.describe import describe_pool, format_description
    from servegen_gpu.clients.named import BUILT_IN
    from servegen_gpu.clients.saved.profile import is_profile, read_about
    from servegen_gpu.describe import format_trace_description, see
    from servegen_gpu.formats.recorded import digest_of_rows
    from servegen_gpu.plotting import terminal

    if pools.is_trace(options):
        if pools.selects(options):
            raise OptionError(
                "--only, --where, --largest and --smallest with a workload",
                f"the trace {options.workload!r}",
                "leave them out, or name ServeGen's data directory with --profiles",
            )
        seen = see(reading.slabs(options.workload, options))
        figures, text = seen.figures(), format_trace_description
        recorded = digest_of_rows(options.workload)
        if recorded is not None and recorded != seen.digest:
            was = f"its digest is not {recorded}, as was recorded: it was changed"
            print(f"note: {was}; `servegen-gpu verify {options.workload}` tells where", file=sys.stderr)
        pictures = partial(terminal.of_trace, seen, options.top)
    else:
        pool, notes = pools.pool_of(options)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        figures, text = describe_pool(pool, top=options.top), format_description
        pictures = partial(terminal.of_pool, pool, figures["top"])
        if is_profile(options.origin) and (about := read_about(options.origin)):
            figures["fit"] = about
        elif options.origin == BUILT_IN:
            from servegen_gpu.clients.population.origins import origins
            from servegen_gpu.clients.population.presets import preset_text

            figures["origins"] = origins(preset_text(options.workload))
    print(json.dumps(figures, indent=2) if options.json else text(figures))
    if not options.json and (sys.stdout.isatty() if options.plot is None else options.plot):
        print("\n".join(["", *pictures(terminal.style_of(sys.stdout))]))
    return 0


def _presets(options: argparse.Namespace) -> int:
    from servegen_gpu.clients.population.presets import describe_presets, preset_text

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


def _servers(options: argparse.Namespace) -> int:
    from servegen_gpu.serving.profiles import SERVERS, WORDS, load_server, profile_text
    from servegen_gpu.serving.server import PARAMETERS

    if options.action == "show":
        if options.name not in SERVERS:
            load_server(options.name or "")  # its message has all names
        print(profile_text(options.name), end="")
        return 0
    servers = [load_server(name) for name in SERVERS]
    if options.json:
        rows = [
            {name: getattr(server, name) for name in (*WORDS, *PARAMETERS)}
            | {"origins": {name: server.origin(name) for name in PARAMETERS}}
            for server in servers
        ]
        print(json.dumps(rows, indent=2))
        return 0
    numbers = f"{'step ms':>8} {'prefill':>8} {'us/input':>9} {'us/seq.':>8} {'tokens':>7} {'KV tokens':>10}"
    print(f"{'name':22} {numbers}  what it is")
    for server in servers:
        times = (
            f"{server.step_s * 1e3:8.2f} {server.prefill_s_per_step * 1e3:8.2f} {server.prefill_s_per_token * 1e6:9.1f}"
        )
        times += f" {server.decode_s_per_sequence * 1e6:8.1f}"
        what = f"{server.model} on {server.hardware}"
        print(f"{server.name:22} {times} {server.step_tokens:7,} {server.kv_tokens:10,}  {what}")
    return 0


def _formats(options: argparse.Namespace) -> int:
    from servegen_gpu.exports import EXPORTS
    from servegen_gpu.exports.table import HEAD, as_markdown, rows

    if options.json:
        print(json.dumps([dict(zip(HEAD, row, strict=True)) for row in rows()], indent=2))
    elif options.markdown:
        print(as_markdown(), end="")
    else:
        for export in EXPORTS.values():
            print(f"{export.name:<18} {export.what} ({export.readers})")
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
