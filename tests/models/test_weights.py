"""Weights from files, web servers and S3: found, downloaded once, resumed, verified, or refused."""

import hashlib
import os
import subprocess
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segment.errors import ModelError, StoreError, UsageError
from segment.models.cache import cache_folder
from segment.models.card import ModelCard, WeightsFile, built_in_cards, load_card
from segment.models.weights import Weights, load_weights
from segment.store.client import Entry, Store
from tests.s3 import S3Server
from tests.web import Web

XML = b"<?xml version='1.0'?><net name='n'/>" + bytes(range(64, 127)) * 50
BIN = hashlib.shake_128(b"weights").digest(250_000)
CHUNK = 20_000


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.models.cache._CHUNK", CHUNK)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def digest(data: bytes) -> str:
    return hashlib.sha384(data).hexdigest()


def published(url: str, data: bytes) -> WeightsFile:
    return WeightsFile(url=url, size=len(data), sha384=digest(data))


def card_with(*files: WeightsFile, **changes: Any) -> ModelCard:
    return load_card("unet-camvid-onnx-0001").model_copy(update={"weights": files, **changes})


def ir_card(web: Web, **how: Any) -> ModelCard:
    """Return a card whose files are on the web server; `how` is for the .bin (see `Page`)."""
    return card_with(published(web.put("/m.xml", XML), XML), published(web.put("/m.bin", BIN, **how), BIN))


def files_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def assert_is_the_model(weights: Weights) -> None:
    assert (weights.format, weights.graph, weights.data) == ("ir", XML, BIN)
    assert weights.sha384 == digest(XML + BIN)


# ---- the card's files


