"""The pictures: CamVid where it is there, else the demo's scenes; as loose files, tars, Parquet and a list."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.bench.cases import SHARED
from segment.demo.dataset import read_scenes
from segment.store.names import is_image, is_label

_ENLARGED = 16  # pictures of a large size: a minute is enough to make them
_GRAIN, _QUALITY = 4.0, 90  # standard deviation of the grain; of JPEGs


@dataclass(frozen=True)
class Pictures:
    """Encoded images and labels, by name.

    Attributes:
        source: where they are from, in words.
        images: (file name, bytes).
        labels: bytes, in the same order; index PNGs.
    """

    source: str
    images: list[tuple[str, bytes]]
    labels: list[bytes]

    def describe(self) -> str:
        """Source, format, size and mean bytes."""
        first = cv2.imdecode(np.frombuffer(self.images[0][1], np.uint8), cv2.IMREAD_COLOR)
        mean = sum(len(data) for _, data in self.images) / len(self.images)
        kind = Path(self.images[0][0]).suffix.removeprefix(".").upper()
        return f"{self.source}: {kind}, {first.shape[1]}x{first.shape[0]}, {mean / 1e3:.0f} kB each, with labels"

    def enlarged(self, width: int, height: int) -> Pictures:
        """A few of them at the size of a phone's or a car's photos, the same bytes each time, with 8-bit index labels.

        The middle of the picture, as much of it as the aspect allows, enlarged bicubically; grain makes the JPEGs as
        large as such photos are.
        """
        images, labels = [], []
        for number, ((name, image), label) in enumerate(zip(self.images[:_ENLARGED], self.labels, strict=False)):
            pixels = _middle(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), width / height)
            classes = _middle(np.asarray(Image.open(io.BytesIO(label))), width / height)
            grain = np.random.default_rng(number).standard_normal((height, width, 1)) * _GRAIN
            grainy = np.clip(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC) + grain, 0, 255)
            quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
            images.append(
                (f"{Path(name).stem}.jpg", cv2.imencode(".jpg", grainy.astype(np.uint8), quality)[1].tobytes())
            )
            large = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            labels.append(cv2.imencode(".png", large)[1].tobytes())
        return Pictures(f"{self.source}, enlarged", images, labels)

    def repeated(self, number: int) -> Pictures:
        """As many as wanted: the same ones again under other names."""
        chosen = [(turn, i) for turn in range(-(-number // len(self.images))) for i in range(len(self.images))]
        return Pictures(
            self.source,
            [(f"{turn:03d}-{self.images[i][0]}", self.images[i][1]) for turn, i in chosen[:number]],
            [self.labels[i] for _, i in chosen[:number]],
        )


def _middle(pixels: np.ndarray, aspect: float) -> np.ndarray:
    """The largest area of this aspect (width by height) in the middle of a picture."""
    height, width = pixels.shape[:2]
    inner = (min(height, round(width / aspect)), min(width, round(height * aspect)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return np.ascontiguousarray(pixels[top : top + inner[0], left : left + inner[1]])


def find_pictures(images: Path | None, labels: Path | None) -> Pictures:
    """The folders that were named; else CamVid; else the demo's scenes.

    Raises:
        SystemExit: one folder is named without the other, is none, or holds no images; an image has no label.
    """
    if (images is None) != (labels is None):
        raise SystemExit("--images and --labels go together: name both, or none for CamVid or the demo's scenes")
    if images is None and (SHARED / "camvid").is_dir():
        images, labels = SHARED / "camvid" / "images", SHARED / "camvid" / "labels"
    if images is None or labels is None:
        scenes = read_scenes()
        return Pictures("demo scenes", [(f"{one.key}.jpg", one.image) for one in scenes], [one.label for one in scenes])
    paths, by_stem = _files(images, is_image), {path.stem: path for path in _files(labels, is_label)}
    if unlabelled := [path.name for path in paths if path.stem not in by_stem]:
        raise SystemExit(f"no label in {labels} has the stem of {unlabelled[0]} ({len(unlabelled)} such images)")
    source = "CamVid validation split" if images.parent.name == "camvid" else images.name
    return Pictures(
        source, [(path.name, path.read_bytes()) for path in paths], [by_stem[path.stem].read_bytes() for path in paths]
    )


def _files(folder: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """The files of a folder whose names are wanted, in the order of their names."""
    found = sorted(path for path in folder.glob("*") if path.is_file() and is_wanted(path.name))
    if not found:
        raise SystemExit(f"{folder} is no folder, or holds no images: name one whose files are images themselves")
    return found


def write_inputs(pictures: Pictures, folder: Path) -> dict[str, dict[str, str]]:
    """Write all four formats and return what `segment.Job` takes for each."""
    for kind in ("images", "labels", "tars", "parquet"):
        (folder / kind).mkdir(parents=True)
    pairs = list(zip(pictures.images, pictures.labels, strict=True))
    for (name, image), label in pairs:
        (folder / "images" / name).write_bytes(image)
        (folder / "labels" / name).with_suffix(".png").write_bytes(label)
    half = -(-len(pairs) // 2)
    for number, some in enumerate((pairs[:half], pairs[half:])):
        if some:
            _write_tar(folder / "tars" / f"{number:06d}.tar", some)
            _write_parquet(folder / "parquet" / f"{number:06d}.parquet", some)
    listed = folder / "list.txt"
    listed.write_text("".join(f"images/{name} labels/{Path(name).stem}.png\n" for (name, _), _ in pairs))
    return {
        "files": {"input": str(folder / "images"), "labels": str(folder / "labels")},
        "tars": {"input": str(folder / "tars")},
        "parquet": {"input": str(folder / "parquet")},
        "list": {"input": str(listed)},
    }


def _write_tar(path: Path, pairs: list[Any]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for (name, image), label in pairs:
            for member, data in ((name, image), (f"{Path(name).stem}.seg.png", label)):
                header = tarfile.TarInfo(member)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def _write_parquet(path: Path, pairs: list[Any]) -> None:
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": image, "path": name} for (name, image), _ in pairs]
    labels = [{"bytes": label, "path": f"{Path(name).stem}.png"} for (name, _), label in pairs]
    table = pa.table({"image": pa.array(images, cell), "label": pa.array(labels, cell)})
    pq.write_table(table, path, row_group_size=32)


def _masks(output: Path) -> dict[str, bytes]:
    """The encoded masks of `segment run` by the stem of their image."""
    files = sorted(output.glob("masks/*/*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read(columns=["id", "mask"]).to_pylist()]
    return {Path(row["id"]).stem: row["mask"]["bytes"] for row in rows}


def _pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def agreement(ours: Path, theirs: Path) -> float:
    """Share of pixels, 0-1, in which the masks of `segment run` and of a peer's `masks.parquet` are equal."""
    own = _masks(ours)
    equal = total = 0
    rows = pq.read_table(theirs / "masks.parquet", columns=["path", "mask"]).to_pylist()
    if len(rows) != len(own):
        return 0.0
    for row in rows:
        mine, other = _pixels(own[Path(row["path"]).stem]), _pixels(row["mask"])
        if mine.shape != other.shape:
            return 0.0
        equal, total = equal + int((mine == other).sum()), total + mine.size
    return equal / total


