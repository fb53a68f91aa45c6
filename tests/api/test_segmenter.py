"""`Segmenter`: batches as frameworks hand them over, counts against scikit-learn, errors as rows."""

import io
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

import segment
from segment.errors import ModelError, SampleError, UsageError
from segment.images.codec import decode_picture
from segment.models.card_input import Resize
from tests.datasets import encoded, read_rows
from tests.graphs import colour_classifier, painted
from tests.jobs import MOTLEY_ERRORS, motley
from tests.jobs import model as small_model
from tests.scenes import CLASSES, MODEL, Scenes
from tests.serving import small


@pytest.fixture(scope="module")
def segmenter() -> segment.Segmenter:
    return segment.Segmenter(MODEL)


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return decode_picture(data, 10**8).pixels


def objects(cells: list[Any]) -> np.ndarray[Any, Any]:
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["stacked", "objects", "list", "bytes", "structs", "pandas"])
def test_every_form_of_a_batch_gives_the_masks_and_counts_of_the_job(
    form: str, segmenter: segment.Segmenter, scenes: Scenes
) -> None:
    photos, labels = list(scenes.photos.values()), list(scenes.labels.values())
    arrays = [pixels(photo) for photo in photos]
    classes = [np.asarray(Image.open(io.BytesIO(label))) for label in labels]
    forms: dict[str, tuple[Any, Any]] = {
        "stacked": (np.stack(arrays), np.stack(classes)),
        "objects": (objects(arrays), objects(classes)),
        "list": (arrays, [mask.astype(np.int64) for mask in classes]),
        "bytes": (photos, labels),
        "structs": ([{"bytes": p, "path": None} for p in photos], [{"bytes": x, "path": "x.png"} for x in labels]),
        "pandas": (photos, labels),
    }
    image, label = forms[form]
    batch: Any = {"id": list(scenes.photos), "image": image, "label": label}
    found = segmenter(pd.DataFrame(batch) if form == "pandas" else batch)
    assert list(found) == ["id", "mask", "error", "confusion"]
    assert found["error"] == [""] * 6
    for name, mask in zip(found["id"], found["mask"], strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, scenes.masks[name])
    assert found["confusion"].shape == (6, CLASSES + 1, CLASSES)
    np.testing.assert_array_equal(found["confusion"].sum(axis=0), scenes.counts)


def test_counts_and_iou_are_scikit_learns(segmenter: segment.Segmenter, scenes: Scenes) -> None:
    batch = {"image": list(scenes.photos.values()), "label": list(scenes.labels.values())}
    counts = segmenter(batch)["confusion"].sum(axis=0)
    truth = np.concatenate([np.asarray(Image.open(io.BytesIO(x))).ravel() for x in scenes.labels.values()])
    predicted = np.concatenate([mask.ravel() for mask in scenes.masks.values()])
    expected = confusion_matrix(truth, predicted, labels=range(CLASSES))
    np.testing.assert_array_equal(counts[:CLASSES], expected)
    assert counts[CLASSES].sum() == (truth == 255).sum()
    kept = [i for i in range(CLASSES) if i not in segmenter.model.card.classes.ignored_classes]
    labelled = np.isin(truth, kept)
    present = [i for i in kept if (truth[labelled] == i).any() or (predicted[labelled] == i).any()]
    each = [
        ((truth == i) & (predicted == i) & labelled).sum() / (((truth == i) | (predicted == i)) & labelled).sum()
        for i in present
    ]
    scored = segment.iou(counts, convention="cityscapes", ignore=segmenter.model.card.classes.ignored_classes)
    np.testing.assert_allclose(scored.per_class[present], each, rtol=0, atol=1e-15)
    assert scored.mean == pytest.approx(np.mean(each), abs=1e-15)


def test_masks_are_of_the_type_that_is_asked_for_whatever_the_images_are(
    segmenter: segment.Segmenter, scenes: Scenes
) -> None:
    pictures = [Image.fromarray(pixels(photo)) for photo in scenes.photos.values()]
    labels = [Image.open(io.BytesIO(label)) for label in scenes.labels.values()]
    of_images = segment.Segmenter(MODEL, mask_type="image")
    for images in (pictures, list(scenes.photos.values()), [pixels(photo) for photo in scenes.photos.values()]):
        found = of_images({"image": images, "label": labels})
        assert {mask.mode for mask in found["mask"]} == {"L"}
        for mask, expected in zip(found["mask"], scenes.masks.values(), strict=True):
            np.testing.assert_array_equal(np.asarray(mask), expected)
        np.testing.assert_array_equal(found["confusion"].sum(axis=0), scenes.counts)
        for mask, expected in zip(segmenter({"image": images})["mask"], scenes.masks.values(), strict=True):
            np.testing.assert_array_equal(mask, expected)
    for images in ([None], [pictures[0], None], [None, scenes.photos["0.jpg"]]):
        assert {type(mask) for mask in segmenter({"image": images})["mask"]} == {np.ndarray}
        masks = of_images({"image": images})["mask"]
        assert [mask is None for mask in masks] == [image is None for image in images]
    with pytest.raises(UsageError, match="mask_type: 'pil' is none of array, image"):
        segment.Segmenter(MODEL, mask_type="pil")  # type: ignore[arg-type]


