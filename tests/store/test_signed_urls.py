"""Signed URLs: an image has one row whatever its signature, and no output, log or message contains a signature."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged, SegmentError, StoreError, UsageError
from segment.inputs.discover import discover, sign_again
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.report.pictures import read_view
from segment.report.rows import row_at
from segment.runs.driver import run, task_and_plan
from segment.store.access import SignedUrls
from segment.store.client import Store
from segment.store.urls import unsigned, unsigned_name
from tests.jobs import ENGINES, run_on
from tests.reliability.test_secrets import holders
from tests.runs import Notes, Place, expect, png, read_rows, scene
from tests.web import PLANTED, Web

IMAGES = 16
PICTURES = [(png(image), png(mask)) for image, mask in map(scene, range(IMAGES))]
NAMES = [f"{number:02d}.png" for number in range(IMAGES)]


@pytest.fixture
def site(web: Web) -> Web:
    """A store that requires signatures, with images, labels, a tar and a Parquet file."""
    for name, (image, mask) in zip(NAMES, PICTURES, strict=True):
        web.put(f"/i/{name}", image)
        web.put(f"/l/{name}", mask)
    web.put("/t/a.tar", tar_bytes())
    web.put("/p/a.parquet", parquet_bytes())
    web.signed = web.etags = True
    return web


def tar_bytes() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, pair in zip(NAMES, PICTURES, strict=True):
            for suffix, content in zip(("png", "seg.png"), pair, strict=True):
                member = tarfile.TarInfo(f"{name[:2]}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def parquet_bytes() -> bytes:
    data = io.BytesIO()
    images, labels = zip(*PICTURES, strict=True)
    pq.write_table(pa.table({"image": images, "label": labels, "id": NAMES}), data, row_group_size=2)
    return data.getvalue()


def local_list(site: Web, folder: Path) -> str:
    """A local list of signed URLs of images and labels."""
    lines = [f"{site.sign(f'/i/{name}')},{site.sign(f'/l/{name}')}" for name in NAMES]
    (folder / "list.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    return str(folder / "list.csv")


def list_beside_its_images(site: Web, folder: Path) -> str:
    """A list at a signed URL, with names of images relative to it."""
    lines = [
        f'{{"image": "{site.sign(f"/i/{n}").rpartition("/")[2]}", "mask": "{site.sign(f"/l/{n}")}"}}' for n in NAMES
    ]
    site.put("/i/list.jsonl", "\n".join(lines).encode())
    return site.sign("/i/list.jsonl")


def tar(site: Web, folder: Path) -> str:
    return site.sign("/t/a.tar")


def parquet(site: Web, folder: Path) -> str:
    return site.sign("/p/a.parquet")


SOURCES = [local_list, list_beside_its_images, tar, parquet]
Source = Callable[[Web, Path], str]


def flags(place: Place, site: Web, source: str, **changes: Any) -> list[str]:
    """The arguments of a run of a source, whose images the site holds."""
    return place.flags(input=source, allow_input=[site.url], **changes)


class Expiring(Notes):
    """Makes every signature expire once a part is committed."""

    def __init__(self, site: Web) -> None:
        super().__init__()
        self.site = site

    def update(self, tally: Any) -> None:
        self.site.expire()


def planted(folder: Path) -> list[str]:
    """Return the files that contain the planted word, also in cells and metadata of Parquet files."""
    found = holders(folder, PLANTED, "X-Amz-")
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        text = f"{table.to_pylist()} {table.schema.metadata} {pq.read_metadata(path).metadata}"
        found += [str(path)] if PLANTED in text or "X-Amz-" in text else []
    return found + [str(path) for path in folder.rglob("*") if PLANTED in path.name or "Amz" in path.name]


def test_a_planted_signature_would_be_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [f"http://h/a?X={PLANTED}"] * 9}), tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.json").write_text("?X-Amz-Date=1")
    assert {Path(name).name for name in planted(tmp_path)} == {"a.parquet", "b.json"}


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("source", SOURCES)
def test_a_run_whose_signatures_expire_goes_on_with_new_ones(site: Web, tmp_path: Path, source: Source) -> None:
    place, notes = Place(tmp_path), Expiring(site)
    lines = notes.lines

    def job() -> Any:
        return place.job(input=source(site, tmp_path), part_size=2, allow_input=[site.url])

    with pytest.raises(StoreError) as caught:
        run(job(), notes)
    lines.append(str(caught.value))
    done = len(read_rows(place.output))
    assert 0 < done < IMAGES
    old = job()
    site.expire()
    with pytest.raises(SegmentError) as failed:  # the signatures have expired
        run(old, notes)
    lines.append(str(failed.value))
    assert len(read_rows(place.output)) == done
    resumed = Notes()
    run(job(), resumed)
    for seed, row in enumerate(read_rows(place.output)):
        expect(row, seed)
    before = {path: path.read_bytes() for path in place.output.rglob("masks/*/*.parquet")}
    site.expire()
    again = Notes()
    report = run(job(), again, update=True)
    assert "new in the input: 0 images" in again.lines
    assert (report.total.images, report.total.errors, report.complete) == (IMAGES, 0, True)
    assert {path: path.read_bytes() for path in place.output.rglob("masks/*/*.parquet")} == before
    assert audit_run(Ledger(Store(), f"file://{place.output}"), deep=True).problems == ()
    assert planted(place.output) == []
    assert not [line for line in [*lines, *resumed.lines, *again.lines] if PLANTED in line or "X-Amz" in line]
    if source is not local_list:  # it is not beside its images
        assert [row["id"][:2] for row in read_rows(place.output)] == [name[:2] for name in NAMES]
    assert all("?" not in row["id"] + row["uri"] for row in read_rows(place.output))


def test_ids_and_uris_of_signed_images(site: Web, tmp_path: Path) -> None:
    place = Place(tmp_path)
    run(place.job(input=list_beside_its_images(site, tmp_path)), Notes())
    assert [(row["id"], row["uri"]) for row in read_rows(place.output)] == [(n, f"{site.url}/i/{n}") for n in NAMES]


@pytest.mark.parametrize(
    ("engine", "source"),
    [
        ("local-1", local_list),
        ("local-1", tar),
        pytest.param("ray-2", local_list, marks=pytest.mark.ray),
        pytest.param("ray-split", tar, marks=pytest.mark.ray),
    ],
    indirect=["engine"],
)
def test_workers_elsewhere_are_given_the_signatures(engine: str, site: Web, tmp_path: Path, source: Source) -> None:
    place = Place(tmp_path)
    report = run_on(ENGINES[engine], place.job(input=source(site, tmp_path), allow_input=[site.url]))
    assert (report.total.images, report.total.errors) == (IMAGES, 0)
    assert planted(place.output) == []


@pytest.mark.slow
@pytest.mark.parametrize("source", [local_list, tar, parquet])
def test_a_killed_run_from_the_command_line(site: Web, tmp_path: Path, source: Source) -> None:
    """A run is killed while it reads, resumed with new signatures, updated: no message or file has a signature."""
    place, home = Place(tmp_path), tmp_path / "home"
    home.mkdir()

    def start(*more: str, **changes: Any) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "segment",
            *flags(place, site, source(site, tmp_path), **changes),
            *more,
        ]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "HOME": str(home)})

    said = []
    reads = {local_list: 2 * IMAGES, tar: 2, parquet: 3}[source]
    slow = f"/{source.__name__[0]}/a." if source is not local_list else ".png"
    process = start()
    deadline = time.monotonic() + 120
    while len([r for r in site.requests if r[0] == "GET" and slow in r[1]]) <= reads and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    said += process.communicate()
    assert process.returncode == -signal.SIGKILL
    for more in ([], ["--update"], ["--log-format=json"]):
        site.expire()
        process = start(*more)
        said += process.communicate()
        assert process.returncode == 0, said[-1]
    assert len(read_rows(place.output)) == IMAGES
    looked = [sys.executable, "-m", "segment"]
    for command in (
        ["report", str(place.output)],
        ["audit", str(place.output), "--deep"],
        ["status", str(place.output)],
    ):
        said.append(subprocess.run([*looked, *command], capture_output=True, text=True, check=True).stdout)
    printed = subprocess.run(
        [*looked, *flags(place, site, source(site, tmp_path)), "--print-job"],
        capture_output=True,
        text=True,
        check=True,
    )
    said += [printed.stdout, printed.stderr]
    assert planted(place.output) + planted(home) == []
    assert not [text for text in said if PLANTED in text or "X-Amz" in text]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("source", [local_list, tar])
def test_signatures_are_nowhere_on_a_cluster(site: Web, tmp_path: Path, source: Source) -> None:
    """Ray's logs have no signature either, even if workers fail with an expired one."""
    place, home = Place(tmp_path), tmp_path / "home"
    home.mkdir()

    def start() -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "segment",
            *flags(place, site, source(site, tmp_path), engine="ray"),
        ]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env={**os.environ, "RAY_TMPDIR": session, "HOME": str(home)}, **both)

    with tempfile.TemporaryDirectory(prefix="s-", ignore_cleanup_errors=True) as session:  # short: sockets
        failing = start()
        while not (place.output / "plan.parquet").exists():
            assert failing.poll() is None
            time.sleep(0.01)
        site.expire()
        said, _ = failing.communicate(timeout=240)
        assert failing.returncode == 1, said
        assert "permission denied" in said
        ending = start()
        rest, _ = ending.communicate(timeout=240)
        assert ending.returncode == 0, rest
        assert len([path for path in Path(session).rglob("logs/*") if path.is_file()]) > 5
        assert holders(Path(session), PLANTED) == []
    assert planted(place.output) + planted(home) == []
    assert PLANTED not in said + rest


