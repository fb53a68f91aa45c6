"""`listing`: objects of an S3 bucket are listed, of a server that answers from memory after 50 ms."""

import resource
import time

from jobs.scaling.figures import Figure, Scale, timed
from jobs.scaling.served import s3_options, served
from segment.store.client import Store

_LATENCY = 0.05  # seconds


def measure_listing(scale: Scale) -> list[Figure]:
    """List as many objects as there are images: in folders of a thousand, and all in one folder."""
    figures = []
    with served("jobs.scaling.listing_store", scale.images, _LATENCY) as url:
        for bucket, what in (("folders", "in folders of 1,000"), ("flat", "in one folder")):
            cpu = time.process_time()
            with timed() as seconds:
                found = Store(s3_options(url)).list(f"s3://{bucket}/images")
            assert len(found) == scale.images
            used = time.process_time() - cpu
            name = f"{scale.images:,} objects listed, {what}"
            figures.append(Figure(f"{name}, s (of it CPU)", f"{seconds[0]:.1f} ({used:.1f})", "≤ 60"))
            del found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [*figures, Figure("peak memory of the process that lists, MB", f"{peak:.0f}")]
