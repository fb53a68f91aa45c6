"""Images and labels as callers hold them: files of PIL images are read as a job reads them, none fails a batch."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.codec import decode_picture
from segment.images.conversion import is_missing, to_label, to_picture
from segment.images.labels import LabelDecoder
from segment.models.classes import Classes
from tests.images.test_labels import grey_png

PLENTY = 10**8
RNG = np.random.default_rng(7)
PHOTO = np.kron(RNG.integers(0, 256, (6, 8, 3), np.uint8), np.ones((5, 5, 1), np.uint8))  # 30 x 40
CLASSES = Classes(names=tuple("abcdefghijklmnopqrst"), palette=tuple((i, 0, 0) for i in range(20)))  # 17 is one
LABEL = RNG.integers(0, 16, (30, 40), np.uint8)


def saved(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


FILES = {
    "jpeg": saved(PHOTO, "JPEG", quality=70),
    "turned jpeg": saved(PHOTO, "JPEG", exif=turned(6)),
    "cmyk jpeg": saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "16-bit png": saved(RNG.integers(0, 1 << 16, (30, 40), np.uint16), "PNG"),
    "4-bit png": grey_png(LABEL, 4),
    "palette png": saved(Image.fromarray(PHOTO).quantize(16), "PNG"),
    "rgba png": saved(Image.fromarray(PHOTO).convert("RGBA"), "PNG"),
    "webp": saved(PHOTO, "WEBP"),
    "turned tiff": saved(PHOTO, "TIFF", exif=turned(8)),
    "bmp": saved(PHOTO, "BMP"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_pil_image_that_is_not_decoded_yet_is_read_as_its_file(name: str) -> None:
    data, image = FILES[name], opened(FILES[name])
    found, expected = to_picture(image, PLENTY), decode_picture(data, PLENTY)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.orientation, found.remarks) == (expected.orientation, expected.remarks)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(opened(data)))  # the caller can go on with it


@pytest.mark.parametrize("name", FILES)
def test_a_decoded_pil_image_has_nearly_the_pixels_of_its_file(name: str) -> None:
    image = opened(FILES[name])
    image.load()
    difference = to_picture(image, PLENTY).pixels.astype(int) - decode_picture(FILES[name], PLENTY).pixels
    lossless = name not in ("jpeg", "turned jpeg", "cmyk jpeg", "webp")
    assert np.abs(difference).max() <= (0 if lossless else 60)
    assert np.abs(difference).mean() <= (0 if lossless else 3)


def test_a_file_on_disk_is_read_while_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["jpeg"])
    with Image.open(tmp_path / "a.jpg") as image:
        found = to_picture(image, PLENTY).pixels
    np.testing.assert_array_equal(found, decode_picture(FILES["jpeg"], PLENTY).pixels)
    with Image.open(tmp_path / "a.jpg") as image:
        pass
    with pytest.raises(SampleError, match="undecodable"):
        to_picture(image, PLENTY)


@pytest.mark.parametrize("name", ["jpeg", "16-bit png", "rgba png", "bmp"])
def test_a_truncated_pil_image_is_an_error_of_its_own(name: str) -> None:
    data = FILES[name]
    cut = data[: len(data) * 2 // 3]
    image = opened(cut)
    with pytest.raises(SampleError) as caught:
        decode_picture(cut, PLENTY)
    with pytest.raises(SampleError) as of_pil:
        to_picture(image, PLENTY)
    assert str(of_pil.value) == str(caught.value)
    with pytest.raises(Exception):  # noqa: B017 - as Pillow likes
        image.load()
    with pytest.raises(SampleError, match="undecodable"):
        to_picture(image, PLENTY)


def test_a_pil_image_that_was_changed_is_taken_as_it_is() -> None:
    small = opened(saved(np.repeat(np.repeat(PHOTO, 8, 0), 8, 1), "JPEG"))
    small.draft("RGB", (40, 30))
    assert to_picture(small, PLENTY).pixels.shape == (30, 40, 3)

    pages = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    tiff = opened(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert to_picture(tiff, PLENTY).pixels[0, 0].tolist() == [255, 0, 0]
    tiff.seek(1)
    assert to_picture(tiff, PLENTY).pixels[0, 0].tolist() == [0, 0, 255]

    painted = opened(FILES["bmp"])
    painted.putpixel((0, 0), (1, 2, 3))
    assert to_picture(painted, PLENTY).pixels[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["GIF", "PPM", "JPEG2000", "TGA"])
def test_formats_that_no_job_reads_are_decoded_by_pillow(kind: str) -> None:
    flat = np.full((30, 40, 3), 255, np.uint8)
    np.testing.assert_array_equal(to_picture(opened(saved(flat, kind)), PLENTY).pixels, flat)


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]
MODES += ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_an_image_or_an_error_of_its_own(mode: str) -> None:
    image = Image.new(mode, (5, 4))
    if mode in ("I", "F"):
        with pytest.raises(SampleError, match=f"pixel_format: .* mode {mode}"):
            to_picture(image, PLENTY)
        return
    found = to_picture(image, PLENTY)
    assert (found.pixels.shape, found.pixels.dtype) == ((4, 5, 3), np.uint8)


def test_damaged_exif_data_costs_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    found = to_picture(Image.fromarray(PHOTO), PLENTY)
    np.testing.assert_array_equal(found.pixels, PHOTO)
    assert found.remarks == ("image_exif_damaged",)


def test_every_form_of_an_image_is_limited_and_no_pixel_is_decoded() -> None:
    loaded = opened(FILES["bmp"])
    loaded.load()
    lazy, gif = opened(FILES["bmp"]), opened(saved(PHOTO, "GIF"))
    for image in (PHOTO, loaded, lazy, gif, FILES["bmp"]):
        assert to_picture(image, 30 * 40).pixels.shape == (30, 40, 3)
    for image in (PHOTO, loaded, opened(FILES["bmp"]), gif := opened(saved(PHOTO, "GIF")), FILES["bmp"]):
        with pytest.raises(SampleError, match="too_many_pixels"):
            to_picture(image, 30 * 40 - 1)
    assert gif._im is None


def test_a_path_without_bytes_is_read_if_it_is_local(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES["jpeg"])
    (tmp_path / "a.png").write_bytes(FILES["4-bit png"])
    cell = {"bytes": None, "path": str(tmp_path / "a.jpg")}
    np.testing.assert_array_equal(to_picture(cell, PLENTY).pixels, decode_picture(FILES["jpeg"], PLENTY).pixels)
    label = to_label({"bytes": None, "path": str(tmp_path / "a.png")}, (30, 40), 1, LabelDecoder(CLASSES))
    assert label is not None
    np.testing.assert_array_equal(label.classes, LABEL)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("gone.jpg", "missing"),
        ("hf://datasets/a/b.jpg", "missing"),
        ("zip://a.jpg::b.zip", "missing"),
        (".", "unreachable"),
        ("a\0b", "unreachable"),
        (None, "empty"),
    ],
)
def test_a_path_that_is_no_file_is_an_error_of_its_own(path: str | None, code: str) -> None:
    cell = {"bytes": None, "path": path}
    with pytest.raises(SampleError) as caught:
        to_picture(cell, PLENTY)
    assert caught.value.code == code
    if path is None:
        assert to_label(cell, (30, 40), 1, LabelDecoder(CLASSES)) is None
        return
    with pytest.raises(SampleError) as caught:
        to_label(cell, (30, 40), 1, LabelDecoder(CLASSES))
    assert caught.value.code == f"label_{code}"


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (None, True),
        (float("nan"), True),
        (np.float16("nan"), True),
        (np.float32("nan"), True),
        (np.float64("nan"), True),
        (pd.NA, True),
        (np.empty((0, 4), np.uint8), True),
        ({"bytes": None, "path": None}, True),
        ({"bytes": None, "path": "a"}, False),
        (np.float32(1), False),
        (0.0, False),
        ("", False),
        (b"", False),
        (np.zeros((1, 1)), False),
    ],
)
def test_what_is_missing(value: object, missing: bool) -> None:
    assert is_missing(value) is missing


# --- labels ----------------------------------------------------------------------------------------------------------


def label_code(label: object, **options: Any) -> str:
    with pytest.raises(SampleError) as caught:
        to_label(label, (30, 40), 1, LabelDecoder(CLASSES, **options))
    return caught.value.code


def test_a_pil_label_that_is_not_decoded_yet_is_read_as_its_file() -> None:
    for data in (grey_png(LABEL, 4), saved(LABEL, "PNG"), saved(LABEL, "GIF"), saved(LABEL, "TIFF")):
        label = to_label(opened(data), (30, 40), 1, LabelDecoder(CLASSES))
        assert label is not None
        np.testing.assert_array_equal(label.classes, LABEL)


def test_a_decoded_pil_label_keeps_its_values() -> None:
    for image in (
        Image.fromarray(LABEL),
        Image.fromarray(LABEL.astype(np.uint16)),
        Image.fromarray(LABEL.astype(int).astype(np.int32)),
    ):
        label = to_label(image, (30, 40), 1, LabelDecoder(CLASSES))
        assert label is not None
        np.testing.assert_array_equal(label.classes, LABEL)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("WEBP", {}), ("JPEG2000", {"irreversible": True}), ("AVIF", {}), ("TIFF", {"compression": "jpeg"})],
)
def test_a_lossy_pil_label_is_refused(kind: str, options: dict[str, Any], loaded: bool) -> None:
    label = opened(saved(np.zeros((30, 40, 3), np.uint8), kind, **options))
    if loaded:
        label.load()
    assert label_code(label) == "label_lossy"
    assert to_label(label, (30, 40), 1, LabelDecoder(CLASSES, allow_lossy=True)) is not None


def test_a_truncated_pil_label_is_called_damaged() -> None:
    for data in (saved(LABEL, "PNG"), saved(LABEL, "GIF"), saved(LABEL, "PPM")):
        label = opened(data[: len(data) * 2 // 3])
        assert label_code(label) == "label_undecodable"
        with pytest.raises(Exception):  # noqa: B017 - as Pillow likes
            label.load()
        assert label_code(label) == "label_undecodable"


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "HSV", "YCbCr", "La"])
def test_a_pil_label_of_a_mode_without_values_is_refused(mode: str) -> None:
    assert label_code(Image.new(mode, (40, 30))) == "label_pixels"
