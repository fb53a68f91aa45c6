"""Lists and Parquet files name what is below their own prefix, or what `allow_input` adds; no other row is blamed."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.large_files import open_span
from segment.inputs.own_scope import scope_of
from segment.inputs.parts import Sample, Span
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.output.plan import Plan
from segment.store.client import Store
from segment.store.scope import NotAllowed
from tests.web import Web

KINDS = ["csv", "json", "parquet"]
JPEG = b"\xff\xd8\xff picture"
PNG = b"\x89PNG\r\n\x1a\n label"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a list, with an image and a label; the same beside it, which strangers must not read."""
    for place in ("in", "out"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.jpg").write_bytes(JPEG + place.encode())
        (tmp_path / place / "a.png").write_bytes(PNG + place.encode())
    return tmp_path / "in"


def table(kind: str, rows: list[tuple[str, str]]) -> bytes:
    """Image and label of each row, and an id, as a list or a Parquet file."""
    named = [{"image_path": image, "mask_path": label, "id": f"n{n}"} for n, (image, label) in enumerate(rows)]
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(named), sink)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
    if kind == "json":
        return json.dumps(named).encode()
    if kind == "jsonl":
        return "\n".join(map(json.dumps, named)).encode()
    mark = {"csv": ",", "tsv": "\t"}[kind]
    return "\n".join(mark.join(row.values()) for row in named).encode()


def read(where: str, store: Store | None = None, **options: Any) -> tuple[Discovery, list[Sample]]:
    """Plan an input, freeze the plan, and read its parts as another process would."""
    store, how = store or Store(), InputOptions(**options)
    found = discover(where, how, store)
    parts = list(Plan.from_bytes(Plan.of(found.parts).to_bytes()).parts())
    assert parts == found.parts
    return found, [sample for part in parts for sample in read_part(part, how, Store(scope=store.scope))]


def faults(samples: list[Sample]) -> list[str | None]:
    return [sample.fault for sample in samples]


