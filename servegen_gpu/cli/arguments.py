"""The parser of all commands: options in groups, values as people write them, and faults in three parts."""

from __future__ import annotations

import argparse
import re
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from servegen_gpu import options
from servegen_gpu.errors import OptionError, nearest, unknown

GROUPS = (
    *("workload", "clients", "rate and time", "rules", "random numbers", "naive baseline", "cuts", "method", "figures"),
    *(
        "checks",
        "ids of blocks",
        "output",
        "formats of other programs",
        "traces of others",
        "many machines",
        "performance",
        "help",
    ),
)
"""Titles of groups of options, in the order of help; what a command has none of is not shown."""

PURPOSES = {
    "make": ("generate", "fit", "save"),
    "look": ("inspect", "report", "compare", "validate", "verify"),
    "decide": ("montecarlo", "sensitivity", "provision"),
    "files": ("convert", "scale", "join"),
    "what there is": ("presets", "servers", "formats", "backends"),
}
"""Commands by what they are for, in the order of help."""
EXAMPLES = (
    "servegen-gpu generate deepseek-r1 --rate 20 --duration 10m -o trace.parquet",
    "servegen-gpu provision m-small --rate 20 --slo ttft=2s --server llama-3-8b-a100",
)


class Parser(argparse.ArgumentParser):
    """A parser whose options come in groups.

    Parameters
    ----------
    summary : str
        What the command does, in a few words.
    example : str
        A command line, at the end of help.
    """

    def __init__(self, *arguments: Any, summary: str = "", example: str = "", **keywords: Any) -> None:
        end = f"example:\n  {example}" if example else None
        shown = {"add_help": False, "epilog": end, "formatter_class": _Help} | keywords
        super().__init__(*arguments, **shown)
        self.summary = summary
        self._groups = {title: self.add_argument_group(title) for title in GROUPS}
        self.group("help").add_argument("-h", "--help", action="help", help="print this and exit")
        self.register("type", int, _converter(options.count))
        self.register("type", float, _converter(options.number))

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The group of options of a title."""
        return self._groups[title]

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments, in three parts."""
        raise _in_parts(message, f"see {self.prog} --help")

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Raise what is wrong with arguments that nobody takes."""
        wrong = next((argument for argument in rest if argument.startswith("-")), rest[0])
        known = [name[2:] for action in self._actions for name in action.option_strings if name.startswith("--")]
        near = nearest(wrong.strip("-").partition("=")[0], known) if wrong.startswith("-") else None
        fix = f"did you mean --{near}?" if near else f"see {self.prog} --help"
        raise OptionError(f"arguments of {self.prog}", f"{wrong!r}, which it does not have", fix)


class Program(Parser):
    """The parser of the program, whose help lists the commands by what they are for."""

    def __init__(self) -> None:
        from servegen_gpu.provenance import VERSION

        super().__init__(
            prog="servegen-gpu",
            description="Load for LLM serving: thousands of clients, one time-sorted trace of requests.",
            usage="servegen-gpu COMMAND [arguments]; servegen-gpu COMMAND --help explains one",
        )
        self.group("help").add_argument("--version", action="version", version=f"servegen-gpu {VERSION}")
        self.subparsers = self.add_subparsers(
            dest="command", metavar="COMMAND", prog=self.prog, parser_class=Parser, help=SUPPRESS
        )

    @property
    def commands(self) -> dict[str, Parser]:
        """Parsers of the commands by name."""
        return self.subparsers.choices

    def list_commands(self) -> None:
        """List what was added to `subparsers` at the end of help."""
        listed = commands_text({name: command.summary for name, command in self.commands.items()})
        self.epilog = f"{listed}\n\nexamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose description is filled and whose example is not."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        whole = text.startswith(("example", "commands"))
        return (
            super()._fill_text(text, width, indent)
            if whole
            else argparse.HelpFormatter._fill_text(self, text, width, indent)
        )


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments in which a negative value, ``--duration -1h``, is no option but belongs to the one before."""
    found: list[str] = []
    for argument in arguments:
        after = bool(found) and re.fullmatch(r"--[a-z][a-z-]*", found[-1]) is not None
        if after and re.match(r"-\.?\d", argument):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def commands_text(summaries: dict[str, str]) -> str:
    """Commands by what they are for, with a line each."""
    wide = max(map(len, summaries))
    known = {name for names in PURPOSES.values() for name in names}
    purposes = PURPOSES | {"more": tuple(name for name in summaries if name not in known)}
    lines = ["commands"]
    for purpose, names in purposes.items():
        if here := [name for name in names if name in summaries]:
            lines += ["", f"  {purpose}:", *(f"    {name:{wide}}  {summaries[name]}" for name in here)]
    return "\n".join(lines)


def _converter(convert: Callable[[str, str], float]) -> Callable[[str], float]:
    """What turns text into a number; `Parser.error` knows the option's name."""

    def converted(text: str) -> float:
        try:
            return convert("this", text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _in_parts(message: str, see: str) -> OptionError:
    """A message of argparse in three parts."""
    if match := re.fullmatch(r"argument (.+?): expected this (.+), got (.+); (.+)", message, re.DOTALL):
        name = match[1].split("/")[-1]
        return OptionError(f"{name} {match[2]}", match[3], match[4].replace("this", name))
    if match := re.fullmatch(r"argument (.+?): invalid choice: (.+) \(choose from (.+)\)", message, re.DOTALL):
        what = "a command" if match[1] == "COMMAND" else match[1].split("/")[-1]
        choices = [quoted or plain for quoted, plain in re.findall(r"'([^']*)'|([^\s,]+)", match[3])]
        return unknown(what, match[2].strip("'\""), choices, see)
    if match := re.fullmatch(r"the following arguments are required: (.+)", message, re.DOTALL):
        return OptionError(match[1].replace("-o/--output", "-o PATH"), "none", see)
    if match := re.fullmatch(r"argument (.+?): expected (.+)", message, re.DOTALL):
        return OptionError(f"a value after {match[1].split('/')[-1]}", "none", see)
    if match := re.fullmatch(r"ambiguous option: (.+) could match (.+)", message, re.DOTALL):
        return OptionError(f"one of {match[2]}", f"{match[1]!r}, which may be any of them", "write it out")
    if match := re.fullmatch(r"argument (.+?): ignored explicit argument (.+)", message, re.DOTALL):
        return OptionError(f"{match[1].split('/')[-1]} without a value", match[2], see)
    return OptionError("arguments as in the usage", message, see)
