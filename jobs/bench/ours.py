"""`segment run`, watched from outside: images a second once every worker has delivered, and seconds until then.

python jobs/bench/ours.py SPEC.json ENGINE FORMAT      # ENGINE: local, ray; FORMAT: files, tars, parquet
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import segment
from segment.progress import Progress, Tally


class Watch(Progress):
    """Notes when each result came."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        self.tally = tally

    def update(self, tally: Tally) -> None:
        """See `Progress.update`."""
        self.seen.append((time.monotonic(), tally.done))


def steady(seen: list[tuple[float, int]], workers: int) -> tuple[float, int]:
    """Return seconds and images from the moment on that as many parts were done as there are workers.

    By then every worker has warmed up. What others had begun by then is counted, which flatters; that the last part
    is finished while others have none left is counted too, which does the opposite: each is about half a part.
    """
    first = seen[min(workers, max(1, len(seen) - 1)) - 1]
    return seen[-1][0] - first[0], seen[-1][1] - first[1]


def main() -> None:
    """Run the job and print one line of JSON."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    engine, form = sys.argv[2:]
    watch, began = Watch(), time.monotonic()
    job = segment.Job(
        **spec["inputs"][form],
        output=spec["output"],
        model=spec["model"],
        weights=spec["weights"],
        runtime=spec["runtime"],
        precision=spec["precision"],
        engine=engine,
    )
    report = segment.run(job, watch)
    ended = time.monotonic()
    seconds, images = steady(watch.seen, watch.tally.workers)
    print(
        json.dumps(
            {
                "images": images,
                "seconds": seconds,
                "start": watch.seen[0][0] - began,
                "total": ended - began,
                "workers": watch.tally.workers,
                "parts": len(watch.seen),
                "counts": report.total.confusion.counts[:-1].ravel().tolist() if spec["labels"] else None,
            }
        )
    )


if __name__ == "__main__":
    main()
