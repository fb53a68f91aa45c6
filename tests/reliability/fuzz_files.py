"""Sound files for every reader, which `fuzz` damages."""

import io
import json
import tarfile
import zlib
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from segment.inputs.parts import Member, Part, Span
from segment.metrics import Confusion
from segment.output.plan import Plan
from segment.output.tables import ImageRow, write_masks
from tests.bombs import (
    PIXELS,
    encoded,
    lying_footer,
    many_scans,
    png_of,
    segment,
    shared_strips,
    shared_values,
    table_file,
    text,
    with_segments,
    zeros,
)
from tests.runs import CARD, CLASSES, png, scene

UNPACKED = 4 << 20  # bytes that a row group may unpack to, where its rows share values
PICTURE, MASK = scene(1)


def sound_images() -> list[bytes]:
    picture = Image.fromarray(PICTURE)
    plain = [encoded(kind, picture) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")]
    odd = [
        encoded("PNG", picture.convert("P")),
        encoded("TIFF", picture.convert("I;16")),
        encoded("PNG", picture.convert("LA")),
    ]
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(180)]}
    return [
        *plain,
        *odd,
        encoded("JPEG", picture, exif=turned),
        encoded("PNG", picture, exif=turned, **frames),
        encoded("WEBP", picture, exif=turned, **frames),
        encoded("TIFF", picture, tiffinfo={0x0112: 6}, **frames),
    ]


def sound_labels() -> list[bytes]:
    palette = Image.fromarray(MASK, "P")
    palette.putpalette(np.array(CARD.classes.palette, np.uint8).tobytes())
    colours = np.array(CARD.classes.palette, np.uint8)[MASK]
    return [
        png(MASK),
        encoded("PNG", palette),
        png(colours),
        encoded("TIFF", Image.fromarray(MASK)),
        encoded("BMP", palette),
        encoded("GIF", palette),
        encoded("WEBP", Image.fromarray(colours), lossless=True),
        encoded("PNG", Image.fromarray(np.dstack([MASK, np.full_like(MASK, 255)]))),
        encoded("TIFF", Image.fromarray(MASK.astype(np.float32)), compression="tiff_lzw"),
        cv2.imencode(
            ".png", np.dstack([colours[:, :, ::-1].astype(np.uint16) * 257, np.full(MASK.shape, 65535, np.uint16)])
        )[1].tobytes(),
    ]


def sound_windows() -> list[bytes]:
    """TIFFs with tiles and strips of every compression that is unpacked by us, and of some that OpenCV unpacks."""
    files = []
    for name in (None, "zlib", "lzw", "zstd", "lzma", "jpeg", "webp"):
        for layout in ({"tile": (16, 16)}, {"rowsperstrip": 5}):
            file = io.BytesIO()
            order = ">" if len(files) % 3 == 0 else "<"
            tifffile.imwrite(
                file, PICTURE, photometric="rgb", compression=name, byteorder=order, metadata=None, **layout
            )
            files.append(file.getvalue())
    for some in (MASK, MASK.astype(np.uint16)):
        file = io.BytesIO()
        tags = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (274, 3, 1, 6, True)]
        tifffile.imwrite(file, some, tile=(16, 16), compression="zstd", predictor=True, bigtiff=True, extratags=tags)
        files.append(file.getvalue())
    return files


