"""Listing S3 page by page: every object once, in order, whatever the folders; and pages that fail."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from jobs.scaling.listing_store import Handler
from segment.errors import StoreError
from segment.store.client import Store

PAGE = 10
CODES = {403: "AccessDenied", 404: "NoSuchKey", 503: "SlowDown"}
BESIDE = ["in-more.png", "io/x.png"]  # not below `in/`
LARGE = [f"in/train/{folder:02d}/{number:03d}.png" for folder in range(4) for number in range(35)]
TREES = {
    "one folder": [f"in/{number:03d}.png" for number in range(45)],
    "large folders": [*LARGE, *(f"in/val/{number}.png" for number in range(12)), "in/a.png", "in/zz.png"],
    "markers": [*LARGE, "in/", "in/train/", "in/train/00/", "in/empty/"],
    "small folders": [f"in/{folder:02d}/{name}.png" for folder in range(40) for name in "ab"],
    "odd names": [f"in/a b+c%41 ä/{number} &é<日>.png" for number in range(25)] + ["in/a b/x.png", "in//y.png"],
    "a page": [f"in/a/{number}.png" for number in range(PAGE)],
    "none": [],
}


class Server:
    """What is served, what was asked, and what to answer instead: by request, None for a page."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.status: Callable[[dict[str, str]], int | None] = lambda query: None
        server = self

        class Failing(Handler):
            def _answer(self, status: int, body: bytes) -> None:
                instead = server.status(server.requests[-1])
                super()._answer(
                    instead or status,
                    body if instead is None else f"<Error><Code>{CODES[instead]}</Code></Error>".encode(),
                )

        Failing.buckets = {name.replace(" ", "-"): sorted([*keys, *BESIDE]) for name, keys in TREES.items()}
        Failing.latency, Failing.page_size, Failing.requests = 0.0, PAGE, self.requests
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Failing)

    def store(self) -> Store:
        region = {"region_name": "us-east-1"}
        endpoint = f"http://127.0.0.1:{self.http.server_port}"
        return Store({"key": "k", "secret": "s", "client_kwargs": region, "endpoint_url": endpoint})


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.requests.clear()
    one_server.status = lambda query: None
    return one_server


@pytest.mark.parametrize("tree", TREES)
def test_every_object_is_found_once(server: Server, tree: str) -> None:
    bucket = f"s3://{tree.replace(' ', '-')}"
    found = server.store().list(f"{bucket}/in", irregular=True)
    assert [entry.url for entry in found] == sorted(f"{bucket}/{key}" for key in TREES[tree])
    assert [entry.url for entry in found if entry.irregular] == [e.url for e in found if e.url.endswith("/")]
    assert {entry.size for entry in found} <= {100000}
    assert len({entry.etag for entry in found}) == len(found)


def test_large_folders_are_listed_by_themselves_and_small_ones_together(server: Server) -> None:
    server.store().list("s3://large-folders/in")
    assert {query["prefix"] for query in server.requests} >= {f"in/train/{folder:02d}/" for folder in range(4)}
    server.requests.clear()
    server.store().list("s3://small-folders/in")
    assert [query["prefix"] for query in server.requests] == ["in/"] * 8


def test_the_collector_is_left_as_it_was(server: Server) -> None:
    seen: set[tuple[int, int, int]] = set()
    server.status = lambda query: seen.add(gc.get_threshold())
    before = gc.get_threshold()
    for bucket in ("one-folder", "no-such-bucket"):
        with contextlib.suppress(StoreError):
            server.store().list(f"s3://{bucket}/in")
        assert gc.get_threshold() == before
    assert seen
    assert before not in seen


def test_a_page_that_fails_is_sent_again_and_no_other(server: Server, no_waiting: None) -> None:
    failed: list[dict[str, str]] = []

    def once(query: dict[str, str]) -> int | None:
        if query.get("continuation-token") and not failed:
            failed.append(query)
            return 503
        return None

    server.status = once
    store = server.store()
    assert len(store.list("s3://one-folder/in")) == 45
    assert len(server.requests) == 6  # five pages
    assert store.take_retries() == {"list": 1}


@pytest.mark.parametrize("status", [403, 404])
def test_a_page_that_is_refused_ends_the_listing(server: Server, status: int) -> None:
    server.status = lambda query: (
        status if query["prefix"] == "in/train/02/" and "continuation-token" in query else None
    )
    with pytest.raises(StoreError, match="could not list s3://large-folders/in"):
        server.store().list("s3://large-folders/in")