def test_an_overlay_reads_what_a_list_signs_now(site: Web, tmp_path: Path) -> None:
    place = Place(tmp_path)
    run(place.job(input=local_list(site, tmp_path), allow_input=[site.url]), Notes())
    ledger = Ledger(Store(), f"file://{place.output}")
    site.expire()
    task, plan = task_and_plan(ledger)
    assert read_view(ledger, row_at(plan, 0, 0), task).photo is None
    local_list(site, tmp_path)
    task, plan = task_and_plan(ledger)
    assert read_view(ledger, row_at(plan, 0, 0), task).photo is not None


def test_an_image_that_the_list_names_no_more(site: Web, tmp_path: Path) -> None:
    source = local_list(site, tmp_path)
    options = InputOptions(allow_input=[site.url])
    found = discover(source, options, Store())
    assert all(span.signed for part in found.parts for m in part.members for span in (m.image, m.label) if span)
    frozen = Plan.from_bytes(Plan.of(found.parts).to_bytes())
    assert frozen.is_signed
    assert list(frozen.parts()) == found.parts
    header, *lines = Path(source).read_text().splitlines()
    Path(source).write_text("\n".join([header, *lines[:3], *lines[4:]]))
    store = Store()
    sign_again(source, options, store, frozen.is_signed)
    with pytest.raises(InputChanged, match=r"/i/03\.png is not in its list any more"):
        [read_part(part, options, store) for part in frozen.parts()]
    Path(source).unlink()
    with pytest.raises(UsageError, match="there is no list at"):
        sign_again(source, InputOptions(), Store(), frozen.is_signed)


