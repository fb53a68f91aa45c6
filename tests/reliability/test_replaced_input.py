"""An input object that is replaced after the plan was made is told by its etag, by the very request that reads it."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parquet import row_groups
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.output.plan import Plan
from segment.store import local_files
from segment.store.client import Store
from tests.reliability.arena import proxied
from tests.runs import png, scene
from tests.s3 import S3Server

PICTURES = [png(scene(seed)[0]) for seed in range(4)]
OTHERS = [data[:-1] + bytes([data[-1] ^ 1]) for data in PICTURES]  # of the same size


def as_files(pictures: list[bytes]) -> dict[str, bytes]:
    return {f"{number}.png": data for number, data in enumerate(pictures)}


def as_tar(pictures: list[bytes]) -> dict[str, bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number, data in enumerate(pictures):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return {"a.tar": packed.getvalue()}


def as_parquet(pictures: list[bytes]) -> dict[str, bytes]:
    packed = io.BytesIO()
    table = pa.table({"image": pictures})
    pq.write_table(table, packed, row_group_size=2, compression="none", use_dictionary=False, write_statistics=False)
    return {"a.parquet": packed.getvalue()}


def plan(store: Store, url: str) -> Discovery:
    return discover(url, InputOptions(part_size=2), store)


def read(store: Store, found: Discovery) -> list[Sample]:
    """Read it all, by the plan as it comes back from its file, in a process that has read nothing before."""
    parts = Plan.from_bytes(Plan.of(found.parts).to_bytes()).parts()
    return [sample for part in parts for sample in read_part(part, InputOptions(part_size=2), store)]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_files", row_groups.RecentCache(8))
    monkeypatch.setattr(row_groups, "_tables", row_groups.RecentCache(2))


@pytest.mark.parametrize("make", [as_files, as_tar, as_parquet])
def test_replaced_by_another_of_the_same_size(make: object, s3_server: S3Server) -> None:
    assert callable(make)
    store, bucket = Store(s3_server.options), s3_server.bucket_url("replaced")
    url = f"{bucket}/{make.__name__}"
    sound, other = make(PICTURES), make(OTHERS)
    for name, data in sound.items():
        store.write(f"{url}/{name}", data)
    found = plan(store, url)
    assert [sample.image for sample in read(store, found)] == PICTURES
    name = max(sound)
    assert (len(other[name]), other[name] == sound[name]) == (len(sound[name]), False)
    store.write(f"{url}/{name}", other[name])
    row_groups._files, row_groups._tables = row_groups.RecentCache(8), row_groups.RecentCache(2)
    with pytest.raises(InputChanged) as caught:
        read(store, found)
    back = "Restore the original file, or plan its new content with --update."
    assert str(caught.value) == f"{url}/{name} has changed since the run was planned. {back}"
    store.delete(f"{url}/{name}")
    with pytest.raises(InputChanged, match="has vanished since the run was planned"):
        read(store, found)
    store.write(f"{url}/{name}", sound[name])
    assert [sample.image for sample in read(store, found)] == PICTURES  # S3's etag is of the content


def test_it_costs_no_request(s3_server: S3Server) -> None:
    """One GET an image, one a part of a tar; not even the look-up that fsspec does before it reads."""
    bucket = s3_server.bucket_url("counted")
    with proxied(s3_server) as proxy:
        store = Store({**s3_server.options, "endpoint_url": proxy.url})
        for make in (as_files, as_tar):
            for name, data in make(PICTURES).items():
                store.write(f"{bucket}/{make.__name__}/{name}", data)
        files, tars = plan(store, f"{bucket}/as_files"), plan(store, f"{bucket}/as_tar")
        proxy.log.clear()
        read(store, files)
        assert sorted(proxy.log) == [("GET", f"/counted/as_files/{number}.png") for number in range(4)]
        proxy.log.clear()
        read(store, tars)
        assert proxy.log == [("GET", "/counted/as_tar/a.tar")] * 2


def test_a_local_file_that_is_written_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is that of the end of the reading, so that no mix of two can pass."""
    path = tmp_path / "0.png"
    path.write_bytes(PICTURES[0])
    found = plan(Store(), str(tmp_path))
    real = local_files.open_local

    def late(target: Path) -> object:
        file = real(target)
        if target == path:
            path.write_bytes(OTHERS[0])
        return file

    with monkeypatch.context() as patch:
        patch.setattr(local_files, "open_local", late)
        with pytest.raises(InputChanged, match="has changed"):
            read(Store(), found)
