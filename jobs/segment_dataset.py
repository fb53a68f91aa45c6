"""Entrypoint of `ray job submit`: `segment run` on the cluster that runs the job.

    ray job submit --working-dir . -- python jobs/segment_dataset.py s3://bucket/images s3://bucket/out -m CARD
    ray job submit --working-dir . -- python jobs/segment_dataset.py --job jobs/camvid.toml

Flags, job files and exit codes are those of `segment run`; `jobs/README.md` shows what each step prints.
"""

import sys

from segment.__main__ import run

if __name__ == "__main__":
    # Ray tells a job its cluster by RAY_ADDRESS. A later --engine or --address of the caller's goes before ours.
    sys.argv = ["segment", "run", "--engine", "ray", *sys.argv[1:]]
    run()
