"""The output folder: it holds what this command writes and nothing else, and the card comes last."""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence

from segment.errors import UsageError
from segment.models.card import ModelCard, WeightsFile, load_card
from segment.models.quantisation import Method, Price, Quantisation
from segment.models.toml_text import card_to_toml
from segment.models.weights import Weights
from segment.quantization.calibration import Calibration
from segment.runs.preflight import probe_output
from segment.store.client import Store
from segment.store.names import basename, listed, shown
from segment.store.urls import join_url, relative_url, to_url

_LONGEST = 95  # of a card's name, without the ending
_TOOLS: Mapping[Method, tuple[str, ...]] = {"onnxruntime": ("onnxruntime", "onnx"), "nncf": ("nncf", "openvino")}

CARD, PAGE, REFUSED = "card.toml", "index.html", "refused.html"


class OutputFolder:
    """A folder or prefix.

    Args:
        output: path or URL.

    Raises:
        UsageError: it holds something else, such as a card of another model.
        StoreError: it cannot be written.
    """

    def __init__(self, output: str, name: str, source: Weights, store: Store) -> None:
        self.url = to_url(output)
        self._store = store
        self._weights = tuple(f"{name}{suffix}" for suffix in (".onnx", ".xml", ".bin"))
        if self.url.startswith(("http://", "https://")) or store.exists(self.url):
            raise UsageError(f"the output {shown(self.url)} is no folder that can be written: give another one")
        entries = store.list(self.url) if store.is_folder(self.url) else []
        held = [relative_url(entry.url, self.url) for entry in entries]
        others = [file for file in held if file not in (CARD, PAGE, REFUSED, *self._weights)]
        if others:
            raise UsageError(
                f"the output {shown(self.url)} holds other files, such as {listed(others, 3)}: give an empty folder, "
                "or that of an earlier quantisation of this model"
            )
        if CARD in held:
            made = load_card(self.file(CARD), store).quantisation
            if made is None or list(made.source_sha384) != source.file_digests:
                raise UsageError(
                    f"{shown(self.file(CARD))} is the card of other weights than {source.origin}: give another output"
                )
        self._held = held
        probe_output(store, self.url, deletes=False)

    def file(self, name: str) -> str:
        """Return the URL of a file of the folder."""
        return join_url(self.url, name)

    def publish(self, weights: Mapping[str, bytes], card: str, page: str) -> None:
        """Write the files of a model; until its card is there, the folder holds no model of this run."""
        for stale in sorted(self._held, key=lambda name: name != CARD):
            if stale not in (*weights, PAGE):  # the card first
                self._store.delete(self.file(stale))
        for name, data in weights.items():
            self._store.write(self.file(name), data)
        self._store.write(self.file(PAGE), page.encode())
        self._store.write(self.file(CARD), card.encode())

    def refuse(self, page: str) -> None:
        """Write the page alone, under a name of its own: a model of an earlier run stays."""
        self._store.write(self.file(REFUSED), page.encode())


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
