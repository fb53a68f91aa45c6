"""Paint the street scenes that `segment demo` uses, into the package's shards.

    python jobs/paint_demo_scenes.py    # writes segment/demo/scenes/*.tar: 64 scenes, 1.8 MB, about 25 seconds

The same versions of numpy and OpenCV (requirements.lock) write the same bytes.
"""

import argparse
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.streets.scenes import scene
from segment.demo.dataset import Scene, write_webdataset

OUTPUT = Path(__file__).resolve().parents[1] / "segment" / "demo" / "scenes"
SEEDS = range(64)  # the training of the model uses seeds from 100,000 up
SHARDS = 4
JPEG_QUALITY = 95


def paint(seed: int) -> Scene:
    """Return the scene of a seed: its image as a JPEG, its label as an 8-bit PNG of class indices."""
    image, label = scene(seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    has_image, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    has_label, png = cv2.imencode(".png", label)
    if not (has_image and has_label):
        raise RuntimeError(f"OpenCV cannot encode scene {seed}")
    return Scene(f"{seed:06d}", jpeg.tobytes(), png.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the shards")
    options = parser.parse_args()
    for path in write_webdataset(options.output, [paint(seed) for seed in SEEDS], SHARDS):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
