"""Large images tile by tile: exactly what a model that saw them whole would say, and what one tile says of one tile."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import SampleError, UsageError
from segment.images.raster import ArrayRaster
from segment.images.resize import resize_image, restore_mask
from segment.images.tiles import hann_window, pad_tile
from segment.models.card import ModelCard
from segment.models.card_input import Resize
from segment.models.card_tiles import Tiles
from segment.models.sessions import Extras, Runtime, Session, open_session
from segment.pipeline.stages import Clock
from segment.pipeline.tiling import TiledImage, session_extras, tile_axes
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph
from tests.serving import BOTH, ORT, opened, small, tiny

RADIUS = 2  # of the field of view of `local_filter`, in pixels
RGB = {"channels": "RGB", "layout": "NCHW"}
SCORES = {"kind": "logits", "layout": "NCHW"}


def local_filter(height: int, width: int) -> bytes:
    """Two convolutions of 3 x 3 with zero padding. Weights are whole and small: every sum is exact in any order."""
    random = np.random.default_rng(3)
    kernels = [random.integers(-3, 4, shape).astype(np.float32) for shape in ((5, 3, 3, 3), (12, 5, 3, 3))]
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["a"], **same),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "two"], ["y"], **same),
    ]
    weights = [numpy_helper.from_array(kernel, name) for kernel, name in zip(kernels, ("one", "two"), strict=True)]
    return tiny(nodes, [("x", ["N", 3, height, width])], [("y", ["N", 12, height, width])], weights)


def filter_card(height: int, width: int, **entry: Any) -> ModelCard:
    return small(
        input={**RGB, "name": None, "height": height, "width": width, **entry}, output={**SCORES, "name": None}
    )


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(image: NDArray[np.uint8], runtime: Runtime) -> NDArray[np.uint8]:
    """The mask of a model that sees the whole image."""
    card = filter_card(*image.shape[:2])
    return opened(card, local_filter(*image.shape[:2]), runtime).predict(image[np.newaxis]).masks[0]


def tiled(image: NDArray[np.uint8], session: Session, batch: int = 1) -> NDArray[np.uint8]:
    return np.concatenate(list(TiledImage(ArrayRaster(image), session, batch).strips(Clock())))


@BOTH
@pytest.mark.parametrize("size", [(32, 48), (33, 49), (75, 131), (32, 200), (190, 48)])
def test_tiles_leave_no_trace(size: tuple[int, int], runtime: Runtime) -> None:
    """The field of view is 5 pixels, as is the overlap: the mask is the whole image's, edges included."""
    image = noise(*size)
    session = opened(filter_card(32, 48, tiles=Tiles(overlap=2 * RADIUS + 1)), local_filter(32, 48), runtime)
    assert np.array_equal(tiled(image, session), whole(image, runtime))


def test_less_overlap_than_the_field_of_view_leaves_traces() -> None:
    """So the test above can fail. What differs lies beside the cuts."""
    image = noise(64, 96)
    session = opened(filter_card(32, 48, tiles=Tiles(overlap=0)), local_filter(32, 48), ORT)
    rows, columns = np.nonzero(tiled(image, session) != whole(image, ORT))
    assert len(rows) > 20
    assert ((abs(rows + 0.5 - 32) < RADIUS) | (abs(columns + 0.5 - 48) < RADIUS)).all()


@BOTH
@pytest.mark.parametrize("pad", ["reflect", "constant"])
@pytest.mark.parametrize("size", [(20, 100), (70, 30), (20, 30), (1, 1), (1, 90), (31, 47)])
def test_padding_shows_only_beside_it(size: tuple[int, int], pad: str, runtime: Runtime) -> None:
    image = noise(*size)
    card = filter_card(32, 48, tiles=Tiles(overlap=8, pad=pad), resize=Resize(pad=(9, 99, 200)))
    found = tiled(image, opened(card, local_filter(32, 48), runtime))
    assert found.shape == size
    below = RADIUS if size[0] < 32 else 0
    right = RADIUS if size[1] < 48 else 0
    inside = np.s_[: max(0, size[0] - below), : max(0, size[1] - right)]
    assert np.array_equal(found[inside], whole(image, runtime)[inside])


@BOTH
@pytest.mark.parametrize("size", [(32, 48), (20, 30), (32, 11), (1, 1)])
def test_one_tile_is_the_plain_run(size: tuple[int, int], runtime: Runtime) -> None:
    """With constant padding it is what `resize.method = "pad"` gives; where nothing is padded, any plain card's."""
    image, graph = noise(*size), local_filter(32, 48)
    border = (9, 99, 200)
    session = opened(filter_card(32, 48, tiles=Tiles(pad="constant"), resize=Resize(pad=border)), graph, runtime)
    methods = ["pad", "stretch"] if size == (32, 48) else ["pad"]
    for method in methods:
        plain = opened(filter_card(32, 48, resize=Resize(method=method, pad=border)), graph, runtime)
        seen = plain.predict(resize_image(image, plain.card.input)[np.newaxis]).masks[0]
        assert np.array_equal(tiled(image, session), restore_mask(seen, plain.card.input, size))


@BOTH
@pytest.mark.parametrize("batch", [2, 3, 64])
def test_the_batch_size_makes_no_difference(batch: int, runtime: Runtime) -> None:
    image = noise(75, 231)
    card = filter_card(32, 48, tiles=Tiles())
    one = tiled(image, opened(card, local_filter(32, 48), runtime))
    assert np.array_equal(tiled(image, opened(card, local_filter(32, 48), runtime), batch), one)


