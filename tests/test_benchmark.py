"""The benchmark runs, its contenders make the same masks, and its figures are what they say."""

import ast
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import benchmark as bench
from jobs.bench import data
from jobs.bench.cases import CASES, CONTENDERS, ROOT, Case, command, contract_of
from jobs.bench.data import agreement, different_files, different_outputs, find_pictures, write_inputs
from jobs.bench.ours import steady
from jobs.bench.table import as_markdown, summarise
from segment.demo.dataset import read_scenes
from segment.images.mask_png import encode_mask
from tests.runs import png

JOBS = Path(__file__).parents[1] / "jobs"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for key, image, label in read_scenes(5):
        (folder / "images" / f"{key}.jpg").write_bytes(image)
        (folder / "labels" / f"{key}.png").write_bytes(label)
    return folder


def benchmark(scenes: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, JOBS / "benchmark.py", "--images", scenes / "images", "--labels", scenes / "labels"]
    line += ["--rounds", "1", "--number", "12", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize(
    ("runtime", "inputs"),
    [
        ("openvino", ["local-parquet"]),  # each contender is a process of five seconds
        pytest.param("onnxruntime", ["local", "local-tars", "local-parquet"], marks=pytest.mark.slow),
    ],
)
def test_the_command(runtime: str, inputs: list[str], scenes: Path, tmp_path: Path) -> None:
    """Counts of the limit and of ours are compared within: another pixel anywhere ends it."""
    contenders = ["limit", *inputs, "plain-loop"]
    chosen = ["--model", "demo-streets", "--weights", Path(CASES["demo"].locate()), "--runtime", runtime]
    written = ["--json", tmp_path / "found.json", "--markdown", tmp_path / "found.md"]

    ended = benchmark(scenes, *chosen, *written, "--contenders", *contenders, "--peer-python", sys.executable)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (result,) = found["results"]
    assert list(result["summary"]) == contenders
    assert all(row["median"] > 0 for row in result["summary"].values())
    assert result["summary"]["limit"]["ratio"] == 1.0
    assert result["agreements"]["plain-loop"] > 0.9999
    assert {one["images"] for one in result["measured"] if one["contender"] in ("limit", "plain-loop")} == {12}
    assert found["machine"]["cores"] >= 1
    page = (tmp_path / "found.md").read_text()
    assert "| plain-loop |" in page
    assert page.strip() in ended.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_the_contenders_on_ray(scenes: Path) -> None:
    ended = benchmark(scenes, "--cases", "demo", "--contenders", "limit", "ray-parquet", "ray-data")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| ray-data |" in ended.stdout
    assert "no peer here" not in ended.stdout


def test_missing_weights_are_named(scenes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGMENT_SHARED", str(tmp_path))

    ended = benchmark(scenes, "--cases", "unet32-f32")

    assert ended.returncode != 0
    assert f"case unet32-f32: no weights at {tmp_path / 'models/unet32-camvid.onnx'}" in ended.stderr


@pytest.mark.parametrize(
    "file",
    [
        *(f"bench/{name}.py" for name in ("limit", "bare", "bare_enlarging")),
        *(f"peers/{path.name}" for path in (JOBS / "peers").glob("*.py")),
    ],
)
def test_limit_and_peers_import_nothing_of_ours(file: str) -> None:
    tree = ast.parse((JOBS / file).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] in ("segment", "jobs")]


def test_every_case_has_a_contract_that_limit_and_peers_can_keep() -> None:
    for case in CASES.values():
        assert contract_of(case.model)["classes"] > 1


def test_every_contender_has_a_script_of_its_own() -> None:
    lines = [command(contender, Path("spec.json"), "python", None) for contender in CONTENDERS]
    assert [line[1] for line in lines if not Path(line[1]).is_file()] == []
    assert len({tuple(line[1:]) for line in lines}) == len(CONTENDERS)


def test_steady_state_begins_when_every_worker_has_delivered() -> None:
    seen = [(10.0, 4), (11.0, 4), (13.0, 4), (15.0, 4)]
    assert steady(seen, workers=2) == (4.0, 8)
    assert steady(seen, workers=1) == (5.0, 12)
    assert steady(seen[:2], workers=2) == (1.0, 4)  # too few parts: from the first commit


def test_figures_of_a_run() -> None:
    rounds = {
        "limit": [{"images": 10, "seconds": s, "start": 1.0} for s in (1.0, 2.0, 1.0)],
        "local": [{"images": 9, "seconds": s, "start": 3.0} for s in (1.0, 2.0, 2.0)],
        "local, before": [{"images": 6, "seconds": s, "start": 4.0} for s in (1.0, 1.0, 4.0)],
    }
    summary = summarise(rounds)

    assert summary["local"]["images_per_second"] == [9.0, 4.5, 4.5]
    assert summary["local"]["ratios"] == pytest.approx([0.9, 0.9, 0.45])
    assert (summary["local"]["median"], summary["local"]["ratio"]) == (4.5, pytest.approx(0.9))
    assert summary["local"]["to_before"] == pytest.approx([1.5, 0.75, 3.0])
    assert "| local | 4.50 (4.50-9.00) | 0.900 (0.450-0.900) | 1.500 (0.750-3.000) | 3.0 | 99.50 % |" in as_markdown(
        summary, {"local": 0.995}
    )


def test_versions_are_compared_byte_by_byte(tmp_path: Path) -> None:
    for version, rows in (("new", b"rows"), ("old", b"rows")):
        for name in ("masks/s/p.parquet", "stats/s.parquet", "runs/r.parquet"):
            (tmp_path / version / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / version / name).write_bytes(rows if "runs" not in name else version.encode())
    assert different_files(tmp_path / "new", tmp_path / "old") == []
    (tmp_path / "new/stats/s.parquet").write_bytes(b"others")
    (tmp_path / "old/masks/s/p.parquet").unlink()
    assert different_files(tmp_path / "new", tmp_path / "old") == ["masks/s/p.parquet", "stats/s.parquet"]


def test_an_earlier_checkout_runs_its_own_code() -> None:
    line = command("ray-tars, before", Path("spec.json"), "python", Path("/earlier"))
    assert line[:4] == ["env", "-C", "/earlier", "PYTHONPATH=/earlier"]
    assert line[5:] == ["/earlier/jobs/bench/ours.py", "spec.json", "ray", "tars"]


def test_versions_of_other_formats_are_compared_by_pixels(tmp_path: Path) -> None:
    mask = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3), np.ones((5, 5), np.uint8))
    pngs = {"old": cv2.imencode(".png", mask)[1].tobytes(), "new": encode_mask(mask), "other": encode_mask(mask[::-1])}
    for version, encoded in pngs.items():
        folder = tmp_path / version / "masks" / "shard"
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({"id": ["a.jpg"], "mask": [{"bytes": encoded, "path": None}]}), folder / f"{version}.parquet"
        )
        contract = {"format": 3 if version == "old" else 4}
        (tmp_path / version / "run.json").write_text(json.dumps({"contract": contract}))
    assert different_outputs(tmp_path / "new", tmp_path / "old") == []
    assert different_outputs(tmp_path / "other", tmp_path / "old") == ["0.00 % of the pixels are equal"]
    assert different_outputs(tmp_path / "other", tmp_path / "old", 0.0) == []
    assert different_outputs(tmp_path / "new", tmp_path / "old", exact=False) == []
    assert len(different_outputs(tmp_path / "new", tmp_path / "other")) == 2  # of one format: files


