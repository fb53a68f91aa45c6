"""The GPU pool: three operators of Ray Data, so that no GPU waits for a JPEG."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

from segment.engines.ray_blocks import bundle
from segment.engines.ray_operators import pipeline
from segment.errors import SegmentError
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.stages import Task

log = logging.getLogger("segment.engines.ray")


def start_pipeline(task: Task, shared: Any, plan: Plan, size: tuple[int, int], *, alone: bool) -> Iterator[PartResult]:
    """Return the results of a plan's parts as they come; best effort, a block that fails is left out.

    Args:
        task: what to do.
        shared: reference to the task, the model's weights and the actor that hears the workers.
        plan: the parts.
        size: fewest and most GPUs at work.
        alone: a block for each part, so that one which kills its worker takes no other along.

    Raises (while results are taken):
        SegmentError: what an operator handed on, and no other part will fare better.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    # Ray 2.60 deprecates max_task_retries for 2.64 without naming a successor; pyproject.toml stays below that
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # rounds deal with its errors; its log files keep them
    DataContext.get_current().target_max_block_size = 1  # or a row is seen only when its whole block ends
    blocks = bundle(plan, size[1], isolate=alone)
    # from_arrow would ask a worker, a task a block, how large each is
    dataset = ray.data.from_blocks([plan.table.slice(start, length) for start, length in blocks])
    _configure(dataset.context)
    spec = task.card.input
    _bound_store(dataset.context, size[1] * plan.largest_part * spec.height * spec.width * 3)
    least, most = (min(number, len(blocks)) for number in size)
    # Two parts at once in an actor: the session has two batches in flight.
    pool = ActorPoolStrategy(
        min_size=least, max_size=most, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
    )
    return _results(pipeline(dataset, task, shared, pool))


def _configure(context: Any) -> None:
    context.target_max_block_size = 1
    context.max_errored_blocks = -1  # a block that fails is left for the next round; it takes no other along
    # we have our own; this is Ray's switch, which --ray-progress sets
    context.enable_progress_bars = os.environ.get("RAY_DATA_DISABLE_PROGRESS_BARS") == "0"
    context.print_on_execution_start = False
    context.log_internal_stack_trace = False


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
        for row in (row for block in blocks for row in block["result"]):
            results = pickle.loads(row.as_buffer())
            if isinstance(results, SegmentError):
                raise results
            yield from results
