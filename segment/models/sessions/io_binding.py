"""IO binding: two calls in flight, each with buffers that stay bound to the graph.

The copies of one batch overlap with the computation of the other: onnxruntime gives every concurrent call its own CUDA
stream (microsoft/onnxruntime PR 13495), and copies from and to pinned memory do not block. On a CPU the buffers are
not pinned.
"""

import ctypes
import logging
import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.models.sessions.extras import NOTHING, Extras
from segment.models.sessions.idle import IdlePool
from segment.models.sessions.predict import Outputs, Run

log = logging.getLogger(__name__)

_CALLS_IN_FLIGHT = 2

Pin = Callable[[mmap.mmap], object]  # the pages stay pinned during the lifetime of the result


class CudaPin:
    """Pins pages of memory for direct access by the GPU; unpins them when it is deleted.

    Unpinned memory (there may be a limit on locked memory) is only slower, so a failure is a warning.
    """

    def __init__(self, pages: mmap.mmap) -> None:
        self._cuda = _cuda_runtime()
        self._pages = pages  # keeps them alive while they are pinned
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        if self._cuda is None:
            log.warning("no CUDA runtime library found, so memory is not pinned: copies to the GPU do not overlap")
        elif code := self._cuda.cudaHostRegister(ctypes.c_void_p(self._address), ctypes.c_size_t(len(pages)), 0):
            log.warning("memory cannot be pinned (CUDA error %d): copies to the GPU do not overlap", code)
            self._cuda = None

    def __del__(self) -> None:
        if self._cuda is not None:
            self._cuda.cudaHostUnregister(ctypes.c_void_p(self._address))


def _cuda_runtime() -> Any:
    """Return the CUDA runtime library that onnxruntime has loaded; None if there is none."""
    for name in ("libcudart.so.13", "libcudart.so.12", "libcudart.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def bound_run(
    session: Any, mask_size: tuple[int, int], *, pin: Pin, batch: int | None = None, extras: Extras = NOTHING
) -> Run:
    """Return a function that runs batches of an `onnxruntime.InferenceSession`, two at once; more callers wait.

    Args:
        session: maps `uint8[N, H, W, 3]` to `uint8[N, *mask_size]`, `float32[N]` and the extras.
        mask_size: (height, width) of the masks.
        batch: N, if the graph takes only that batch: smaller batches are padded, larger ones are split.
    """
    shapes: list[_Shape] = [(mask_size, np.uint8), ((), np.float32)]
    shapes += [(extras.shape(name, mask_size), np.uint8) for name in extras.outputs]
    idle = IdlePool(lambda: _BoundBuffers(session, shapes, pin, batch), _CALLS_IN_FLIGHT)

    def run(images: NDArray[np.uint8]) -> Outputs:
        with idle.borrowed() as buffers:
            return buffers.run(images)

    def run_split(images: NDArray[np.uint8]) -> Outputs:
        assert batch is not None
        if len(images) <= batch:
            return run(images)
        results = [run(images[i : i + batch]) for i in range(0, len(images), batch)]
        return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))

    return run_split if batch else run


_Shape = tuple[tuple[int, ...], type[np.generic]]  # of an output for one image: shape and type


class _BoundBuffers:
    """Input and output buffers of one batch, bound to the graph; they grow to the largest batch so far."""

    def __init__(self, session: Any, shapes: list[_Shape], pin: Pin, batch: int | None) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]
        self._shapes = shapes
        self._pin = pin
        self._batch = batch
        self._bound = 0  # images of the bound batch
        self._capacity = 0  # images that fit into the buffers

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Copy a batch in, run the graph, copy its results out. Not thread-safe."""
        number = len(images)
        if (self._batch or number) != self._bound:
            self._bind(self._batch or number, images.shape[1:])
        np.copyto(self._pixels[:number], images)
        self._session.run_with_iobinding(self._binding)
        return tuple(array[:number].copy() for array in self._arrays)

    def _bind(self, number: int, pixel_shape: tuple[int, ...]) -> None:
        self._bound = 0
        if number > self._capacity:
            self._pixel_pages = _Pages(number * math.prod(pixel_shape), self._pin)
            sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self._shapes]
            self._output_pages = [_Pages(number * size, self._pin) for size in sizes]
            self._capacity = number
        self._pixels = self._pixel_pages.array((number, *pixel_shape), np.uint8)
        self._arrays = [
            pages.array((number, *shape), dtype)
            for pages, (shape, dtype) in zip(self._output_pages, self._shapes, strict=True)
        ]
        self._binding = self._session.io_binding()
        self._binding.bind_input(self._input, **_host_memory(self._pixels))
        for name, array in zip(self._outputs, self._arrays, strict=True):
            self._binding.bind_output(name, **_host_memory(array))
        self._bound = number


def _host_memory(array: NDArray[Any]) -> dict[str, Any]:
    """Return the arguments that bind host memory; onnxruntime copies between it and the device on the call's stream."""
    return {
        "device_type": "cpu",
        "device_id": 0,
        "element_type": array.dtype.type,
        "shape": array.shape,
        "buffer_ptr": array.ctypes.data,
    }


class _Pages:
    """Memory in whole pages: only those can be pinned."""

    def __init__(self, size: int, pin: Pin) -> None:
        self._pages = mmap.mmap(-1, size)
        self._pinned = pin(self._pages)

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a view of the first bytes."""
        return np.frombuffer(self._pages, dtype, math.prod(shape)).reshape(shape)