@pytest.mark.slow
def test_what_auto_picks_is_held_against_all_runtimes() -> None:
    """Which one is the fastest depends on the machine and its load; all of them have to be there, compared."""
    line = [sys.executable, str(ROOT / "jobs/auto_choice.py"), "--cases", "demo", "--images", "2"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    (row,) = [line for line in ended.stdout.splitlines() if line.startswith("| demo |")]
    _, _, tried, picked, best, right, _ = map(str.strip, row.split("|"))
    names = {cell.partition(": ")[0] for cell in tried.split("; ")}
    assert {"onnxruntime f32", "openvino f32"} <= names
    assert {picked, best} <= names
    assert right == ("yes" if ended.returncode == 0 else "NO")


def test_the_limit_takes_the_fastest_runtime_whose_masks_agree(scenes: Path, tmp_path: Path) -> None:
    """A runtime that does not load the file is no candidate; what another counts is what the chosen one counts."""
    contract, weights = contract_of("demo-streets"), CASES["demo"].locate()
    images, labels = (sorted((scenes / kind).iterdir()) for kind in ("images", "labels"))
    counts = []
    for runtime in ("auto", "onnxruntime"):
        spec = {"contract": contract, "weights": weights, "runtime": runtime, "precision": "f32", "cores": 1}
        spec |= {"images": list(map(str, images)), "labels": list(map(str, labels))}
        (tmp_path / f"{runtime}.json").write_text(json.dumps(spec))
        line = [sys.executable, str(JOBS / "bench/limit.py"), str(tmp_path / f"{runtime}.json")]
        ended = subprocess.run(line, capture_output=True, text=True, timeout=200, check=True)
        found = json.loads(ended.stdout.splitlines()[-1])
        assert found["runtime"] in ("openvino f32", "openvino bf16", "onnxruntime f32")
        counts.append(found["counts"])
    assert bench.likeness(*counts) >= 0.99


def test_agreement_counts_pixels(tmp_path: Path) -> None:
    mask = np.zeros((4, 10), np.uint8)
    other = mask.copy()
    other[0, 0] = 1
    (tmp_path / "ours/masks/s").mkdir(parents=True)
    (tmp_path / "theirs").mkdir()
    ours = pa.table({"id": ["x.png"], "mask": [{"bytes": png(mask), "path": "x"}]})
    pq.write_table(ours, tmp_path / "ours/masks/s/p.parquet")
    pq.write_table(pa.table({"path": ["/b/x.png"], "mask": [png(other)]}), tmp_path / "theirs/masks.parquet")

    assert agreement(tmp_path / "ours", tmp_path / "theirs") == pytest.approx(39 / 40)


def card_with(folder: Path, *names: str) -> Path:
    """A card that names files of its folder as its weights."""
    head, _, _ = (ROOT / "segment/models/cards/demo-streets.toml").read_text().partition("[[weights]]")
    for name in names:
        content = name.encode()
        (folder / name).write_bytes(content)
        digest = hashlib.sha384(content).hexdigest()
        head += f'[[weights]]\nurl = "{name}"\nsize = {len(content)}\nsha384 = "{digest}"\n'
    (folder / "mine.toml").write_text(head)
    return folder / "mine.toml"


@pytest.mark.parametrize(
    ("names", "suffix"), [(["w.tflite"], ".tflite"), (["w.xml", "w.bin"], ".xml"), (["w.bin", "w.xml"], ".xml")]
)
def test_weights_of_a_card_keep_their_format_and_land_among_the_graphs(
    names: list[str], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "here").mkdir()
    card = card_with(tmp_path / "cards", *names)
    monkeypatch.setenv("SEGMENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "here")
    before = sorted((tmp_path / "cards").iterdir())
    found = Path(Case("own", str(card), None, "openvino", "f32", 8).locate())
    assert found == tmp_path / "here/.bench/graphs" / f"mine{suffix}"
    assert {path.read_text() for path in found.parent.iterdir()} == set(names)
    assert found.read_text() == f"w{suffix}"
    assert sorted((tmp_path / "cards").iterdir()) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--number 4", "--number 4: a rate needs a second part, and thus at least 5 images"),
        ("--number 0", "expected a whole number from 1 up, not '0'"),
        ("--rounds 0", "expected a whole number from 1 up, not '0'"),
        ("--before nowhere", "{here}/nowhere is no checkout of this project: it has no jobs/bench/ours.py"),
        ("--images pictures", "--images and --labels go together"),
        ("--labels pictures", "--images and --labels go together"),
        ("--images nope --labels pictures", "nope is no folder, or holds no images"),
        ("--images notes --labels pictures", "notes is no folder, or holds no images"),
        ("--images pictures --labels others", "no label in others has the stem of a.png (1 such images)"),
        ("--weights x.onnx", "--weights and --runtime belong to --model"),
        ("--runtime onnxruntime", "--weights and --runtime belong to --model"),
        ("--model demo-streets --cases demo", "drop it or --cases"),
        ("--model demo-streets --weights nope.onnx", "--weights: no file at nope.onnx"),
        ("--model demo-street", "no model card named 'demo-street'. Did you mean 'demo-streets'?"),
        ("--model unet-camvid-onnx-0001", "--model unet-camvid-onnx-0001: "),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pictures/a.png", "others/b.png", "notes/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(data, "SHARED", tmp_path)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it was measured"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *line.split()])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        bench.main()
    said = f"{ended.value}\n{capsys.readouterr().err}"
    assert words.format(here=tmp_path) in " ".join(said.split())


def test_a_rate_of_no_time_is_refused() -> None:
    line = [sys.executable, "-c", 'print(\'{"images": 0, "seconds": 0.0, "start": 1.0}\')']
    with pytest.raises(SystemExit, match="too few images for a rate: give more with --number, at least 5"):
        bench.run_one(line)


def test_contenders_keep_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = "import json, sys; print(json.dumps({'seconds': 1, 'kept': not sys.dont_write_bytecode}))"
    assert bench.run_one([sys.executable, "-c", code])["kept"]


@pytest.mark.slow
def test_five_images_are_enough_and_paths_may_be_relative(scenes: Path, tmp_path: Path) -> None:
    """`--before` and a card are read by contenders in other folders."""
    (tmp_path / "cards").mkdir()
    card = tmp_path / "cards" / "streets.toml"
    for name in ("toml", "onnx"):
        shutil.copy(ROOT / f"segment/models/cards/demo-streets.{name}", card.with_name(f"demo-streets.{name}"))
    card.with_name("demo-streets.toml").rename(card)
    (tmp_path / "earlier").symlink_to(ROOT)
    line = [sys.executable, JOBS / "benchmark.py", "--images", scenes / "images", "--labels", scenes / "labels"]
    line += ["--rounds", "1", "--number", "5", "--contenders", "local", "--before", "earlier"]
    line += ["--model", "cards/streets.toml"]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| local, before |" in ended.stdout


def test_pictures_are_repeated_under_other_names(scenes: Path, tmp_path: Path) -> None:
    pictures = find_pictures(scenes / "images", scenes / "labels").repeated(7)
    inputs = write_inputs(pictures, tmp_path / "data")

    names = [name for name, _ in pictures.images]
    assert len(set(names)) == 7
    assert pictures.images[5][1] == pictures.images[0][1]
    assert pictures.labels[6] == pictures.labels[1]
    assert sorted(path.name for path in Path(inputs["files"]["input"]).iterdir()) == sorted(names)
    rows = [pq.read_table(path).num_rows for path in sorted(Path(inputs["parquet"]["input"]).iterdir())]
    assert rows == [4, 3]
