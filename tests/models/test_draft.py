"""`segment models draft`: cards of graphs that say much, little, or nothing; each is run before it is printed."""

import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import openvino
import pytest
from onnx import TensorProto

from segment.drafts.drafting import draft_card
from segment.drafts.exporters import read_hints
from segment.drafts.trial import Trial, Tried, picture_of, read_images
from segment.errors import ModelError, UsageError
from segment.images import codec
from segment.images.drawing import legend
from segment.models.card import load_card, parse_card
from segment.models.sessions.inspection import inspect_graph
from segment.models.sessions.onnx_facts import onnx_facts
from segment.readings.scalings import Scaling
from segment.store.client import Store
from tests.calls import Call
from tests.graphs import as_weights, colour_classifier
from tests.nets import net, node
from tests.tflites import Node, Tensor, described, tflite
from tests.web import Web

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of PyTorch without any metadata."""
    return written(tmp_path, net())


def written(folder: Path, graph: bytes, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(graph)
    return path


def an_ir(folder: Path, graph: bytes, tables: dict[str, dict[str, str]]) -> Path:
    """Save an ONNX model as OpenVINO IR, with tables in its rt_info."""
    read = openvino.Core().read_model(graph)
    for table, values in tables.items():
        for key, value in values.items():
            read.set_rt_info(value, [table, key])
    openvino.save_model(read, folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


# ---- the command


def test_the_card_goes_to_stdout_and_remarks_to_stderr(segment: Call, model: Path, tmp_path: Path) -> None:
    drafted = segment("models", "draft", str(model))

    assert drafted.code == 0
    assert tomllib.loads(drafted.out)["input"]["layout"] == "NCHW"
    assert "guessed, check them: channels; maximum, mean, std; resize; classes" in drafted.err
    assert "the card runs (" in drafted.err
    card = written(tmp_path, drafted.out.encode(), "printed.toml")
    assert load_card(str(card)).name == "net"


def test_to_writes_the_card_once(segment: Call, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.toml"

    assert segment("models", "draft", str(model), "--to", str(target)).code == 0
    first = target.read_text()
    assert 'url = "net.onnx"' in first  # beside it: the folder may move
    again = segment("models", "draft", str(model), "--to", str(target), "--name", "other")
    assert (again.code, target.read_text()) == (2, first)
    assert "exists already: another name, or --overwrite" in again.err
    over_itself = segment("models", "draft", str(model), "--to", str(model), "--overwrite")
    assert over_itself.code == 2
    assert "are files of their own, and not the model" in over_itself.err
    assert segment("models", "draft", str(model), "--to", str(target), "--name", "other", "--overwrite").code == 0
    assert load_card(str(target)).name == "other"


def test_a_run_takes_the_card_without_more(segment: Call, model: Path, tmp_path: Path) -> None:
    images, card = tmp_path / "images", tmp_path / "net.toml"
    images.mkdir()
    written(images, a_png(1), "a.png")
    assert segment("models", "draft", str(model), "--to", str(card)).code == 0

    ran = segment(
        "run", str(images), str(tmp_path / "out"), "--model", str(card), "--engine", "local", "--workers", "1"
    )

    assert ran.code == 0


def test_images_are_segmented_and_drawn(segment: Call, model: Path, tmp_path: Path) -> None:
    images, picture = tmp_path / "images", tmp_path / "look.png"
    images.mkdir()
    for seed in range(4):
        written(images, a_png(seed), f"{seed}.png")

    drafted = segment("models", "draft", str(model), str(images), "--picture", str(picture))

    assert drafted.code == 0
    assert [f"{seed}.png: " in drafted.err for seed in range(4)] == [True, True, True, False]
    assert "2 generated images and 3 of yours" in drafted.err
    drawn = codec.decode(picture.read_bytes(), 10**7)
    assert drawn.shape[1] == 2 * 320 + 3 * 6


@pytest.mark.parametrize("to", [True, False])
def test_a_picture_that_cannot_be_written_costs_no_card(segment: Call, model: Path, tmp_path: Path, to: bool) -> None:
    """It may have taken minutes."""
    image, card = written(tmp_path, a_png(1), "1.png"), tmp_path / "card.toml"
    (tmp_path / "file").touch()
    picture = tmp_path / "file" / "look.png"  # below a file

    where = ("--to", str(card)) if to else ()
    drafted = segment("models", "draft", str(model), str(image), "--picture", str(picture), *where)

    assert drafted.code == 1
    assert f"error: could not write {picture}: " in drafted.err.splitlines()[-1]
    assert "[classes]" in (card.read_text() if to else drafted.out)
    assert (f"card: {card}\n" in drafted.err) is to
    assert ("run it by `segment run " in drafted.err) is to


def test_images_of_a_folder_are_spread_over_it(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(codec.encode_png(np.zeros((2, 2, 3), np.uint8)))
    assert [name for name, _ in read_images(str(tmp_path), Store())] == ["0.png", "3.png", "6.png"]
    assert [name for name, _ in read_images(str(tmp_path / "9.png"), Store())] == ["9.png"]


def test_the_picture_ends_with_the_classes_seen_and_their_colours(tmp_path: Path) -> None:
    card = parse_card(draft_card(str(written(tmp_path, net()))).text)
    names, palette = card.classes.names, card.classes.palette
    mask = np.full((40, 60), 1, np.uint8)
    mask[:, 30:] = 3
    seen = Tried("a.png", np.full((40, 60, 3), 128, np.uint8), mask)

    drawn = codec.decode(picture_of(Trial("", (seen,), ()), card), 10**7)

    strip = legend([names[1], names[3]], [palette[1], palette[3]], drawn.shape[1])
    assert np.array_equal(drawn[-len(strip) :], strip)
    colours = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
    assert [palette[index] in colours for index in (1, 2, 3)] == [True, False, True]


def test_one_class_everywhere_is_doubted(tmp_path: Path) -> None:
    graph = net(
        tail=[node("Add", "scores bias", "y")],
        constants={"bias": np.eye(1, 4, 2, dtype=np.float32).reshape(1, 4, 1, 1) * 1e4},
    )
    image = written(tmp_path, a_png(0), "a.png")

    found = draft_card(str(written(tmp_path, graph)), str(image))

    assert any("every pixel is 'class-2'" in remark for remark in found.remarks)


def test_what_is_missing_is_told(segment: Call, model: Path, tmp_path: Path) -> None:
    refusals = {
        (str(tmp_path / "none.onnx"),): "none.onnx: there is no such file",
        (str(model), str(tmp_path / "none")): "no such image, and no folder with images",
        (str(model), str(model)): "not_an_image",
        (str(model), "--picture", "a.png"): "name an image or a folder after the model",
        (str(model), str(tmp_path), "--picture", "a.jpg"): "--picture is a PNG, and a.jpg does not say so",
        (str(model), "--to", str(tmp_path)): f"{tmp_path} is a folder: --to and --picture are files",
        (str(model), "--to", str(tmp_path), "--overwrite"): "is a folder",
        (str(model), "--size", "big"): "such as 512x1024",
        (str(written(tmp_path, b"no model", "a.onnx")),): "a.onnx: this is not an ONNX model: the bytes cannot be",
        (str(written(tmp_path, b"<html>", "page.onnx")),): "this is a web page",
        (str(written(tmp_path, b"no", "net.pt")),): "weights are an .onnx, .tflite or .xml file",
    }
    for arguments, text in refusals.items():
        refused = segment("models", "draft", *arguments)
        assert (refused.code, refused.out) == (2, ""), arguments
        assert text in refused.err
        assert "--weights" not in refused.err


def test_a_card_that_cannot_be_written_is_printed(segment: Call, model: Path) -> None:
    drafted = segment("models", "draft", str(model), "--to", "/proc/nowhere/card.toml")
    assert drafted.code != 0
    assert "error: could not write /proc/nowhere/card.toml" in drafted.err
    assert parse_card(drafted.out, where="stdout").input.height > 0


def test_a_model_instead_of_a_card_is_told_the_command(segment: Call, model: Path, tmp_path: Path) -> None:
    refused = segment("plan", str(tmp_path), "--model", str(model))

    assert refused.code == 2
    assert f"segment models draft {model} --to my-card.toml" in refused.err


# ---- what the graph tells


@pytest.mark.parametrize("name", ["unet-camvid-onnx-0001", "icnet-camvid-ava-sparse-60-0001", "deeplabv3-mobilenetv2"])
def test_a_draft_agrees_with_the_card_in_all_that_the_graph_tells(name: str, tmp_path: Path) -> None:
    card = load_card(name)

    found = draft_card(str(written(tmp_path, colour_classifier(card)))).card

    assert (found.input.layout, found.input.height) == (card.input.layout, card.input.height)
    assert (found.input.width, found.output.kind) == (card.input.width, card.output.kind)
    assert (found.output.layout, found.classes) == (card.output.layout, card.classes)


def test_a_normalisation_in_the_graph_is_found(tmp_path: Path) -> None:
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    constants = {"mean": mean.reshape(1, 3, 1, 1), "std": np.float32(58).reshape(1)}
    steps = [node("Sub", "x mean", "centred"), node("Div", "centred std", "pixels")]

    found = draft_card(str(written(tmp_path, net(before=steps, constants=constants))))
    assert (found.card.input.maximum, found.card.input.mean, found.card.input.channels) == (255, (0, 0, 0), "RGB")
    assert "# Known: the graph begins with a normalisation of 0 to 255 (subtracts 123.7 116.3 103.5" in found.text

    constants["mean"] = constants["mean"][:, ::-1]
    assert draft_card(str(written(tmp_path, net(before=steps, constants=constants)))).card.input.channels == "BGR"

    constants = {"mean": constants["mean"] / 255, "std": np.float32(0.2).reshape(1)}
    assert draft_card(str(written(tmp_path, net(before=steps, constants=constants)))).card.input.maximum == 1


def test_units_of_leading_arithmetic(tmp_path: Path) -> None:
    steps = [node("Mul", "x scale", "small"), node("Add", "small shift", "pixels")]
    constants = {"scale": np.float32(1 / 127.5), "shift": np.float32(-1)}

    facts = inspect_graph(as_weights(net(before=steps, constants=constants))).inputs[0]

    assert facts.subtracted == pytest.approx((127.5,))
    assert facts.multiplied == pytest.approx((1 / 127.5,))


def test_the_programs_habits_are_guesses(tmp_path: Path) -> None:
    assert draft_card(str(written(tmp_path, net()))).card.input.mean == IMAGENET[0]
    assert draft_card(str(written(tmp_path, net(producer="tf2onnx")))).card.input.mean == (127.5,) * 3
    keras = draft_card(str(written(tmp_path, net(inputs={"input_3": [1, 3, 24, 32]})))).card
    assert (keras.input.maximum, keras.input.mean, keras.input.std) == (1, (0, 0, 0), (1, 1, 1))
    assert draft_card(str(written(tmp_path, net(producer="PaddlePaddle")))).card.input.mean == (127.5,) * 3
    assert draft_card(str(an_ir(tmp_path, net(), {}))).card.input.mean == IMAGENET[0]
    ir = draft_card(str(an_ir(tmp_path, net(), {"conversion_parameters": {"framework": "caffe"}}))).card
    assert (ir.input.channels, ir.input.maximum, ir.input.mean, len(ir.weights)) == ("BGR", 255, (0, 0, 0), 2)


def test_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    graph = net(before=[node("Cast", "x", "pixels", to=TensorProto.FLOAT)], types={"x": TensorProto.UINT8})

    found = draft_card(str(written(tmp_path, graph)))

    assert "# Known: the graph takes bytes" in found.text


@pytest.mark.parametrize(("keep", "layout"), [(1, "N1HW"), (0, "NHW")])
def test_an_argmax_is_an_index_of_as_many_classes_as_it_chooses_from(keep: int, layout: str, tmp_path: Path) -> None:
    shape = [1, 1, 24, 32] if keep else [1, 24, 32]
    graph = net(
        classes=19,
        tail=[node("ArgMax", "scores", "y", axis=1, keepdims=keep)],
        outputs={"y": shape},
        types={"y": TensorProto.INT64},
    )

    found = draft_card(str(written(tmp_path, graph))).card

    assert (found.output.kind, found.output.layout, found.classes.names[13]) == ("index", layout, "car")


def test_a_softmax_is_probabilities_and_small_scores_are_enlarged(tmp_path: Path) -> None:
    graph = net(tail=[node("Softmax", "scores", "y", axis=1)], stride=4)

    found = draft_card(str(written(tmp_path, graph)))

    assert (found.card.output.kind, found.card.output_height) == ("probabilities", 24)
    assert "the output, 6x8, is enlarged to the input, 24x32" in found.remarks


def test_of_several_outputs_the_largest_is_taken(tmp_path: Path) -> None:
    half = node("AveragePool", "y", "aux", kernel_shape=[2, 2], strides=[2, 2])
    graph = net(tail=[node("Identity", "scores", "y"), half], outputs={"aux": [1, 4, 12, 16], "y": [1, 4, 24, 32]})

    found = draft_card(str(written(tmp_path, graph)))

    assert found.card.output.name == "y"
    assert "GUESS: the largest output, of equal ones the first not called auxiliary" in found.text
    assert any("output.name" in remark for remark in found.remarks)


def test_of_equal_outputs_one_that_is_called_auxiliary_is_not_the_mask(tmp_path: Path) -> None:
    graph = net(
        tail=[node("Neg", "scores", "aux_out"), node("Identity", "scores", "y")],
        outputs={"aux_out": [1, 4, 24, 32], "y": [1, 4, 24, 32]},
    )
    assert draft_card(str(written(tmp_path, graph))).card.output.name == "y"


def test_one_channel_is_a_sigmoid(tmp_path: Path) -> None:
    found = draft_card(str(written(tmp_path, net(classes=1, tail=[node("Sigmoid", "scores", "y")])))).card
    assert (found.output.kind, found.output.layout, found.output.threshold) == ("sigmoid", "N1HW", 0.5)
    assert (found.output.logit, found.classes.names) == (False, ("background", "foreground"))

    squeezed = net(classes=1, tail=[node("Squeeze", "scores a", "y")], constants={"a": [1]}, outputs={"y": [1, 24, 32]})
    logit = draft_card(str(written(tmp_path, squeezed)))
    assert (logit.card.output.logit, logit.card.output.layout) == (True, "NHW")
    assert any("ends in no sigmoid" in remark for remark in logit.remarks)
    assert any(remark.startswith("guessed") and "output.threshold" in remark for remark in logit.remarks)


def test_scores_of_classes_go_before_a_single_channel(tmp_path: Path) -> None:
    edge = node("ReduceMax", "scores", "edge", axes=[1])
    graph = net(tail=[edge, node("Identity", "scores", "y")], outputs={"edge": [1, 1, 24, 32], "y": [1, 4, 24, 32]})

    assert draft_card(str(written(tmp_path, graph))).card.output.name == "y"


def test_a_name_of_the_foreground_alone(tmp_path: Path) -> None:
    graph = net(classes=1, tail=[node("Sigmoid", "scores", "y")], metadata={"names": "['person']"})

    assert draft_card(str(written(tmp_path, graph))).card.classes.names == ("background", "person")


@pytest.mark.parametrize(("layout", "to"), [("NC(HW)", [1, 4, -1]), ("N(HW)C", [1, -1, 4])])
def test_pixels_in_one_row(layout: str, to: list[int], tmp_path: Path) -> None:
    order = [0, 1, 2, 3] if layout == "NC(HW)" else [0, 2, 3, 1]
    tail = [node("Transpose", "scores", "ordered", perm=order), node("Reshape", "ordered to", "y")]
    shape = [1, 4, 768] if layout == "NC(HW)" else [1, 768, 4]

    found = draft_card(str(written(tmp_path, net(tail=tail, constants={"to": to}, outputs={"y": shape})))).card

    assert (found.output.kind, found.output.layout, len(found.classes)) == ("logits", layout, 4)


def test_an_auxiliary_output_in_one_row_is_not_taken_for_boxes(tmp_path: Path) -> None:
    tail = [node("Reshape", "scores to", "row"), node("Identity", "scores", "y")]
    graph = net(classes=6, tail=tail, constants={"to": [1, 6, -1]}, outputs={"y": [1, 6, 24, 32], "row": [1, 6, 768]})

    assert draft_card(str(written(tmp_path, graph))).card.output.name == "y"


def test_the_best_of_a_topk_is_an_index(tmp_path: Path) -> None:
    tail = [node("TopK", "scores one", "best y", axis=1)]
    graph = net(tail=tail, constants={"one": [1]}, outputs={"y": [1, 1, 24, 32]}, types={"y": TensorProto.INT64})

    found = draft_card(str(written(tmp_path, graph))).card

    assert (found.output.kind, len(found.classes)) == ("index", 4)


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", [1, 1, 24, 32]), ("NHWC", [1, 24, 32, 1])])
def test_one_channel_in_is_grey(layout: str, shape: list[int], tmp_path: Path) -> None:
    turned = [node("Transpose", "x", "pixels", perm=[0, 3, 1, 2])] if layout == "NHWC" else []

    found = draft_card(str(written(tmp_path, net(inputs={"x": shape}, depth=1, before=turned)))).card

    assert (found.input.channels, found.input.layout) == ("GREY", layout)
    assert (found.input.maximum, found.input.mean, found.input.std) == (1, (0,), (1,))


def test_signed_bytes_in(tmp_path: Path) -> None:
    cast = [node("Cast", "x", "pixels", to=TensorProto.FLOAT)]
    plain = draft_card(str(written(tmp_path, net(before=cast, types={"x": TensorProto.INT8}))))
    assert (plain.card.input.maximum, plain.card.input.mean) == (255, (128, 128, 128))
    assert "GUESS: the graph takes int8, and nothing says its scale; usually pixel - 128" in " ".join(
        plain.text.replace("#", "").split()
    )

    read = [node("DequantizeLinear", "x scale zero", "pixels")]
    for scale, zero, contract in (
        (1 / 255, -128, (1, 0, 1)),
        (1, -128, (255, 0, 1)),
        (1 / 128, 0, (255, 127.5, 127.5)),
    ):
        constants = {"scale": np.float32(scale), "zero": np.int8(zero)}
        graph = net(before=read, types={"x": TensorProto.INT8}, constants=constants)
        entry = draft_card(str(written(tmp_path, graph))).card.input
        assert (entry.maximum, entry.mean[0], entry.std[0]) == contract


def test_half_floats_in(tmp_path: Path) -> None:
    cast = [node("Cast", "x", "pixels", to=TensorProto.FLOAT)]
    found = draft_card(str(written(tmp_path, net(before=cast, types={"x": TensorProto.FLOAT16}))))
    assert (found.card.input.maximum, found.card.input.std) == (1, IMAGENET[1])


def test_images_out_are_doubted(tmp_path: Path) -> None:
    found = draft_card(str(written(tmp_path, net(classes=3))))

    assert any("from images to images" in remark for remark in found.remarks)


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.FLOAT])
def test_a_picture_in_colours_is_no_mask(dtype: int, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (4, 3)).astype(np.float32)
    tail = [
        node("ArgMax", "scores", "best", axis=1, keepdims=0),
        node("Gather", "colours best", "pixels"),
        node("Cast", "pixels", "y", to=dtype),
    ]
    ports = {"outputs": {"y": [1, 24, 32, 3]}, "types": {"y": dtype}}
    with pytest.raises(ModelError, match="it gives a picture: three whole numbers of 0 to 255 a pixel, which are col"):
        draft_card(str(written(tmp_path, net(tail=tail, constants={"colours": colours}, **ports))))
    ones = np.eye(3, dtype=np.float32)  # exact scores
    served = net(tail=tail, classes=3, constants={"colours": ones}, **ports)
    assert draft_card(str(written(tmp_path, served))).card.output.kind == "logits"


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        ({"labels.txt": "sky\nroad\ncar\n"}, []),
        ({"readme.txt": "what\nit\nis", "de": "Himmel\n", "en": "sky\nroad\ncar\n"}, [("de", "de"), ("en", "")]),
        ({"metadata.json": '{"task": "semantic", "names": {"0": "sky", "1": "road", "2": "car"}, "half": false}'}, []),
    ],
    ids=["alone", "named", "ultralytics"],
)
def test_metadata_of_a_tflite_file(files: dict[str, str], labels: list[tuple[str, str]], tmp_path: Path) -> None:
    tensors = [Tensor("x", (1, 8, 8, 3)), Tensor("y", (1, 8, 8, 3))]
    graph = tflite(tensors, [Node("ABS", [0], [1])], [0], [1], described([1, 2, 3], [4, 5, 6], labels))
    path = written(tmp_path, graph, "net.tflite")
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)

    found = read_hints(path.as_uri(), inspect_graph(as_weights(path.read_bytes(), "tflite")), Store())

    assert found.names is not None
    assert found.names.value == ("sky", "road", "car")
    scaling = Scaling(1) if "metadata.json" in files else Scaling(255, (1, 2, 3), (4, 5, 6))
    assert (found.channels and found.channels.value, found.scaling and found.scaling.value) == ("RGB", scaling)


def test_colours_of_many_classes_differ(tmp_path: Path) -> None:
    found = draft_card(str(written(tmp_path, net(classes=150)))).card

    assert len(set(found.classes.palette)) == 150
    assert found.classes.names[149] == "class-149"


# ---- free sizes


def test_a_free_size_is_named(tmp_path: Path) -> None:
    free = written(tmp_path, net(inputs={"x": ["n", 3, "h", "w"]}, outputs={"y": ["n", 4, "h", "w"]}))

    found = draft_card(str(free), size=(48, 64)).card

    assert (found.input.height, found.input.width) == (48, 64)
    with pytest.raises(UsageError, match=r"leaves height or width free.*--size 512x512"):
        draft_card(str(free))


def test_shapes_that_onnx_leaves_open_are_asked_of_openvino(tmp_path: Path) -> None:
    tail = [
        node("Shape", "x", "shape"),
        node("Gather", "shape axes", "sides"),
        node("Cast", "sides", "floats", to=TensorProto.FLOAT),
        node("Mul", "floats one", "same"),
        node("Cast", "same", "whole", to=TensorProto.INT64),
        node("Concat", "front whole", "to", axis=0),
        node("Reshape", "scores to", "y"),
    ]
    constants = {"axes": np.array([2, 3]), "front": np.array([1, 4]), "one": np.float32(1)}
    free = net(inputs={"x": [1, 3, "h", "w"]}, outputs={"y": ["a", "b", "c", "d"]}, tail=tail, constants=constants)

    assert onnx_facts(free, "x", [1, 3, 24, 32]).outputs[0].port.dims in (None, (None,) * 4, (1, 4, None, None))
    found = draft_card(str(written(tmp_path, free)), size=(24, 32)).card

    assert (found.output.layout, len(found.classes)) == ("NCHW", 4)


# ---- what exporters leave


def test_ultralytics(tmp_path: Path) -> None:
    metadata = {"task": "semantic", "stride": "32", "imgsz": "[64, 96]", "author": "Ultralytics"}
    metadata["names"] = str({0: "road", 1: "kerb", 2: "car", 3: "dog's"})
    free = net(inputs={"x": [1, 3, "h", "w"]}, outputs={"y": [1, 4, "h", "w"]}, metadata=metadata)

    found = draft_card(str(written(tmp_path, free)))

    assert found.card.classes.names == ("road", "kerb", "car", "dog's")
    assert (found.card.input.height, found.card.input.width, found.card.input.maximum) == (64, 96, 1)
    assert (found.card.input.mean, found.card.input.resize.method) == ((0, 0, 0), "letterbox")
    assert "guessed" not in " ".join(found.remarks)


def test_hugging_face(tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    labels = {str(number): name for number, name in enumerate(["wall", "sky", "wall", "door"])}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["SegformerFor..."], "id2label": labels}))
    processor = {
        "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "image_mean": IMAGENET[0],
        "image_std": IMAGENET[1], "size": {"height": 64, "width": 96}, "resample": 3, "do_reduce_labels": True,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    free = net(inputs={"pixel_values": ["b", 3, "h", "w"]}, outputs={"logits": ["b", 4, "h/4", "w/4"]}, stride=4)

    found = draft_card(str(written(folder, free, "model.onnx")))

    assert found.card.classes.names == ("wall", "sky", "wall (2)", "door")
    assert (found.card.input.height, found.card.input.width) == (64, 96)
    assert (found.card.input.maximum, found.card.input.mean, found.card.input.std) == (1, *IMAGENET)
    assert found.card.input.resize.interpolation == "bicubic"
    assert "GUESS" not in found.text.replace("marked GUESS", "").replace("# GUESS are", "")
    assert any("do_reduce_labels" in remark for remark in found.remarks)


def test_mmdeploy(tmp_path: Path) -> None:
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "keep_ratio": False, "size": [32, 24]},
        {"type": "Normalize", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": False},
    ]
    (tmp_path / "pipeline.json").write_text(json.dumps({"pipeline": {"tasks": [{"transforms": steps}]}}))

    found = draft_card(
        str(written(tmp_path, net(inputs={"x": [1, 3, "h", "w"]}, outputs={"y": [1, 4, "h", "w"]})))
    ).card

    assert (found.input.height, found.input.width, found.input.channels) == (24, 32, "BGR")
    assert (found.input.maximum, found.input.mean) == (255, (123.675, 116.28, 103.53))
    assert (found.input.resize.resampler, found.input.resize.method) == ("opencv", "stretch")


def test_rt_info_of_openvino(tmp_path: Path) -> None:
    info = {
        "labels": "road kerb car sky", "mean_values": "123.675 116.28 103.53", "scale_values": "58.395 57.12 57.375",
        "reverse_input_channels": "True", "resize_type": "fit_to_window_letterbox",
    }  # fmt: skip

    found = draft_card(str(an_ir(tmp_path, net(), {"model_info": info}))).card

    assert (found.classes.names[1], found.input.channels, found.input.mean[0]) == ("kerb", "RGB", 123.675)
    assert (found.input.resize.method, found.input.resize.anchor) == ("letterbox", "centre")


def test_conversion_parameters_of_openvino(tmp_path: Path) -> None:
    given = {"mean_values": "x[99.6,103.3,105.6]", "reverse_input_channels": "True"}

    found = draft_card(str(an_ir(tmp_path, net(), {"conversion_parameters": given})))

    assert (found.card.input.channels, found.card.input.maximum) == ("BGR", 255)
    assert "mean and scale are in the graph" in found.text


def test_damaged_files_beside_a_model_say_nothing(model: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "pipeline.json"):
        (model.parent / name).write_text('["a list"' if name == "config.json" else "[1]")

    assert draft_card(str(model)).card.classes.names[0] == "class-0"
    (model.parent / "config.json").write_text('{"id2label": {"wall": 0}}')
    (model.parent / "pipeline.json").write_text('{"pipeline": ["Resize"]}')
    found = draft_card(str(model))
    assert [remark.split(" beside")[0] for remark in found.remarks if "not known" in remark] == [
        "config.json or preprocessor_config.json",
        "pipeline.json",
    ]


def test_onnxruntime_is_tried_where_openvino_lacks_an_operator(tmp_path: Path) -> None:
    graph = net(tail=[node("SampleOp", "scores", "y", domain="com.microsoft")])

    found = draft_card(str(written(tmp_path, graph)))

    assert any("use --runtime onnxruntime: openvino cannot read" in remark for remark in found.remarks)
    assert "the card runs (onnxruntime, f32): 2 generated images" in found.remarks


def test_a_model_on_a_web_server(web: Web, tmp_path: Path) -> None:
    ir = an_ir(tmp_path, net(), {})
    url = web.put("/models/net.xml", ir.read_bytes())
    web.put("/models/net.bin", ir.with_suffix(".bin").read_bytes())

    found = draft_card(f"{url}?X-Amz-Signature=0f1e2d3c")

    assert [file.url for file in found.card.weights] == [url, url.replace(".xml", ".bin")]
    assert "0f1e2d3c" not in found.text


def test_tensors_in_another_file_cannot_be_named_by_a_card(tmp_path: Path) -> None:
    import onnx

    loaded = onnx.load_model_from_string(net())
    onnx.save_model(loaded, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)

    found = draft_card(str(tmp_path / "net.onnx"))

    assert found.card.weights == ()
    assert any("give it with --weights" in remark for remark in found.remarks)


def a_png(seed: int) -> bytes:
    return codec.encode_png(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8))
