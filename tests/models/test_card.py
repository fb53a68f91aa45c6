"""Model cards: built-in cards, a user's card, and the message for each mistake."""

import tomllib
from pathlib import Path

import pytest

import segment
from segment.errors import StoreError, UsageError
from segment.images.labels import LabelDecoder
from segment.models.card import ModelCard, built_in_cards, load_card, parse_card
from segment.models.classes import Classes
from segment.models.validation import parse_toml
from segment.output.identity import fingerprint_of, identity_of
from segment.report.cards import print_card
from segment.store.client import Store
from tests.s3 import S3Server
from tests.web import Web

DIGEST = "0123456789abcdef" * 6

CARD = f"""
name = "mine"
source = "me"

[input]
layout = "NCHW"
height = 32
width = 48
channels = "RGB"
resize = {{ method = "letterbox", resampler = "opencv", interpolation = "area", pad = [1, 2, 3] }}

[output]
kind = "logits"
layout = "NCHW"

[classes]
names = ["sky", "road"]
palette = [[0, 0, 0], [255, 0, 0]]
ignore = [255]

[[weights]]
url = "mine.onnx"
size = 1
sha384 = "{DIGEST}"
"""


def refusal(text: str) -> str:
    """Return the error message for a card."""
    with pytest.raises(UsageError) as caught:
        parse_card(text)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert CARD.count(old) >= 1
    return CARD.replace(old, new, 1)


# ---- built-in cards


def test_the_built_in_cards_are_those_of_the_readme() -> None:
    assert set(built_in_cards()) >= {
        "deeplabv3-mobilenetv2",
        "deeplabv3-mobilenetv2-dm05",
        "deeplabv3-mobilenetv2-dm05-int8",
        "deeplabv3-mobilenetv2-int8",
        "icnet-camvid-ava-sparse-60-0001",
        "icnet-camvid-int8-onnx-0001",
        "unet-camvid-onnx-0001",
    }


@pytest.mark.parametrize("name", built_in_cards())
def test_every_built_in_card_is_whole(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.description
    assert card.licence
    assert card.source
    assert card.output_height * card.output_width > 0
    assert all("://" in file.url for file in card.weights)
    decoder = LabelDecoder(card.classes)
    assert decoder.classes.palette_array.shape == (len(card.classes), 3)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("name", "size", "layout", "kind", "published", "ignored"),
    [
        ("icnet-camvid-int8-onnx-0001", (768, 768), "NCHW", "probabilities", 0.6557, (11,)),
        ("icnet-camvid-ava-sparse-60-0001", (720, 960), "NHWC", "index", 0.7579, (11,)),
        ("unet-camvid-onnx-0001", (368, 480), "NCHW", "probabilities", 0.7195, (11,)),
        ("deeplabv3-mobilenetv2", (513, 513), "NHWC", "logits", 0.7532, ()),
        ("deeplabv3-mobilenetv2-dm05", (513, 513), "NHWC", "logits", 0.7019, ()),
        ("deeplabv3-mobilenetv2-int8", (513, 513), "NHWC", "index", 0.7426, ()),
        ("deeplabv3-mobilenetv2-dm05-int8", (513, 513), "NHWC", "index", 0.6965, ()),
    ],
)
def test_built_in_cards_say_what_was_published(
    name: str, size: tuple[int, int], layout: str, kind: str, published: float, ignored: tuple[int, ...]
) -> None:
    card = load_card(name)
    assert (card.input.height, card.input.width) == (card.output_height, card.output_width) == size
    assert (card.input.layout, card.output.kind) == (layout, kind)
    found = card.metric.published
    assert found
    assert (found.miou, card.classes.ignored_classes) == (published, ignored)
    assert (found.convention, found.resolution) == (card.metric.convention, card.metric.resolution)
    images = 1449 if "deeplab" in name else 101
    assert (found.images, bool(found.source), bool(found.dataset), found.split) == (images, True, True, "val")


