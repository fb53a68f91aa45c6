"""What every peer needs around onnxruntime: the card's preprocessing in numpy, a session with defaults, a PNG."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from PIL import Image


class Model:
    """One onnxruntime session with the library's defaults, and the steps around it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.contract = spec["contract"]
        self.session = ort.InferenceSession(spec["weights"], providers=["CPUExecutionProvider"])
        self.entry = self.session.get_inputs()[0].name

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """From `uint8[H, W, 3]` RGB to the graph's input."""
        contract = self.contract
        size = self.content(*image.shape[:2])
        if contract["resampler"] == "opencv":
            resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        else:
            resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        if contract["pad"]:
            below, right = contract["height"] - size[1], contract["width"] - size[0]
            resized = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_CONSTANT, value=contract["pad"])
        pixels = resized[:, :, ::-1] if contract["bgr"] else resized
        scaled = pixels.astype(np.float32) * np.float32(contract["maximum"] / 255)
        scaled = (scaled - np.array(contract["mean"], np.float32)) / np.array(contract["std"], np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1) if contract["layout"] == "NCHW" else scaled)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Width and height that a picture covers of the model's input."""
        entry = (self.contract["width"], self.contract["height"])
        scale = min(1.0, entry[0] / width, entry[1] / height)
        return (max(1, round(width * scale)), max(1, round(height * scale))) if self.contract["pad"] else entry

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """From `float32[N, ...]` to class indices `uint8[N, H, W]`; image by image where the graph's batch is fixed."""
        scores = np.concatenate([self.session.run(None, {self.entry: batch[i : i + 1]})[0] for i in range(len(batch))])
        if self.contract["kind"] != "index":
            scores = scores.argmax(axis=self.contract["output_layout"].index("C"))
        return scores.reshape(len(batch), *scores.shape[-2:]).astype(np.uint8)

    def encode(self, mask: np.ndarray, height: int, width: int) -> bytes:
        """Bring a mask to its image's size and encode it as PNG."""
        inside = self.content(height, width)
        if self.contract["pad"]:
            mask = np.ascontiguousarray(mask[: inside[1], : inside[0]])
        resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return cv2.imencode(".png", np.asarray(resized))[1].tobytes()

    def segment(self, image: np.ndarray) -> bytes:
        """From `uint8[H, W, 3]` RGB to the PNG of its mask."""
        mask = self.infer(self.prepare(image)[np.newaxis])[0]
        return self.encode(mask, *image.shape[:2])


class Stamps:
    """When each step began and ended, in a file, because a pipeline's steps run in processes of its own."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.path = Path(spec["output"], "stamps.txt")

    def add(self, began: float, images: int) -> None:
        """Note a step that ends now."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{began} {time.time()} {images}\n")

    def result(self, started: float) -> str:
        """The peer's line of JSON."""
        rows = [line.split() for line in self.path.read_text(encoding="utf-8").splitlines()]
        first, last = min(float(row[0]) for row in rows), max(float(row[1]) for row in rows)
        images = sum(int(row[2]) for row in rows)
        return json.dumps(
            {"images": images, "seconds": last - first, "start": first - started, "total": time.time() - started}
        )


def read_spec(path: str) -> dict[str, Any]:
    """Read the specification and make its output folder."""
    spec: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    Path(spec["output"]).mkdir(parents=True, exist_ok=True)
    return spec
