"""A first run of a quantised model in a process of its own: a runtime may crash on a graph that it has read."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError, SegmentError
from segment.models.card import load_card
from segment.models.sessions import Runtime, open_session
from segment.models.weights import load_weights

_OTHER = {"openvino": "onnxruntime", "onnxruntime": "openvino"}


def try_runtimes(card: str, runtimes: Sequence[Runtime], images: NDArray[np.uint8]) -> None:
    """Segment images by a card on each runtime, in another process.

    Raises:
        ModelError: a runtime crashed.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(card, runtimes, images, theirs), daemon=True)
    process.start()
    theirs.close()
    tried = 0
    try:
        with contextlib.suppress(EOFError):  # the process has ended
            while ours.recv():
                tried += 1
        process.join()
    finally:
        process.kill()
    if tried < len(runtimes):
        runtime, code = runtimes[tried], process.exitcode or 0
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        other = _OTHER[runtime.name]
        raise ModelError(
            f"{runtime.name} {runtime.version} crashes on the quantised graph ({how}): try another --method, or "
            f"quantise for {other} alone (--runtime {other}), and run the card with the same option"
        )


def _try(card: str, runtimes: Sequence[Runtime], images: NDArray[np.uint8], told: Connection) -> None:
    found = load_card(card)
    weights = load_weights(found)
    for runtime in runtimes:
        with contextlib.suppress(SegmentError):  # which the command meets, too, and tells
            open_session(found, weights, runtime, sanity_check=False).predict(images)
        told.send(True)
