"""`segment quantize`: weights in INT8 that keep their masks, a card that runs, and a price that is measured."""

import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import segment as api
from jobs.voc_independent import cpu_adds_bytes_exactly
from segment.cli.app import Stopped
from segment.drafts.drafting import draft_card
from segment.errors import ModelError, SegmentError, TooManyErrors, UsageError
from segment.job import Job
from segment.models.card import load_card
from segment.models.sessions import Runtime
from segment.models.sessions.apart_process import Passing
from segment.models.weights import load_weights
from segment.quantization import asked, making, pricing, quantizing, trial_run
from segment.quantization.asked import Asked
from segment.quantization.calibration import Calibration, places_of, spread
from segment.quantization.judging import gains, judge, reservations
from segment.quantization.quantizing import QuantisedModel, quantise_job
from segment.quantization.runtime_speeds import RuntimeSpeed
from segment.quantization.static_qdq import quantise_onnx
from segment.store.client import Store
from tests.calls import Call
from tests.nets import net
from tests.runs import Place, png, scene

IMAGES = 16


def filled(place: Place, number: int, labels: bool = True) -> Place:
    """Add painted images with noise, of which 8 bits change a few pixels, and the masks without noise as labels."""
    for seed in range(number):
        pixels, mask = scene(seed)
        noise = np.random.default_rng(seed).normal(0, 40, pixels.shape)
        noisy = (pixels + noise).clip(0, 255).astype(np.uint8)
        place.write(f"{seed:02d}.png", png(noisy), png(mask) if labels else None)
    return place


