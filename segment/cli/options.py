"""How a job is asked for in flags: the options that `segment run` and `segment plan` share, and what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict, get_type_hints

import typer

from segment.cli.app import StorageOptions, open_store, parse_options

_MODEL, _INPUT, _ENGINE, _OUTPUT = "Model", "Input", "Engine", "Output"


def _flag(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:  # noqa: A002
    shown = help.replace("[", r"\[")  # or rich takes a default in brackets for markup
    return typer.Option(*names, help=shown, rich_help_panel=panel, metavar=metavar, show_default=False)


class JobFlags(TypedDict, total=False):
    """The options that `segment run` and `segment plan` share, in the order of `--help`."""

    input: Annotated[
        str | None,
        typer.Argument(help="Images: folder, prefix, tars, Parquet or a list file; a path or URL.", show_default=False),
    ]
    model: Annotated[str | None, _flag("--model", "-m", help="Built-in card, or a card's path or URL.", panel=_MODEL)]
    weights: Annotated[
        str | None,
        _flag("--weights", "-w", help="Path or URL of .onnx, .xml or .tflite; else the card's own.", panel=_MODEL),
    ]
    runtime: Annotated[str | None, _flag(help="auto, onnxruntime or openvino.", panel=_MODEL)]
    device: Annotated[str | None, _flag(help="auto, cpu, cuda or tensorrt.", panel=_MODEL)]
    precision: Annotated[str | None, _flag(help="auto, f32, bf16 or f16.", panel=_MODEL)]
    batch_size: Annotated[str | None, _flag(help="Images a call of the model, or auto.", panel=_MODEL)]
    format: Annotated[str | None, _flag(help="auto, files, webdataset, parquet or list.", panel=_INPUT)]
    include_hidden: Annotated[
        bool | None,
        _flag(
            "--include-hidden/--no-include-hidden",
            help="Take files whose name or folder begins with . or _, too.",
            panel=_INPUT,
        ),
    ]
    labels: Annotated[str | None, _flag(help="Prefix of label images, matched by relative stem.", panel=_INPUT)]
    label_pattern: Annotated[
        str | None,
        _flag(
            help="Label path with {dir}, {stem}, {name}, e.g. '{dir}/{stem}_L.png'; {stem%END} cuts an end off.",
            panel=_INPUT,
        ),
    ]
    image_key: Annotated[str | None, _flag(help="Tar member suffix of images, e.g. left.jpg.", panel=_INPUT)]
    label_key: Annotated[
        str | None, _flag(help="Tar member suffix of labels [seg.png, mask.png, label.png].", panel=_INPUT)
    ]
    image_column: Annotated[
        str | None, _flag(help="Column of Parquet or a list, or a field as in sample.image.", panel=_INPUT)
    ]
    label_column: Annotated[
        str | None, _flag(help="Column of Parquet or a list; of Parquet :none for no labels.", panel=_INPUT)
    ]
    id_column: Annotated[
        str | None, _flag(help="Column of Parquet or a list; of Parquet :row for row numbers.", panel=_INPUT)
    ]
    label_encoding: Annotated[
        str | None, _flag(help="auto, index or colour: how labels say a pixel's class.", panel=_INPUT)
    ]
    label_remap: Annotated[
        list[str] | None,
        _flag(
            help="VALUE=CLASS or R,G,B=CLASS, again for each; *=CLASS for the rest.", panel=_INPUT, metavar="FROM=TO"
        ),
    ]
    allow_lossy_labels: Annotated[
        bool | None,
        _flag(
            "--allow-lossy-labels/--no-allow-lossy-labels",
            help="Take labels compressed with loss (JPEG, lossy WebP, JPEG in TIFF) as they decode.",
            panel=_INPUT,
        ),
    ]
    limit: Annotated[int | None, _flag(help="The first so many images only.", panel=_INPUT)]
    sample: Annotated[int | None, _flag(help="So many images only, from all over, always the same.", panel=_INPUT)]
    part_size: Annotated[str | None, _flag(help="Images a part (unit of commit), or auto.", panel=_INPUT)]
    part_bytes: Annotated[int | None, _flag(help="Most encoded bytes a part.", panel=_INPUT)]
    max_pixels: Annotated[int | None, _flag(help="Larger images are error rows [100000000].", panel=_INPUT)]
    max_image_bytes: Annotated[int | None, _flag(help="Larger files are error rows.", panel=_INPUT)]
    max_row_group_bytes: Annotated[int | None, _flag(help="Parquet with larger row groups is refused.", panel=_INPUT)]
    engine: Annotated[str | None, _flag(help="auto, local or ray.", panel=_ENGINE)]
    address: Annotated[str | None, _flag(help="Ray cluster: auto, or host:port of its head.", panel=_ENGINE)]
    workers: Annotated[str | None, _flag(help="Models loaded at once, or MIN:MAX for a growing pool.", panel=_ENGINE)]
    stall_timeout: Annotated[
        float | None, _flag(help="Seconds after which a stuck worker is replaced [measured].", panel=_ENGINE)
    ]
    worker_memory: Annotated[
        str | None, _flag(help="Memory a worker process may take, e.g. 4GB; its part fails.", panel=_ENGINE)
    ]
    price_per_hour: Annotated[
        float | None, _flag(help="Of all machines, for the cost per 1,000 images.", panel=_ENGINE)
    ]
    mask_size: Annotated[str | None, _flag(help="source or model.", panel=_OUTPUT)]
    max_error_rate: Annotated[float | None, _flag(help="Share of images that may fail [0.05].", panel=_OUTPUT)]
    storage_option: StorageOptions
    job: Annotated[
        str | None, typer.Option("--job", "-j", help="TOML job file; flags override it.", show_default=False)
    ]


def with_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `**flags: Unpack[JobFlags]` each of these options, before its own; None if not given.

    Typer knows no options but those that a signature names.
    """
    own = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag)
        for name, flag in get_type_hints(JobFlags, include_extras=True).items()
    ]
    named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*shared, *named])  # type: ignore[attr-defined]
    return command


def job_values(given: Mapping[str, Any], command: str) -> tuple[dict[str, Any], str]:
    """What is asked, flags over job file, and where errors are to be looked for: the file, else the command."""
    from segment.job import read_job_file

    flags = {name: value for name, value in given.items() if value is not None}
    file = flags.pop("job", None)
    values = read_job_file(file, open_store(flags.get("storage_option"))) if file else {}
    if "storage_option" in flags:
        flags["storage_options"] = {**values.get("storage_options", {}), **parse_options(flags.pop("storage_option"))}
    if "label_remap" in flags:
        flags["label_remap"] = _remap(flags["label_remap"])
    for name in ("batch_size", "part_size"):
        if str(flags.get(name, "")).isdigit():
            flags[name] = int(flags[name])
    if {"limit", "sample"} & flags.keys():  # one of them in place of the other
        values = {name: value for name, value in values.items() if name not in ("limit", "sample")}
    return {**values, **flags}, file or command


def _remap(texts: list[str]) -> dict[str, str]:
    from segment.errors import UsageError

    pairs = [text.rpartition("=") for text in texts]
    if any(not source or not target for source, _, target in pairs):
        raise UsageError(
            "--label-remap takes FROM=TO, for example --label-remap 64,0,128=Vehicle or --label-remap 7=ignore"
        )
    return {source: target for source, _, target in pairs}
