"""Names of objects: what they say about the content, their display in messages, and safe names for outputs."""

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from segment.store.foreign_text import visible
from segment.store.urls import is_http, mask_signatures, redact_url, without_query

_LONGEST_NAME = 120  # bytes of one name in `safe_path`; file systems take 255
_LONGEST_PATH = 700  # bytes of a `safe_path`; S3 takes 1,024 for the whole key
_SHORTENED = 40  # characters kept of a longer path, before its digest, or of a longer text
_LONGEST_SHOWN = 4096  # characters; the longest path of Linux
# Names that Windows reserves for devices, with any suffix.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp")
IMAGE_SUFFIXES = frozenset({*_JPEG, ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff"})
LABEL_SUFFIXES = IMAGE_SUFFIXES | {".gif"}
# Suffixes of files that may hold images or labels, supported or not: skipping one of these is a warning.
DATA_SUFFIXES = LABEL_SUFFIXES | frozenset(
    """
    .jp2 .j2k .jpx .jpf .j2c .jxl .jxr .avif .avifs .heic .heif .hif .svg .psd .exr .hdr .tga .ppm .pgm .pbm .pnm .pfm
    .pcx .ico .dds .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .srw .pef .btf .ecw .sid .img .vrt .dcm .nii .mha .mrc
    .czi .svs .ndpi .qoi .sgi .rgb .ras .xcf .eps .pdf .fits
    .tar .gz .tgz .bz2 .xz .zst .zip .7z .rar .parquet .pq .parq .arrow .arrows .ipc .feather .orc .avro
    .tfrecord .tfrecords .rec .lmdb
    .mdb .beton .h5 .hdf5 .npy .npz .mat .pkl .pt .zarr .lance
    .mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv
    """.split()  # noqa: SIM905
)
# Folders and files that operating systems and NAS devices create among the user's files, in lower case.
_SYSTEM_FOLDERS = frozenset({
    "__macosx", "@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@sharesnap",
    "$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "network trash folder",
    "temporary items", "thevolumesettingsfolder", "found.000", "@__thumb", "~snapshot",
    ".@__thumb", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd", ".documentrevisions-v100",
    ".temporaryitems", ".trash", ".recycle", ".recycle.bin", ".snapshot", ".snapshots", ".zfs", ".stversions",
})  # fmt: skip
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "pspbrwse.jbf", "picasa.ini"})
# A size above 0, as `size_in_bytes` takes it: a decimal number, and a decimal or binary unit if it is not in bytes.
SIZE = r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*) ?([kMGT]i?B)?$"
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def slug(name: str) -> str:
    """Return up to 40 characters of `name` that are safe in any file name and URL."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:40].strip(".-") or "input"


def row_id(row: int) -> str:
    """Return the id of an image in a table without an id column."""
    return f"row-{row:08d}"


def is_storable(text: str) -> bool:
    """Whether `text` is valid Unicode, as Parquet requires of ids."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    """Return a name as valid Unicode; bytes that are not UTF-8 are written as `\\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def suffix_of(name: str) -> str:
    """Return the suffix of a name or URL in lower case, with its dot; `""` if there is none."""
    stem, dot, suffix = basename(name).rpartition(".")
    return f".{suffix.lower()}" if stem and dot and suffix else ""


def basename(url: str) -> str:
    """Return the last name of a URL; for http(s) without query and fragment."""
    if is_http(url):
        url = without_query(url).partition("#")[0]
    return url.rstrip("/").rpartition("/")[2]


def is_image(name: str) -> bool:
    """Whether a name has the suffix of an image."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_label(name: str) -> bool:
    """Whether a name has the suffix of a label image."""
    return suffix_of(name) in LABEL_SUFFIXES


def skip_reason(path: str, *, include_hidden: bool = False) -> Literal["hidden", "system"] | None:
    """Return why a relative path is not part of a data set; None if it is.

    `hidden`: a name in it begins with `.` or `_`, the convention of `pyarrow.dataset`, Spark, Hive and Delta.
    `system`: a NAS device, Windows or macOS has created the file or a folder that contains it.

    >>> skip_reason("a/0001.jpg"), skip_reason("_temporary/0/a.parquet"), skip_reason("@eaDir/0001.jpg/THUMB.jpg")
    (None, 'hidden', 'system')
    """
    names = path.split("/")
    *folders, last = (name.lower() for name in names)
    if last in _SYSTEM_FILES or last.startswith("._") or not _SYSTEM_FOLDERS.isdisjoint(folders):
        return "system"
    if not include_hidden and any(name.startswith((".", "_")) for name in names):
        return "hidden"
    return None


def shown(url: str) -> str:
    """Return a URL or name for a message: without secrets, on one line, all of it visible; a local URL as a path.

    Of one that is longer than any object's, the beginning is shown.
    """
    text = visible(mask_signatures(redact_url(url)))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_SHORTENED]}... ({len(text):,} characters)"


def argument(url: str) -> str:
    """Return a URL or path for a command that a message advises: as `shown`, quoted where a shell needs it.

    >>> argument("my runs/$1"), argument("s3://b/run")
    ("'my runs/$1'", 's3://b/run')
    """
    return shlex.quote(shown(url))


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return `"1 image"`, `"2 images"`, `"12,000 images"`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def size(number: float) -> str:
    """Return a number of bytes in a decimal unit: `"1.4 GB"`, `"412 MB"`, `"0 bytes"`."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.{1 if number < 10 * unit else 0}f} {name}"
    return f"{number:.0f} bytes"


def rate(per_second: float) -> str:
    """Return a rate with one decimal, or one figure of a lower one: `"12.3"`, `"0.4"`, `"0.002"`; `"0.0"` is none.

    >>> rate(1234.56), rate(0.0016), rate(0)
    ('1,234.6', '0.002', '0.0')
    """
    return f"{per_second:.1g}" if 1e-4 <= per_second < 0.05 else f"{per_second:,.1f}"


def size_in_bytes(text: str) -> int:
    """Return the bytes of a size that matches `SIZE`, rounded up: 2,684,354,560 of `"2.5 GiB"`."""
    number = text.rstrip("kMGTiB ")
    return math.ceil(Decimal(number) * _UNITS[text.removeprefix(number).strip(" B")])


def examples(names: Iterable[str], most: int = 1) -> str:
    """Return `"e.g. a, b"` with at most `most` of the names."""
    picked = [shown(name) for _, name in zip(range(most), names, strict=False)]
    return "e.g. " + ", ".join(picked)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return `"'a', 'b' and 3 more"` with at most `most` of the names, quoted as they may contain any character."""
    text = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def by_kind(reasons: Mapping[str, int]) -> str:
    """Return a line for each kind of reasons such as `code: words`, with their number and the words of the first one.

    >>> print(by_kind({"label_value: 9": 1, "empty": 2, "label_value: 7": 4}))
    <BLANKLINE>
    5 x label_value, such as: 9
    2 x empty
    """
    kinds: dict[str, dict[str, int]] = {}
    for text, number in reasons.items():
        kinds.setdefault(text.partition(":")[0], {})[text] = number
    lines = []
    for code, texts in kinds.items():
        words = next(iter(texts)).removeprefix(code)
        lines.append((sum(texts.values()), code + ", such as" * (len(texts) > 1) + words))
    return "".join(f"\n{number} x {line}" for number, line in sorted(lines, key=lambda line: -line[0]))


def safe_path(name: str, suffix: str = ".png") -> str:
    """Turn an id into a relative path without a suffix that stays below its folder on any operating system.

    Its folders do not end with the suffix that its file gets, so that no file `x.png` collides with a folder.

    >>> safe_path("street/0001.png"), safe_path("../../etc/passwd"), safe_path("C:\\\\x?.jpg")
    ('street/0001', '_/_/etc/passwd', 'C_/x_')
    >>> safe_path("a.png/b.png"), safe_path("nul"), safe_path("a./b")
    ('a.png_/b', '_nul', 'a_/b')
    """
    stem = name[: name.rindex(".")] if suffix_of(name) in IMAGE_SUFFIXES else name
    *folders, last = [_safe_part(part) for part in stem.replace("\\", "/").split("/") if part] or ["_"]
    path = "/".join([*(f"{folder}_" if folder.lower().endswith(suffix) else folder for folder in folders), last])
    if len(path.encode()) <= _LONGEST_PATH:
        return path
    return f"{path[:_SHORTENED].rstrip('/')}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _safe_part(part: str) -> str:
    clean = "".join(c if c.isprintable() and c not in '<>:"|?*%#' else "_" for c in part).strip(" ")
    if not clean.strip("."):
        clean = "_"
    if clean.startswith("."):
        clean = "_" + clean[1:]
    if clean.endswith("."):
        clean = clean[:-1] + "_"  # Windows removes a final dot
    if clean.partition(".")[0].rstrip(" ").lower() in _DEVICES:
        clean = "_" + clean
    if len(clean.encode()) > _LONGEST_NAME:
        clean = clean[: _LONGEST_NAME // 4] + "-" + hashlib.sha256(part.encode()).hexdigest()[:16]
    return clean
