"""Every model a card is built in for, through the whole job: real weights, published graphs, known answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segment import Job, RunReport, run
from segment.errors import ModelError
from segment.models.card import ModelCard, built_in_cards, load_card
from tests.calls import Call
from tests.datasets import mask_of, read_rows, write_files
from tests.graphs import colour_classifier
from tests.planted import Expected, planted
from tests.serving import plain_openvino, shared

CARDS = built_in_cards()
RUNTIMES = ("onnxruntime", "openvino")
IN_TURN = [(name, RUNTIMES[number % 2]) for number, name in enumerate(CARDS)]
VOC_BIRD, VOC_CAT = 3, 8


def padded(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height that an image covers of DeepLab's input: its own, or less if it does not fit."""
    scale = min(1.0, 513 / max(size))
    return round(size[0] * scale), round(size[1] * scale)


# --- real weights -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos, and the one label there is."""
    folder = tmp_path_factory.mktemp("photos")
    images, labels = folder / "images", folder / "labels"
    images.mkdir()
    labels.mkdir()
    for name in ("bird_segmentation.bmp", "stray_cat.jpg", "pets.jpg"):
        shutil.copy(shared(f"images/{name}"), images)
    shutil.copy(shared("images/bird_segmentation_mask.bmp"), labels / "bird_segmentation.bmp")
    return images, labels


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "least"), [("deeplabv3_mnv2_pascal_quant", 0.97), ("deeplabv3_mnv2_dm05_pascal_quant", 0.96)]
)
def test_real_deeplab_gives_what_openvino_gives(
    file: str, least: float, photos: tuple[Path, Path], tmp_path: Path, segment: Call
) -> None:
    images, labels = photos
    model = shared(f"models/{file}.tflite")
    called = segment(
        "run", str(images), str(tmp_path), "--model=deeplabv3-mobilenetv2-int8", f"--weights={model}",
        f"--labels={labels}", "--mask-size=model", "--runtime=openvino", "--precision=f32", "--engine=local",
    )  # fmt: skip
    assert called.code == 0, called.err
    alone = plain_openvino(model)
    masks = {row["stem"]: mask_of(row) for row in read_rows(tmp_path)}
    assert sorted(masks) == ["bird_segmentation", "pets", "stray_cat"]
    for photo in images.iterdir():
        pixels = np.full((513, 513, 3), 127, np.uint8)
        with Image.open(photo) as opened:
            width, height = padded(opened.size)
            content = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        pixels[:height, :width] = np.asarray(content)
        alike = np.mean(masks[photo.stem] == alone(pixels[np.newaxis])[0][0])
        assert alike > 0.9995, photo.name  # both round enlarged scores to 8 bits, where a tie may go either way

    cat, bird = (np.bincount(masks[stem].ravel(), minlength=21) for stem in ("stray_cat", "bird_segmentation"))
    assert cat[VOC_CAT] > 0.9 * cat[1:].sum()
    assert cat[VOC_CAT] > 0.1 * cat.sum()  # a good part of the rest is border
    assert bird[1:].argmax() + 1 == VOC_BIRD
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (summary["images"], summary["errors"], summary["scored"]) == (3, 0, 1)
    assert summary["scored_at"] == "source"
    assert summary["pixel_accuracy"] > least
    with Image.open(labels / "bird_segmentation.bmp") as opened:
        right = np.asarray(opened) == masks["bird_segmentation"]
    assert summary["pixel_accuracy"] == right.mean()


