"""Index files beside tars (`a.idx` of `a.tar`), as DALI's `wds2idx` writes them: they save reading the whole tar.

The first line is `v1.2` and the number of samples. A line of a sample holds four words for each member: its suffix, the
first byte of its data, its size and its name.
"""

import tarfile
from collections.abc import Iterator, Sequence

from segment.errors import InputChanged, NotAFile, StoreError
from segment.inputs.lookup import in_threads
from segment.inputs.tars.tar_damage import BLOCK, header_in, is_zero
from segment.inputs.tars.told_names import clean_name, names_told
from segment.store.client import Entry, Store
from segment.store.urls import is_http

File = tuple[str, int, int]  # name, first byte, size

_LEAST_BYTES = 16 << 20  # of a tar whose index file is looked for: a smaller one is read as fast
_MOST_BYTES = 256 << 20  # of an index file
_CHECKED = 8  # members whose headers are compared with the tar, evenly spread
_SPACES = 4  # between members, the widest ones, that are searched for members that the index lacks
_MOST_SPACE = 1 << 17  # bytes of one, and of the end mark: attributes, long names, folders and padding take less
_NO_FILES = (b"x", b"X", b"g", b"L", b"K", b"V", tarfile.DIRTYPE)  # attributes, long names, a volume name, folders


def index_url(tar: str) -> str:
    """Return the URL of the index file of a tar.

    >>> index_url("s3://b/train/0001.tar")
    's3://b/train/0001.idx'
    """
    return f"{tar.removesuffix('.tar')}.idx"


def read_index(entry: Entry, store: Store) -> list[File] | None:
    """Return the files of a tar by its index file; None if there is none, or if the tar says otherwise.

    Some bytes of the tar are read, so that the index of another tar, or of an earlier version, is not taken for that of
    this one: headers of the first and the last member and of some between; the widest spaces between members, where
    there may be a file that the index lacks, or a link; and all after the last member, where members or another tar may
    have been added. Damage of the tar elsewhere is not found.
    """
    if entry.size < _LEAST_BYTES or not entry.url.endswith(".tar") or is_http(entry.url):
        return None
    try:
        data = store.read_if_exists(index_url(entry.url), most=_MOST_BYTES)
        files = _parse(data, entry.size) if data else None
        return files if files and _matches(files, entry, store) else None
    except (StoreError, InputChanged, NotAFile):  # such as a store that forbids to read the index: the tar itself tells
        return None


def _parse(data: bytes, size: int) -> list[File] | None:
    """Parse an index file of a tar of `size` bytes; None if it is none."""
    try:
        first, *lines = data.decode().splitlines()
        version, samples = first.split(" ")
        if version != "v1.2" or int(samples) != len(lines):
            return None
        files = [file for line in lines for file in _members(line.split(" "))]
    except ValueError:
        return None
    files.sort(key=lambda file: file[1])
    is_sound = all(begin <= end and end % BLOCK == 0 for begin, end in _spaces(files))
    return files if is_sound and files and files[-1][1] + files[-1][2] <= size else None


def _members(words: Sequence[str]) -> list[File]:
    """Return the members of a sample. Raises ValueError: it is no line of an index, or a name contains spaces."""
    if len(words) % 4:
        raise ValueError
    members = [(words[i + 3], int(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 4)]
    suffixes = words[::4]
    if any(size < 0 or not name.endswith(suffix) for (name, _, size), suffix in zip(members, suffixes, strict=True)):
        raise ValueError
    return members


def _end(file: File) -> int:
    """Return the offset of what follows a file, whose data is padded."""
    _, start, size = file
    return -(-(start + size) // BLOCK) * BLOCK


def _spaces(files: Sequence[File]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of what is before the header of each file and after the file before it."""
    end = 0
    for file in files:
        yield end, file[1] - BLOCK
        end = _end(file)


def _matches(files: Sequence[File], entry: Entry, store: Store) -> bool:
    """Return whether the tar is what the index says, as far as is read."""
    last = len(files) - 1
    some = sorted({last * number // (_CHECKED - 1) for number in range(_CHECKED)})
    spaces = sorted((space for space in _spaces(files) if space[0] < space[1]), key=lambda space: space[0] - space[1])

    def read(begin: int, end: int) -> bytes:
        return store.read(entry.url, begin, end, entry.etag)

    def is_there(file: File) -> bool:
        name, start, size = file
        return clean_name(name) in names_told(read, start, size)

    def is_no_file(space: tuple[int, int]) -> bool:
        return space[1] - space[0] <= _MOST_SPACE and _holds_no_file(read(*space))

    end = _end(files[-1])
    return (
        BLOCK <= entry.size - end <= _MOST_SPACE
        and is_zero(read(end, entry.size))
        and all(in_threads(is_there, [files[number] for number in some]))
        and all(in_threads(is_no_file, spaces[:_SPACES]))
    )


def _holds_no_file(data: bytes) -> bool:
    """Return whether the bytes are headers of no files and links, with what belongs to them."""
    offset = 0
    while offset < len(data):
        header = header_in(data[offset : offset + BLOCK])
        if header is None or header.type not in _NO_FILES or header.size < 0:
            return False
        offset += BLOCK + (0 if header.isdir() else -(-header.size // BLOCK) * BLOCK)
    return offset == len(data)