def sound_tars() -> list[bytes]:
    tars = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=form) as tar:
            for name, content in (
                ("0.png", png(PICTURE)),
                ("0.seg.png", png(MASK)),
                ("d/1.jpg", b"x"),
                (f"{'n' * 90}/2.png", b""),
                ("f.1.png", b"x"),
                ("f.2.png", b"x"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.pax_headers = {"comment": "ü"} if form == tarfile.PAX_FORMAT else {}
                tar.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("d/3.png")
            link.type, link.linkname = tarfile.SYMTYPE, "../0.png"
            tar.addfile(link)
        tars.append(data.getvalue())
    return tars


def sound_tables() -> list[bytes]:
    tables = []
    cells: list[Any] = [png(PICTURE), None, b"", png(PICTURE)]
    for compression, version in (("none", "1.0"), ("zstd", "2.6")):
        for image in (pa.array(cells), pa.array([{"bytes": c, "path": f"{i}.png"} for i, c in enumerate(cells)])):
            data = io.BytesIO()
            table = pa.table(
                {"image": image, "label": pa.array([png(MASK), None, b"", None]), "id": ["a", "b", None, "a"]}
            )
            pq.write_table(
                table, data, row_group_size=2, compression=compression, version=version, write_page_checksum=True
            )
            tables.append(data.getvalue())
    return tables


def sound_lists() -> list[bytes]:
    rows = [{"image": "0.png", "label": "1.png", "id": "a"}, {"image": "1.png", "id": 2}]
    return [
        b"0.png 1.png\n1.png\n'a b.png'\t0.png\n",
        b'image,label,id\n0.png,1.png,a\n"1.png",,\n',
        "".join(json.dumps(row) + "\n" for row in rows).encode(),
        b"\xef\xbb\xbf0.png\r\nhttp://127.0.0.1:1/x.png\r\n",
    ]


def sound_jobs() -> list[bytes]:
    return [
        b'input = "in"\noutput = "out"\nmodel = "m"\npart_size = 4\nworkers = "1:2"\n[label_remap]\n7 = "ignore"\n',
        b'input = "s3://a/b"\noutput = "o"\nmodel = "m"\nmax_error_rate = 0.5\nlabel_pattern = "{dir}/{stem}_L.png"\n',
    ]


def sound_works() -> list[bytes]:
    """Images whose work is within its bounds; damage that repeats bytes makes more of it."""
    small = zeros(1)[: 1 << 12]
    return [
        many_scans(30, (400, 400)),
        many_scans(5, (900, 900), progressive=False),
        with_segments(segment(0xE1, b"Exif\0\0" + bytes(60)), 20),
        png_of(zlib.compress(bytes(900 * 901)), (900, 900)),
        png_of(PIXELS, before=text(b"zTXt", small), behind=text(b"iTXt", small) * 3),
        shared_strips(30, zlib.compress(bytes(8))),
    ]


def sound_shares() -> list[bytes]:
    """Tables of a few kilobytes, whose rows share values."""
    column = {"column_encoding": {"image": "DELTA_BYTE_ARRAY"}, "use_dictionary": False}
    large = png(PICTURE) + bytes(UNPACKED // 16)
    shared = pa.table({"image": [large] * 8, "n": range(8)})
    return [
        shared_values(large, 8),
        shared_values(b"a" * (UNPACKED // 16), 8, of="id"),
        table_file(shared, compression="zstd", data_page_version="2.0", **column),
        lying_footer(table_file(shared, compression="gzip", use_dictionary=False)),
    ]


def sound_columns() -> list[bytes]:
    """Columns of a row group, from their first page on."""
    found = []
    for data in [*sound_shares(), *sound_tables()]:
        group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
        for column in (group.column(number) for number in range(group.num_columns)):
            start = column.dictionary_page_offset or column.data_page_offset
            found.append(data[start : start + column.total_compressed_size])
    return found


def sound_responses() -> list[bytes]:
    """What http servers send."""
    head, body = b'HTTP/1.1 200 OK\r\nETag: "a"\r\n', png(PICTURE)
    chunks = b"".join(f"{len(some):x}\r\n".encode() + some + b"\r\n" for some in (body[:50], body[50:], b""))
    return [
        head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        head + b"\r\n" + body,
    ]


PART = Part(
    "abc-000000-000001",
    "in-00000-abc",
    "files",
    "s3://in",
    1,
    "e",
    0,
    1,
    -1,
    (Member("0.png", Span("s3://in/0.png", 0, 9), None),),
)


def sound_outputs() -> list[bytes]:
    counts = Confusion.of(MASK, MASK, CLASSES)
    rows = [ImageRow("0.png", "s3://in/0.png", 0, (24, 32), None, png(MASK), counts, 1.0, 1.0)]
    return [Plan.of([PART]).to_bytes(), write_masks(rows, shard=PART.shard, part=PART.id, fingerprint="f")]
