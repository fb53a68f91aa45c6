"""Peer: a plain Python loop, onnxruntime with its default threads."""

import sys
import time
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from model import Model, Stamps, read_spec


def main() -> None:
    """Run it."""
    started = time.time()
    spec = read_spec(sys.argv[1])
    model, stamps, rows = Model(spec), Stamps(spec), []
    for path in spec["images"]:
        began = time.time()
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        rows.append({"path": path, "mask": model.segment(image)})
        stamps.add(began, 1)
    pq.write_table(pa.Table.from_pylist(rows), Path(spec["output"], "masks.parquet"))
    print(stamps.result(started))


if __name__ == "__main__":
    main()
