"""Pages of a store's listing are asked for while the caller is busy with the ones before."""

import threading

from segment.store.paged_listing import Page, PageRequest, list_pages


def test_the_next_page_is_asked_for_before_the_caller_is_done_with_one() -> None:
    asked = threading.Semaphore(0)

    def send(request: PageRequest) -> Page[int]:
        asked.release()
        number = int(request.token or 0)
        return Page({str(number): number}, [], str(number + 1) if number < 4 else "")

    found: list[int] = []
    for page in list_pages(send):
        found.extend(page.objects.values())
        for _ in range(2 if len(found) == 1 else 1 if len(found) < 5 else 0):
            assert asked.acquire(timeout=60), "the next page waits for the caller"
    assert found == [0, 1, 2, 3, 4]
