"""A few seconds of `make fuzz`: no damage makes a reader do anything but read, or refuse in words."""

from pathlib import Path

import pytest

from tests.reliability.fuzz import TARGETS, judge, search


@pytest.mark.parametrize("target", TARGETS)
def test_a_sound_file_is_read(target: str, tmp_path: Path) -> None:
    """Or else nothing that is near it would be tried either."""
    sound = TARGETS[target][0]()
    assert [number for number, data in enumerate(sound) if not judge(target, data, tmp_path)] == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_is_read_or_refused_in_words(target: str, tmp_path: Path) -> None:
    tried, valid = search(target, 0.5, 7, tmp_path, tmp_path / "example", examples=25)
    assert tried >= 20
    assert valid < tried  # some damage is told
