"""`nodes`: models that sleep, on several logical nodes."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import segment
from jobs.scaling.figures import Figure, Samples, Scale
from jobs.scaling.inputs import some_images

SLEEP = 0.1  # seconds an image


class SleepingSession:
    """A session that takes its time and no CPU."""

    def __init__(self, card: Any, *_: Any, **__: Any) -> None:
        self.card = card

    def predict(self, images: Any) -> Any:
        """See `segment.models.sessions.Session.predict`."""
        import numpy as np

        from segment.models.sessions import Masks

        time.sleep(SLEEP * len(images))
        return Masks(np.zeros(images.shape[:3], dtype=np.uint8), {})


def sleepy_workers() -> None:
    """Ray runs this in every worker process: sessions there sleep."""
    import segment.pipeline.worker

    segment.pipeline.worker.open_session = SleepingSession  # type: ignore[assignment]


@contextmanager
def logical_nodes(nodes: int, **resources: int) -> Iterator[Any]:
    """Start a Ray cluster of several nodes on this machine, whose sessions sleep, and connect to it."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # on the loopback address only
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(**resources)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find `jobs`
    hook = {"worker_process_setup_hook": sleepy_workers}
    ray.init(address=cluster.address, runtime_env=hook, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure_nodes(scale: Scale, counts: tuple[int, ...] = (1, 2, 4, 8, 16)) -> list[Figure]:
    """Throughput against workers on four logical nodes; each worker can do ten images a second."""
    figures = []
    with logical_nodes(4, num_cpus=max(1, max(counts) // 4)):
        for workers in counts:
            samples = Samples()
            source = some_images(scale, 200 * workers)
            output = str(scale.output(f"nodes-{workers}"))
            segment.run(segment.Job(output=output, engine="ray", workers=workers, **{**scale.job, **source}), samples)
            rate = samples.rate(0.3)
            share = rate * SLEEP / workers
            figures.append(Figure(f"{workers} sleeping workers, images/s", f"{rate:.1f} ({share:.0%} of them asleep)"))
    return figures
