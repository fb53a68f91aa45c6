"""Tests of an output before a run starts: what it is, and one small object is created, read, listed and deleted."""

import re
import secrets
from contextlib import nullcontext, suppress
from pathlib import Path

from segment.errors import StoreError, UsageError
from segment.job import Job
from segment.pipeline.resources import folders_undone
from segment.store.client import Store
from segment.store.names import shown
from segment.store.urls import join_url, to_url

_SIZE = 4096  # bytes of the object
_RANGE = (1000, 3000)  # bytes that are read back; some stores compute other checksums for ranges
# Where Ray unpacks the `--working-dir` of a submitted job.
_COPY_OF_RAY = re.compile(r"/working_dir_files/_ray_pkg_[0-9a-f]+(/|$)")


def check_output(job: Job, store: Store) -> None:
    """Refuse an output that holds the input, is on a web server, is a file, or is lost after the job."""
    source, output = to_url(job.input), to_url(job.output)
    if f"{source}/".startswith(f"{output}/"):
        raise UsageError(f"the output {shown(output)} is, or holds, the input {shown(source)}: choose another output")
    if output.startswith(("http://", "https://")):
        raise UsageError(
            f"the output {shown(output)} is on a web server, where nothing can be written. Give a folder, or a prefix "
            "of a store such as s3://, gs:// or az://"
        )
    if output.startswith("file://") and _COPY_OF_RAY.search(output):
        raise UsageError(
            f"the output {shown(job.output)} is in Ray's copy of the working directory, which Ray deletes after the "
            "job. Give a URL such as s3://bucket/out, or the absolute path of a folder that every node reaches"
        )
    if store.exists(output):
        raise UsageError(f"the output {shown(output)} is a file: give a folder or prefix")
    folders = Path(output.removeprefix("file://")).parents if output.startswith("file://") else ()
    if file := next((folder for folder in folders if folder.exists() and not folder.is_dir()), None):
        raise UsageError(f"the output {shown(output)}: {shown(str(file))} is a file, not a folder")


def probe_output(store: Store, output: str, *, deletes: bool) -> list[str]:
    """Create an object below an output, read a range of it, list it and delete it.

    Args:
        deletes: whether the run may delete committed objects; other runs work without this permission.

    Returns:
        Warnings about what is not possible in this output, one line each.

    Raises:
        StoreError: the output refuses an operation that a run needs; the message says what to do.
    """
    # table readers ignore this name, it is in no folder of a run, and no other driver uses it
    url = join_url(output, f"_preflight-{secrets.token_hex(8)}")
    local = output.startswith("file://")
    with folders_undone(Path(output.removeprefix("file://"))) if local else nullcontext():
        try:
            _try(store, output, url)
        except StoreError as error:
            raise type(error)(f"{shown(output)} cannot take the output of a run: {error}") from None
        return _delete(store, output, url, deletes=deletes)


def _try(store: Store, output: str, url: str) -> None:
    data = bytes(range(256)) * (_SIZE // 256)
    store.write_if_absent(url, data)
    try:
        if store.read(url, *_RANGE) != data[slice(*_RANGE)]:
            raise StoreError(f"{shown(url)} does not return the bytes that were written to it")
        if all(entry.url != url for entry in store.list_folder(output)):
            raise StoreError(
                f"{shown(url)} was written, but is missing in the listing of its folder, which a resumed run needs"
            )
    except FileNotFoundError:
        raise StoreError(f"{shown(url)} was written, but cannot be read back") from None
    except BaseException:
        with suppress(StoreError):
            store.delete(url)
        raise


def _delete(store: Store, output: str, url: str, *, deletes: bool) -> list[str]:
    try:
        store.delete(url)
    except StoreError as error:
        if deletes:
            raise type(error)(
                f"{error}. --update, --retry-errors and --verify need it, since they delete the parts that they repeat"
            ) from None
        return [
            f"warning: nothing can be deleted in {shown(output)}, so --update, --retry-errors and --verify are not "
            f"possible there, and {shown(url)} stays ({error})"
        ]
    return []
