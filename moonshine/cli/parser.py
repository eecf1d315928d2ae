"""The table of commands, their help, and the errors for a mistyped command or option."""

import argparse
import itertools
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from moonshine import __version__
from moonshine.cli import engines, inspection, models, setup, stages
from moonshine.cli.command import Command
from moonshine.errors import ParamsError
from moonshine.project import artefacts
from moonshine.runtime.suggest import nearest

GROUPS: dict[str, tuple[Command, ...]] = {
    "Set up an experiment": setup.COMMANDS,
    "Stages of the pipeline": stages.COMMANDS,
    "Look at an experiment": inspection.COMMANDS,
    "Keep the engines in step": engines.COMMANDS,
    "Use a model": models.COMMANDS,
}
COMMANDS = {command.name: command for commands in GROUPS.values() for command in commands}
WIDTH = max(map(len, COMMANDS)) + 2
PARAMS_HELP = f"parameter file (default: {artefacts.PARAMS})"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows the default of an option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        without = action.default in (None, False, argparse.SUPPRESS) or action.default == []
        return text if without or "default" in text else f"{text} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """Reports errors as every command does."""

    def error(self, message: str) -> NoReturn:
        raise ParamsError(f"{message}; see `{self.prog} --help`")


def parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command that the arguments name, and its options. Exits for --help and --version.

    Raises ParamsError (exit code 2) for arguments that make no sense, with a suggestion for a mistyped command or
    option.
    """
    count = 0
    while count < len(arguments) and arguments[count].startswith("-") and arguments[count] != "--":
        count += 2 if arguments[count] == "--params" else 1
    options = _parse(_top_parser(), arguments[:count])
    if count >= len(arguments):
        raise ParamsError("name a command; see `moonshine --help`")
    name = arguments[count]
    if name not in COMMANDS:
        raise ParamsError(f'unknown command "{name}"{nearest(name, COMMANDS)}; see `moonshine --help`')
    return COMMANDS[name], _parse(parser_of(COMMANDS[name]), arguments[count + 1 :], options)


def _parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str], before: argparse.Namespace | None = None
) -> argparse.Namespace:
    known = [option for action in parser._actions for option in action.option_strings]
    options = itertools.takewhile(lambda argument: argument != "--", arguments)  # what follows it is never an option
    for word in (argument.partition("=")[0] for argument in options):
        if word.startswith("--") and word not in known:  # or argparse reports what was mistyped as missing
            raise ParamsError(f"unknown option {word}{nearest(word, known)}; see `{parser.prog} --help`")
    return parser.parse_args(arguments, before)


def _top_parser() -> argparse.ArgumentParser:
    lines = []
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {command.name:{WIDTH}}{command.help}" for command in commands)]
    lines += ["", "`moonshine COMMAND --help` shows the options of a command and an example."]
    parser = _Parser(
        prog="moonshine",
        usage="moonshine [--params FILE] COMMAND ...",
        description="Replace the costly convolutions of a network with cheap ones and distil the original into it.",
        epilog="\n".join(lines).lstrip("\n"),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--params", type=Path, default=artefacts.PARAMS, metavar="FILE", help=PARAMS_HELP)
    parser.add_argument("--version", action="version", version=f"moonshine {__version__}")
    return parser


def parser_of(command: Command) -> argparse.ArgumentParser:
    sentence = f"{command.help[0].upper()}{command.help[1:]}."
    parser = _Parser(
        prog=f"moonshine {command.name}",
        description=textwrap.fill(f"{sentence} {command.details}".strip(), shutil.get_terminal_size().columns - 2),
        epilog="\n  ".join(["example:" if len(command.examples) == 1 else "examples:", *command.examples]),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    parser.add_argument("--params", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=PARAMS_HELP)
    return parser
