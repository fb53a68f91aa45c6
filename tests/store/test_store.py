"""The store: local folders, S3, http and other fsspec protocols; odd names, faults, messages."""

import os
import pickle
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.errors import NoCredentials, NotAFile, SegmentError, StoreError, StoreRefused, UsageError
from segment.store.client import Entry, Store
from segment.store.filesystems import parse_storage_option
from segment.store.request_errors import is_taken, is_transient, store_error
from segment.store.urls import is_url, join_url, parent_url, redact_text, redact_url, relative_url, to_url
from tests.s3 import S3Server
from tests.web import Web

ODD = [
    "a b.png", "50%.png", "a%20b.png", "üñí漢.png", "#1.png", "a?b=c.png", "[x].png", "star*.png", "{1..2}.png", "~",
    "a&b=c;d.png", "quo'te\".png", "-f", "+.png", "a:b@c.png", "emoji😀", "trailing ", ".hidden", "back\\slash",
]  # fmt: skip
LOCAL_ODD = [*ODD, "new\nline.png", "tab\t.png", os.fsdecode(b"not-utf8-\xff.png")]  # rclone renames control characters


# ---- URLs


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("/data/a b%20.png", "file:///data/a b%20.png"),
        ("/data/../a/./b/", "file:///a/b"),
        ("file:///data/x/", "file:///data/x"),
        ("file:/data/x/", "file:///data/x"),
        ("FILE://localhost/data/x", "file:///data/x"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("s3://bucket/a:b@c.png", "s3://bucket/a:b@c.png"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("/data/user:name@host.png", "file:///data/user:name@host.png"),
    ],
)
def test_to_url(reference: str, url: str) -> None:
    assert to_url(reference) == url
    assert to_url(url) == url


def test_to_url_of_relative_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert to_url("x.png") == f"file://{tmp_path}/x.png"
    assert to_url("~/x.png") == "file:///home/me/x.png"
    assert to_url("~0/x.png") == f"file://{tmp_path}/~0/x.png"  # no such user
    with pytest.raises(UsageError, match="an empty string is not a path or URL"):
        to_url("")
    for almost in ("s3:/bucket/out", "S3:bucket/out", "gs//bucket", "az:/KEY:HUSH@x", "https:/host/a", "file:data/x"):
        with pytest.raises(UsageError, match=r"no URL: those begin with [a-zA-Z0-9]+://") as caught:
            to_url(almost)
        assert "HUSH" not in str(caught.value)
    for relative in ("file://data/x", "local://data/x", "file://~/x", "file://"):
        with pytest.raises(
            UsageError, match=r"an absolute path has three slashes, (file|local):///, a relative one no "
        ):
            to_url(relative)
    for path in ("./s3:/bucket", "s3", "s3/out", "/data/s3:/x", "gsx:/a", "az-photos//a", "C:/a"):
        assert to_url(path).startswith("file:///")


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:HUSH@bucket/x", "s3://KEY:HUSH/and+more@bucket/x", "https://user:HUSH@host:80/x", "https://HUSH@host/x",
        "https://user:HU@SH@host/x", "http://u:12345HUSH@host", "s3://:HUSH@bucket", "s3://KEY:1HUSH/x@bucket/x",
    ],
)  # fmt: skip
def test_secrets_in_a_url_are_refused_and_not_echoed(url: str) -> None:
    with pytest.raises(UsageError, match="credentials in a URL would end up in logs and outputs") as caught:
        to_url(url)
    for word in ("HUSH", "HU@", "SH@", "12345"):
        assert word not in str(caught.value)
        assert word not in redact_url(url)


def test_redact_url() -> None:
    assert redact_url("https://host/a.png?X-Amz-Signature=abc") == "https://host/a.png?***"
    assert redact_url("file:///a?b.png") == "/a?b.png"
    assert redact_url("s3://bucket/a?b.png") == "s3://bucket/a?b.png"


def test_join_parent_relative() -> None:
    assert join_url("s3://b/p", "a", "b.png") == "s3://b/p/a/b.png"
    assert join_url("s3://b/p/q", "../x.png") == "s3://b/p/x.png"
    assert join_url("s3://b/p", "./x.png") == "s3://b/p/x.png"
    assert join_url("s3://b/p", "/x.png") == "file:///x.png"
    assert join_url("s3://b/p", "https://h/x.png") == "https://h/x.png"
    assert join_url("file:///", "x.png") == "file:///x.png"
    assert parent_url("s3://b/p/x.png") == "s3://b/p"
    assert parent_url("s3://b") == "s3://b"
    assert parent_url("file:///x.png") == "file:///"
    assert parent_url("https://h/p/x.png?a=b/c") == "https://h/p"
    assert relative_url("s3://b/p/q/x.png", "s3://b/p/") == "q/x.png"
    assert relative_url("s3://c/p/x.png", "s3://b/p") == "x.png"


