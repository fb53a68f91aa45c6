"""On a terminal: the weights' download and the run are shown, and however a run ends, the cursor comes back."""

import hashlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segment.progress import Tally, console_progress
from segment.progress.terminal import TerminalProgress
from tests.calls import ROOT, Call
from tests.reliability.arena import Arena, proxied
from tests.reliability.proxy import Fault
from tests.reliability.trouble import command, environment, street
from tests.runs import CARD, CARD_TOML, Place
from tests.web import Web

SHOW, HIDE = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SEGMENT_CACHE", str(tmp_path / "cache"))
    return street(tmp_path)


@contextmanager
def terminal() -> Iterator[list[str]]:
    """Make a pseudo-terminal of this process's stderr; what came there is in the list when it is left."""
    ours, theirs = pty.openpty()
    seen: list[str] = []
    with os.fdopen(theirs, "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "stderr", stderr)  # in the test, since pytest sets its own before
        yield seen
    seen.append(read_all(ours))
    os.close(ours)


def read_all(terminal: int) -> str:
    """What comes to a terminal until nobody writes to it any more."""
    text = b""
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # so Linux says that
            return text.decode()
        text += data


def publish(place: Place, web: Web, **how: int) -> None:
    """Let the card name weights on the web server."""
    data = place.weights_path.read_bytes()
    url = web.put("/model.onnx", data, **how)
    weights = f'url = "{url}"\nsize = {len(data)}\nsha384 = "{hashlib.sha384(data).hexdigest()}"\n'
    place.card_path.write_text(f"{CARD_TOML}\n[[weights]]\n{weights}")


def test_a_run_shows_the_download_and_a_bar(place: Place, web: Web) -> None:
    publish(place, web)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(place, weights=None),
        cwd=ROOT,
        env=os.environ | environment("") | {"TERM": "xterm-256color", "COLUMNS": "100"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    text = read_all(ours)
    os.close(ours)
    assert process.wait(timeout=60) == 0, text
    for words in ("fetched model.onnx, ", "6 images in 1 shard, 3 parts", "6/6 images (100 %)", "mIoU 100.00 %"):
        assert words in text
    assert "Traceback" not in text
    assert text.rfind(SHOW) > text.rfind(HIDE) > -1


@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_fails_gives_the_cursor_back(segment: Call, place: Place, web: Web) -> None:
    publish(place, web, stop_after=0)
    with terminal() as seen:
        assert segment(*place.flags(weights=None)).code == 1
    (text,) = seen
    assert text.rfind(SHOW) > text.rfind(HIDE) > -1
    assert f"could not read {web.url}/model.onnx: " in text[text.rfind(SHOW) :]  # the message comes after the bar


def test_downloads_of_any_size_in_any_order() -> None:
    with terminal() as seen:
        progress = console_progress()
        assert isinstance(progress, TerminalProgress)
        for done in (0, 10**6, 2 * 10**6):
            progress.download("[b].xml", done, 2 * 10**6)
        for done in (0, 10**6):
            progress.download("stream", done, -1)  # its size is not known, so it never ends
        progress.download("empty", 0, 0)
        tally = Tally(CARD, images=4, done=2, resumed=2, workers=1)
        progress.begin(tally)
        progress.note("[bold]words[/nothing] in brackets")
        progress.update(tally)
        progress.end(tally)
        progress.close()
    (text,) = seen
    assert "[b].xml 2.0 of 2.0 MB" in text
    assert "fetched [b].xml, 2.0 MB" in text
    assert "[bold]words[/nothing] in brackets" in text
    assert "2/4 images (50 %)" in text
    assert text.rfind(SHOW) > text.rfind(HIDE) > -1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_store_that_does_not_answer_is_told_within_half_a_minute(engine: str, arena: Arena) -> None:
    """The store goes silent while a part is written: the display says so in words, and the run ends well."""
    fault = Fault("stall_before", method="PUT", key="/masks/", times=1)
    ours, theirs = pty.openpty()
    with proxied(arena.server, fault) as proxy:
        home = arena.folder / "homes" / f"silent-{engine}"
        home.mkdir(parents=True)
        settings = {**arena.server.env, "AWS_ENDPOINT_URL": proxy.url, "HOME": str(home), "TERM": "xterm-256color"}
        process = subprocess.Popen(
            arena.command(f"silent-{engine}", f"--engine={engine}"),
            cwd=home,
            env={**os.environ, **settings, "COLUMNS": "100"},
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        text = read_all(ours)
        assert process.wait(timeout=120) == 0, text
    os.close(ours)
    assert fault.injected
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", " ", text).split())
    told = re.search(r"waiting for the store: to write s3://\S+ has taken (\d+) s so far", plain)
    assert told, plain[-3000:]
    assert int(told[1]) < 30
