"""Whole runs in a tenth of a second: a 32 x 24 card, a real graph that knows its answers, painted images.

place = Place(tmp_path)
place.add("a.png", seed=1)          # image and label
outcome = place.run()               # segment.run in this process (see tests/here.py); every error allowed
place.expect(outcome.rows["a.png"], seed=1)
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segment.images.codec import decode_mask
from segment.job import Job
from segment.metrics import Confusion
from segment.models.card import ModelCard, parse_card
from segment.progress import Progress
from segment.report.aggregate import RunReport
from segment.runs.driver import run
from tests.graphs import colour_classifier, painted

CARD_TOML = """
name = "blocks"

[input]
layout = "NCHW"
height = 24
width = 32
channels = "RGB"

[output]
kind = "logits"
layout = "NCHW"

[classes]
names = ["Sky", "Road", "Car", "Unlabeled"]
palette = [[10, 200, 250], [128, 64, 128], [240, 20, 30], [0, 0, 0]]
ignore = [3, 255]

[metric]
convention = "omz"
resolution = "source"
published = 0.5
"""
CARD = parse_card(CARD_TOML)
INDEX_CARD = CARD.model_copy(update={"output": CARD.output.model_copy(update={"kind": "index", "layout": "NHW"})})
CLASSES = len(CARD.classes)


def scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture `uint8[24, 32, 3]`, RGB, and its mask, which is what the model makes of it."""
    return painted(CARD, seed, block=8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB, RGBA or single-channel pixels."""
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else ()
    return cv2.imencode(".png", pixels[:, :, order] if order else pixels)[1].tobytes()


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Every row of every masks file, in order of shards and images."""
    rows = [row for file in sorted(output.glob("masks/*/*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]
    return sorted(rows, key=lambda row: (row["shard"], row["index"]))


class Notes(Progress):
    """Keeps what the user would be told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    @property
    def warnings(self) -> list[str]:
        return [line.removeprefix("warning: ") for line in self.lines if line.startswith("warning: ")]


@dataclass
class Outcome:
    """What a run left.

    Attributes:
        report: as returned.
        all_rows: every row, in order.
        rows: the same by id; the first of equal ids.
        warnings: as told.
    """

    report: RunReport
    all_rows: list[dict[str, Any]]
    warnings: list[str]
    rows: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {row["id"]: row for row in reversed(self.all_rows)}


class Place:
    """A folder with a card, its weights, images and labels."""

    def __init__(self, folder: Path, graph: bytes | None = None, card: ModelCard = CARD) -> None:
        self.folder = folder
        self.images, self.labels, self.output = folder / "images", folder / "labels", folder / "out"
        self.card_path, self.weights_path = folder / "card.toml", folder / "model.onnx"
        toml = CARD_TOML
        if card.output.kind == "index":
            toml = toml.replace('kind = "logits"\nlayout = "NCHW"', 'kind = "index"\nlayout = "NHW"')
        assert parse_card(toml) == card
        self.card_path.write_text(toml)
        self.weights_path.write_bytes(graph or colour_classifier(card))
        self.images.mkdir()

    def write(self, name: str, data: bytes, label: bytes | None = None) -> None:
        """Write an image file, and its label where there is one."""
        for folder, some in ((self.images, data), (self.labels, label)):
            path = (folder / name) if folder is self.images else (folder / name).with_suffix(".png")
            if some is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(some)

    def add(self, name: str, seed: int, label: bool = True) -> None:
        """Write a sound image and its label."""
        pixels, mask = scene(seed)
        self.write(name, png(pixels), png(mask) if label else None)

    def job(self, **changes: Any) -> Job:
        """The job that segments this place; every error is allowed."""
        values: dict[str, Any] = {
            "input": str(self.images),
            "output": str(self.output),
            "model": str(self.card_path),
            "weights": str(self.weights_path),
            "runtime": "onnxruntime",
            "engine": "local",
            "workers": "1",
            "part_size": 2,
            "max_error_rate": 1.0,
        }
        if self.labels.is_dir() and "input" not in changes:
            values["labels"] = str(self.labels)
        return Job(**{**values, **changes})

    def run(self, *, verify: bool = False, **changes: Any) -> Outcome:
        """Run it in this process."""
        notes, job = Notes(), self.job(**changes)
        report = run(job, notes, verify=verify)
        return Outcome(report, read_rows(Path(job.output)), notes.warnings)

    def flags(self, **changes: Any) -> list[str]:
        """The same job as arguments of `segment run`."""
        values = self.job(**changes).model_dump(exclude_defaults=True)
        positional = [str(values.pop("input")), str(values.pop("output"))]
        pairs = [
            (name, one) for name, value in values.items() for one in (value if isinstance(value, tuple) else [value])
        ]
        named = [f"--{name.replace('_', '-')}={value}" for name, value in pairs]
        return ["run", *positional, *named]


def expect(row: dict[str, Any], seed: int, labelled: bool = True) -> None:
    """Assert that a row is right to the last pixel and count."""
    _, mask = scene(seed)
    assert (row["status"], row["error"]) == ("ok", None)
    assert (row["width"], row["height"]) == (32, 24)
    assert np.array_equal(decode_mask(row["mask"]["bytes"]), mask)
    cells, counts = Confusion.of(mask, mask if labelled else None, CLASSES).to_cells()
    assert row["confusion"] == {"cell": cells.tolist(), "count": counts.tolist()}
    assert row["miou"] == (1.0 if labelled else None)
    assert row["pixel_accuracy"] == (1.0 if labelled else None)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB pixels as a JPEG."""
    return cv2.imencode(".jpg", pixels[:, :, ::-1])[1].tobytes()


# All that a row may hold; what `list_with_weather` writes.
FULL: dict[str, Any] = {
    "keep": ("weather",),
    "confidence": "maximum",
    "confidence_maps": True,
    "probabilities": ("Road",),
    "boundary": 0.02,
}


def list_with_weather(folder: Path, images: int, *, broken: bool = False) -> tuple[Place, str]:
    """A place and its list of images in sun and rain, whose labels differ a little from their masks.

    Args:
        broken: whether the last image cannot be decoded.
    """
    place = Place(folder)
    lines = ["image,label,weather"]
    for number in range(images):
        pixels, mask = scene(number)
        mask[: 2 + number, :9] = 1
        place.write(f"{number}.png", b"no image" if broken and number == images - 1 else png(pixels))
        place.write(f"{number}-label.png", png(mask))
        lines.append(f"{number}.png,{number}-label.png,{'rain' if number % 2 else 'sun'}")
    (place.images / "list.csv").write_text("\n".join(lines))
    return place, str(place.images / "list.csv")
