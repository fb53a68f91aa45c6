"""Where tiles lie, how they are padded, and which one decides where they overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.errors import SampleError
from segment.images.blending import HighestConfidence, HighestMean, NearestCentre, Tile, hann_window
from segment.images.tiles import TileAxis, pad_tile, spread_tiles


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int, int]:
    tile = draw(st.integers(1, 300))
    overlap = draw(st.integers(0, int(0.9 * tile)))
    length = draw(st.integers(1, 40 * (tile - overlap) + tile))
    return length, tile, overlap


@given(sides())
def test_tiles_are_few_even_and_touch_both_ends(side: tuple[int, int, int]) -> None:
    length, tile, overlap = side
    axis = spread_tiles(length, tile, overlap)
    steps = np.diff(axis.starts)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.inside == length
    if length > tile:
        assert steps.min() >= 1
        assert steps.max() <= tile - overlap  # the least overlap
        assert steps.max() - steps.min() <= 1
        assert (len(steps) - 1) * (tile - overlap) < length - tile  # one fewer would not do
    else:
        assert axis.starts == (0,)


@given(sides())
def test_each_pixel_belongs_to_the_tile_whose_centre_is_nearest(side: tuple[int, int, int]) -> None:
    axis = spread_tiles(*side)
    assert len(axis.cuts) == len(axis.starts) + 1
    centres = np.array(axis.starts) + axis.tile / 2
    pixels = np.repeat(np.arange(len(axis.starts)), np.diff(axis.cuts))  # every pixel once, in order
    assert len(pixels) == axis.length
    own = np.abs(np.arange(axis.length) + 0.5 - centres[pixels])
    for centre in centres:
        assert (own <= np.abs(np.arange(axis.length) + 0.5 - centre)).all()
    for index, (start, first, last) in enumerate(zip(axis.starts, axis.cuts, axis.cuts[1:], strict=False)):
        assert start <= first < last <= start + axis.inside, index


def test_a_cut_is_in_the_middle_of_an_overlap() -> None:
    assert spread_tiles(100, 40, 10) == TileAxis(100, 40, (0, 30, 60))
    assert spread_tiles(100, 40, 10).cuts == (0, 35, 65, 100)
    assert spread_tiles(101, 40, 10).starts == (0, 20, 40, 61)
    assert spread_tiles(40, 40, 10).cuts == spread_tiles(40, 64, 10).cuts == (0, 40)


def blend(kind: type[NearestCentre | HighestConfidence], size: tuple[int, int], confidence: int | None) -> np.ndarray:
    """Blend tiles of 6 x 8 pixels whose mask is their number."""
    rows, columns = spread_tiles(size[0], 6, 2), spread_tiles(size[1], 8, 3)
    levels = np.full((0 if confidence is None else 1, 6, 8), confidence or 0, np.uint8)
    blending, strips = kind(rows, columns, len(levels)), []
    for row in range(len(rows.starts)):
        for column in range(len(columns.starts)):
            number = row * len(columns.starts) + column
            blending.put(row, column, Tile(np.full((6, 8), number, np.uint8), levels))
        strips.append(blending.finish_row(row).mask)
    return np.concatenate(strips)


@pytest.mark.parametrize("size", [(6, 8), (1, 1), (5, 20), (17, 8), (23, 31), (14, 9)])
def test_the_nearest_centre_decides(size: tuple[int, int]) -> None:
    rows, columns = spread_tiles(size[0], 6, 2), spread_tiles(size[1], 8, 3)
    numbers = np.arange(len(rows.starts) * len(columns.starts)).reshape(len(rows.starts), -1)
    wanted = numbers.repeat(np.diff(rows.cuts), 0).repeat(np.diff(columns.cuts), 1)
    assert np.array_equal(blend(NearestCentre, size, None), wanted)


@pytest.mark.parametrize("confidence", [0, 100, 255])
@pytest.mark.parametrize("size", [(6, 8), (1, 1), (5, 20), (17, 8), (23, 31), (14, 9)])
def test_equal_confidence_leaves_the_choice_to_the_window(size: tuple[int, int], confidence: int) -> None:
    """It falls with the distance to the centre, so it is the nearest centre that wins, up to ties between two."""
    found = blend(HighestConfidence, size, confidence)
    nearest = blend(NearestCentre, size, None)
    assert found.shape == nearest.shape
    rows, columns = spread_tiles(size[0], 6, 2), spread_tiles(size[1], 8, 3)
    weight = np.zeros((len(rows.starts) * len(columns.starts), *size), int)
    window = hann_window(6, 8)[: rows.inside, : columns.inside]
    for number, tile in enumerate(weight):
        row, column = divmod(number, len(columns.starts))
        top, left = rows.starts[row], columns.starts[column]
        tile[top : top + rows.inside, left : left + columns.inside] = window
    assert np.array_equal(found, weight.argmax(0))
    assert (np.take_along_axis(weight, nearest[None].astype(int), 0)[0] == weight.max(0)).all()


def test_the_surer_tile_decides() -> None:
    rows, columns = spread_tiles(4, 4, 0), spread_tiles(6, 4, 2)
    blending = HighestConfidence(rows, columns, 1)
    blending.put(0, 0, Tile(np.full((4, 4), 1, np.uint8), np.full((1, 4, 4), 10, np.uint8)))
    blending.put(0, 1, Tile(np.full((4, 4), 2, np.uint8), np.full((1, 4, 4), 250, np.uint8)))
    mask, levels = blending.finish_row(0)
    assert mask.tolist() == [[1, 1, 2, 2, 2, 2]] * 4
    assert levels.tolist() == [[[10, 10, 250, 250, 250, 250]] * 4]


def test_the_window_is_symmetric_and_never_zero() -> None:
    window = hann_window(7, 12)
    assert window.min() == 1
    assert window.max() <= 255
    assert np.array_equal(window, window[::-1])
    assert np.array_equal(window, window[:, ::-1])
    assert window[3].argmax() in (5, 6)


def test_padding_mirrors_without_the_edge_itself() -> None:
    pixels = np.arange(1, 4, dtype=np.uint8)[None, :, None].repeat(3, 2)
    assert pad_tile(pixels, (1, 8), None)[0, :, 0].tolist() == [1, 2, 3, 2, 1, 2, 3, 2]
    assert pad_tile(pixels[:, :1], (2, 3), None)[:, :, 0].tolist() == [[1] * 3] * 2
    assert pad_tile(pixels, (2, 4), (7, 8, 9))[:, :, 2].tolist() == [[1, 2, 3, 9], [9] * 4]
    assert pad_tile(pixels, (1, 3), None) is pixels


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("size", [(133, 90), (40, 300), (10, 77), (41, 49)])
def test_sums_of_probabilities_fit_their_numbers(size: tuple[int, int], overlap: float) -> None:
    """With probability 1 of one class in every tile no sum wraps."""
    rows, columns = (spread_tiles(length, 40, round(overlap * 40)) for length in size)
    blending = HighestMean(rows, columns, 2, 1)
    sure, no = np.full((40, 40), 255, np.uint8), np.zeros((40, 40), np.uint8)
    for row in range(len(rows.starts)):
        for column in range(len(columns.starts)):
            blending.put(row, column, Tile(sure // 255, sure[None], np.stack([no, sure])))
        mask, levels = blending.finish_row(row)
        assert (mask == 1).all()
        assert levels.shape == (1, *mask.shape)
        assert (levels == 255).all()


@pytest.mark.parametrize(("overlap", "most"), [(0, 255), (120, 252), (240, 247), (360, 58), (432, 4)])
def test_weights_have_the_most_steps_that_fit(overlap: int, most: int) -> None:
    rows = spread_tiles(4800, 480, overlap)
    assert abs(int(HighestMean(rows, rows, 1, 0)._window.max()) - most) <= 4


def test_probabilities_that_do_not_fit_are_refused_with_the_numbers() -> None:
    rows, columns = spread_tiles(10_000, 513, 128), spread_tiles(60_000, 513, 128)
    with pytest.raises(SampleError, match=r"at most 1\.1 GB") as caught:
        HighestMean(rows, columns, 21, 0)
    assert caught.value.detail.startswith("1.4 GB for 21 classes x 513 rows x 60,000 columns")