def test_a_finished_run_needs_no_list(site: Web, tmp_path: Path) -> None:
    place = Place(tmp_path)
    source = local_list(site, tmp_path)
    run(place.job(input=source, allow_input=[site.url]), Notes())
    Path(source).unlink()
    site.expire()
    assert run(place.job(input=source, allow_input=[site.url]), Notes()).complete


def test_images_that_differ_by_query_are_different(web: Web, tmp_path: Path) -> None:
    """Only the signature is removed from a query: the other parameters may identify the image."""
    web.etags = True
    for number in range(3):
        web.put(f"/get?id={number}", PICTURES[number][0])
    lines = [f"{web.url}/get?id={number}&token={PLANTED}{number}" for number in range(3)]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    found = discover(str(tmp_path / "l.txt"), InputOptions(allow_input=[web.url]), Store())
    assert found.images == 3
    assert [m.id for part in found.parts for m in part.members] == [f"{web.url}/get?id={n}" for n in range(3)]
    assert found.notes[-1] == "queries of image URLs are part of the image's name and are kept: id x 3"
    assert PLANTED not in repr(found)


def test_one_signature_for_tars_of_a_brace_range(web: Web, tmp_path: Path) -> None:
    """One signature for all objects, such as that of an Azure container."""
    for name in "ab":
        web.put(f"/t/{name}.tar", tar_bytes())
    store = Store()
    url = f"{web.url}/t/{{a,b}}.tar?sv=2024-11-04&se=2026&sig={PLANTED}"
    found = discover(url, InputOptions(), store)
    assert {part.url for part in found.parts} == {f"{web.url}/t/a.tar", f"{web.url}/t/b.tar"}
    later = Store()
    sign_again(url, InputOptions(), later, listed=False)
    for each in (store, later):
        web.requests.clear()
        samples = [sample for part in found.parts for sample in read_part(part, InputOptions(), each)]
        assert len(samples) == 2 * IMAGES
        assert all(PLANTED in target for _, target, _ in web.requests)
    assert PLANTED not in repr((found, samples[0].id, samples[0].url))


def test_an_input_whose_query_names_it(web: Web) -> None:
    web.put("/get.tar?v=1", tar_bytes())
    found = discover(f"{web.url}/get.tar?v=1&token={PLANTED}", InputOptions(), Store())
    assert found.notes[0] == "the query of the input's URL is part of the object's name and is kept: v"
    assert {part.url for part in found.parts} == {f"{web.url}/get.tar?v=1"}


