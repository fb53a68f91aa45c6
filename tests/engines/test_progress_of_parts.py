"""Images within a part are seen before the part is committed, on both engines."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from segment.engines.local import LocalEngine
from segment.progress import Tally, ticking
from tests.jobs import ENGINES, on, run_on
from tests.reliability.trouble import street, trouble_in_children
from tests.runs import Notes


class Seen(Notes):
    """Keeps, for each second, how many images are committed and how many are segmented beyond these."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[int, float]] = []
        self._tally: Tally | None = None

    def begin(self, tally: Tally) -> None:
        self._tally = tally

    def tick(self) -> None:
        if self._tally is not None:
            self.states.append((self._tally.done, self._tally.begun))


@pytest.fixture
def slow_workers(engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every batch takes most of a second."""
    trouble: Path | None = None
    if engine.startswith("ray"):
        trouble = request.getfixturevalue("ray_cluster")
        trouble.write_text("slow=0.7")
    else:
        trouble_in_children(monkeypatch, "slow=0.7")
    yield
    if trouble:
        trouble.unlink()


@on("local-1", "ray-2")
@pytest.mark.usefixtures("slow_workers")
def test_images_of_a_part_in_work_are_seen(engine: str, tmp_path: Path) -> None:
    place, seen = street(tmp_path, images=8), Seen()
    report = run_on(ENGINES[engine], place.job(part_size=8, batch_size=1), seen)
    assert (report.complete, report.total.images) == (True, 8)
    begun = [begun for done, begun in seen.states if not done]
    assert begun == sorted(begun)
    assert any(0 < images < 8 for images in begun), seen.states
    assert all(done + begun <= 8 for done, begun in seen.states)


def test_what_is_published_each_second_has_just_been_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    tick = Tally.tick

    def counted(tally: Tally) -> None:
        calls.append(("count", threading.get_ident()))
        tick(tally)

    def published(engine: LocalEngine, tally: Tally, *, ended: bool = False) -> None:
        if not ended:
            calls.append(("publish", threading.get_ident()))

    monkeypatch.setattr(Tally, "tick", counted)
    monkeypatch.setattr(LocalEngine, "publish", published)
    monkeypatch.setattr("segment.runs.rounds.ticking", partial(ticking, seconds=0.001))
    assert street(tmp_path, images=20).run().report.complete
    assert [call for call, _ in calls] == ["count", "publish"] * (len(calls) // 2)
    assert len(calls) >= 4
    assert len({thread for _, thread in calls}) == 1
