"""Lists a store that answers in pages, such as S3: several folders at once where folders are large."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_AT_ONCE = 8  # requests; S3 clients open ten connections by default
_LARGE = 4  # folders of a full page, up to which each is worth requests of its own


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request.

    Attributes:
        prefix: beginning of the names: `""` or a folder with its final slash.
        flat: whether to list all objects; else those directly in the folder, and its folders.
        token: where the page begins, from the page before; else `""`.
    """

    prefix: str
    flat: bool = True
    token: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What a request found.

    Attributes:
        objects: what is known of each, by name.
        folders: prefixes of the folders; empty if the request was flat.
        token: of the next page; `""` if this was the last one.
    """

    objects: Mapping[str, T]
    folders: Sequence[str]
    token: str


def list_pages(send: Callable[[PageRequest], Page[T]], *, recursive: bool = True) -> Iterator[Page[T]]:
    """Yield the pages that hold every object once, in no order; without `recursive` those of no folder.

    A token is known only when its page is there, so the pages of one listing come one after the other. Where the first
    page shows that folders are large, each is listed by itself, several at once. Small folders are listed together, as
    each takes a request of its own.

    Args:
        send: called in threads, at most eight at once.
    """
    to_send = deque([PageRequest("", flat=recursive)])
    sent: dict[Future[Page[T]], PageRequest] = {}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="list") as pool:

        def send_some() -> None:
            while to_send and len(sent) < _AT_ONCE:
                request = to_send.popleft()
                sent[pool.submit(send, request)] = request

        try:
            send_some()
            while sent:
                for future in wait(sent, return_when=FIRST_COMPLETED).done:
                    request, page = sent.pop(future), future.result()
                    if _is_better_by_folders(request, page):
                        to_send.append(PageRequest(request.prefix, flat=False))  # which lists these objects again
                        send_some()
                        continue
                    if page.token:
                        to_send.append(PageRequest(request.prefix, request.flat, page.token))
                    if recursive:
                        to_send.extend(PageRequest(folder) for folder in page.folders)
                    send_some()  # before the caller takes its time with the page
                    yield page
        finally:
            pool.shutdown(cancel_futures=True)


def _is_better_by_folders(request: PageRequest, page: Page[Any]) -> bool:
    """Whether the first page of a flat listing shows that folders are large."""
    if not request.flat or request.token or not page.token:
        return False
    parts = (name.removeprefix(request.prefix).partition("/") for name in page.objects)
    return 0 < len({folder for folder, slash, _ in parts if slash}) <= _LARGE
