"""The parts of the site that come from the code: commands, job file, card, columns, codes.

A page says where: `hooks.py` replaces `<!-- generated: NAME -->` with the text of `PARTS[NAME]`.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import typer

from segment.cli.app import app
from segment.cli.usage import panels_of
from segment.errors import SAMPLE_ERRORS
from segment.job import Job
from segment.models.card import ModelCard
from segment.output.attempts import TIMINGS_SCHEMA
from segment.output.mask_columns import MASKS_SCHEMA
from segment.output.remarks import REMARKS
from segment.output.shard_stats import STATS_SCHEMA

Schema = Mapping[str, Any]

# What the columns of the Parquet files mean; a column without a line here fails the build.
_COLUMNS = {
    "id": "name of the image: its path below the input, its key in a tar, or its id in a table",
    "uri": "where its bytes are, without signatures; a member of a tar or row of a table by its range",
    "shard": "id of the shard, which names the folder or file",
    "part": "id of the part",
    "index": "position of the image in its shard, from 0",
    "width": "of the image in pixels, upright; null if it could not be decoded",
    "height": "as `width`",
    "brightness": "mean luma of the image, 0-255",
    "status": "`ok` or `error`",
    "error": "code, text and finding; null without an error",
    "mask": "PNG of class indices, or the path of a TIFF; null if the image could not be segmented",
    "confusion": "counts of pixels: `cell` is label * C + prediction; null with an error",
    "pixel_accuracy": "0-1; null if nothing is labelled",
    "miou": "0-1, by the card's convention; null if nothing is labelled",
    "class_id": "index of the class; C for void",
    "class_name": "its name",
    "tp": "pixels that are rightly predicted as the class",
    "fp": "pixels that are wrongly predicted as the class",
    "fn": "pixels of the class that are predicted as another one",
    "label_pixels": "labelled pixels of the class",
    "predicted_pixels": "pixels predicted as the class",
    "iou": "0-1, by the card's convention; null if the class occurs nowhere",
    "images": "rows, error rows included",
    "errors": "rows with an error",
    "scored": "rows with an mIoU",
    "image_miou_sum": "sum of the rows' mIoU, which `image-mean` needs",
    "host": "machine that did the part",
    "began": "seconds since 1970, when its work began",
    "ended": "seconds since 1970, when it was committed",
    "memory": "peak resident bytes of the process",
    "round": "round of the run, from 1",
    "skipped": "whether it was committed already",
    "failure": "why it was not committed; null if it was",
    "retries": "repeated requests to stores",
    "read_bytes": "encoded bytes of images and labels",
    "written_bytes": "bytes of the masks file",
    "stage": "seconds of this stage",
    "precision": "floating-point type that the part was computed in",
}
_PLURALS = {"whole number": "whole numbers", "number": "numbers", "a table": "tables"}
_OWN = {("stats", "confusion"): "the row of the confusion matrix: counts by predicted class"}


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(titles)]
    lines += [["---"] * len(lines[0])]
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def text(words: str) -> str:
    """Words of the code as Markdown: braces, brackets and angle brackets as they are."""
    parts = words.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts[::2]]
    return "`".join(parts)


# --- commands --------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    import segment.cli.main  # noqa: F401 - adds the commands

    root = typer.main.get_command(app)
    return "\n".join(_command(f"segment {path}", command) for path, command in _leaves(root))


def _leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands below a group; a group that does something by itself comes first."""
    for name, child in command.commands.items():
        whole = f"{path} {name}".strip()
        if not hasattr(child, "commands"):
            yield whole, child
            continue
        if child.invoke_without_command:
            yield whole, child
        yield from _leaves(child, whole)


def _command(name: str, command: Any) -> str:
    shown = [item for item in command.params if item.name != "help"]
    own = [item for item in shown if name == "segment run" or not _of_a_job(item)]
    shared = ", ".join(f"`{item.opts[0]}`" for item in shown if item not in own)
    lines = [f"## {name}\n", *map(_paragraph, inspect.cleandoc(command.help or "").replace("\f", "").split("\n\n")), ""]
    for panel, items in panels_of(own).items():
        lines += [f"**{panel}**\n", table(("", ""), map(_parameter, items))]
    if shared:
        lines.append(f"It also takes these options of a job, as `segment run` does: {shared}.\n")
    return "\n".join(lines)


def _paragraph(words: str) -> str:
    """A paragraph of a command's help; an example is code."""
    return f"```sh\n{words}\n```\n" if words.startswith("segment ") else f"{text(words)}\n"


