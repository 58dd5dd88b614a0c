"""The command line: arguments in, messages out. Everything else is in the library."""

from __future__ import annotations

import argparse
import errno
import sys
import warnings
from collections.abc import Sequence

from servegen_gpu.cli import stopping, streams
from servegen_gpu.cli.arguments import Program, joined
from servegen_gpu.errors import ServeGenError, printable

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if arguments is None:
        _be_a_process()
    try:
        return _run(arguments)
    except ServeGenError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("expected enough memory, got none left; lower --memory, or write to a file instead of a list")
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, and with it whoever would read a message
        return 0
    except OSError as error:
        fix = "raise the limit (ulimit -n)" if error.errno == errno.EMFILE else "check paths and permissions"
        return _fail(f"expected files that can be used, got {printable(str(error))}; {fix}")
    except KeyboardInterrupt:
        print("servegen-gpu: interrupted; nothing was written", file=sys.stderr)
        return stopping.status()
    except RuntimeError as error:
        if str(error) != "can't start new thread":
            raise
        return _fail("expected one more thread, got none; raise the limits on memory and processes (ulimit -v, -u)")


def _run(arguments: Sequence[str] | None) -> int:
    try:
        parser = _parser()
        options = parse(parser, sys.argv[1:] if arguments is None else arguments)
        return int(options.run(options)) if options.command else _no_command(parser)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it is heard that nobody takes it


def _be_a_process() -> None:
    """Signals tidy up as Ctrl-C does, also where that is ignored; users see our words, not those of libraries."""
    stopping.prepare()
    streams.prepare()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def parse(parser: Program, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; refuses those that the command does not have."""
    options, rest = parser.parse_known_args(joined(arguments))
    if rest:
        (parser.commands[options.command] if options.command else parser).refuse(rest)
    return options


def _no_command(parser: Program) -> int:
    parser.print_help(sys.stderr)
    return BAD_INPUT


def _fail(message: str) -> int:
    print(f"servegen-gpu: error: {message}", file=sys.stderr)
    return BAD_INPUT


def _parser() -> Program:
    from servegen_gpu.cli import (
        compare,
        convert,
        fit,
        generate,
        join,
        montecarlo,
        provision,
        report,
        save,
        scale,
        sensitivity,
        show,
        validate,
        verify,
    )

    parser = Program()
    for command in (
        generate,
        fit,
        compare,
        convert,
        validate,
        verify,
        join,
        scale,
        save,
        montecarlo,
        sensitivity,
        provision,
        report,
        show,
    ):
        command.add(parser.subparsers)
    parser.list_commands()
    return parser
