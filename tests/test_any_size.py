"""Runs of models that take images of any size, and of any number of bands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from segment.images.codec import decode_mask
from segment.models.card import parse_card
from tests.graphs import colour_classifier, painted
from tests.images.test_bands import tiff
from tests.runs import CARD_TOML, Place, png
from tests.serving import tiny

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


def test_a_run_over_multi_band_images(tmp_path: Path) -> None:
    """The graph compares bands 5 and 2; an image without a band 5 is an error row, and the report shows the others."""
    toml = CARD_TOML.replace('channels = "RGB"', "bands = [5, 2]\nband_range = [0, 510]")
    toml = toml[: toml.index("[classes]")] + (
        '[classes]\nnames = ["low", "high"]\npalette = [[0, 0, 0], [255, 0, 0]]\nignore = [255]\n'
    )
    kernel = numpy_helper.from_array(np.array([[-1, 1], [1, -1]], np.float32).reshape(2, 2, 1, 1), "kernel")
    ports: tuple[Any, Any] = (("N", 2, 24, 32), ("N", 2, 24, 32))
    graph = tiny([helper.make_node("Conv", ["x", "kernel"], ["y"])], [("x", ports[0])], [("y", ports[1])], [kernel])
    place = Place(tmp_path, graph)
    place.card_path.write_text(toml)
    noise = np.random.default_rng(0)
    images = noise.integers(0, 511, (2, 24, 32, 6), dtype=np.uint16)
    for number, image in enumerate(images):
        mask = (image[..., 4] / 2 > image[..., 1] / 2 + 1).astype(np.uint8)
        place.write(f"{number}.tif", tiff(image, planar=number == 1), png(mask))
    place.write("few.tif", tiff(images[0][..., :4]))
    found = place.run()
    for number, image in enumerate(images):
        row = found.rows[f"{number}.tif"]
        mask = decode_mask(row["mask"]["bytes"])
        five, two = (np.round(image[..., band].astype(float) / 2) for band in (4, 1))
        assert np.array_equal(mask, five > two)
        assert row["pixel_accuracy"] > 0.98
    assert found.rows["few.tif"]["error"] == (
        "bands: the image has fewer bands than the card reads (input.bands): 4 bands, and the card reads band 5"
    )
    page = (place.output / "report" / "index.html").read_text(encoding="utf-8")
    assert "32 × 24, bands 5, 2 (16 bits, 0 to 510), stretch" in page
    assert "The source is gone" not in page
