"""Labelled street scenes and the run of a job over them: what the building blocks are compared with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import segment
from segment.demo.dataset import read_scenes
from tests.datasets import mask_of, read_rows

MODEL = "demo-streets"
CLASSES = 12


@dataclass(frozen=True)
class Scenes:
    """Photos and labels by id, and what a job makes of them.

    Attributes:
        folder: holds `photos/0.jpg`, ..., `labels/0.png`, ... and the run's output `out/`.
        photos, labels: encoded bytes by id.
        masks: `uint8[H, W]` by id, as the job wrote them, read by Pillow.
        counts: `int64[C + 1, C]`, as the job reports them.
    """

    folder: Path
    photos: dict[str, bytes]
    labels: dict[str, bytes]
    masks: dict[str, NDArray[np.uint8]]
    counts: NDArray[np.int64]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """Six scenes, segmented by a job on the local engine."""
    folder = tmp_path_factory.mktemp("scenes")
    photos, labels = {}, {}
    for kind in ("photos", "labels"):
        (folder / kind).mkdir()
    for number, scene in enumerate(read_scenes(6)):
        photos[f"{number}.jpg"], labels[f"{number}.jpg"] = scene.image, scene.label
        (folder / "photos" / f"{number}.jpg").write_bytes(scene.image)
        (folder / "labels" / f"{number}.png").write_bytes(scene.label)
    job = segment.Job(
        input=folder / "photos", labels=folder / "labels", output=folder / "out", model=MODEL, engine="local",
        workers=1, min_agreement=0,
    )  # fmt: skip
    report = segment.run(job)
    masks = {row["id"]: mask_of(row) for row in read_rows(folder / "out")}
    assert masks.keys() == photos.keys()
    return Scenes(folder, photos, labels, masks, report.total.confusion.counts)
