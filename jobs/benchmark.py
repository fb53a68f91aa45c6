"""How near the job comes to the bare library calls, and how far ahead of the alternatives it is.

    make bench                                              # every case whose weights are there: about an hour
    python jobs/benchmark.py --cases unet32-bf16 --contenders limit local ray plain-loop ray-data
    python jobs/benchmark.py --cases unet32-bf16 --contenders local ray --before ../earlier --rounds 5
    python jobs/benchmark.py --model CARD --weights FILE --images DIR --labels DIR
    ray job submit --working-dir . -- python jobs/benchmark.py --cases demo

`limit` is what the libraries do alone (jobs/bench/limit.py); `local`, `ray` are `segment run`, from loose files or
`-tars` or `-parquet`, labels scored; the others are jobs/peers. Contenders take turns (A B C A B C ...), each in a
process of its own, and are timed without their start, which is reported apart. Quote ratios of one run, never times.
`--before CHECKOUT` measures each of ours in an earlier checkout, too, and fails unless both write the same bytes,
or 99.5 % of the pixels where the version of the format is another. `--auto` leaves runtime and precision to ours, as
users do, and to the limit, which takes the fastest whose masks agree; what is equal is reported only.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.bench.cases import BEFORE, CASES, CONTENDERS, OURS, PEERS, ROOT, Case, command, contract_of
from jobs.bench.data import Pictures, agreement, different_outputs, find_pictures, write_inputs, write_spec
from jobs.bench.machine import describe_machine, in_words
from jobs.bench.table import as_markdown, summarise
from segment.errors import SegmentError
from segment.inputs.shards import auto_part_size
from segment.models.card import built_in_cards
from segment.pipeline.resources import available_cpus

PEER_VENV = ROOT / ".venv-peers" / "bin" / "python"
LEAST_AGREEMENT = 0.995
LEAST_IMAGES = next(number for number in itertools.count(1) if number > auto_part_size(number))  # for a second part


def measure(case: Case, weights: str, pictures: Pictures, options: argparse.Namespace) -> dict[str, Any]:
    """Run every contender of one case in turn, and compare what they made."""
    chosen = (pictures.enlarged(*case.size) if case.size else pictures).repeated(options.number or case.images)
    with tempfile.TemporaryDirectory(prefix="segment-bench-") as name:
        scratch = Path(name)
        inputs = write_inputs(chosen, scratch / "data")
        folder = scratch / "data"
        spec = {
            "model": case.model,
            "weights": weights,
            "runtime": case.runtime,
            "precision": case.precision,
            "cores": available_cpus(),
            "contract": contract_of(case.model),
            "inputs": inputs,
            "images": [str(folder / "images" / picture) for picture, _ in chosen.images],
            "labels": [str((folder / "labels" / picture).with_suffix(".png")) for picture, _ in chosen.images],
        }
        measured: dict[str, list[dict[str, Any]]] = {
            name: []
            for contender in options.contenders
            for name in ([contender, contender + BEFORE] if options.before and contender in OURS else [contender])
        }
        for number in range(options.rounds):
            for contender in measured:
                output = scratch / f"{contender.replace(BEFORE, '-before')}-{number}"
                own = {"runtime": "auto", "precision": "auto"} if options.auto else {}
                path = write_spec(scratch / f"{output.name}.json", {**spec, **own, "output": str(output)})
                found = run_one(command(contender, path, options.peer_python, options.before))
                measured[contender].append(found)
                rate = f"{found['images'] / found['seconds']:8.2f} images/s, start {found['start']:5.1f} s"
                rate += f", by {found['runtime']}" if "runtime" in found else ""
                print(f"{case.name}, round {number + 1}: {contender:14} {rate}", flush=True)
        least = 0 if options.auto else 0.999 if weights.endswith(".tflite") else 1
        agreements = compare(measured, scratch, least)
    return {
        "case": case.name,
        "runtime": case.runtime,
        "precision": case.precision,
        "images": len(chosen.images),
        "pictures": chosen.describe(),
        "agreements": agreements,
        "measured": [
            {**{key: value for key, value in one.items() if key != "counts"}, "contender": contender}
            for contender, rounds in measured.items()
            for one in rounds
        ],
        "summary": summarise(measured),
    }


def run_one(line: list[str]) -> dict[str, Any]:
    """Run a contender and return the line of JSON that it prints last."""
    env = {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "", **os.environ, "TQDM_DISABLE": "1"}
    if not env["OMP_NUM_THREADS"]:
        del env["OMP_NUM_THREADS"]
    # Without bytecode each process compiles every module of a checkout anew; an installed package has its own.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    ended = subprocess.run(line, capture_output=True, text=True, env=env, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    if found["seconds"] <= 0:  # of ours: every image was in the first part
        raise SystemExit(
            f"{' '.join(line)}: too few images for a rate: give more with --number, at least {LEAST_IMAGES}"
        )
    return found


def compare(measured: dict[str, list[dict[str, Any]]], scratch: Path, least: float = 1) -> dict[str, float]:
    """Share of pixels in which each contender's masks equal ours; of the limit, and among ours, equal counts.

    `least` is the share of equal counts that is asked for of the limit and of earlier versions. With a TFLite
    file, whose scores have 256 levels, one pixel in a thousand may differ: where two classes have the same enlarged
    score but for rounding. Ours must equal each other, but where each chooses a runtime (0).
    """
    for name in measured:
        if name + BEFORE in measured and (
            unlike := different_outputs(
                scratch / f"{name}-0", scratch / f"{name}-before-0", min(least, LEAST_AGREEMENT), exact=least == 1
            )
        ):
            raise SystemExit(f"{name} makes something else than before: {', '.join(unlike[:5])}")
    ours = next((name for name in measured if name in OURS), None)
    if ours is None:
        return {}
    shares = {}
    for name, rounds in measured.items():
        if name in PEERS:
            shares[name] = agreement(scratch / f"{ours}-0", scratch / f"{name}-0")
        elif likeness(rounds[0]["counts"], measured[ours][0]["counts"]) < (1 if name in OURS and least else least):
            raise SystemExit(f"{name} and {ours} count other pixels: one of them does something else")
    return shares


def likeness(counts: list[int] | None, others: list[int] | None) -> float:
    """Share of pixels that two contenders count in the same cells; None, without labels, is like None only."""
    if counts is None or others is None:
        return float(counts == others)
    return sum(map(min, counts, others)) / max(sum(counts), sum(others), 1) if counts != others else 1.0


def find_cases(options: argparse.Namespace) -> dict[Case, str]:
    """The cases that were asked for, with their weights; of all cases, those whose weights are there."""
    if options.model:
        card = Path(options.model)  # contenders of an earlier checkout work in that folder
        model = str(card.resolve()) if options.model not in built_in_cards() and card.is_file() else options.model
        own = Case("own", model, options.weights, options.runtime or "openvino", options.precision or "f32", 200)
        try:
            return {own: own.locate()}
        except FileNotFoundError as missing:
            raise SystemExit(f"--weights: no file at {missing}") from None
        except SegmentError as error:
            raise SystemExit(f"--model {options.model}: {error}") from None
    found = {}
    for name in options.cases or CASES:
        try:
            case = replace(CASES[name], precision=options.precision or CASES[name].precision)
            found[case] = case.locate()
        except FileNotFoundError as missing:
            if options.cases:
                raise SystemExit(f"case {name}: no weights at {missing}") from None
            print(f"left out: {name}, no weights at {missing}", flush=True)
    return found


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, not {text!r}")
    return int(text)


def checkout(text: str) -> Path:
    """The absolute path of a checkout that can be measured."""
    path = Path(text).resolve()
    if not (path / "jobs/bench/ours.py").is_file():
        raise argparse.ArgumentTypeError(f"{path} is no checkout of this project: it has no jobs/bench/ours.py")
    return path


def read_options() -> argparse.Namespace:
    """Read the command line, and refuse what would be ignored or cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="all whose weights are there if none is named")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["limit", "local", "ray"])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--number", type=positive, help="of images, in place of each case's own")
    parser.add_argument("--before", type=checkout, metavar="CHECKOUT", help="of an earlier version, to compare with")
    parser.add_argument("--auto", action="store_true", help="leave runtime and precision to ours and to the limit")
    parser.add_argument("--images", type=Path, help="folder; CamVid of ../shared if there, else the demo's scenes")
    parser.add_argument("--labels", type=Path, help="folder of index PNGs, same stems; with --images")
    parser.add_argument("--model", help="a card: measure it in place of the cases")
    parser.add_argument("--weights", help="with --model; the card's own if not given")
    parser.add_argument(
        "--runtime", choices=["openvino", "onnxruntime", "litert"], help="with --model: openvino if not given"
    )
    parser.add_argument("--precision", choices=["f32", "bf16"], help="in place of each case's own; f32 with --model")
    parser.add_argument("--peer-python", default=str(PEER_VENV if PEER_VENV.exists() else sys.executable))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.model and options.cases:
        parser.error("--model is measured in place of the cases: drop it or --cases")
    if not options.model and (options.weights or options.runtime):
        parser.error("--weights and --runtime belong to --model: each case has its own")
    if options.number and options.number < LEAST_IMAGES:
        parser.error(f"--number {options.number}: a rate needs a second part, and thus at least {LEAST_IMAGES} images")
    return options


def main() -> None:
    """Measure, print Markdown, write JSON and Markdown where asked."""
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a contender does not outlive it
    pictures, cases, machine = find_pictures(options.images, options.labels), find_cases(options), describe_machine()
    results, pages = [], [in_words(machine)]
    for case, weights in cases.items():
        result = measure(case, weights, pictures, options)
        results.append(result)
        title = f"{case.name} ({case.runtime}, {case.precision}), {result['images']} images ({result['pictures']})"
        pages.append(f"**{title}**\n\n{as_markdown(result['summary'], result['agreements'])}")
        for peer, share in result["agreements"].items():
            if share < LEAST_AGREEMENT:
                pages.append(f"{peer} computes something else ({100 * share:.2f} % of the pixels agree): no peer here.")
        for path, text in (
            (options.json, json.dumps({"machine": machine, "results": results}, indent=2)),
            (options.markdown, "\n\n".join(pages)),
        ):
            if path:
                path.write_text(text + "\n", encoding="utf-8")
    print("\n" + "\n\n".join(pages))


if __name__ == "__main__":
    main()
