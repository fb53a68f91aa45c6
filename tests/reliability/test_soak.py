"""Half a minute of `make soak`, and what longer ones found."""

from pathlib import Path

import pytest

from segment.engines.ray_cluster import connect
from segment.errors import SegmentError
from tests.reliability.soak import soak


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_half_a_minute(tmp_path: Path) -> None:
    done = soak(0.5, 3, tmp_path)
    assert done.injected.total() > 0
    assert (done.lost, done.duplicated) == (0, 0)


def test_ray_that_does_not_start_in_time_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with eight times its work. Ray raises a bare Exception there, which was shown as a traceback."""
    ray = pytest.importorskip("ray")

    def late(*_: object, **__: object) -> None:
        raise Exception(
            "The current node timed out during startup. This could happen because some of the raylet failed"
        )

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(SegmentError, match="Ray did not start in time: this machine has too much to do") as caught:
        connect(None)
    assert caught.value.exit_code == 1  # the same command may do
