"""What the machinery costs without a model, and how that grows: a null model and a million tiny images.

    python jobs/scale.py                              # all of it: about fifteen minutes on two cores, 4 GB of disk
    python jobs/scale.py --measure run --images 100000 --shards 100

The null model is a real ONNX graph whose mask is constant; the images are JPEGs of 64x64. Every measure runs in a
process of its own, so that its memory is its own. `run` is a job on the Ray engine; `finished` reruns and aggregates
it; `resume` begins a run of a hundred parts a shard, 99 % of whose shards are finished; `discovery` lists inputs;
`plan` weighs a long plan; `nodes` puts sleeping models on several logical nodes; `store` looks at what Ray's object
store holds; `start` is what a user waits for; `tars` is the same with a thousand tars in a slow store; `listing` lists
a bucket of as many objects; `objects` plans, resumes and audits a run of them; `fleet` is 64 and 1,000 workers,
simulated. Prints Markdown; `--json` keeps it.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.scaling.discovery import measure_discovery, measure_plan
from jobs.scaling.figures import Figure, Scale
from jobs.scaling.fleet import measure_fleet
from jobs.scaling.inputs import SIZE, make_inputs
from jobs.scaling.listing import measure_listing
from jobs.scaling.nodes import measure_nodes
from jobs.scaling.object_store import measure_store
from jobs.scaling.objects import measure_objects
from jobs.scaling.resume import measure_resume
from jobs.scaling.run import measure_finished, measure_run
from jobs.scaling.start import measure_start
from jobs.scaling.tars import measure_tars

MEASURES: dict[str, Callable[[Scale], list[Figure]]] = {
    "run": measure_run,
    "finished": measure_finished,
    "resume": measure_resume,
    "discovery": measure_discovery,
    "plan": measure_plan,
    "nodes": measure_nodes,
    "store": measure_store,
    "start": measure_start,
    "tars": measure_tars,
    "listing": measure_listing,
    "objects": measure_objects,
    "fleet": measure_fleet,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", "--number", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1_000)
    parser.add_argument("--measure", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--folder", type=Path, help="for inputs and outputs, kept; else a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scale = Scale((options.folder or Path(scratch) / "scale").absolute(), options.images, options.shards)
        if not scale.folder.exists() and not set(options.measure) <= {"listing", "objects"}:  # which take none
            make_inputs(scale)
        figures: list[Figure] = []
        print(f"{scale.images:,} images of {SIZE}x{SIZE} in {scale.shards:,} shards\n")
        print("| figure | measured | goal |\n|---|---:|---:|")
        for name in options.measure:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                for figure in pool.submit(MEASURES[name], scale).result():
                    figures.append(figure)
                    print(f"| {figure.name} | {figure.value} | {figure.goal} |", flush=True)
    if options.json:
        record = {figure.name: figure.value for figure in figures}
        options.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
