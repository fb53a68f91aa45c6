"""One suite over all engines: the same bytes, the same error rows, the same resume."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import helper, numpy_helper

import segment
from segment.errors import ModelError, SegmentError, TooManyErrors, UsageError
from segment.job import job_to_toml
from segment.models.card import load_card
from segment.runs.resolve import make_engine
from tests.calls import here, process
from tests.datasets import Item, encoded, mask_of, read_rows, write_files, write_tars
from tests.graphs import colour_classifier, painted
from tests.jobs import ENGINES, MOTLEY_ERRORS, model, motley, on, run_on, small_card, tree


@pytest.fixture(scope="module")
def motley_job(tmp_path_factory: pytest.TempPathFactory) -> segment.Job:
    """Three tars, some images of which are broken, in parts of two."""
    folder = tmp_path_factory.mktemp("motley")
    fields = model(folder)
    inputs = write_tars(folder / "tars", motley(load_card(fields["model"])))
    return segment.Job(output=str(folder / "unused"), **fields, **inputs, part_size=2, max_error_rate=0.5)


def to(job: segment.Job, output: Path, **changes: Any) -> segment.Job:
    return job.model_copy(update={"output": str(output), **changes})


@pytest.fixture(scope="module")
def reference(motley_job: segment.Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference") / "out"
    run_on(ENGINES["local-1"], to(motley_job, output))
    return output


# --- the same bytes ---------------------------------------------------------------------------------------------------


@on("local-2", "local-3", "local-gpu", "ray-2", "ray-split")
def test_bytes_are_the_same_everywhere(engine: str, motley_job: segment.Job, reference: Path, tmp_path: Path) -> None:
    batches = {"batch_size": 3} if engine == "ray-split" else {}  # they change no byte there, either
    report = run_on(ENGINES[engine], to(motley_job, tmp_path, **batches))
    assert (report.total.images, report.total.errors, report.complete) == (14, 5, True)
    found, wanted = tree(tmp_path), tree(reference)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    for name in ("manifest.parquet", "report/summary.json"):  # _SUCCESS names run.json, too, which has the job
        assert (tmp_path / name).read_bytes() == (reference / name).read_bytes()
    planned = [pq.read_table(output / "plan.parquet") for output in (tmp_path, reference)]
    assert planned[0].equals(planned[1])


@on("local-3")
def test_batches_change_no_byte(engine: str, motley_job: segment.Job, reference: Path, tmp_path: Path) -> None:
    run_on(ENGINES[engine], to(motley_job, tmp_path, batch_size=3))
    assert tree(tmp_path) == tree(reference)


def test_broken_images_are_rows(reference: Path) -> None:
    rows = {row["stem"]: row for row in read_rows(reference)}
    assert sorted(rows) == [f"{number:02d}" for number in range(14)]
    assert {stem: row["error"].split(":")[0] for stem, row in rows.items() if row["error"]} == MOTLEY_ERRORS
    for stem, row in rows.items():
        assert row["status"] == ("error" if stem in MOTLEY_ERRORS else "ok")
        assert (row["confusion"] is None) == (stem in MOTLEY_ERRORS)
        label_only = MOTLEY_ERRORS.get(stem, "").startswith("label")  # then the mask is good, and kept
        assert (row["mask"] is None) == (stem in MOTLEY_ERRORS and not label_only)
        if row["mask"]:
            assert mask_of(row).shape == (row["height"], row["width"])
    assert rows["03"]["miou"] is None  # has no label
    assert rows["03"]["confusion"] is not None


def test_images_at_the_models_size_are_not_resampled(motley_job: segment.Job, reference: Path) -> None:
    card = load_card(motley_job.model)
    rows = {row["stem"]: row for row in read_rows(reference)}
    for number in (0, 12):  # 12 is empty
        row = rows[f"{number:02d}"]
        if row["mask"]:
            np.testing.assert_array_equal(mask_of(row), painted(card, number, block=4)[1])
    row = rows["03"]  # twice as wide, so nearest neighbour back and forth is the identity here too
    wanted = painted(card, 3, block=4)[1]
    np.testing.assert_array_equal(mask_of(row)[:, ::2], wanted)


def test_stored_masks_and_labels_give_the_stored_counts(motley_job: segment.Job, tmp_path: Path) -> None:
    card = load_card(motley_job.model)
    pictures = [painted(card, seed, block=4) for seed in range(5)]
    shifted = [np.roll(mask, 3, axis=1) for _, mask in pictures]
    items = [
        Item(f"{i}.png", encoded(p[0]), encoded(s)) for i, (p, s) in enumerate(zip(pictures, shifted, strict=True))
    ]
    job = segment.Job(output=str(tmp_path / "out"), model=motley_job.model, weights=motley_job.weights,
                      **write_files(tmp_path, items))  # fmt: skip
    report = run_on(ENGINES["local-3"], job)
    total = np.zeros((13, 12), dtype=np.int64)
    for row in read_rows(tmp_path / "out"):
        one = np.zeros_like(total)
        np.add.at(one, (shifted[int(row["stem"])], mask_of(row)), 1)
        cells = {cell: int(count) for cell, count in enumerate(one.ravel()) if count}
        assert dict(zip(row["confusion"]["cell"], row["confusion"]["count"], strict=True)) == cells
        total += one
    np.testing.assert_array_equal(report.total.confusion.counts, total)


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files_job(tmp_path_factory: pytest.TempPathFactory, motley_job: segment.Job) -> segment.Job:
    """Eight good images as loose files, in parts of two; run once already."""
    folder = tmp_path_factory.mktemp("files")
    card = load_card(motley_job.model)
    pictures = [painted(card, seed, block=4) for seed in range(8)]
    items = [Item(f"{i}.png", encoded(image), encoded(mask)) for i, (image, mask) in enumerate(pictures)]
    job = segment.Job(output=str(folder / "done"), model=motley_job.model, weights=motley_job.weights, part_size=2,
                      precision="f32", **write_files(folder, items))  # fmt: skip
    run_on(ENGINES["local-1"], job)
    return job


@pytest.fixture
def done(files_job: segment.Job, tmp_path: Path) -> segment.Job:
    """That job with a copy of its output."""
    shutil.copytree(files_job.output, tmp_path / "out")
    return to(files_job, tmp_path / "out")


@pytest.fixture
def only_two_images(files_job: segment.Job) -> Iterator[set[str]]:
    """Hide the input but for the images of the third part."""
    files = [path for folder in (files_job.input, files_job.labels or "") for path in Path(folder).iterdir()]
    hidden = [path.rename(path.with_suffix(".hidden")) for path in files if path.stem not in ("4", "5")]
    yield {"4", "5"}
    for path in hidden:
        path.rename(path.with_suffix(".png"))


@on("local-3", "local-gpu", "ray-2")
def test_resume_reads_only_what_is_missing(engine: str, done: segment.Job, only_two_images: set[str]) -> None:
    output = Path(done.output)
    before = tree(output)
    lost = _holding(output, only_two_images)
    assert len(lost) == 1
    for path in (*lost, *(output / "stats").iterdir(), output / "_SUCCESS"):
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (output / "masks").rglob("*.parquet")}
    attempts = set((output / "runs").glob("*.parquet"))
    report = run_on(ENGINES[engine], done)
    assert report.complete
    assert tree(output) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (attempt,) = set((output / "runs").glob("*.parquet")) - attempts
    ran = pq.read_table(attempt).to_pylist()
    assert [(row["part"], row["images"], row["skipped"]) for row in ran] == [(lost[0].stem, 2, False)]


@on("local-3", "ray-split")
def test_image_by_image_gives_the_same_bytes(
    engine: str, done: segment.Job, only_two_images: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", ("image",))  # as the last round does what killed its workers
    output = Path(done.output)
    before = tree(output)
    for path in (*_holding(output, only_two_images), *(output / "stats").iterdir(), output / "_SUCCESS"):
        path.unlink()
    assert run_on(ENGINES[engine], done).complete
    assert tree(output) == before


def _holding(output: Path, stems: set[str]) -> list[Path]:
    """The masks files of exactly these images."""
    return [path for path in (output / "masks").rglob("*.parquet") if {row["id"][0] for row in _rows(path)} == stems]


def _rows(path: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(path).read(columns=["id"]).to_pylist()


def test_a_complete_run_starts_no_engine(done: segment.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("segment.runs.lazy_engine.make_engine", never)
    monkeypatch.setattr("segment.runs.driver.discover_for", never)
    output = Path(done.output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    masks = {path: path.stat().st_mtime_ns for path in (output / "masks").rglob("*.parquet")}
    for job in (done, done.model_copy(update={"precision": "auto", "workers": "7", "batch_size": 2})):
        report = segment.run(job)
        assert (report.complete, report.total.images) == (True, 8)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert {path: path.stat().st_mtime_ns for path in masks} == masks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "bf16"}, "  runtime.precision: 'f32' there, 'bf16' now"),
        ({"runtime": "onnxruntime"}, "  runtime.name: 'openvino' there, 'onnxruntime' now"),
        ({"mask_size": "model"}, "  mask_size: 'source' there, 'model' now"),
        ({"max_pixels": 1000}, "  max_pixels: 100000000 there, 1000 now"),
        ({"label_remap": {"11": "ignore"}}, "  labels.remap.11: None there, 255 now"),
        ({"label_encoding": "index"}, "  labels.encoding: 'auto' there, 'index' now"),
        ({"part_size": 3}, "  input.part_size: 2 there, 3 now"),
        ({"weights": "other"}, "  weights_sha384: '"),
        ({"model": "other"}, "  card.input.channels: 'BGR' there, 'RGB' now"),
        ({"input": "other"}, "  input.url: 'file://"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run_is_refused_by_name(change: dict[str, Any], said: str, done: segment.Job, tmp_path: Path) -> None:
    if change == {"weights": "other"}:
        (tmp_path / "other.onnx").write_bytes(colour_classifier(load_card(done.model), opset=16))
        change = {"weights": str(tmp_path / "other.onnx")}
    if change == {"model": "other"}:
        card = small_card(tmp_path)
        card.write_text(card.read_text().replace('channels = "BGR"', 'channels = "RGB"'))
        change = {"model": str(card)}
    if change == {"input": "other"}:
        shutil.copytree(done.input, tmp_path / "other")
        change = {"input": str(tmp_path / "other")}
    before = {path: path.read_bytes() for path in Path(done.output).rglob("*") if path.is_file()}
    with pytest.raises(UsageError) as caught:
        segment.run(done.model_copy(update=change))
    assert str(caught.value).startswith(f"{done.output} holds another run; its masks would mix with these:\n")
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert lines[0].startswith(said)
    assert [line.split(":")[0] for line in lines[1:]] == (["  runtime.version"] if "runtime" in change else [])
    assert {path: path.read_bytes() for path in Path(done.output).rglob("*") if path.is_file()} == before


# --- which engine -----------------------------------------------------------------------------------------------------


class Chosen:
    """In place of `RayEngine`: says that it was taken, and starts nothing."""

    name = "ray"

    def __init__(self, address: str | None, workers: tuple[int, int] | None, **_: object) -> None:
        self.taken = (address, workers)


@pytest.mark.parametrize(
    ("fields", "environment", "images", "wanted"),
    [
        ({}, None, 100, "local"),
        ({}, None, 10_000, "local"),
        ({}, None, 10_001, "ray"),
        ({}, "10.0.0.1:6379", 1, "ray"),
        ({"address": "auto"}, None, 1, "ray"),
        ({"engine": "ray"}, None, 1, "ray"),
        ({"engine": "local"}, None, 1_000_000, "local"),
        ({"engine": "local"}, "10.0.0.1:6379", 1, "local"),
    ],
)
def test_auto_picks_the_engine(
    fields: dict[str, str], environment: str | None, images: int, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment.engines.ray.RayEngine", Chosen)
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    else:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    engine = make_engine(segment.Job(input="in", output="out", model="m", workers="2", **fields), images)
    assert engine.name == wanted
    if isinstance(engine, Chosen):
        assert engine.taken == (fields.get("address"), (2, 2))
    else:
        assert engine.workers("cpu") == 2


def test_ray_client_is_refused_with_the_way_out(motley_job: segment.Job, tmp_path: Path) -> None:
    job = to(motley_job, tmp_path, engine="ray", address="ray://head:10001")
    with pytest.raises(UsageError, match=r"ray://head:10001 is Ray Client's.*ray job submit"):
        segment.run(job)


# --- limits and refusals ----------------------------------------------------------------------------------------------


@on("local-3", "ray-split")
def test_too_many_errors_end_the_run_and_a_higher_rate_resumes(
    engine: str, motley_job: segment.Job, reference: Path, tmp_path: Path
) -> None:
    strict = to(motley_job, tmp_path, max_error_rate=0.1)
    with pytest.raises(TooManyErrors, match=r"of 14 images failed.*--max-error-rate"):
        run_on(ENGINES[engine], strict)
    assert not (tmp_path / "_SUCCESS").exists()
    assert run_on(ENGINES[engine], to(motley_job, tmp_path)).complete
    assert tree(tmp_path) == tree(reference)


@on("local-3", "ray-2")
def test_a_graph_of_another_card_is_refused(engine: str, motley_job: segment.Job, tmp_path: Path) -> None:
    card = load_card(motley_job.model)
    other = card.model_copy(update={"input": card.input.model_copy(update={"layout": "NHWC"})})
    (tmp_path / "other.onnx").write_bytes(colour_classifier(other))
    job = to(motley_job, tmp_path / "out", weights=str(tmp_path / "other.onnx"))
    with pytest.raises(ModelError, match=r"the card says NCHW 3x32x48, the graph's input 'picture' is \?x32x48x3"):
        run_on(ENGINES[engine], job)


@on("local-3", "ray-split")
def test_a_model_that_fails_by_value_on_its_first_image_ends_the_run(
    engine: str, motley_job: segment.Job, tmp_path: Path
) -> None:
    """Its shapes keep the contract, its scores are NaN: no error row an image, but one error."""
    graph = onnx.load_from_string(colour_classifier(load_card(motley_job.model)))
    name = graph.graph.output[0].name
    graph.graph.node[-1].output[0] = "sound"
    graph.graph.node.append(helper.make_node("Mul", ["sound", "nan"], [name]))
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
    (tmp_path / "nan.onnx").write_bytes(graph.SerializeToString())
    job = to(motley_job, tmp_path / "out", weights=str(tmp_path / "nan.onnx"), runtime="onnxruntime", precision="auto")
    with pytest.raises(ModelError, match="the scores are not finite numbers, in the first image and in random"):
        run_on(ENGINES[engine], job)


def test_exit_codes(motley_job: segment.Job, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(job_to_toml(to(motley_job, tmp_path / "out", max_error_rate=0.1)), encoding="utf-8")
    ended = process(sys.executable, "-m", "segment", "run", "--job", str(job))
    assert ended.returncode == TooManyErrors.exit_code == 3
    assert "images failed" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = here("run", "--job", str(job), "--max-error-rate", "0.5", "--quiet")
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")
    ended = here("run", "--job", str(job), "--mask-size", "model")
    assert ended.returncode == UsageError.exit_code == 2
    assert "mask_size: 'source' there, 'model' now" in ended.stderr
    (tmp_path / "out" / "_SUCCESS").unlink()
    extra = next((tmp_path / "out" / "masks").rglob("*.parquet"))
    shutil.copy(extra, extra.with_name("stranger.parquet"))
    ended = here("run", "--job", str(job), "--max-error-rate", "0.5")
    assert ended.returncode == SegmentError.exit_code == 1
    assert f"masks/{extra.parent.name}/stranger.parquet is in no plan" in ended.stderr


# --- clusters of every size -------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("cpus", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_no_size_of_cluster_hangs(cpus: int, tmp_path: Path) -> None:
    fields = model(tmp_path, name="icnet-camvid-ava-sparse-60-0001", height=720, width=960)
    card = load_card(fields["model"])
    pictures = [painted(card, seed, block=80) for seed in range(4)]
    data = [(encoded(image, "PNG", compress_level=1), encoded(mask)) for image, mask in pictures]
    items = [Item(f"{i:02d}.png", *data[i % 4]) for i in range(40)]  # 83 MB as pixels: more than the object store
    inputs = write_files(tmp_path / "in", items)
    job = segment.Job(output=str(tmp_path), part_size=4, precision="f32", mask_size="model", **fields, **inputs)
    (tmp_path / "job.toml").write_text(job_to_toml(job), encoding="utf-8")
    outputs = [tmp_path / "fused", tmp_path / "split"]
    line = [sys.executable, "tests/on_a_cluster.py", str(cpus), str(tmp_path / "job.toml"), *map(str, outputs)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [f"{output} 40 0" for output in outputs]
    assert tree(outputs[0]) == tree(outputs[1])
    errors = Counter(row["error"] for row in read_rows(outputs[1]))
    assert errors == {None: 40}
    assert json.loads((outputs[1] / "report" / "summary.json").read_text())["miou"]["omz"] == 1.0
