"""Peer: Daft, as 'Stateful Class UDFs with @daft.cls' and 'Working with Images' of its documentation have it.

https://docs.daft.ai/en/stable/custom-code/cls/: a class that loads the model once a worker, on its native runner.
"""

import sys
import time
from pathlib import Path
from typing import Any

import daft
import numpy as np
from model import Model, Stamps, read_spec


@daft.cls
class Segmenter:
    """Loads the model once a worker."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.model, self.stamps = Model(spec), Stamps(spec)

    @daft.method(return_dtype=daft.DataType.binary())
    def segment(self, image: np.ndarray) -> bytes:
        """From an image to the PNG of its mask."""
        began = time.time()
        mask = self.model.segment(np.ascontiguousarray(image))
        self.stamps.add(began, 1)
        return mask


def main() -> None:
    """Run it."""
    started = time.time()
    spec = read_spec(sys.argv[1])
    segmenter = Segmenter(spec)
    frame = daft.from_pydict({"path": spec["images"]})
    frame = frame.with_column("image", daft.col("path").download().decode_image(mode="RGB"))
    frame = frame.select("path", segmenter.segment(daft.col("image")).alias("mask"))
    frame.write_parquet(str(Path(spec["output"], "masks.parquet")))
    print(Stamps(spec).result(started))


if __name__ == "__main__":
    main()
