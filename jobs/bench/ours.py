"""`segment run`, watched from outside: images a second once every worker has delivered, and seconds until then.

python jobs/bench/ours.py SPEC.json ENGINE FORMAT      # ENGINE: local, ray; FORMAT: files, tars, parquet, list
"""

import json
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

import segment
from segment.progress import Progress, Tally


class Watch(Progress):
    """Keeps the tally, which knows how many workers there were."""

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        self.tally = tally


def commits(output: Path) -> list[tuple[float, int]]:
    """When each part was committed, and its images, in order of time.

    Not when its result came: a worker hands a result over after it has computed the next part, so that results would
    count a part a worker that was computed before the clock ran.
    """
    files = output.glob("masks/*/*.parquet")
    return sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in files)


def steady(seen: list[tuple[float, int]], workers: int) -> tuple[float, int]:
    """Return seconds and images from the moment on that as many parts were committed as there are workers.

    By then every worker has warmed up. What others had begun by then is counted, which flatters; that the last part
    is finished while others have none left is counted too, which does the opposite: each is about half a part.
    """
    first = min(workers, max(1, len(seen) - 1))
    return seen[-1][0] - seen[first - 1][0], sum(images for _, images in seen[first:])


def main() -> None:
    """Run the job and print one line of JSON."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    engine, form = sys.argv[2:]
    watch, began = Watch(), time.time()
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
    ended = time.time()
    seen = commits(Path(spec["output"]))
    seconds, images = steady(seen, watch.tally.workers)
    print(
        json.dumps(
            {
                "images": images,
                "seconds": seconds,
                "start": seen[0][0] - began,
                "total": ended - began,
                "workers": watch.tally.workers,
                "parts": len(seen),
                "counts": report.total.confusion.counts[:-1].ravel().tolist() if spec["labels"] else None,
            }
        )
    )


if __name__ == "__main__":
    main()
