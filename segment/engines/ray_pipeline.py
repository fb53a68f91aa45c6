"""The pipeline of Ray Data that runs a round: one operator on CPUs, three on GPUs, so that no GPU waits for a JPEG.

Two calls are in flight an actor on CPUs, which feed one thread, so that there is no pause between blocks. Blocks have
about four parts, and each part a row of its own: call and row take an actor about 4 ms. The driver's loop runs about
nine times a second, at 4 ms each. (CPU time on two loaded cores.) What is left of Ray Data's cost is its start: three
helper processes, and its import in the driver and in every actor.
"""

import functools
import logging
import os
import pickle
from collections.abc import Iterator
from typing import Any

from segment.engines import Isolation
from segment.engines.ray_blocks import cut_blocks
from segment.engines.ray_operators import CALLS, RunModel, RunParts, read, run_quarantined, write
from segment.errors import SegmentError
from segment.models.buckets import USUAL
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.stages import Task

log = logging.getLogger("segment.engines.ray")

CPU: dict[str, Any] = {"num_cpus": 1}
# A GPU actor takes no CPU and a task a whole one: the one rule that never ran out of CPUs on machines of 1, 2 and 4.
GPU: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1}
_WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
_ONE_PART: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}


def start_pipeline(
    task: Task, shared: Any, plan: Plan, size: tuple[int, int], *, isolation: Isolation, split: bool
) -> Iterator[PartResult]:
    """Return the results of a plan's parts as they come; best effort, a block that fails is left out.

    Args:
        shared: reference to the task, the model's weights and the actor that hears the workers.
        size: fewest and most models at once.
        split: three operators and a GPU for each model, instead of one operator.

    Raises (while results are taken):
        SegmentError: what an operator handed on, and no other part will fare better.
    """
    from ray.data import ActorPoolStrategy

    from segment.engines.ray_parts import PartSource

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # rounds deal with its errors; its log files keep them
    blocks = cut_blocks(plan, size[1], isolate=isolation != "none")
    least, most = (min(number, len(blocks)) for number in size)
    if isolation == "image":
        source = PartSource(plan, blocks, functools.partial(run_quarantined, shared=shared), name="PartsByImage")
        return _results(_read(source, {**(GPU if split else CPU), "concurrency": most}))
    calls = 1 if isolation == "part" else CALLS
    pool = ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_concurrent_calls_per_actor=calls,
        max_tasks_in_flight_per_actor=2 * calls if split else calls,  # a GPU's frames are fetched meanwhile
        enable_true_multi_threading=True,
    )
    name = f"segment[{task.card.name}]"  # what the dashboard is to show
    if not split:
        return _results(_one_operator(PartSource(plan, blocks), shared, pool, name))
    spec = task.card.input.at(USUAL)
    image_bytes = spec.height * spec.width * spec.planes
    source = PartSource(plan, blocks, functools.partial(read, shared=shared), image_bytes)
    dataset = _three_operators(source, shared, pool, name)
    _bound_store(dataset.context, most * plan.largest_part * image_bytes)
    return _results(dataset)


def _read(source: Any, resources: dict[str, Any]) -> Any:
    from ray.data import read_datasource

    dataset = read_datasource(source, override_num_blocks=len(source.blocks), **resources)
    context = dataset.context
    context.target_max_block_size = 1  # or a row is seen only when its whole block ends
    context.execution_no_progress_timeout_s = -1  # by rows alone, unlike heartbeats, a slow part looks stuck
    context.max_errored_blocks = -1  # a block that fails is left for the next round; it takes no other along
    # the driver looks for rows ten times a second; by default a worker with two that wait for it stands still
    context._max_num_blocks_in_streaming_gen_buffer = None
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # a pool grows when every actor has its calls
    # we have our own; this is Ray's switch, which --ray-progress sets
    context.enable_progress_bars = os.environ.get("RAY_DATA_DISABLE_PROGRESS_BARS") == "0"
    context.print_on_execution_start = False
    context.log_internal_stack_trace = False
    return dataset


def _one_operator(source: Any, shared: Any, pool: Any, name: str) -> Any:
    """Reading is fused into the actors, as the resources are the same: no other process competes for the CPUs."""
    operator = type(name, (RunParts,), {})
    return _read(source, CPU).map_batches(operator, fn_constructor_args=[shared], compute=pool, **CPU, **_WHOLE_BLOCKS)


def _three_operators(source: Any, shared: Any, pool: Any, name: str) -> Any:
    operator = type(name, (RunModel,), {})
    frames = _read(source, CPU)
    segmented = frames.map_batches(operator, fn_constructor_args=[shared], compute=pool, **GPU, **_ONE_PART)
    return segmented.map_batches(write, fn_args=[shared], **CPU, **_ONE_PART)


def _bound_store(context: Any, bytes_at_work: int) -> None:
    """Let decoded images wait for the model, and masks for their writer, but not whole shards of them."""
    from ray.data import ExecutionResources

    context._max_num_blocks_in_streaming_gen_buffer = 1
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=2 * bytes_at_work)


def _results(dataset: Any) -> Iterator[PartResult]:
    """Execute a dataset and yield the results in its rows.

    Not by `iter_batches`, whose waiting nothing can interrupt.
    """
    import ray

    for output in dataset.iter_internal_ref_bundles():
        try:
            blocks = ray.get(output.block_refs)
        except ray.exceptions.RayError as error:  # rows are for progress: the ledger says what is left
            log.warning("results were lost with their node: %s", type(error).__name__)
            continue
        for row in (row for block in blocks if len(block) for row in block["result"]):
            result = pickle.loads(row.as_buffer())
            if isinstance(result, SegmentError):
                raise result
            if result is not None:  # a part that may not start again
                yield result
