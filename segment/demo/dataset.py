"""The demo's data set: labelled street scenes, shipped as WebDataset shards, also written as a Parquet file.

`jobs/paint_demo_scenes.py` paints the scenes, in the classes of CamVid.
"""

import importlib.resources
import io
import tarfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SHIPPED = 64  # scenes in the package

_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema([("id", pa.string()), ("image", _FILE), ("label", _FILE)])


class Scene(NamedTuple):
    """A labelled image.

    Attributes:
        image: JPEG, 256x192 RGB.
        label: 8-bit PNG of class indices, of the same size.
    """

    key: str
    image: bytes
    label: bytes

    @property
    def files(self) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
        """Names and bytes of the members in a WebDataset shard."""
        return (f"{self.key}.jpg", self.image), (f"{self.key}.seg.png", self.label)


def read_scenes(number: int = SHIPPED) -> list[Scene]:
    """Return the first `number` scenes that the package ships, in the order of their keys."""
    folder = importlib.resources.files("segment") / "demo" / "scenes"
    scenes: list[Scene] = []
    for shard in sorted(folder.iterdir(), key=lambda item: item.name):
        with tarfile.open(fileobj=io.BytesIO(shard.read_bytes())) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        keys = sorted(name.removesuffix(".jpg") for name in files if name.endswith(".jpg"))
        scenes += [Scene(key, files[f"{key}.jpg"], files[f"{key}.seg.png"]) for key in keys]
    return scenes[:number]


def write_webdataset(folder: Path, scenes: Sequence[Scene], shards: int) -> list[Path]:
    """Write `streets-000000.tar`, ... with members `<key>.jpg` and `<key>.seg.png`.

    The scenes are cut in `shards` consecutive runs whose lengths differ by at most one. The same scenes give the same
    bytes.

    Returns:
        The paths, in order.

    Raises:
        ValueError: more shards than scenes.
    """
    if not 1 <= shards <= len(scenes):
        raise ValueError(f"{len(scenes)} scenes cannot fill {shards} shards")
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [len(scenes) * i // shards for i in range(shards + 1)]
    paths = []
    for i, (first, last) in enumerate(pairwise(cuts)):
        paths.append(folder / f"streets-{i:06d}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in (file for scene in scenes[first:last] for file in scene.files):
                member = tarfile.TarInfo(name)  # owner, group and time are 0: nothing of this machine
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return paths


def write_parquet(path: Path, scenes: Sequence[Scene], row_group_size: int = 32) -> None:
    """Write one row a scene: `id: string`, `image` and `label` as `struct<bytes: binary, path: string>`.

    The structs are what Hugging Face `datasets` calls an Image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for scene in scenes:
        image, label = ({"bytes": content, "path": name} for name, content in scene.files)
        rows.append({"id": scene.key, "image": image, "label": label})
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path, row_group_size=row_group_size)
