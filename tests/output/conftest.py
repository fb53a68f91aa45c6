"""A finished run, and copies of its output to damage."""

import shutil
from pathlib import Path

import pytest

from tests.runs import Place


@pytest.fixture(scope="package")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("done"))
    for seed in range(3):
        place.add(f"{seed}.png", seed)
    place.run()
    return place


@pytest.fixture
def output(done: Place, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done.output, tmp_path / "out"))
