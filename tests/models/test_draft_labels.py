"""`segment models draft --labels`: guesses are decided by labelled images, or stay guesses."""

from pathlib import Path
from typing import Any

import pytest

from segment.models.card import load_card
from tests.calls import Call
from tests.datasets import Item, encoded, write_files
from tests.graphs import colour_classifier, painted

# Of a network that takes blue first and 0 to 255, which no file says.
CARD = """
name = "net"
[input]
layout = "NCHW"
height = 24
width = 32
channels = "BGR"
[output]
kind = "logits"
layout = "NCHW"
[classes]
names = ["a", "b", "c", "d"]
palette = [[100, 120, 140], [130, 120, 105], [115, 145, 120], [115, 95, 130]]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "right.toml").write_text(CARD)
    (tmp_path / "net.onnx").write_bytes(colour_classifier(load_card(str(tmp_path / "right.toml"))))
    return tmp_path / "net.onnx"


def write_data(folder: Path, model: Path, shift: int = 0, images: int = 5) -> dict[str, Any]:
    pairs = [painted(load_card(str(model.parent / "right.toml")), seed, block=6) for seed in range(images)]
    items = [Item(f"{number}.png", encoded(image), encoded(mask + shift)) for number, (image, mask) in enumerate(pairs)]
    return write_files(folder, items)


def test_labels_decide_guesses(segment: Call, model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", model)

    drafted = segment("models", "draft", str(model), data["input"], "--labels", data["labels"], "--to", f"{model}.toml")

    assert drafted.code == 0
    text, right = Path(f"{model}.toml").read_text(), load_card(str(tmp_path / "right.toml"))
    found = load_card(f"{model}.toml")
    assert (found.input.channels, found.input.maximum) == ("BGR", 255)
    assert (found.input.mean, found.input.std) == (right.input.mean, right.input.std)
    assert "# Known: measured on 5 labelled images: 100.0 %, next RGB: " in text
    assert "# Known: measured on 5 labelled images: 100.0 %, next " in text.partition("channels = ")[2]
    assert "measured: BGR, 0 to 255: 100.0 %, RGB, ImageNet: " in drafted.err
    assert "; guessed was RGB, ImageNet (" in drafted.err
    assert "0.png: " in drafted.err
    assert "guessed, check them: resize; classes\n" in drafted.err  # no image here has a border
    run = f"segment run {data['input']} OUTPUT --model {model}.toml --labels {data['labels']}"
    assert drafted.err.endswith(f"\nrun it by `{run}`\n")


def test_numbers_of_labels_are_told(segment: Call, model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", model, shift=1)

    drafted = segment("models", "draft", str(model), data["input"], "--labels", data["labels"])

    assert drafted.code == 0
    remap = 'label_remap = { 0 = "ignore", 1 = 0, 2 = 1, 3 = 2, 4 = 3 }'
    assert f"read the labels so, in a job file: {remap}" in drafted.err
    assert "the labels are numbered from 1, 0 ignored" in drafted.out
    assert 'channels = "BGR"' in drafted.out
    to = segment("models", "draft", str(model), data["input"], "--labels", data["labels"], "--to", f"{model}.toml")
    flags = "--label-remap 0=ignore --label-remap 1=0 --label-remap 2=1 --label-remap 3=2 --label-remap 4=3"
    assert to.err.endswith(f" --model {model}.toml --labels {data['labels']} {flags}`\n")


def test_labels_that_say_nothing_leave_guesses(segment: Call, model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", model, images=7)
    files = sorted(Path(data["labels"]).iterdir())
    labels = [file.read_bytes() for file in files]
    for file, label in zip(files, [*labels[1:], labels[0]], strict=True):  # each that of another image
        file.write_bytes(label)

    drafted = segment("models", "draft", str(model), data["input"], "--labels", data["labels"])

    assert drafted.code == 0
    assert "nothing can be said: no reading is above chance level" in drafted.err
    assert "measured" not in drafted.out
    assert "guessed, check them: channels; maximum, mean, std" in drafted.err


def test_labels_of_other_classes_are_told_with_those_of_the_card(segment: Call, model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", model, shift=90)

    drafted = segment("models", "draft", str(model), data["input"], "--labels", data["labels"])

    assert drafted.code == 2
    assert "none of the labelled images can be used" in drafted.err
    assert "\nclasses of the card: 0 class-0, 1 class-1, " in drafted.err
    assert drafted.err.endswith("\nWithout --labels the card is drafted, and holds guesses\n")


def test_options_that_need_others(segment: Call, model: Path) -> None:
    alone = segment("models", "draft", str(model), "--labels", "labels")
    assert (alone.code, "name their folder after the model" in alone.err) == (2, True)
    remap = segment("models", "draft", str(model), "photos", "--label-remap", "1=0")
    assert (remap.code, "name the labels, too" in remap.err) == (2, True)
