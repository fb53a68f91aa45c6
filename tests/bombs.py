"""Files that are small and far more work than they look: each is made in milliseconds."""

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from segment.images.tiff_tags import LONG, SHORT, Field, encode_directory, file_header


def encoded(kind: str, image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
RGB = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


# --- JPEG -------------------------------------------------------------------------------------------------------------


def many_scans(scans: int, size: tuple[int, int], *, fill: bytes = b"", progressive: bool = True) -> bytes:
    """A JPEG that says to have this size (height, width), and whose last scan comes again and again."""
    data = bytearray(encoded("JPEG", RGB, progressive=progressive))
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, *size)
    last, end = data.rindex(b"\xff\xda"), len(data) - 2
    scan = bytearray(data[last:end])
    if not progressive:  # a scan of the first component alone
        del scan[7:11]
        scan[2:5] = b"\0\x08\x01"
        data[last:end] = scan
        end = last + len(scan)
    return bytes(data[:end] + (fill + bytes(scan)) * (scans - data[:end].count(b"\xff\xda")) + data[end:])


def with_segments(segment: bytes, number: int) -> bytes:
    """A JPEG with such bytes, so many times, before everything else."""
    data = encoded("JPEG", RGB)
    return data[:2] + segment * number + data[2:]


def segment(kind: int, content: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


# --- PNG --------------------------------------------------------------------------------------------------------------


def zeros(mebibytes: int) -> bytes:
    """So many MiB of zeros, as zlib packs them; the checksum at the end is missing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"\x78\x9c" + (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * mebibytes


def like_noise(mebibytes: int) -> bytes:
    """So many MiB of packed pixels that look like those of a photo, and unpack to 300 times as many: random runs."""
    random = np.random.default_rng(0)
    runs = np.repeat(random.integers(0, 256, 10_000, np.uint8), random.integers(400, 1800, 10_000))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(runs.tobytes()) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + piece * ((mebibytes << 20) // len(piece))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(
    packed: bytes, size: tuple[int, int] = (8, 8), before: bytes = b"", behind: bytes = b"", piece: int = 8192
) -> bytes:
    """A grey PNG that says to have this size (height, width), of packed pixels; with chunks before and behind them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0))
    pixels = b"".join(chunk(b"IDAT", packed[at : at + piece]) for at in range(0, len(packed), piece))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + behind + chunk(b"IEND", b"")


def text(kind: bytes, packed: bytes) -> bytes:
    """A chunk of a text or a profile."""
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    return chunk(kind, head + packed)


PIXELS = zlib.compress(bytes(9 * 8))


# --- TIFF and GIF -----------------------------------------------------------------------------------------------------


def tiff(fields: list[Field], content: bytes = b"", *, big: bool = False) -> bytes:
    """A TIFF of 8 x 8 grey pixels but for these tags; `content` begins at byte 16."""
    usual = {
        256: Field(256, SHORT, [8]), 257: Field(257, SHORT, [8]), 258: Field(258, SHORT, [8]),
        259: Field(259, SHORT, [1]), 262: Field(262, SHORT, [1]), 277: Field(277, SHORT, [1]),
    }  # fmt: skip
    tags = list((usual | {field.tag: field for field in fields}).values())
    first = 16 + len(content) + -len(content) % 8
    head = file_header(first, big=big).ljust(16, b"\0")
    return head + content + bytes(-len(content) % 8) + encode_directory(tags, first, 0, big=big)


def shared_strips(strips: int, content: bytes, compression: int = 8, size: int = 0) -> bytes:
    """A TIFF whose strips are all the same bytes of the file."""
    fields = [Field(273, LONG, [16] * strips), Field(279, LONG, [size or len(content)] * strips)]
    height = [Field(257, LONG, [strips]), Field(278, SHORT, [1])]
    return tiff([*fields, *height, Field(259, SHORT, [compression])], content)


def commented_gif(blocks: int) -> bytes:
    """A GIF with a comment of so many blocks."""
    data = encoded("GIF", GREY)
    at = 13 + (3 << (data[10] & 7) + 1)
    return data[:at] + b"!\xfe" + (b"\xff" + b"a" * 255) * blocks + b"\0" + data[at:]


# --- Parquet ----------------------------------------------------------------------------------------------------------


def table_file(table: pa.Table, **options: object) -> bytes:
    data = io.BytesIO()
    pq.write_table(table, data, **options)
    return data.getvalue()


def shared_values(value: bytes, rows: int, *, of: str = "image") -> bytes:
    """A Parquet file whose rows share one large image, or one long id, which is stored once."""
    small = b"\x89PNG\r\n\x1a\n"
    columns = {"image": [value if of == "image" else small] * rows}
    columns["id"] = [value.decode("latin-1") if of == "id" else str(row) for row in range(rows)]
    return table_file(pa.table(columns), compression="zstd", dictionary_pagesize_limit=1 << 30)


def lying_footer(data: bytes) -> bytes:
    """The file with a footer by which its columns and row groups take few bytes."""
    size = struct.unpack("<I", data[-8:-4])[0]
    footer, metadata = bytearray(data[-8 - size : -8]), pq.ParquetFile(io.BytesIO(data)).metadata
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for true in {
            group.total_byte_size,
            *(group.column(i).total_uncompressed_size for i in range(group.num_columns)),
        }:
            number = varint(2 * true)
            footer = (
                footer.replace(number, bytes([0x90] + [0x80] * (len(number) - 2) + [0])) if true > 1 << 16 else footer
            )
    return data[: -8 - size] + bytes(footer) + data[-8:]


def varint(number: int) -> bytes:
    encoded_number = bytearray()
    while number > 127:
        encoded_number.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded_number, number])
