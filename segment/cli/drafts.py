"""`segment models draft`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment.cli.app import StorageOptions, open_store, option
from segment.cli.models import models_app
from segment.cli.options import takes, values_of
from segment.cli.streams import put, say, streams
from segment.errors import StoreError, UsageError

if TYPE_CHECKING:
    from segment.store.client import Store

_MOST_FLAGS = 12  # of one command that a message advises


@models_app.command("draft")
@takes("label_remap")
def draft_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Path or URL of an .onnx, .xml (OpenVINO) or .tflite file.")
    ],
    images: Annotated[
        str | None,
        typer.Argument(metavar="IMAGES", help="An image, or a folder: three of it are segmented.", show_default=False),
    ] = None,
    *,
    labels: Annotated[str | None, option("Folder of labels of IMAGES: they decide what is guessed.")] = None,
    to: Annotated[str | None, option("File or URL to write the card to.", "--to", "-t")] = None,
    overwrite: Annotated[bool, option("Replace files that exist.", "--overwrite")] = False,
    picture: Annotated[str | None, option("File or URL of a PNG: IMAGES and their masks.")] = None,
    size: Annotated[str | None, option("Height and width, if the graph leaves them free.", metavar="HxW")] = None,
    classes: Annotated[int | None, option("Number of classes, if nothing tells it.", min=1, max=255)] = None,
    name: Annotated[str | None, option("Name of the card.")] = None,
    storage_option: StorageOptions = None,
    **flags: Any,
) -> None:
    """Draft a card for a model, run it, and print it.

    segment models draft my-model.onnx photos/ --to my-model.toml --picture look.png

    With labels of 4 images or more channels, normalisation and resize are measured: --labels labels/
    """
    from segment.cli.notes import shown_notes
    from segment.drafts.drafting import draft_card
    from segment.models.sessions.apart_process import call_apart
    from segment.store.names import argument, shown, suffix_of
    from segment.store.urls import to_url

    store, label_remap = open_store(storage_option), values_of(flags, "segment models draft").get("label_remap", {})
    if picture and images is None:
        raise UsageError("--picture shows your images with their masks: name an image or a folder after the model")
    if labels and images is None:
        raise UsageError("--labels are of your images: name their folder after the model")
    if label_remap and labels is None:
        raise UsageError("--label-remap says what label values mean: name the labels, too (--labels)")
    if picture and suffix_of(picture) != ".png":
        raise UsageError(f"--picture is a PNG, and {shown(picture)} does not say so: give a name that ends in .png")
    targets = [to_url(target) for target in (to, picture) if target]
    if len({to_url(model), *targets}) <= len(targets):
        raise UsageError("--to and --picture are files of their own, and not the model: give other names")
    for target in targets:
        if store.is_folder(target):
            raise UsageError(f"{shown(target)} is a folder: --to and --picture are files, so add a name")
        if not overwrite and store.exists(target):
            raise UsageError(f"{shown(target)} exists already: another name, or --overwrite")
    wanted = partial(
        draft_card,
        labels=labels,
        label_remap=label_remap,
        size=_size(size),
        classes=classes,
        name=name or "",
        beside=to,
        store=store,
    )
    with shown_notes() as note:
        found = call_apart(wanted, model, images, note=note)
    for remark in found.remarks:
        say(remark, err=True)
    if to is None:
        put(found.text, end="")
    else:
        _write_card(store, to_url(to), found.text)
        for line in _next_steps(argument(images or "IMAGES"), argument(to), labels, found.label_remap):
            say(line, err=True)
    if picture:  # last: the card, which may have taken minutes, is there whatever becomes of it
        store.write(to_url(picture), found.picture)
        say(f"picture: {shown(to_url(picture))}", err=True)


def _write_card(store: Store, url: str, text: str) -> None:
    from segment.store.names import shown

    try:
        store.write(url, text.encode())
    except StoreError:
        put(text, end="")  # it took minutes, perhaps
        raise
    streams.work_is_done()
    say(f"card: {shown(url)}", err=True)


def _next_steps(images: str, card: str, labels: str | None, remap: Mapping[str, str | int]) -> Iterator[str]:
    """Yield what to do with a card; images and card are arguments of a shell."""
    from segment.store.names import argument

    if not labels:
        yield f"wrong guesses are found by `segment check {images} --labels LABELS --model {card}`"
    remaps = [f" --label-remap {argument(f'{value}={meant}')}" for value, meant in remap.items()]
    is_long = len(remaps) > _MOST_FLAGS
    scored = f" --labels {argument(labels)}{'' if is_long else ''.join(remaps)}" if labels else ""
    how = " and your label_remap in a job file" * is_long
    yield f"run it by `segment run {images} OUTPUT --model {card}{scored}`{how}"


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text.strip())
    if found is None or not all(1 <= int(side) <= 16384 for side in found.groups()):
        raise UsageError(f"--size {text}: give height and width in pixels, such as 512x1024")
    return int(found[1]), int(found[2])
