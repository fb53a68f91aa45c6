"""Labels by window: the classes of the whole label, or its error."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images import tiff_labels
from segment.images.labels import LabelDecoder
from segment.images.raster import ArrayRaster
from segment.images.tiff_labels import TiffLabel, open_label
from segment.models.classes import VOID, Classes

SIZE = (150, 230)
RANDOM = np.random.default_rng(1)
VALUES = np.kron(RANDOM.integers(0, 4, (15, 23)), np.ones((10, 10))).astype(np.uint8)
COLOURS = ((0, 0, 0), (128, 64, 0), (10, 200, 30), (255, 255, 0))
CLASSES = Classes(names=("sky", "road", "tree", "car"), palette=COLOURS, ignore=(255,))
PALETTE = np.array(COLOURS, np.uint8)
TILES: dict[str, Any] = {"tile": (64, 32), "compression": "zlib"}
STRIPS: dict[str, Any] = {"rowsperstrip": 16, "compression": "lzw"}


def colour_map(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return a TIFF's colour map: black behind the colours."""
    held = np.zeros((256, 3), np.uint16)
    held[: len(colours)] = colours.astype(np.uint16) * 257
    return held.T.copy()


GREYS = np.repeat(np.arange(4, dtype=np.uint8)[::-1, None] + 1, 3, axis=1)  # foreign, and no class by its grey
KINDS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "values": (VALUES, {"photometric": "minisblack"}),
    "values of 16 bits": (VALUES.astype(np.uint16), {"photometric": "minisblack"}),
    "values with void": (np.where(VALUES == 3, 255, VALUES).astype(np.uint8), {"photometric": "minisblack"}),
    "a palette": (VALUES, {"photometric": "palette", "colormap": colour_map(PALETTE)}),
    "a sorted palette": (VALUES[:, ::-1], {"photometric": "palette", "colormap": colour_map(PALETTE[::-1])}),
    "a palette of greys": (VALUES, {"photometric": "palette", "colormap": colour_map(GREYS)}),
    "colours": (PALETTE[VALUES], {"photometric": "rgb"}),
    "bits": (VALUES > 1, {"photometric": "minisblack"}),
}


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def windowed(data: bytes, decoder: LabelDecoder, orientation: int = 1) -> NDArray[np.uint8]:
    """Return the whole label, read in strips."""
    size = SIZE if orientation < 5 else SIZE[::-1]
    label = open_label(io.BytesIO(data), size, orientation, decoder)
    assert isinstance(label, TiffLabel)
    strips = [label.read(top, 0, min(37, size[0] - top), size[1]) for top in range(0, size[0], 37)]
    return np.concatenate(strips)


def outcome(read: Callable[[], NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], str]:
    """Return what is read, or the code of its error."""
    try:
        return read(), ""
    except SampleError as error:
        return np.empty(0, np.uint8), error.code


@pytest.fixture(autouse=True)
def _all_tiffs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_labels, "LARGE", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ["auto", "index", "colour"])
def test_windows_have_the_classes_of_the_whole(kind: str, encoding: Any) -> None:
    pixels, options = KINDS[kind]
    decoder = LabelDecoder(CLASSES, encoding)
    for layout in (TILES, STRIPS):
        data = written(pixels, **options, **layout)
        expected, fault = outcome(lambda data=data: decoder.read(data, *SIZE).classes)
        found, found_fault = outcome(lambda data=data: windowed(data, decoder))
        assert found_fault == fault
        assert np.array_equal(found, expected)


def test_what_a_palette_means_is_decided_by_the_whole() -> None:
    """The upper half alone would be read as indices, and the lower one as grey levels."""
    values = np.zeros(SIZE, np.uint8)
    values[100:] = 2
    greys = np.repeat(np.array([0, 9, 1], np.uint8)[:, None], 3, axis=1)
    data = written(values, photometric="palette", colormap=colour_map(greys), **TILES)
    decoder = LabelDecoder(CLASSES)
    assert np.array_equal(windowed(data, decoder), decoder.read(data, *SIZE).classes)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_label_is_turned_as_its_image(orientation: int) -> None:
    data = written(VALUES, photometric="minisblack", **STRIPS, extratags=[(274, 3, 1, orientation, True)])
    size = SIZE if orientation < 5 else SIZE[::-1]
    expected = LabelDecoder(CLASSES).read(data, *size, orientation)
    assert np.array_equal(windowed(data, LabelDecoder(CLASSES), orientation), expected.classes)
    if orientation < 5:
        found = open_label(io.BytesIO(data), size, 1, LabelDecoder(CLASSES))
        assert found.remarks == ("label_turned",) == LabelDecoder(CLASSES).read(data, *size, 1).remarks


def test_what_cannot_be_used_is_told() -> None:
    def code(data: bytes, decoder: LabelDecoder | None = None) -> str:
        with pytest.raises(SampleError) as caught:
            windowed(data, decoder or LabelDecoder(CLASSES))
        return caught.value.code

    grey: dict[str, Any] = {"photometric": "minisblack"}
    data = written(VALUES, **grey, **TILES)
    assert code(written(VALUES[1:], **grey, **TILES)) == "label_size"
    assert code(written(VALUES + 7, **grey, **TILES)) == "label_value"
    assert code(written(VALUES, **grey, tile=(64, 64), compression="jpeg")) == "label_lossy"
    assert code(written(PALETTE[VALUES] + 1, photometric="rgb", **TILES)) == "label_colour"
    assert (
        code(written(np.dstack([PALETTE[VALUES], VALUES]), photometric="rgb", extrasamples=["unassalpha"]))
        == "label_pixels"
    )
    assert code(data[: len(data) // 2]) == "label_undecodable"
    assert code(written(PALETTE[VALUES], photometric="rgb", tile=(64, 64), compression="webp")) == "label_pixels"


def test_other_labels_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_labels, "LARGE", 1 << 24)
    values = np.where(VALUES == 3, 255, VALUES).astype(np.uint8)
    label = open_label(io.BytesIO(written(values, photometric="minisblack")), SIZE, 1, LabelDecoder(CLASSES))
    assert isinstance(label, ArrayRaster)
    assert np.array_equal(label.read(10, 20, 30, 40) == VOID, values[10:40, 20:60] == 255)
