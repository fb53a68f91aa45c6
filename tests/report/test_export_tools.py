"""Exports opened by the libraries of the tools they are for, each where it is installed.

They want an older OpenCV than this project, so that the `test` extra cannot hold them: `make test-tools` installs each
in an environment of its own. What the formats hold is tested without them in test_export_formats.py.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segment.models.classes import Classes
from segment.report.exports.exporting import Format
from segment.report.exports.voc import LabelMap
from tests.exports import exported, files, street
from tests.runs import CARD, Place

Masks = dict[str, NDArray[np.uint8]]


def library(name: str, package: str) -> Any:
    return pytest.importorskip(name, reason=f"NOT TESTED without {package}: make test-tools")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Masks]:
    return street(tmp_path_factory.mktemp("tools"))


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("voc", "voc_segmentation"),
        ("cvat", "voc_segmentation"),
        ("coco-stuff", "coco_stuff"),
        ("coco-panoptic", "coco_panoptic"),
    ],
)
def test_datumaro_imports(run: tuple[Place, Masks], tmp_path: Path, kind: Format, theirs: str) -> None:
    datumaro = library("datumaro", "datumaro")
    place, expected = run
    exported(place, tmp_path, kind)
    if kind == "cvat":
        (archive,) = files(tmp_path)
        zipfile.ZipFile(archive).extractall(tmp_path)
    assert theirs in datumaro.Environment().detect_dataset(str(tmp_path))
    dataset = datumaro.Dataset.import_from(str(tmp_path), theirs)
    classes = dataset.categories()[datumaro.AnnotationType.label]
    assert [label.name for label in classes] == list(CARD.classes.names)
    found = {}
    for item in dataset:
        mask = np.full(expected[f"{item.id}.png"].shape, 255, np.uint8)
        for one in item.annotations:
            if one.type == datumaro.AnnotationType.mask:
                mask[np.asarray(one.image, bool)] = one.label
        found[f"{item.id}.png"] = mask
    assert sorted(found) == sorted(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_datumaro_reads_odd_names_and_equal_colours(tmp_path: Path) -> None:
    library("datumaro", "datumaro")
    from datumaro.plugins.data_formats.voc.format import parse_label_map

    names = ("a:b", "two\nlines", "#c", "x, y", "", "a_b")
    labels = LabelMap(Classes.model_construct(names=names, palette=((1, 2, 3),) * 6))
    (tmp_path / "labelmap.txt").write_bytes(labels.to_bytes())
    found = parse_label_map(str(tmp_path / "labelmap.txt"))
    assert list(found) == labels.names
    assert [list(colour) for colour, _, _ in found.values()] == labels.palette.tolist()


def test_datumaro_finds_the_images(run: tuple[Place, Masks], tmp_path: Path) -> None:
    datumaro = library("datumaro", "datumaro")
    exported(run[0], tmp_path, "coco-stuff")
    (tmp_path / "images" / "default").symlink_to(run[0].images)
    dataset = datumaro.Dataset.import_from(str(tmp_path), "coco_stuff")
    assert all(Path(item.media.path).is_file() for item in dataset)


def test_label_studio_accepts_and_decodes_predictions(run: tuple[Place, Masks], tmp_path: Path) -> None:
    brush = library("label_studio_sdk.converter.brush", "label-studio-sdk")
    from label_studio_sdk.label_interface import LabelInterface

    place, expected = run
    exported(place, tmp_path, "label-studio")
    interface = LabelInterface((tmp_path / "labels.xml").read_text("utf-8"))
    for task in json.loads((tmp_path / "tasks-00001.json").read_text("utf-8")):
        mask = expected[task["data"]["id"]]
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction)
        found = np.full(mask.shape, 255, np.uint8)
        for one in prediction["result"]:
            index = CARD.classes.index(one["value"]["brushlabels"][0])
            ours, theirs = one["value"]["rle"], brush.mask2rle((mask == index) * np.uint8(255))
            assert theirs[: len(ours)] == ours
            assert not any(theirs[len(ours) :])  # theirs may end in a byte of nothing
            found[brush.decode_rle(ours).reshape(*mask.shape, 4)[:, :, 3] == 255] = index
        assert np.array_equal(found, mask)


def test_fiftyone_imports_masks_beside_their_images(run: tuple[Place, Masks], tmp_path: Path) -> None:
    library("fiftyone", "fiftyone")
    import cv2
    from fiftyone.utils.data import ImageSegmentationDirectoryImporter  # needs no database, unlike a data set

    place, expected = run
    exported(place, tmp_path, "png")
    importer = ImageSegmentationDirectoryImporter(data_path=str(place.images), labels_path=str(tmp_path))
    importer.setup()
    found = {}
    for image, _, label in importer:
        found[Path(image).relative_to(place.images).as_posix()] = cv2.imread(label.mask_path, cv2.IMREAD_UNCHANGED)
    assert sorted(found) == sorted(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
