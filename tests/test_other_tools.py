"""docs/metrics.md: the numbers of other tools are ours, to 1e-9. A tool is run, or its published formula written anew.

torchmetrics needs torch, which is not among the test dependencies (hundreds of megabytes, and the build is the user's
choice): `pip install torch torchmetrics` in the environment of the tests runs its part.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

import segment
from segment.metrics import Confusion, Score, score
from segment.models.card import Convention
from segment.models.classes import VOID
from tests.serving import shared

CLASSES = 6
IGNORED = (1, 4)
Pixels = NDArray[np.uint8]
CLOSE = {"rtol": 0, "atol": 1e-9}


def scene(seed: int) -> tuple[Pixels, Pixels]:
    """Label and prediction: with void; ignored classes are predicted, class 3 is never labelled, class 5 in neither."""
    generator = np.random.default_rng(seed)
    label = generator.choice(np.array([0, 1, 2, 4, VOID], np.uint8), (40, 50), p=[0.4, 0.15, 0.25, 0.1, 0.1])
    guess = generator.integers(0, 5, label.shape).astype(np.uint8)
    right = (generator.random(label.shape) < 0.7) & (label != VOID)
    return label, np.where(right, label, guess)


SCENES = [scene(seed) for seed in range(3)]


def ours(label: Pixels, guess: Pixels, convention: Convention, ignore: tuple[int, ...] = IGNORED) -> Score:
    return score(Confusion.of(guess, label, CLASSES), ignore, convention)


def kept(label: Pixels, guess: Pixels, convention: Convention) -> tuple[Pixels, Pixels]:
    """The pixels that a convention counts, for tools that know no ignored class."""
    counted = (label != VOID) & ~np.isin(label, IGNORED)
    if convention == "omz":
        counted &= ~np.isin(guess, IGNORED)
    return label[counted], guess[counted]


def test_the_scenes_hold_every_case() -> None:
    for label, guess in SCENES:
        assert set(np.unique(label)) == {0, 1, 2, 4, VOID}
        assert set(np.unique(guess)) == {0, 1, 2, 3, 4}
        for ignored in IGNORED:
            assert ((guess == ignored) & ~np.isin(label, [*IGNORED, VOID])).any()


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", ["omz", "cityscapes", "mmseg"])
@pytest.mark.parametrize(("label", "guess"), SCENES)
def test_scikit_learn(label: Pixels, guess: Pixels, convention: Convention) -> None:
    """Over the counted pixels; `labels` are the classes that occur and are not ignored, for `mmseg` all that occur."""
    found, (truth, said) = ours(label, guess, convention), kept(label, guess, convention)
    occurring = [int(c) for c in np.union1d(truth, said) if convention == "mmseg" or c not in IGNORED]
    settings: dict[str, Any] = {"labels": occurring, "zero_division": 0}
    by_class = {
        "iou": sklearn_metrics.jaccard_score(truth, said, average=None, **settings),
        "dice": sklearn_metrics.f1_score(truth, said, average=None, **settings),
        "precision": sklearn_metrics.precision_score(truth, said, average=None, **settings),
    }
    for name, wanted in by_class.items():
        np.testing.assert_allclose(getattr(found, name)[occurring], wanted, **CLOSE, err_msg=name)
        assert np.isnan(np.delete(getattr(found, name), occurring)).all()
    labelled = np.unique(truth).tolist()
    recall = sklearn_metrics.recall_score(truth, said, average=None, labels=labelled)
    np.testing.assert_allclose(found.recall[labelled], recall, **CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and never labelled
        balanced = sklearn_metrics.balanced_accuracy_score(truth, said)
    wanted = {
        "miou": sklearn_metrics.jaccard_score(truth, said, average="macro", **settings),
        "frequency_weighted_iou": sklearn_metrics.jaccard_score(truth, said, average="weighted", **settings),
        "mean_accuracy": balanced,
        "pixel_accuracy": sklearn_metrics.accuracy_score(truth, said),
        "mean_dice": sklearn_metrics.f1_score(truth, said, average="macro", **settings),
        "kappa": sklearn_metrics.cohen_kappa_score(truth, said),
    }
    figures = found.figures()
    assert figures.keys() == wanted.keys()
    for name, value in wanted.items():
        assert figures[name] == pytest.approx(value, abs=1e-9), name


# --- mmsegmentation and Hugging Face `evaluate`, by their published formulas -----------------------------------------


def areas(label: Pixels, guess: Pixels, ignore_index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Areas of intersection, prediction and label by class, of the pixels whose label is not `ignore_index`.

    So count `IoUMetric` of mmsegmentation (mmseg/evaluation/metrics/iou_metric.py) and `mean_iou` of `evaluate`.
    """
    counted = label != ignore_index
    label, guess = label[counted], guess[counted]
    edges = np.arange(CLASSES + 1)
    return tuple(np.histogram(pixels, edges)[0] for pixels in (guess[guess == label], guess, label))  # type: ignore[return-value]


