"""The table `input` of a card: the image's own size, and how images are brought to the model's."""

import pytest

from segment.models.card import ModelCard, load_card, parse_card
from segment.output.identity import identity_of
from segment.report.cards import print_card
from tests.models.test_card import CARD, refusal

RESIZE = 'resize = { method = "letterbox", resampler = "opencv", interpolation = "area", pad = [1, 2, 3] }\n'
BOTH_SIDES = "input: height and width are both 'image', or both numbers"
ANY_SIZE = CARD.replace("height = 32", 'height = "image"').replace("width = 48", 'width = "image"').replace(RESIZE, "")


def with_input(line: str, text: str = ANY_SIZE) -> str:
    return text.replace("[output]", f"{line}\n[output]")


def test_the_image_s_own_size(capsys: pytest.CaptureFixture[str]) -> None:
    card = parse_card(ANY_SIZE)
    entry = card.input
    assert (entry.is_dynamic, entry.multiple_of, entry.resize.method, entry.sides) == (True, 32, "none", ("image",) * 2)
    assert [entry.size_for(size) for size in ((1, 32), (33, 500), (512, 513))] == [(32, 32), (64, 512), (512, 576)]
    assert parse_card(with_input("multiple_of = 8")).input.size_for((33, 8)) == (40, 8)
    assert card.at((64, 96)).output_width == 96
    print_card(card)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nx3ximageximage NCHW, RGB" in shown
    assert "none, border to multiples of 32 right and below, (0, 0, 0)" in shown


def test_a_dump_is_the_card_again() -> None:
    for text in (ANY_SIZE, CARD, with_input('resize = { method = "short_side", short_side = 24, pad = [9, 9, 9] }')):
        card = parse_card(text)
        assert ModelCard.model_validate(card.model_dump(mode="json")) == card
    dump = parse_card(ANY_SIZE).model_dump(mode="json")["input"]
    assert (dump["height"], dump["width"], dump["multiple_of"]) == ("image", "image", 32)


def test_new_fields_do_not_change_the_identity_of_other_cards() -> None:
    entry = identity_of(load_card("unet-camvid-onnx-0001"))["card"]["input"]
    assert set(entry) == {"name", "layout", "height", "width", "channels", "maximum", "mean", "std", "resize"}
    assert set(entry["resize"]) == {"method", "anchor", "resampler", "interpolation", "pad"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ANY_SIZE.replace('width = "image"', "width = 48"), BOTH_SIDES),
        (ANY_SIZE.replace('"image"', '"imge"', 1), BOTH_SIDES),
        (CARD.replace("= 32", '= "imge"'), "input.height: expected a whole number from 1 to 16384 or 'image', not "
         "'imge'. Did you mean 'image'?"),
        (with_input("multiple_of = 32", CARD), "input: multiple_of is for height = 'image' and width = 'image'"),
        (with_input("multiple_of = 0"), "input.multiple_of: expected a whole number from 1 to 1024, not 0"),
        (with_input('resize = { method = "stretch" }'), "input: height = 'image' leaves an image its shape: "
         "resize.method = 'none' or 'short_side', not 'stretch'"),
        (with_input('resize = { anchor = "centre" }'), "input: height = 'image' pads right and below: "
         "resize.anchor = 'top-left'"),
        (with_input('resize = { method = "short_side" }'),
         "input.resize: method = 'short_side' and short_side = PIXELS go together"),
        (with_input("resize = { short_side = 24 }"),
         "input.resize: method = 'short_side' and short_side = PIXELS go together"),
        (CARD.replace('"letterbox"', '"short_side", short_side = 24'), "input: resize.method = 'short_side' leaves the "
         "longer side open, and nothing is cropped, as a mask has every pixel of its image: set height = 'image' and "
         "width = 'image'"),
        (ANY_SIZE.replace('kind = "logits"', 'kind = "logits"\nheight = 8'),
         "output.height and output.width follow from the image where input.height = 'image'"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)
