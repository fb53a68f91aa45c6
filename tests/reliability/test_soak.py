"""Half a minute of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.soak import soak


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_half_a_minute(tmp_path: Path) -> None:
    done = soak(0.5, 3, tmp_path)
    assert done.injected.total() > 0
    assert (done.lost, done.duplicated) == (0, 0)
