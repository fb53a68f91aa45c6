"""Labels: every encoding gives class indices, invalid remaps are refused, each kind of bad label has a code."""

import io
import pickle
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from segment.errors import SampleError, UsageError
from segment.images.labels import LabelDecoder
from segment.models.card import load_card
from segment.models.classes import VOID, Classes
from segment.output.tables import FORMAT_VERSION

CLASSES = Classes(
    names=("Sky", "Road", "Car", "Unlabeled"),
    palette=((10, 200, 250), (128, 64, 128), (240, 20, 30), (0, 0, 0)),
    ignore=(3, 255),
    void_colours=((224, 224, 192),),
)
MASK = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 255, 2]], np.uint8)
SOUND = np.where(MASK == 255, 0, MASK).astype(np.uint8)  # without void


def saved(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def palette_image(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette(colours.tobytes())
    return image


def coloured(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.full((256, 3), 0, np.uint8)
    table[:4] = CLASSES.palette_array
    table[255] = CLASSES.void_colours[0]
    return table[mask]


def grey_png(mask: NDArray[np.uint8], bits: int) -> bytes:
    """Return a grey PNG of 1, 2 or 4 bits with unscaled values."""
    height, width = mask.shape
    rows = b"".join(b"\0" + _packed(row, bits) for row in mask)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def grey_tiff(mask: NDArray[np.uint8], bits: int) -> bytes:
    height, width = mask.shape
    data = b"".join(_packed(row, bits) for row in mask)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def _packed(row: NDArray[np.uint8], bits: int) -> bytes:
    digits = "".join(f"{value:0{bits}b}" for value in row)
    return bytes(int(digits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(digits), 8))


def decoded(data: bytes, size: tuple[int, int] = (3, 4), **options: Any) -> NDArray[np.uint8]:
    found = LabelDecoder(CLASSES, **options).decode(data, *size)
    assert found.dtype == np.uint8
    return found


def explained(data: bytes, size: tuple[int, int] = (3, 4), **options: Any) -> str:
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CLASSES, **options).decode(data, *size)
    return str(pickle.loads(pickle.dumps(caught.value))).partition(": ")[2].rpartition(": ")[2]


def fault(data: bytes, size: tuple[int, int] = (3, 4), **options: Any) -> str:
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CLASSES, **options).decode(data, *size)
    return caught.value.code


# --- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["auto", "index"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_index(kind: str, encoding: str) -> None:
    assert np.array_equal(decoded(saved(MASK, kind), encoding=encoding), MASK)


@pytest.mark.parametrize("encoding", ["auto", "index"])
def test_the_index_of_a_palette_counts_not_its_colour(encoding: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    assert np.array_equal(decoded(saved(palette_image(MASK, colours)), encoding=encoding), MASK)
    assert np.array_equal(decoded(saved(palette_image(MASK, colours), transparency=255), encoding=encoding), MASK)
    few = palette_image(SOUND, colours[:4])
    for bits in (2, 4, 8):
        assert np.array_equal(decoded(saved(few, bits=bits), encoding=encoding), SOUND)


# --- palettes with the card's colours ---------------------------------------------------------------------------------

OTHER = np.array([2, 0, 3, 1])  # classes of the entries of a palette


def reordered(mask: NDArray[np.uint8], entries: NDArray[np.int64], fill: tuple[int, int, int] | None = None) -> bytes:
    """Return a palette PNG with the card's colours in another order, optionally filled up to 256 entries."""
    colours = CLASSES.palette_array[entries]
    if fill is not None:
        colours = np.concatenate([colours, np.tile(np.uint8(fill), (256 - len(colours), 1))])
    return saved(palette_image(np.argsort(entries).astype(np.uint8)[mask], colours))


@pytest.mark.parametrize("fill", [None, (0, 0, 0)])
def test_a_palette_of_the_cards_colours_in_another_order_is_read_by_colour(fill: tuple[int, int, int] | None) -> None:
    label = reordered(SOUND, OTHER, fill)
    assert np.array_equal(decoded(label), SOUND)
    assert np.array_equal(decoded(label, encoding="colour"), SOUND)
    assert np.array_equal(decoded(label, encoding="index"), np.argsort(OTHER)[SOUND])
    few = np.array([[2, 2, 3]], np.uint8)  # the palette shrinks to the colours in use
    assert np.array_equal(decoded(saved(palette_image(few - 2, CLASSES.palette_array[2:])), (1, 3)), few)
    quantised = Image.fromarray(coloured(MASK)).quantize(8)
    assert np.array_equal(decoded(saved(quantised)), MASK)


def test_a_palette_in_the_cards_order_is_read_by_index() -> None:
    colours = np.zeros((256, 3), np.uint8)  # black is a class of the card, too
    colours[:4] = CLASSES.palette_array
    assert np.array_equal(decoded(saved(palette_image(MASK, colours))), MASK)
    assert np.array_equal(decoded(saved(palette_image(SOUND % 2, colours[:2]))), SOUND % 2)


def test_a_palette_that_could_be_meant_either_way_is_refused() -> None:
    label = reordered(SOUND, OTHER, (1, 2, 3))
    assert fault(label) == "label_ambiguous"
    assert np.array_equal(decoded(label, encoding="colour"), SOUND)
    assert np.array_equal(decoded(label, encoding="index"), np.argsort(OTHER)[SOUND])
    assert np.array_equal(decoded(label, remap={"77": "ignore"}), np.argsort(OTHER)[SOUND])  # the remap names values
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3)  # it has black, which is a class
    assert np.array_equal(decoded(saved(palette_image(SOUND * 0, ramp))), SOUND * 0)
    assert np.array_equal(decoded(saved(palette_image(MASK, ramp))), MASK)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("write", [grey_png, grey_tiff])
def test_grey_of_few_bits_is_not_scaled(write: Any, bits: int) -> None:
    mask = SOUND % 2 if bits == 1 else SOUND
    assert np.array_equal(decoded(write(mask, bits)), mask)
    assert np.array_equal(decoded(write(mask, bits), encoding="index"), mask)


def test_sixteen_bits() -> None:
    deep = cv2.imencode(".png", MASK.astype(np.uint16))[1].tobytes()
    assert np.array_equal(decoded(deep), MASK)
    deep = cv2.imencode(".png", MASK.astype(np.uint16) + 256)[1].tobytes()
    assert fault(deep) == "label_value"  # not the value modulo 256
    assert fault(saved(np.full((3, 4), -1, np.int32), "TIFF")) == "label_value"  # not void


@pytest.mark.parametrize(
    ("mode", "encoding"),
    [("RGB", "auto"), ("RGB", "colour"), ("RGBA", "auto"), ("RGBA", "colour"), ("P", "colour")],
)
def test_colour(mode: str, encoding: str) -> None:
    image = Image.fromarray(coloured(MASK))
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    assert np.array_equal(decoded(saved(image), encoding=encoding), MASK)


def test_grey_stored_as_rgb_needs_encoding_index() -> None:
    rgb = np.repeat(MASK[:, :, None], 3, axis=2)
    assert np.array_equal(decoded(saved(rgb), encoding="index"), MASK)
    assert fault(saved(coloured(MASK)), encoding="index") == "label_value"


@pytest.mark.parametrize("name", ["unet-camvid-onnx-0001", "deeplabv3-mobilenetv2-int8"])
def test_colour_and_index_agree_for_every_class_of_built_in_cards(name: str) -> None:
    classes = load_card(name).classes
    mask = np.arange(len(classes), dtype=np.uint8)[None]
    decoder = LabelDecoder(classes)
    assert np.array_equal(decoder.decode(saved(mask), *mask.shape), mask)
    assert np.array_equal(decoder.decode(saved(classes.palette_array[mask]), *mask.shape), mask)


def test_void() -> None:
    assert CLASSES.ignored_classes == (3,)
    assert CLASSES.void_values == (255,)
    assert decoded(saved(np.full((3, 4), 255, np.uint8))).min() == VOID
    voc = Classes(names=("a", "b"), palette=((0, 0, 0), (1, 1, 1)), ignore=(200,))
    found = LabelDecoder(voc).decode(saved(np.array([[0, 1, 200]], np.uint8)), 1, 3)
    assert found.tolist() == [[0, 1, VOID]]


@settings(max_examples=30, deadline=None)
@given(classes=st.integers(1, 255), seed=st.integers(0, 2**32))
def test_any_number_of_classes(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    colours = generator.choice(1 << 24, classes, replace=False)
    palette = tuple((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in colours)
    decoder = LabelDecoder(Classes(names=tuple(map(str, range(classes))), palette=palette))
    mask = generator.integers(0, classes, (5, 7), np.uint8)
    assert np.array_equal(decoder.decode(saved(mask), 5, 7), mask)
    assert np.array_equal(decoder.decode(saved(np.asarray(palette, np.uint8)[mask]), 5, 7), mask)
    if classes < 255:
        with pytest.raises(SampleError, match="label_value"):
            decoder.decode(saved(np.full((5, 7), classes, np.uint8)), 5, 7)


# --- remaps ----------------------------------------------------------------------------------------------------------


def test_remap_by_value() -> None:
    raw = np.array([[7, 8, 26, 0]], np.uint8)
    remap = {"7": "Road", "8": "sky", "26": 2, " 0 ": "ignore"}
    assert decoded(saved(raw), (1, 4), remap=remap).tolist() == [[1, 0, 2, VOID]]
    assert decoded(saved(raw), (1, 4), remap={**remap, "26": "2"}).tolist() == [[1, 0, 2, VOID]]
    assert fault(saved(np.array([[7, 9]], np.uint8)), (1, 2), remap=remap) == "label_value"
    assert decoded(saved(coloured(SOUND)), remap=remap).tolist() == SOUND.tolist()


def test_a_remap_adds_to_what_values_and_colours_mean() -> None:
    raw = np.array([[1, 2, 99]], np.uint8)
    assert decoded(saved(raw), (1, 3), remap={"99": "ignore"}).tolist() == [[1, 2, VOID]]
    assert decoded(saved(raw), (1, 3), remap={"99": "ignore", "2": "Sky"}).tolist() == [[1, 0, VOID]]
    rgb = np.array([[CLASSES.palette[1], (1, 2, 3)]], np.uint8)
    assert decoded(saved(rgb), (1, 2), remap={"1,2,3": "Car"}).tolist() == [[1, 2]]


def test_a_star_names_all_the_rest() -> None:
    raw = np.array([[1, 2, 99, 7, 255]], np.uint8)
    assert decoded(saved(raw), (1, 5), remap={"*": "ignore", "7": "Road"}).tolist() == [[VOID] * 3 + [1, VOID]]
    assert decoded(saved(raw), (1, 5), remap={"7": "Road", "*": "Sky"}).tolist() == [[0, 0, 0, 1, VOID]]
    rgb = np.array([[CLASSES.palette[1], (1, 2, 3), (224, 224, 192), (9, 9, 9)]], np.uint8)
    assert decoded(saved(rgb), (1, 4), remap={"*": "Sky", "1,2,3": "Car"}).tolist() == [[0, 2, VOID, 0]]


def test_remap_by_colour() -> None:
    raw = np.array([[[64, 0, 128], [1, 2, 3], [64, 128, 0]]], np.uint8)
    remap: dict[str, str | int] = {"#400080": "Car", "1,2,3": "Ignore", "64 128 0": 0}
    assert decoded(saved(raw), (1, 3), remap=remap).tolist() == [[2, VOID, 0]]
    assert decoded(saved(coloured(SOUND)), remap=remap).tolist() == SOUND.tolist()
    assert decoded(saved(SOUND), remap=remap).tolist() == SOUND.tolist()


def test_void_stays_void_under_a_remap_that_does_not_name_it() -> None:
    raw = np.array([[7, 255]], np.uint8)
    assert decoded(saved(raw), (1, 2), remap={"7": "Car"}).tolist() == [[2, VOID]]
    assert decoded(saved(raw), (1, 2), remap={"7": "Car", "255": "Sky"}).tolist() == [[2, 0]]
    rgb = np.array([[[7, 7, 7], [224, 224, 192]]], np.uint8)
    assert decoded(saved(rgb), (1, 2), remap={"7,7,7": "Car"}).tolist() == [[2, VOID]]
    assert decoded(saved(rgb), (1, 2), remap={"7,7,7": "Car", "#E0E0C0": "Road"}).tolist() == [[2, 1]]


@pytest.mark.parametrize(
    "key", ["", "x", "256", "-1", "1.5", "1,2", "1,2,3,4", "1,2,256", "#12345", "#12345g", "64;0;128"]
)
def test_bad_remap_keys_are_named(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        LabelDecoder(CLASSES, remap={key: "Sky"})
    assert (
        str(caught.value)
        == f"label_remap: remap from {key!r}: not a label value (0-255) or a colour ('R,G,B' or '#rrggbb')"
    )
    with pytest.raises(UsageError, match=r"'#rrggbb'\); give each pair by itself"):
        LabelDecoder(CLASSES, remap={"15=1,*": "Sky"})


@pytest.mark.parametrize("target", ["Skies", "", "4", 4, -1, "-1", "²", "1.0", "ignored"])
def test_bad_remap_targets_are_named(target: str | int) -> None:
    for key in ("7", "1,2,3"):
        with pytest.raises(UsageError) as caught:
            LabelDecoder(CLASSES, remap={key: target})
        assert (
            str(caught.value)
            == f"label_remap: remap to {target!r}: no class. Give 'ignore' or one of 0 Sky, 1 Road, 2 Car, 3 Unlabeled"
        )


@pytest.mark.parametrize("encoding", ["color", "Index", "", None])
def test_an_encoding_that_is_none_is_refused(encoding: Any) -> None:
    with pytest.raises(UsageError) as caught:
        LabelDecoder(CLASSES, encoding)
    assert str(caught.value).startswith(f"label_encoding: {encoding!r} is none of auto, index, colour.")
    with pytest.raises(UsageError, match="Did you mean 'colour'"):
        LabelDecoder(CLASSES, "color")  # type: ignore[arg-type]


def test_a_remap_may_name_values_by_numbers() -> None:
    assert LabelDecoder(CLASSES, remap={7: "Car"}).read_pixels(np.array([[7]], np.uint8)).classes == 2  # type: ignore[dict-item]


# --- labels that are arrays ---------------------------------------------------------------------------------------


CAMVID_LIKE = CLASSES.model_copy(update={"ignore": (3,)})  # an ignored class, and no void value


def test_255_is_void_in_an_array() -> None:
    array = np.array([[0, 3, 255]], np.uint8)
    assert LabelDecoder(CAMVID_LIKE).read_pixels(array).classes.tolist() == [[0, 3, VOID]]
    with pytest.raises(SampleError, match="label_value"):  # in a file it may be a class that nobody has named
        LabelDecoder(CAMVID_LIKE).read(saved(array), 1, 3)
    grey = np.repeat(array[:, :, np.newaxis], 3, axis=2)
    assert LabelDecoder(CAMVID_LIKE, "index").read_pixels(grey).classes.tolist() == [[0, 3, VOID]]
    with pytest.raises(SampleError, match="254"):
        LabelDecoder(CAMVID_LIKE).read_pixels(np.array([[254, 255]], np.uint8))


@pytest.mark.parametrize(
    ("remap", "expected"),
    [({"255": "Car"}, 2), ({"255": "ignore"}, VOID), ({"*": "Road"}, 1), ({"7": "Car"}, VOID)],
)
def test_a_remap_that_names_255_counts_in_an_array(remap: dict[str, str | int], expected: int) -> None:
    array = np.array([[255]], np.uint8)
    assert LabelDecoder(CAMVID_LIKE, remap=remap).read_pixels(array).classes.tolist() == [[expected]]


def test_classes_are_read_again_as_they_are() -> None:
    classes = (
        LabelDecoder(CAMVID_LIKE, remap={"9": "ignore"}).read(saved(np.array([[1, 9, 3]], np.uint8)), 1, 3).classes
    )
    assert classes.tolist() == [[1, VOID, 3]]
    assert LabelDecoder(CAMVID_LIKE).read_pixels(classes).classes.tolist() == classes.tolist()


# --- bad labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "label_empty"),
        (b"\0", "label_undecodable"),
        (b"<!DOCTYPE html>", "label_undecodable"),
        (saved(MASK)[:40], "label_undecodable"),
        (saved(MASK)[:-30], "label_undecodable"),
        (saved(MASK, "TIFF")[:9], "label_undecodable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\n", "label_undecodable"),
        (saved(MASK.T.copy()), "label_size"),
        (saved(np.zeros((3, 5), np.uint8)), "label_size"),
        (saved(np.full((3, 4), 4, np.uint8)), "label_value"),
        (saved(np.full((3, 4), 254, np.uint8)), "label_value"),
        (saved(np.full((3, 4, 3), 9, np.uint8)), "label_colour"),
        (saved(Image.fromarray(coloured(MASK)), "JPEG"), "label_lossy"),
    ],
)
def test_bad_labels_have_a_code_each(data: bytes, code: str) -> None:
    assert fault(data) == code


def test_every_value_is_a_class_where_there_are_as_many_classes() -> None:
    colours = tuple((value, 0, 0) for value in range(255))
    decoder = LabelDecoder(Classes(names=tuple(map(str, range(255))), palette=colours, ignore=(255,)))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decoder.decode(saved(values), 16, 16), values)


def test_each_fault_of_a_label_has_its_code() -> None:
    odd = np.array([[1, 77, 200, 77], [5, 6, 7, 8], [0, 0, 0, 0]], np.uint8)
    assert explained(saved(odd)) == "5, 6, 7 and 3 more"
    assert explained(saved(np.where(odd == 77, odd, 0).astype(np.uint8))) == "77"
    assert explained(saved(np.full((3, 4, 3), (9, 8, 9), np.uint8))) == "9,8,9"
    assert explained(cv2.imencode(".png", odd.astype(np.uint16) * 300)[1].tobytes()) == "300, 1500, 1800 and 4 more"
    assert explained(saved(odd), (4, 3)) == "4x3 for an image of 3x4"


def test_the_size_is_checked_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
    ihdr = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = header + ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr)) + saved(MASK)[33:]
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert fault(data) == "label_size"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), seed=st.integers(0, 2**32), flips=st.integers(0, 8))
def test_any_bytes_are_a_label_or_a_sample_error(data: bytes, seed: int, flips: int) -> None:
    damaged = bytearray(saved(MASK))
    generator = np.random.default_rng(seed)
    for position in generator.integers(0, len(damaged), flips):
        damaged[position] = generator.integers(0, 256)
    for candidate in (data, bytes(damaged), bytes(damaged[:40]) + data):
        try:
            found = decoded(candidate)
        except SampleError:
            continue
        assert set(np.unique(found)) <= {0, 1, 2, 3, VOID}


