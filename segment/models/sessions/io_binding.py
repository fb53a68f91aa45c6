"""Two batches in flight: each call has a lane, with buffers of its own that stay bound to the graph.

While one lane's batch is computed, the other's pixels are copied to the device or its masks fetched: onnxruntime gives
every concurrent call a stream of its own (microsoft/onnxruntime PR 13495). Copies from and to pinned memory do not
block; on a CPU nothing needs pinning, all else is the same.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import queue
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.models.sessions.predict import Run

log = logging.getLogger(__name__)

LANES = 2

Pin = Callable[[mmap.mmap], object]  # what it returns keeps the pages pinned as long as it lives


def not_pinned(pages: mmap.mmap) -> None:
    """Leave pages as they are: the device is the CPU."""


class CudaPin:
    """Pages that the GPU reads and writes directly, until this object goes.

    What cannot be pinned (a limit on locked memory) is only slower, so it is a warning.

    Args:
        pages: to pin.
    """

    def __init__(self, pages: mmap.mmap) -> None:
        self._cuda = _cuda_runtime()
        self._pages = pages  # must outlive the pin
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        if self._cuda is None:
            log.warning("no CUDA runtime library to pin memory with: copies to the GPU do not overlap")
        elif code := self._cuda.cudaHostRegister(ctypes.c_void_p(self._address), ctypes.c_size_t(len(pages)), 0):
            log.warning("memory cannot be pinned (CUDA error %d): copies to the GPU do not overlap", code)
            self._cuda = None

    def __del__(self) -> None:
        if self._cuda is not None:
            self._cuda.cudaHostUnregister(ctypes.c_void_p(self._address))


def _cuda_runtime() -> Any:
    """The CUDA runtime that onnxruntime has loaded, by the names that it goes by."""
    for name in ("libcudart.so.13", "libcudart.so.12", "libcudart.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def bound_run(session: Any, mask_size: tuple[int, int], *, pin: Pin, batch: int | None = None) -> Run:
    """Return what runs batches of an `onnxruntime.InferenceSession`, two at once; further callers wait.

    Args:
        session: takes `uint8[N, H, W, 3]`, gives `uint8[N, *mask_size]` and `float32[N]`.
        mask_size: (height, width) of the masks.
        pin: pins a lane's buffers.
        batch: N, if the graph takes only that: fewer images are padded by whatever was there, more are cut up.
    """
    idle: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for _ in range(LANES):
        idle.put(Lane(session, mask_size, pin, batch))

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        lane = idle.get()
        try:
            return lane.run(images)
        finally:
            idle.put(lane)

    def run_cut_up(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        assert batch is not None
        if len(images) <= batch:
            return run(images)
        masks, checks = zip(*(run(images[i : i + batch]) for i in range(0, len(images), batch)), strict=True)
        return np.concatenate(masks), np.concatenate(checks)

    return run_cut_up if batch else run


class Lane:
    """Input and output buffers of one batch, bound to the graph; they grow to the largest batch that came."""

    def __init__(self, session: Any, mask_size: tuple[int, int], pin: Pin, batch: int | None) -> None:
        self._session = session
        self._entry = session.get_inputs()[0].name
        self._results = [output.name for output in session.get_outputs()]
        self._mask_size = mask_size
        self._pin = pin
        self._batch = batch
        self._bound = 0  # images of the batch that is bound
        self._room = 0  # images that the buffers have room for

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Copy a batch in, run the graph on it, copy its results out. Not for two threads at once."""
        number = len(images)
        if (self._batch or number) != self._bound:
            self._bind(self._batch or number, images.shape[1:])
        np.copyto(self._pixels[:number], images)
        self._session.run_with_iobinding(self._binding)
        return self._masks[:number].copy(), self._check[:number].copy()

    def _bind(self, number: int, pixel_shape: tuple[int, ...]) -> None:
        self._bound = 0
        if number > self._room:
            self._pixel_pages = _Pages(number * math.prod(pixel_shape), self._pin)
            self._mask_pages = _Pages(number * math.prod(self._mask_size), self._pin)
            self._check_pages = _Pages(number * 4, self._pin)
            self._room = number
        self._pixels = self._pixel_pages.array((number, *pixel_shape), np.uint8)
        self._masks = self._mask_pages.array((number, *self._mask_size), np.uint8)
        self._check = self._check_pages.array((number,), np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_input(self._entry, **_host(self._pixels))
        for name, array in zip(self._results, (self._masks, self._check), strict=True):
            self._binding.bind_output(name, **_host(array))
        self._bound = number


def _host(array: NDArray[Any]) -> dict[str, Any]:
    """Host memory, as bindings take it. onnxruntime copies between it and the device, on the call's own stream."""
    return {
        "device_type": "cpu",
        "device_id": 0,
        "element_type": array.dtype.type,
        "shape": array.shape,
        "buffer_ptr": array.ctypes.data,
    }


class _Pages:
    """Whole pages of memory, which is what can be pinned."""

    def __init__(self, size: int, pin: Pin) -> None:
        self._pages = mmap.mmap(-1, size)
        self._pinned = pin(self._pages)

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """A view of the first bytes."""
        return np.frombuffer(self._pages, dtype, math.prod(shape)).reshape(shape)