def test_deeplab_cards_state_the_published_evaluation() -> None:
    for name in built_in_cards():
        if "deeplab" in name:
            resize = load_card(name).input.resize
            assert (resize.method, resize.anchor, resize.pad) == ("pad", "top-left", (127, 127, 127))


@pytest.mark.parametrize("name", built_in_cards())
def test_built_in_cards_leave_no_convention_to_a_default(name: str) -> None:
    text = (Path(segment.__file__).parent / "models" / "cards" / f"{name}.toml").read_text(encoding="utf-8")
    stated = tomllib.loads(text)
    assert {"convention", "resolution", "label_resampler"} <= stated["metric"].keys()
    assert {"resampler", "interpolation"} <= stated["input"]["resize"].keys()


def test_camvid_and_voc_classes() -> None:
    camvid, voc = load_card("unet-camvid-onnx-0001").classes, load_card("deeplabv3-mobilenetv2").classes
    assert (camvid.names[0], camvid.names[11], camvid.palette[4]) == ("Sky", "Unlabeled", (60, 40, 222))
    assert (voc.names[15], len(voc), voc.void_values, voc.void_colours) == ("person", 21, (255,), ((224, 224, 192),))


# ---- a user's card


def test_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my cards" / "50% müde.toml"
    path.parent.mkdir()
    path.write_text(CARD)
    card = load_card(str(path))
    assert card.weights[0].url == f"file://{tmp_path}/my cards/mine.onnx"
    assert (card.input.resize.pad, card.output_height, card.output_width) == ((1, 2, 3), 32, 48)
    monkeypatch.chdir(path.parent)
    assert load_card(path.name) == card
    assert load_card(f"./{path.name}") == card
    assert load_card(f"file://{path}") == card


def test_by_url(web: Web) -> None:
    url = web.put("/cards/mine.toml", CARD.encode())
    assert load_card(url).weights[0].url == f"{web.url}/cards/mine.onnx"
    assert load_card(f"{url}?X-Amz-Credential=a/b/c").weights[0].url == f"{web.url}/cards/mine.onnx"


def test_by_s3_url(s3_server: S3Server) -> None:
    store = Store(s3_server.options)
    bucket = s3_server.bucket_url("cards")
    store.write(f"{bucket}/a/mine.toml", CARD.encode())
    assert load_card(f"{bucket}/a/mine.toml", store).weights[0].url == f"{bucket}/a/mine.onnx"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mine.onnx", "s3://b/cards/mine.onnx"),
        ("./mine.onnx", "s3://b/cards/mine.onnx"),
        ("../models/mine.onnx", "s3://b/models/mine.onnx"),
        ("/models/mine.onnx", "file:///models/mine.onnx"),
        ("https://example.com/mine.onnx?v=2", "https://example.com/mine.onnx?v=2"),
    ],
)
def test_weights_are_relative_to_the_card(url: str, expected: str) -> None:
    assert parse_card(changed("mine.onnx", url), base="s3://b/cards").weights[0].url == expected


def test_a_card_in_the_root_folder() -> None:
    assert parse_card(CARD, base="file:///").weights[0].url == "file:///mine.onnx"


def test_no_such_card(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"named 'unet-camvid-0001'\. Did you mean 'unet-camvid-onnx-0001'\?.*`segment models`"
    ):
        load_card("unet-camvid-0001")
    with pytest.raises(UsageError, match=r"no model card named 'zzz'\. `segment models` lists"):
        load_card("zzz")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zzz.toml").touch()
    with pytest.raises(UsageError, match=r"named 'zzz'\. Did you mean 'zzz\.toml'\? "):
        load_card("zzz")
    with pytest.raises(UsageError, match="no model card named 'zzzz"):
        load_card(4000 * "z")
    for reference in (f"{tmp_path}/none.toml", f"{web.url}/none.toml"):
        with pytest.raises(UsageError, match=r"no model card at .*/none\.toml"):
            load_card(reference)


