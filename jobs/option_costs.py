"""What each option of a job costs on each engine: images a second with it over those without, as Markdown.

    python jobs/option_costs.py                                  # an hour on two quiet cores
    python jobs/option_costs.py --engines ray --options flip confidence --rounds 3

Every round runs the job without an option, with each, and without again. A ratio is of the job's own rate (images a
second once work has begun) to the mean of the two without; the table has the median of the rounds. `off again` is the
second without an option over the first: how much the machine varies.

`camvid` is a U-Net of half width on CamVid, `voc` DeepLab with scores of 65x65 on VOC, `--number` images of each.
Reads `camvid`, `voc` and `models` below `--shared` (default: $SEGMENT_SHARED, else ../shared).
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segment import Job, load_card, run
from segment.models.toml_text import card_to_toml
from segment.output.ledger import Ledger
from segment.output.speed import last_speed
from segment.store.client import Store

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "off again"


class Case(NamedTuple):
    """A model and its images: a built-in card, and paths below `--shared`."""

    card: str
    weights: str
    data: str


CASES = {
    "camvid": Case("unet-camvid-onnx-0001", "models/unet32-camvid.onnx", "camvid"),
    "voc": Case("deeplabv3-mobilenetv2", "models/strangers/lite-model_mobilenetv2-coco_dr_1.tflite", "voc"),
}
OPTIONS: dict[str, dict[str, Any]] = {  # of the job, but `input`, which is of the card
    "flip": {"input": {"tta": ("flip",)}},
    "confidence": {"confidence": "maximum"},
    "confidence maps": {"confidence": "maximum", "confidence_maps": True},
    "two probabilities": {"probabilities": (1, 3)},
    "boundary IoU": {"boundary": 0.02},
    "masks of model size": {"mask_size": "model"},
}


def job_of(shared: Path, case: Case, option: dict[str, Any], folder: Path, **how: Any) -> Job:
    """Return the job of a case with an option, and write its card into the folder."""
    card = load_card(case.card)
    card = card.model_copy(update={"input": card.input.model_copy(update=option.get("input", {})), "weights": ()})
    path = folder / "card.toml"
    path.write_text(card_to_toml(card, "# of jobs/option_costs.py"), encoding="utf-8")
    return Job(
        input=str(shared / case.data / "images"),
        labels=str(shared / case.data / "labels"),
        output=str(folder / "out"),
        model=str(path),
        weights=str(shared / case.weights),
        **how,
        **{name: value for name, value in option.items() if name != "input"},
    )


def rate(shared: Path, case: Case, option: dict[str, Any], **how: Any) -> float:
    """Run the job, and return its images a second without the start."""
    with tempfile.TemporaryDirectory(prefix="segment-option-") as folder:
        job = job_of(shared, case, option, Path(folder), **how)
        run(job)
        speed = last_speed(Ledger(Store(), f"file://{job.output}"))
    if speed is None:
        raise SystemExit(f"{case}, {option}: no part was committed")
    return speed.rate


def one_round(shared: Path, case: Case, options: list[str], **how: Any) -> tuple[float, dict[str, float]]:
    """Return images a second without an option, and the ratio by option, with that of the second run without one."""
    first = rate(shared, case, {}, **how)
    found = {option: rate(shared, case, OPTIONS[option], **how) for option in options}
    second = rate(shared, case, {}, **how)
    off = (first + second) / 2
    return off, {**{option: value / off for option, value in found.items()}, AGAIN: second / first}


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SEGMENT_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--engines", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=101, help="images of a job")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    given = parser.parse_args()
    names = [*given.options, AGAIN]
    print(f"| case | engine | off, images/s | {' | '.join(names)} |\n|---|---|{'---:|' * (len(names) + 1)}")
    for case in given.cases:
        for engine in given.engines:
            how = {"engine": engine, "precision": given.precision, "sample": given.number}
            rounds = [one_round(given.shared, CASES[case], given.options, **how) for _ in range(given.rounds)]
            cells = [f"{statistics.median(ratios[name] for _, ratios in rounds):.2f}" for name in names]
            off = statistics.median(off for off, _ in rounds)
            print(f"| {case} | {engine} | {off:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
