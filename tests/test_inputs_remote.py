"""The same inputs from S3 and http as from disk."""

import io
import os
import tarfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import StoreError, UsageError
from segment.shards import Discovery, InputOptions, Sample, discover, read_part
from segment.store import Store
from tests.s3 import S3Server
from tests.web import Web

IMAGES = {f"i/{i:02d}.jpg": os.urandom(40_000) for i in range(30)}
LABELS = {f"l/{i:02d}.png": os.urandom(2_000) for i in range(30)}
# No control characters: rclone keeps its files under other names for them.
ODD = [
    "a b.png", "p%20q.png", "ü漢.png", "h#x.png", "q?y.png", "plus+.png", "star*.png", "br{1..2}.png", "a&b=c;d.png",
    "quo'te.png",
]  # fmt: skip


class CountingStore(Store):
    """Counts the reads."""

    reads = 0

    def read(self, url: str, start: int | None = None, stop: int | None = None, etag: str = "") -> bytes:
        self.reads += 1
        return super().read(url, start, stop, etag)


def tar_bytes() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for (name, image), label in zip(IMAGES.items(), LABELS.values(), strict=True):
            for suffix, content in (("jpg", image), ("seg.png", label)):
                member = tarfile.TarInfo(f"{name[2:4]}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def parquet_bytes() -> bytes:
    data = io.BytesIO()
    columns = {"image": list(IMAGES.values()), "label": list(LABELS.values()), "id": [n[2:4] for n in IMAGES]}
    pq.write_table(pa.table(columns), data, row_group_size=15)
    return data.getvalue()


def list_bytes() -> bytes:
    return "".join(f"{i} {l}\n" for i, l in zip(IMAGES, LABELS, strict=True)).encode()  # noqa: E741


SOURCES = {**IMAGES, **LABELS, "t/a-000.tar": tar_bytes(), "p/a.parquet": parquet_bytes(), "list.txt": list_bytes()}
INPUTS: list[tuple[str, dict[str, Any]]] = [
    ("i", {"labels": "l"}),
    ("list.txt", {}),
    ("t/a-{000..000}.tar", {}),
    ("t/*.tar", {}),
    ("t", {}),
    ("p", {}),
    ("p/a.parquet", {}),
]


def find(where: str, store: Store, **options: Any) -> Discovery:
    return discover(where, InputOptions(**options), store)


def samples(found: Discovery, store: Store) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(), store)]


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> tuple[str, Store]:
    """A bucket with the same images in every format."""
    store = CountingStore(s3_server.options)
    url = s3_server.bucket_url("inputs")
    for name, data in SOURCES.items():
        store.write(f"{url}/{name}", data)
    for name in ODD:
        store.write(f"{url}/odd/{name}", name.encode())
    return url, store


@pytest.mark.parametrize(("where", "options"), INPUTS)
def test_every_format_from_s3(bucket: tuple[str, Store], where: str, options: dict[str, str]) -> None:
    url, store = bucket
    found = find(f"{url}/{where}", store, **{key: f"{url}/{value}" for key, value in options.items()})
    read = samples(found, store)
    assert [(s.image, s.label) for s in read] == list(zip(IMAGES.values(), LABELS.values(), strict=True))
    assert found.warnings == []
    assert find(f"{url}/{where}", store, **{k: f"{url}/{v}" for k, v in options.items()}).parts == found.parts


def test_a_tar_part_is_one_request_to_s3(bucket: tuple[str, Store]) -> None:
    url, store = bucket
    found = find(f"{url}/t", store, part_size=10)
    assert isinstance(store, CountingStore)
    store.reads = 0
    assert len(samples(found, store)) == 30
    assert store.reads == 3


def test_odd_names_on_s3(bucket: tuple[str, Store]) -> None:
    url, store = bucket
    found = find(f"{url}/odd", store)
    assert sorted(s.id for s in samples(found, store)) == sorted(ODD)
    assert all(s.image.decode() == s.id for s in samples(found, store))


def test_an_empty_bucket_is_not_nothing(s3_server: S3Server) -> None:
    bucket = s3_server.bucket_url("empty-bucket")
    store = Store(s3_server.options)
    for missing in (bucket, f"{bucket}/"):
        with pytest.raises(UsageError, match="s3://empty-bucket is empty: no image"):
            find(missing, store)


def test_nothing_and_no_permission_on_s3(bucket: tuple[str, Store], s3_server: S3Server) -> None:
    url, store = bucket
    for missing in (f"{url}/nowhere", f"{url}/nowhere.tar", f"{url}/*.tar"):
        with pytest.raises(UsageError, match="nothing at s3://"):
            find(missing, store)
    with pytest.raises(UsageError, match=r"nothing at .*a-001\.tar: 1 of 2 are not there"):
        find(f"{url}/t/a-{{000..001}}.tar", store)
    with pytest.raises(StoreError, match="there is no such bucket"):
        find("s3://no-such-bucket-here/x", store)
    stranger = Store(s3_server.options | {"secret": "wrong"})
    with pytest.raises(StoreError, match="credentials are not valid"):
        find(f"{url}/t", stranger)


@pytest.fixture
def site(web: Web) -> Web:
    """The web server with the same images, and pages that list its folders."""
    for name, data in SOURCES.items():
        web.put(f"/{name}", data)
    for folder in ("i", "l", "t", "p"):
        links = "".join(f'<a href="{n.partition("/")[2]}">x</a>' for n in SOURCES if n.startswith(f"{folder}/"))
        web.put(f"/{folder}", f"<html>{links}<a href='../'>up</a></html>".encode())
    return web


@pytest.mark.parametrize(("where", "options"), [item for item in INPUTS if "{" not in item[0] and "*" not in item[0]])
def test_every_format_over_http(site: Web, where: str, options: dict[str, str]) -> None:
    store = Store()
    found = find(f"{site.url}/{where}", store, **{key: f"{site.url}/{value}" for key, value in options.items()})
    read = samples(found, store)
    assert [(s.image, s.label) for s in read] == list(zip(IMAGES.values(), LABELS.values(), strict=True))


def test_a_tar_over_http_with_a_query(site: Web) -> None:
    store = Store()
    found = find(f"{site.url}/t/a-000.tar?signature=abc", store)
    assert [s.image for s in samples(found, store)] == list(IMAGES.values())


def test_a_web_server_without_ranges_is_named(site: Web) -> None:
    site.put("/t/a-000.tar", SOURCES["t/a-000.tar"], ranges=False)
    with pytest.raises(UsageError, match="this server ignores ranges"):
        find(f"{site.url}/t/a-000.tar", Store())


def test_nothing_over_http(site: Web) -> None:
    for name in ("nowhere", "nowhere.tar", "nowhere.txt"):
        with pytest.raises(UsageError, match=f"nothing at http://.*/{name}"):
            find(f"{site.url}/{name}", Store())


@pytest.mark.usefixtures("no_waiting")
def test_connections_that_break_are_retried(site: Web) -> None:
    site.put("/t/a-000.tar", SOURCES["t/a-000.tar"], drops=2)
    store = Store()
    assert [s.image for s in samples(find(f"{site.url}/t/a-000.tar", store), store)] == list(IMAGES.values())


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("status", "text"), [(503, "503"), (403, "permission denied")])
def test_a_listed_image_that_cannot_be_looked_up_is_not_missing(site: Web, status: int, text: str) -> None:
    site.put("/i/07.jpg", b"", status=status)
    with pytest.raises(StoreError, match=text):
        find(f"{site.url}/list.txt", Store())
