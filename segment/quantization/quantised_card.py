"""The card of a quantised model: that of its source, with other weights, and with how these were made."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence

from segment.models.card import ModelCard, WeightsFile
from segment.models.quantisation import Method, Price, Quantisation
from segment.models.toml_text import card_to_toml
from segment.models.weights import Weights
from segment.quantization.calibration import Calibration
from segment.store.names import basename

_LONGEST = 95  # of a card's name, without the ending
_TOOLS: Mapping[Method, tuple[str, ...]] = {"onnxruntime": ("onnxruntime", "onnx"), "nncf": ("nncf", "openvino")}


def quantised_name(card: ModelCard) -> str:
    """Return the name of the quantised model of a card."""
    return f"{card.name[:_LONGEST]}-int8"


def quantised_card(
    card: ModelCard,
    source: Weights,
    files: Mapping[str, bytes],
    calibration: Calibration,
    method: Method,
    settings: str,
    seed: int,
) -> ModelCard:
    """Return the card of quantised weights, without their price.

    Args:
        card: that of the source. Its published score is that of other weights, so it is left out.
        source: the weights that were quantised.
        files: the new files by name.
        calibration: the images.
        method, settings, seed: see `Quantisation`.
    """
    made = Quantisation(
        source=basename(source.origin),
        source_sha384=tuple(source.file_digests),
        method=method,
        settings=settings,
        images=calibration.images,
        images_sha384=calibration.sha384,
        seed=seed,
        versions={tool: importlib.metadata.version(tool) for tool in ("segment-job", *_TOOLS[method])},
    )
    return card.model_copy(
        update={
            "name": quantised_name(card),
            "description": f"{card.description}, quantised to INT8".removeprefix(", "),
            "metric": card.metric.model_copy(update={"published": None}),
            "weights": tuple(_file(name, data) for name, data in files.items()),
            "quantisation": made,
        }
    )


def _file(name: str, data: bytes) -> WeightsFile:
    return WeightsFile(url=name, size=len(data), sha384=hashlib.sha384(data).hexdigest())


def with_price(card: ModelCard, price: Sequence[Price]) -> ModelCard:
    """Return the card with what the model costs."""
    assert card.quantisation is not None
    return card.model_copy(update={"quantisation": card.quantisation.model_copy(update={"price": tuple(price)})})


def text_of(card: ModelCard) -> str:
    """Return the card as TOML."""
    return card_to_toml(card, "Written by `segment quantize`; the table `quantisation` says how the weights were made.")
