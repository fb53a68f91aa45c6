"""Exports of a place, and what they left."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segment.output.ledger import Ledger
from segment.report.exports.exporting import Format, export
from segment.report.exports.writers import Exported
from segment.store.client import Store
from tests.runs import Place, png, scene


def exported(place: Place, folder: Path, kind: Format) -> Exported:
    return export(Ledger(Store(), f"file://{place.output}"), f"file://{folder}", kind, Store())


def files(folder: Path) -> list[Path]:
    """All but the hidden ones, by which an export is known."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def street(folder: Path) -> tuple[Place, dict[str, NDArray[np.uint8]]]:
    """A run over five images and a broken one, and the mask of each image by its id."""
    place = Place(folder)
    names = [f"day 1/{number}.png" for number in range(3)] + ["night/0.png", "é.png"]
    for seed, name in enumerate(names):
        place.write(name, png(scene(seed)[0]))
    place.write("broken.png", b"no image")
    place.run()
    return place, {name: scene(seed)[1] for seed, name in enumerate(names)}
