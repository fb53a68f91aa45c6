"""The options of a job on the command line: generated from the fields of `segment.job.Job`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import typer

from segment.cli.app import StorageOptions, open_store, parse_options
from segment.errors import UsageError
from segment.job import Job, make_job, read_job_file
from segment.store.names import shown

_ARGUMENTS = ("input", "output")  # fields that a command takes as positional arguments, if at all
_SHORT = {"model": "-m", "weights": "-w"}
_TYPES = {"boolean": bool, "integer": int, "number": float, "array": list[str], "object": list[str]}  # else text
_PROPERTIES: dict[str, dict[str, Any]] = Job.model_json_schema()["properties"]
_TABLES = {name for name, schema in _PROPERTIES.items() if schema.get("type") == "object"}

JobFile = Annotated[str | None, typer.Option("--job", "-j", help="TOML job file; flags override it.")]


def takes_job(*arguments: str, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command with `**flags` an option for every field of `Job`, before its own; its value is None by default.

    Typer reads options from the signature only, so this extends the signature.

    Args:
        arguments: the fields among `input` and `output` that are positional arguments of the command.
        without: the fields that the command does not use; a job file may hold them all the same.
    """

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        options = {name: _argument(name) for name in arguments}
        options |= {name: option for name, option in _options() if name not in without}
        options |= {"storage_options": StorageOptions, "job": JobFile}
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
            for name, option in options.items()
        ]
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        command.__signature__ = own.replace(parameters=[*shared, *named])  # type: ignore[attr-defined]
        return command

    return extend


def job_of(flags: Mapping[str, Any], command: str, **defaults: str) -> Job:
    """Return the job of a command line: flags override the job file, which overrides `defaults`.

    Args:
        flags: values of the options that `takes_job` adds; None where an option is not given.
        command: its name for errors in values, where there is no job file.
        defaults: values of fields that neither names.

    Raises:
        UsageError: see `make_job`; a job file that cannot be read; a table entry without `=`.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    file = given.pop("job", None)
    storage = given.pop("storage_options", None)
    values = {**defaults, **(read_job_file(file, open_store(storage)) if file else {})}
    if storage:
        given["storage_options"] = {**values.get("storage_options", {}), **parse_options(storage)}
    given |= {name: entries(name, given[name]) for name in _TABLES - {"storage_options"} if name in given}
    if {"limit", "sample"} & given.keys():  # one choice of images replaces the other one
        values = {name: value for name, value in values.items() if name not in ("limit", "sample")}
    _refuse_missing({**values, **given}, file, command)
    return make_job({**values, **given}, file or command)


def _refuse_missing(values: Mapping[str, Any], file: str | None, command: str) -> None:
    """Name what a job needs and has not, as a user of the command line gives it."""
    needed = [name for name, field in Job.model_fields.items() if field.is_required()]
    missing = [name.upper() if name in _ARGUMENTS else _name(name) for name in needed if name not in values]
    if not missing or not values.keys() <= Job.model_fields.keys():  # a misspelt key is told with what it may stand for
        return
    listed = f"{', '.join(missing[:-1])}{' and ' * bool(missing[:-1])}{missing[-1]}"
    is_one = len(missing) == 1
    where = f", and {shown(file)} has no such {'key' if is_one else 'keys'}" if file else ""
    told = f"`{command} --help` tells what {'it is' if is_one else 'they are'}"
    raise UsageError(f"{command}: {listed} {'is' if is_one else 'are'} missing{where}. {told}")


def values_of(command: str, **values: Any) -> dict[str, Any]:
    """Return those of some values of a job that are given, for a command that takes no job.

    Raises:
        UsageError: a value is none that a job takes.
    """
    given = {name: value for name, value in values.items() if value is not None}
    others = {name: "-" for name, info in Job.model_fields.items() if info.is_required()}
    make_job({**others, **given}, command)
    return given


def _options() -> Iterator[tuple[str, Any]]:
    """Names and annotations of the flags, panel by panel: those that say most about a job first."""
    for group in Job.__mro__:
        for name in inspect.get_annotations(group):
            if name in _PROPERTIES and name not in _ARGUMENTS and name != "storage_options":
                yield name, _flag(name, panel=(inspect.getdoc(group) or "").rstrip("."))


def _argument(name: str) -> Any:
    return Annotated[str | None, typer.Argument(metavar=name.upper(), help=_help(name), show_default=False)]


def _flag(name: str, panel: str) -> Any:
    """The annotation of an option: its type and names follow from the field's JSON schema."""
    option = _name(name)
    kinds = {branch["type"] for branch in _branches(name)} - {"null"}
    kind = _TYPES.get(kinds.pop(), str) if len(kinds) == 1 else str
    names = [f"{option}/--no-{option.removeprefix('--')}"] if kind is bool else [option]
    names += [_SHORT[name]] if name in _SHORT else []
    metavar = "KEY=VALUE" if name in _TABLES else None
    return Annotated[
        kind | None,
        typer.Option(*names, help=_help(name), rich_help_panel=panel, metavar=metavar, show_default=False),
    ]


def _name(field: str) -> str:
    return "--" + field.replace("_", "-")


def _branches(name: str) -> list[dict[str, Any]]:
    """The JSON schemas of the types that a field takes."""
    return list(_PROPERTIES[name].get("anyOf", [_PROPERTIES[name]]))


def _help(name: str) -> str:
    """The description of a field, its choices and its default."""
    default = _PROPERTIES[name].get("default")
    choices = [choice for branch in _branches(name) for choice in branch.get("enum", ())]
    facts = [", ".join(choices)] if choices else []
    facts += [f"default: {default}"] if isinstance(default, str | int | float) and default is not False else []
    text = f"{_PROPERTIES[name]['description']} [{'; '.join(facts)}]" if facts else _PROPERTIES[name]["description"]
    return str(text).replace("[", r"\[")  # rich reads brackets as markup


def entries(name: str, texts: list[str]) -> dict[str, str]:
    """The entries of a table, each given as `KEY=VALUE`."""
    pairs = [text.rpartition("=") for text in texts]
    if any(not key or not value for key, _, value in pairs):
        option = _name(name)
        examples = [f"{option} {k}={v}" for table in _PROPERTIES[name]["examples"] for k, v in table.items()]
        raise UsageError(f"{option} takes KEY=VALUE, for example {' or '.join(examples)}")
    return {key: value for key, _, value in pairs}
