"""Inputs on S3 and HTTP are read like inputs on disk."""

import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import StoreError, UsageError
from segment.inputs.changes import Known
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.bounds import MOST_BYTES
from segment.store.client import Store
from tests.reliability.arena import proxied
from tests.reliability.proxy import Fault
from tests.s3 import S3Server
from tests.web import Web

# The content has the signatures of a JPEG and a PNG.
IMAGES = {f"i/{i:02d}.jpg": b"\xff\xd8\xff" + os.urandom(40_000) for i in range(30)}
LABELS = {f"l/{i:02d}.png": b"\x89PNG\r\n\x1a\n" + os.urandom(2_000) for i in range(30)}
# No control characters: rclone stores such names in another form.
ODD = [
    "a b.png", "p%20q.png", "ü漢.png", "h#x.png", "q?y.png", "plus+.png", "star*.png", "br{1..2}.png", "a&b=c;d.png",
    "quo'te.png",
]  # fmt: skip


class CountingStore(Store):
    """A store that counts reads."""

    reads = 0

    def read(
        self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
    ) -> bytes:
        self.reads += 1
        return super().read(url, start, stop, etag, most)


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
    """Return a bucket with the same images in every format."""
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
    """Return the web server with the same images and index pages of its folders."""
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
    with pytest.raises(UsageError, match="this server ignores byte ranges"):
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
@pytest.mark.parametrize("status", [503, 429, 500])
def test_trouble_of_a_store_is_no_fault_of_an_image(site: Web, status: int) -> None:
    site.put("/i/07.jpg", b"", status=status)
    with pytest.raises(StoreError, match=str(status)):
        find(f"{site.url}/list.txt", Store())


REFUSED: list[dict[str, Any]] = [
    {"status": 403}, {"status": 401}, {"status": 400}, {"status": 414}, {"status": 451}, {"status": 302},
    {"status": 301, "to": "/i/07.jpg"}, {"status": 307, "to": "file:///etc/passwd"},
    {"status": 302, "to": "/forbidden"},
]  # fmt: skip


@pytest.mark.parametrize("how", REFUSED, ids=str)
def test_one_image_and_one_label_that_are_refused_are_error_rows(site: Web, how: dict[str, Any]) -> None:
    site.put("/forbidden", b"no", status=403)
    site.put("/i/07.jpg", b"", **how)
    site.put("/l/09.png", b"", **{**how, **({"to": "/l/09.png"} if how.get("to") == "/i/07.jpg" else {})})
    store = Store()
    found = find(f"{site.url}/list.txt", store)
    faults = {s.id: s.fault for s in samples(found, store) if s.fault}
    assert faults == {"i/07.jpg": "unreachable", "i/09.jpg": "label_unreachable"}
    image, label = found.warnings
    assert image.startswith(
        "1 of 30 images listed cannot be read and will be error rows, e.g. line 8: could not look up"
    )
    assert label.startswith(
        "1 of 30 labels listed cannot be read and will be error rows, e.g. line 10: could not look up"
    )


def test_a_folder_that_is_called_as_the_header_of_a_list_is_no_image(site: Web) -> None:
    """Web servers answer for a folder, after a redirect to its name with a slash."""
    site.put("/img", b"", status=302, to="/img/")
    site.put("/img/", b"<html>")
    site.put("/headed.txt", b"img\ni/07.jpg\ni/08.jpg\n")
    found = discover(f"{site.url}/headed.txt", InputOptions(), Store())
    assert (found.images, found.notes) == (2, ["the first line is taken as the header: 'img'"])
    site.put("/img", IMAGES["i/00.jpg"])
    assert discover(f"{site.url}/headed.txt", InputOptions(), Store()).images == 3


def test_a_redirect_to_an_image_is_the_image(site: Web) -> None:
    site.put("/elsewhere", IMAGES["i/07.jpg"])
    site.put("/i/07.jpg", b"", status=302, to="/elsewhere")
    store = Store()
    assert [s.image for s in samples(find(f"{site.url}/list.txt", store), store)] == list(IMAGES.values())


@pytest.mark.parametrize("folder", ["i", "l"])
def test_a_store_that_refuses_every_image_or_label_is_an_error(site: Web, folder: str) -> None:
    for name in (*IMAGES, *LABELS):
        if name.startswith(folder):
            site.put(f"/{name}", b"", status=403)
    with pytest.raises(StoreError, match="permission denied"):
        find(f"{site.url}/list.txt", Store())


def test_an_update_segments_what_was_refused_before(site: Web) -> None:
    site.put("/i/07.jpg", b"", status=403)
    store = Store()
    planned = find(f"{site.url}/list.txt", store, part_size=2)
    site.put("/i/07.jpg", IMAGES["i/07.jpg"])
    known = Known(planned.parts)
    found = discover(f"{site.url}/list.txt", InputOptions(part_size=2), store, known)
    assert [s.id for s in samples(found, store)] == ["i/06.jpg", "i/07.jpg"]
    assert (known.new, known.replaced, known.gone) == (0, 1, 0)
    site.put("/i/07.jpg", b"", status=403)  # refused now, valid before: it stays planned
    known = Known(find(f"{site.url}/list.txt", store).parts)
    assert discover(f"{site.url}/list.txt", InputOptions(), store, known).parts == []


