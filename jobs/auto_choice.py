"""Whether `auto` picks the fastest runtime that agrees: every runtime of this machine on each model of the benchmark.

    python jobs/auto_choice.py
    python jobs/auto_choice.py --cases unet32-bf16 deeplab-f32 --images 8

For each model, all runtimes and precisions of this machine segment the same images (CamVid of ../shared, else the
demo's scenes), in turns, in one process and one thread: the CPU milliseconds of the model an image, and the share of
pixels as in f32 on the default runtime. Then `auto` chooses as in a run of many images (the plan is repeated, so that
a measurement is worth its time). It is right where its choice is within 5 % of the fastest of those that agree (99 %).
"""

import argparse
import itertools
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench.cases import CASES, Case
from jobs.bench.data import find_pictures, write_inputs
from jobs.bench.machine import describe_machine, in_words
from jobs.confidence import table
from segment.engines.local import LocalEngine
from segment.errors import ModelError, UsageError
from segment.job import Job
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime, capabilities, resolve_runtime
from segment.models.sessions.runtimes import PRECISIONS, RUNTIMES
from segment.models.weights import Weights, load_weights
from segment.output.plan import Plan
from segment.pipeline.agreement import Tried, try_runtimes
from segment.progress import Progress
from segment.runs.proof import prove
from segment.runs.resolve import choose_runtime, discover_for, task_of
from segment.store.client import Store

_LONG = 100_000  # images of the run that `auto` chooses for
_NEAR = 1.05  # times the CPU time of the fastest


def runtimes_for(weights: Weights) -> list[Runtime]:
    """All runtimes and precisions that this machine has for a model on CPUs; the reference, f32, last."""
    found: list[Runtime] = []
    for name, precision in itertools.product(RUNTIMES, PRECISIONS):
        if "auto" not in (name, precision):
            with suppress(UsageError, ModelError):
                found.append(resolve_runtime(weights.format, name, "cpu", precision, nodes=[capabilities()]))
    reference = resolve_runtime(weights.format, "auto", "cpu", "f32", nodes=[capabilities()])
    return [*(runtime for runtime in found if runtime != reference), reference]


def chosen_by_auto(job: Job, card: ModelCard, weights: Weights, plan: Plan, store: Store) -> Runtime:
    """What a run of many such images takes."""
    long = Plan(pa.concat_tables([plan.rows()] * -(-_LONG // plan.images)))
    with closing(LocalEngine()) as engine:
        first = choose_runtime(job, card, weights, engine, Progress())
        return prove(job, card, weights, first, long, engine, store, Progress())[0]


def examine(case: Case, folder: str, images: int) -> dict[str, Any]:
    """Try all runtimes on one model, and let `auto` choose."""
    store, card = Store(), load_card(case.model)
    weights = load_weights(card, case.locate())
    job = Job(input=folder, output=f"{folder}-out", model=case.model, part_size=images)
    plan = Plan.of_discovery(discover_for(job, card, store))
    runtimes = runtimes_for(weights)
    task = task_of(job, card, runtimes[-1], 1, store, "")
    tried, _ = try_runtimes(task, weights, plan.between(0, 1)[0], runtimes, [], 0.0)
    picked = chosen_by_auto(job, card, weights, plan, store)
    usable = [each for each in tried if not each.reason and (each.agreement or 0.0) >= job.min_agreement]
    best = min(usable, key=lambda each: each.seconds)
    own = next(each for each in tried if each.runtime == picked)
    return {"tried": tried, "picked": own, "best": best, "right": own.seconds <= _NEAR * best.seconds}


def in_cell(tried: Tried) -> str:
    """`openvino bf16: 25.1 ms, 99.72 %`."""
    name = f"{tried.runtime.name} {tried.runtime.precision}"
    if tried.agreement is None:
        return f"{name}: {tried.reason or 'not tried'}"
    return f"{name}: {1000 * tried.seconds:.1f} ms, {100 * tried.agreement:.2f} %"


def main() -> None:
    """Print the table; the exit code is 1 where a choice is not right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--images", type=int, default=8, help="of each model")
    options = parser.parse_args()
    rows, seen = [], set()
    with tempfile.TemporaryDirectory(prefix="segment-auto-") as name:
        write_inputs(find_pictures(None, None).repeated(options.images), Path(name) / "data")
        for case in map(CASES.__getitem__, options.cases):
            if (case.model, case.weights) in seen:
                continue
            seen.add((case.model, case.weights))
            try:
                found = examine(case, f"{name}/data/images", options.images)
            except FileNotFoundError as missing:
                print(f"left out: {case.name}, no weights at {missing}", flush=True)
                continue
            cells = [f"{each.runtime.name} {each.runtime.precision}" for each in (found["picked"], found["best"])]
            rows.append([case.name, "; ".join(map(in_cell, found["tried"])), *cells, "yes" if found["right"] else "NO"])
            print("; ".join(rows[-1]), flush=True)
    print(f"\n{in_words(describe_machine())}\n")
    print(table(["case", "tried: CPU time an image, pixels as f32", "auto", "fastest that agrees", "right"], rows))
    sys.exit(any(row[-1] == "NO" for row in rows))


if __name__ == "__main__":
    main()
