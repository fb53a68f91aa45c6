"""Masks as cloud-optimised GeoTIFFs: the layout, the overviews, and where they lie on the Earth."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from segment.images.codec import decode_mask
from segment.images.raster import Georeference
from segment.images.tiff_tags import TiffPage
from segment.output.ledger import Ledger
from segment.pipeline import large_images
from segment.report.exports import cog
from segment.report.exports.cog import write_cog
from segment.report.exports.exporting import export
from segment.runs.driver import run
from segment.store.client import Store
from tests.cogs import cog_faults
from tests.exports import exported, files
from tests.runs import CARD, CARD_TOML, Notes, Place, png, scene

RANDOM = np.random.default_rng(0)
MASK: NDArray[np.uint8] = np.kron(RANDOM.integers(0, 5, (160, 70)), np.ones((13, 17))).astype(np.uint8)[:2077, :1185]
PALETTE = RANDOM.integers(0, 255, (5, 3)).astype(np.uint8)
KEYS = (1, 1, 0, 1, 3072, 0, 1, 32611)
TAGS = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (34735, 3, 8, KEYS, True)]
PLACE = Georeference({33550: (0.5, 0.5, 0.0), 34735: KEYS})


def tiff(pixels: NDArray[np.uint8], *tags: tuple[object, ...]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", metadata=None, extratags=tags)
    return file.getvalue()


@pytest.mark.parametrize("big", [False, True])
def test_a_mask_with_its_overviews(tmp_path: Path, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if big:
        monkeypatch.setattr(cog, "_MOST_CLASSIC", 1)
    path = tmp_path / "mask.tif"
    for rows in (100, 3000):  # however it is cut
        write_cog(path, MASK.shape, (MASK[top : top + rows] for top in range(0, len(MASK), rows)), PALETTE, PLACE)
        assert cog_faults(path) == []
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff == big
            pages = [page.asarray() for page in file.pages]
            assert [page.photometric.name for page in file.pages] == ["PALETTE"] * 4
            assert 34735 not in file.pages[1].tags
        for number, found in enumerate(pages):
            assert np.array_equal(found, MASK[:: 1 << number, :: 1 << number])
        with path.open("rb") as opened:
            assert TiffPage(opened).georeference == PLACE
    assert [found.name for found in tmp_path.iterdir()] == ["mask.tif"]


def test_the_checker_sees_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(MASK, tile=(512, 512), photometric="minisblack", metadata=None)
        writer.write(MASK[::2, ::2], tile=(512, 512), photometric="minisblack", metadata=None, subfiletype=1)
    faults = cog_faults(path)
    assert "a directory behind tiles" in faults
    assert "the smallest overview has several tiles" in faults


def test_masks_are_exported_where_their_images_lie(tmp_path: Path) -> None:
    place = Place(tmp_path)
    names = ["placed.tif", "turned.tif", "nowhere.tif", "gone.tif", "photo.png"]
    tags = {"placed.tif": TAGS, "turned.tif": [*TAGS, (274, 3, 1, 3, True)], "gone.tif": TAGS}
    for seed, name in enumerate(names):
        pixels = scene(seed)[0]
        place.write(name, png(pixels) if name.endswith(".png") else tiff(pixels, *tags.get(name, [])))
    place.run()
    (place.images / "gone.tif").unlink()
    done = exported(place, tmp_path / "cogs", "cog")
    assert (done.written, done.skipped) == (5, 0)
    assert done.notes == [
        "not georeferenced: the masks of 2 images without a georeference",
        "not georeferenced: the masks of 1 image turned by an orientation, to which the georeference does not apply",
        "not georeferenced: the masks of 1 image that cannot be read any more, or changed since",
    ]
    found = {path.name: path for path in files(tmp_path / "cogs")}
    assert sorted(found) == ["gone.tif", "nowhere.tif", "photo.tif", "placed.tif", "turned.tif"]
    for name, path in found.items():
        assert cog_faults(path) == []
        with path.open("rb") as opened:
            assert TiffPage(opened).georeference == (PLACE if name == "placed.tif" else None)
    assert np.array_equal(tifffile.imread(found["photo.tif"]), scene(4)[1])
    again = exported(place, tmp_path / "cogs", "cog")
    assert (again.written, again.skipped, again.notes) == (0, 5, [])


def test_an_output_in_a_store_leads_to_images_of_this_machine_where_that_is_allowed(tmp_path: Path) -> None:
    place, output = Place(tmp_path), f"memory://{tmp_path.name}"
    place.write("placed.tif", tiff(scene(0)[0], *TAGS))
    run(place.job(output=output), Notes())
    outside = "1 image outside of what may be read: delete these files, and export again with --allow-input PREFIX"
    for allowed, notes in (([], [f"not georeferenced: the masks of {outside}"]), ([str(place.images)], [])):
        store = Store()
        store.allow_inputs(allowed)
        done = export(Ledger(store, output), f"file://{tmp_path}/cogs-{len(allowed)}", "cog", store)
        assert done.notes == notes


def test_a_mask_in_a_file_of_its_own_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is exported in every format, also when its image is gone."""
    monkeypatch.setattr(large_images, "MOST_PNG_PIXELS", 1000)
    place = Place(tmp_path)
    place.card_path.write_text(CARD_TOML.replace('channels = "RGB"', 'channels = "RGB"\ntiles = { overlap = 6 }'))
    colours = np.array(CARD.classes.palette, np.uint8)
    mask = np.random.default_rng(0).integers(0, len(colours), (20, 30)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    place.write("large.tif", tiff(colours[mask], *TAGS))
    (row,) = place.run().rows.values()
    assert row["mask"]["bytes"] is None
    with (place.output / row["mask"]["path"]).open("rb") as opened:
        assert TiffPage(opened).georeference == PLACE
    (place.images / "large.tif").unlink()
    assert exported(place, tmp_path / "cogs", "cog").notes == []
    (found,) = files(tmp_path / "cogs")
    assert cog_faults(found) == []
    assert np.array_equal(tifffile.imread(found), mask)
    with found.open("rb") as opened:
        assert TiffPage(opened).georeference == PLACE
    exported(place, tmp_path / "pngs", "png")
    (found,) = files(tmp_path / "pngs")
    assert np.array_equal(decode_mask(found.read_bytes()), mask)
