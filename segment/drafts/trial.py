"""The trial of a card: a session segments generated images, and the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segment.errors import SAMPLE_ERRORS, ModelError, UsageError
from segment.images import codec
from segment.images.drawing import grid, legend, overlay
from segment.images.resize import resize_image, restore_mask
from segment.models.card import ModelCard
from segment.models.sessions import Session, capabilities, open_session, runtime_for
from segment.models.sessions.predict import GraphSession
from segment.models.sessions.sanity_check import random_images
from segment.models.weights import Weights
from segment.pipeline.resources import available_cpus
from segment.store.client import Store
from segment.store.names import basename, is_image, shown
from segment.store.urls import to_url

MOST_IMAGES = 3
_COLOURS, _WHOLE = 3, 255  # channels of a picture; sum of probabilities in 8 bits
_MAX_PIXELS = 100_000_000
NamedImage = tuple[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Tried:
    """An image and its mask.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB.
        mask: `uint8[H, W]` of class indices.
    """

    name: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class Trial:
    """A card that runs.

    Attributes:
        runtime: on which it runs.
        images: what it makes of the images.
        remarks: what was noticed.
        classes: those that it sees in these and in generated images.
        is_picture: whether the scores of three classes, for a generated image, are whole numbers of 0 to 255.
    """

    runtime: str
    images: tuple[Tried, ...]
    remarks: tuple[str, ...]
    classes: frozenset[int] = frozenset()
    is_picture: bool = False


def read_images(reference: str, store: Store) -> list[NamedImage]:
    """Return name and pixels, `uint8[H, W, 3]` RGB, of an image, or of three that are spread over a folder.

    Raises:
        UsageError: there is no image.
        SampleError: one cannot be decoded.
    """
    url = to_url(reference)
    urls = [url] if store.exists(url) else _in_folder(url, store)
    if len(urls) > MOST_IMAGES:  # neighbours may be frames of one scene
        urls = [urls[len(urls) * number // MOST_IMAGES] for number in range(MOST_IMAGES)]
    if not urls:
        raise UsageError(f"{shown(url)}: no such image, and no folder with images")
    return [(basename(item), codec.decode(store.read(item), _MAX_PIXELS)) for item in urls]


def _in_folder(url: str, store: Store) -> list[str]:
    entries = store.list_folder(url) if store.is_folder(url) else []
    urls = [entry.url for entry in entries if is_image(entry.url)]
    return urls or [entry.url for entry in (store.list(url) if store.is_folder(url) else []) if is_image(entry.url)]


def try_card(card: ModelCard, weights: Weights, images: Sequence[NamedImage]) -> Trial:
    """Open a session and segment two generated images, and the given ones.

    Where openvino, which comes first on CPUs, does not serve an ONNX file, onnxruntime is tried.

    Raises:
        ModelError: no runtime serves the model with this card, or its output cannot be used.
    """
    try:
        return _tried(card, weights, images, "auto")
    except ModelError as error:
        if weights.format != "onnx":
            raise
        reason = error
    try:
        found = _tried(card, weights, images, "onnxruntime")
    except ModelError:
        raise reason from None
    return replace(found, remarks=(*found.remarks, f"use --runtime onnxruntime: {reason}"))


def _tried(card: ModelCard, weights: Weights, images: Sequence[NamedImage], name: str) -> Trial:
    runtime = runtime_for(card, weights, name, nodes=[capabilities()])
    session = open_session(card, weights, runtime, threads=available_cpus())
    generated = random_images(2, card.input.height, card.input.width, card.input.planes)
    masks = [_mask(session, picture, "a generated image") for picture in generated]
    tried = []
    for title, pixels in images:
        masks.append(_mask(session, resize_image(pixels, card.input), title))
        tried.append(Tried(title, pixels, restore_mask(masks[-1], card.input, (pixels.shape[0], pixels.shape[1]))))
    seen = frozenset(int(number) for mask in masks for number in np.unique(mask))
    is_picture = (
        len(card.classes) == _COLOURS and isinstance(session, GraphSession) and _is_picture(session.raw(generated[:1]))
    )
    on = f"{runtime.name}, {runtime.precision}"
    return Trial(on, tuple(tried), tuple(_remarks(tried, card)), seen, is_picture)


def _is_picture(numbers: NDArray[np.float32]) -> bool:
    """Whether numbers could be colours, and are neither just 0 and 1, as exact scores are, nor shares of 255."""
    sums = [numbers.sum(axis=axis) for axis, size in enumerate(numbers.shape) if size == _COLOURS]
    if any(np.abs(total - _WHOLE).max() <= _COLOURS for total in sums):  # each is rounded
        return False
    return bool((numbers == np.rint(numbers)).all() and numbers.min() >= 0 and 1 < numbers.max() <= 255)


def _mask(session: Session, image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    try:
        found = session.predict(image[np.newaxis])
    except (ModelError, ValueError):
        raise
    except Exception as error:  # each runtime has its own types
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(f"the model fails on {title}: {reason}") from error
    if found.faults:
        raise ModelError(f"{title}: {SAMPLE_ERRORS[found.faults[0]]}")
    return np.asarray(found.masks[0])


def _remarks(tried: Sequence[Tried], card: ModelCard) -> list[str]:
    names = card.classes.names
    remarks = [f"{item.name}: {_shares(item.mask, names)}" for item in tried]
    seen = {int(number) for item in tried for number in np.unique(item.mask)}
    if tried and len(seen) == 1:
        remarks.append(
            f"every pixel is '{names[seen.pop()]}': channels, maximum, mean or std may be wrong, or the images show "
            "nothing that the model knows"
        )
    return remarks


def _shares(mask: NDArray[np.uint8], names: Sequence[str]) -> str:
    counts = np.bincount(mask.ravel(), minlength=len(names))
    largest = [int(number) for number in np.argsort(-counts, kind="stable")[:4] if counts[number]]
    return ", ".join(f"{names[number]} {100 * counts[number] / mask.size:.0f} %" for number in largest)


def picture_of(trial: Trial, card: ModelCard) -> bytes:
    """Return a PNG: each image, and its mask over it; below them the classes seen, and their colours."""
    classes = card.classes
    clear = classes.background_classes
    masked = [overlay(item.pixels, item.mask, classes.palette_array, clear=clear) for item in trial.images]
    pairs = zip((item.pixels for item in trial.images), masked, strict=True)
    tiles = grid([tile for pair in pairs for tile in pair], 2)
    seen = sorted({int(index) for item in trial.images for index in np.unique(item.mask)})
    names = [classes.names[index] + " (clear)" * (index in clear) for index in seen]
    colours = [None if index in clear else classes.palette[index] for index in seen]
    return codec.encode_png(np.concatenate([tiles, legend(names, colours, tiles.shape[1])]))