@pytest.mark.parametrize(("label", "guess"), SCENES)
def test_mmsegmentation_and_evaluate(label: Pixels, guess: Pixels) -> None:
    """Labels of ignored classes are set to `ignore_index` beforehand, as both take one value only."""
    both, predicted, labelled = areas(np.where(np.isin(label, IGNORED), VOID, label).astype(np.uint8), guess, VOID)
    found = ours(label, guess, "mmseg")
    with np.errstate(invalid="ignore"):
        iou, accuracy = both / (predicted + labelled - both), both / labelled
        dice, precision = 2 * both / (predicted + labelled), both / predicted
        fscore = 2 * precision * accuracy / (precision + accuracy)
    np.testing.assert_allclose(found.iou, iou, **CLOSE)
    np.testing.assert_allclose(found.dice, dice, **CLOSE)
    np.testing.assert_allclose(found.precision, precision, **CLOSE)
    np.testing.assert_allclose(found.recall, accuracy, **CLOSE)
    figures = found.figures()
    assert figures["miou"] == pytest.approx(np.nanmean(iou), abs=1e-9)  # mIoU, mean_iou
    assert figures["mean_accuracy"] == pytest.approx(np.nanmean(accuracy), abs=1e-9)  # mAcc, mean_accuracy
    assert figures["mean_dice"] == pytest.approx(np.nanmean(dice), abs=1e-9)  # mDice
    assert figures["pixel_accuracy"] == pytest.approx(both.sum() / labelled.sum(), abs=1e-9)  # aAcc, overall_accuracy
    seen = ~np.isnan(fscore)  # mFscore leaves out classes that are never labelled, mDice counts them as 0
    np.testing.assert_allclose(found.dice[seen], fscore[seen], **CLOSE)
    assert (found.dice[~seen & ~np.isnan(dice)] == 0).all()


# --- Cityscapes and Open Model Zoo, by their published formulas ------------------------------------------------------


@pytest.mark.parametrize(("label", "guess"), SCENES)
def test_the_cityscapes_script(label: Pixels, guess: Pixels) -> None:
    """`getIouScoreForLabel` of cityscapesScripts (evalPixelLevelSemanticLabeling.py); ignored are those not in eval."""
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(matrix, (label[label != VOID], guess[label != VOID]), 1)
    found = ours(label, guess, "cityscapes")
    counted = [index for index in range(CLASSES) if index not in IGNORED]
    scores = []
    for index in counted:
        others = [other for other in counted if other != index]
        hit = matrix[index, index]
        missed, false = matrix[index].sum() - hit, matrix[others, index].sum()
        if hit + missed + false:
            scores.append(hit / (hit + missed + false))
            assert found.iou[index] == pytest.approx(scores[-1], abs=1e-9)
    assert found.miou == pytest.approx(np.mean(scores), abs=1e-9)