def test_confidence_comes_in_columns_of_its_own(scenes: Scenes) -> None:
    """As `Model.predict_with_confidence` has it; an image without a mask has none, one without a label has."""
    segmenter = segment.Segmenter(MODEL, confidence="margin")
    photos = [*scenes.photos.values()][:2]
    found = segmenter({"image": [*photos, b"no image"], "label": [b"no label", None, None]})
    assert list(found) == ["mask", "error", "confidence", "mean_confidence", "confusion"]
    model = segment.load_model(MODEL, confidence="margin")
    for position, photo in enumerate(photos):
        mask, levels, mean = model.predict_with_confidence(photo)
        assert np.array_equal(found["mask"][position], mask)
        assert np.array_equal(found["confidence"][position], levels)
        assert found["mean_confidence"][position] == mean
    assert [error.partition(":")[0] for error in found["error"]] == ["label_undecodable", "", "not_an_image"]
    assert found["confidence"][2].shape == (0, 0)
    assert np.isnan(found["mean_confidence"][2])
    with pytest.raises(ValueError, match="a column 'mean_confidence' already"):
        segmenter({"image": photos, "mean_confidence": [1, 2]})


def test_no_picture_fails_a_batch(segmenter: segment.Segmenter, scenes: Scenes) -> None:
    """What a job segments is segmented, and what it makes an error row of is one."""
    photo = Image.open(io.BytesIO(scenes.photos["0.jpg"]))
    grey = np.random.default_rng(1).integers(0, 1 << 16, (30, 40), np.uint16)
    files = {
        "cmyk": jpeg(photo.convert("CMYK")),
        "deep": encoded(grey),
        "cut": scenes.photos["1.jpg"][:2000],
        "whole": scenes.photos["2.jpg"],
    }
    expected = segmenter({"image": list(files.values())})
    found = segmenter({"image": [Image.open(io.BytesIO(data)) for data in files.values()]})
    assert [error.partition(":")[0] for error in found["error"]] == ["", "", "undecodable", ""]
    assert found["error"] == expected["error"]
    for mask, other in zip(found["mask"], expected["mask"], strict=True):
        np.testing.assert_array_equal(mask, other)
    closed = Image.open(io.BytesIO(files["whole"]))
    closed.close()
    rest = segmenter({"image": [closed, Image.fromarray(grey), Image.new("F", (3, 2)), Image.new("L", (0, 3))]})
    assert [error.partition(":")[0] for error in rest["error"]] == ["undecodable", "", "pixel_format", "empty"]


def test_every_row_has_arrays_of_its_own(segmenter: segment.Segmenter, scenes: Scenes) -> None:
    photo, label = scenes.photos["0.jpg"], scenes.labels["0.jpg"]
    cells = [(b"no image", label), (photo, b"no label")]
    for _ in range(2):
        for image, wrong in cells:
            row = segmenter.segment(image, wrong)
            assert not row["confusion"].any()
            row["confusion"] += 1
    assert not segmenter({"image": [b"no image"], "label": [None]})["confusion"].any()


def test_an_empty_batch_has_columns_of_the_same_types(segmenter: segment.Segmenter) -> None:
    found = segmenter({"id": [], "image": [], "label": []})
    assert (found["confusion"].shape, found["confusion"].dtype) == ((0, CLASSES + 1, CLASSES), np.int64)
    assert (found["mask"], found["error"]) == ([], [])