def _of_a_job(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and parameter.name in Job.model_fields


def _parameter(item: Any) -> tuple[str, str]:
    """The names of an argument or option, and its help with choices and default."""
    words = text(item.help or "")
    if item.param_type_name == "argument":
        return f"`{item.name.upper()}`", words
    annotation = item.type_descriptor.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    facts = [", ".join(choices)] if choices else []
    if item.show_default and isinstance(item.default, str | int | float) and item.default is not False:
        facts.append(f"default: {item.default}")
    names = ", ".join(f"`{option}`" for option in (*item.opts, *item.secondary_opts))
    return names, f"{words} [{'; '.join(facts)}]" if facts else words


# --- job file and card -----------------------------------------------------------------------------------------------


def job_file() -> str:
    """Every key of a job file, by the panels of `--help`."""
    schema = Job.model_json_schema()
    required, lines = set(schema["required"]), []
    for group in Job.__mro__:
        own = [name for name in inspect.get_annotations(group) if name in schema["properties"]]
        if own:
            title, _, meaning = (inspect.getdoc(group) or "").partition(":")
            lines += [f"## {title}\n", f"{meaning.strip().capitalize()}\n" if meaning else ""]
            lines.append(_keys({name: schema["properties"][name] for name in own}, required, {}))
    return "\n".join(lines)


def card() -> str:
    """Every key of a card, by table."""
    schema = ModelCard.model_json_schema()
    lines = []
    for title, found in _tables(schema, schema["$defs"]):
        lines.append(f"## {f'Table `{title}`' if title else 'Keys at the top'}\n")
        lines.append(_keys(found["properties"], set(found.get("required", ())), schema["$defs"]))
    return "\n".join(lines)


def _tables(schema: Schema, definitions: Schema, path: str = "", title: str = "") -> Iterator[tuple[str, Schema]]:
    """The tables of a schema with their heads, each before those within it."""
    yield title, schema
    for name, below in schema["properties"].items():
        for branch in below.get("anyOf", [below]):
            inner = branch.get("items", branch)
            if "$ref" in inner and "properties" in (found := definitions[inner["$ref"].rpartition("/")[2]]):
                whole = f"{path}.{name}" if path else name
                yield from _tables(found, definitions, whole, f"[[{whole}]]" if "items" in branch else f"[{whole}]")


def _keys(properties: Mapping[str, Schema], required: set[str], definitions: Schema) -> str:
    rows = [
        (f"`{name}`", _kind(schema, definitions), _default(name, schema, required), text(schema.get("description", "")))
        for name, schema in properties.items()
    ]
    return table(("key", "value", "default", ""), rows)


def _default(name: str, schema: Schema, required: set[str]) -> str:
    if name in required:
        return "required"
    default = schema.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "" if default in (None, "", [], {}) or isinstance(default, dict) else f"`{default}`"


def _kind(schema: Schema, definitions: Schema) -> str:
    """The type of a value in words, such as `whole number` or ``one of `a`, `b` ``."""
    if branches := schema.get("anyOf"):
        return " or ".join(
            dict.fromkeys(_kind(branch, definitions) for branch in branches if branch != {"type": "null"})
        )
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        return "a table" if "properties" in found else _kind(found, definitions)
    if choices := schema.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        items = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"list of {_PLURALS.get(kind := _kind(items, definitions), kind)}"
    return {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}.get(
        schema.get("type", ""), "a table"
    )


# --- columns and codes -----------------------------------------------------------------------------------------------


def columns(schema: pa.Schema, file: str) -> str:
    """The columns of a Parquet file, with their types and what they mean."""
    rows = []
    for field in schema:
        known = "stage" if field.name.endswith("_seconds") else field.name
        kind = str(field.type).replace("<", "&lt;") + (", null" if field.nullable else "")
        rows.append((f"`{field.name}`", kind, _OWN.get((file, field.name)) or _COLUMNS[known]))
    return table(("column", "type", ""), rows)


def codes(words: Mapping[str, str]) -> str:
    """Codes and what they mean."""
    return table(("code", "meaning"), ((f"`{code}`", text(meaning)) for code, meaning in words.items()))


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "job file": job_file,
    "card": card,
    "masks schema": lambda: columns(MASKS_SCHEMA, "masks"),
    "stats schema": lambda: columns(STATS_SCHEMA, "stats"),
    "timings schema": lambda: columns(TIMINGS_SCHEMA, "runs"),
    "sample errors": lambda: codes(SAMPLE_ERRORS),
    "remarks": lambda: codes(REMARKS),
}
