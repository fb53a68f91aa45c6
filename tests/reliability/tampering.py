"""Ways to tamper with a finished run, and what an attacker does who knows of checksums and of the manifest.

Every way takes the folder of a run of two shards with three parts of two rows, or fewer, each.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segment.images.codec import decode_mask
from segment.images.mask_png import encode_mask
from segment.output.ledger import Ledger
from segment.output.manifest import MANIFEST, Digests
from segment.output.plan import Plan
from segment.output.stored import Stored
from segment.output.tables import to_parquet
from segment.store.client import Store
from tests.bombs import chunk
from tests.runs import jpeg, png

Rows = list[dict[str, Any]]
Way = Callable[[Path], None]


def masks_files(output: Path) -> list[Path]:
    return sorted(output.glob("masks/*/*.parquet"))


def change_rows(file: Path, change: Callable[[Rows], None]) -> None:
    """Change rows and keep all else: schema, footer, checksums that hold."""
    table = pq.ParquetFile(file).read()
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file, write_page_checksum=True)


def change_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value, indent=2, sort_keys=True))


def reseal(output: Path) -> None:
    """Make manifest and `_SUCCESS` anew for what is there now, as an attacker does who may write everything."""
    digests = Digests()
    paths = [path for folder in ("masks", "stats") for path in (output / folder).rglob("*") if path.is_file()]
    for path in [*paths, *(output / "report").glob("*.parquet"), output / "report" / "summary.json"]:
        data = path.read_bytes()
        try:
            rows = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
        except (pa.ArrowException, OSError):
            rows = 0
        digests.made(Stored.of(path.relative_to(output).as_posix(), data, rows))
    (output / MANIFEST).write_bytes(digests.to_bytes([item.path for item in digests.objects()]))
    named = {
        name: hashlib.sha256((output / name).read_bytes()).hexdigest()
        for name in (MANIFEST, "plan.parquet", "run.json")
    }
    change_json(output / "_SUCCESS", lambda success: success.update(sha256=named))


# --- rows of masks files ----------------------------------------------------------------------------------------------


def swap(*names: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for name in names:
            rows[0][name], rows[1][name] = rows[1][name], rows[0][name]

    return change


def give(**values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update(values)


def give_mask(make: Callable[[np.ndarray], bytes]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[0]["mask"] = {"bytes": make(decode_mask(rows[0]["mask"]["bytes"])), "path": None}

    return change


def give_cells(change: Callable[[list[int], list[int]], None]) -> Callable[[Rows], None]:
    return lambda rows: change(rows[0]["confusion"]["cell"], rows[0]["confusion"]["count"])


def repainted(mask: np.ndarray) -> bytes:
    """The mask with some pixels of another class."""
    mask = mask.copy()
    mask[3:6, 4:9] = (mask[3:6, 4:9] + 1) % 3
    return encode_mask(mask)


def turned_by_exif(mask: np.ndarray) -> bytes:
    """The same pixels, with a chunk by which Hugging Face's `datasets` turns them upside down, and OpenCV does not."""
    data, orientation = encode_mask(mask), b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0"
    return data[:33] + chunk(b"eXIf", orientation) + data[33:]


def one_id(rows: Rows) -> None:
    for row in rows:
        row["id"], row["uri"] = rows[0]["id"], rows[0]["uri"]


def count_more(cells: list[int], counts: list[int]) -> None:
    counts[0] += 5


def move_counts(cells: list[int], counts: list[int]) -> None:
    """From one predicted class to another; as many pixels as before."""
    counts[0] -= 1
    counts[1] += 1


