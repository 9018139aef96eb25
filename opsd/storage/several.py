"""Read many small objects, several at a time where each answer takes a round trip.

Promise: in the given order; what goes wrong with one is raised where that one is asked for, and hides no other.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from opsd.storage.protocol import ObjectInfo, Store

#: Objects read ahead for each that is read at once.
_AHEAD = 2


def read_several(store: Store, infos: Iterable[ObjectInfo]) -> Iterator[tuple[ObjectInfo, Callable[[], bytes]]]:
    """Each object with what gives its bytes, or raises what `Store.read` raises."""
    width: int = getattr(store, "connections", 1)  # What a store on another server has; asking it costs no request.
    if width > 1:
        yield from _ahead(store, infos, width)
        return
    for info in infos:
        yield info, partial(store.read, info.name)


def _ahead(store: Store, infos: Iterable[ObjectInfo], width: int) -> Iterator[tuple[ObjectInfo, Callable[[], bytes]]]:
    from concurrent.futures import Future, ThreadPoolExecutor  # noqa: PLC0415 - local stores need none of it

    pool = ThreadPoolExecutor(width, thread_name_prefix="opsd-small")
    waiting: deque[tuple[ObjectInfo, Future[bytes]]] = deque()
    try:
        for info in infos:
            waiting.append((info, pool.submit(store.read, info.name)))
            if len(waiting) > width * _AHEAD:
                first, coming = waiting.popleft()
                yield first, coming.result
        for first, coming in waiting:
            yield first, coming.result
    finally:
        pool.shutdown(cancel_futures=True)