def asked_of(place: Place, **changes: Any) -> Job:
    return place.job(**{"labels": str(place.labels), "runtime": "auto", **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Labelled images, and a model that gives each pixel the class of the nearest colour."""
    return filled(Place(tmp_path_factory.mktemp("quantize")), IMAGES)


@pytest.fixture(scope="module")
def made(folder: Place) -> QuantisedModel:
    """That model, calibrated with half of the images and compared on the other half."""
    return api.quantize(asked_of(folder))


def test_the_masks_stay_and_the_price_is_that_of_other_images(made: QuantisedModel, folder: Place) -> None:
    source, *quantised = made.comparison.runs
    assert [run.report.run["contract"]["runtime"]["name"] for run in quantised] == ["openvino", "onnxruntime"]
    assert source.report.run["contract"]["runtime"]["precision"] == "f32"
    asked = [runtime.precision for runtime in pricing.served_by(asked_of(folder), "onnx")]
    assert [run.report.run["contract"]["runtime"]["precision"] for run in quantised] == asked
    for against in made.comparison.against:
        assert len(against.pairs) == IMAGES // 2
        assert against.agreement is not None
        assert 0.95 < against.agreement < 1  # below 1: it is another model
        assert against.change is not None
        assert abs(against.change) < 0.02
    chosen = quantizing._choose(asked_of(folder), Asked(), Store())
    calibrating = {place.name.rpartition("/")[2] for place in chosen.calibrating}
    assert len(calibrating) == IMAGES // 2
    for against in made.comparison.against:  # the outputs of the runs are gone
        evaluated = against.images()["id"].to_pylist()
        assert len(evaluated) == IMAGES // 2
        assert not calibrating & {*evaluated}
    assert "changed most" in made.comparison._repr_markdown_()


def test_the_card_runs_and_says_how_its_weights_were_made(made: QuantisedModel, folder: Place) -> None:
    assert sorted(file.name for file in folder.output.iterdir()) == ["blocks-int8.onnx", "card.toml", "index.html"]
    card = api.load_card(str(folder.output / "card.toml"))
    assert card.quantisation is not None
    source = load_weights(load_card(str(folder.card_path)), str(folder.weights_path))
    assert card.quantisation.source_sha384 == tuple(source.file_digests)
    assert (card.quantisation.images, card.quantisation.method) == (IMAGES // 2, "onnxruntime")
    assert card.metric.published is None  # it is the score of other weights
    assert {price.miou_before for price in card.quantisation.price} == {made.comparison.runs[0].report.miou()}
    image = (folder.images / "03.png").read_bytes()
    before = api.load_model(folder.card_path, folder.weights_path, precision="f32").predict(image)
    for runtime in ("openvino", "onnxruntime"):
        after = api.load_model(folder.output / "card.toml", runtime=runtime).predict(image)
        assert np.mean(before == after) > 0.95


def test_convolutions_hold_8_bits_by_channel(made: QuantisedModel, folder: Place) -> None:
    assert made.accepted
    model = onnx.load(folder.output / "blocks-int8.onnx")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weights, scale, *_ = (stored[name] for name in makers[node.input[1]].input)
        assert weights.data_type == onnx.TensorProto.INT8
        assert list(scale.dims) == list(weights.dims)[:1]


def test_the_page_shows_price_and_speed_and_no_temporary_folder(made: QuantisedModel) -> None:
    page = Path(made.page.removeprefix("file://")).read_text(encoding="utf-8")
    for words in ("Written", "How it was made", "bootstrap", made.verdicts[0].words, "Changed most"):
        assert words in page
    assert "segment-quantize-" not in page
    assert [speed.numbers for speed in made.speeds if speed.numbers != "bf16"] == ["f32", "INT8"] * 2
    assert all(speed.milliseconds > 0 for speed in made.speeds)


def test_the_loss_decides_and_the_interval_is_told(made: QuantisedModel) -> None:
    found = made.comparison
    lost = [one.change is not None and one.change < 0 for one in found.against]
    assert [not verdict.passed for verdict in judge(found, Asked(max_drop=0.0))] == lost
    worst = max(-100 * (one.change or 0) for one in found.against)
    few, *told = reservations(found, Asked(max_drop=max(worst, 0.0)))
    assert "8 labelled images: of fewer than 30" in few
    assert told
    assert all("do not rule out" in line for line in told)
    strict = list(reservations(found, Asked(max_drop=100, min_agreement=1.0)))
    assert sum("are these the model's labels?" in line for line in strict) == len(found.against)
    failed = [replace(one, matches=replace(one.matches, failed_of_a=1, failed_a=2)) for one in found.against]
    failing = replace(found, against=tuple(failed))
    assert [one.words for one in judge(failing, Asked(max_drop=100)) if not one.passed] == [
        f"{name}: 1 image that the source segments cannot be segmented" for name in ("openvino", "onnxruntime")
    ]
    assert next(reservations(failing, Asked())).startswith("2 images in no figure")
    bare = [replace(one, overall=replace(one.overall, scores=None)) for one in found.against]
    unlabelled = replace(found, against=tuple(bare))
    assert [one.passed for one in judge(unlabelled, Asked(min_agreement=1.0))] == [False, False]
    assert all(one.passed for one in judge(unlabelled, Asked(min_agreement=0.5)))
    assert "no image is labelled" in next(reservations(unlabelled, Asked()))


def test_the_same_images_give_the_same_bytes(tmp_path: Path, folder: Place, made: QuantisedModel) -> None:
    assert made.accepted
    card = load_card(str(folder.card_path))
    weights, asked = load_weights(card, str(folder.weights_path)), asked_of(folder)
    places = places_of(asked.input, asked, Store())
    first, again, other = (spread(places, 8, seed) for seed in (0, 0, 1))
    assert first == again != other
    chosen = quantizing._choose(asked, Asked(), Store())
    calibration = Calibration(chosen.calibrating, chosen.reading, card, Store(), tmp_path)
    assert quantise_onnx(card, weights, calibration, nullcontext) == (folder.output / "blocks-int8.onnx").read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A few unlabelled images; the first run of a model, whose process costs seconds, is left out."""
    monkeypatch.setattr(making, "try_runtimes", lambda *_: None)
    return filled(Place(tmp_path), 8, labels=False)


def asking(place: Place, *more: str) -> tuple[str, ...]:
    model = ("--model", str(place.card_path), "--workers", "1", "--max-error-rate", "1")
    paths = ("--calibrate", str(place.images), "--output", str(place.output))
    return ("quantize", str(place.weights_path), *model, *paths, *more)


def test_a_loss_beyond_the_limit_is_refused_unless_forced(place: Place, segment: Call) -> None:
    with pytest.raises(SegmentError, match="beyond --min-agreement 1"):
        api.quantize(place.job(), min_agreement=1.0)
    assert [file.name for file in place.output.iterdir()] == ["refused.html"]
    forced = segment(*asking(place, "--min-agreement", "1", "--runtime", "onnxruntime", "--force"))
    assert forced.code == 0
    assert "FAIL" in forced.out
    assert "those that calibrate are evaluated, too" in forced.out
    assert sorted(file.suffix for file in place.output.iterdir()) == [".html", ".onnx", ".toml"]
    assert not (place.output / "refused.html").exists()
    card = tomllib.loads((place.output / "card.toml").read_text())
    assert "miou_after" not in card["quantisation"]["price"][0]


def test_the_command_ends_with_1_where_the_model_is_refused(
    made: QuantisedModel, place: Place, segment: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = replace(made.verdicts[0], passed=False)
    refused = replace(made, accepted=False, verdicts=(verdict,))
    monkeypatch.setattr(quantizing, "quantise_job", lambda *_, **__: refused)
    found = segment(*asking(place))
    assert found.code == 1
    assert f"error: not written: {verdict.words}" in found.err
    assert "card:" not in found.out


def test_what_breaks_it_off_leaves_nothing(place: Place, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise Stopped(2)

    monkeypatch.setattr(making, "try_runtimes", stop)
    stopped = segment(*asking(place))
    assert stopped.code == 130
    assert "nothing was written" in stopped.err
    assert not place.output.exists()


def _quantised(place: Place) -> None:
    node = onnx.helper.make_node("QuantizeLinear", ["scores", "s"], ["y"])
    place.weights_path.write_bytes(net(tail=[node], constants={"s": np.float32(1)}))


def _few(place: Place) -> None:
    (place.images / "00.png").unlink()


def _full(place: Place) -> None:
    place.output.mkdir()
    (place.output / "thesis.txt").touch()


def _other_card(place: Place) -> None:
    place.output.mkdir()
    (place.output / "card.toml").write_bytes(place.card_path.read_bytes())


def _other_format(place: Place) -> None:
    place.weights_path = place.weights_path.with_suffix(".tflite")
    place.weights_path.write_bytes(b"\x1c\0\0\0TFL3")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_quantised, "is quantised already"),
        (_few, "7 images to calibrate with"),
        (_full, "holds other files, such as 'thesis.txt'"),
        (_other_card, "is the card of other weights"),
        (_other_format, "TFLite files are quantised where they are made"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    place: Place, segment: Call, spoil: Callable[[Place], None], words: str
) -> None:
    spoil(place)
    before = sorted(place.output.iterdir()) if place.output.exists() else None
    refused = segment(*asking(place))
    assert refused.code == 2
    assert words in refused.err
    assert (sorted(place.output.iterdir()) if place.output.exists() else None) == before


@pytest.mark.parametrize("values", [{"limit": 3}, {"sample": 3}, {"device": "cuda"}])
def test_what_a_job_asks_in_vain_is_refused(folder: Place, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        api.quantize(asked_of(folder, **values))


def test_advice_is_of_what_may_work() -> None:
    runtimes = {name: Runtime(name, "cpu", "f32", "1") for name in ("openvino", "onnxruntime")}
    assert "--runtime onnxruntime" in trial_run._advice(runtimes["openvino"], is_onnx=True)
    assert "--runtime openvino" in trial_run._advice(runtimes["onnxruntime"], is_onnx=True)
    assert trial_run._advice(runtimes["openvino"], is_onnx=False) == "Try --method onnxruntime"


def test_labels_of_another_size_are_refused_without_the_advice_of_a_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in place.images.iterdir():
        place.write(image.name, image.read_bytes(), png(np.zeros((5, 5), np.uint8)))
    monkeypatch.setattr(making, "_quantise", lambda *_: ({"w.onnx": place.weights_path.read_bytes()}, "none"))
    monkeypatch.setattr(making, "measure", lambda *_: [])
    with pytest.raises(TooManyErrors, match=r"8 of 8 images failed, more than .* label") as caught:
        api.quantize(place.job(max_error_rate=0.5))
    assert "--update" not in str(caught.value)
    assert not place.output.exists()


def test_the_images_that_calibrate_are_counted(folder: Place, tmp_path: Path) -> None:
    """As they are read, and as the quantiser takes them, which prints much and is kept quiet."""
    job, store = asked_of(folder), Store()
    card, asked = load_card(str(folder.card_path)), Asked(images=8)
    weights, notes = load_weights(card, job.weights, store=store), list[str]()
    chosen, runtimes = quantizing._choose(job, asked, store), pricing.served_by(job, "onnx")
    task = making.Making(card, weights, job, asked, chosen, runtimes, store, tmp_path)
    making.make(task, note=notes.append, within=lambda *_: nullcontext())
    told = [line for line in notes if isinstance(line, Passing)]
    assert told == [
        *(f"reading images that calibrate: {number} of 8" for number in range(1, 9)),
        *(f"quantising: image {number} of 8" for number in range(1, 9)),
        "running the quantised model",
    ]
    assert [line for line in notes if line not in told] == ["quantising with 8 images", "measuring the speed"]


def test_limits_are_checked_first() -> None:
    for wrong in ({"max_drop": -1.0}, {"max_drop": float("nan")}, {"min_agreement": 2.0}, {"images": 0}):
        with pytest.raises(UsageError):
            Asked(**wrong).check()


def test_that_nncf_is_missing_is_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "find_spec", lambda _: None)
    job = Job(input=str(tmp_path / "nowhere"), model="nowhere", output=str(tmp_path / "int8"))
    with pytest.raises(UsageError, match=r"--method nncf needs NNCF: pip install 'segment-job\[nncf\]'"):
        api.quantize(job, method="nncf")


def test_an_nncf_that_cannot_be_imported_is_told_before_images_are_read(
    folder: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a library of another version: it is found, so that `check` says nothing."""
    (tmp_path / "nncf.py").write_text("import numpy\nnumpy.of_another_version")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(making, "Calibration", None)
    job = asked_of(folder, output=str(tmp_path / "int8"))
    words = r"--method nncf: NNCF cannot be imported \(.*'of_another_version'.*\): pip install 'segment-job\[nncf\]'"
    with pytest.raises(UsageError, match=words):
        api.quantize(job, method="nncf")


def test_nncf_makes_an_ir(folder: Place, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF MISSING: pip install 'segment-job[nncf]'")
    found = api.quantize(asked_of(folder, output=str(tmp_path / "int8")), method="nncf", force=True)
    assert [run.report.run["contract"]["runtime"]["name"] for run in found.comparison.runs] == ["openvino"] * 2
    assert {file.suffix for file in (tmp_path / "int8").iterdir()} == {".xml", ".bin", ".toml", ".html"}


@pytest.mark.shared
@pytest.mark.slow
def test_the_trained_unet_keeps_its_score(shared: Path, tmp_path: Path) -> None:
    camvid = shared / "camvid"
    found = quantise_job(
        Job(
            input=camvid / "images",
            labels=camvid / "labels",
            output=tmp_path / "int8",
            model="unet-camvid-onnx-0001",
            weights=shared / "models" / "unet32-camvid.onnx",
        ),
        Asked(calibrate=str(camvid / "calibration"), images=16, max_drop=0.5),
    )
    assert found.accepted
    assert all((one.agreement or 0) > 0.98 for one in found.comparison.against)


def test_a_model_that_is_hardly_faster_is_told() -> None:
    source = [RuntimeSpeed("openvino", "f32", 40.0, 3), RuntimeSpeed("openvino", "bf16", 10.0, 3)]
    assert list(gains([*source, RuntimeSpeed("openvino", "INT8", 8.0, 3)])) == []
    (line,) = gains([*source, RuntimeSpeed("openvino", "INT8", 9.8, 3)])
    assert "gains little" in line
    assert "bf16 takes 10.0 ms" in line


@pytest.mark.shared
@pytest.mark.slow
def test_a_runtime_that_crashes_is_refused_in_words(shared: Path, tmp_path: Path) -> None:
    if not cpu_adds_bytes_exactly():
        pytest.skip("NO VNNI HERE: quantised layers are computed in f32, and nothing crashes")
    model = shared / "models" / "strangers" / "SINet.onnx"  # openvino 2026.4 crashes on it in INT8
    (tmp_path / "sinet.toml").write_text(draft_card(str(model)).text)
    values = {"input": shared / "camvid" / "calibration", "model": tmp_path / "sinet.toml", "weights": model}
    with pytest.raises(ModelError, match=r"openvino .* cannot run the quantised graph: .* ended by SIGSEGV.*--runtime"):
        quantise_job(Job(output=tmp_path / "int8", **values), Asked(images=8, evaluate_images=8))
    assert not (tmp_path / "int8").exists()
