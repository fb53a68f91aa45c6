"""What Ray Data runs: the operators and rows that its dashboard shows, and what a driver's other datasets keep."""

import time
import warnings
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from segment.engines import Isolation
from segment.errors import UsageError
from tests.jobs import ENGINES, ray_engine, run_on
from tests.reliability.trouble import assert_sound, street
from tests.runs import Place

pytestmark = pytest.mark.ray


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Sixteen sound images in parts of two."""
    return street(tmp_path, images=16)


def shown() -> list[dict[str, Any]]:
    """The operators of the last dataset as the dashboard's page Ray Data has them, but for its inputs."""
    import ray

    actor = ray.get_actor("datasets_stats_actor", namespace="_dataset_stats_actor")
    datasets = ray.get(actor.get_datasets.remote())
    last = max(datasets.values(), key=lambda dataset: dataset["start_time"])
    return [operator for operator in last["operators"].values() if operator["name"] != "Input"]


@pytest.mark.parametrize(
    ("isolation", "split", "names"),
    [
        ("none", False, ["ReadParts->MapBatches(segment[{card}])"]),
        pytest.param("part", False, ["ReadParts->MapBatches(segment[{card}])"], marks=pytest.mark.slow),
        ("image", False, ["ReadPartsByImage"]),
        ("none", True, ["ReadParts", "MapBatches(segment[{card}])", "MapBatches(write)"]),
        pytest.param("image", True, ["ReadPartsByImage"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("ray_cluster")
def test_the_dashboard_shows_the_operators_and_a_row_for_each_part(
    isolation: Isolation, split: bool, names: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ray deprecates is not used, and other datasets of the same driver keep their settings."""
    from ray.data import DataContext

    from tests.runs import CARD

    def settings() -> tuple[Any, ...]:
        context = DataContext.get_current()
        return context.target_max_block_size, context.max_errored_blocks

    before = settings()
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", (isolation,))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run_on(ray_engine(split=split), place.job())
    assert not [str(warning.message) for warning in seen if "removed in Ray" in str(warning.message)]
    assert settings() == before
    assert_sound(place.output)
    operators = shown()
    assert [operator["name"] for operator in operators] == [name.format(card=CARD.name) for name in names]
    assert {operator["state"] for operator in operators} == {"FINISHED"}
    assert [operator["total_rows"] for operator in operators] == [8] * len(operators)


@pytest.mark.usefixtures("ray_cluster")
def test_calls_are_spread_over_the_nodes() -> None:
    def refuse(number: int) -> int:
        raise UsageError(f"no {number}")

    with closing(ENGINES["ray-2"]()) as engine:
        found = engine.spread(hex, range(40), stopped=lambda: False)
        assert found == [hex(number) for number in range(40)]
        with pytest.raises(UsageError, match="no 33"):
            engine.spread(refuse, [33], stopped=lambda: False)
        looks = iter([False, True])
        with pytest.raises(CancelledError):
            engine.spread(time.sleep, [0.1] * 400, stopped=lambda: next(looks))
