"""A first run of a quantised model in a process of its own: a runtime may crash on a graph that it has read."""

from __future__ import annotations

import multiprocessing
import signal

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.card import load_card
from segment.models.sessions import Runtime, open_session
from segment.models.weights import load_weights


def try_run(card: str, runtime: Runtime, images: NDArray[np.uint8]) -> None:
    """Segment images by a card on a runtime, in another process.

    Raises:
        ModelError: the process died.
    """
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(card, runtime, images), daemon=True)
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    if process.exitcode:
        how = signal.strsignal(-process.exitcode) if process.exitcode < 0 else f"exit code {process.exitcode}"
        others = {"openvino": "onnxruntime", "onnxruntime": "openvino"}
        raise ModelError(
            f"{runtime.name} {runtime.version} crashes on the quantised graph ({how}): quantise by another --method, or "
            f"for {others[runtime.name]} alone (--runtime {others[runtime.name]}), and run it there"
        )


def _run(card: str, runtime: Runtime, images: NDArray[np.uint8]) -> None:
    found = load_card(card)
    open_session(found, load_weights(found), runtime, sanity_check=False).predict(images)
