"""Standard streams that are closed, full, ASCII or without a reader stop no work and give the documented exit code.

Each command runs in its own process, as a shell starts it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.runs import Place, png, read_rows, scene

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
NAME = "é漢■·.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a finished run over two images; the name of one is not ASCII."""
    place = Place(tmp_path_factory.mktemp("streams"))
    place.add(NAME, 1)
    place.add("b.png", 2)
    place.write("bad.png", b"", png(scene(9)[1]))
    place.run()
    return place


def shell(place: Place, command: str, to: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `segment COMMAND` with the redirection `to`, in its own folder."""
    folder = place.folder / "here"
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m segment {command} {to}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


def new(place: Place, name: str) -> tuple[str, Path]:
    """Return the command of a run that has not started, and its output folder."""
    output = place.folder / name
    flags = place.flags(output=str(output))
    return " ".join(f"'{flag}'" for flag in flags), output


def commands(place: Place) -> dict[str, str]:
    out = place.output
    return {
        "report": f"report {out} --no-intervals",  # with them there are no bars
        "markdown": f"report {out} --format markdown",
        "json": f"report {out} --format json --page",
        "csv": f"report {out} --format csv",
        "audit": f"audit {out} --deep",
        "status": f"status {out}",
        "models": "models",
        "show": "models show unet-camvid-onnx-0001",
        "schema": "schema job",
        "version": "--version",
        "help": "run --help",
        "plan": f"plan {place.images} --labels {place.labels} -m {place.card_path} -w {place.weights_path} "
        "--engine local --runtime onnxruntime",
        "overlay": f"overlay {out} --sample 3 --to overlays",
        "export": f"export {out} masks",
    }


PRINTED = {"report", "markdown", "json", "csv", "status", "models", "show", "schema", "version", "help", "plan"}
DONE = {"audit", "overlay", "export"}


def every(*usual: str) -> list[Any]:
    """All commands; those that are not named, which take the same paths and seconds each, are slow tests."""
    others = sorted((PRINTED | DONE) - set(usual))
    return [*usual, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


def clean(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return standard error; fail if it contains a traceback."""
    err = ended.stderr.decode()
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return err


@pytest.mark.parametrize("name", every("models", "audit"))
@pytest.mark.parametrize("to", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_counts_as_dev_null(place: Place, name: str, to: str) -> None:
    ended = shell(place, commands(place)[name], to)
    clean(ended)
    assert ended.returncode == 0
    assert bool(ended.stdout) == (to == "2>&-")


@pytest.mark.parametrize("name", every("report", "json"))
def test_characters_outside_the_encoding_are_escaped(place: Place, name: str) -> None:
    ended = shell(place, commands(place)[name], "", PYTHONIOENCODING="ascii")
    assert (ended.returncode, "Traceback" in clean(ended)) == (0, False)
    text = ended.stdout.decode("ascii")
    assert text
    if name == "report":
        assert "# Sky" in text
        assert "====" in text
    if name == "json":
        told, summary = json.loads(text), json.loads((place.output / "report/summary.json").read_text())
        assert all(told[name] == summary[name] for name in summary if name != "classes")  # these have intervals, too


def test_the_c_locale_without_utf8_mode(place: Place) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name in ("report", "audit"):
        ended = shell(place, commands(place)[name], "", **plain)
        assert (ended.returncode, clean(ended)) == (0, "")


@FULL
@pytest.mark.parametrize(
    "name",
    every("models", "audit"),
)
def test_unprintable_output_fails_only_commands_without_other_results(place: Place, name: str) -> None:
    ended = shell(place, commands(place)[name], ">/dev/full")
    words = "warning: the work is done, but" if name in DONE else "error:"
    assert ended.returncode == (0 if name in DONE else 1)
    assert clean(ended).splitlines()[-1] == f"{words} the output could not be printed: No space left on device"
    assert shell(place, commands(place)[name], ">/dev/full 2>/dev/full").returncode == ended.returncode
    assert shell(place, commands(place)[name], "2>/dev/full").returncode == 0


@pytest.mark.parametrize("name", every("models", "overlay"))
def test_the_reader_is_gone(place: Place, name: str) -> None:
    ended = shell(place, commands(place)[name], "| true; exit ${PIPESTATUS[0]}")
    clean(ended)
    assert ended.returncode == (141 if name in PRINTED else 0)


@FULL
@pytest.mark.parametrize(
    "to",
    [
        pytest.param(">&-", marks=pytest.mark.slow),
        pytest.param("2>&-", marks=pytest.mark.slow),
        ">&- 2>&- <&-",
        pytest.param("2>&1 | head -1 >/dev/null; exit ${PIPESTATUS[0]}", marks=pytest.mark.slow),
        "2> >(true)",
        ">/dev/full",
        pytest.param("2>/dev/full", marks=pytest.mark.slow),
        pytest.param(">/dev/full 2>&1", marks=pytest.mark.slow),
    ],
)
def test_a_run_completes_whatever_happens_to_its_output(place: Place, tmp_path: Path, to: str) -> None:
    command, output = new(place, tmp_path.name)
    ended = shell(place, command, to)
    assert ended.returncode == 0
    err = clean(ended)
    assert ("warning: the work is done, but" in err) == (to == ">/dev/full")
    assert (output / "_SUCCESS").is_file()
    assert len(read_rows(output)) == 3
    for file in output.rglob("*.parquet"):  # no output went into a file that has the descriptor of a closed stream
        pq.ParquetFile(file, page_checksum_verification=True).read()


def test_a_failure_keeps_its_exit_code(place: Place) -> None:
    for to in (">&-", "2>&-", ">/dev/full 2>/dev/full"):
        assert shell(place, "report nowhere", to).returncode == 2
    assert shell(place, "run in out --modle x", "2>/dev/full").returncode == 2


# --- `--log-format json` ---------------------------------------------------------------------------------------------


def noisy(place: Place, output: str, body: str) -> subprocess.CompletedProcess[str]:
    """Return a run with `--log-format json` whose planning prints in every possible way."""
    arguments = ["segment", *place.flags(output=str(place.folder / output)), "--log-format", "json"]
    code = f"""
import logging, sys, warnings
import segment.runs.driver
discover = segment.runs.driver._discover
def noisy(*arguments):
    warnings.warn("deprecated, says a library")
    logging.getLogger("library").warning("odd, says another")
    print("hello on stdout")
    print("two\\nlines", file=sys.stderr)
    sys.stderr.write("no end of line")
    {body}
    return discover(*arguments)
segment.runs.driver._discover = noisy
from segment.__main__ import run
sys.argv = {arguments!r}
run()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_a_json_log_is_json_whatever_else_prints(place: Place) -> None:
    ended = noisy(place, "noisy", "pass")
    assert ended.returncode == 0
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    logged = "\n".join(event["message"] for event in events if event["event"] == "log")
    for words in ("deprecated, says", "odd, says another", "hello on stdout", "two", "lines", "no end of line"):
        assert words in logged
    (report,) = [json.loads(line) for line in ended.stdout.splitlines()]
    assert (report["event"], report["images"], report["complete"]) == ("report", 3, True)
    assert [one["class_name"] for one in report["classes"]] == ["Sky", "Road", "Car", "Unlabeled"]


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        ("raise RuntimeError('nobody has thought of this')", "RuntimeError: nobody has thought of this", 1),
        ("from segment.errors import UsageError; raise UsageError('not so')", "not so", 2),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "stopped; committed parts stay", 143),
    ],
)
def test_a_json_log_reports_the_failure_of_a_run(place: Place, body: str, words: str, code: int) -> None:
    ended = noisy(place, f"failed-{code}", body)
    assert ended.returncode == code
    assert ended.stdout == ""
    last = [json.loads(line) for line in ended.stderr.splitlines() if '"error"' in line][-1]
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert words in last["message"]
    assert all(json.loads(line) for line in ended.stderr.splitlines())


def test_print_job_is_plain_toml_with_a_json_log(place: Place) -> None:
    command, _ = new(place, "none")
    ended = shell(place, f"{command} --print-job --log-format json", "")
    assert ended.stdout == shell(place, f"{command} --print-job", "").stdout != b""
