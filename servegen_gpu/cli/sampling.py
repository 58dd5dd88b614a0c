"""How much is sampled, when, and by which rules: arguments of all commands that sample a workload."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from servegen_gpu.cli.arguments import Parser
from servegen_gpu.errors import OptionError
from servegen_gpu.rules import COUNT_RULES, DEPENDENCE_KINDS, EMPTIES, OCCUPANCIES, PAST_ENDS

NAMES = (
    *("rate", "scale", "peak", "start", "duration", "seed"),
    *("counts", "dependence", "occupancy", "empty", "past_end", "warmup", "backend", "memory"),
)


def add(parser: Parser, counts: str = "auto", duration: str = "1h, or what --requests take") -> None:
    """Add the arguments; `counts` is the default rule, `duration` says what the default duration is."""
    rate, rules, performance = (parser.group(title) for title in ("rate and time", "rules", "performance"))
    rate.add_argument(
        "--rate",
        metavar="RPS|FILE",
        help="total rate in req/s, such as 20, 1k or 300/min, or a schedule file (CSV, JSON)",
    )
    rate.add_argument("--scale", type=float, metavar="X", help="multiply the clients' own rates instead")
    rate.add_argument("--peak", type=float, metavar="RPS", help="scale own rates down to this in the busiest window")
    rate.add_argument("--start", metavar="TIME", help="on the profiles' time axis, such as 10h (default: their begin)")
    rate.add_argument(
        "--duration",
        metavar="TIME",
        help=f"such as 90s, 10m, 1h30m, 2d12h or 1:30 (hours and minutes) (default: {duration})",
    )
    parser.group("random numbers").add_argument("--seed", type=int, default=0, help="0 to 2**64 - 1 (default: 0)")
    rules.add_argument(
        "--counts", choices=COUNT_RULES, default=counts, help=f"how many requests a client sends (default: {counts})"
    )
    rules.add_argument(
        "--dependence",
        choices=DEPENDENCE_KINDS,
        default="auto",
        help="between the fields of one request: every client's own (auto, the default), or one kind for all",
    )
    rules.add_argument(
        "--rank-correlation",
        action="append",
        default=[],
        metavar="A:B=RHO",
        help="Spearman correlation of two fields under --dependence copula; repeat for more pairs",
    )
    rules.add_argument("--occupancy", choices=OCCUPANCIES, default="profile", help="keep bursts short, or spread them")
    rules.add_argument("--empty", choices=EMPTIES, default="error", help="windows where nobody is active")
    rules.add_argument("--past-end", choices=PAST_ENDS, default="wrap", help="repeat whole days, or stop")
    rules.add_argument(
        "--warmup",
        metavar="TIME",
        help="how long before the start conversations may have begun (default: as long as they last)",
    )
    performance.add_argument("--backend", default="auto", help="what computes: see `servegen-gpu backends`")
    performance.add_argument(
        "--memory", default="2GB", help="budget for sampling (default: 2GB); never changes the trace"
    )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments as keywords of `stream`."""
    found = {name: getattr(options, name) for name in NAMES}
    return found | {"rank_correlation": _correlations(options.rank_correlation)}


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


def refuse(options: argparse.Namespace) -> None:
    """Refuse a rate and a time, where there is a trace, which has its own."""
    names = ("rate", "scale", "peak", "start", "duration", "warmup")
    if given := [name for name in names if getattr(options, name) is not None]:
        raise OptionError("a trace without a rate and a time of its own", f"--{given[0]}", "leave it out")