@pytest.mark.shared
def test_masks_at_source_size_are_those_at_model_size_enlarged(photos: tuple[Path, Path], tmp_path: Path) -> None:
    model = shared("models/deeplabv3_mnv2_dm05_pascal_quant.tflite")
    found: dict[str, dict[str, Any]] = {}
    for size in ("source", "model"):
        job = Job(
            input=str(photos[0]), output=str(tmp_path / size), model="deeplabv3-mobilenetv2-int8", weights=str(model),
            precision="f32", engine="local", mask_size=size, runtime="openvino",
        )  # fmt: skip
        run(job)
        found[size] = {row["stem"]: row for row in read_rows(tmp_path / size)}
    for stem, row in found["source"].items():
        size = (row["width"], row["height"])
        width, height = padded(size)
        small = Image.fromarray(mask_of(found["model"][stem])[:height, :width])
        assert size == Image.open(next(photos[0].glob(f"{stem}.*"))).size
        np.testing.assert_array_equal(mask_of(row), np.asarray(small.resize(size, Image.Resampling.NEAREST)))


@pytest.mark.slow
@pytest.mark.shared
def test_published_graph_with_a_bin_of_the_published_size(tmp_path: Path, segment: Call) -> None:
    shutil.copy(shared("models/unet-camvid-onnx-0001.xml"), tmp_path / "unet.xml")
    published = {file.url.rpartition(".")[2]: file for file in load_card("unet-camvid-onnx-0001").weights}
    assert published["xml"].size == (tmp_path / "unet.xml").stat().st_size
    assert published["bin"].size == 62_064_926
    values = np.random.default_rng(2).standard_normal(62_064_926 // 2, dtype=np.float32) * 0.02
    (tmp_path / "unet.bin").write_bytes(values.astype(np.float16).tobytes())
    (tmp_path / "in").mkdir()
    for number in ("07959", "07961"):
        shutil.copy(shared(f"camvid/images/0016E5_{number}.png"), tmp_path / "in")
    called = segment(
        "run", str(tmp_path / "in"), str(tmp_path / "out"), "--model=unet-camvid-onnx-0001",
        f"--weights={tmp_path / 'unet.xml'}", f"--labels={shared('camvid/labels/0016E5_07959.png').parent}",
    )  # fmt: skip
    assert called.code == 0, called.err
    rows = read_rows(tmp_path / "out")
    assert [(row["status"], mask_of(row).shape) for row in rows] == [("ok", (360, 480))] * 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["weights"]["format"] == "ir"
    assert record["contract"]["runtime"]["name"] == "openvino"


# --- known answers ----------------------------------------------------------------------------------------------------


def serve(folder: Path, graph: bytes, name: str, output: str, **job: Any) -> RunReport:
    weights = folder / f"{output}.onnx"
    weights.write_bytes(graph)
    settings = {"model": name, "weights": str(weights), "precision": "f32", "engine": "local", **job}
    return run(Job(output=str(folder / output), **settings))


def tree(output: Path, *parts: str) -> dict[str, bytes]:
    """Bytes by name of what is below some folders of a run."""
    files = [path for part in parts for path in (output / part).rglob("*.parquet")]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


def assert_exact(output: Path, report: RunReport, expected: Expected) -> None:
    rows = {row["stem"]: row for row in read_rows(output)}
    assert rows.keys() == expected.masks.keys()
    for stem, mask in expected.masks.items():
        assert rows[stem]["error"] is None
        np.testing.assert_array_equal(mask_of(rows[stem]), mask, err_msg=stem)
    own = report.card.metric.convention
    scored = report.score()
    assert list(zip(scored.tp.tolist(), scored.fp.tolist(), scored.fn.tolist(), strict=True)) == expected.counts(own)
    for convention in ("omz", "cityscapes"):
        wanted = np.array(expected.ious(convention))
        np.testing.assert_array_equal(report.score(convention).iou, wanted, err_msg=convention)
        assert report.miou(convention) == pytest.approx(np.nanmean(wanted), abs=1e-15)
        found = pq.read_table(output / "report" / "classes.parquet")[f"iou_{convention}"].to_pylist()
        assert found == [None if np.isnan(value) else value for value in wanted]
    each = {stem: one.ious(own) for stem, one in expected.images.items()}
    assert {stem: row["miou"] for stem, row in rows.items()} == {
        stem: pytest.approx(np.nanmean(each[stem]), abs=1e-15) if stem in each else None for stem in rows
    }
    by_image = [float(np.nanmean(one.ious("omz"))) for one in expected.images.values()]
    assert report.miou("image-mean") == pytest.approx(np.mean(by_image), abs=1e-15)
    (shard,) = (output / "stats").iterdir()
    for path in (shard, output / "report" / "classes.parquet"):
        table = pq.read_table(path, columns=["tp", "fp", "fn"]).to_pylist()[: len(report.card.classes)]
        assert [tuple(row.values()) for row in table] == expected.counts(own)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, ModelCard, Expected, Any]]:
    """By card: a folder for outputs, the graph, the card, what must come out, and the input."""
    found = {}
    for name in CARDS:
        folder = tmp_path_factory.mktemp(name)
        card = load_card(name)
        items, expected = planted(card)
        found[name] = (folder, card, expected, write_files(folder / "data", items))
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", CARDS)
def test_known_answers(name: str, runtime: str, answered: Any) -> None:
    folder, card, expected, inputs = answered[name]
    report = serve(folder, colour_classifier(card), name, runtime, runtime=runtime, **inputs)
    assert (report.total.images, report.total.errors, report.total.scored) == (3, 0, 2)
    assert_exact(folder / runtime, report, expected)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("name", "runtime"),
    [("deeplabv3-mobilenetv2-int8", "onnxruntime"), ("icnet-camvid-ava-sparse-60-0001", "openvino")],
)
def test_known_answers_on_ray(name: str, runtime: str, answered: Any) -> None:
    folder, card, expected, inputs = answered[name]
    if not (folder / runtime).exists():
        serve(folder, colour_classifier(card), name, runtime, runtime=runtime, **inputs)
    graph = (folder / f"{runtime}.onnx").read_bytes()
    report = serve(folder, graph, name, "ray", runtime=runtime, engine="ray", workers="1", **inputs)
    assert_exact(folder / "ray", report, expected)
    assert tree(folder / "ray", "masks", "stats", "report") == tree(folder / runtime, "masks", "stats", "report")


