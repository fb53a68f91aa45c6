"""The examples in the docstrings of the public names run."""

import doctest
import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import segment
from tests.scenes import Scenes

PACKAGE = Path(segment.__file__).parent
MODULES = [
    ".".join(("segment", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in sorted(PACKAGE.rglob("*.py"))
    if re.search(r"^ *>>> ", file.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str, tmp_path: Path, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(scenes.folder / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(module), extraglobs={"np": np, "segment": segment})
    assert tried > 0
    assert failed == 0


def test_every_public_name_is_documented() -> None:
    for name in segment.__all__:
        text = getattr(segment, name).__doc__
        assert text, name
        assert len(text) > 20, name
