"""One large image in tiles: time, peak memory of the worker, and a run that is killed in the middle and resumed.

    python jobs/large_image.py                         # 20,000 x 20,000 pixels, 21 classes; ten minutes on two cores
    python jobs/large_image.py --side 12000 --kill     # killed twice, resumed, and compared with a run that was not
    python jobs/large_image.py --card demo-streets     # a small model: what the machinery takes

The image is a mosaic of CamVid images, a tiled TIFF of JPEG tiles (as slides and orthophotos are) that is read by
window. With `--kill` a second image of half the side follows. The run is then done once more, killed in the middle of
the first image and again after it, and resumed; it must leave the same bytes.
Reads `camvid/images` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

import argparse
import contextlib
import hashlib
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
    parser.add_argument("--kill", action="store_true", help="kill the run, resume it, and compare its bytes")
    parser.add_argument("--folder", type=Path, help="keep everything here; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        files = [folder / "images" / f"{number}.tif" for number in range(1 + options.kill)]
        for number, file in enumerate(files):
            if not file.exists():
                write_image(file, options.shared, options.side // (1 + number))
        print(f"{options.side:,} x {options.side:,} pixels, {size(files[0].stat().st_size)}", flush=True)
        write_card(folder / "card.toml", options.card, options.overlap)
        asked = ["--model", str(folder / "card.toml"), "--engine", "local", "--workers", "1"]
        if options.card in WEIGHTS:
            asked += ["--weights", str(options.shared / "models" / WEIGHTS[options.card])]
        seconds = run_once(folder, asked)
        if options.kill and not same_when_killed(folder, asked, after=max(5, seconds / 20)):
            sys.exit("the run that was killed left other bytes")


def run_once(folder: Path, asked: list[str]) -> float:
    """Segment the images into `out`; print and return the seconds."""
    began = time.perf_counter()
    subprocess.run(command(folder, "out", asked), cwd=ROOT, check=True)
    seconds = time.perf_counter() - began
    timings = ds.dataset(folder / "out" / "runs", format="parquet", exclude_invalid_files=True).to_table()
    peak = max(timings["memory"].to_pylist())
    masks = [path.stat().st_size for path in (folder / "out" / "masks").rglob("*.tif")]
    print(f"\n{seconds:.0f} s in all, peak memory of the worker {size(peak)}, masks of {size(sum(masks))}", flush=True)
    return seconds


def same_when_killed(folder: Path, asked: list[str], after: float) -> bool:
    """Kill a run into `resumed` twice, let it end, and return whether it has the bytes of `out`."""
    resumed = command(folder, "resumed", asked)
    for committed in (0, 1):
        kill(resumed, folder / "resumed", committed, after)
    subprocess.run(resumed, cwd=ROOT, check=True)
    expected, found = (result_bytes(folder / output) for output in ("out", "resumed"))
    print(f"\n{len(expected)} files of masks and counts, {'the same' if found == expected else 'OTHER'} bytes")
    return found == expected


def command(folder: Path, output: str, asked: list[str]) -> list[str]:
    """Return the command that segments the images into a folder of this name."""
    return [sys.executable, "-m", "segment", "run", str(folder / "images"), str(folder / output), *asked]


def kill(command: list[str], output: Path, committed: int, seconds: float) -> None:
    """Start the run, and kill it so many seconds after it has begun on an image and committed so many."""
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        while process.poll() is None and len(list(output.glob("masks/*/*.parquet"))) < committed:
            time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        assert process.poll() is None, "the run ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
    print(f"\nkilled with {committed} of 2 images committed\n", flush=True)


def result_bytes(output: Path) -> dict[str, str]:
    """Return the digest of each file of masks and counts, by its path below the output."""
    files = [file for folder in ("masks", "stats") for file in (output / folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


if __name__ == "__main__":
    main()