@pytest.mark.parametrize("kind", KINDS)
def test_local_lists_and_tables(folder: Path, kind: str) -> None:
    outside = folder.parent / "out"
    (folder / "link.jpg").symlink_to("../out/a.jpg")
    (folder / "up").symlink_to("..")
    images = [
        "../out/a.jpg", f"{outside}/a.jpg", f"file://{outside}/a.jpg", f"FILE://{folder}/../out/a.jpg", "link.jpg",
        f"local://{outside}/a.jpg", "up/out/a.jpg", "/etc/passwd", "s3://bucket/a.jpg", "http://169.254.169.254/a.jpg",
    ]  # fmt: skip
    rows = [("a.jpg", "a.png"), *((image, "a.png") for image in images), (f"{folder}/a.jpg", f"{outside}/a.png")]
    (folder / f"l.{kind}").write_bytes(table(kind, rows))
    found, samples = read(f"{folder}/l.{kind}")
    assert faults(samples) == [None, *["not_allowed"] * len(images), "label_not_allowed"]
    assert [(s.image, s.label) for s in samples[1:-1]] == [(b"", None)] * len(images)
    assert (samples[0].image, samples[0].label, samples[-1].image) == (JPEG + b"in", PNG + b"in", JPEG + b"in")
    told = [line for line in found.warnings if "--allow-input" in line]
    assert len(told) == 2
    assert f"--allow-input {outside} allows it" in told[1]
    store = Store()
    found, samples = read(f"{folder}/l.{kind}", store, allow_input=[outside])
    assert faults(samples) == [*[None] * 8, *["not_allowed"] * 3, None]
    assert {s.image for s in samples[1:8]} == {JPEG + b"out"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_strangers(folder: Path, kind: str) -> None:
    (folder / f"l.{kind}").write_bytes(table(kind, [(f"{folder.parent}/out/a.jpg", "a.png")]))
    with pytest.raises(UsageError, match=f"--allow-input {folder.parent}/out allows it"):
        discover(f"{folder}/l.{kind}", InputOptions(), Store())
    found, samples = read(f"{folder}/l.{kind}", allow_input=(f"{folder.parent}/out/",))
    assert (faults(samples), found.warnings) == ([None], [])


@pytest.mark.parametrize("kind", KINDS)
def test_lists_and_tables_of_a_bucket(kind: str, folder: Path) -> None:
    store = Store()
    for bucket in ("allowed", "other"):
        store.write(f"memory://{bucket}/i/a.jpg", JPEG)
    images = [
        "i/a.jpg", "../i/a.jpg", "memory://allowed/i/a.jpg", "MEMORY:///allowed/i/a.jpg",
        "memory://other/i/a.jpg", "memory:///other/i/a.jpg", "memory://allowed/../other/i/a.jpg",
        f"{folder}/a.jpg", f"file://{folder}/a.jpg",
        "simplecache::memory://other/i/a.jpg", "zip://a.jpg::memory://other/i/a.zip", "memory://allowed",
    ]  # fmt: skip
    store.write(f"memory://allowed/l.{kind}", table(kind, [(image, "i/a.jpg") for image in images]))
    found, samples = read(f"memory://allowed/l.{kind}", store)
    assert faults(samples) == [
        *[None] * 4, *["not_allowed"] * 5, "missing", "bad_reference", "bad_reference"
    ]  # fmt: skip
    assert "--allow-input" in " ".join(found.warnings)
    _, samples = read(f"memory://allowed/l.{kind}", store, allow_input=["memory://other/", str(folder)])
    assert faults(samples)[4:9] == [None, None, "not_allowed", None, None]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_redirects(web: Web, kind: str) -> None:
    elsewhere = web.url.replace("127.0.0.1", "localhost")
    web.put("/a.jpg", JPEG)
    web.put("/near.jpg", b"", status=302, to="/a.jpg")
    web.put("/far.jpg", b"", status=307, to=f"{elsewhere}/a.jpg")
    web.put("/chain.jpg", b"", status=301, to="/far.jpg")
    web.put("/metadata.jpg", b"", status=302, to="http://169.254.169.254/latest/meta-data/iam")
    web.put("/file.jpg", b"", status=302, to="file:///etc/passwd")
    names = ["a.jpg", "near.jpg", "far.jpg", "chain.jpg", "metadata.jpg", "file.jpg", "/a.jpg", f"{elsewhere}/a.jpg"]
    names[6] = f"{web.url}/a.jpg"
    web.put(f"/l.{kind}", table(kind, [(name, "a.jpg") for name in names]))
    _, samples = read(f"{web.url}/l.{kind}")
    refused = ["not_allowed"] * 3
    assert faults(samples) == [None, None, *refused, "unreachable", None, "not_allowed"]
    assert [path for _, path, _ in web.requests if "far" in path]
    _, samples = read(f"{web.url}/l.{kind}", allow_input=[elsewhere])
    assert faults(samples) == [None, None, None, None, "not_allowed", "unreachable", None, None]


def test_a_redirect_that_comes_after_the_plan(web: Web) -> None:
    """The server is as good as gold until its images are read."""
    for name in ("a", "b", "c"):
        web.put(f"/{name}.jpg", JPEG)
    web.put("/l.txt", b"a.jpg\nb.jpg\nc.jpg\n")
    store = Store()
    (part,) = discover(f"{web.url}/l.txt", InputOptions(), store).parts
    web.put("/b.jpg", b"", status=302, to="http://127.0.0.2/secret.jpg")
    assert faults(read_part(part, InputOptions(), store)) == [None, "not_allowed", None]


def test_a_list_that_redirects(web: Web) -> None:
    web.put("/l.csv", b"", status=302, to=web.url.replace("127.0.0.1", "localhost") + "/m.csv")
    web.put("/m.csv", b"a.jpg\n")
    with pytest.raises(UsageError, match=r"--allow-input http://localhost:\d+/ allows it"):
        discover(f"{web.url}/l.csv", InputOptions(), Store())


@pytest.fixture
def rebound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's names lead to this machine and to the metadata service."""
    known = socket.getaddrinfo
    led = {"here.test": "127.0.0.1", "cloud.test": "169.254.169.254"}

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        return known(led.get(host, host), *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("rebound")
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_names_that_lead_to_this_machine(web: Web, folder: Path, kind: str) -> None:
    web.put("/a.jpg", JPEG)
    port = web.url.rpartition(":")[2]
    hosts = [f"http://here.test:{port}", "http://cloud.test", "http://169.254.169.254", "http://2130706433"]
    rows = [("a.jpg", "a.png"), *((f"{host}/a.jpg", "a.png") for host in hosts)]
    (folder / f"l.{kind}").write_bytes(table(kind, rows))
    _, samples = read(f"{folder}/l.{kind}", allow_input=hosts[:2])
    assert faults(samples) == [None, *["not_allowed"] * 4]
    assert web.requests == []
    _, samples = read(f"{folder}/l.{kind}", allow_input=[hosts[0], f"{web.url}/"])  # the user names the address
    assert faults(samples)[:2] == [None, None]
    with pytest.raises(UsageError, match=r"here\.test \(127\.0\.0\.1\) is an address of this machine"):
        discover(f"http://here.test:{port}/l.csv", InputOptions(), Store())


@pytest.fixture
def irregular(folder: Path) -> Iterator[list[str]]:
    """What is no regular file: devices, a pipe, a socket, files of the kernel, a folder."""
    os.mkfifo(folder / "pipe.jpg")
    listening = socket.socket(socket.AF_UNIX)
    short = os.open(folder, os.O_RDONLY)
    listening.bind(f"/proc/self/fd/{short}/s.jpg")  # the name of a socket is of 107 bytes at most
    os.close(short)
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "d.jpg").mkdir()
    yield [
        "pipe.jpg",
        "s.jpg",
        "/dev/zero",
        "zero.jpg",
        "/dev/tty",
        "/proc/self/environ",
        "/proc/kmsg",
        "/sys/power/state",
    ]
    listening.close()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_only_regular_files_are_opened(folder: Path, irregular: list[str], kind: str, many: bool) -> None:
    there = [name for name in irregular if (folder / name).exists() or name == "s.jpg"]
    fillers = [f"none-{number}.jpg" for number in range(70 if many else 0)]  # then the folder is listed instead
    rows = [(name, "a.png") for name in ["a.jpg", *there, "d.jpg", *fillers]] + [("a.jpg", name) for name in there]
    (folder / f"l.{kind}").write_bytes(table(kind, rows))
    _, samples = read(f"{folder}/l.{kind}", allow_input=["/dev", "/proc", "/sys"], part_size=200)
    found = faults(samples)
    number = len(there)
    assert found[0] is None
    assert found[1 : number + 1] == ["not_a_file"] * number
    assert found[number + 1] == ("not_a_file" if kind == "parquet" else "missing")
    assert found[number + 2 + len(fillers) :] == ["label_not_a_file"] * number if kind == "parquet" else True


def test_a_file_that_becomes_a_pipe_has_changed(folder: Path) -> None:
    store = Store()
    (part,) = discover(str(folder), InputOptions(), store).parts
    (folder / "a.jpg").unlink()
    os.mkfifo(folder / "a.jpg")
    with pytest.raises(InputChanged, match="has changed since the run was planned"):
        read_part(part, InputOptions(), store)


def test_folders_follow_their_links(folder: Path) -> None:
    """Links in a folder are part of it, as the README says; only what data names is held."""
    (folder / "link.jpg").symlink_to("../out/a.jpg")
    _, samples = read(str(folder))
    assert JPEG + b"out" in [sample.image for sample in samples]


def test_a_part_without_a_run_may_name_what_its_own_list_may(folder: Path) -> None:
    (folder / "l.txt").write_text(f"a.jpg\n{folder.parent}/out/a.jpg\n")
    options = InputOptions(allow_input=[str(folder.parent / "out")])
    (part,) = discover(f"{folder}/l.txt", options, Store()).parts
    assert faults(read_part(part, options, Store())) == [None, None]
    assert faults(read_part(part, InputOptions(), Store())) == [None, "not_allowed"]


def test_a_list_that_is_a_link_names_what_is_beside_the_link(folder: Path) -> None:
    (folder.parent / "out" / "list.csv").write_bytes(table("csv", [("a.jpg", "a.png"), ("../out/a.jpg", "a.png")]))
    (folder / "list.csv").symlink_to("../out/list.csv")
    _, (own, other) = read(str(folder / "list.csv"))
    assert (own.image, own.label, own.fault) == (JPEG + b"in", PNG + b"in", None)
    assert other.fault == "not_allowed"


@pytest.mark.parametrize("input", ["list.csv", "list.parquet"])
def test_whoever_reads_for_a_list_follows_no_link(folder: Path, input: str) -> None:  # noqa: A002
    """A large TIFF and its georeference, for example, which are opened by the plan alone."""
    (folder / input).write_bytes(table(input.partition(".")[2], [("a.jpg", "a.png")]))
    (folder / "link.jpg").symlink_to("../out/a.jpg")
    scope = scope_of(str(folder / input), InputOptions())
    span = Span(f"file://{folder}/link.jpg", 0, 8, "")
    if input == "list.csv":
        with pytest.raises(NotAllowed):
            open_span(span, Store(scope=scope)).read(8)
    assert not scope.named.allows(span.url)
    assert open_span(span, Store(scope=scope_of(str(folder), InputOptions()))).read(8) == JPEG[:8]
