"""What makes large photos fast changes no pixel, no class, no count; `--decode fast` changes what it says."""

import ctypes
import io
import subprocess
import sys
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import codec, resize
from segment.images.label_pixels import read_label_pixels
from segment.images.mask_png import encode_mask
from segment.inputs.parts import Sample
from segment.job import Job
from segment.metrics import Confusion
from segment.metrics.counts import histogram
from segment.models.card import load_card
from segment.models.card_input import Input, Resize
from segment.models.classes import VOID
from segment.models.sessions import Runtime
from segment.models.weights import load_weights
from segment.pipeline.stages import Task, decode
from segment.runs.resolve import run_identity
from segment.store.client import Store

Pixels = NDArray[np.uint8]
LIMIT = 100_000_000
SIDES = st.integers(1, 90)
SEEDS = st.integers(0, 2**32)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth picture with grain, so that chroma and rounding matter."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 60 + 2, width // 60 + 2, 3), np.uint8)
    grain = generator.integers(-9, 10, (height, width, 3))
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + grain, 0, 255).astype(np.uint8)


def areas(height: int, width: int, seed: int, classes: int, block: int) -> Pixels:
    """A mask or label of areas of about `block` pixels; of single pixels with 1."""
    coarse = np.random.default_rng(seed).integers(0, classes, (-(-height // block), -(-width // block)), np.uint8)
    return np.kron(coarse, np.ones((block, block), np.uint8))[:height, :width]


def jpeg(pixels: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_opencv(data: bytes, how: int = cv2.IMREAD_COLOR) -> Pixels:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(found, np.uint8)[..., ::-1]


# --- masks -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 400), width=st.integers(1, 900), seed=SEEDS, classes=st.integers(1, 256), block=SIDES)
@example(height=1, width=300_000, seed=1, classes=3, block=7)  # a row larger than a strip
@example(height=700, width=1000, seed=1, classes=256, block=1)  # several strips and blocks of the stream
def test_masks_are_packed_to_the_bytes_of_zlib_itself(
    height: int, width: int, seed: int, classes: int, block: int
) -> None:
    """The reference implementation, which has no code for one CPU or another."""
    mask = areas(height, width, seed, classes, block)
    data = encode_mask(mask)
    assert np.array_equal(codec.decode_mask(data), mask)
    rows = np.diff(mask, axis=0, prepend=np.zeros((1, width), np.uint8))
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 8, zlib.Z_RLE)
    assert data[41:-16] == packer.compress(filtered.tobytes()) + packer.flush()


def test_masks_of_areas_are_smaller_than_with_opencvs_choice() -> None:
    mask = cv2.resize(areas(90, 120, 3, 12, 9), (1200, 900), interpolation=cv2.INTER_NEAREST_EXACT)
    assert len(encode_mask(mask)) < 0.6 * len(cv2.imencode(".png", mask)[1])


# --- JPEGs -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    kind=st.sampled_from(["RGB", "L", "CMYK"]),
)
def test_jpegs_have_opencvs_pixels(
    height: int, width: int, seed: int, quality: int, subsampling: str, progressive: bool, kind: str
) -> None:
    buffer = io.BytesIO()
    opened = Image.fromarray(picture(height, width, seed)).convert(kind)
    opened.save(buffer, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    found = codec.decode_picture(buffer.getvalue(), LIMIT)
    assert np.array_equal(found.pixels, by_opencv(buffer.getvalue()))
    assert found.remarks == ()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, flips=st.integers(0, 3), keep=st.floats(0.3, 1), progressive=st.booleans())
def test_damaged_jpegs_are_opencvs_to_judge(seed: int, flips: int, keep: float, progressive: bool) -> None:
    """Same pixels, remarks and errors as without the faster decoder."""
    generator = np.random.default_rng(seed)
    data = bytearray(jpeg(picture(50, 70, seed), progressive=progressive))
    for _ in range(flips):
        data[int(generator.integers(200, len(data)))] ^= 1 << int(generator.integers(8))
    damaged = bytes(data[: int(len(data) * keep)])

    def outcome() -> tuple[Any, ...]:
        try:
            found = codec.decode_picture(damaged, LIMIT)
        except SampleError as error:
            return error.code, error.detail
        return found.pixels.tobytes(), found.pixels.shape, found.remarks

    ours = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: (_ for _ in ()).throw(ValueError))
        assert outcome() == ours


# --- resampling ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(height=SIDES, width=SIDES, to=st.tuples(SIDES, SIDES), how=st.sampled_from(["bilinear", "bicubic"]), seed=SEEDS)
def test_lent_images_are_resampled_as_pillow_does(
    height: int, width: int, to: tuple[int, int], how: Any, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    spec = Input(
        layout="NCHW", channels="RGB", height=to[0], width=to[1], resize=Resize(interpolation=how, resampler="pillow")
    )
    wanted = Image.fromarray(image).resize((to[1], to[0]), getattr(Image.Resampling, how.upper()))
    assert np.array_equal(resize.resize_image(image, spec), np.asarray(wanted))


# --- labels and counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "size"), [("L", (3, 5)), ("P", (3, 5)), ("P", (4100, 4100))])  # > 16 MB: two blocks
def test_labels_are_read_whole(mode: str, size: tuple[int, int]) -> None:
    values = np.resize(np.arange(251, dtype=np.uint8), size)
    opened = Image.fromarray(values, mode)
    if mode == "P":
        opened.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    opened.save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    found = read_label_pixels(Image.open(io.BytesIO(data)), data, 1, as_colour=False)
    assert np.array_equal(found.values, values)


@settings(max_examples=30, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS, classes=st.integers(1, 255), block=st.sampled_from([1, 2, 8, 40]))
@example(height=1100, width=1000, seed=2, classes=21, block=100)  # more than a strip
@example(height=1100, width=1000, seed=2, classes=21, block=1)
def test_runs_are_counted_as_pixels_are(height: int, width: int, seed: int, classes: int, block: int) -> None:
    label, mask = (areas(height, width, seed + turn, classes, block) for turn in (0, 1))
    label = np.where(areas(height, width, seed + 2, 9, block) == 0, VOID, label).astype(np.uint8)
    wanted = np.zeros((classes + 1, classes), np.int64)
    np.add.at(wanted, (np.minimum(label, classes), mask), 1)
    assert np.array_equal(Confusion.of(mask, label, classes).counts, wanted)
    assert np.array_equal(histogram([mask], [classes]), np.bincount(mask.ravel(), minlength=classes))


# --- `--decode fast` -------------------------------------------------------------------------------------------------

FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@pytest.mark.parametrize(
    ("size", "reduction"),
    [
        ((40, 30), 1),  # smaller than the model's input
        ((64, 64), 1),
        ((127, 200), 1),
        ((128, 128), 2),
        ((255, 999), 2),
        ((256, 257), 4),
        ((511, 512), 4),
        ((520, 513), 8),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_reduced_no_further_than_the_card_does(
    size: tuple[int, int], reduction: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    height, width = size if orientation == 1 else size[::-1]  # as it is stored
    data = jpeg(picture(height, width), exif=exif, quality=95)
    found = codec.decode_picture(data, LIMIT, fit=lambda _: (64, 64))
    assert found.size == size
    assert found.pixels.shape[:2] == tuple(-(-side // reduction) for side in size)
    assert (found.reduced_from is None) == (reduction == 1)
    stored = by_opencv(data, FLAGS[reduction])
    assert np.array_equal(found.pixels, stored if orientation == 1 else np.rot90(stored, -1))


def test_a_damaged_jpeg_is_reduced_by_opencv_and_told() -> None:
    """Without the faster decoder, which refuses it, with the same remark as at full size."""
    data = bytearray(jpeg(picture(400, 300)))
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd3"  # a restart marker where there is none
    with pytest.raises(ValueError, match="Corrupt JPEG"):
        simplejpeg.decode_jpeg(bytes(data))
    whole, fast = (codec.decode_picture(bytes(data), LIMIT, fit) for fit in (None, lambda _: (100, 75)))
    assert whole.remarks == fast.remarks == ("image_damaged",)
    assert (fast.size, fast.pixels.shape) == ((400, 300), (100, 75, 3))
    above = cv2.resize(whole.pixels[:160], (75, 40), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(above - fast.pixels[:40]).mean() < 4  # in this order of colours


def test_other_formats_and_padded_cards_keep_their_geometry() -> None:
    """The area that an image covers follows from its own size, not from the reduced one."""
    spec = load_card("deeplabv3-mobilenetv2-dm05-int8").input
    pixels = picture(1051, 1403)
    exact = resize.resize_image(pixels, spec)
    found = codec.decode_picture(jpeg(pixels, quality=95), LIMIT, fit=lambda size: resize.fitted_size(spec, size))
    assert (found.size, found.pixels.shape[:2]) == ((1051, 1403), (526, 702))
    fast = resize.resize_image(found.pixels, spec, found.size)
    inside = resize.content_box(spec, (1051, 1403))
    assert (fast[inside.height :] == exact[inside.height :]).all()  # padding at the same rows
    assert np.abs(inside.of(fast).astype(int) - inside.of(exact)).mean() < 3
    png = cv2.imencode(".png", pixels)[1].tobytes()
    assert codec.decode_picture(png, LIMIT, fit=lambda _: (64, 64)).reduced_from is None


def test_the_option_reaches_the_stage_and_the_identity_of_a_run() -> None:
    card, runtime = load_card("demo-streets"), Runtime("openvino", "cpu", "f32", "")
    side = 4 * max(card.input.height, card.input.width)
    sample = Sample("a", "file:///a.jpg", 0, jpeg(picture(side, side), quality=95), None)
    jobs = [Job(input="a", output="b", model=card.name, decode=how) for how in ("exact", "fast")]
    exact, fast = (decode([sample], Task(card, runtime, "b", job.settings, Store(), 1, "")) for job in jobs)
    assert [frames.images[0].row.size for frames in (exact, fast)] == [(side, side)] * 2
    assert 0 < np.abs(np.asarray(exact.pixels).astype(int) - np.asarray(fast.pixels)).mean() < 4
    weights = load_weights(card, None)
    identities = [run_identity(job, card, weights, runtime, 1) for job in jobs]
    assert identities[1] == identities[0] | {"decode": "fast"}
    assert "decode" not in identities[0]


# --- the allocator ---------------------------------------------------------------------------------------------------


ALLOCATE = """
import ctypes, resource
from segment.pipeline.memory_guard import keep_freed_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def faults():  # of writing to a block of 40 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(40_000_000)
    ctypes.memset(block, 1, 40_000_000)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
unset = faults(), faults()
print(keep_freed_blocks(), *unset, faults(), faults())
"""


RELEASE = """
import ctypes
from segment.pipeline.memory_guard import keep_freed_blocks, own_memory, release_freed_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
keep_freed_blocks()
blocks = [ctypes.memset(libc.malloc(40_000_000), 1, 40_000_000) for _ in range(3)]
full = own_memory()
for block in blocks[:2]:  # the last one holds the end of the heap
    libc.free(block)
kept = own_memory()
release_freed_blocks()
print(full - kept, kept - own_memory())
"""
GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc is not the allocator")


@GLIBC
def test_freed_blocks_are_given_back_after_loading() -> None:
    done = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True)
    at_once, later = map(int, done.stdout.split())
    assert at_once < 1_000_000
    assert later > 79_000_000


@GLIBC
def test_freed_blocks_are_used_again() -> None:
    """Pages of a block are not asked of the kernel, and cleared by it, a second time."""
    done = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True, check=True)
    is_set, *faults = done.stdout.split()
    first, second, third, fourth = map(int, faults)
    assert is_set == "True"
    assert min(first, second, third) > 10 * max(1, fourth)