# --- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"palette": ((0, 0, 0),)}, "4 names but 1 palette colours: give one colour per class"),
        ({"names": ("a", "b", "a", "c")}, "class names must be unique"),
        ({"names": ()}, "at least 1 item"),
        ({"ignore": (256,)}, "less than or equal to 255"),
        ({"palette": ((0, 0, 256),) * 4}, "less than or equal to 255"),
        ({"colors": ()}, "Extra inputs are not permitted"),
    ],
)
def test_classes_that_do_not_hold_together(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Classes.model_validate({**CLASSES.model_dump(), **change})


def test_class_names_are_found_in_any_case() -> None:
    assert [CLASSES.index(name) for name in ("sky", "CAR", "Unlabeled")] == [0, 2, 3]
    with pytest.raises(KeyError):
        CLASSES.index("cars")


def test_a_change_of_label_decoding_needs_another_format_version() -> None:
    sky_is_void = LabelDecoder(CLASSES, "auto", {"0": "ignore"})
    meant = [
        sky_is_void.decode(saved(SOUND), 3, 4).tolist(),  # values that a remap does not name keep their meaning
        LabelDecoder(CLASSES).decode(saved(palette_image(SOUND, CLASSES.palette_array[::-1])), 3, 4).tolist(),
    ]
    assert (FORMAT_VERSION, meant) == (5, [np.where(SOUND == 0, VOID, SOUND).tolist(), (3 - SOUND).tolist()])


@pytest.mark.parametrize(
    "remap", [{"7": 0, "07": 1}, {7: 0, "7": 1}, {"#400080": "Car", "64,0,128": "Sky"}, {"1 2 3": 0, "1,2,3": "ignore"}]
)
def test_entries_of_a_remap_that_contradict_each_other_are_refused(remap: Any) -> None:
    with pytest.raises(UsageError, match=r"label_remap: remap from .* to .* and from .* to .* contradict each other"):
        LabelDecoder(CLASSES, remap=remap)
    LabelDecoder(CLASSES, remap=dict.fromkeys(remap, "Sky"))  # written twice, and of one meaning