def changed(card: ModelCard, **values: Any) -> ModelCard:
    """The card with another input."""
    return card.model_copy(update={"input": card.input.model_copy(update=values)})


@pytest.mark.parametrize(("name", "runtime"), IN_TURN)
def test_swapped_channels_are_caught(name: str, runtime: str, answered: Any) -> None:
    folder, card, expected, inputs = answered[name]
    other = "RGB" if card.input.channels == "BGR" else "BGR"
    graph = colour_classifier(changed(card, channels=other))
    report = serve(folder, graph, name, f"channels-{runtime}", runtime=runtime, **inputs)
    masks = {row["stem"]: mask_of(row) for row in read_rows(folder / f"channels-{runtime}")}
    assert all(np.mean(masks[stem] != mask) > 0.3 for stem, mask in expected.masks.items())
    assert (report.miou() or 0.0) < np.nanmean(expected.ious("omz")) - 0.3


@pytest.mark.parametrize(("name", "runtime"), IN_TURN)
def test_swapped_layout_is_refused(name: str, runtime: str, answered: Any) -> None:
    folder, card, _, inputs = answered[name]
    other = "NHWC" if card.input.layout == "NCHW" else "NCHW"
    graph = colour_classifier(changed(card, layout=other))
    with pytest.raises(ModelError, match=f"(?s){card.input.layout}.*{other}|{other}.*{card.input.layout}"):
        serve(folder, graph, name, f"layout-{runtime}", runtime=runtime, **inputs)
    assert not (folder / f"layout-{runtime}" / "masks").exists()


def test_swapped_output_layout_is_refused(answered: Any) -> None:
    name = "unet-camvid-onnx-0001"
    folder, card, _, inputs = answered[name]
    swapped = card.model_copy(update={"output": card.output.model_copy(update={"layout": "NHWC"})})
    with pytest.raises(ModelError, match="12"):
        serve(folder, colour_classifier(swapped), name, "output-layout", **inputs)
