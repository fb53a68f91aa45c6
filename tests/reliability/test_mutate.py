"""Some of `python -m tests.reliability.mutate`: tables that hold other values than a run writes."""

from pathlib import Path

import pytest

from tests.reliability.mutate import attack, make_run
from tests.runs import Place

SEEDS = range(20)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_run(tmp_path_factory.mktemp("mutate") / "done")


@pytest.mark.parametrize("seed", SEEDS)
def test_tables_of_other_values_are_refused_in_words(done: Place, tmp_path: Path, seed: int) -> None:
    what, findings = attack(done, seed, tmp_path / "attack")
    assert findings == [], what