ROWS: dict[str, Callable[[Rows], None]] = {
    "pixels of a mask": give_mask(repainted),
    "a mask of one class": give_mask(lambda mask: encode_mask(np.zeros_like(mask))),
    "a mask of other classes": give_mask(lambda mask: encode_mask((mask + np.uint8(1)) % np.uint8(3))),
    "two masks": swap("mask"),
    "two ids": swap("id"),
    "two ids and URIs": swap("id", "uri"),
    "two counts": swap("confusion"),
    "two counts and scores": swap("confusion", "miou", "pixel_accuracy"),
    "two sizes and masks": swap("mask", "width", "height"),
    "one id for all": one_id,
    "another URI": give(uri="file:///etc/passwd"),
    "another shard": give(shard="other"),
    "another part": give(part="other"),
    "another position": give(index=77),
    "garbage for a mask": give_mask(lambda mask: b"garbage"),
    "an empty mask": give_mask(lambda mask: b""),
    "half a mask": give_mask(lambda mask: encode_mask(mask)[:-30]),
    "a mask of the PNG's header only": give_mask(lambda mask: encode_mask(mask)[:33]),
    "a picture for a mask": give_mask(lambda mask: png(np.zeros((24, 32, 3), np.uint8))),
    "a JPEG for a mask": give_mask(lambda mask: jpeg(np.zeros((24, 32, 3), np.uint8))),
    "a mask that some readers turn": give_mask(turned_by_exif),
    "a mask of 16 bits": give_mask(lambda mask: png(mask.astype(np.uint16))),
    "a mask of another size": give_mask(lambda mask: encode_mask(mask[:-1])),
    "a mask that is turned": give_mask(lambda mask: encode_mask(np.ascontiguousarray(mask.T))),
    "a mask of a value that is no class": give_mask(lambda mask: encode_mask(np.full_like(mask, 200))),
    "no mask": give(mask=None),
    "a path for a mask": give(mask={"bytes": None, "path": "../../../etc/passwd"}),
    "an unknown status": give(status="done"),
    "a status without its error": give(status="error"),
    "an error of an ok row": give(error="undecodable: the image is damaged"),
    "an error that nobody knows": give(status="error", error="fate", confusion=None, miou=None, pixel_accuracy=None),
    "another width": give(width=33),
    "width and height": lambda rows: rows[0].update(width=rows[0]["height"], height=rows[0]["width"]),
    "no size": give(width=None),
    "another score": give(miou=0.123),
    "no score": give(miou=None),
    "another pixel accuracy": give(pixel_accuracy=0.99),
    "no counts": give(confusion=None),
    "counts of more pixels": give_cells(count_more),
    "counts of another class": give_cells(move_counts),
    "a count below 0": give_cells(lambda cells, counts: counts.__setitem__(0, -counts[0])),
    "a cell below 0": give_cells(lambda cells, counts: cells.__setitem__(0, -1)),
    "a cell beyond the last": give_cells(lambda cells, counts: cells.__setitem__(-1, 20)),
    "a cell twice": give_cells(lambda cells, counts: cells.__setitem__(1, cells[0])),
    "a cell without a count": give_cells(lambda cells, counts: counts.pop()),
}  # fmt: skip

# --- statistics -------------------------------------------------------------------------------------------------------

STATS: dict[str, Callable[[Rows], None]] = {
    **{name: partial(lambda name, rows: rows[0].update({name: rows[0][name] + 7}), name)
       for name in ("tp", "fp", "fn", "label_pixels", "predicted_pixels", "class_id", "images", "errors", "scored")},
    "iou": give(iou=0.99),
    "image_miou_sum": give(image_miou_sum=0.5),
    "class_name": swap("class_name"),
    "shard": give(shard="other"),
    "confusion": swap("confusion"),
    "fewer rows": lambda rows: rows.pop(),
}  # fmt: skip

# --- run.json ---------------------------------------------------------------------------------------------------------


def swap_classes(run: dict[str, Any]) -> None:
    names = run["card"]["classes"]["names"]
    names[0], names[1] = names[1], names[0]


def swap_classes_of_both(run: dict[str, Any]) -> None:
    swap_classes(run)
    run["contract"]["card"]["classes"]["names"] = run["card"]["classes"]["names"]


RECORD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "class names swapped": swap_classes,
    "class names swapped twice": swap_classes_of_both,
    "ignore": lambda run: run["card"]["classes"].update(ignore=[1, 255]),
    "palette": lambda run: run["card"]["classes"]["palette"].reverse(),
    "convention": lambda run: run["card"]["metric"].update(convention="mmseg"),
    "scored_at": lambda run: run.update(scored_at="model"),
    "fingerprint": lambda run: run.update(fingerprint="f" * 64),
    "weights": lambda run: run["weights"].update(sha384="0" * 96),
    "images": lambda run: run["input"].update(images=1),
    "contract": lambda run: run["contract"].update(max_pixels=7),
}

# --- objects ----------------------------------------------------------------------------------------------------------


