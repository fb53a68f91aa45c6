"""`README.md` in the output: Hugging Face `datasets` opens a run without further words."""

from pathlib import Path

import numpy as np
import pytest

from tests.exports import street


def test_datasets_load_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    place, expected = street(tmp_path)
    rows = load_dataset(str(place.output), split="train", cache_dir=str(tmp_path / "cache"))
    found = {row["id"]: row["mask"] for row in rows}
    assert {*found} == {*expected, "broken.png"}
    assert all(np.array_equal(np.asarray(found[name]), expected[name]) for name in expected)
    assert found["broken.png"] is None
    stats = load_dataset(str(place.output), "stats", split="train", cache_dir=str(tmp_path / "cache"))
    assert {"class_name", "predicted_pixels"} <= {*stats.column_names}


def test_a_readme_of_the_user_stays(tmp_path: Path) -> None:
    place, _ = street(tmp_path)
    card = place.output / "README.md"
    assert card.read_bytes().startswith(b"---\nconfigs:\n")
    card.write_text("mine")
    place.run()
    assert card.read_text() == "mine"
    card.unlink()
    place.run()
    assert card.read_bytes().startswith(b"---\nconfigs:\n")
