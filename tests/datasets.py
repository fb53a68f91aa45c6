"""The same labelled images as loose files, tars, Parquet and a list: what `Job` calls `input`, four times."""

import io
import itertools
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Item:
    """One image: file name, encoded bytes, encoded label."""

    name: str
    image: bytes
    label: bytes | None = None

    @property
    def stem(self) -> str:
        return Path(self.name).stem


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", **settings: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def write_files(folder: Path, items: Sequence[Item]) -> dict[str, Any]:
    """Images in one folder, labels of the same stem in another."""
    images, labels = folder / "images", folder / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    for item in items:
        (images / item.name).write_bytes(item.image)
        if item.label is not None:
            (labels / f"{item.stem}.png").write_bytes(item.label)
    return {"input": str(images), "labels": str(labels)}


def write_tars(folder: Path, items: Sequence[Item], shards: int = 3) -> dict[str, Any]:
    """WebDataset tars, the images dealt out in runs."""
    folder.mkdir(parents=True)
    for number, start in enumerate(_starts(len(items), shards)):
        with tarfile.open(folder / f"part-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items[start[0] : start[1]]:
                _add(tar, item.name, item.image)
                if item.label is not None:
                    _add(tar, f"{item.stem}.seg.png", item.label)
    return {"input": str(folder)}


def write_parquet(folder: Path, items: Sequence[Item], shards: int = 2, row_group: int = 5) -> dict[str, Any]:
    """Parquet files as Hugging Face `datasets` writes them, `row_group` images a row group."""
    folder.mkdir(parents=True)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number, (start, stop) in enumerate(_starts(len(items), shards)):
        some = items[start:stop]
        images = [{"bytes": item.image, "path": item.name} for item in some]
        labels = [None if i.label is None else {"bytes": i.label, "path": f"{i.stem}.png"} for i in some]
        table = pa.table({"image": pa.array(images, cell), "label": pa.array(labels, cell)})
        pq.write_table(table, folder / f"validation-{number:05d}.parquet", row_group_size=row_group)
    return {"input": str(folder)}


def write_list(folder: Path, items: Sequence[Item]) -> dict[str, Any]:
    """A list of `image label` lines, as SegNet has it, beside the files it names."""
    write_files(folder, items)
    lines = [f"images/{item.name}" + ("" if item.label is None else f" labels/{item.stem}.png") for item in items]
    (folder / "val.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"input": str(folder / "val.txt")}


FORMATS: dict[str, Callable[[Path, Sequence[Item]], dict[str, Any]]] = {
    "files": write_files,
    "tars": write_tars,
    "parquet": write_parquet,
    "list": write_list,
}


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Every row of a run's masks, in the order of shards and images; `stem` added, the id's without folder."""
    files = sorted((output / "masks").rglob("*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    return [{**row, "stem": Path(row["id"]).stem} for row in sorted(rows, key=lambda r: (r["shard"], r["index"]))]


def mask_of(row: dict[str, Any]) -> NDArray[np.uint8]:
    """The mask of a row, `uint8[H, W]`, read with Pillow."""
    with Image.open(io.BytesIO(row["mask"]["bytes"])) as opened:
        return np.asarray(opened)


def _starts(count: int, shards: int) -> list[tuple[int, int]]:
    edges = [round(i * count / shards) for i in range(shards + 1)]
    return list(itertools.pairwise(edges))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