@given(st.lists(st.sampled_from(ODD), min_size=1, max_size=4))
def test_a_name_joined_is_the_name_that_comes_back(names: list[str]) -> None:
    url = join_url("s3://bucket", *names)
    assert relative_url(url, "s3://bucket") == "/".join(names)
    assert parent_url(url) == join_url("s3://bucket", *names[:-1])


def test_storage_options() -> None:
    assert parse_storage_option("anon=true") == ("anon", True)
    assert parse_storage_option("use_ssl=false") == ("use_ssl", False)
    assert parse_storage_option("key=007") == ("key", "007")
    assert parse_storage_option("secret=a=b") == ("secret", "a=b")
    assert parse_storage_option('client_kwargs={"verify": false}') == ("client_kwargs", {"verify": False})
    assert parse_storage_option("x={not json") == ("x", "{not json")
    for text in ("HUSH", "=HUSH"):
        with pytest.raises(UsageError, match="takes key=value") as caught:
            parse_storage_option(text)
        assert "HUSH" not in str(caught.value)


# ---- the same behaviour of every store


@pytest.fixture(params=["local", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, str]:
    """Return a store and an empty folder in it."""
    if request.param == "local":
        return Store(), f"file://{tmp_path}/folder"
    if request.param == "memory":
        return Store(), f"memory://{tmp_path.name}"
    server: S3Server = request.getfixturevalue("s3_server")
    return Store(server.options), f"{server.bucket_url('store')}/{tmp_path.name}"


def test_write_read_info(place: tuple[Store, str]) -> None:
    store, folder = place
    url = f"{folder}/sub/a.bin"
    assert (store.info(url), store.exists(url), store.read_if_exists(url)) == (None, False, None)
    with pytest.raises(FileNotFoundError):
        store.read(url)
    store.write(url, b"0123456789")
    assert store.read(url) == b"0123456789"
    assert store.read(url, 2, 5) == b"234"
    assert store.read(url, 7) == b"789"
    assert store.read(url, 3, 3) == b""
    found = store.info(url)
    assert found is not None
    assert (found.url, found.size) == (url, 10)
    assert store.exists(url)
    assert store.info(f"{folder}/sub") is None  # a folder is not an object
    store.write(url, b"")
    assert (store.read(url), store.info(url).size) == (b"", 0)  # type: ignore[union-attr]


def test_a_file_is_written_without_reading_it_whole(place: tuple[Store, str], tmp_path: Path) -> None:
    store, folder = place
    file, url = tmp_path / "long", f"{folder}/sub/copy.bin"
    for data in (b"0123456789" * 200_000, b""):
        file.write_bytes(data)
        store.write(url, file)
        assert store.read(url) == data
    assert [entry.url for entry in store.list(folder)] == [url]


def test_list(place: tuple[Store, str]) -> None:
    store, folder = place
    assert store.list(folder) == store.list_folder(folder) == []
    names = ["b.png", "a/2.png", "a/1.png", "a/c/d/e.png", "a.png", "B.png", "x.tmp-0123456789abcdef"]
    for name in names:
        store.write(f"{folder}/{name}", name.encode())
    store.write(f"{folder}-more/a.png", b"beside, not below")
    found = store.list(folder)
    assert [e.url for e in found] == sorted(f"{folder}/{name}" for name in names[:-1])
    assert [e.size for e in found] == [len(relative_url(e.url, folder)) for e in found]
    assert store.list(folder + "/") == found
    assert found == [store.info(e.url) for e in found]
    assert [e.url for e in store.list_folder(folder)] == [f"{folder}/{n}" for n in ("B.png", "a.png", "b.png")]
    assert store.list(f"{folder}/a.png") == []


def test_read_many_and_open(place: tuple[Store, str]) -> None:
    store, folder = place
    data = os.urandom(100_000)
    store.write(f"{folder}/big", data)
    store.write(f"{folder}/small", b"s")
    urls = [f"{folder}/{name}" for name in ("small", "none", "big", "small")]
    assert [store.read_if_exists(url) for url in urls] == [b"s", None, data, b"s"]
    with store.open(urls[2], block_size=1000) as file:
        assert file.read(10) == data[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(50_000)
        assert file.read(3000) == data[50_000:53_000]
    with pytest.raises(FileNotFoundError):
        store.open(urls[1])


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_odd_names(kind: str, tmp_path: Path, s3_server: S3Server) -> None:
    local = kind == "local"
    store = Store() if local else Store(s3_server.options)
    folder = f"file://{tmp_path}" if local else f"{s3_server.bucket_url('odd')}/o d%20d"
    names = LOCAL_ODD if local else ODD
    for name in names:
        store.write(f"{folder}/{name}/{name}", os.fsencode(name))
    for name in names:
        url = f"{folder}/{name}/{name}"
        assert store.read(url) == os.fsencode(name)
        assert store.info(url).url == url  # type: ignore[union-attr]
        assert [e.url for e in store.list(f"{folder}/{name}")] == [url]
    assert [e.url for e in store.list(folder)] == sorted(f"{folder}/{name}/{name}" for name in names)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_etag_changes_with_the_content(kind: str, tmp_path: Path, s3_server: S3Server) -> None:
    store = Store() if kind == "local" else Store(s3_server.options)
    url = f"file://{tmp_path}/x" if kind == "local" else f"{s3_server.bucket_url('etags')}/x"
    seen: list[Entry | None] = []
    for data in (b"one", b"two"):
        store.write(url, data)
        assert store.info(url) == store.info(url)
        seen.append(store.info(url))
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0].size == seen[1].size
    assert "" != seen[0].etag != seen[1].etag


# ---- local folders


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    store, url = Store(), f"file://{tmp_path}/x"
    store.write(url, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # like a full disk: some bytes fit
    try:
        with pytest.raises(StoreError, match=r"could not write .*/x: .*File too large"):
            store.write(url, b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (store.read(url), names_in(tmp_path)) == (b"old", ["x"])


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    with pytest.raises(StoreError, match="could not write"):
        Store().write(f"file://{tmp_path}/x", b"data")
    assert names_in(tmp_path) == ["x"]
    with pytest.raises(NotAFile, match=r"x: it is a folder, and a file is expected$"):
        Store().read(f"file://{tmp_path}/x")


def test_readers_see_the_old_object_or_the_new_one(tmp_path: Path) -> None:
    store, url = Store(), f"file://{tmp_path}/x"
    contents = [bytes([digit]) * 200_000 for digit in b"01"]
    store.write(url, contents[0])
    done = threading.Event()
    torn: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            data = store.read(url)
            if data not in contents:
                torn.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        store.write(url, contents[turn % 2])
    done.set()
    reader.join()
    assert torn == []
    assert [e.url for e in store.list(f"file://{tmp_path}")] == [url]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"1234")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.png").symlink_to("../real/a.png")
    (tmp_path / "in" / "folder").symlink_to("../real")
    (tmp_path / "in" / "circle").symlink_to(".")
    (tmp_path / "in" / "broken.png").symlink_to("nowhere")
    store, folder = Store(), f"file://{tmp_path}/in"
    found = store.list(folder)
    assert [(relative_url(e.url, folder), e.size) for e in found] == [("file.png", 4), ("folder/a.png", 4)]
    assert found == [store.info(e.url) for e in found]
    before = store.info(f"{folder}/file.png")
    store.write(f"file://{tmp_path}/real/a.png", b"4321")
    assert store.info(f"{folder}/file.png") != before


def test_below_a_file_or_a_name_too_long_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for url in (f"file://{tmp_path}/file/below", f"file://{tmp_path}/{'x' * 300}"):
        assert Store().info(url) is None
        assert Store().list(url) == []
    with pytest.raises(StoreError, match="could not write"):
        Store().write(f"file://{tmp_path}/file/below", b"")


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run without root's permissions, which allow every access."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_permission_denied(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "x").write_bytes(b"1")
    store = Store()
    store.list(f"file://{tmp_path}")
    closed.chmod(0)
    request.getfixturevalue("nobody")
    for attempt in (store.read, store.info, store.open, lambda url: store.write(url, b"2")):
        with pytest.raises(StoreError, match=rf"could not .* {closed}/x: permission denied"):
            attempt(f"file://{closed}/x")
    with pytest.raises(StoreError, match=rf"could not list {closed}: permission denied"):
        store.list(f"file://{closed}")


# ---- credentials


class DefaultCredentialsError(Exception):
    """Stands for the error of google-auth."""


class CredentialUnavailableError(Exception):
    """Stands for the error of azure-identity."""


@pytest.mark.parametrize(
    ("url", "error", "advice"),
    [
        ("gs://b/x", DefaultCredentialsError("File /nope.json was not found."), "set GOOGLE_APPLICATION_CREDENTIALS"),
        (
            "gs://b/x",
            OSError("Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object."),
            "set GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (
            "az://b/x",
            ValueError("Must provide either a connection_string or account_name with credentials!!"),
            "set AZURE_STORAGE_ACCOUNT_NAME",
        ),
        ("az://b/x", CredentialUnavailableError("no token"), "set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_missing_credentials_of_other_stores(url: str, error: Exception, advice: str) -> None:
    """The drivers are not installed for the tests; the messages are theirs."""
    assert not is_transient(error, url)
    found = store_error("read", url, error)
    assert isinstance(found, NoCredentials)
    assert found.exit_code == 2
    assert advice in str(found)


def test_expired_and_wrong_credentials_are_not_missing() -> None:
    for words in ("ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        found = store_error("read", "s3://b/x", OSError(f"An error occurred ({words}) when calling GetObject"))
        assert isinstance(found, StoreRefused)
        assert not isinstance(found, NoCredentials)
        assert found.exit_code == 1


def test_a_driver_that_refuses_its_options_is_a_known_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """adlfs raises a ValueError if no account is given: the message must not say 'unknown protocol'."""

    class Refusing(fsspec.AbstractFileSystem):
        protocol = "refusing"

        def __init__(self, **options: object) -> None:
            raise ValueError("Must provide either a connection_string or account_name with credentials!!")

    fsspec.register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(NoCredentials, match="no credentials were found"):
        Store().read("refusing://b/x")
    with pytest.raises(UsageError, match="unknown protocol unheard://"):
        Store().read("unheard://b/x")


# ---- S3


def test_missing_bucket(s3_server: S3Server) -> None:
    store, url = Store(s3_server.options), "s3://no-such-bucket/folder/x"
    attempts = {
        "read": store.read, "look up": store.info, "list": store.list, "write": lambda url: store.write(url, b"1"),
    }  # fmt: skip
    for verb, attempt in attempts.items():
        with pytest.raises(StoreError) as caught:
            attempt(url)
        assert str(caught.value) == f"could not {verb} {url}: there is no such bucket"
    with pytest.raises(StoreError, match="there is no such bucket"):
        store.list_folder(url)


@pytest.mark.parametrize("wrong", [{"secret": "HUSH"}, {"key": "NOBODY", "secret": "HUSH"}], ids=["secret", "key"])
def test_wrong_credentials(s3_server: S3Server, wrong: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    url = f"{s3_server.bucket_url('mine')}/x"
    Store(s3_server.options).write(url, b"1")
    store = Store({**s3_server.options, **wrong})
    for attempt in (store.read, store.info, store.list, store.list_folder, lambda url: store.write(url, b"1")):
        with pytest.raises(
            StoreError, match=r"s3://mine/x: (the credentials are not valid|permission denied)"
        ) as caught:
            attempt(url)
        assert "HUSH" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "HUSH" not in caplog.text + repr(store)


def test_no_credentials(s3_server: S3Server) -> None:
    url = f"{s3_server.bucket_url('mine')}/x"
    store = Store({"endpoint_url": s3_server.endpoint})
    with pytest.raises(StoreError, match=r"no credentials were found: set AWS_ACCESS_KEY_ID .* anon=true"):
        store.read(url)


def test_by_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    url = f"{s3_server.bucket_url('env')}/x"
    store = Store()
    store.write(url, b"1")
    assert store.read(url) == b"1"


def test_a_store_travels_to_other_processes(s3_server: S3Server) -> None:
    url = f"{s3_server.bucket_url('mine')}/travel"
    store = pickle.loads(pickle.dumps(Store(s3_server.options)))
    store.write(url, b"1")
    assert store.read(url) == b"1"
    assert s3_server.secret not in repr(store)


# ---- http, retries and messages


def test_web_pages(web: Web) -> None:
    url = web.put("/a%20b.bin", b"0123456789")
    store = Store()
    assert store.read(url) == b"0123456789"
    assert store.read(url, 2, 5) == b"234"
    assert store.info(url) == Entry(url, 10, "")
    assert store.info(web.url + "/none") is None
    with pytest.raises(FileNotFoundError) as caught:
        store.read(web.url + "/none?signature=HUSH")
    assert "HUSH" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "requests", "words"),
    [
        (403, 1, "permission denied"),
        (401, 1, "permission denied"),
        (400, 1, "ClientResponseError: 400"),
        (503, 7, "ClientResponseError: 503"),
        (429, 7, "ClientResponseError: 429"),
    ],
)
def test_what_is_retried(web: Web, no_waiting: None, status: int, requests: int, words: str) -> None:
    url = web.put("/403-500.bin", b"body", status=status) + "?signature=HUSH"
    with pytest.raises(StoreError, match=rf"could not read {web.url}/403-500\.bin\?\*\*\*: {words}") as caught:
        Store().read(url)
    assert "HUSH" not in str(caught.value)
    assert len(web.fetched("/403-500.bin")) == requests
    with pytest.raises(StoreError, match=rf"could not look up .*: {words}") as caught:
        Store().info(url)
    assert "HUSH" not in str(caught.value)


def test_web_folders(web: Web) -> None:
    web.put("/d/", b'<a href="a.bin">a</a> <a href="sub/">sub</a> <a href="/elsewhere.bin">no</a>')
    web.put("/d/sub", b'<a href="b.bin">b</a>')
    store = Store()
    assert [e.url for e in store.list(f"{web.url}/d/")] == [f"{web.url}/d/a.bin", f"{web.url}/d/sub/b.bin"]
    web.pages["/d/sub"].status = 403
    with pytest.raises(StoreError, match="permission denied"):
        store.list(f"{web.url}/d/")
    assert store.list(f"{web.url}/none/") == []


def test_a_connection_that_drops_is_retried(web: Web, no_waiting: None) -> None:
    url = web.put("/a.bin", b"0123456789", drops=4)
    assert Store().read(url) == b"0123456789"
    assert len(web.fetched("/a.bin")) == 5


def test_a_server_that_ignores_ranges_is_named_at_once(web: Web) -> None:
    url = web.put("/a.bin", b"0123456789", ranges=False)
    with pytest.raises(UsageError, match="this server ignores byte ranges"):
        Store().read(url, 2, 5)
    with pytest.raises(UsageError, match="this server ignores byte ranges"):  # ten bytes, but not the requested ones
        Store().read(url, 2, 12)
    assert len(web.fetched("/a.bin")) == 2
    assert Store().read(url, 0, 10) == b"0123456789"


def test_a_server_that_ignores_ranges_does_not_send_the_whole_object(web: Web, no_waiting: None) -> None:
    url = web.put("/a.bin", b"x" * 1000, ranges=False, drops=9)  # a read of the whole object fails
    for start in (0, 5):
        with pytest.raises(UsageError, match="this server ignores byte ranges"):
            Store().read(url, start, 10)
    assert len(web.fetched("/a.bin")) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://no-such-host.invalid/x"])
def test_a_host_that_cannot_be_reached(url: str, no_waiting: None) -> None:
    for attempt in (Store().read, Store().info):
        with pytest.raises(StoreError, match="the host cannot be reached: check its name"):
            attempt(url)


def test_protocols_that_need_a_package_or_do_not_exist() -> None:
    with pytest.raises(UsageError, match="nfs5://server/x: unknown protocol nfs5://"):
        Store().read("nfs5://server/x")
    assert not is_url("C:/x")


def test_a_name_with_412_is_not_a_failed_precondition() -> None:
    place = "http://host/bucket/masks/412-abc/abc-000408-000412.parquet"
    assert not is_taken(ConnectionError(f'Could not connect to the endpoint URL: "{place}"'))
    assert is_taken(OSError("An error occurred (412) when calling the PutObject operation"))
    assert is_taken(OSError("At least one of the pre-conditions you specified did not hold., 412"))
    assert is_taken(OSError("An error occurred (PreconditionFailed) when calling the PutObject operation"))


@pytest.mark.parametrize(
    "words",
    [
        "AccountProblem while calling https://host:8500/500/bucket/503.png?part=429",
        "AccountProblem at '/bucket/503.png'",
        "AccountProblem at s3://bucket/503.png",
    ],
)
def test_a_number_in_a_url_is_no_status(words: str) -> None:
    url = "s3://bucket/503.png"
    assert not is_transient(OSError(words), url)
    assert is_transient(OSError(f"{words}: An error occurred (503)"), url)
    assert is_transient(OSError("SlowDown"), "s3://low")


def test_secrets_of_urls_in_other_text_are_masked() -> None:
    told = redact_text("ClientError: GET https://u:HUSH@host/a?X-Amz-Signature=HUSH failed at s3://KEY:HUSH@bucket/x")
    assert told == "ClientError: GET https://***@host/a?*** failed at s3://***@bucket/x"


def test_an_error_that_is_being_handled_is_no_cause_of_another(tmp_path: Path) -> None:
    """A request of an exception handler fails for its own reason."""
    try:
        raise SegmentError("before")
    except SegmentError:
        with pytest.raises(FileNotFoundError) as failed:
            Store().read(f"file://{tmp_path}/none")
        assert Store().read_if_exists(f"file://{tmp_path}/none") is None
    assert "before" not in str(failed.value)
