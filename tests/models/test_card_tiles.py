"""`[input.tiles]` of a card: what is refused and how, and that a card without it is what it was."""

import pytest

from segment.errors import UsageError
from segment.models.card import ModelCard, load_card, parse_card
from segment.models.card_tiles import Tiles
from tests.runs import CARD, CARD_TOML


def with_tiles(tiles: str = "{}", **changes: str) -> ModelCard:
    text = CARD_TOML.replace('channels = "RGB"', f'channels = "RGB"\ntiles = {tiles}')
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return parse_card(text)


def test_defaults_and_units() -> None:
    assert with_tiles().input.tiles == Tiles(overlap=0.25, blend="centre", pad="reflect")
    assert Tiles().overlap_of(480) == 120
    assert Tiles(overlap=64).overlap_of(480) == 64
    assert Tiles(overlap=0).overlap_of(480) == 0
    assert with_tiles("{ overlap = 0.5, blend = 'confidence', pad = 'constant' }").input.tiles is not None


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        ("{ overlap = 0.95 }", "a fraction goes up to 0.9, and a number of pixels begins at 1"),
        ("{ overlap = 1.5 }", "from 1 on it is a number of pixels, which is whole"),
        ("{ overlap = 22 }", "tiles.overlap is 22 pixels, and with height = 24 it can be 21 at most"),
        ("{ overlap = true }", "expected a number from 0 up"),
        ("{ blend = 'vote' }", "expected 'centre', 'confidence' or 'mean'"),
        ("{ scale = 0.5 }", "a whole factor, which is `shrink`"),
        ("{ shrink = 1.5 }", "expected a whole number"),
        ("{ shrink = 0 }", "expected a whole number from 1 to 64, not 0"),
        ("{ overlapp = 3 }", "Did you mean 'overlap'"),
        (
            "{}\nresize = { method = 'letterbox' }",
            "with tiles no image is resized: leave out all of resize but resize.pad",
        ),
    ],
)
def test_refusals(tiles: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_tiles(tiles)


def test_what_does_not_fit_the_rest_of_the_card() -> None:
    with pytest.raises(UsageError, match=r"metric\.resolution = 'model' is the size of one tile"):
        with_tiles(resolution=('resolution = "source"', 'resolution = "model"'))
    index = ('kind = "logits"\nlayout = "NCHW"', 'kind = "index"\nlayout = "NHW"')
    with pytest.raises(UsageError, match="tiles have one size"):
        with_tiles(size=("height = 24\nwidth = 32", "height = 'image'\nwidth = 'image'"))
    assert with_tiles(index=index).input.tiles is not None
    for blend in ("confidence", "mean"):
        with pytest.raises(UsageError, match=f"blend = '{blend}' needs scores"):
            with_tiles(f"{{ blend = '{blend}' }}", index=index)
    values = load_card("demo-streets").model_dump(mode="json")
    values["input"] |= {"tiles": {"blend": "mean"}, "resize": {}}
    values["output"] |= {"kind": "sigmoid", "threshold": 0.4}
    values["classes"] |= {"names": ["no", "yes"], "palette": [[0, 0, 0], [1, 1, 1]], "ignore": [], "void_colours": []}
    with pytest.raises(ValueError, match="takes the class of the higher mean"):
        ModelCard.model_validate(values)


def test_a_dump_is_read_back_and_says_nothing_of_tiles_that_are_off() -> None:
    card = with_tiles("{ overlap = 8 }\nresize = { pad = [1, 2, 3] }")
    assert ModelCard.model_validate(card.model_dump(mode="json")) == card
    assert "shrink" not in card.model_dump(mode="json")["input"]["tiles"]
    for plain in (CARD, load_card("unet-camvid-onnx-0001")):
        assert "tiles" not in plain.model_dump(mode="json")["input"]