def test_masks_of_another_size_than_the_tile_are_resized_to_it() -> None:
    card = small(input={"tiles": Tiles()}, output={"height": 64, "width": 96, **SCORES})
    nodes = [
        helper.make_node("Slice", ["x", "from", "to"], ["cut"]),
        helper.make_node("Concat", ["cut"] * 4, ["twelve"], axis=1),
        helper.make_node("Resize", ["twelve", "", "scales"], [card.output.name or "y"], mode="nearest"),
    ]
    arrays = {
        "from": np.zeros(4, np.int64),
        "to": np.full(4, 1 << 30, np.int64),
        "scales": np.array([1, 1, 2, 2.0], np.float32),
    }
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = tiny(nodes, [("x", ["N", 3, 32, 48])], [(card.output.name or "y", ["N", 12, 64, 96])], weights)
    session = opened(card.model_copy(update={"input": card.input.model_copy(update=RGB)}), graph, ORT)
    image = noise(50, 70)
    assert np.array_equal(tiled(image, session), image.argmax(axis=2))


def test_a_fault_names_its_tile() -> None:
    card = small(input={"tiles": Tiles(overlap=8)})
    image = np.zeros((70, 120, 3), np.uint8)
    image[60, 100] = TRIGGER
    session = opened(card, nan_graph(card), ORT)
    with pytest.raises(SampleError) as caught:
        tiled(image, session, 2)
    assert caught.value.code == "model_not_finite"
    assert caught.value.detail == "in the tile at row 38, column 72"


def test_a_step_comes_before_each_batch_and_can_end_the_image() -> None:
    class Enough(Exception):
        pass

    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 4:
            raise Enough

    card = small(input={"tiles": Tiles(overlap=8)})
    image = TiledImage(ArrayRaster(np.zeros((70, 120, 3), np.uint8)), opened(card, colour_classifier(card), ORT), 2)
    strips = image.strips(Clock(), step)
    assert image.tiles == 9
    next(strips)
    assert len(steps) == 2
    with pytest.raises(Enough):
        list(strips)


@BOTH
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size", [(75, 131), (20, 200), (1, 1)])
def test_confidence_decides_where_tiles_overlap(size: tuple[int, int], batch: int, runtime: Runtime) -> None:
    """Against the definition: of all tiles over a pixel, the one with the highest (confidence + 1) x window."""
    image, card = noise(*size), filter_card(32, 48, tiles=Tiles(overlap=12, blend="confidence", pad="constant"))
    session = sure(card, runtime)
    rows, columns = tile_axes(card.input, size)
    best, wanted = np.zeros(size, int), np.zeros(size, np.uint8)
    for top, left in itertools.product(rows.starts, columns.starts):
        window = np.s_[top : top + rows.inside, left : left + columns.inside]
        found = session.predict(pad_tile(image[window], (32, 48), (0, 0, 0))[np.newaxis])
        assert found.confidence is not None
        inside = np.s_[: rows.inside, : columns.inside]
        score = (found.confidence[0].astype(int) + 1)[inside] * hann_window(32, 48)[inside]
        better = score > best[window]
        best[window][better], wanted[window][better] = score[better], found.masks[0][inside][better]
    assert np.array_equal(tiled(image, sure(card, runtime), batch), wanted)


def sure(card: ModelCard, runtime: Runtime) -> Session:
    """A session of `local_filter` that gives confidence; its scores are made small, so that it is seldom 0 or 1."""
    spec = card.input.model_copy(update={"std": (30000.0,) * 3})
    card = card.model_copy(update={"input": spec})
    return open_session(
        card, as_weights(local_filter(32, 48)), runtime, extras=session_extras(card, Extras()), sanity_check=False
    )


def test_only_the_blend_by_confidence_asks_for_it() -> None:
    plain, centre, confidence = (
        filter_card(32, 48, tiles=tiles) for tiles in (None, Tiles(), Tiles(blend="confidence"))
    )
    assert session_extras(plain, Extras("margin")) == Extras("margin")
    assert session_extras(centre, Extras()) == Extras()
    assert session_extras(confidence, Extras()) == Extras("maximum")
    with pytest.raises(UsageError, match=r"the card .* segments images in tiles"):
        session_extras(centre, Extras("margin"))


def test_bands_are_tiled_as_colours_are() -> None:
    """Two bands, the class of a pixel the one that is brighter."""
    entry = {
        "channels": "BANDS",
        "bands": (3, 1),
        "mean": (0.0, 0.0),
        "std": (1.0, 1.0),
        "layout": "NCHW",
        "name": None,
    }
    card = small(input={**entry, "tiles": Tiles(pad="constant"), "resize": Resize(pad=(0, 0))}, output={"name": None})
    card = card.model_copy(update={"output": card.output.model_copy(update=SCORES)})
    scores = [helper.make_node("Concat", ["x", *["dark"] * 10], ["y"], axis=1)]
    dark = numpy_helper.from_array(np.full((1, 1, 32, 48), -1, np.float32), "dark")
    graph = tiny(scores, [("x", [1, 2, 32, 48])], [("y", [1, 12, 32, 48])], [dark])
    image = noise(70, 90)[:, :, [2, 0]]
    assert np.array_equal(tiled(image, opened(card, graph, ORT)), image.argmax(axis=2))
