"""Graphs of any number of channels, which take the bands of multi-band TIFFs."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import UsageError
from segment.models.card import ModelCard, parse_card
from segment.models.sessions import Runtime, open_session
from segment.report.cards import print_card
from tests.graphs import as_weights
from tests.models.test_card import changed
from tests.models.test_session_grey import card_of as grey_card
from tests.models.test_session_int8 import reading
from tests.serving import BOTH, message, opened, tiny

SIZE = (16, 20)
BANDS = {"channels": "BANDS", "bands": (1, 2, 3, 8, 5), "height": SIZE[0], "width": SIZE[1]}


def card_of(layout: str = "NCHW", **entry: Any) -> ModelCard:
    """A card of 255 classes and five bands."""
    return grey_card(layout, **{**BANDS, "mean": (0.0,) * 5, "std": (1.0,) * 5, **entry})


def one_of(channel: int, layout: str, scale: float = 1, offset: float = 0, channels: int = 5) -> bytes:
    """Return a graph whose class index is a number of one channel, rounded."""
    axis, shape = (1, ("N", channels, *SIZE)) if layout == "NCHW" else (3, ("N", *SIZE, channels))
    nodes = [
        helper.make_node("Gather", ["x", "channel"], ["one"], axis=axis),
        helper.make_node("Mul", ["one", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Floor", ["moved"], ["y"]),
    ]
    stored = {"channel": np.array([channel]), "scale": np.float32(scale), "offset": np.float32(offset + 0.5)}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    result = tuple(1 if at == axis else side for at, side in enumerate(shape))
    return tiny(nodes, [("x", shape)], [("y", result)], arrays)


def noise(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 255, (count, *SIZE, 5), dtype=np.uint8)


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_each_band_is_a_channel_with_its_mean_and_deviation(layout: str, runtime: Runtime) -> None:
    images = noise()
    card = card_of(layout, maximum=1, mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=(0.5, 0.4, 0.3, 0.2, 0.1))
    for channel in (0, 3, 4):
        std, mean = card.input.std[channel], card.input.mean[channel]
        session = opened(card, one_of(channel, layout, std * 255, mean * 255), runtime)
        found = session.predict(images)
        assert (session.batches, found.faults) == (True, {})
        assert np.array_equal(found.masks, images[..., channel])


@BOTH
def test_bands_in_eight_bits(runtime: Runtime) -> None:
    images = noise()
    graph = reading("int8", 1.0, -128, channel=4, channels=5)
    assert np.array_equal(opened(card_of(), graph, runtime).predict(images).masks, images[..., 4])


@BOTH
def test_a_graph_of_other_channels_is_refused(runtime: Runtime) -> None:
    assert message(lambda: opened(card_of(), one_of(0, "NCHW", channels=4), runtime)).endswith(
        "the graph takes 4 channels, input.bands names 5"
    )
    colour = grey_card(channels="RGB", mean=(0.0,) * 3, std=(1.0,) * 3, height=SIZE[0], width=SIZE[1])
    assert message(lambda: opened(colour, one_of(0, "NCHW"), runtime)).endswith(
        "the graph takes 5 channels, an image has 3: check input.layout and the weights; for images of more bands set "
        "input.bands"
    )
    with pytest.raises(ValueError, match="expected uint8 images of shape"):
        open_session(card_of(), as_weights(one_of(0, "NCHW")), runtime).predict(noise()[..., :3])


# ---- the card

WITH_BANDS = changed('channels = "RGB"', "bands = [4, 3, 2, 8]").replace(", pad = [1, 2, 3]", "")


def test_the_card_of_bands(capsys: pytest.CaptureFixture[str]) -> None:
    card = parse_card(WITH_BANDS)
    entry = card.input
    assert (entry.channels, entry.bands, entry.depth, entry.planes) == ("BANDS", (4, 3, 2, 8), 4, 4)
    assert (entry.mean, entry.std, entry.resize.pad) == ((0.0,) * 4, (1.0,) * 4, (0,) * 4)
    assert ModelCard.model_validate(card.model_dump(mode="json")) == card
    ranged = parse_card(WITH_BANDS.replace("[4, 3, 2, 8]", "[4, 3]\nband_range = [0, 3000]"))
    assert ModelCard.model_validate(ranged.model_dump(mode="json")) == ranged
    assert ranged.input.band_range == (0, 3000)
    print_card(ranged)
    assert "Nx2x32x48 NCHW, bands 4, 3 (16 bits, 0 to 3000), 0-255" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed('"RGB"', '"BANDS"'), 'input: channels = "BANDS" and bands = [...] go together'),
        (changed('"RGB"', '"RGB"\nbands = [1, 2, 3]'), 'input: channels = "BANDS" and bands = [...] go together'),
        (changed('"RGB"', '"RGB"\nband_range = [0, 1]'), "input: band_range = [low, high] is for 16-bit bands"),
        (WITH_BANDS.replace("8]", "8]\nband_range = [9, 9]"), "input: band_range = [low, high] is for 16-bit bands"),
        (WITH_BANDS.replace("8]", "8]\nband_range = [0, inf]"), "input.band_range.1: expected a number, not inf"),
        (WITH_BANDS.replace("[4, 3, 2, 8]", "[]"), "input.bands: expected a list of 1 to 64"),
        (WITH_BANDS.replace("[4, 3, 2, 8]", "4"), ":\n  input.bands: expected a list of 1 to 64, not 4"),
        (WITH_BANDS.replace("8]", "0]"), "input.bands.3: expected a whole number from 1 to 1024, not 0"),
        (WITH_BANDS.replace("8]", "8]\nmean = [1.0]"), "input: mean has 1 value, but bands needs 4"),
        (
            changed('channels = "RGB"', "bands = [4, 3, 2, 8]"),
            "input: resize.pad has 3 values, but an image has 4 channels",
        ),
        (changed("[1, 2, 3]", "[1]"), "input: resize.pad has 1 value, but an image has 3 channels"),
    ],
)
def test_bands_that_do_not_fit_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_card(text)
    assert said in str(caught.value)
