"""What is wrong with a command line, in the words of this program, and the usage line of its commands."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from segment.errors import did_you_mean
from segment.store.foreign_text import visible

# The base class of what typer raises for a wrong command line; typer does not export it.
BadCommandLine: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

# What typer says, by click or by pydantic; and how it is said here.
_WORDS = (
    (r"Value error, ", ""),
    (r"(?s)(.+) is not a valid int\w*( range)?\.", r"expected a whole number, not \1"),
    (r"(?s)(.+) is not a valid float( range)?\.", r"expected a number, not \1"),
    (r"(?s)(.+) is not in the range x>=(\S+)\.", r"expected \2 or more, not \1"),
    (r"(?s)(.+) is not in the range (\S+)<=x<=(\S+)\.", r"expected \2 to \3, not \1"),
    (r"Input should be a valid integer.*", "expected a whole number"),
    (r"Input should be a valid number.*", "expected a number"),
    (r"Input should be greater than or equal to (\S+)", r"expected \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"expected \1 or less"),
    (r"(?s)(.+) is not one of (.+)\.", r"expected one of \2, not \1"),
    (r"(?s)Got unexpected extra argument\(?s?\)? \((.*)\)", r"too many arguments, from here on: \1"),
    (r"(?s)No such command ('.*?')\..*", r"there is no command \1."),
    (r"Option '(\S+)' requires an argument\.?", r"\1 needs a value"),
    (r"Option '(\S+)' does not take a value\.?", r"\1 takes no value"),
)
_TOO_MANY = re.compile(r"(?s)too many arguments, from here on: (.*)")
_SHOWN = 3  # arguments; a pattern without quotes may stand for thousands of files


class Command(TyperCommand):
    """A command whose usage line names its arguments in capitals, without braces, and whose help has panels."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for panel, parameters in panels_of(self.get_params(ctx)).items():
            with formatter.section(panel):
                records = ((one, *one.get_help_record(ctx)) for one in parameters)
                is_named = panel == "Arguments"  # without their types, as in the usage line
                formatter.write_dl([(_name(one) if is_named else given, words) for one, given, words in records])


def panels_of(parameters: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the parameters of a command that its help shows, by panel: arguments and its own options first."""
    panels: dict[str, list[Any]] = {"Arguments": [], "Options": []}
    for one in parameters:
        usual = "Arguments" if one.param_type_name == "argument" else "Options"
        if not one.hidden:
            panels.setdefault(one.rich_help_panel or usual, []).append(one)
    return {panel: found for panel, found in panels.items() if found}


def usage_message(error: Any) -> str:
    """Return what is wrong with a command line, and how the command is used; its help, where nothing is given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    context = error.ctx
    if context is None:
        return f"error: {visible(_plain(error.format_message()))}"
    path = context.command_path
    return "\n".join([f"error: {path}: {visible(_wrong(error))}", context.get_usage(), f"More: {path} --help"])


def _wrong(error: Any) -> str:
    kind = type(error).__name__
    if kind == "MissingParameter":
        # what is given is read before what is not
        missing = [_name(one) for one in error.ctx.command.params if one.required and one.name not in error.ctx.params]
        return are_missing(missing)
    if kind == "NoSuchOption":
        known = [option for one in error.ctx.command.params for option in (*one.opts, *one.secondary_opts)]
        words = f"there is no option {error.option_name}."
        # others than the right one are worse than none: an option is given its value at once
        return words + did_you_mean(error.option_name, (one for one in known if one.startswith("--")), alike=0.7)
    words = _plain(error.message)
    if surplus := _TOO_MANY.fullmatch(words):
        return _too_many(surplus[1].split(" "), error.ctx.command.params)
    if command := re.fullmatch(r"(?s)there is no command '(.*)'\.", words):
        if command[1] == "help":
            return f"{words} `{error.ctx.command_path} --help` lists the commands."
        card = f" `segment models show {command[1]}` prints a card." if error.ctx.command.name == "models" else ""
        commands = error.ctx.command.commands
        groups = [name for name, each in commands.items() if command[1] in getattr(each, "commands", ())]
        below = f" Did you mean '{groups[0]} {command[1]}'?" if groups else ""
        return words + (below or did_you_mean(command[1], commands) or card)
    if kind != "BadParameter" or error.param is None:
        return words
    found = re.fullmatch(r"expected one of (.+), not '(.*)'", words)
    hint = did_you_mean(found[2], re.findall(r"'([^']+)'", found[1])) if found else ""
    wrong: list[Any] = getattr(error.__cause__, "errors", list)()  # pydantic's, which do not repeat the value
    value = f", not {wrong[0]['input']!r}" if wrong and ", not " not in words else ""
    return f"{_name(error.param)}: {words}{value}.{hint}".removesuffix(".")


def _too_many(surplus: Sequence[str], parameters: Sequence[Any]) -> str:
    """Say where the surplus begins, and how a command that reads images takes many of them."""
    more = f" and {len(surplus) - _SHOWN:,} more" if len(surplus) > _SHOWN else ""
    is_input = more and any(_name(one) == "INPUT" for one in parameters)
    advice = ". Give a folder, or a pattern in quotes such as 'photos/*.png'" if is_input else ""
    return f"too many arguments, from here on: {' '.join(surplus[:_SHOWN])}{more}{advice}"


def are_missing(names: Sequence[str]) -> str:
    """Return `A, B and C are missing`."""
    *others, last = names
    return f"{', '.join(others)} and {last} are missing" if others else f"{last} is missing"


def _name(parameter: Any) -> str:
    """The name by which a user gives a parameter: `--images`, or `OUTPUT`."""
    options = [option for option in parameter.opts if option.startswith("-")]
    return str(max(options, key=len) if options else parameter.metavar or parameter.name.upper())


def _plain(words: str) -> str:
    for said, ours in _WORDS:
        words = re.sub(said, ours, words)
    return words
