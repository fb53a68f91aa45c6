"""Processes that come to grief on purpose, and what a run leaves, as reliability tests compare it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.store.client import Store
from tests.calls import ROOT, process
from tests.graphs import TRIGGER
from tests.runs import Place, png, scene

SITE = Path(__file__).parent / "site"


def environment(trouble: str) -> dict[str, str]:
    """Environment variables under which the processes of a run meet this trouble; see `site/sitecustomize.py`."""
    path = [str(SITE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "TROUBLE": trouble, "RAY_AUTH_MODE": "disabled"}


def trouble_in_children(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """Let child processes of this one meet this trouble, not this one."""
    for name, value in environment(trouble).items():
        monkeypatch.setenv(name, value)


def run_process(place: Place, trouble: str = "", **changes: Any) -> subprocess.CompletedProcess[str]:
    """`segment run` as a process of its own."""
    return process(*command(place, **changes), timeout=120, **environment(trouble))


def command(place: Place, **changes: Any) -> list[str]:
    """The command line of `segment run` over a place."""
    return [sys.executable, "-m", "segment", *place.flags(**changes)]


def street(folder: Path, images: int = 6) -> Place:
    """A place with sound images `0.png`, `1.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder)
    for seed in range(images):
        place.add(f"{seed}.png", seed)
    return place


def add_killer(place: Place, name: str, seed: int = 7) -> None:
    """Add an image like all others, but for one pixel of the trigger's colour."""
    pixels, mask = scene(seed)
    pixels = pixels.copy()
    pixels[3, 4] = TRIGGER
    place.write(name, png(pixels), png(mask))


def masks(output: Path) -> dict[str, bytes]:
    """Bytes of every masks file of a run by its name."""
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.glob("masks/*/*.parquet")}


def holding(output: Path, image: str) -> Path:
    """The masks file that has this image."""
    import pyarrow.parquet as pq

    files = output.glob("masks/*/*.parquet")
    (found,) = [file for file in files if image in pq.ParquetFile(file).read(columns=["id"])["id"].to_pylist()]
    return found


def assert_sound(output: Path) -> None:
    """Assert that a run is complete and its audit holds, every byte read."""
    assert (output / "_SUCCESS").exists()
    assert audit_run(Ledger(Store(), f"file://{output}"), deep=True).problems == ()