def test_max_pixels_limits_batches_and_single_images(scenes: Scenes) -> None:
    photo = scenes.photos["0.jpg"]
    size = pixels(photo).size // 3
    few = segment.Segmenter(MODEL, max_pixels=size - 1)
    forms = [photo, pixels(photo), Image.open(io.BytesIO(photo)), Image.fromarray(pixels(photo))]
    assert {error.partition(":")[0] for error in few({"image": forms})["error"]} == {"too_many_pixels"}
    with pytest.raises(SampleError, match="too_many_pixels"):
        few.predict(photo)
    assert few.segment(photo)["error"].startswith("too_many_pixels")
    assert pickle.loads(pickle.dumps(few)).model.max_pixels == size - 1
    assert segment.Segmenter(MODEL, max_pixels=size)({"image": forms})["error"] == [""] * 4


def test_an_image_that_does_not_fit_the_model_fails_no_batch(tmp_path: Path) -> None:
    unscaled = Resize(method="none", pad=(0, 0, 0))
    card = small(input={"resize": unscaled, "channels": "RGB"}, output={"kind": "logits"})
    (tmp_path / "net.onnx").write_bytes(colour_classifier(card))
    small_image, mask = painted(card, 0)
    images = [np.zeros((33, 48, 3), np.uint8), small_image]
    found = segment.Segmenter(card, tmp_path / "net.onnx")({"image": images})
    assert found["error"][0].startswith("larger_than_input: ")
    assert "33x48 pixels (height, width), at most 32x48" in found["error"][0]
    assert (found["mask"][0].size, found["error"][1]) == (0, "")
    assert np.array_equal(found["mask"][1], mask)


def test_nulls_of_every_library_are_no_images_and_no_errors(segmenter: segment.Segmenter, scenes: Scenes) -> None:
    photo = scenes.photos["0.jpg"]
    nulls = [None, float("nan"), np.float32("nan"), pd.NA]
    found = segmenter({"image": [photo] * 4, "label": nulls, "error": nulls})
    assert found["error"] == [""] * 4
    assert {error.partition(":")[0] for error in segmenter({"image": nulls})["error"]} == {"empty"}


def test_a_motley_batch_has_the_rows_of_a_job(tmp_path: Path) -> None:
    names = small_model(tmp_path)
    card = segment.load_card(names["model"])
    items = motley(card)
    names |= {"precision": "f32"}  # of so few pixels bf16 may be too far from f32 for a job
    segmenter = segment.Segmenter(**names)
    found = segmenter(
        {"id": [x.name for x in items], "image": [x.image for x in items], "label": [x.label for x in items]}
    )
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for item in items:
        (tmp_path / "images" / item.name).write_bytes(item.image)
        if item.label is not None:
            (tmp_path / "labels" / f"{item.stem}.png").write_bytes(item.label)
    segment.run(
        segment.Job(
            input=tmp_path / "images", labels=tmp_path / "labels", output=tmp_path / "out", engine="local", workers=1,
            max_error_rate=1, **names,
        )
    )  # fmt: skip
    rows = read_rows(tmp_path / "out")
    assert found["error"] == [row["error"] or "" for row in rows]
    codes = {item.stem: e.partition(":")[0] for item, e in zip(items, found["error"], strict=True) if e}
    assert codes == MOTLEY_ERRORS
    for mask, counts, row in zip(found["mask"], found["confusion"], rows, strict=True):
        stored = pixels_of_mask(row)
        np.testing.assert_array_equal(mask, np.empty((0, 0), np.uint8) if stored is None else stored)
        cells = row["confusion"] or {"cell": [], "count": []}
        np.testing.assert_array_equal(counts.ravel()[cells["cell"]], cells["count"])
        assert counts.sum() == sum(cells["count"])


def pixels_of_mask(row: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    return None if row["mask"] is None else np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))


