"""A small job on a real S3 server, started as users start it, and the oracle every fault ends with.

arena.run(output, proxy)        # `python -m segment run s3://... s3://...`, led to the proxy
arena.here(output, proxy)       # the same command in this process: a tenth of the CPU time, where no process must die
arena.check(output)             # audit, bytes equal to the undisturbed run's, no secret anywhere
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.store.client import Store
from tests.calls import ended, here
from tests.datasets import Item, write_tars
from tests.graphs import colour_classifier
from tests.jobs import tree
from tests.reliability.proxy import Fault, FaultProxy
from tests.runs import CARD, CARD_TOML, png, scene
from tests.s3 import S3Server, serve_s3
from tests.s3_world import upload

IMAGES = 8
PATIENCE = 240.0  # seconds a run may take on a busy machine before it counts as hanging
QUICK = {"connect_timeout": 2, "read_timeout": 2}  # for runs that stall on purpose


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code; negative for a signal.
        text: both streams.
        seconds: wall-clock time it took.
    """

    code: int
    text: str
    seconds: float


@dataclass
class Arena:
    """Two tars of labelled images in a bucket, four each if none are asked for; on disk, a card and a graph.

    Attributes:
        server: where the bucket is.
        folder: for card, weights, homes and logs.
        images: in the tars.
        golden: what an undisturbed run writes, by name.
        texts: the streams of every run, by output.
    """

    server: S3Server
    folder: Path
    images: int = IMAGES
    golden: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def part_size(self) -> int:
        """So that there are four parts, or about 2,000."""
        return max(2, self.images // 2000)

    @property
    def parts(self) -> int:
        """Number of parts, about."""
        return self.images // self.part_size

    @property
    def patience(self) -> float:
        """Seconds that a run may take."""
        return PATIENCE + self.images / 20

    def command(self, output: str, *flags: str) -> list[str]:
        """The command line of a run to `s3://arena-out/<output>`."""
        model = [f"--model={self.folder / 'card.toml'}", f"--weights={self.folder / 'model.onnx'}"]
        how = ["--runtime=onnxruntime", f"--part-size={self.part_size}", "--workers=1", "--engine=local"]
        place = output if output.startswith("/") else f"s3://arena-out/{output}"
        return [sys.executable, "-m", "segment", "run", "s3://arena-in", place, *model, *how, *flags]

    def start(self, output: str, endpoint: str, *flags: str, **env: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a run; return its process and the file that both of its streams go to."""
        home = self._home(output)
        home.mkdir(parents=True, exist_ok=True)
        log = home / f"log-{time.monotonic_ns()}"
        settings = {**os.environ, **self.server.env, "AWS_ENDPOINT_URL": endpoint, "HOME": str(home), **env}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.command(output, *flags), env=settings, cwd=home, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=stream, start_new_session=True,
            )  # fmt: skip
        return process, log

    def run(
        self, output: str, proxy: FaultProxy | None = None, *flags: str, patience: float = PATIENCE, **env: str
    ) -> Ended:
        """Do a run to its end, in bounded time."""
        began = time.monotonic()
        process, log = self.start(output, proxy.url if proxy else self.server.endpoint, *flags, **env)
        if proxy:
            proxy.victim = process.pid
        code, text = ended(process, log, patience)
        self.texts[output] = self.texts.get(output, "") + text
        return Ended(code, text, time.monotonic() - began)

    def here(self, output: str, proxy: FaultProxy | None = None, *flags: str) -> Ended:
        """Do a run to its end in this process, its worker, too."""
        began = time.monotonic()
        endpoint = proxy.url if proxy else self.server.endpoint
        env = {**self.server.env, "AWS_ENDPOINT_URL": endpoint, "HOME": str(self._home(output))}
        done = here(*self.command(output, *flags)[3:], env=env)
        self.texts[output] = self.texts.get(output, "") + done.stdout + done.stderr
        return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - began)

    def _home(self, output: str) -> Path:
        return self.folder / "homes" / output.strip("/").replace("/", "-")

    def elsewhere(self, server: S3Server, folder: Path) -> Arena:
        """The same job on another server, which is given the input."""
        for name in ("card.toml", "model.onnx"):
            shutil.copy(self.folder / name, folder / name)
        self.provide(server)
        return Arena(server, folder, self.images, self.golden)

    def provide(self, server: S3Server) -> None:
        """Make the buckets and upload the input."""
        server.bucket_url("arena-out")
        upload(self.folder / "tars", server.bucket_url("arena-in"), Store(server.options))

    def files(self, output: str) -> Path:
        """Where the server keeps what a run wrote."""
        return Path(output) if output.startswith("/") else self.server.folder / "arena-out" / output

    def store(self) -> Store:
        """Leads to the server itself."""
        return Store(self.server.options)

    def check(self, output: str) -> None:
        """The oracle: the audit passes, deep; the bytes are the undisturbed run's; no secret is anywhere."""
        url = f"file://{output}" if output.startswith("/") else f"s3://arena-out/{output}"
        found = audit_run(Ledger(self.store(), url), deep=True)
        assert found.problems == ()
        assert (found.images, found.errors) == (self.images, 0)
        assert (self.files(output) / "_SUCCESS").is_file()
        written = tree(self.files(output))
        assert written.keys() == self.golden.keys()
        assert [name for name in written if written[name] != self.golden[name]] == []
        self.check_secrets(output)

    def check_secrets(self, output: str) -> None:
        """No planted secret in anything a run wrote or said."""
        for word in (self.server.key, self.server.secret):
            assert word not in self.texts.get(output, "")
            for root in (self.files(output), self._home(output)):
                for path in root.rglob("*"):
                    assert not path.is_file() or word.encode() not in path.read_bytes(), path


def make_arena(folder: Path, server: S3Server, images: int = IMAGES) -> Arena:
    """Upload the input and do the undisturbed run. Of many images a few hundred differ."""
    (folder / "card.toml").write_text(CARD_TOML)
    (folder / "model.onnx").write_bytes(colour_classifier(CARD))
    scenes = [(png(image), png(mask)) for image, mask in map(scene, range(min(images, 500)))]
    items = [Item(f"{number:02d}.png", *scenes[number % len(scenes)]) for number in range(images)]
    write_tars(folder / "tars", items, shards=2)
    arena = Arena(server, folder, images)
    arena.provide(server)
    undisturbed = arena.run("golden", patience=arena.patience)
    assert undisturbed.code == 0, undisturbed.text
    arena.golden = tree(arena.files("golden"))
    arena.check("golden")
    return arena


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One for the session: every test writes to outputs of its own."""
    with serve_s3(tmp_path_factory.mktemp("arena-s3")) as server:
        yield make_arena(tmp_path_factory.mktemp("arena"), server)


@contextmanager
def proxied(server: S3Server, *faults: Fault) -> Iterator[FaultProxy]:
    """A proxy in front of a server."""
    with FaultProxy(server.endpoint) as proxy:
        for fault in faults:
            proxy.add(fault)
        yield proxy


def note(kind: str, injected: int, survived: int, recovery: float) -> None:
    """Keep figures for the table of README.md, where it is being made (`python -m tests.reliability.table`).

    Args:
        kind: the fault.
        injected: how often it was done.
        survived: how many of these ended as they must.
        recovery: seconds from the last of these faults to the end of the run that completed; 0 where none must.
    """
    if path := os.environ.get("SEGMENT_FAULT_FIGURES"):
        figures = {"kind": kind, "injected": injected, "survived": survived, "recovery": round(recovery, 1)}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
