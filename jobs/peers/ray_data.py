"""Peer: Ray Data, as 'Working with Images' and 'End-to-end: Offline Batch Inference' of its documentation have it.

https://docs.ray.io/en/latest/data/working-with-images.html: `read_images`, a class in `map_batches`, `write_parquet`.
One actor per CPU but one: on two CPUs, two actors leave none for reading and writing, and nothing moves. Each actor
asks for one CPU and lets onnxruntime choose its threads, as the examples do.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

sys.path.insert(0, str(Path(__file__).parent))
from model import Model, Stamps, read_spec


class Segmenter:
    """Loads the model once an actor."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.model, self.stamps = Model(spec), Stamps(spec)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """From images to PNGs of masks."""
        began = time.time()
        masks = [self.model.segment(image) for image in batch["image"]]
        self.stamps.add(began, len(masks))
        return {"path": batch["path"], "mask": masks}


def main() -> None:
    """Run it."""
    started = time.time()
    spec = read_spec(sys.argv[1])
    folder = str(Path(__file__).parent)
    # `ray.init()` would join whatever cluster it finds on the machine
    address = os.environ.get("RAY_ADDRESS", "local")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the job's own: else a busy machine would slow this one down
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": folder}})
    ray.data.DataContext.get_current().enable_progress_bars = False
    images = ray.data.read_images(spec["images"], include_paths=True, mode="RGB")
    actors = max(1, int(ray.cluster_resources()["CPU"]) - 1)
    masks = images.map_batches(
        Segmenter, fn_constructor_args=(spec,), batch_size=16, compute=ray.data.ActorPoolStrategy(size=actors)
    )
    masks.write_parquet(str(Path(spec["output"], "masks.parquet")))
    print(Stamps(spec).result(started))


if __name__ == "__main__":
    main()
