"""What a run may read: prefixes, and every way around them."""

import pickle
from pathlib import Path

import pytest

from segment.errors import UsageError
from segment.store.client import Store
from segment.store.scope import NotAllowed, Scope, check_prefix, prefix_of


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a.png", "s3a://bucket/d/a.png", "s3:///bucket/a.png", "s3://bucket//a.png", "s3://bucket/%2e%2e/a",
        "http://host/a.png", "http://HOST:80/a.png", "http://host./a.png", "http://host/x/../../a.png",
        "https://other:8443/p/a.png?x=/../", "https://other:8443/p", "https://other:8443/q/../p/a%20b.png",
        "gcs://g/a", "hf://datasets/me/set/a.png", "file:///data/in/a.png", "file:////data//in/a.png",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/mine/a.png",
    ],
)  # fmt: skip
def test_what_is_below_a_prefix(url: str) -> None:
    assert SCOPE.allows(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket2/a.png", "s3://Bucket/a.png", "s3://buck/a.png", "s3://bucket/../other/a.png", "gs://bucket/a.png",
        "s3:////other/a.png", "s3://", "s3:///", "https://host/a.png", "http://host:8080/a.png", "http://host.evil/a",
        "http://host@evil/a.png", "http://evil/http://host/a.png", "http://host\\@evil/a.png", "http://evil#@host/a",
        "http://host:99999/a.png", "http:///host/a.png", "http://[::1/a.png", "https://other:8443/pq/a.png",
        "https://other:8443/p/../a.png", "https://other:8443/p/%2e%2e/a.png", "https://other:8443/p/..%2fa.png",
        "https://other:8443/p/%252e%252e/a.png", "https://other:8443/p/..%5ca.png", "https://other:8443/p\\..\\a.png",
        "hf://datasets/me/other/a.png", "hf://me/set/a.png", "file:///data/in2/a.png", "file:///data/in/../a.png", "file:///data/in/../in/a.png",
        "file:///data", "file:///etc/passwd", "file://data/in/a.png", "local:///data/in/a.png", "memory://bucket/a.png",
        "zip://a.png::file:///data/in/a.zip", "simplecache::s3://bucket/a.png", "", "a.png", "/data/in/a.png",
        "file:///data/in/\0", "file:///da\0ta/in/a.png", "s3://arn:aws:s3:eu-west-1:1:accesspoint/yours/a.png",
    ],
)  # fmt: skip
def test_what_is_not(url: str) -> None:
    assert not SCOPE.allows(url)
    with pytest.raises(NotAllowed):
        SCOPE.check(url)


SCOPE = Scope.of(
    [
        "s3://bucket/", "http://host/", "https://other:8443/p", "gs://g/", "hf://datasets/me/set/", "file:///data/in",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/mine/",
    ]
)  # fmt: skip


def test_nothing_is_below_no_prefix() -> None:
    assert not Scope().allows("file:///a.png")
    assert Scope.of(["file:///"]).allows("file:///a.png")
    assert Scope.of([""]).prefixes == ("",)
    assert not Scope.of([""]).allows("")


def test_what_data_names_is_held_where_its_links_lead(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").touch()
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "up").symlink_to("..")
    (inside / "chain.png").symlink_to("up/out/a.png")
    (inside / "near.png").symlink_to("a.png")
    (inside / "loop.png").symlink_to("loop.png")
    (tmp_path / "alias").symlink_to("in")
    scope = Scope.of([f"file://{inside}"])
    listing = Scope.of([f"file://{inside}"], follow_links=True)
    for name in ("link.png", "up/out/a.png", "chain.png", "up/x.png"):
        assert listing.allows(f"file://{inside}/{name}")
        assert not scope.allows(f"file://{inside}/{name}")
        assert not listing.named.allows(f"file://{inside}/{name}")
        assert not (scope | Scope.of([f"file://{outside}/b"], follow_links=True)).allows(f"file://{inside}/{name}")
    secret = f"file://{inside}/up/../{tmp_path.name}/out/a.png"  # the kernel follows the link before the dots
    assert Path(secret.removeprefix("file://")).exists()
    for each in (listing, scope):
        for url in (secret, f"file://{inside}/up/..", f"file://{inside}/a.png\0", f"file://{inside}\0/a.png"):
            assert not each.allows(url)
    for name in ("a.png", "near.png", "none.png", "loop.png", "n" * 300):
        assert scope.allows(f"file://{inside}/{name}")
    assert scope.allows(f"file://{tmp_path}/alias/a.png")
    assert Scope.of([f"file://{tmp_path}/alias"]).allows(f"file://{inside}/a.png")


