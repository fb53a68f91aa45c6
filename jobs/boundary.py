"""What `--boundary` costs: a table as Markdown; under a minute on one core.

    python jobs/boundary.py
    python jobs/boundary.py --fraction 0.005 --rounds 9

Masks a second of CPU time that one thread encodes (PNG) and counts, without boundaries and with them, in turns; the
median of the rounds. Masks and labels are those of CamVid, each mask the label of the frame after, at their own size
(480 x 360) and enlarged to 12 megapixels (4000 x 3000, d = 100 at 0.02).

Reads `camvid/labels` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment.images.mask_png import encode_mask
from segment.metrics import BoundaryCounts, Confusion

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 12
SIZES = {"480 x 360": (1, 40), "4000 x 3000": (1 / 0.12, 4)}  # by name: factor, pairs of frames

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def pairs_of(labels: Path, factor: float, number: int) -> list[Pair]:
    """Return masks with their labels, `uint8[H, W]`."""
    files = sorted(labels.glob("*.png"))[: number + 1]
    planes = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
    large = [cv2.resize(plane, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST) for plane in planes]
    return [(np.minimum(after, CLASSES - 1), label) for label, after in itertools.pairwise(large)]


def seconds(pairs: Sequence[Pair], fraction: float | None) -> float:
    """Return the CPU seconds in which pairs are encoded and counted."""
    began = time.process_time()
    for mask, label in pairs:
        encode_mask(mask)
        Confusion.of(mask, label, CLASSES)
        if fraction is not None:
            BoundaryCounts.of(mask, label, CLASSES, fraction=fraction)
    return time.process_time() - began


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--fraction", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    print("| size | without, masks/s | with, masks/s | boundary, ms a mask |\n|---|---:|---:|---:|")
    for name, (factor, number) in SIZES.items():
        pairs = pairs_of(given.shared / "camvid" / "labels", factor, number)
        rounds = [(seconds(pairs, None), seconds(pairs, given.fraction)) for _ in range(given.rounds)]
        without, together = (statistics.median(column) / len(pairs) for column in zip(*rounds, strict=True))
        print(f"| {name} | {1 / without:.1f} | {1 / together:.1f} | {1000 * (together - without):.1f} |")


if __name__ == "__main__":
    main()