def test_errors_are_rows_and_are_logged(
    segmenter: segment.Segmenter, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    photo, label = scenes.photos["0.jpg"], scenes.labels["0.jpg"]
    classes = np.asarray(Image.open(io.BytesIO(label)))
    wrong = classes.astype(np.int32)
    wrong[0, 0] = 300
    cells: list[tuple[Any, Any, str, str]] = [
        (photo, label, "", ""),
        (b"no image", label, "", "not_an_image"),
        (None, label, "", "empty"),
        (b"", label, "missing: gone", "missing"),
        (np.empty((0, 0, 3), np.uint8), None, "unreachable: gone", "unreachable"),
        (photo, None, "label_missing: gone", "label_missing"),
        (photo, classes[:-1], "", "label_size"),
        (photo, np.full_like(classes, 77), "", "label_value"),
        (photo, wrong, "", "label_value"),
        (photo, b"no label", "", "label_undecodable"),
        (photo, encoded(pixels(photo), "JPEG"), "", "label_lossy"),
        (photo, None, "", ""),
        (photo, float("nan"), "", ""),
        (photo, np.empty((0, 0), np.uint8), "", ""),
    ]
    images, labels, errors, codes = (list(column) for column in zip(*cells, strict=True))
    with caplog.at_level(logging.WARNING):
        found = segmenter({"image": images, "label": labels, "error": errors})
    assert [error.partition(":")[0] for error in found["error"]] == codes
    assert "10 of 14 images with an error, the first: not_an_image" in caplog.text
    for code, mask, counts in zip(codes, found["mask"], found["confusion"], strict=True):
        assert mask.size == (0 if code and not code.startswith("label_") else classes.size)
        assert counts.sum() == (0 if code else classes.size)
    assert found["confusion"][-1][CLASSES].sum() == classes.size  # without a label all is void


@pytest.mark.parametrize(
    ("batch", "kind", "words"),
    [
        ({"picture": []}, ValueError, "no column 'image' in the batch: name one of ['picture']"),
        ({"image": [], "mask": []}, ValueError, "a column 'mask' already"),
        ({"image": [], "label": [], "confusion": []}, ValueError, "a column 'confusion' already"),
        (pa.table({"image": [b""]}), TypeError, "batch_format='numpy'"),
        ({"image": [np.zeros((4, 5, 3), np.float32)]}, ValueError, "not float32 (4, 5, 3)"),
        ({"image": [np.zeros((4, 5, 3), np.uint8)], "label": [3]}, TypeError, "the label is of type int"),
        ({"image": [np.zeros((4, 5, 3), np.uint8)], "label": [np.zeros((4, 5))]}, ValueError, "not float64 (4, 5)"),
        ({"image": [np.zeros((4, 5, 3), np.uint8)] * 2, "label": [None]}, ValueError, "2 images and 1 labels"),
    ],
)
def test_a_batch_that_is_none_is_refused_in_words(
    segmenter: segment.Segmenter, batch: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        segmenter(batch)
    assert words in str(caught.value)


def test_columns_go_by_their_names(scenes: Scenes) -> None:
    segmenter = segment.Segmenter(
        MODEL, image_column="photo", label_column="truth", mask_column="predicted", keep_images=True
    )
    batch = {"photo": list(scenes.photos.values()), "truth": list(scenes.labels.values()), "mask": [1] * 6}
    found = segmenter(batch)
    assert list(found) == ["photo", "truth", "mask", "predicted", "error", "confusion"]
    without = segment.Segmenter(MODEL, label_column=None)
    assert list(without({"image": [scenes.photos["0.jpg"]], "label": [7]})) == ["label", "mask", "error"]


def test_labels_are_read_as_a_job_reads_them(scenes: Scenes) -> None:
    remapped = segment.Segmenter(MODEL, label_remap={"*": "Road"})
    photo, label = scenes.photos["0.jpg"], scenes.labels["0.jpg"]
    rows = [remapped.segment(photo, label), remapped.segment(photo, np.asarray(Image.open(io.BytesIO(label))))]
    for row in rows:
        assert set(np.flatnonzero(row["confusion"].sum(axis=1))) == {3}
    palette = remapped.model.card.classes.palette_array
    colours = palette[np.asarray(Image.open(io.BytesIO(label)))]
    by_colour = segment.Segmenter(MODEL).segment(photo, colours)
    np.testing.assert_array_equal(by_colour["confusion"], segment.Segmenter(MODEL).segment(photo, label)["confusion"])
    with pytest.raises(UsageError, match="label_remap: remap to 'Motorway'"):
        segment.Segmenter(MODEL, label_remap={"1": "Motorway"})
    with pytest.raises(UsageError, match=r"^label_encoding: 'color' is none of auto, index, colour\. Did you mean"):
        segment.Segmenter(MODEL, label_encoding="color")  # type: ignore[arg-type]


def test_a_copy_computes_the_same_or_fails(tmp_path: Path, scenes: Scenes) -> None:
    names = small_model(tmp_path)
    made = segment.Segmenter(**names)
    data = pickle.dumps(made)
    shutil.move(names["model"], tmp_path / "moved.toml")  # the card travels along
    copy = pickle.loads(data)
    assert copy.model.runtime == made.model.runtime
    photo = scenes.photos["0.jpg"]
    np.testing.assert_array_equal(copy.predict(photo), made.predict(photo))
    Path(names["weights"]).write_bytes(colour_classifier(made.model.card, opset=18))
    with pytest.raises(ModelError, match="the weights have changed"):
        pickle.loads(data).predict(photo)