def test_on_s3_one_refused_object_is_a_row_and_all_are_an_error(
    bucket: tuple[str, Store], s3_server: S3Server, tmp_path: Path
) -> None:
    url, _ = bucket
    (tmp_path / "l.txt").write_text("".join(f"{url}/{name}\n" for name in [*IMAGES][:9]) + f"{url}/i/no.jpg\n")
    (tmp_path / "mixed.txt").write_text(f"{url}/{next(iter(IMAGES))}\nnoimage.png\nlocal.png\n")
    (tmp_path / "local.png").write_bytes(b"there")
    with proxied(s3_server, Fault("status", key="/i/07.jpg", times=None, code="AccessDenied")) as proxy:
        store = Store({**s3_server.options, "endpoint_url": proxy.url})
        found = find(str(tmp_path / "l.txt"), store, allow_input=[url])
    faults = [m.fault for part in found.parts for m in part.members]
    assert faults == [None] * 7 + ["unreachable", None, "missing"]
    with proxied(s3_server, Fault("status", key="/i/", times=None, code="AccessDenied")) as proxy:
        store = Store({**s3_server.options, "endpoint_url": proxy.url})
        for name in ("l.txt", "mixed.txt"):  # if all of S3 is refused, the credentials are wrong
            with pytest.raises(StoreError, match="permission denied"):
                find(str(tmp_path / name), store, allow_input=[url])
    stranger = Store(s3_server.options | {"secret": "wrong"})
    with pytest.raises(StoreError):
        find(str(tmp_path / "mixed.txt"), stranger, allow_input=[url])


def test_objects_of_a_folder_that_must_not_be_listed(
    bucket: tuple[str, Store], s3_server: S3Server, tmp_path: Path
) -> None:
    """Permission to read does not imply permission to list: then each object is looked up."""
    url, store = bucket
    for number in range(70):
        store.write(f"{url}/many/{number}.jpg", b"there")
    (tmp_path / "l.txt").write_text("".join(f"{url}/many/{number}.jpg\n" for number in range(72)))
    with proxied(s3_server, Fault("status", key="list-type", times=None, code="AccessDenied")) as proxy:
        opened = Store({**s3_server.options, "endpoint_url": proxy.url})
        found = find(str(tmp_path / "l.txt"), opened, allow_input=[url])
        assert proxy.log
    assert sum(m.fault is None for part in found.parts for m in part.members) == 70


@pytest.mark.usefixtures("no_waiting")
def test_an_unknown_host(site: Web, tmp_path: Path) -> None:
    known = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        if host == "nobody.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *arguments, **more)

    (tmp_path / "l.txt").write_text(f"{site.url}/i/01.jpg\nhttp://nobody.invalid/a.png\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        found = find(str(tmp_path / "l.txt"), Store(), allow_input=[site.url, "http://nobody.invalid"])
    assert [m.fault for part in found.parts for m in part.members] == [None, "unreachable"]
    (tmp_path / "l.txt").write_text(f"{site.url}/i/01.jpg\nhttp://127.0.0.1:1/a.png\n")
    with pytest.raises(StoreError, match="the host cannot be reached"):  # an outage, which may end soon
        find(str(tmp_path / "l.txt"), Store(), allow_input=[site.url, "http://127.0.0.1:1"])


def parquet_of(**columns: Any) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    return data.getvalue()


def test_rows_of_parquet_that_name_images_by_url(site: Web, tmp_path: Any) -> None:
    site.put("/i/secret.jpg", b"x", status=403)
    rows = [
        f"{site.url}/i/00.jpg?X-Amz-Signature=abc", f"{site.url}/i/none.jpg", f"{site.url}/i/secret.jpg",
        "nowhere://i/a.jpg", f"{site.url}/i/01.jpg",
    ]  # fmt: skip
    labels = [f"{site.url}/l/00.png", None, None, None, f"{site.url}/l/none.png"]
    (tmp_path / "a.parquet").write_bytes(parquet_of(image_url=rows, label_url=labels))
    store = Store()
    read = samples(find(str(tmp_path / "a.parquet"), store, allow_input=[site.url]), store)
    assert [(s.image, s.label, s.fault) for s in read] == [
        (IMAGES["i/00.jpg"], LABELS["l/00.png"], None), (b"", None, "missing"), (b"", None, "unreachable"),
        (b"", None, "bad_reference"), (IMAGES["i/01.jpg"], None, "label_missing"),
    ]  # fmt: skip
    assert not [s.id for s in read if "Signature" in s.id]


def test_rows_of_parquet_that_name_images_beside_it(site: Web, bucket: tuple[str, Store]) -> None:
    names = list(IMAGES)[:3]
    data = parquet_of(image_path=[f"../{name}" for name in names] + ["/etc/passwd", "../i/none.jpg"])
    site.put("/q/a.parquet", data)
    url, store = bucket
    store.write(f"{url}/q/a.parquet", data)
    for place, opened in ((f"{site.url}/q/a.parquet", Store()), (f"{url}/q/a.parquet", store)):
        read = samples(find(place, opened), opened)
        assert [s.image for s in read] == [*(IMAGES[name] for name in names), b"", b""]
        assert [s.fault for s in read] == [None, None, None, "not_allowed", "missing"]


@pytest.mark.usefixtures("no_waiting")
def test_trouble_of_a_store_is_no_fault_of_a_row_of_parquet(site: Web, tmp_path: Any) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet_of(url=[f"{site.url}/i/00.jpg", f"{site.url}/i/01.jpg"]))
    store = Store()
    found = find(str(tmp_path), store, allow_input=[site.url])
    site.put("/i/01.jpg", b"x", status=503)
    with pytest.raises(StoreError, match="503"):
        samples(found, store)
    site.put("/i/01.jpg", IMAGES["i/01.jpg"])
    assert [s.image for s in samples(found, store)] == [IMAGES["i/00.jpg"], IMAGES["i/01.jpg"]]