def drop_shard(output: Path) -> None:
    """From plan, masks and stats."""
    plan = Plan.from_bytes((output / "plan.parquet").read_bytes())
    shard, parts = list(plan.parts_by_shard().items())[-1]
    (output / "plan.parquet").write_bytes(plan.without(set(parts)).to_bytes())
    shutil.rmtree(output / "masks" / shard)
    (output / "stats" / f"{shard}.parquet").unlink()


def copy_to(name: str) -> Way:
    def way(output: Path) -> None:
        first = masks_files(output)[0]
        target = output / name.format(shard=first.parent.name, part=first.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, target)

    return way


def overwrite(pattern: str, data: bytes) -> Way:
    return lambda output: min(output.glob(pattern)).write_bytes(data)


def cut(pattern: str) -> Way:
    def way(output: Path) -> None:
        file = min(output.glob(pattern))
        file.write_bytes(file.read_bytes()[:-40])

    return way


def exchange_parts(output: Path) -> None:
    first, second = masks_files(output)[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def other_plan(output: Path) -> None:
    plan = Plan.from_bytes((output / "plan.parquet").read_bytes())
    urls = pa.array(["file:///etc"] * len(plan), pa.string())
    at = plan.rows().schema.get_field_index("url")
    (output / "plan.parquet").write_bytes(Plan(plan.rows().set_column(at, "url", urls)).to_bytes())


def other_figures(output: Path) -> None:
    file = output / "report" / "classes.parquet"
    table = pq.read_table(file)
    values = pa.array([0.999] * len(table), pa.float64())
    file.write_bytes(to_parquet(table.set_column(table.schema.get_field_index("iou"), "iou", values)))


def forget_a_part(output: Path) -> None:
    """In the manifest."""
    table = pq.read_table(output / MANIFEST)
    pq.write_table(table.slice(0, len(table) - 1), output / MANIFEST)


OBJECTS: dict[str, Way] = {
    "a shard dropped from plan, masks and stats": drop_shard,
    "a second file in a nested folder": copy_to("masks/{shard}/nested/{part}.parquet"),
    "a second file in a hidden folder": copy_to("masks/_old/{part}.parquet"),
    "a second file beside the folders": copy_to("masks/{part}.PARQUET"),
    "a copy of a file": copy_to("masks/{shard}/{part}.parquet.bak"),
    "statistics of nobody": copy_to("stats/a/b/x.parquet"),
    "a mask of nobody": copy_to("masks/{shard}/_{part}-000000-0123456789abcdef.tif"),
    "two parts exchanged": exchange_parts,
    "a part lost": lambda output: masks_files(output)[0].unlink(),
    "a part emptied": overwrite("masks/*/*.parquet", b""),
    "garbage for a part": overwrite("masks/*/*.parquet", b"PAR1garbagePAR1"),
    "a part cut off": cut("masks/*/*.parquet"),
    "statistics lost": lambda output: min(output.glob("stats/*")).unlink(),
    "statistics emptied": overwrite("stats/*", b""),
    "statistics cut off": cut("stats/*"),
    "a part for statistics": lambda output: shutil.copy(masks_files(output)[0], min(output.glob("stats/*"))) and None,
    "the plan emptied": overwrite("plan.parquet", b""),
    "the plan cut off": cut("plan.parquet"),
    "URLs of the plan": other_plan,
    "run.json emptied": overwrite("run.json", b""),
    "a list for run.json": overwrite("run.json", b"[]"),
    "deep JSON for run.json": overwrite("run.json", b"[" * 100_000),
    "run.json of other kinds": overwrite("run.json", b'{"contract": [1], "fingerprint": {}, "card": 7}'),
    "figures": other_figures,
    "the summary": lambda output: change_json(output / "report/summary.json", lambda value: value.update(scored=99)),
    "figures lost": lambda output: (output / "report" / "shards.parquet").unlink(),
    "totals of _SUCCESS": lambda output: change_json(output / "_SUCCESS", lambda value: value.update(images=3)),
    "garbage for _SUCCESS": overwrite("_SUCCESS", b"\xff garbage"),
    "_SUCCESS without digests": lambda output: change_json(output / "_SUCCESS", lambda value: value.pop("sha256")),
    "the manifest lost": lambda output: (output / MANIFEST).unlink(),
    "the manifest cut off": cut(MANIFEST),
    "a part forgotten in the manifest": forget_a_part,
}  # fmt: skip


def ledger_of(output: Path) -> Ledger:
    return Ledger(Store(), f"file://{output}")
