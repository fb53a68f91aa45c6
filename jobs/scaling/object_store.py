"""`store`: what Ray's object store holds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.scaling.figures import Figure, Scale
from jobs.scaling.inputs import some_images, write_model
from jobs.scaling.nodes import logical_nodes


def measure_store(scale: Scale) -> list[Figure]:
    """What the object store holds at most: one operator, and three with decoded images of 512x512 between them."""
    figures = []
    size = 512
    model = write_model(scale.folder, "null-512", size)
    part_bytes = 4 * size * size * 3
    with logical_nodes(1, num_cpus=2, num_gpus=2):
        import segment
        from segment.engines.ray import RayEngine
        from segment.runs import lazy_engine

        for name, split in (("one operator", False), ("three operators", True)):
            lazy_engine.make_engine = lambda job, images, split=split: RayEngine(workers=(2, 2), split=split)
            source = {**some_images(scale, 400), **model}
            with object_store_peak() as peak:
                segment.run(segment.Job(output=str(scale.output(name)), **{**scale.job, **source}))
            value = f"{peak[0] / 1e6:.1f} MB, {peak[0] / part_bytes / 2:.2f} parts an actor"
            figures.append(Figure(f"object store at peak, {name}", value, "≤ 4 parts"))
    return figures


@contextmanager
def object_store_peak() -> Iterator[list[int]]:
    """Give a list whose one item is, afterwards, the most bytes that the object store held."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    node = next(node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    address, port = node["NodeManagerAddress"], node["NodeManagerPort"]
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            reply = get_memory_info_reply(state, address, port)
            peak[0] = max(peak[0], reply.store_stats.object_store_bytes_used)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield peak
    done.set()
    thread.join()
