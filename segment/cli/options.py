"""How a job is asked for in flags: the options that `segment run` and `segment plan` share, and what they mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segment.cli.app import open_store, parse_options

_MODEL, _INPUT, _ENGINE, _OUTPUT = "Model", "Input", "Engine", "Output"


def _flag(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:  # noqa: A002
    shown = help.replace("[", r"\[")  # or rich takes a default in brackets for markup
    return typer.Option(*names, help=shown, rich_help_panel=panel, metavar=metavar, show_default=False)


Input = Annotated[
    str | None,
    typer.Argument(help="Images: folder, prefix, tars, Parquet or a list file; a path or URL.", show_default=False),
]
Output = Annotated[str | None, typer.Argument(help="Prefix to write to; a path or URL.", show_default=False)]
Model = Annotated[str | None, _flag("--model", "-m", help="Built-in card, or a card's path or URL.", panel=_MODEL)]
Weights = Annotated[
    str | None,
    _flag("--weights", "-w", help="Path or URL of .onnx, .xml or .tflite; else the card's own.", panel=_MODEL),
]
Runtime = Annotated[str | None, _flag("--runtime", help="auto, onnxruntime or openvino.", panel=_MODEL)]
Device = Annotated[str | None, _flag("--device", help="auto, cpu, cuda or tensorrt.", panel=_MODEL)]
Precision = Annotated[str | None, _flag("--precision", help="auto, f32, bf16 or f16.", panel=_MODEL)]
BatchSize = Annotated[str | None, _flag("--batch-size", help="Images a call of the model, or auto.", panel=_MODEL)]
Format = Annotated[str | None, _flag("--format", help="auto, files, webdataset, parquet or list.", panel=_INPUT)]
Labels = Annotated[
    str | None, _flag("--labels", help="Prefix of label images, matched by relative stem.", panel=_INPUT)
]
LabelPattern = Annotated[
    str | None,
    _flag("--label-pattern", help="Label path with {dir}, {stem}, {name}, e.g. '{dir}/{stem}_L.png'.", panel=_INPUT),
]
LabelKey = Annotated[
    str | None,
    _flag("--label-key", help="Tar member suffix of labels [seg.png, mask.png, label.png].", panel=_INPUT),
]
ImageColumn = Annotated[str | None, _flag("--image-column", help="Parquet column.", panel=_INPUT)]
LabelColumn = Annotated[str | None, _flag("--label-column", help="Parquet column.", panel=_INPUT)]
IdColumn = Annotated[str | None, _flag("--id-column", help="Parquet column.", panel=_INPUT)]
LabelEncoding = Annotated[
    str | None,
    _flag("--label-encoding", help="auto, index or colour: how labels say a pixel's class.", panel=_INPUT),
]
LabelRemap = Annotated[
    list[str] | None,
    _flag(
        "--label-remap",
        help="VALUE=CLASS or R,G,B=CLASS, again for each; *=CLASS for the rest.",
        panel=_INPUT,
        metavar="FROM=TO",
    ),
]
PartSize = Annotated[str | None, _flag("--part-size", help="Images a part (unit of commit), or auto.", panel=_INPUT)]
PartBytes = Annotated[int | None, _flag("--part-bytes", help="Most encoded bytes a part.", panel=_INPUT)]
MaxPixels = Annotated[int | None, _flag("--max-pixels", help="Larger images are error rows [100000000].", panel=_INPUT)]
MaxImageBytes = Annotated[int | None, _flag("--max-image-bytes", help="Larger files are error rows.", panel=_INPUT)]
MaxRowGroupBytes = Annotated[
    int | None, _flag("--max-row-group-bytes", help="Parquet with larger row groups is refused.", panel=_INPUT)
]
Engine = Annotated[str | None, _flag("--engine", help="auto, local or ray.", panel=_ENGINE)]
Address = Annotated[
    str | None, _flag("--address", help="Ray cluster: auto, host:port or ray://host:port.", panel=_ENGINE)
]
Workers = Annotated[
    str | None, _flag("--workers", help="Models loaded at once, or MIN:MAX for a growing pool.", panel=_ENGINE)
]
StallTimeout = Annotated[
    float | None,
    _flag("--stall-timeout", help="Seconds after which a stuck worker is replaced [measured].", panel=_ENGINE),
]
WorkerMemory = Annotated[
    str | None,
    _flag("--worker-memory", help="Memory a worker process may take, e.g. 4GB; its part fails.", panel=_ENGINE),
]
PricePerHour = Annotated[
    float | None, _flag("--price-per-hour", help="Of all machines, for the cost per 1,000 images.", panel=_ENGINE)
]
MaskSize = Annotated[str | None, _flag("--mask-size", help="source or model.", panel=_OUTPUT)]
MaxErrorRate = Annotated[
    float | None, _flag("--max-error-rate", help="Share of images that may fail [0.05].", panel=_OUTPUT)
]
JobFile = Annotated[
    str | None, typer.Option("--job", "-j", help="TOML job file; flags override it.", show_default=False)
]


def job_values(flags: dict[str, Any], command: str) -> tuple[dict[str, Any], str]:
    """What is asked, flags over job file, and where errors are to be looked for: the file, else the command."""
    from segment.job import read_job_file

    file = flags.pop("job", None)
    values = read_job_file(file, open_store(flags.get("storage_option"))) if file else {}
    if "storage_option" in flags:
        flags["storage_options"] = {**values.get("storage_options", {}), **parse_options(flags.pop("storage_option"))}
    if "label_remap" in flags:
        flags["label_remap"] = _remap(flags["label_remap"])
    for name in ("batch_size", "part_size"):
        if str(flags.get(name, "")).isdigit():
            flags[name] = int(flags[name])
    return {**values, **flags}, file or command


def _remap(texts: list[str]) -> dict[str, str]:
    from segment.errors import UsageError

    pairs = [text.rpartition("=") for text in texts]
    if any(not source or not target for source, _, target in pairs):
        raise UsageError(
            "--label-remap takes FROM=TO, for example --label-remap 64,0,128=Vehicle or --label-remap 7=ignore"
        )
    return {source: target for source, _, target in pairs}