@pytest.mark.parametrize(("label", "guess"), SCENES)
def test_open_model_zoo(label: Pixels, guess: Pixels) -> None:
    """`mean_iou` and `segmentation_accuracy` of its accuracy checker with `ignore_label`: drop row and column."""
    truth, said = kept(label, guess, "omz")
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(matrix, (truth, said), 1)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diagonal(matrix)
    found = ours(label, guess, "omz")
    with np.errstate(invalid="ignore"):
        iou = np.diagonal(matrix) / union
    np.testing.assert_allclose(found.iou, iou, **CLOSE)
    assert found.miou == pytest.approx(np.nanmean(iou), abs=1e-9)
    assert found.figures()["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-9)
    assert found.figures()["pixel_accuracy"] > ours(label, guess, "cityscapes").figures()["pixel_accuracy"]


# --- torchmetrics ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torch_tools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torch, its metrics, and how close they come: they round to `float32`, unless "double" takes that from them."""
    try:
        import torch
        from torchmetrics import classification
    except ImportError:
        pytest.skip("TORCHMETRICS MISSING: make test-tools")
    default = torch.get_default_dtype()
    if request.param == "double":
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
    yield torch, classification, 1e-9 if request.param == "double" else 1e-6
    torch.set_default_dtype(default)


@pytest.mark.parametrize("torch_tools", ["double", "as it is"], indirect=True)
@pytest.mark.parametrize(("label", "guess"), SCENES)
def test_torchmetrics(label: Pixels, guess: Pixels, torch_tools: Any) -> None:
    torch, tools, close = torch_tools

    def of(name: str, truth: Pixels, ignore_index: int, **settings: Any) -> NDArray[np.float64]:
        metric = getattr(tools, f"Multiclass{name}")(num_classes=CLASSES, ignore_index=ignore_index, **settings)
        return np.asarray(metric(torch.from_numpy(guess.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))))

    dropped = np.where(np.isin(label, IGNORED), VOID, label).astype(np.uint8)
    found = ours(label, guess, "mmseg")
    figures = found.figures()
    by_class = {"JaccardIndex": found.iou, "F1Score": found.dice, "Precision": found.precision, "Recall": found.recall}
    for name, values in by_class.items():  # it has 0 where nothing is defined
        np.testing.assert_allclose(of(name, dropped, VOID, average="none"), np.nan_to_num(values), rtol=0, atol=close)
    wanted = {
        "miou": of("JaccardIndex", dropped, VOID, average="macro"),
        "frequency_weighted_iou": of("JaccardIndex", dropped, VOID, average="weighted"),
        "pixel_accuracy": of("Accuracy", dropped, VOID, average="micro"),
        "mean_dice": of("F1Score", dropped, VOID, average="macro"),
        "kappa": of("CohenKappa", dropped, VOID),
    }
    for figure, value in wanted.items():
        assert figures[figure] == pytest.approx(float(value), abs=close), figure
    occurring = ~np.isnan(found.iou)  # its mean accuracy counts what is predicted and never labelled as 0
    assert float(of("Accuracy", dropped, VOID, average="macro")) == pytest.approx(
        np.nan_to_num(found.recall)[occurring].mean(), abs=close
    )
    without_void = np.where(label == VOID, IGNORED[0], label).astype(np.uint8)
    one = ours(label, guess, "cityscapes", IGNORED[:1])
    found_macro = of("JaccardIndex", without_void, IGNORED[0], average="macro")
    assert float(found_macro) == pytest.approx(one.miou, abs=close)


# --- CamVid: one run, and what each tool says of it ------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_camvid_by_every_convention(tmp_path: Path) -> None:
    """U-Net on CamVid, counted at the size of the images; 'Pole' and 'Unlabeled' ignored."""
    images, labels = (shared(f"camvid/{name}/0016E5_07959.png").parent for name in ("images", "labels"))
    built_in = Path(segment.__file__).with_name("models") / "cards" / "unet-camvid-onnx-0001.toml"
    at_source, changes = re.subn(r'(?m)^resolution = "model"$', 'resolution = "source"', built_in.read_text("utf-8"))
    assert changes == 2  # of the metric and of the published score
    card_file = tmp_path / "source.toml"
    card_file.write_text(at_source, encoding="utf-8")
    job = segment.Job(
        input=str(images), labels=str(labels), output=str(tmp_path / "out"), model=str(card_file),
        weights=str(shared("models/unet32-camvid.onnx")), runtime="onnxruntime", precision="f32", engine="local",
    )  # fmt: skip
    segment.run(job)
    published = {"mmseg": (60.2376, 0.8759), "cityscapes": (66.2613, 0.8759), "omz": (67.0789, 0.8922)}
    for convention, (miou, accuracy) in published.items():
        found = segment.score(tmp_path / "out", convention=convention, ignore=["Pole", "Unlabeled"])  # type: ignore[arg-type]
        assert 100 * (found.miou or 0) == pytest.approx(miou, abs=5e-5)
        assert found.overall.figures["pixel_accuracy"] == pytest.approx(accuracy, abs=5e-5)
        assert not found.report.size_note  # counted and stored at one size
        recounted = Confusion.zeros(12)
        for image in segment.open_run(tmp_path / "out").masks():
            assert image.mask is not None
            recounted += segment.confusion(image.mask, grey(labels / image.id), classes=12)
        again = segment.iou(recounted, convention=convention, ignore=[2, 11])  # type: ignore[arg-type]
        assert again.mean == pytest.approx(found.miou, abs=1e-12)


def grey(file: Path) -> Pixels:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image)