def test_a_card_that_may_not_be_read(web: Web) -> None:
    with pytest.raises(StoreError, match=r"could not read .*/mine\.toml\?\*\*\*: permission denied") as caught:
        load_card(web.put("/mine.toml", b"", status=403) + "?signature=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("reference", ["https://user:hunter2@example.com/a.toml", "s3://KEY:hunter2/x+y@bucket/a.toml"])
def test_secrets_in_the_reference(reference: str) -> None:
    with pytest.raises(UsageError, match="credentials in a URL would end up in logs") as caught:
        load_card(reference)
    assert "hunter2" not in str(caught.value)


def test_secrets_in_the_weights_of_a_card() -> None:
    with pytest.raises(UsageError, match=r"https://\*\*\*@example.com/mine.onnx: credentials") as caught:
        parse_card(changed("mine.onnx", "https://user:hunter2@example.com/mine.onnx"), base="/")
    assert "hunter2" not in str(caught.value)


def test_a_signature_of_weights_is_neither_recorded_nor_shown(capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://example.com/mine.onnx"
    card = parse_card(changed("mine.onnx", f"{url}?id=7&X-Amz-Signature=HUSH&X-Amz-Expires=9"), base="/")
    assert card.weights[0].url.endswith("X-Amz-Expires=9")  # reads use the signature
    print_card(card)
    told = capsys.readouterr().out
    assert "HUSH" not in card.model_dump_json() + told
    assert card.model_dump()["weights"][0]["url"] == f"{url}?id=7"
    assert f"{url}?***" in told


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(CARD.encode("utf-16"))
    with pytest.raises(UsageError, match=rf"model card {path} is not UTF-8 text"):
        load_card(str(path))


def test_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('{"name": "mine"}')
    with pytest.raises(UsageError, match=rf"model card {path} is not TOML: .*line 1"):
        load_card(str(path))


@pytest.mark.parametrize("text", ["a=" + "[" * 9999, "a=" + "{a=" * 9999, "a." * 9999 + "a=1", "a=" + "9" * 9999])
def test_toml_that_is_too_much_is_refused_at_once(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"is not TOML: .*(recursion|digits)|has a (line with more than 200 dots|whole number)"
    ):
        parse_card(text)


def test_whole_numbers_of_toml_have_64_bits() -> None:
    least, most = -(1 << 63), (1 << 63) - 1
    assert parse_toml(f"a = {least}\nb = {most}", "it") == {"a": least, "b": most}
    for beyond in (least - 1, most + 1):
        with pytest.raises(UsageError, match="it has a whole number beyond 64 bits"):
            parse_toml(f"a = [{{b = {beyond}}}]", "it")


def test_a_card_that_says_nothing_is_scored_as_most_tools_score() -> None:
    metric = parse_card(CARD).metric
    assert (metric.convention, metric.resolution, metric.published) == ("cityscapes", "source", None)


def test_a_published_score_is_a_table_or_a_bare_number() -> None:
    bare = parse_card(CARD + "[metric]\npublished = 0.5\n").metric.published
    table = parse_card(CARD + '[metric.published]\nmiou = 0.5\nimages = 7\ndataset = "Mine"\n').metric.published
    assert bare
    assert table
    assert (bare.miou, bare.images, bare.where) == (0.5, None, "")
    assert (table.miou, table.where) == (0.5, "Mine, 7 images")
    for published in (1, 0):
        found = parse_card(CARD + f"[metric]\npublished = {published}\n").metric.published
        assert found
        assert found.miou == published


def test_masks_have_the_size_of_the_input_or_of_a_larger_output() -> None:
    sizes = [("", (32, 48)), ("height = 8\nwidth = 12", (32, 48)), ("height = 64\nwidth = 96", (64, 96))]
    for stated, size in sizes:
        card = parse_card(changed('kind = "logits"', f'kind = "logits"\n{stated}'))
        assert (card.output_height, card.output_width) == size
        assert card.output.enlarging == "bilinear"
    index = parse_card(changed('kind = "logits"\nlayout = "NCHW"', 'kind = "index"\nlayout = "NHW"'))
    assert index.output.enlarging == "nearest"


# ---- wrong cards


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("height", "hieght", "  input.hieght: unknown key. Did you mean 'height'?"),
        ("source", "sorce", "  sorce: unknown key. Did you mean 'source'?"),
        ("interpolation", "interpol", "  input.resize.interpol: unknown key. Did you mean 'interpolation'?"),
        ("sha384", "sha256", "  weights.0.sha256: unknown key. Did you mean 'sha384'?"),
        ("ignore =", "ignored =", "  classes.ignored: unknown key. Did you mean 'ignore'?"),
        ("[output]", "[metric]\nmean = 1\n[output]", "  metric.mean: unknown key. Known: convention"),
    ],
)  # fmt: skip
def test_unknown_keys_name_the_nearest(old: str, new: str, line: str) -> None:
    assert any(found.startswith(line) for found in refusal(changed(old, new)).splitlines())


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ('name = "mine"', "name"),
        ('layout = "NCHW"', "input.layout"),
        ("height = 32", "input.height"),
        ('channels = "RGB"', "input.channels"),
        ('kind = "logits"', "output.kind"),
        ('names = ["sky", "road"]', "classes.names"),
        ("size = 1", "weights.0.size"),
    ],
)
def test_missing_keys_are_named(old: str, place: str) -> None:
    first, second = refusal(changed(old, "")).splitlines()
    assert first == "model card:"
    assert second.startswith(f"  {place}: this key is missing: ")


