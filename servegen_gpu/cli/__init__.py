"""The command line: arguments in, messages out. Everything else is in the library."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence

from servegen_gpu.cli import streams
from servegen_gpu.errors import ServeGenError, printable

BAD_INPUT, INTERRUPTED = 2, 130


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
        return _fail(f"expected files that can be used, got {printable(str(error))}; check paths and permissions")
    except KeyboardInterrupt:
        print("servegen-gpu: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it is heard that nobody takes it


def _be_a_process() -> None:
    """SIGTERM tidies up as Ctrl-C does, also where that is ignored; users see our words, not those of libraries."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    streams.prepare()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _fail(message: str) -> int:
    print(f"servegen-gpu: error: {message}", file=sys.stderr)
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
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
    )
    from servegen_gpu.provenance import VERSION

    parser = argparse.ArgumentParser(
        prog="servegen-gpu", description="LLM serving workloads: thousands of clients, one time-sorted trace."
    )
    parser.add_argument("--version", action="version", version=f"servegen-gpu {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        generate,
        fit,
        compare,
        convert,
        validate,
        join,
        scale,
        save,
        montecarlo,
        sensitivity,
        provision,
        report,
        show,
    ):
        command.add(commands)
    return parser