def test_two_signatures_of_one_image(site: Web, tmp_path: Path) -> None:
    one = site.sign("/i/00.png")
    other = one.replace("X-Amz-Expires=900", "X-Amz-Expires=901")
    (tmp_path / "l.csv").write_text(f"image,id\n{one},a\n{other},b\n{site.sign('/i/01.png')},c\n")
    found = discover(str(tmp_path / "l.csv"), InputOptions(allow_input=[site.url]), Store())
    assert found.warnings == [
        "1 image URL differs from an earlier one by the signature alone, and is taken for the same image, "
        f"e.g. {site.url}/i/00.png"
    ]
    assert Plan.of(found.parts).images == 3


def test_a_folder_of_labels_has_no_signature(site: Web, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0][0])
    with pytest.raises(UsageError, match="a signature is for one object, and this is a folder") as caught:
        discover(str(tmp_path), InputOptions(labels=site.sign("/l")), Store())
    assert PLANTED not in str(caught.value)


def test_ids_in_parquet_that_are_signed_urls(site: Web, tmp_path: Path) -> None:
    cells = [{"bytes": image, "path": site.sign(f"/i/{n}")} for n, (image, _) in zip(NAMES, PICTURES, strict=True)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    found = discover(str(tmp_path / "a.parquet"), InputOptions(), Store())
    read = [sample for part in found.parts for sample in read_part(part, InputOptions(), Store())]
    assert [sample.id for sample in read] == [f"{site.url}/i/{name}" for name in NAMES]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=1&X-Amz-Security-Token=2&x-id=GetObject", ""),
        ("AWSAccessKeyId=A&Signature=s%2B%3D&Expires=1", ""),
        ("sv=2024-11-04&ss=b&srt=o&sp=r&se=2026&st=2025&spr=https&sig=abc%3D", ""),
        ("X-Goog-Algorithm=G&X-Goog-Credential=c&X-Goog-Signature=s", ""),
        ("GoogleAccessId=a%40b&Expires=1&Signature=s", ""),
        ("Expires=1&Signature=s&Key-Pair-Id=K", ""),
        ("Policy=p&Signature=s&Key-Pair-Id=K", ""),
        ("OSSAccessKeyId=a&Expires=1&Signature=s&security-token=t", ""),
        ("q-sign-algorithm=sha1&q-ak=a&q-sign-time=1&q-key-time=1&q-header-list=&q-url-param-list=&q-signature=s", ""),
        ("token=abc", ""),
        ("versionId=3&X-Amz-Signature=1", "versionId=3"),
        ("id=1&sig=2", "id=1"),
        ("se=1&st=2", "se=1&st=2"),  # Azure's parameters count only beside the signature
        ("policy=1", "policy=1"),
        ("response-content-type=x", "response-content-type=x"),
        ("a=1&&b=2&", "a=1&b=2"),
        ("%73ig=1&id=2", "id=2"),
        ("a.png", "a.png"),
    ],
)
def test_what_is_a_signature(query: str, kept: str) -> None:
    for url in ("https://host/a/b.png", "HTTPS://host/a/b.png".lower()):
        name = f"{url}?{kept}" if kept else url
        assert unsigned(f"{url}?{query}") == unsigned(f"{url}?{query}#{PLANTED}") == name
        assert unsigned(name) == name
    assert unsigned(f"s3://bucket/b.png?{query}") == f"s3://bucket/b.png?{query}"
    assert unsigned_name(f"b.png?{query}") == (f"b.png?{kept}" if kept else "b.png")


def test_signed_urls_are_found_and_travel() -> None:
    urls = [f"https://host/ü/{n}.png?X-Amz-Signature={PLANTED}{n}" for n in range(300)] + ["https://host/bare.png"]
    signed = SignedUrls([*urls, "file:///a.png", "s3://b/a?sig=1"])
    assert len(signed) == 301
    for copy in (signed, pickle.loads(pickle.dumps(signed))):
        assert [copy.get(unsigned(url)) for url in urls] == urls
        assert [copy.get(url) for url in ("https://host/301.png", "file:///a.png", "")] == [None] * 3
    assert PLANTED not in repr(signed) + repr(Store({}, signed))
    assert (len(SignedUrls(["https://host/bare.png"])), SignedUrls().get("https://host/a")) == (0, None)
    store = Store()
    store.add_signed_urls(urls[:2])
    store.add_signed_urls([urls[0].replace(PLANTED, "new")])
    assert json.dumps(list(store._signed)).count(PLANTED) == 1
