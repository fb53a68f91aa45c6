"""Tiles on enlarged CamVid images: mIoU by blending, beside the image shrunk to one input; and what blending costs.

    python jobs/tile_blending.py                  # 1.5x and 2x, 101 images; ten minutes on two cores
    python jobs/tile_blending.py --step 10 --factors 2
    python jobs/tile_blending.py --factors 2 --filter bicubic   # sharper images: two points more at 2x

Reads `camvid/images`, `camvid/labels` and `models/unet32-camvid.onnx` below `--shared` (default: $SEGMENT_SHARED, else
../shared). Images are enlarged by Pillow's bilinear filter unless another is named, labels by nearest neighbour, and
scored at that size by the 'omz' convention. Tiles have the size of the input, 480 x 368, and overlap by a quarter.
Enlarging adds nothing to see, and the model was trained on images that it sees whole: what counts is how the ways to
blend compare.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment.images.blending import Tile, blending_of
from segment.images.raster import ArrayRaster
from segment.metrics import Confusion, score
from segment.models.card import ModelCard, load_card
from segment.models.card_tiles import Blend, Tiles
from segment.models.sessions import Extras, Masks, Session, capabilities, open_session, resolve_runtime
from segment.models.weights import load_weights
from segment.pipeline.stages import Clock
from segment.pipeline.tiling import TiledImage, join_strips, tile_axes

ROOT = Path(__file__).resolve().parents[1]
CARD = "unet-camvid-onnx-0001"
BLENDS: tuple[Blend, ...] = ("centre", "confidence", "mean")
EXTRAS = Extras("maximum", tuple(range(len(load_card(CARD).classes))))  # what any of the blends needs


class _Remembered:
    """A session that runs each tile once, however often it is asked for; its card says how tiles are blended."""

    def __init__(self, session: Session, card: ModelCard, seen: dict[bytes, Masks]) -> None:
        self.card, self._session, self._seen = card, session, seen

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Return the masks of one tile."""
        key = images.tobytes()
        if key not in self._seen:
            self._seen[key] = self._session.predict(images)
        return self._seen[key]


def tiled_card(blend: Blend) -> ModelCard:
    """Return the card with tiles."""
    card = load_card(CARD)
    spec = card.input.model_copy(update={"tiles": Tiles(overlap=0.25, blend=blend)})
    return card.model_copy(update={"input": spec})


def pairs(shared: Path, step: int) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Yield images and labels."""
    for path in sorted((shared / "camvid" / "images").glob("*.png"))[::step]:
        yield Image.open(path).convert("RGB"), Image.open(shared / "camvid" / "labels" / path.name)


def scores(
    session: Session, shared: Path, factor: float, step: int, enlarge: Image.Resampling = Image.Resampling.BILINEAR
) -> dict[str, float]:
    """Return the mIoU in percent, by way."""
    counts = {way: Confusion.zeros(len(session.card.classes)) for way in ("shrunk to one input", *BLENDS)}
    for image, label in pairs(shared, step):
        size = (round(image.width * factor), round(image.height * factor))
        large = np.asarray(image.resize(size, enlarge))
        wanted = np.asarray(label.resize(size, Image.Resampling.NEAREST))
        whole = (session.card.input.width, session.card.input.height)
        small = np.asarray(Image.fromarray(large).resize(whole, Image.Resampling.BILINEAR))
        mask = Image.fromarray(session.predict(small[np.newaxis]).masks[0]).resize(size, Image.Resampling.NEAREST)
        counts["shrunk to one input"] += Confusion.of(np.asarray(mask), wanted, len(session.card.classes))
        seen: dict[bytes, Masks] = {}
        for blend in BLENDS:
            tiled = TiledImage(ArrayRaster(large), _Remembered(session, tiled_card(blend), seen), 1)
            found = join_strips(tiled.strips(Clock()), wanted.shape).mask
            counts[blend] += Confusion.of(found, wanted, len(session.card.classes))
    ignored = session.card.classes.ignored_classes
    return {way: 100 * float(np.nanmean(score(some, ignored, "omz").iou)) for way, some in counts.items()}


def milliseconds(blend: Blend, height: int = 4000, width: int = 6000) -> float:
    """Return the time of blending a tile, in milliseconds, in an image of this size."""
    card = tiled_card(blend)
    spec, classes = card.input, len(card.classes)
    assert spec.tiles is not None
    rows, columns = tile_axes(spec, (height, width))
    random = np.random.default_rng(0)
    mask, confidence, *levels = random.integers(0, 256, (2 + classes, spec.height, spec.width), dtype=np.uint8)
    tile = {"centre": Tile(mask), "confidence": Tile(mask, confidence), "mean": Tile(mask, None, levels)}[blend]
    began = time.perf_counter()
    blending = blending_of(spec.tiles, rows, columns, classes)
    for row in range(len(rows.starts)):
        for column in range(len(columns.starts)):
            blending.put(row, column, tile)
        blending.finish_row(row)
    return 1000 * (time.perf_counter() - began) / (len(rows.starts) * len(columns.starts))


def main() -> None:
    """Print two tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--factors", type=float, nargs="+", default=[1.5, 2.0])
    parser.add_argument("--step", type=int, default=1, help="every n-th image")
    parser.add_argument("--filter", choices=["bilinear", "bicubic", "lanczos"], default="bilinear")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print("| blending | ms a tile, 6000 x 4000 |\n|---|---|")
    for blend in BLENDS:
        print(f"| {blend} | {milliseconds(blend):.3f} |")
    weights = load_weights(load_card(CARD), str(options.shared / "models" / "unet32-camvid.onnx"))
    runtime = resolve_runtime(weights.format, precision="f32", nodes=[capabilities()])
    session = open_session(
        load_card(CARD), weights, runtime, threads=options.threads, extras=EXTRAS, sanity_check=False
    )
    print("\n| enlarged | " + " | ".join(("shrunk to one input", *BLENDS)) + " |\n|---|---|---|---|---|")
    enlarge = Image.Resampling[options.filter.upper()]
    for factor in options.factors:
        found = scores(session, options.shared, factor, options.step, enlarge)
        print(f"| {factor:g}x | " + " | ".join(f"{value:.2f} %" for value in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
