"""The options of a job on the command line: generated from the fields of `segment.job.Job`."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import typer

from segment.cli.app import StorageOptions, open_store, option, parse_options, table_of
from segment.cli.usage import are_missing
from segment.errors import UsageError
from segment.job import InvalidJob, Job, make_job, read_job_file
from segment.store.names import shown

_ARGUMENTS = ("input", "output")  # fields that a command takes as positional arguments, if at all
_SHORT = {"model": "-m", "weights": "-w"}
_TYPES = {"boolean": bool, "array": list[str], "object": list[str]}  # else text; `Job` says what is wrong with a number
_METAVARS = {"integer": "<int>", "number": "<float>", "array": "<str>", "object": "KEY=VALUE"}
_PROPERTIES: dict[str, dict[str, Any]] = Job.model_json_schema()["properties"]
_TABLES = {name for name, schema in _PROPERTIES.items() if schema.get("type") == "object"}

JobFile = Annotated[str | None, option("TOML job file; flags override it.", "--job", "-j")]
_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def takes_job(*arguments: str, without: Collection[str] = ()) -> _Decorator:
    """Give a command with `**flags` an option for every field of `Job`, before its own; its value is None by default.

    Args:
        arguments: the fields among `input` and `output` that are positional arguments of the command.
        without: the fields that the command does not use; a job file may hold them all the same.
    """
    options = {name: _argument(name) for name in arguments}
    options |= {name: flag for name, flag in _options() if name not in without}
    return _extended({**options, "storage_options": StorageOptions, "job": JobFile})


def takes(*fields: str) -> _Decorator:
    """Give a command with `**flags` the options of some fields of `Job`, which `values_of` then checks."""
    return _extended({name: _flag(name) for name in fields})


def _extended(options: Mapping[str, Any]) -> _Decorator:
    """Return a decorator that adds options to a command's signature, from which alone typer reads them."""

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in options.items()
        ]
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        first = [parameter for parameter in named if parameter.kind is not parameter.KEYWORD_ONLY]
        command.__signature__ = own.replace(parameters=[*first, *shared, *named[len(first) :]])  # type: ignore[attr-defined]
        return command

    return extend


def job_of(flags: Mapping[str, Any], command: str, as_given: Mapping[str, str] | None = None, **defaults: str) -> Job:
    """Return the job of a command line: flags override the job file, which overrides `defaults`.

    Args:
        flags: values of the options that `takes_job` adds; None where an option is not given.
        command: its name for errors in values, where there is no job file.
        as_given: what a user of the command gives for a field, where it is not `INPUT`, `OUTPUT` or the field's option.
        defaults: values of fields that neither names.

    Raises:
        UsageError: see `make_job`; a job file that cannot be read; a table entry without `=`.
    """
    file, storage = flags["job"], flags["storage_options"]
    given = _given({name: value for name, value in flags.items() if name not in ("job", "storage_options")})
    values = {**defaults, **(read_job_file(file, open_store(storage)) if file else {})}
    if storage:
        given["storage_options"] = {**values.get("storage_options", {}), **parse_options(storage)}
    if {"limit", "sample"} & given.keys():  # one choice of images replaces the other one
        values = {name: value for name, value in values.items() if name not in ("limit", "sample")}
    _refuse_missing({**values, **given}, file, command)
    return _job({**values, **given}, given, file, command, as_given)


def _refuse_missing(values: Mapping[str, Any], file: str | None, command: str) -> None:
    """Name what a job needs and has not, as a user of the command line gives it."""
    needed = [name for name, field in Job.model_fields.items() if field.is_required()]
    missing = [_as_given(name) for name in needed if name not in values]
    if not missing or not values.keys() <= Job.model_fields.keys():  # a misspelt key is told with what it may stand for
        return
    is_one = len(missing) == 1
    where = f", and {shown(file)} has no such {'key' if is_one else 'keys'}" if file else ""
    told = f"`{command} --help` tells what {'it is' if is_one else 'they are'}"
    raise UsageError(f"{command}: {are_missing(missing)}{where}. {told}")


def values_of(flags: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the values that are given of the options that `takes` adds.

    Raises:
        UsageError: a value is none that a job takes.
    """
    given = _given(flags)
    others = {name: "-" for name, info in Job.model_fields.items() if info.is_required()}
    job = _job({**others, **given}, given, None, command)
    return {name: getattr(job, name) for name in given}


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the options that are given; tables from their entries."""
    given = {name: value for name, value in flags.items() if value is not None}
    return given | {name: _entries(name, given[name]) for name in _TABLES & given.keys()}


def _job(
    values: Mapping[str, Any],
    given: Collection[str],
    file: str | None,
    command: str,
    as_given: Mapping[str, str] | None = None,
) -> Job:
    """Return the job of some values; errors name those that are `given` as the command line does, others as a file."""
    try:
        return make_job(values)
    except InvalidJob as error:
        names = as_given or {}
        wrong = {
            names.get(key, _as_given(key)) if _field(key) in given else key: text for key, text in error.wrong.items()
        }
        is_of_file = any(_field(key) not in given for key in error.wrong)
        raise InvalidJob(wrong, (is_of_file and file) or command) from None


def _field(key: str) -> str:
    return key.partition(".")[0]


def _as_given(key: str) -> str:
    """The key of a job as a user of the command line gives it: `OUTPUT`, `--model`, `--label-remap 7`."""
    name, _, entry = key.partition(".")
    return name.upper() if name in _ARGUMENTS else f"{_name(name)} {entry}".rstrip()


def _options() -> Iterator[tuple[str, Any]]:
    """Names and annotations of the flags, panel by panel: those that say most about a job first."""
    for group in Job.__mro__:
        for name in inspect.get_annotations(group):
            if name in _PROPERTIES and name not in _ARGUMENTS and name != "storage_options":
                yield name, _flag(name, (inspect.getdoc(group) or "").rstrip("."))


def _argument(name: str) -> Any:
    return Annotated[str | None, typer.Argument(metavar=name.upper(), help=_help(name), show_default=False)]


def _flag(name: str, panel: str | None = None) -> Any:
    """The annotation of an option: its type and names follow from the field's JSON schema."""
    kinds = {branch["type"] for branch in _branches(name)} - {"null"}
    only = kinds.pop() if len(kinds) == 1 else ""
    kind = _TYPES.get(only, str)
    names = [_name(name), _SHORT[name]] if name in _SHORT else [_name(name)]
    if kind is bool:
        names = [f"{names[0]}/--no-{names[0].removeprefix('--')}"]
    return Annotated[kind | None, option(_help(name), *names, rich_help_panel=panel, metavar=_METAVARS.get(only))]


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
    text = str(_PROPERTIES[name]["description"])
    return f"{text} [{'; '.join(facts)}]" if facts else text


def _entries(name: str, texts: list[str]) -> dict[str, str]:
    """The entries of a table, each given as `KEY=VALUE`."""
    pairs = [text.rpartition("=") for text in texts]
    if any(not key or not value for key, _, value in pairs):
        flag = _name(name)
        examples = [f"{flag} {k}={v}" for table in _PROPERTIES[name]["examples"] for k, v in table.items()]
        raise UsageError(f"{flag} takes KEY=VALUE, for example {' or '.join(examples)}")
    return table_of(_name(name), [(key, value) for key, _, value in pairs])
