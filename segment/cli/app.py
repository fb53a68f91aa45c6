"""The typer application, and options that its commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import typer

from segment.cli.streams import say
from segment.cli.usage import Command
from segment.errors import UsageError
from segment.job import Job

if TYPE_CHECKING:
    from segment.output.ledger import Ledger
    from segment.store.client import Store


class Stopped(BaseException):
    """A signal stops the command. Not an `Exception`, so that no handler of errors catches it.

    Attributes:
        command: name of the command in progress; None before it begins.
    """

    command: ClassVar[str | None] = None

    def __init__(self, number: int) -> None:
        left = _LEFT.get(self.command or "")
        super().__init__(f"stopped; {left}" if left else "stopped")
        self.exit_code = 128 + number


# What a command leaves behind; the others write nothing, or write it in the end.
_LEFT = {
    "run": "committed parts stay, the same command resumes the run",
    "demo": "the same command begins anew",
    "export": "files that are written stay, the same command writes those that are missing",
    "overlay": "files that are written stay, the same command writes all again",
}


_Function = TypeVar("_Function", bound=Callable[..., Any])
_Value = TypeVar("_Value")


class App(typer.Typer):
    """A group of commands whose help is that of `Command`; a list of commands has their first paragraphs, uncut."""

    def __init__(self, words: str, **options: Any) -> None:
        # not rich's: its tables cut long names of options at 80 columns
        super().__init__(help=words, short_help=words, rich_markup_mode=None, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        """See `typer.Typer.command`."""

        def added(function: _Function) -> _Function:
            short = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
            return super(App, self).command(name, **{"cls": Command, "short_help": short, **options})(function)

        return added


app = App(
    "Segment every image of a bucket or folder exactly once; write masks and exact IoU statistics to Parquet.",
    epilog="New here? Begin with `segment demo`.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def option(words: str, *names: str, **settings: Any) -> Any:
    """Return an option whose help is `words`; without names it is called as its parameter.

    A switch needs a name: typer gives it a `--no-` form otherwise.
    """
    return typer.Option(*names, help=words, **settings)


StorageOptions = Annotated[
    list[str] | None,
    option(
        str(Job.model_fields["storage_options"].description),
        "--storage-option",
        metavar="KEY=VALUE",
        rich_help_panel="Stores",
    ),
]

AllowInput = Annotated[
    list[str] | None,
    option(
        "Folder or URL prefix below which images may be read, too: an output in a store leads to no file and no web "
        "server of this machine by itself; repeatable.",
        "--allow-input",
        metavar="PREFIX",
        rich_help_panel="Stores",
    ),
]

RunPrefix = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output prefix of a run.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"segment {version('segment-job')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, option("Print the version and exit.", "--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Batch semantic segmentation."""
    Stopped.command = context.invoked_subcommand


def parse_options(texts: list[str] | None) -> dict[str, Any]:
    """Return the storage options of `KEY=VALUE` texts."""
    from segment.store.filesystems import parse_storage_option

    return table_of("--storage-option", [parse_storage_option(text) for text in texts or []])


def table_of(flag: str, pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """Return the entries of an option that is given several times. Raises UsageError: two of them contradict."""
    table: dict[str, _Value] = {}
    for key, value in pairs:
        if table.setdefault(key, value) != value:  # which may be secret, as those of a store
            raise UsageError(f"{flag} {key} is given twice, with different values: which one counts?")
    return table


def open_store(texts: list[str] | None, allowed: list[str] | None = None) -> Store:
    """Return the store, with the storage options of `KEY=VALUE` texts, and prefixes below which a plan may lead."""
    from segment.store.client import Store

    store = Store(parse_options(texts))
    store.allow_inputs(allowed or ())
    return store


def open_ledger(output: str, texts: list[str] | None, allowed: list[str] | None = None) -> Ledger:
    """Return the ledger of the run in a prefix; for the other arguments see `open_store`."""
    from segment.output.ledger import Ledger
    from segment.store.urls import to_url

    return Ledger(open_store(texts, allowed), to_url(output))
