"""`segment models draft`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from segment.cli.app import StorageOptions, open_store
from segment.cli.models import models_app
from segment.cli.options import entries
from segment.cli.streams import put, say, streams
from segment.errors import UsageError


@models_app.command("draft")
def draft_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Path or URL of an .onnx, .xml (OpenVINO) or .tflite file.")
    ],
    images: Annotated[
        str | None,
        typer.Argument(metavar="IMAGES", help="An image, or a folder: up to three are segmented.", show_default=False),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Folder of labels of IMAGES: they decide what is guessed.", show_default=False),
    ] = None,
    label_remap: Annotated[
        list[str] | None,
        typer.Option("--label-remap", metavar="KEY=VALUE", help="What label values mean, as for a run."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", "-t", help="File or URL to write the card to.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    picture: Annotated[
        str | None,
        typer.Option("--picture", help="File or URL of a PNG: IMAGES and their masks.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="Height and width, if the graph leaves them free.", show_default=False
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", min=1, max=255, help="Number of classes, if nothing tells it.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the card.", show_default=False)] = "",
    storage_option: StorageOptions = None,
) -> None:
    """Draft a card for a model, run it, and print it.

    segment models draft my-model.onnx photos/ --to my-model.toml --picture look.png

    With labels of 4 images or more channels, normalisation and resize are measured: --labels labels/
    """
    from segment.drafts.drafting import draft_card
    from segment.store.names import shown
    from segment.store.urls import to_url

    store = open_store(storage_option)
    if picture and images is None:
        raise UsageError("--picture shows your images with their masks: name an image or a folder after the model")
    if labels and images is None:
        raise UsageError("--labels are of your images: name their folder after the model")
    if label_remap and labels is None:
        raise UsageError("--label-remap says what label values mean: name the labels, too (--labels)")
    targets = [to_url(target) for target in (to, picture) if target]
    if len({to_url(model), *targets}) <= len(targets):
        raise UsageError("--to and --picture are files of their own, and not the model: give other names")
    for target in targets:
        if not overwrite and store.exists(target):
            raise UsageError(f"{shown(target)} exists already: another name, or --overwrite")
    found = draft_card(
        model,
        images,
        labels=labels,
        label_remap=entries("label_remap", label_remap or []),
        size=_size(size),
        classes=classes,
        name=name,
        beside=to,
        store=store,
        note=lambda line: say(f"note: {line}", err=True),
    )
    for remark in found.remarks:
        say(f"note: {remark}", err=True)
    if picture:
        store.write(to_url(picture), found.picture)
        say(f"note: picture: {shown(to_url(picture))}", err=True)
    if to is None:
        put(found.text, end="")
        return
    store.write(to_url(to), found.text.encode())
    streams.work_is_done()
    say(f"note: card: {shown(to_url(to))}", err=True)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text.strip())
    if found is None or not all(1 <= int(side) <= 16384 for side in found.groups()):
        raise UsageError(f"--size {text}: give height and width in pixels, such as 512x1024")
    return int(found[1]), int(found[2])
