"""Large masks as TIFFs: what other tools read, the same bytes however they are written, in bounded memory."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from segment.images.raster import Georeference
from segment.images.tiff_tags import TiffPage
from segment.output import mask_tiff
from segment.output.mask_tiff import MaskFile, MaskWriter

RANDOM = np.random.default_rng(0)
MASK: NDArray[np.uint8] = np.kron(RANDOM.integers(0, 21, (60, 70)), np.ones((17, 19))).astype(np.uint8)
MASK[5, 5] = 255
PALETTE = RANDOM.integers(0, 255, (21, 3)).astype(np.uint8)
PLACE = Georeference(
    {
        33550: (0.25, 0.5, 0.0),
        33922: (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0),
        34735: (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611),
        34736: (6378137.0, 298.257223563),
        34737: b"UTM zone 11N|\0",
    }
)


def write(
    path: Path, rows: int, place: Georeference | None = PLACE, palette: NDArray[np.uint8] | None = PALETTE
) -> Path:
    with MaskWriter(path, *MASK.shape, place, palette) as writer:
        for top in range(0, len(MASK), rows):
            writer.write(MASK[top : top + rows])
    return path


def test_other_tools_read_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.tif", 100)
    assert np.array_equal(tifffile.imread(path), MASK)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), MASK)
        colours = np.asarray(picture.convert("RGB"))
    assert np.array_equal(colours[MASK < 21], PALETTE[MASK[MASK < 21]])
    assert tuple(colours[5, 5]) == (255, 255, 255)
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    assert np.array_equal(shown, colours)
    grey = write(tmp_path / "grey.tif", 100, None, None)
    assert np.array_equal(cv2.imread(str(grey), cv2.IMREAD_UNCHANGED), MASK)
    with Image.open(grey) as picture:
        assert (picture.mode, np.array_equal(np.asarray(picture), MASK)) == ("L", True)


def test_the_georeference_is_kept_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "mask.tif", 100)
    with tifffile.TiffFile(path) as file:
        tags = {tag.code: tag.value for tag in file.pages[0].tags}
    for code, value in PLACE.tags.items():
        assert tags[code] == (value.rstrip(b"\0").decode() if isinstance(value, bytes) else value)
    with path.open("rb") as opened:
        assert TiffPage(opened).georeference == PLACE
    with write(path, 100, None).open("rb") as opened:
        assert TiffPage(opened).georeference is None


def test_bytes_do_not_depend_on_the_strips(tmp_path: Path) -> None:
    first = write(tmp_path / "1.tif", 1).read_bytes()
    assert all(write(tmp_path / "n.tif", rows).read_bytes() == first for rows in (7, 511, 512, 513, 5000))


def test_a_mask_is_read_back_in_strips(tmp_path: Path) -> None:
    for palette in (PALETTE, None):
        with write(tmp_path / "mask.tif", 300, palette=palette).open("rb") as opened:
            mask = MaskFile(opened)
            assert mask.size == MASK.shape
            assert mask.georeference == PLACE
            assert np.array_equal(np.concatenate(list(mask.strips())), MASK)


def test_a_mask_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    with pytest.raises(ValueError, match="lacks 10 of its 100 rows"), MaskWriter(path, 100, 50) as writer:
        writer.write(np.zeros((90, 50), np.uint8))
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), MaskWriter(path, 100, 50) as writer:
        raise ZeroDivisionError
    assert not path.exists()
    with MaskWriter(path, 100, 50) as writer:
        with pytest.raises(ValueError, match="not int64"):
            writer.write(np.zeros((90, 50), np.int64))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="101 rows for a mask that lacks 100"):
            writer.write(np.zeros((101, 50), np.uint8))
        writer.write(np.zeros((100, 50), np.uint8))
    assert path.exists()


def test_a_file_that_may_exceed_4_gb_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not mask_tiff.needs_big(20_000 * 20_000)
    assert mask_tiff.needs_big(70_000 * 70_000)
    monkeypatch.setattr(mask_tiff, "needs_big", lambda pixels: True)
    path = write(tmp_path / "mask.tif", 100)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), MASK)
    with path.open("rb") as opened:
        assert MaskFile(opened).georeference == PLACE


def test_memory_holds_a_row_of_tiles(tmp_path: Path) -> None:
    rows = np.zeros((64, 10_000), np.uint8)
    tracemalloc.start()
    with MaskWriter(tmp_path / "mask.tif", 6400, 10_000) as writer:
        for _ in range(100):
            writer.write(rows)
    with (tmp_path / "mask.tif").open("rb") as opened:
        assert sum(len(strip) for strip in MaskFile(opened).strips()) == 6400
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6400 * 10_000 / 2
