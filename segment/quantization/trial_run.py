"""A first run of a quantised model in a process of its own: a runtime may crash on a graph that it has read."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError, SegmentError
from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime, open_session
from segment.models.sessions.apart_process import given_apart, run_apart, tell, within
from segment.models.sessions.base import first_line
from segment.models.weights import Weights, load_weights

_SECONDS = 600.0  # after which the process is killed
_OTHER = {"openvino": "onnxruntime", "onnxruntime": "openvino"}


def try_runtimes(card: Path, runtimes: Sequence[Runtime], images: NDArray[np.uint8]) -> None:
    """Segment images by a card on each runtime, in another process.

    Raises ModelError: a runtime failed, crashed, or took too long.
    """
    done, end = run_apart(__name__, (str(card), list(runtimes), images), _SECONDS)
    reasons = [*(event["reason"] for event in done), f"the process that tried it {end}"]
    for runtime, reason in zip(runtimes, reasons, strict=False):
        if reason:
            is_onnx = load_card(str(card)).weights[0].url.endswith(".onnx")
            raise ModelError(
                f"{runtime.name} {runtime.version} cannot run the quantised graph: {reason}. "
                f"{_advice(runtime, is_onnx=is_onnx)}"
            )


def _advice(runtime: Runtime, *, is_onnx: bool) -> str:
    if not is_onnx:  # openvino alone reads it
        return "Try --method onnxruntime"
    other = _OTHER[runtime.name]
    return (
        f"Try --method nncf, or quantise for {other} alone (--runtime {other}), and run the card with the same option"
    )


def main() -> None:
    """Run in the process: print a line after each runtime, with the reason if it failed."""
    reference, runtimes, images = given_apart()
    card = load_card(reference)
    weights = load_weights(card)
    for runtime in runtimes:
        tell(reason=_tried(card, weights, runtime, images))
    os._exit(0)  # as worker processes do: threads of libraries may abort the regular end


def _tried(card: ModelCard, weights: Weights, runtime: Runtime, images: NDArray[np.uint8]) -> str:
    try:
        with within():
            session = open_session(card, weights, runtime, sanity_check=False)
        session.predict(images)
    except SegmentError:
        return ""  # the command meets it, too, and tells
    except Exception as error:  # each runtime has its own types
        return first_line(error)
    return ""
