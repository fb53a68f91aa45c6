"""LiteRT beside openvino on TFLite models: masks, scores, CPU time, memory and start of a session.

    python jobs/tflite_runtimes.py             # tables as Markdown; some minutes
    python jobs/tflite_runtimes.py --step 10   # every tenth image

Reads `voc/images`, `voc/labels` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared). Both sessions
have one thread and take turns, image by image, in one process; times are of the CPU. Memory and start are those of a
process of its own for each: start is the CPU time of importing the runtime and of opening the session.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.confidence import table
from jobs.voc import MODELS
from jobs.voc_independent import CLASSES, miou_of, pairs_of
from segment.images.resize import resize_image, restore_mask
from segment.models.card import load_card
from segment.models.sessions import Session, capabilities, open_session, resolve_runtime
from segment.models.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = ("openvino", "litert")
# What a process does to tell its memory in MB and its start in seconds: model's card, weights, runtime.
_ALONE = """
import psutil, sys, time
from jobs import tflite_runtimes as job
memory = psutil.Process().memory_info
before, began = memory().rss, time.process_time()
session = job.opened(*sys.argv[1:])
started = time.process_time() - began
for _ in range(3):
    session.predict(job.black(session))
print((memory().rss - before) / 1e6, started)
"""


class Line(NamedTuple):
    """How a runtime does.

    Attributes:
        miou: 0-1.
        milliseconds: of CPU an image, the median.
        megabytes: that the session adds to a process.
        start: seconds of CPU.
    """

    miou: float
    milliseconds: float
    megabytes: float
    start: float


def opened(model: str, weights: str, runtime: str) -> Session:
    """Open a session of one thread."""
    card = load_card(model)
    found = load_weights(card, weights)
    chosen = resolve_runtime(found.format, runtime, "cpu", "f32", nodes=[capabilities()])
    return open_session(card, found, chosen)


def black(session: Session) -> NDArray[np.uint8]:
    """Return a black image of a session's size."""
    return np.zeros((1, session.card.input.height, session.card.input.width, 3), np.uint8)


def compare(shared: Path, model: str, step: int) -> tuple[dict[str, Line], float]:
    """Return a line by runtime, and the share of pixels with the same class on both, 0-1."""
    name, file = MODELS[model]
    weights = str(shared / "models" / file)
    sessions = {runtime: opened(name, weights, runtime) for runtime in RUNTIMES}
    for session in sessions.values():
        session.predict(black(session))
    matrices = {runtime: np.zeros((CLASSES, CLASSES), np.int64) for runtime in RUNTIMES}
    times: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    same = pixels = 0
    for image, label in pairs_of(shared / "voc" / "images", shared / "voc" / "labels", step):
        picture, truth = np.asarray(Image.open(image).convert("RGB")), np.asarray(Image.open(label))
        masks = {}
        for runtime, session in sessions.items():
            entry = resize_image(picture, session.card.input)[np.newaxis]
            began = time.process_time()
            mask = session.predict(entry).masks[0]
            times[runtime].append(time.process_time() - began)
            masks[runtime] = restore_mask(mask, session.card.input, truth.shape)
            counted = truth < CLASSES
            cells = CLASSES * truth[counted].astype(np.int64) + masks[runtime][counted]
            matrices[runtime] += np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        same, pixels = same + int(np.equal(*masks.values()).sum()), pixels + truth.size
    lines = {}
    for runtime in RUNTIMES:
        milliseconds = 1000 * statistics.median(times[runtime])
        lines[runtime] = Line(miou_of(matrices[runtime]), milliseconds, *alone(name, weights, runtime))
    return lines, same / pixels


def alone(model: str, weights: str, runtime: str) -> tuple[float, float]:
    """Return megabytes and seconds of a session in a process of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", _ALONE, model, weights, runtime]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": path}, text=True)
    megabytes, seconds = map(float, done.stdout.split()[-2:])
    return megabytes, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--step", type=int, default=1, help="only every so-manyth image")
    given = parser.parse_args()
    rows = []
    for model in given.models:
        lines, same = compare(given.shared, model, given.step)
        for runtime, line in lines.items():
            figures = (
                f"{100 * line.miou:.2f}",
                f"{line.milliseconds:.1f}",
                f"{line.megabytes:.0f}",
                f"{line.start:.2f}",
            )
            rows.append((f"{model}, {runtime}", *figures, f"{100 * same:.2f}"))
    print(table(("model", "mIoU %", "ms of CPU an image", "MB", "start, s", "pixels as the other %"), rows))


if __name__ == "__main__":
    main()