def test_a_refusal_names_the_prefix_that_allows_it(tmp_path: Path) -> None:
    for url, prefix in (
        ("s3://other/a/b.png", "s3://other/"),
        ("http://h:8080/a/b.png?q=1", "http://h:8080/"),
        (f"file://{tmp_path}/a/b.png", f"{tmp_path}/a"),
    ):
        with pytest.raises(NotAllowed) as caught:
            SCOPE.check(url)
        assert f"; where that is meant, --allow-input {prefix} allows it" in str(caught.value)
        assert Scope.of([check_prefix(prefix) if "://" in prefix else f"file://{prefix}"]).allows(url)  # type: ignore[list-item]
    with pytest.raises(NotAllowed, match=r"without '\.\.'") as caught:
        SCOPE.check("s3://bucket/x/../a.png")
    assert "--allow-input" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3://", "http:///a", "http://h/a?x=1", "http://h/..%2fa", "s3://b/../c", ""])
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(UsageError):
        check_prefix(text)


def test_prefixes_of_stores() -> None:
    assert prefix_of("file:///a/b.png") == prefix_of("s3://") == ""
    assert prefix_of("abfs://c@account.dfs.core.windows.net/a") == "abfs://c@account.dfs.core.windows.net/"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1", "127.255.0.3", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "::1", "[::1]",
        "::", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "64:ff9b::7f00:1", "169.254.169.254",
        "2852039166", "169.254.1.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254",
        "fd00:ec2::23", "fd20:ce::254", "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b:1::a9fe:a9fe",
        "100.100.100.200", "168.63.129.16",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_of_metadata(address: str) -> None:
    assert not Scope.of(["http://host/", "s3://127.0.0.1/", "file:///127.0.0.1"]).allows_address(address)


def test_addresses_that_may_be_connected_to() -> None:
    scope = Scope.of(["http://host/"])
    for address in ("93.184.216.34", "10.0.0.7", "192.168.1.2", "fd00::7", "2606:2800::1", "host"):
        assert scope.allows_address(address)
    assert Scope.of(["http://127.0.0.1:8000/"]).allows_address("127.0.0.1")
    assert not Scope.of(["http://127.0.0.1:8000/"]).allows_address("169.254.169.254")
    for address in ("127.0.0.1", "::1"):
        assert Scope.of(["https://localhost/a"]).allows_address(address)
    assert Scope.of(["http://[::1]:8000/"]).allows_address("::1")
    assert Scope.of(["http://[::1]:8000/a"]).allows("http://[::1]:8000/a/b")


def test_the_limit_of_a_store_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    store = Store()
    store.limit_inputs(Scope.of([f"file://{tmp_path}"]))
    for each in (store.inputs, pickle.loads(pickle.dumps(store.inputs)), pickle.loads(pickle.dumps(store)).inputs):
        assert each.read(f"file://{tmp_path}/a") == b"a"
        for attempt in (each.read, each.info, each.exists, each.list, each.open, each.read_if_exists):
            with pytest.raises(NotAllowed):
                attempt("file:///etc/passwd")
    assert store.read("file:///etc/passwd")  # the output and the model are read without a limit
    store.inputs.add_signed_urls(["https://host/a?sig=1"])
    assert not store.lacks_signature("https://host/a")