def test_downloaded_once_and_verified(web: Web, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    card = ir_card(web)
    weights = load_weights(card, cache=cache, progress=lambda *args: seen.append(args))
    assert_is_the_model(weights)
    assert weights.origin == f"{web.url}/m.xml"
    assert files_in(cache) == sorted([f"{digest(XML)}.xml", f"{digest(BIN)}.bin"])
    assert len(web.fetched("/m.bin")) == -(-len(BIN) // CHUNK)
    of_bin = [done for name, done, total in seen if (name, total) == ("m.bin", len(BIN))]
    assert of_bin == sorted(of_bin)
    assert (of_bin[0], of_bin[-1]) == (0, len(BIN))

    web.requests.clear()
    assert load_weights(card, cache=cache) == weights
    assert web.requests == []


def test_order_in_the_card_does_not_matter_and_cards_share_files(web: Web, cache: Path) -> None:
    card = ir_card(web)
    load_weights(card, cache=cache)
    other = card_with(*reversed(card.weights), name="another")
    web.pages.clear()
    assert_is_the_model(load_weights(other, cache=cache))


def test_goes_on_where_it_broke_off(web: Web, cache: Path, no_waiting: None) -> None:
    card = ir_card(web, stop_after=3)
    with pytest.raises(StoreError, match=r"503.*--weights or save it as .*\.bin$"):
        load_weights(card, cache=cache)
    assert (cache / f"{digest(BIN)}.bin.part").stat().st_size == 3 * CHUNK

    web.pages["/m.bin"].stop_after = -1
    web.requests.clear()
    assert_is_the_model(load_weights(card, cache=cache))
    assert web.fetched("/m.bin")[0] == f"bytes={3 * CHUNK}-{4 * CHUNK - 1}"
    assert not [name for name in files_in(cache) if name.endswith(".part")]


def test_connections_that_drop_are_retried(web: Web, cache: Path, no_waiting: None) -> None:
    card = ir_card(web, drops=3)
    assert_is_the_model(load_weights(card, cache=cache))
    assert len(web.fetched("/m.bin")) == -(-len(BIN) // CHUNK) + 3


@pytest.mark.parametrize(
    "half", [b"x" * 3 * CHUNK, b"x" * (len(BIN) + 5), BIN + b"x"], ids=["damaged", "long", "longer"]
)
def test_a_bad_partial_download_is_replaced(web: Web, cache: Path, half: bytes) -> None:
    card = ir_card(web)
    cache.mkdir()
    (cache / f"{digest(BIN)}.bin.part").write_bytes(half)
    assert_is_the_model(load_weights(card, cache=cache))


def test_a_damaged_file_in_the_cache_is_fetched_again(web: Web, cache: Path) -> None:
    card = ir_card(web)
    load_weights(card, cache=cache)
    (cache / f"{digest(BIN)}.bin").write_bytes(BIN[:-1] + bytes([BIN[-1] ^ 1]))
    web.requests.clear()
    assert_is_the_model(load_weights(card, cache=cache))
    assert web.fetched("/m.bin")
    assert not web.fetched("/m.xml")


@pytest.mark.parametrize("how", [{"ranges": False}, {"head": False}, {"ranges": False, "head": False}], ids=str)
def test_simple_servers_will_do(web: Web, cache: Path, how: dict[str, Any]) -> None:
    assert_is_the_model(load_weights(ir_card(web, **how), cache=cache))


def test_a_server_without_ranges_resumes_too(web: Web, cache: Path) -> None:
    card = ir_card(web, ranges=False)
    cache.mkdir()
    (cache / f"{digest(BIN)}.bin.part").write_bytes(BIN[:CHUNK])
    assert_is_the_model(load_weights(card, cache=cache))


def test_threads_at_once_make_one_download(web: Web, cache: Path) -> None:
    card = ir_card(web)
    together = threading.Barrier(4)

    def load(_: int) -> Weights:
        together.wait()
        return load_weights(card, cache=cache)

    with ThreadPoolExecutor(4) as pool:
        for weights in pool.map(load, range(4)):
            assert_is_the_model(weights)
    ranges = web.fetched("/m.bin")
    assert len(ranges) == len(set(ranges)) == -(-len(BIN) // CHUNK)
    assert len(files_in(cache)) == 2


def test_processes_at_once_make_one_download(web: Web, cache: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(ir_card(web).model_dump_json())
    code = (
        "import sys, pathlib, segment.models.cache; from segment.models.card import ModelCard\n"
        "from segment.models.weights import *\n"
        f"segment.models.cache._CHUNK = {CHUNK // 2}\n"
        "card = ModelCard.model_validate_json(pathlib.Path(sys.argv[1]).read_text())\n"
        "print(load_weights(card, cache=pathlib.Path(sys.argv[2])).sha384)"
    )
    command = [sys.executable, "-c", code, str(card), str(cache)]
    repository = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=repository) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].decode().strip() for process in processes]
    assert outputs == [digest(XML + BIN)] * 2
    assert len(web.fetched("/m.bin")) == -(-len(BIN) // (CHUNK // 2))
    assert len(files_in(cache)) == 2


def test_a_process_that_dies_leaves_no_lock(web: Web, cache: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(ir_card(web).model_dump_json())
    code = (
        "import os, sys, pathlib, segment.models.cache; from segment.models.card import ModelCard\n"
        "from segment.models.weights import *\n"
        f"segment.models.cache._CHUNK = {CHUNK}\n"
        "card = ModelCard.model_validate_json(pathlib.Path(sys.argv[1]).read_text())\n"
        "die = lambda name, done, total: os.kill(os.getpid(), 9) if name == 'm.bin' and done else None\n"
        "load_weights(card, cache=pathlib.Path(sys.argv[2]), progress=die)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(card), str(cache)], cwd=Path(__file__).parents[2], check=False
    )
    assert killed.returncode == -9
    assert (cache / f"{digest(BIN)}.bin.part").stat().st_size == CHUNK
    assert_is_the_model(load_weights(ir_card(web), cache=cache))


def test_local_files_of_a_card_are_read_in_place(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(BIN)
    card = card_with(published(f"file://{tmp_path}/m.onnx", BIN))
    weights = load_weights(card, cache=cache)
    assert (weights.format, weights.graph, weights.data) == ("onnx", BIN, b"")
    assert not cache.exists()

    (tmp_path / "m.onnx").write_bytes(BIN[::-1])
    with pytest.raises(ModelError, match=f"m.onnx: its SHA-384 begins {digest(BIN[::-1])[:12]}.*{digest(BIN)[:12]}"):
        load_weights(card, cache=cache)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelError, match=r"m\.onnx do not exist: correct their url in the card, or .* with --weights$"):
        load_weights(card, cache=cache)


def test_options_of_another_store_do_not_disturb_nor_reach_the_web(web: Web, cache: Path) -> None:
    store = Store({"key": "K", "secret": "S", "anon": True, "client_kwargs": {"endpoint_url": "http://elsewhere"}})
    assert_is_the_model(load_weights(ir_card(web), store=store, cache=cache))


# ---- what can be wrong with a card's files


def test_wrong_bytes_are_named_and_deleted(web: Web, cache: Path) -> None:
    card = ir_card(web)
    web.pages["/m.bin"].body = BIN[::-1]
    with pytest.raises(ModelError) as caught:
        load_weights(card, cache=cache)
    message = str(caught.value)
    assert (
        f"{web.url}/m.bin: its SHA-384 begins {digest(BIN[::-1])[:12]}, the model card says {digest(BIN)[:12]}"
        in message
    )
    assert files_in(cache) == [f"{digest(XML)}.xml"]


def test_wrong_size_is_named_before_anything_is_downloaded(web: Web, cache: Path) -> None:
    card = ir_card(web)
    web.pages["/m.bin"].body = BIN + b"!"
    with pytest.raises(ModelError, match=rf"/m\.bin has {len(BIN) + 1} bytes, the model card says {len(BIN)}"):
        load_weights(card, cache=cache)
    assert not web.fetched("/m.bin")
    assert files_in(cache) == [f"{digest(XML)}.xml"]


def test_not_found(web: Web, cache: Path) -> None:
    card = ir_card(web)
    del web.pages["/m.bin"]
    with pytest.raises(ModelError) as caught:
        load_weights(card, cache=cache)
    assert f"unet-camvid-onnx-0001: its weights are no longer at {web.url}/m.bin (not found)" in str(caught.value)
    assert f"give it with --weights or save it as {cache}/{digest(BIN)}.bin" in str(caught.value)


def test_a_manual_download_to_the_path_in_the_message(cache: Path, no_waiting: None) -> None:
    card = card_with(published("http://127.0.0.1:1/m.tflite?sig=signature", BIN))
    with pytest.raises(StoreError) as caught:
        load_weights(card, cache=cache)
    assert "127.0.0.1:1/m.tflite?***: the host cannot be reached" in str(caught.value)
    assert "and proxy. Or download the file by other means" in str(caught.value)
    assert files_in(cache) == []
    assert "signature" not in str(caught.value)
    Path(str(caught.value).rpartition("save it as ")[2]).write_bytes(BIN)
    assert load_weights(card, cache=cache).graph == BIN


def test_unknown_host(cache: Path, no_waiting: None) -> None:
    card = card_with(published("https://no-such-host.invalid/m.onnx", BIN))
    with pytest.raises(StoreError, match=r"the host cannot be reached: check its name.* --weights or save it as"):
        load_weights(card, cache=cache)


def test_forbidden(web: Web, cache: Path) -> None:
    with pytest.raises(StoreError, match=r"m\.bin: permission denied.* --weights or save it as"):
        load_weights(ir_card(web, status=403), cache=cache)


def test_secret_in_a_url_of_a_card(cache: Path) -> None:
    card = card_with(published("https://user:secret@example.com/m.onnx", BIN))
    with pytest.raises(UsageError, match=r"https://\*\*\*@example.com/m.onnx: credentials in a URL") as caught:
        load_weights(card, cache=cache)
    assert "secret@" not in str(caught.value)


def test_a_card_without_weights() -> None:
    with pytest.raises(
        UsageError, match=r"has no weights to download\. Give the file with --weights; it is from: TensorFlow"
    ):
        load_weights(load_card("deeplabv3-mobilenetv2"))
    with pytest.raises(UsageError, match=r"it is from: \(the card does not say"):
        load_weights(card_with(source=""))


@pytest.mark.parametrize(
    "names", [("m.xml",), ("m.bin",), ("m.onnx", "m.bin"), ("m.onnx", "n.onnx"), ("m.pt",)], ids=str
)
def test_files_that_are_no_model(names: tuple[str, ...]) -> None:
    card = card_with(*(published(f"http://127.0.0.1:1/{name}", BIN) for name in names))
    with pytest.raises(ModelError, match=r"must be one \.onnx or \.tflite file, or an \.xml and a \.bin file, not .*m"):
        load_weights(card)


def test_a_cache_that_cannot_be_written(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cache .*/file/below cannot be used: Not a directory\. Set SEGMENT_CACHE"):
        load_weights(ir_card(web), cache=tmp_path / "file" / "below")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/segment/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/segment/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/segment/weights")
    monkeypatch.setenv("SEGMENT_CACHE", "~/models")
    assert cache_folder() == Path("/home/me/models")


# ---- the user's files


@pytest.mark.parametrize(("suffix", "kind"), [(".onnx", "onnx"), (".tflite", "tflite"), (".ONNX", "onnx")])
def test_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str) -> None:
    path = tmp_path / f"my model 50%{suffix}"
    path.write_bytes(BIN)
    card = load_card("unet-camvid-onnx-0001")
    expected = Weights(kind, BIN, b"", digest(BIN), str(path))  # type: ignore[arg-type]
    assert load_weights(card, str(path)) == load_weights(card, f"file://{path}") == expected
    monkeypatch.chdir(tmp_path)
    assert load_weights(card, path.name) == expected


def test_digests_of_files() -> None:
    """The digest of a model of one file is known, and it may have gigabytes."""
    assert Weights("onnx", BIN, b"", "known", "m.onnx").file_digests == ["known"]
    assert Weights("ir", XML, BIN, digest(XML + BIN), "m.xml").file_digests == [digest(XML), digest(BIN)]


@pytest.mark.parametrize("given", ["m.xml", "m.bin"])
def test_both_files_of_openvino(tmp_path: Path, web: Web, s3_server: S3Server, given: str) -> None:
    card = load_card("unet-camvid-onnx-0001")
    (tmp_path / "m.xml").write_bytes(XML)
    (tmp_path / "m.bin").write_bytes(BIN)
    assert_is_the_model(load_weights(card, str(tmp_path / given)))
    web.put("/a/m.xml", XML)
    web.put("/a/m.bin", BIN)
    assert_is_the_model(load_weights(card, f"{web.url}/a/{given}?token=1"))
    store = Store(s3_server.options)
    bucket = s3_server.bucket_url("weights")
    store.write(f"{bucket}/a b/m.xml", XML)
    store.write(f"{bucket}/a b/m.bin", BIN)
    assert_is_the_model(load_weights(card, f"{bucket}/a b/{given}", store=store))


def test_a_query_is_not_shown(web: Web) -> None:
    web.put("/m.tflite", BIN)
    weights = load_weights(card_with(), f"{web.url}/m.tflite?token=secret")
    assert weights.origin == f"{web.url}/m.tflite?***"
    assert web.requests[-1][1] == "/m.tflite?token=secret"


@pytest.mark.parametrize(("given", "missing"), [("m.xml", "m.bin"), ("m.bin", "m.xml")])
def test_half_of_openvino(tmp_path: Path, given: str, missing: str) -> None:
    (tmp_path / given).write_bytes(BIN)
    with pytest.raises(UsageError, match=f"{given}: an OpenVINO model is two files, and .*/{missing} does not exist"):
        load_weights(card_with(), str(tmp_path / given))
    (tmp_path / given).unlink()
    with pytest.raises(UsageError, match=f"weights /.*/{given}: there is no such file"):
        load_weights(card_with(), str(tmp_path / given))


def test_no_such_file(tmp_path: Path, web: Web) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for reference in (f"{tmp_path}/none.onnx", f"{tmp_path}/folder.onnx", f"{web.url}/none.tflite"):
        with pytest.raises(UsageError, match=rf"weights .*{Path(reference).name}: there is no such file"):
            load_weights(card_with(), reference)


@pytest.mark.parametrize("name", ["m.pt", "model", "m.onnx.zip", "https://example.com/download?file=m.onnx"])
def test_unknown_suffix(name: str) -> None:
    with pytest.raises(UsageError, match=r"weights .*: weights are an \.onnx, \.tflite or \.xml file .*, not '"):
        load_weights(card_with(), name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "this is a Git LFS pointer, .*git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Log in", "this is a web page"),
    ],
    ids=["empty", "lfs", "html"],
)
def test_files_often_confused_with_a_model(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=rf"weights .*/m\.onnx: {words}"):
        load_weights(card_with(), str(tmp_path / "m.onnx"))


def test_a_secret_in_the_reference() -> None:
    with pytest.raises(UsageError) as caught:
        load_weights(card_with(), "https://user:hunter2@example.com/m.onnx")
    assert "credentials in a URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_changes_while_it_is_read(web: Web) -> None:
    url = web.put("/m.onnx", BIN)

    def grow(name: str, done: int, total: int) -> None:
        web.pages["/m.onnx"].body = BIN + b"!"

    with pytest.raises(StoreError, match="changed while it was being read"):
        load_weights(card_with(), url, progress=grow)


def test_a_file_that_goes_while_it_is_read(web: Web, tmp_path: Path) -> None:
    url = web.put("/m.onnx", bytes(5 << 20))  # two requests
    with pytest.raises(StoreError, match="changed while it was being read"):
        load_weights(card_with(), url, progress=lambda *_: web.pages.pop("/m.onnx", None))

    class Deleting(Store):
        def info(self, url: str) -> Entry | None:
            entry = super().info(url)
            (tmp_path / "m.onnx").unlink()
            return entry

    (tmp_path / "m.onnx").write_bytes(BIN)
    with pytest.raises(UsageError, match="there is no such file"):
        load_weights(card_with(), str(tmp_path / "m.onnx"), store=Deleting())


# ---- real weights


@pytest.mark.shared
def test_built_in_cards_have_the_published_digests(shared: Path) -> None:
    toml = tomllib.loads((shared / "models" / "published_weights.toml").read_text())
    known = {f"{toml['base']}/{file['path']}": (file["size"], file["sha384"]) for file in toml["file"]}
    files = [file for name in built_in_cards() for file in load_card(name).weights if file.url.startswith("https://")]
    assert len(files) == 4
    assert [(file.size, file.sha384) for file in files] == [known[file.url] for file in files]


@pytest.mark.shared
def test_the_published_graph_is_fetched_and_accepted(shared: Path, web: Web, cache: Path) -> None:
    data = (shared / "models" / "unet-camvid-onnx-0001.xml").read_bytes()
    xml, _ = load_card("unet-camvid-onnx-0001").weights
    here = xml.model_copy(update={"url": web.put("/unet-camvid-onnx-0001.xml", data)})
    card = card_with(here, published(web.put("/x.bin", BIN), BIN))
    assert load_weights(card, cache=cache).graph == data


@pytest.mark.shared
@pytest.mark.parametrize("name", ["unet32-camvid.onnx", "deeplabv3_mnv2_pascal_quant.tflite"])
def test_real_files_are_unchanged(shared: Path, name: str) -> None:
    path = shared / "models" / name
    assert load_weights(card_with(), os.fspath(path)).graph == path.read_bytes()
