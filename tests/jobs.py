"""A small job that does everything, and ways to run it on a given engine."""

import re
from collections.abc import Callable, Generator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segment
from segment.engines import Engine, Isolation
from segment.engines.local import LocalEngine
from segment.engines.pool import Pool
from segment.engines.worker_process import Setup
from segment.models.card import ModelCard, load_card
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.progress import Progress
from tests.datasets import Item, encoded
from tests.graphs import colour_classifier, painted
from tests.here import working_in_processes

MakeEngine = Callable[[], Engine]


def ray_engine(**settings: Any) -> MakeEngine:
    """Makes a `RayEngine` on the cluster of the fixture `ray_cluster`."""

    def make() -> Engine:
        from segment.engines.ray import RayEngine

        return RayEngine(**settings)

    return make


class OneProcess(LocalEngine):
    """The local engine as on a GPU: all workers are threads of one process and share its session."""

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        assert isolation == "none"
        setup = Setup(task, weights, streams=self.workers("cuda"))
        yield from Pool(setup, 1, isolation).run(plan.parts())


ENGINES: dict[str, MakeEngine] = {
    "local-1": lambda: LocalEngine(1),
    "local-2": lambda: LocalEngine(2),
    "local-3": lambda: LocalEngine(3),
    "local-gpu": lambda: OneProcess(3),
    "ray-2": ray_engine(),
    "ray-split": ray_engine(split=True),
}


def on(*names: str) -> Any:
    """Parametrise a test by engines; those on Ray are marked as such and given a cluster (by the fixture `engine`)."""
    marked = [pytest.param(name, marks=pytest.mark.ray if name.startswith("ray") else ()) for name in names]
    return pytest.mark.parametrize("engine", marked, indirect=True)


def small_card(folder: Path, name: str = "unet-camvid-onnx-0001", height: int = 32, width: int = 48) -> Path:
    """A built-in card with another input size, as a user would write it."""
    text = (files("segment") / "models" / "cards" / f"{name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^height = \d+$", f"height = {height}", text)
    text = re.sub(r"(?m)^width = \d+$", f"width = {width}", text)
    text = text.replace(f'name = "{name}"', f'name = "small-{name}"', 1)
    path = folder / f"small-{name}.toml"
    path.write_text(text[: text.index("[[weights]]")] if "[[weights]]" in text else text, encoding="utf-8")
    return path


def model(folder: Path, **changes: Any) -> dict[str, str]:
    """A small card and the graph that answers for it: the fields `model` and `weights` of a job."""
    card = small_card(folder, **changes)
    weights = folder / "colours.onnx"
    weights.write_bytes(colour_classifier(load_card(str(card))))
    return {"model": str(card), "weights": str(weights)}


def motley(card: ModelCard) -> list[Item]:
    """Images of several sizes and kinds; some labelled, some not, some broken. Fourteen in all, five of them errors."""
    items = []
    for number in range(14):
        image, mask = painted(card, number, block=4)
        grown = np.ascontiguousarray(image.repeat(1 + number % 3, 0).repeat(1 + number % 2, 1))
        label = mask.repeat(1 + number % 3, 0).repeat(1 + number % 2, 1)
        wrong = (label + np.uint8(1)) % np.uint8(len(card.classes))
        label = np.where(np.arange(label.shape[1]) < 5, wrong, label)
        data = encoded(grown, "JPEG", quality=92) if number % 4 == 1 else encoded(grown)
        items.append(Item(f"{number:02d}.{'jpg' if number % 4 == 1 else 'png'}", data, encoded(label)))
    items[3] = Item("03.png", items[3].image)
    items[5] = Item("05.jpg", items[5].image[: len(items[5].image) // 2], items[5].label)
    items[6] = Item("06.png", b"<html>no image</html>", items[6].label)
    items[8] = Item("08.png", items[8].image, encoded(np.zeros((7, 9), np.uint8)))
    items[10] = Item("10.png", items[10].image, encoded(np.full(_size(card, 10), 77, np.uint8)))
    items[12] = Item("12.png", b"", items[12].label)
    return items


MOTLEY_ERRORS = {"05": "undecodable", "06": "not_an_image", "08": "label_size", "10": "label_value", "12": "empty"}


def _size(card: ModelCard, number: int) -> tuple[int, int]:
    return card.input.height * (1 + number % 3), card.input.width * (1 + number % 2)


def run_on(make: MakeEngine, job: segment.Job, progress: Progress | None = None) -> segment.RunReport:
    """Run a job on this engine with its worker processes, whatever the job says.

    Without the proof of what `auto` chooses, which takes seconds.
    """
    job = job.model_copy(update={"min_agreement": 0.0})
    with pytest.MonkeyPatch.context() as patch, working_in_processes():
        patch.setattr("segment.runs.lazy_engine.make_engine", lambda job, images: make())
        return segment.runs.driver.run(job, progress)


def tree(output: Path, *below: str) -> dict[str, bytes]:
    """Bytes by name of the Parquet files in some folders of a run: by default all that must be the same everywhere."""
    found = [path for name in below or ("masks", "stats", "report") for path in (output / name).rglob("*.parquet")]
    assert found
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in found}
