"""Peer: PyTorch's `DataLoader` decodes and prepares in worker processes, onnxruntime infers in the main one.

https://docs.pytorch.org/docs/stable/data.html: a map-style `Dataset`, `num_workers` and `batch_size`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from model import Model, Stamps, read_spec
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):  # type: ignore[type-arg]
    """Prepared pictures with their sizes."""

    def __init__(self, paths: list[str], model: Model) -> None:
        self.paths, self.model = paths, model

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        return self.model.prepare(image), image.shape[0], image.shape[1]


def main() -> None:
    """Run it."""
    started = time.time()
    spec: dict[str, Any] = read_spec(sys.argv[1])
    model, stamps, rows = Model(spec), Stamps(spec), []
    preparing = Model.__new__(Model)  # workers prepare only: a session cannot be sent to them
    preparing.contract = model.contract
    loader = DataLoader(Images(spec["images"], preparing), batch_size=8, num_workers=spec["cores"])
    began = 0.0
    for batch, heights, widths in loader:
        began = began or time.time()  # the first batch is there: its workers' start is no part of the rate
        masks = model.infer(batch.numpy())
        pngs = [model.encode(*one) for one in zip(masks, heights.tolist(), widths.tolist(), strict=True)]
        rows += [{"path": spec["images"][len(rows) + i], "mask": png} for i, png in enumerate(pngs)]
        stamps.add(began, len(pngs))
        began = time.time()
    pq.write_table(pa.Table.from_pylist(rows), Path(spec["output"], "masks.parquet"))
    print(stamps.result(started))


if __name__ == "__main__":
    main()
