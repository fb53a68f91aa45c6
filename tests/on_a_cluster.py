"""Run a job file on a Ray cluster of a given size: `python tests/on_a_cluster.py CPUS JOB.toml OUTPUT...`.

Each output is written by another engine: `fused` or `split` by its name. Its object store is the least that Ray takes.
"""

import logging
import sys
from pathlib import Path

import ray

import segment.job
import segment.runs.driver
import segment.runs.lazy_engine
from segment.engines.ray import RayEngine

if __name__ == "__main__":
    ray.init(
        "local",
        num_cpus=int(sys.argv[1]),
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=78 * 2**20,
    )
    for output in sys.argv[3:]:
        split = Path(output).name == "split"
        segment.runs.lazy_engine.make_engine = lambda job, images, split=split: RayEngine(split=split)
        values = {**segment.job.read_job_file(sys.argv[2]), "output": output}
        report = segment.runs.driver.run(segment.job.make_job({**values, "min_agreement": 0}))
        print(output, report.total.images, report.total.errors, flush=True)
    ray.shutdown()
