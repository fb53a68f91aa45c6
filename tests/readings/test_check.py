"""`segment check` on small graphs that classify by colour: each wrong setting of a card is found, and no right one."""

import hashlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment.cli.check import _UNUSED
from segment.drafts.contract import Said
from segment.drafts.drafting import _decided
from segment.job import Job, make_job
from segment.metrics import CONVENTIONS, Confusion, score
from segment.models.card import ModelCard, load_card
from segment.models.sessions.apart_process import Passing
from segment.readings.alternatives import Reading
from segment.readings.bench import middle
from segment.readings.checking import check_card
from segment.readings.evidence import Evidence
from segment.readings.numbering import decoded
from segment.readings.search import Found, Tried
from segment.readings.verdict import SPLIT, _level, _open_rivals, card_lines, percent
from tests.calls import Call
from tests.datasets import Item, encoded, write_files, write_parquet, write_tars
from tests.graphs import colour_classifier, painted
from tests.nets import net, node

# Colours so near each other that the order of channels and any normalisation matter.
PALETTE = [(100, 120, 140), (130, 120, 105), (115, 145, 120), (115, 95, 130)]
ORT = ("--runtime", "onnxruntime", "--images", "6")
IMAGENET = {"maximum": 1, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def write_card(folder: Path, name: str = "card.toml", **changes: Any) -> Path:
    """Write a card; `changes` are keys of `[input]`."""
    values: dict[str, Any] = {"layout": "NCHW", "height": 24, "width": 32, "channels": "RGB", **IMAGENET, **changes}
    lines = [f"{key} = {value if not isinstance(value, str) else repr(value)}" for key, value in values.items()]
    classes = f"names = ['a', 'b', 'c', 'd']\npalette = {[list(colour) for colour in PALETTE]}\nignore = [255]"
    text = "\n".join(
        ["name = 'colours'", "[input]", *lines, "[output]", "kind = 'logits'", "layout = 'NCHW'", "[classes]", classes]
    )
    (folder / name).write_text(text)
    return folder / name


def items(card: ModelCard, number: int = 6, shift: int = 0, void: bool = False) -> list[Item]:
    """Blocks of class colours with noise, and their labels."""
    found = []
    for seed in range(number):
        image, mask = painted(card, seed, block=6)
        noise = np.random.default_rng(seed).normal(0, 6, image.shape)
        label = mask.astype(int) + shift
        label[label < 0] = 255  # the first class has no label
        if void:
            label[0] = 255
        noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
        found.append(Item(f"{seed}.png", encoded(noisy), encoded(label.astype(np.uint8))))
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of RGB with ImageNet's normalisation."""
    path = tmp_path / "net.onnx"
    path.write_bytes(colour_classifier(load_card(str(write_card(tmp_path)))))
    return path


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    return write_files(tmp_path / "data", items(load_card(str(write_card(tmp_path))), void=True))


def check(segment: Call, data: dict[str, Any], card: Path, model: Path, *others: str) -> Call:
    labels = ["--labels", data["labels"]] if "labels" in data else []
    return segment("check", data["input"], *labels, "--model", str(card), "--weights", str(model), *ORT, *others)


def test_a_right_card_agrees(
    segment: Call, data: dict[str, Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    checked = check(segment, data, write_card(tmp_path), model)

    assert checked.code == 0
    assert re.search(r"the card agrees with the labels: it has \d\d\.\d %, and chance \d+\.\d %; no other", checked.out)
    assert "readings on up to 6 of 6 labelled images, " in checked.out
    assert re.search(r" % \(6\) +the card {2,}RGB, ImageNet, labels as they are", checked.out), checked.out
    assert max(map(len, checked.out.partition("\n\n")[0].splitlines())) <= 80  # the table
    assert "letterbox" not in checked.out  # no image has a border


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"channels": "BGR"}, "; the card says BGR"),
        ({"maximum": 255}, "; the card says maximum 255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"),
        ({"mean": [0.0] * 3, "std": [1.0] * 3}, "ImageNet: "),
        ({"maximum": 255, "mean": [0.0] * 3, "std": [1.0] * 3}, "; the card says 0 to 255"),
        ({"channels": "BGR", "maximum": 255, "mean": [0.0] * 3, "std": [1.0] * 3}, "; the card says BGR, 0 to 255"),
        ({"channels": "BGR", "mean": IMAGENET["mean"][::-1], "std": IMAGENET["std"][::-1]}, "RGB"),
    ],
)
def test_a_wrong_setting_is_found(
    wrong: dict[str, Any], said: str, segment: Call, data: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    card = write_card(tmp_path, "wrong.toml", **wrong)

    checked = check(segment, data, card, model)

    assert checked.code == 1
    assert said in checked.out
    lines = checked.out.partition("Change these lines of the card:")[2].strip()
    advised = {**tomllib.loads(card.read_text())["input"], **tomllib.loads(lines)["input"]}
    right = tomllib.loads(write_card(tmp_path).read_text())["input"]
    assert advised == right


@pytest.mark.parametrize(
    ("shift", "said", "entry"),
    [(1, "labels numbered from 1, 0 ignored: ", ("1", 0)), (-1, "labels numbered from class 1 on: ", ("0", 1))],
)
def test_shifted_labels_are_found(
    shift: int, said: str, entry: tuple[str, int], segment: Call, model: Path, tmp_path: Path
) -> None:
    card = write_card(tmp_path)
    data = write_files(tmp_path / "shifted", items(load_card(str(card)), shift=shift))

    checked = check(segment, data, card, model)

    assert checked.code == 1
    assert said in checked.out
    assert "Change these lines of the card" not in checked.out
    remap = tomllib.loads(checked.out[checked.out.index("label_remap = ") :])["label_remap"]
    assert remap[entry[0]] == entry[1]
    options = [text for key, value in remap.items() for text in ("--label-remap", f"{key}={value}")]
    again = check(segment, data, card, model, *options)
    assert again.code == 0
    assert "not tried: other numberings of the labels, as --label-remap says what they are" in again.out


def test_inputs_of_other_formats(segment: Call, model: Path, tmp_path: Path) -> None:
    card = write_card(tmp_path, "wrong.toml", channels="BGR")
    found = items(load_card(str(card)))
    for data in (write_tars(tmp_path / "tars", found), write_parquet(tmp_path / "parquet", found)):
        checked = check(segment, data, card, model)
        assert checked.code == 1
        assert '\nchannels = "RGB"\n' in checked.out


def test_labels_in_colours_have_one_numbering(segment: Call, model: Path, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    loaded = load_card(str(card))
    coloured = []
    for seed in range(5):
        image, mask = painted(loaded, seed, block=6)
        coloured.append(Item(f"{seed}.png", encoded(image), encoded(loaded.classes.palette_array[mask])))

    checked = check(segment, write_files(tmp_path / "coloured", coloured), card, model)

    assert checked.code == 0
    assert "not tried: other numberings of the labels, as they are colours" in checked.out


def test_resize_is_found(segment: Call, tmp_path: Path) -> None:
    """A network whose class is the place in its input: the right half, which a narrow image reaches only stretched."""
    ramp = np.zeros((1, 4, 24, 32), np.float32)
    ramp[:, 0, :, :16], ramp[:, 1, :, 16:] = 9, 9
    graph = net(
        tail=[node("Mul", "scores nothing", "none"), node("Add", "none ramp", "y")],
        constants={"nothing": np.zeros(1, np.float32), "ramp": ramp},
    )
    (tmp_path / "net.onnx").write_bytes(graph)
    label = np.repeat([[0] * 16 + [1] * 8], 24, axis=0).astype(np.uint8)
    images = [np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8) for seed in range(5)]
    narrow = [Item(f"{seed}.png", encoded(image), encoded(label)) for seed, image in enumerate(images)]
    data = write_files(tmp_path / "narrow", narrow)

    checked = check(segment, data, write_card(tmp_path), tmp_path / "net.onnx")

    assert checked.code == 1
    assert "letterbox top-left, border 0: 100.0 %, stretch: " in checked.out
    assert 'resize = { method = "letterbox" }' in checked.out
    assert "letterbox top-left, border 127 (100.0 %)" in checked.out.partition("not told apart: ")[2]
    right = write_card(tmp_path, "right.toml", resize="{ method = 'pad', pad = [127, 127, 127] }")
    right.write_text(right.read_text().replace('"{', "{").replace('}"', "}"))
    assert check(segment, data, right, tmp_path / "net.onnx").code == 0


def test_a_card_with_tiles_is_checked_on_the_middle_of_each_image(
    segment: Call, data: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    """The images are cut to 2 x 2 tiles of 8 x 16; the model is one of pixels, so each tile is right."""
    net = tmp_path / "small.onnx"
    tiles = {"height": 8, "width": 16}
    net.write_bytes(colour_classifier(load_card(str(write_card(tmp_path, **tiles)))))
    right, wrong = (write_card(tmp_path, f"{way}.toml", channels=way, **tiles) for way in ("RGB", "BGR"))
    for card in (right, wrong):
        card.write_text(card.read_text().replace("[output]", "tiles = { overlap = 2, blend = 'mean' }\n[output]"))
    checked = check(segment, data, right, net)
    assert checked.code == 0, checked.out
    assert "not tried: other resizes, as the card has tiles: of each image it sees the middle 2 x 2" in checked.out
    checked = check(segment, data, wrong, net)
    assert checked.code == 1
    assert 'channels = "RGB"' in checked.out
    picture = np.arange(24 * 40).reshape(24, 40).astype(np.uint8)
    assert np.array_equal(middle(picture, load_card(str(right)).input), picture[4:20, 4:36])
    assert middle(picture[:3, :5], load_card(str(right)).input).shape == (3, 5)


def test_a_graph_of_bytes_has_fewer_readings(segment: Call, data: dict[str, Any], tmp_path: Path) -> None:
    bytes_card = {"channels": "BGR", "maximum": 255, "mean": [0.0] * 3, "std": [1.0] * 3}
    right = load_card(str(write_card(tmp_path, "right.toml", **bytes_card)))
    (tmp_path / "bytes.onnx").write_bytes(colour_classifier(right, input_dtype="uint8"))
    card = write_card(tmp_path, "wrong.toml", **{**bytes_card, "channels": "RGB"})

    checked = check(segment, data, card, tmp_path / "bytes.onnx")

    assert checked.code == 1
    assert "not tried: value range and normalisation, as the graph takes bytes" in checked.out
    assert '[input]\nchannels = "BGR"' in checked.out


def test_an_ensemble_is_checked_as_one_model(segment: Call, data: dict[str, Any], model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    file = {"url": model.name, "size": len(content), "sha384": hashlib.sha384(content).hexdigest()}
    weights = ", ".join(f"{key} = {value!r}" for key, value in file.items())
    card = write_card(tmp_path, channels="BGR")
    card.write_text(card.read_text() + f"\n[[ensemble]]\nweights = [{{ {weights} }}]" * 2)

    checked = segment("check", data["input"], "--labels", data["labels"], "--model", str(card), *ORT)

    assert checked.code == 1
    assert '[input]\nchannels = "RGB"' in checked.out


def test_black_and_white_masks(segment: Call, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    text = card.read_text().replace("['a', 'b', 'c', 'd']", "['a', 'b']")
    card.write_text(text.replace(str([list(colour) for colour in PALETTE]), str([list(c) for c in PALETTE[:2]])))
    loaded = load_card(str(card))
    (tmp_path / "two.onnx").write_bytes(colour_classifier(loaded))
    pairs = [painted(loaded, seed, block=6) for seed in range(5)]
    black = [Item(f"{n}.png", encoded(image), encoded(mask * 255)) for n, (image, mask) in enumerate(pairs)]

    checked = check(segment, write_files(tmp_path / "black", black), card, tmp_path / "two.onnx")

    assert checked.code == 1
    assert "label_remap = { 255 = 1 }" in checked.out


def test_two_classes_in_the_other_order(segment: Call, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    text = card.read_text().replace("['a', 'b', 'c', 'd']", "['a', 'b']")
    greys = [(60, 60, 60), (180, 180, 180)]  # which no order of channels exchanges
    card.write_text(text.replace(str([list(colour) for colour in PALETTE]), str([list(grey) for grey in greys])))
    loaded = load_card(str(card))
    (tmp_path / "two.onnx").write_bytes(colour_classifier(loaded))
    pairs = [painted(loaded, seed, block=6) for seed in range(5)]
    other = [Item(f"{n}.png", encoded(image), encoded(1 - mask)) for n, (image, mask) in enumerate(pairs)]

    checked = check(segment, write_files(tmp_path / "other", other), card, tmp_path / "two.onnx")

    assert checked.code == 2
    assert "below chance: are the two classes in the other order?" in checked.err


def test_where_nothing_can_be_said(segment: Call, data: dict[str, Any], model: Path, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    none = segment("check", data["input"], "--model", str(card), "--weights", str(model))
    assert none.code == 2
    assert "no image of the input has a label" in none.err

    few = check(segment, write_files(tmp_path / "few", items(load_card(str(card)), 3)), card, model)
    assert few.code == 2
    assert "only 3 labelled images can be used" in few.err

    foreign = [
        Item(item.name, item.image, encoded(np.full((24, 32), 77, np.uint8))) for item in items(load_card(str(card)))
    ]
    unusable = check(segment, write_files(tmp_path / "foreign", foreign), card, model)
    assert unusable.code == 2
    assert "none of the labelled images can be used" in unusable.err
    assert "6 x label_value: " in unusable.err
    names = load_card(str(card)).classes.names
    assert unusable.err.endswith(f"\nclasses of the card: {', '.join(f'{n} {name}' for n, name in enumerate(names))}\n")

    other = items(load_card(str(card)), 7)
    mixed = [Item(one.name, one.image, two.label) for one, two in zip(other, [*other[1:], other[0]], strict=True)]
    chance = check(segment, write_files(tmp_path / "mixed", mixed), card, model)
    assert chance.code == 2
    assert "nothing can be said: no reading is above chance level beyond the noise" in chance.err

    void = [Item(item.name, item.image, encoded(np.full((24, 32), 255, np.uint8))) for item in other]
    blank = check(segment, write_files(tmp_path / "void", void), card, model)
    assert blank.code == 2
    assert "nothing can be said: no pixel of the labels is of a class that counts" in blank.err
    assert blank.out.count(" the card  ") == 1


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_evidence_counts_as_the_metric_does(convention: Any) -> None:
    card = load_card("unet-camvid-onnx-0001")
    card = card.model_copy(update={"metric": card.metric.model_copy(update={"convention": convention})})
    counts = np.random.default_rng(5).integers(0, 50, (6, 12, 13))  # class 11 is ignored, and predicted
    failed, counts[:, :, 12] = counts[:, :, 12].sum(axis=0), 0
    found = Evidence.of(counts, card)
    total = Confusion(np.vstack([counts.sum(axis=0)[:, :12], np.zeros((1, 12), np.int64)]))
    assert found.miou(np.ones((1, 6)))[0] == pytest.approx(score(total, (11,), convention).miou, abs=1e-12)
    counts[0, :, 12] = failed  # pixels without a prediction are missed
    missed = Evidence.of(counts, card).labelled - found.labelled
    assert missed.sum(axis=0).tolist() == [*failed[:11].tolist(), 0]


def test_options_that_a_check_does_not_use_are_none_of_its(segment: Call, data: dict[str, Any], model: Path) -> None:
    assert set(_UNUSED) < set(Job.model_fields)
    refused = segment("check", data["input"], "--workers", "2", "--model", "x.toml")
    assert refused.code == 2
    assert "there is no option --workers" in refused.err


def test_images_that_cannot_be_used_are_told(segment: Call, model: Path, tmp_path: Path) -> None:
    card = write_card(tmp_path)
    found = items(load_card(str(card)), 9)
    broken = [Item(item.name, item.image[:80], item.label) if n < 2 else item for n, item in enumerate(found)]

    checked = check(segment, write_files(tmp_path / "broken", broken), card, model)

    assert checked.code == 0
    assert "left out: " in checked.out
    assert "undecodable: the image is damaged" in checked.out


def test_more_images_where_a_few_leave_it_open(model: Path, tmp_path: Path) -> None:
    """Noise so strong that four images do not tell the order of channels."""
    card = write_card(tmp_path, "wrong.toml", channels="BGR")
    loaded = load_card(str(write_card(tmp_path)))
    grey = []
    for seed in range(40):  # three images in four are grey and tell nothing
        image, mask = painted(loaded, seed, block=6)
        if seed % 4:
            image = np.repeat(image[:, :, :1], 3, axis=2)
        noisy = np.clip(image + np.random.default_rng(seed).normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        grey.append(Item(f"{seed:02}.png", encoded(noisy), encoded(mask)))
    data = write_files(tmp_path / "grey", grey)
    given = {"model": str(card), "weights": str(model), "runtime": "onnxruntime", "output": "memory://none"}
    job = make_job({**data, **given})
    notes: list[str] = []

    found = check_card(job, images=4, note=notes.append).found

    assert {len(item.evidence) for item in found.tried} >= {4, 8}
    assert len(found.card.evidence) > 4
    assert any("images leave" in line for line in notes)
    passing = [line for line in notes if isinstance(line, Passing)]
    assert passing[:6] == [
        "listing the input",
        *(f"reading labelled images: {number} of 4" for number in range(1, 5)),
        "choosing the runtime, and loading the model",
    ]
    steps = [line for line in passing if line.endswith("image 4 of 4")]
    assert steps[0] == "the card: 1 of 1, image 4 of 4"
    assert "readings: 2 of 28, image 4 of 4" in steps
    assert "reading labelled images: 8 of 8" in passing
    assert "more images: reading 1 of 5, image 5 of 8" in passing
    assert found.best.reading.channels == "RGB"


def test_a_reading_that_may_be_better_is_named_with_its_noise() -> None:
    """Better by more than 2 points, and not beyond the noise: the verdict does not say that the card agrees."""
    spread = np.array([-300, 400, -200, 500, -300, 200])[:, None]  # on average 50 of 1,000 pixels more
    counts = np.zeros((2, 6, 3, 4), np.int64)
    for number, right in enumerate((np.full((6, 3), 500), 500 + np.repeat(spread, 3, axis=1))):
        for index in range(3):
            counts[number, :, index, index] = right[:, index]
            counts[number, :, index, 3] = 1000 - right[:, index]
    card = load_card("demo-streets")
    card = card.model_copy(update={"classes": card.classes.model_copy(update={"ignore": ()})})
    reading = Reading.of(card, decoded())
    one, other = (
        Tried(replace(reading, channels=channels), Evidence.of(some, card))
        for channels, some in zip(("RGB", "BGR"), counts, strict=True)
    )
    difference = other.against(one)
    assert difference.miou.value > 0.02
    assert not difference.is_better
    found = Found(one, one, (other, one), 12, 0, 1.0)
    (words,) = _open_rivals(found)
    assert words.startswith("BGR has ")
    assert f"({difference.miou} points, image by image {difference.by_image})" in words
    assert list(_open_rivals(Found(other, other, (other, one), 12, 0, 1.0))) == []


def contradicting() -> tuple[Tried, Tried]:
    """The second one finds a class of some images that the first never sees, and sees less of what all others show."""
    counts = np.zeros((2, 40, 3, 4), np.int64)
    counts[:, :, 0, 0] = 1000
    counts[1, :, 0, :2] = 600, 400
    counts[1, ::4, 0, :2] = 1000, 0
    counts[0, ::4, 2, 0] = counts[1, ::4, 2, 2] = 500
    card = load_card("demo-streets")
    card = card.model_copy(update={"classes": card.classes.model_copy(update={"ignore": ()})})
    reading = Reading.of(card, decoded())
    one, other = (
        Tried(replace(reading, channels=channels), Evidence.of(some, card))
        for channels, some in zip(("RGB", "BGR"), counts, strict=True)
    )
    assert other.against(one).miou.matters
    assert other.against(one).by_image.value < 0
    return one, other


@pytest.mark.parametrize("better", ["by mIoU", "image by image"])
def test_a_guess_that_is_better_by_one_measure_and_worse_by_the_other_stays_a_guess(better: str) -> None:
    one, other = contradicting()
    best, rival = (other, one) if better == "by mIoU" else (one, other)
    found = Found(best, best, (other, one), 80, 0, 1.0)
    said = _decided(Said(best.reading.channels, "usual", guessed=True), best.reading.channels, "channels", found)
    assert said.guessed
    told = f"{SPLIT} {rival.reading.channels}: {percent(rival)} (on 40 "
    assert told in said.why


def test_scores_of_other_images_are_told_apart() -> None:
    """One of the first images may be far higher than that of all, and yet of a reading that is worse."""
    card, other = contradicting()
    few = Tried(other.reading, card.evidence.first(10))
    (words,) = _level(Found(card, card, (few, card), 50, 0, 1.0), ())
    assert words == (
        "within the noise or 2 points of the card's values, so not told apart: BGR ("
        f"{percent(few)} on 10 images; +0.0 ± 0.0 points on those that both have seen)"
    )


def test_a_reading_that_is_better_by_one_measure_and_worse_by_the_other_is_told_as_such() -> None:
    one, other = contradicting()
    difference = other.against(one)
    (words,) = _level(Found(one, one, (other, one), 80, 0, 1.0), ())
    assert words == (
        f"{SPLIT} the card's values, so no advice: BGR ({percent(other)}: "
        f"better by mIoU, {difference.miou} points; worse image by image, {difference.by_image})"
    )
    back = one.against(other)
    (words,) = _level(Found(other, other, (other, one), 80, 0, 1.0), ())  # it is the card that is better by mIoU
    assert words == (
        f"{SPLIT} the card's values, so no advice: RGB ({percent(one)}: "
        f"worse by mIoU, {back.miou} points; better image by image, {back.by_image})"
    )
    (words,) = _level(Found(one, other, (other, one), 80, 0, 1.0), ("channels",))  # advice follows
    assert words.startswith(f"{SPLIT} the new values: RGB (")


def test_lines_of_a_card_that_is_right_are_none(tmp_path: Path) -> None:
    card = load_card(str(write_card(tmp_path)))
    assert card_lines(card, card) == []