def different_outputs(one: Path, other: Path, least: float = 0.995, *, exact: bool = True) -> list[str]:
    """Name the files that two outputs do not share.

    Of two versions of the format, or if not `exact`, only the pixels count: a share of `least` has to be equal.
    """
    versions = {json.loads((folder / "run.json").read_bytes())["contract"]["format"] for folder in (one, other)}
    if exact and len(versions) == 1:
        return different_files(one, other)
    ours, theirs = _masks(one), _masks(other)
    if missing := sorted(ours.keys() ^ theirs.keys()):
        return missing
    pairs = [(_pixels(ours[name]), _pixels(theirs[name])) for name in ours]
    equal = sum(np.array_equal(mine, its) * mine.size or int((mine == its).sum()) for mine, its in pairs)
    share = equal / max(1, sum(mine.size for mine, _ in pairs))
    return [] if share >= least else [f"{100 * share:.2f} % of the pixels are equal"]


def different_files(one: Path, other: Path) -> list[str]:
    """Name the files below `masks/` and `stats/` that two outputs do not share byte for byte."""
    trees = [
        {
            str(path.relative_to(folder)): path
            for kind in ("masks", "stats")
            for path in (folder / kind).rglob("*.parquet")
        }
        for folder in (one, other)
    ]
    shared = trees[0].keys() & trees[1].keys()
    unequal = {name for name in shared if trees[0][name].read_bytes() != trees[1][name].read_bytes()}
    return sorted((trees[0].keys() ^ trees[1].keys()) | unequal)


def write_spec(path: Path, values: dict[str, Any]) -> Path:
    """Write what a contender is to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path
