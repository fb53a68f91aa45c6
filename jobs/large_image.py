"""One large image in tiles: time, peak memory of the worker, and a run that is killed in the middle and resumed.

    python jobs/large_image.py                         # 20,000 x 20,000 pixels, 21 classes; ten minutes on two cores
    python jobs/large_image.py --side 6000 --kill      # and once more, killed after the first image of two
    python jobs/large_image.py --card demo-streets     # a small model: what the machinery takes

The image is a mosaic of CamVid images, a tiled TIFF of JPEG tiles (as slides and orthophotos are) that is read by
window. Reads `camvid/images` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import tifffile
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment.models.card import load_card
from segment.store.names import size

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "segment" / "models" / "cards"
WEIGHTS = {"deeplabv3-mobilenetv2-dm05-int8": "deeplabv3_mnv2_dm05_pascal_quant.tflite"}
TILE = 512


def mosaic(shared: Path, side: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the TIFF's tiles, row by row, `uint8[512, 512, 3]`, RGB: CamVid images side by side."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((shared / "camvid/images").glob("*.png"))]
    height, width = images[0].shape[:2]
    for top in range(0, side, TILE):
        band = np.zeros((TILE, -(-side // TILE) * TILE, 3), np.uint8)
        for row in range(top, min(side, top + TILE)):
            across = [
                images[(row // height * 7 + column) % len(images)][row % height] for column in range(-(-side // width))
            ]
            band[row - top, :side] = np.concatenate(across)[:side]
        for left in range(0, band.shape[1], TILE):
            yield band[:, left : left + TILE]


def write_image(file: Path, shared: Path, side: int) -> None:
    """Write the mosaic of `side` x `side` pixels."""
    tifffile.imwrite(
        file, mosaic(shared, side), shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="ycbcr",
        subsampling=(1, 1), compression="jpeg", compressionargs={"level": 90},
    )  # fmt: skip


def write_card(file: Path, name: str, overlap: float) -> None:
    """Write a built-in card with tiles instead of its resize."""
    text = (CARDS / f"{name}.toml").read_text(encoding="utf-8")
    text, found = re.subn(r"^resize = .*$", f"tiles = {{ overlap = {overlap} }}", text, flags=re.MULTILINE)
    assert found == 1, f"the card {name} has no line `resize = ...`"
    text = text.replace('resolution = "model"', 'resolution = "source"')
    weights = [file for file in load_card(name).weights if file.url.startswith("file:")]
    file.write_text(
        re.sub(r'^url = "[^/"]+"$', f'url = "{weights[0].url}"' if weights else r"\g<0>", text, flags=re.MULTILINE)
    )


def main() -> None:
    """Print what the run says, then a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--card", default="deeplabv3-mobilenetv2-dm05-int8")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--kill", action="store_true", help="two images; kill the run after the first, and resume it")
    parser.add_argument("--folder", type=Path, help="keep everything here; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for number in range(1 + options.kill):
            file = folder / "images" / f"{number}.tif"
            if not file.exists():
                write_image(file, options.shared, options.side)
        print(f"{options.side:,} x {options.side:,} pixels, {size(file.stat().st_size)} each", flush=True)
        write_card(folder / "card.toml", options.card, options.overlap)
        command = [sys.executable, "-m", "segment", "run", str(folder / "images"), str(folder / "out")]
        command += ["--model", str(folder / "card.toml"), "--engine", "local", "--workers", "1"]
        if options.card in WEIGHTS:
            command += ["--weights", str(options.shared / "models" / WEIGHTS[options.card])]
        if options.kill:
            kill_after_the_first(command, folder / "out")
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        seconds = time.perf_counter() - began
        timings = ds.dataset(folder / "out" / "runs", format="parquet", exclude_invalid_files=True).to_table()
        peak = max(timings["memory"].to_pylist())
        masks = [path.stat().st_size for path in (folder / "out" / "masks").rglob("*.tif")]
        print(f"\n{seconds:.0f} s in all, peak memory of the worker {size(peak)}, masks of {size(sum(masks))}")


def kill_after_the_first(command: list[str], output: Path) -> None:
    """Start the run, and kill it once one part is committed."""
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        while process.poll() is None and not list(output.glob("masks/*/*.parquet")):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    print("\nkilled\n", flush=True)


if __name__ == "__main__":
    main()
