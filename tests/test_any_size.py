"""A run of a model that takes images of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segment.images.codec import decode_mask
from segment.models.card import parse_card
from tests.graphs import colour_classifier, painted
from tests.runs import CARD_TOML, Place, png

TOML = CARD_TOML.replace("height = 24", 'height = "image"\nmultiple_of = 8').replace("width = 32", 'width = "image"')
SIZES = [(24, 32), (30, 41), (32, 24), (30, 41), (7, 100), (24, 32)]


@pytest.mark.parametrize("resolution", ["source", "model"])
def test_masks_and_counts_have_the_size_of_each_image(resolution: str, tmp_path: Path) -> None:
    toml = TOML.replace('"source"', f'"{resolution}"')
    card = parse_card(toml)
    place = Place(tmp_path, colour_classifier(card, dynamic=True))
    place.card_path.write_text(toml)
    scenes = [painted(card.at(size), seed, block=8) for seed, size in enumerate(SIZES)]
    for number, (image, mask) in enumerate(scenes):
        place.write(f"{number}.png", png(image), png(mask))
    place.write("long.png", png(np.zeros((1, 16385, 3), np.uint8)))
    found = place.run(mask_size=resolution, batch_size=4, part_size=7)
    for number, (_, mask) in enumerate(scenes):
        row = found.rows[f"{number}.png"]
        assert (row["error"], row["height"], row["width"]) == (None, *mask.shape)
        assert np.array_equal(decode_mask(row["mask"]["bytes"]), mask)
        assert row["pixel_accuracy"] == 1
    assert found.rows["long.png"]["error"] == (
        "larger_than_input: the image is larger than the model's input, and its card shrinks no image (input.resize): "
        "1x16385 pixels (height, width), at most 16384x16384"
    )
    counts = found.report.total.confusion.counts
    assert counts.sum() == counts.trace() == sum(mask.size for _, mask in scenes)
    assert "image × image, RGB, none" in (place.output / "report" / "index.html").read_text(encoding="utf-8")
