"""The command line: imports, output, exit codes. A few calls run in their own process, the others in this one."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from segment.cli.app import Stopped
from segment.errors import UsageError
from segment.job import Job, job_record, job_to_toml, make_job, read_job_file
from segment.report.console import print_report
from tests.calls import Call, process
from tests.runs import Place, png, scene

HEAVY = {"ray", "pyarrow", "cv2", "numpy", "onnx", "onnxruntime", "openvino", "fsspec", "PIL"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    for seed in range(3):
        place.add(f"{seed}.png", seed)
    return place


# --- what is loaded --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["segment", "segment.cli"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert process(sys.executable, "-c", code).stdout == "[]\n"


def test_help_loads_nothing_heavy_either() -> None:
    code = (
        "import sys; sys.argv = ['segment', 'run', '--help']\nimport segment.cli\n"
        f"try: segment.cli.main()\nexcept SystemExit: print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert process(sys.executable, "-c", code).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("code", "found"), [("", False), ("import ray, pandas", True)], ids=["alone", "with ray"])
def test_pandas_is_hidden_until_ray_is_there(code: str, found: bool, place: Place) -> None:
    place.run()
    program = (
        "import os, sys, segment.__main__ as main\n"
        f"def show(code):\n    {code or 'pass'}; print(code, 'pandas' in sys.modules, flush=True); sys.exit()\n"
        f"main.os._exit, sys.argv = show, ['segment', 'status', {str(place.output)!r}]\nmain.run()"
    )
    assert process(sys.executable, "-c", program).stdout.splitlines()[-1] == f"0 {found}"


def test_python_dash_m_and_the_installed_command_are_the_same() -> None:
    by_module = process(sys.executable, "-m", "segment", "--version")
    by_command = process(str(Path(sys.executable).parent / "segment"), "--version")
    assert by_module.stdout == by_command.stdout == f"segment {version('segment-job')}\n"
    assert by_module.returncode == by_command.returncode == 0


def test_public_names_exist_and_no_others() -> None:
    import segment as package

    assert {name for name in package.__all__ if getattr(package, name)} == set(package.__all__)
    with pytest.raises(AttributeError, match="module 'segment' has no attribute 'nope'"):
        _ = package.nope


# --- help and version ------------------------------------------------------------------------------------------------


def test_help(segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        called = segment(*arguments)
        assert all(command in called.out + called.err for command in ("run", "report", "models", "demo"))
    assert segment("--version").out == f"segment {version('segment-job')}\n"
    for columns in ("80", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = [segment(*arguments).out.splitlines() for arguments in (["--help"], ["run", "--help"])]
        assert max(len(line) for shown in lines for line in shown) <= int(columns)
        shown = " ".join(" ".join(line.split()) for found in lines for line in found)
        assert "Device that runs the model. [auto, cpu, cuda, tensorrt; default: auto]" in shown
        assert "--allow-mixed-precision / --no-allow-mixed-precision With `auto`, let" in shown
        assert "--version Print the version and exit." in shown  # a switch takes no value
        assert not re.search(r"…|\w\.\.\.", shown.replace("[ARGS]...", ""))  # nothing is cut


def test_every_flag_of_run_is_a_key_of_the_job_and_every_key_a_flag(segment: Call) -> None:
    words = set(segment("run", "--help").out.replace(",", " ").split())
    flags = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    fields = set(Job.model_fields) - {"input", "output", "storage_options"}
    assert fields - flags == set()
    ours = {"storage_option", "job", "print_job", "quiet", "help", "retry_errors", "sign", "update", "verify"}
    switches = {f"no_{name}" for name, field in Job.model_fields.items() if field.annotation is bool}
    assert flags - fields == ours | switches | {"log_format", "ray_progress"}


NEW_FIELDS = """
    attempts: int = Field(3, ge=0, description="Attempts per request.")
    tidy: bool = Field(False, description="Remove temporary files.")
    order: Literal["listed", "random"] = Field("listed", description="Order of the parts.")
    tags: dict[str, str] = Field({}, description="Tags of the run.", examples=[{"team": "maps"}])

    input: str"""


def test_a_new_field_of_the_job_is_a_flag_a_key_a_help_text_and_a_check(tmp_path: Path) -> None:
    """In a copy of the package, `job.py` gets four more fields; nothing else changes."""
    shutil.copytree(str(files("segment")), tmp_path / "segment")
    declaration = tmp_path / "segment" / "job.py"
    declaration.write_text(declaration.read_text().replace("\n    input: str", NEW_FIELDS, 1))

    def segment(line: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "segment", *shlex.split(line)]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "120"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    shown = " ".join(segment("plan --help").stdout.split())
    for text in (
        "--attempts <int> Attempts per request. [default: 3]",
        "--no-tidy",
        "[listed, random; default: listed]",
    ):
        assert text in shown
    assert json.loads(segment("schema job").stdout)["properties"]["attempts"] == {
        "default": 3, "description": "Attempts per request.", "minimum": 0, "title": "Attempts", "type": "integer"
    }  # fmt: skip
    (tmp_path / "job.toml").write_text('input = "in"\noutput = "out"\nmodel = "x"\ntidy = true\n')
    printed = segment("run --job job.toml --attempts 5 --order random --tags team=roads --print-job")
    assert {"attempts = 5", "tidy = true", 'order = "random"', "[tags]", '"team" = "roads"'} <= set(
        printed.stdout.splitlines()
    ), printed.stderr
    wrong = segment("run --job job.toml --attempts=-1 --order rando")
    assert wrong.returncode == 2
    assert "attempts: expected a whole number from 0 up, not '-1'\n" in wrong.stderr
    assert "order: expected 'listed' or 'random', not 'rando'. Did you mean 'random'?" in wrong.stderr


# --- models ----------------------------------------------------------------------------------------------------------


def test_models(segment: Call, place: Place) -> None:
    assert "deeplabv3-mobilenetv2-int8" in segment("models").out
    assert "Nx3x368x480 NCHW" in segment("models", "show", "unet-camvid-onnx-0001").out
    assert "Nx3x24x32 NCHW" in segment("models", "show", str(place.card_path)).out


def test_an_unknown_model_names_the_nearest(segment: Call) -> None:
    called = segment("models", "show", "unet-camvid")
    assert called.code == 2
    assert called.out == ""
    assert called.err.startswith(
        "error: no model card named 'unet-camvid'. Did you mean 'unet-camvid-onnx-0001'? `segment models` lists"
    )
    assert called.err.count("\n") == 1


def test_a_card_with_an_unknown_key_names_the_nearest(segment: Call, place: Place) -> None:
    place.card_path.write_text(place.card_path.read_text().replace("height = 24", "hieght = 24"))
    called = segment(*place.flags())
    assert called.code == 2
    lines = called.err.splitlines()
    assert lines[0] == f"error: model card {place.card_path}:"
    assert lines[1:3] == [
        "  input.height: this key is missing: Height in pixels; `image` (height and width both) runs the model at the "
        "size of each image, padded right and below to a multiple of `multiple_of`.",
        "  input.hieght: unknown key. Did you mean 'height'?",
    ]


# --- runs and exit codes ---------------------------------------------------------------------------------------------


def test_a_run_ends_with_0_and_prints_its_report(segment: Call, place: Place) -> None:
    called = segment(*place.flags())
    assert called.code == 0
    assert "3 images · 1 shard · 0 errors · 3 scored" in called.out
    assert "100.00" in called.out
    assert "3 images in 1 shard, 2 parts" in called.err
    again = segment(*place.flags(), "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")


def test_the_report_in_every_format(segment: Call, place: Place) -> None:
    place.run()
    text = segment("report", str(place.output)).out
    assert "3 images · 1 shard" in text
    assert segment("report", str(place.output), "--format", "markdown").out.startswith("# blocks\n")
    summary = json.loads(segment("report", str(place.output), "-f", "json", "--no-intervals").out)
    assert summary == json.loads((place.output / "report/summary.json").read_text())
    whole = json.loads(segment("report", str(place.output), "-f", "json").out)
    low, high = whole["intervals"]["scores"]["miou"]
    assert f"mIoU 100.00 % ({100 * low:.1f} to {100 * high:.1f})" in text
    assert whole["intervals"]["notes"][0] in " ".join(text.split())
    rows = list(csv.DictReader(io.StringIO(segment("report", str(place.output), "-f", "csv").out)))
    bounds = [(row["iou_low"], row["iou_high"]) for row in whole["classes"]]
    assert [(float(row["iou_low"]), float(row["iou_high"])) for row in rows[:3]] == bounds[:3]
    assert (rows[3]["iou_low"], bounds[3]) == ("", (None, None))  # ignored
    assert whole | {"classes": summary["classes"]} == summary | {"intervals": whole["intervals"]}
    assert segment("report", str(place.output), "-f", "yaml").code == 2


@pytest.mark.parametrize("price", ["-5", "0", "inf", "nan"])
def test_a_report_takes_the_prices_of_a_job(segment: Call, place: Place, price: str) -> None:
    called = segment("report", str(place.output), "--price-per-hour", price)
    assert (called.code, called.out) == (2, "")
    assert called.err == (f"error: segment report:\n  --price-per-hour: expected a number above 0, not '{price}'\n")


def test_a_report_where_there_is_no_run(segment: Call, tmp_path: Path) -> None:
    called = segment("report", str(tmp_path / "nothing"))
    assert called.code == 2
    place = tmp_path / "nothing"
    assert called.err.startswith(f"error: no run at {place}: give the OUTPUT of a `segment run INPUT OUTPUT ")


def test_an_output_that_cannot_be_one_ends_with_2(segment: Call, place: Place) -> None:
    (place.output / "run.json").mkdir(parents=True)
    called = segment(*place.flags())
    assert called.code == 2
    assert called.err.endswith(
        "run.json: it is a folder, and a file is expected: move it away, and run the same command again\n"
    )


def test_too_many_errors_end_with_3(segment: Call, place: Place) -> None:
    place.write("9.png", b"", png(scene(9)[1]))
    called = segment(*place.flags(max_error_rate=0.05))
    assert called.code == 3
    assert "error: 1 of 4 images failed" in called.err
    assert "max-error-rate" in called.err
    assert segment(*place.flags(max_error_rate=0.25)).code == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("run in", "error: segment run: OUTPUT and --model are missing. `segment run --help` tells what they are\n"),
        ("run in out", "error: segment run: --model is missing. `segment run --help` tells what it is\n"),
        ("compare out", "error: 1 run: give two or more"),
        ("plan", "error: segment plan: INPUT and --model are missing."),
        ("check in", "error: segment check: --model is missing."),
        (
            "run in out -m x --device gpu",
            "  --device: expected 'auto', 'cpu', 'cuda' or 'tensorrt', not 'gpu'. Did you mean 'cuda'?",
        ),
        (
            "run in out -m x --workers 4:2",
            "  --workers: expected MIN:MAX with a MIN from 1 up and no more than MAX, not '4:2'",
        ),
        ("run in out -m x --workers 0", "  --workers: expected a whole number from 1 up or MIN:MAX, not '0'"),
        ("run in out -m x --workers many", "workers: expected a whole number from 1 up or MIN:MAX, not 'many'"),
        ("run in out -m x --batch-size 0", "  --batch-size: "),
        ("run in out -m x --part-size -1", "  --part-size: "),
        ("run in out -m x --max-error-rate 2", "  --max-error-rate: expected a number from 0 to 1, not '2'"),
        (
            "run in out -m x --label-remap 7",
            "--label-remap takes KEY=VALUE, for example --label-remap 64,0,128=Vehicle",
        ),
        (
            "run in out -m x --label-remap 7=a --label-remap 7=b",
            "--label-remap 7 is given twice, with different values",
        ),
        ("run in out -m x --storage-option k=s1 --storage-option k=s2", "--storage-option k is given twice"),
        ("run in out -m unet-camvid-onnx-0001 --label-remap 7=1 --label-remap 07=2", "contradict each other"),
        ("run in out -m x --label-pattern {nope}.png", "--label-pattern: expected {stem}, {dir} and {name}"),
        ("run in out -m x --storage-option hunter2", "--storage-option takes key=value"),
        (
            "run in out -m unet-camvid-onnx-0001 --label-remap 7=Cars",
            "label_remap: remap to 'Cars': no class. Give 'ignore' or one of 0 Sky, 1 Building, ",
        ),
        ("run in out -m nope.toml", "no model card at"),
        ("run '' out -m x", "INPUT: expected text that is not empty, not ''"),
        ("run --job nope.toml", "no job file at nope.toml"),
        (
            "run in out --modle x",
            "segment run: there is no option --modle. Did you mean '--model'?\nUsage: ",
        ),
        ("run in out -m", "error: -m needs a value\n"),
        ("run in out more -m x", "segment run: too many arguments, from here on: more\n"),
        (
            "run a.png b.png c.png d.png e.png f.png out -m x",
            "c.png d.png e.png and 2 more. Give a folder, or a pattern in quotes such as 'photos/*.png'\n",
        ),
        ("report out b c d e f", "segment report: too many arguments, from here on: b c d and 2 more\n"),
        ("run in out -m x --include-hidden=no", "error: --include-hidden takes no value\n"),
        ("nope", "error: segment: there is no command 'nope'."),
        ("plan in --seconds 5", "segment plan: there is no option --seconds.\nUsage: "),
        ("run in --output out", "segment run: there is no option --output.\nUsage: "),
        ("run in out -m 'my model.onnx'", "`segment models draft 'my model.onnx' --to my-card.toml` drafts one"),
        ("run in out -m net.bin", "net.bin is a model, and --model takes its card"),
        ("run in out -m net.bin", "`segment models draft net.xml --to my-card.toml` drafts one"),
        ("help", "error: segment: there is no command 'help'. `segment --help` lists the commands.\nUsage: "),
        ("models help", "there is no command 'help'. `segment models --help` lists the commands.\nUsage: "),
        ("draft x.onnx", "there is no command 'draft'. Did you mean 'models draft'?"),
        ("rnu in", "there is no command 'rnu'. Did you mean 'run'?"),
        ("models my-card", "there is no command 'my-card'. `segment models show my-card` prints a card."),
        ("quantize", "error: segment quantize: WEIGHTS, --calibrate and --output are missing\n"),
        (
            "quantize w.onnx -m demo-streets -c in -o ''",
            "error: segment quantize:\n  --output: expected text that is not empty",
        ),
        ("export", "error: segment export: OUTPUT and DEST are missing\nUsage: segment export [OPTIONS] OUTPUT DEST\n"),
        ("export out", "error: segment export: DEST is missing\n"),
        ("export out to -f pgn", "--format: expected one of 'png', 'voc', "),
        ("export out to -f pgn", "not 'pgn'. Did you mean 'png'?\n"),
        # typer 0.27 goes on with the value, and with both limits
        ("overlay out --worst many", "--worst: expected a whole number, not 'many'"),
        ("overlay out --opacity much", "--opacity: expected a number, not 'much'"),
        (
            "run in out -m x --stall-timeout 5m",
            "  --stall-timeout: expected a number of seconds above 0, such as 300, not '5m'",
        ),
        ("run in out -m x --limit 5k", "  --limit: expected a whole number from 1 up, not '5k'"),
        ("plan in --images 0", "--images: expected 1 or more"),
        ("demo --scenes 99", "--scenes: expected "),
        ("models show", "error: segment models show: NAME is missing\n"),
        ("schema jbo", "KIND: expected one of 'job', 'card', not 'jbo'. Did you mean 'job'?\n"),
        ("run in out -m unet", "no model card named 'unet'. Did you mean 'unet-camvid-onnx-0001'?"),
        ("models show icnet", "Did you mean 'icnet-camvid-int8-onnx-0001' or 'icnet-camvid-ava-sparse-60-0001'?"),
        ("models show deeplab", "Did you mean 'deeplabv3-mobilenetv2', 'deeplabv3-mobilenetv2-dm05' or 'deeplab"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_message_on_stderr(
    segment: Call, line: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = segment(*shlex.split(line))
    assert called.code == 2
    assert text in called.err
    assert called.out == ""
    assert "hunter2" not in called.err
    assert not re.search(r"Value error|Input should|\{DEST\}|\{output\}|╭", called.err)
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_an_unavailable_engine_is_refused(segment: Call, place: Place) -> None:
    called = segment(*place.flags(), "--engine", "local", "--address", "auto")
    assert called.code == 2
    assert called.err.endswith("error: --address names a Ray cluster, --engine local uses none: drop one of them\n")
    called = segment(*place.flags(workers="1:2"))
    assert called.code == 2
    assert called.err.endswith("error: --workers 1:2: the local engine's pool is fixed, give one number\n")
    called = segment(*place.flags(device="cuda"))
    assert called.code == 2
    assert "--device cuda" in called.err
    assert not place.output.exists()


def test_a_failing_process_prints_one_line_and_no_traceback(tmp_path: Path) -> None:
    called = process(sys.executable, "-m", "segment", "run", str(tmp_path / "in"), str(tmp_path / "out"), "-m", "unet")
    assert called.returncode == 2
    assert called.stdout == ""
    assert called.stderr.startswith("error: no model card named 'unet'.")
    assert called.stderr.count("\n") == 1


# --- job files -------------------------------------------------------------------------------------------------------


def test_print_job_is_a_job_file_that_does_the_same(segment: Call, place: Place) -> None:
    flags = [
        *place.flags(),
        "--label-remap",
        "1=Sky",
        "--label-remap",
        "#ff0000=ignore",
        "--storage-option",
        "secret=hunter2",
    ]
    printed = segment(*flags, "--print-job")
    assert printed.code == 0
    assert "hunter2" not in printed.out
    file = place.folder / "job.toml"
    file.write_text(printed.out)
    assert make_job(read_job_file(str(file))) == place.job(label_remap={"1": "Sky", "#ff0000": "ignore"})
    assert segment("run", "--job", str(file), "--print-job").out == printed.out
    assert not place.output.exists()


def test_a_job_file_runs_and_flags_override_it(segment: Call, place: Place) -> None:
    file = place.folder / "job.toml"
    file.write_text(job_to_toml(place.job(mask_size="model")))
    other = place.folder / "other"
    assert segment("run", "--job", str(file)).code == 0
    assert json.loads((place.output / "run.json").read_text())["job"]["mask_size"] == "model"
    called = segment("run", str(place.images), str(other), "-j", str(file), "--mask-size", "source")
    assert called.code == 0
    assert json.loads((other / "run.json").read_text())["job"]["mask_size"] == "source"


def test_limit_and_sample_replace_each_other_and_switches_have_a_negative_flag(segment: Call, place: Place) -> None:
    file = place.folder / "job.toml"

    def printed(text: str, *flags: str) -> Job:
        file.write_text(job_to_toml(place.job()) + text)
        return make_job(tomllib.loads(segment("run", "--job", str(file), *flags, "--print-job").out))

    job = printed("limit = 3\n", "--sample", "2")
    assert (job.limit, job.sample) == (None, 2)
    job = printed("sample = 3\n", "--limit", "2")
    assert (job.limit, job.sample) == (2, None)
    job = printed("include_hidden = true\nallow_lossy_labels = true\n", "--no-include-hidden")
    assert (job.include_hidden, job.allow_lossy_labels) == (False, True)
    assert not printed("allow_lossy_labels = true\n", "--no-allow-lossy-labels").allow_lossy_labels


def test_an_unknown_key_in_a_job_file_names_the_nearest(segment: Call, place: Place) -> None:
    file = place.folder / "job.toml"
    file.write_text(job_to_toml(place.job()) + 'lables = "x"\n')
    called = segment("run", "--job", str(file))
    assert called.code == 2
    assert called.err.startswith(f"error: {file}:\n  lables: unknown key. Did you mean 'labels'?")


def test_job_file_and_card_are_told_apart(segment: Call, place: Place) -> None:
    called = segment("run", "--job", str(place.card_path))
    words = "is no job file but a model card: give it with --model"
    assert (called.code, called.err) == (2, f"error: {place.card_path} {words}\n")
    file = place.folder / "job.toml"
    file.write_text(job_to_toml(place.job()))
    called = segment(*place.flags(model=str(file)))
    assert (called.code, called.err) == (
        2, f"error: model card {file} is a job file, as `segment run --job` takes\n"
    )  # fmt: skip


def test_the_known_keys_of_a_job_are_listed_once(segment: Call, place: Place) -> None:
    file = place.folder / "job.toml"
    file.write_text(job_to_toml(place.job()) + "zzz = 1\nqqq = 2\nlimit = true\n")
    said = segment("run", "--job", str(file)).err.splitlines()
    assert "  limit: expected a whole number from 1 up, not true" in said
    assert [line.partition(", allow_")[0] for line in said[-2:]] == [
        "  zzz: unknown key. Known: address", "  qqq: unknown key."
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input = ", "is not TOML: "),
        ("input = photos", "is not TOML: Invalid value (at line 1, column 9). Text stands in quotes\n"),
        ("flag = True", "is not TOML: Invalid value (at line 1, column 8). It has small letters: true, false\n"),
        ("share = .5", "is not TOML: Invalid value (at line 1, column 9)\n"),
        ("share = None", "is not TOML: Invalid value (at line 1, column 9)\n"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_an_invalid_job_file_is_refused(segment: Call, tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "job.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    called = segment("run", "--job", str(file))
    assert called.code == 2
    assert called.err.startswith(f"error: {file} {message}")


texts = st.text(st.characters(codec="utf-8", exclude_characters="@"), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.tuples(texts, texts, texts),
    weights=st.none() | texts,
    remap=st.dictionaries(texts, texts | st.integers(0, 255), max_size=3),
    rate=st.floats(0, 1),
    batch=st.integers(1, 1024) | st.just("auto"),
    workers=st.none() | st.integers(1, 99) | st.just("2:8"),
)
def test_any_job_comes_back_from_its_file(
    texts: Sequence[str], weights: str | None, remap: dict[str, Any], rate: float, batch: Any, workers: Any
) -> None:
    job = Job(
        input=texts[0],
        output=texts[1],
        model=texts[2],
        weights=weights,
        label_remap=remap,
        max_error_rate=rate,
        batch_size=batch,
        workers=workers,
    )
    assert make_job(tomllib.loads(job_to_toml(job))) == job


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["input", "output", "model", "weights", "labels", "label_pattern", "address"])
def test_a_secret_in_a_url_is_refused_before_anything_echoes_it(segment: Call, place: Place, key: str) -> None:
    url = "s3://user:hun/ter2@bucket/{stem}"
    with pytest.raises(UsageError) as caught:
        place.job(**{key: url})
    assert "hun/ter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    file = place.folder / "job.toml"
    lines = [line for line in job_to_toml(place.job()).splitlines() if not line.startswith(f"{key} =")]
    file.write_text("\n".join([*lines, f'{key} = "{url}"\n']))
    for extra in ([], ["--print-job"]):
        called = segment("run", "--job", str(file), *extra)
        assert called.code == 2
        assert called.err.startswith(
            "error: s3://***@bucket/{stem}: credentials in a URL would end up in logs and outputs."
        )
        assert "hun/ter2" not in called.err + called.out
    assert not place.output.exists()


def test_signatures_are_recorded_and_printed_by_one_rule(place: Place) -> None:
    url, query = "https://host/m.onnx?id=7", "&X-Amz-Signature=HUSH"
    job = place.job(model=url + query, weights=url + query, labels=None)
    assert "HUSH" not in repr(job_record(job)) + job_to_toml(job)
    assert {job_record(job)[name] for name in ("model", "weights")} == {url}
    assert job_to_toml(job).count(f'"{url}"') == 2


def test_storage_options_are_printed_and_written_nowhere(place: Place) -> None:
    job = place.job(storage_options={"secret": "hunter2"})
    place.run(storage_options={"secret": "hunter2"})
    assert "hunter2" not in repr(job) + str(job) + job.model_dump_json() + job_to_toml(job)
    assert not [file for file in place.output.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_a_job_in_python_checks_its_values() -> None:
    with pytest.raises(UsageError, match=r"^job:\n  modle: unknown key\. Did you mean 'model'\?$"):
        Job(input="a", output="b", model="c", modle="d")  # type: ignore[call-arg]
    wrong: dict[str, tuple[Any, str]] = {
        "batch_size": (0, "expected a whole number from 1 to 1024 or 'auto', not 0"),
        "part_size": ("x", "expected a whole number from 1 up or 'auto', not 'x'"),
        "workers": ("x", "expected a whole number from 1 up or MIN:MAX, not 'x'"),
        "engine": ("rey", "expected 'auto', 'local' or 'ray', not 'rey'. Did you mean 'ray'?"),
        "label_remap": ({"7": [1]}, "expected text or a whole number"),
        "storage_options": ("secret=1", "expected a table"),
        "stall_timeout": (0, "expected a number of seconds above 0, such as 300, not 0"),
    }
    for name, (value, text) in wrong.items():
        with pytest.raises(UsageError) as caught:
            Job(**{"input": "a", "output": "b", "model": "c", name: value})
        assert str(caught.value) == f"job:\n  {name}{'.7' if name == 'label_remap' else ''}: {text}"
    with pytest.raises(UsageError, match=r"job:\n  modle: unknown key\. Did you mean 'model'\?"):
        make_job({"input": "a", "output": "b", "model": "c", "modle": "d"})


def test_a_missing_input_is_reported_before_weights_are_fetched(segment: Call, place: Place) -> None:
    shutil.rmtree(place.images)
    called = segment("run", str(place.images), str(place.output), "--model=unet-camvid-onnx-0001")
    assert (called.code, called.err) == (2, f"error: nothing at {place.images}\n")


def test_what_is_not_there_is_told_with_the_name_beside_it(segment: Call, place: Place) -> None:
    place.run()
    root = place.images.parent
    (root / "job.toml").write_text("engine = 'local'\n")
    values = {"images": str(place.images), "labels": str(place.labels), "card": str(place.card_path)}

    def told(**wrong: str) -> str:
        given = {**values, **wrong}
        flags = ("--labels", given["labels"], "--model", given["card"])
        return segment("run", given["images"], str(root / "new"), *flags).err

    for name, path in values.items():
        misspelt = str(Path(path).with_name(Path(path).name[1:]))
        assert f"Did you mean '{Path(path).name}'?" in told(**{name: misspelt}), name
    assert "Did you mean" not in told(images=str(root / "zzzzzz"))
    assert segment("report", f"{place.output}s").err.endswith(f"Did you mean '{place.output.name}'?\n")
    assert segment("run", "--job", str(root / "jbo.toml")).err.endswith("Did you mean 'job.toml'?\n")


@pytest.mark.parametrize("arguments", ["models", "models show demo-streets", "--help"])
def test_a_closed_pipe_ends_with_141(arguments: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "segment", *shlex.split(arguments)]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_piped_report_has_80_columns_or_those_of_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = place.run().report
    for columns, width in ((None, 80), ("60", 60), ("x", 80)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        printed = io.StringIO()
        print_report(report, Console(file=printed))
        lines = [line for line in printed.getvalue().splitlines() if not line.startswith("masks: ")]  # a path
        assert max(len(line) for line in lines) <= width
        assert "image-mean" in "\n".join(lines)


def test_a_finished_run_says_that_there_is_nothing_to_do(segment: Call, place: Place) -> None:
    assert segment(*place.flags()).code == 0
    called = segment(*place.flags())
    assert (called.code, called.err.splitlines()) == (
        0,
        ["complete already: 3 images, nothing to do", "the input is not listed again: --update adds what is new in it"],
    )
    assert "3 images · 1 shard · 0 errors · 3 scored" in called.out
    (place.output / "plan.parquet").unlink()  # then the input is listed again
    assert "not listed again" not in segment(*place.flags()).err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run", "stopped; committed parts stay, the same command resumes the run"),
        ("export", "stopped; files that are written stay, the same command writes those that are missing"),
        ("overlay", "stopped; files that are written stay, the same command writes all again"),
        ("demo", "stopped; the same command begins anew"),
        ("compare", "stopped"),
        ("models", "stopped"),
    ],
)
def test_a_command_that_is_stopped_says_what_is_true_of_it(segment: Call, command: str, words: str) -> None:
    assert segment(command, "--help").code == 0
    stopped = Stopped(15)
    assert (str(stopped), stopped.exit_code) == (words, 143)
