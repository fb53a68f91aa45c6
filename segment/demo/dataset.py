"""Synthetic street scenes as data sets: WebDataset shards and Parquet files with pictures and labels."""

import io
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from segment.demo.scenes import scene

JPEG_QUALITY = 95

_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema([("id", pa.string()), ("image", _FILE), ("label", _FILE)])


def encode_scene(seed: int) -> tuple[bytes, bytes]:
    """The picture of `scene(seed)` as a JPEG and its labels as an 8-bit PNG of class indices."""
    image, label = scene(seed)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    written, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    drawn, png = cv2.imencode(".png", label)
    if not (written and drawn):
        raise RuntimeError(f"OpenCV cannot encode scene {seed}")
    return jpeg.tobytes(), png.tobytes()


def write_webdataset(folder: Path, seeds: range, shards: int) -> list[Path]:
    """Write `streets-000000.tar`, ... with members `<key>.jpg` and `<key>.seg.png`.

    The key is the seed in six digits. The seeds are cut in `shards` consecutive runs whose lengths differ by
    at most one. The same seeds give the same bytes. Returns the paths in order.
    """
    if not 1 <= shards <= len(seeds):
        raise ValueError(f"{len(seeds)} scenes cannot fill {shards} shards")
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [len(seeds) * i // shards for i in range(shards + 1)]
    paths = []
    for i, (first, last) in enumerate(pairwise(cuts)):
        paths.append(folder / f"streets-{i:06d}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for seed in seeds[first:last]:
                jpeg, png = encode_scene(seed)
                for name, content in ((f"{seed:06d}.jpg", jpeg), (f"{seed:06d}.seg.png", png)):
                    member = tarfile.TarInfo(name)  # owner, group and time are 0: nothing of this machine
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return paths


def write_parquet(path: Path, seeds: range, row_group_size: int = 32) -> None:
    """Write one row a scene: `id: string`, `image` and `label` as `struct<bytes: binary, path: string>`.

    The structs are what Hugging Face `datasets` calls an Image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for first in range(0, len(seeds), row_group_size):
            rows = list(_rows(seeds[first : first + row_group_size]))
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), row_group_size=row_group_size)


def _rows(seeds: range) -> Iterator[dict[str, str | dict[str, bytes | str]]]:
    for seed in seeds:
        jpeg, png = encode_scene(seed)
        key = f"{seed:06d}"
        yield {
            "id": key,
            "image": {"bytes": jpeg, "path": f"{key}.jpg"},
            "label": {"bytes": png, "path": f"{key}.seg.png"},
        }
