"""Large images tile by tile: exactly what a model that saw them whole would say, and what one tile says of one tile."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import SampleError, UsageError
from segment.images import blending, raster
from segment.images.blending import HighestMean, hann_window
from segment.images.raster import ArrayRaster, ShrunkRaster
from segment.images.resize import resize_image, restore_mask
from segment.images.tiles import pad_tile
from segment.models.card import ModelCard
from segment.models.card_input import Resize
from segment.models.card_tiles import Tiles
from segment.models.sessions import Extras, Runtime, Session, open_session
from segment.models.sessions.extras import NOTHING
from segment.pipeline.stages import Clock
from segment.pipeline.tiling import TiledImage, join_strips, session_extras, tile_axes
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
    return np.concatenate([strip.mask for strip in TiledImage(ArrayRaster(image), session, batch).strips(Clock())])


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


def sure(card: ModelCard, runtime: Runtime, wanted: Extras = NOTHING) -> Session:
    """A session of `local_filter`; its scores are made small, so that probabilities are seldom 0 or 1."""
    spec = card.input.model_copy(update={"std": (30000.0,) * 3})
    card = card.model_copy(update={"input": spec})
    return open_session(
        card, as_weights(local_filter(32, 48)), runtime, extras=session_extras(card, wanted), sanity_check=False
    )


def test_a_session_gives_what_its_blend_and_the_run_need() -> None:
    cards = {blend: filter_card(32, 48, tiles=Tiles(blend=blend)) for blend in ("centre", "confidence", "mean")}
    assert session_extras(filter_card(32, 48), Extras("margin", (1,))) == Extras("margin", (1,))
    for wanted in (Extras(), Extras("maximum"), Extras("margin")):
        assert session_extras(cards["centre"], wanted) == wanted
        assert session_extras(cards["mean"], wanted) == Extras(wanted.confidence, tuple(range(12)))
    assert session_extras(cards["confidence"], Extras()) == Extras("maximum")
    assert session_extras(cards["confidence"], Extras("maximum", (1,))) == Extras("maximum", (1,))
    with pytest.raises(UsageError, match="a session gives one measure: use maximum, or another blend"):
        session_extras(cards["confidence"], Extras("margin"))


@BOTH
@pytest.mark.parametrize("blend", ["centre", "confidence"])
def test_levels_are_those_of_the_tile_that_decides(blend: str, runtime: Runtime) -> None:
    """Against the definition, with and without a measure of its own."""
    size, image, card = (75, 131), noise(75, 131), filter_card(32, 48, tiles=Tiles(overlap=12, blend=blend))
    session = sure(card, runtime, Extras("maximum", (3, 0)))
    rows, columns = tile_axes(card.input, size)
    best, wanted = np.full(size, -1), np.zeros((4, *size), int)
    for (row, top), (column, left) in itertools.product(enumerate(rows.starts), enumerate(columns.starts)):
        window, score = np.s_[..., top : top + 32, left : left + 48], np.zeros((32, 48), int)
        found = session.predict(image[window[1:]][np.newaxis])
        assert found.confidence is not None
        assert found.probabilities is not None
        if blend == "confidence":
            score = (found.confidence[0].astype(int) + 1) * hann_window(32, 48)
        else:
            inside = np.s_[rows.cuts[row] - top : rows.cuts[row + 1] - top]
            score[inside, columns.cuts[column] - left : columns.cuts[column + 1] - left] = 1
        stacked = np.concatenate([found.masks, found.confidence, found.probabilities[0]])
        better = score > best[window]
        wanted[window] = np.where(better, stacked, wanted[window])
        best[window] = np.where(better, score, best[window])
    for extras, levels in ((Extras("maximum", (3, 0)), wanted[1:]), (Extras(None, (3, 0)), wanted[2:])):
        strips = TiledImage(ArrayRaster(image), sure(card, runtime, extras), 3, extras).strips(Clock())
        mask, given = join_strips(strips, size)
        assert np.array_equal(mask, wanted[0])
        assert np.array_equal(given, levels)


@BOTH
@pytest.mark.parametrize("size", [(75, 131), (20, 200), (32, 48), (1, 1)])
def test_the_highest_mean_decides(size: tuple[int, int], runtime: Runtime) -> None:
    """Against the definition, exactly: (probability + 1 for the tile's class) x window, summed; the first of equals.

    Confidence and the probabilities of chosen classes are averaged with the same weights.
    """
    image, card = noise(*size), filter_card(32, 48, tiles=Tiles(overlap=12, blend="mean", pad="constant"))
    extras = Extras("margin", (7, 2))
    session = sure(card, runtime, extras)
    rows, columns = tile_axes(card.input, size)
    window = HighestMean(rows, columns, 1, 0)._window.astype(int)
    sums, levels, weight = np.zeros((12, *size), int), np.zeros((3, *size), int), np.zeros(size, int)
    for top, left in itertools.product(rows.starts, columns.starts):
        at = np.s_[top : top + rows.inside, left : left + columns.inside]
        found = session.predict(pad_tile(image[at], (32, 48), (0, 0, 0))[np.newaxis])
        assert found.probabilities is not None
        assert found.confidence is not None
        inside = np.s_[: rows.inside, : columns.inside]
        own = np.arange(12)[:, None, None] == found.masks[0][inside]
        sums[(slice(None), *at)] += (found.probabilities[0][:, *inside].astype(int) + own) * window
        stacked = np.concatenate([found.confidence, found.probabilities[0][[7, 2]]])
        levels[(slice(None), *at)] += stacked[:, *inside].astype(int) * window
        weight[at] += window
    strips = list(TiledImage(ArrayRaster(image), session, 3, extras).strips(Clock()))
    mask, given = join_strips(strips, size)
    assert np.array_equal(mask, sums.argmax(0))
    assert np.array_equal(given, (levels / weight + 0.5).astype(int))
    if size == (32, 48):  # one tile: the plain run's mask, though equal probabilities are many
        assert np.array_equal(mask, session.predict(image[np.newaxis]).masks[0])


@pytest.mark.parametrize("shrink", [2, 3])
@pytest.mark.parametrize("size", [(75, 131), (32, 48), (1, 5)])
@pytest.mark.parametrize("at_once", [512, 7])
def test_a_shrunken_image_is_the_tiled_small_one(
    size: tuple[int, int], shrink: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image that was enlarged, the mask is the small one's enlarged, also where the last blocks are cut.

    It comes in strips of few rows, however many rows of the image a row of tiles is.
    """
    for module in (raster, blending):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    image = noise(*size)
    plain, shrunk = (
        opened(filter_card(32, 48, tiles=Tiles(overlap=12, shrink=factor)), local_filter(32, 48), ORT)
        for factor in (1, shrink)
    )
    large = image.repeat(shrink, 0).repeat(shrink, 1)[: 1 - shrink, : 1 - shrink]
    wanted = tiled(image, plain).repeat(shrink, 0).repeat(shrink, 1)[: 1 - shrink, : 1 - shrink]
    strips = list(TiledImage(ArrayRaster(large), shrunk, 2).strips(Clock()))
    assert max(len(strip.mask) for strip in strips) <= max(at_once, shrink)
    assert np.array_equal(join_strips(strips, wanted.shape).mask, wanted)


class _Noted(ArrayRaster):
    """Notes which rows are read."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__(pixels)
        self.rows: list[int] = []

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        self.rows += range(top, top + height)
        return super().read(top, left, height, width)


def test_windows_of_a_shrunken_image_read_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that go down, as rows of tiles do; others give the same."""
    monkeypatch.setattr(raster, "ROWS_AT_ONCE", 7)
    image = noise(100, 61)
    noted = _Noted(image)
    shrunk, fresh = ShrunkRaster(noted, 3), ShrunkRaster(ArrayRaster(image), 3).read(0, 0, 34, 21)
    for top, height in ((0, 12), (8, 12), (16, 12), (22, 12)):
        assert np.array_equal(shrunk.read(top, 0, height, 21), fresh[top : top + height])
    assert noted.rows == list(range(100))
    for top, left, height, width in ((23, 0, 2, 21), (3, 0, 30, 21), (5, 2, 9, 4), (6, 3, 9, 4), (6, 3, 2, 4)):
        window = shrunk.read(top, left, height, width)
        assert np.array_equal(window, fresh[top : top + height, left : left + width])


def test_a_pixel_of_a_shrunken_image_is_a_mean() -> None:
    image = noise(7, 8)
    found = ShrunkRaster(ArrayRaster(image), 3).read(1, 1, 2, 2)
    assert found.shape == (2, 2, 3)
    assert np.array_equal(found[0, 0], (image[3:6, 3:6].mean((0, 1)) + 0.5).astype(int))
    assert np.array_equal(found[1, 1], (image[[6, 6, 6], 6:8][:, [0, 1, 1]].mean((0, 1)) + 0.5).astype(int))


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