def test_an_empty_card_names_every_table() -> None:
    assert refusal("").splitlines()[1:] == [
        "  name: this key is missing: Name of the model.",
        "  input: this key is missing: Size, layout and normalisation of the graph's input.",
        "  output: this key is missing: Kind, layout and size of the graph's output.",
        "  classes: this key is missing: Names, palette and ignored values of the classes.",
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "logits"', 'kind = "index"', "output: layout 'NCHW' does not fit kind 'index': use one of NHW,"),
        ('"logits"\nlayout = "NCHW"', '"logits"\nlayout = "NHW"', "output: layout 'NHW' does not fit kind 'logits'"),
        ('kind = "logits"', 'kind = "softmax"', "output.kind: expected 'index', 'probabilities', 'logits' or "),
        ('kind = "logits"', 'kind = "multilabel"', "output.kind: several independent sigmoids give a pixel several "),
        ('kind = "logits"', 'kind = "logits"\nthreshold = 0.4', "output: threshold, logit and maximum are for kind "),
        ('kind = "logits"', 'kind = "sigmoid"\nthreshold = 1', "output.threshold: expected a number "),
        ('"logits"\nlayout = "NCHW"\n\n[classes]\nnames = ["sky", "road"]\npalette = [[0, 0, 0], ', '"sigmoid"\n'
         'layout = "NCHW"\n\n[classes]\nnames = ["sky", "road", "car"]\npalette = [[0, 0, 0], [1, 1, 1], ',
         "classes.names has 3 names, but output.kind = 'sigmoid' has two classes, the background first"),
        ('resampler = "opencv"', 'resampler = "pillow"', "input.resize: 'area' is an OpenCV interpolation"),
        ("height = 32", "height = 0", "input.height: expected a whole number from 1 to 16384 or 'image', not 0"),
        ("height = 32", "height = 32\nstd = [1, 0, 1]", "input: std must not contain a zero: pixels are divided by it"),
        ("height = 32", "height = 32\nmaximum = 127", "input.maximum: expected 255 or 1, not 127"),
        ("[255, 0, 0]]", "[256, 0, 0]]", "classes.palette.1.0: expected a whole number from 0 to 255, not 256"),
        (", [255, 0, 0]]", "]", "classes: 2 names but 1 palette colours: give one colour per class"),
        ('"road"', '"sky"', "classes: class names must be unique"),
        (DIGEST, DIGEST[1:], "weights.0.sha384: expected text like ^[0-9a-f]{96}$"),
        ("size = 1", "size = 0", "weights.0.size: expected a whole number above 0, not 0"),
        ('name = "mine"', 'name = "../mine"', "name: expected text like "),
        ('method = "letterbox"', 'method = "stretch", anchor = "centre"', "input.resize: 'stretch' has no border: "),
        ('method = "letterbox"', 'method = "pad", anchor = "center"', "input.resize.anchor: expected 'top-left' or "),
        ('"logits"\nlayout = "NCHW"', '"index"\nlayout = "NHW"\nenlarge = "bilinear"',
         "output: a class index can only be enlarged by 'nearest': between class 3 and class 5 is not class 4. "),
        ('"logits"', '"logits"\nenlarge = "cubic"', "output.enlarge: expected 'bilinear' or 'nearest', not 'cubic'"),
        ('"sky", "road"]\npalette = [[0, 0, 0], [255, 0, 0]]', '"road"]\npalette = [[255, 0, 0]]',
         "classes.names has one name, so every pixel has this class: name the background, too. "),
        ("[output]", "[metric]\npublished = 71.95\n[output]", "metric.published.miou: expected a number from 0 to 1"),
        ("[output]", "[metric.published]\nmiou = 0.5\nsplitt = 1\n[output]", "metric.published.splitt: unknown key."),
        ("[[weights]]", "[weights]", "weights: expected a list of at most 2"),
        (CARD[CARD.index("resize") : CARD.index("\n\n[output]")], "resize = 3", "input.resize: expected a table"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(old: str, new: str, words: str) -> None:
    assert f"\n  {words}" in refusal(changed(old, new))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC(HW)", "N(HW)C", "NHW", "N1HW", "NHW1", "N(HW)"])
def test_a_sigmoid_takes_any_layout_and_half_is_its_threshold(layout: str) -> None:
    output = parse_card(changed('"logits"\nlayout = "NCHW"', f'"sigmoid"\nlayout = "{layout}"')).output
    assert (output.threshold, output.logit, output.enlarging) == (0.5, False, "bilinear")


@pytest.mark.parametrize(
    ("more", "shown"), [("", "sigmoid > 0.5 NCHW"), ("logit = true\nthreshold = 0.25", "0.25 NCHW")]
)
def test_a_sigmoid_of_grey_images_is_shown(more: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = parse_card(changed('"logits"', f'"sigmoid"\n{more}').replace('"RGB"', '"GREY"', 1))
    print_card(card)
    said = capsys.readouterr().out
    assert shown in said
    assert ("(a logit)" in said) == bool(more)
    assert "Nx1x32x48 NCHW, GREY" in said


def test_a_dumped_card_is_a_card() -> None:
    card = parse_card(CARD)
    assert card.model_validate(card.model_dump(mode="json")) == card


def test_three_files_are_no_model() -> None:
    files = CARD[CARD.index("[[weights]]") :] * 2
    assert "\n  weights: expected a list of at most 2" in refusal(CARD + files)


def test_all_faults_are_reported_at_once() -> None:
    assert len(refusal(CARD.replace("height", "hieght").replace("kind", "kined")).splitlines()) == 5


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("demo-streets", "f4909bbfda68664da4a3a0cc8787a3e7928fb408c48944f5da50b9fd38473327"),
        ("unet-camvid-onnx-0001", "aa7be06ca277da7ab2516c5d25aa59fa4ba2539d5bee3b9ffee119fd52c78554"),
        ("deeplabv3-mobilenetv2-int8", "98da25f51ece395c0ea7ff01c3ce4f531c955e4ba557b47777483ec2aa3b027e"),
        ("icnet-camvid-int8-onnx-0001", "e8a83a0feb6e3d99615f729335fbc279a71ef8d7231360b7b4039a52b6a0a304"),
    ],
)
def test_fields_of_new_kinds_do_not_change_the_identity_of_runs(name: str, fingerprint: str) -> None:
    """As of 54adcc9: a run that was begun before a new field came is resumed."""
    assert fingerprint_of(identity_of(load_card(name, Store()))) == fingerprint


def test_names_that_differ_in_case_alone_are_told_apart() -> None:
    classes = Classes(names=("Road", "road", "sky"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    assert [classes.index(name) for name in ("Road", "road", "ROAD", "Sky")] == [0, 1, 0, 2]
