"""What may pass is tried again, and nothing else is."""

from collections.abc import Callable, Iterator

import pytest

from opsd.clock import FixedClock
from opsd.errors import StorageError, StoreFull, StoreUnavailable
from opsd.storage.faulty import Fault, FaultyStore, Stop
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import ObjectInfo
from opsd.storage.retry import RetryingStore


class World:
    """A store that fails so often with this error, and a sleep that only writes down."""

    def __init__(self, error: StorageError, times: int) -> None:
        inner = MemoryStore(FixedClock(1))
        inner.put("a", b"12345")
        self.waits: list[float] = []
        self.faulty = FaultyStore(inner, Stop(at=0, how=Fault.ERROR, error=error, times=times))
        self.store = RetryingStore(self.faulty, 4, first_wait=0.5, sleep=self.waits.append)


OPERATIONS: dict[str, Callable[[RetryingStore], object]] = {
    "put": lambda store: store.put("b", b""),
    "read": lambda store: store.read("a"),
    "read_into": lambda store: store.read_into("a", 0, memoryview(bytearray(5))),
    "stat": lambda store: store.stat("a"),
    "list": lambda store: store.list(""),
    "delete": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_may_pass_is_tried_again_with_waits_that_double(operation: str) -> None:
    world = World(StoreUnavailable("away"), 3)
    OPERATIONS[operation](world.store)
    assert world.waits == [0.5, 1.0, 2.0]


def test_the_last_error_is_raised_as_it_came() -> None:
    world = World(StoreUnavailable("away"), 4)
    with pytest.raises(StoreUnavailable, match="away"):
        world.store.read("a")
    assert len(world.faulty.operations) == 4


@pytest.mark.parametrize("error", [StoreFull("full"), StorageError("other")])
def test_what_can_not_pass_is_raised_at_once(error: StorageError) -> None:
    world = World(error, 1)
    with pytest.raises(StorageError) as caught:
        world.store.put("b", b"")
    assert caught.value is error
    assert world.waits == []


def test_no_wait_is_longer_than_a_minute() -> None:
    world = World(StoreUnavailable("away"), 20)
    RetryingStore(world.faulty, 12, first_wait=1.0, sleep=world.waits.append)
    with pytest.raises(StoreUnavailable):
        RetryingStore(world.faulty, 12, sleep=world.waits.append).read("a")
    assert max(world.waits) == 60.0


class CutListing(MemoryStore):
    """Breaks off its first listing after one object."""

    cut = True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            yield info
            if self.cut:
                self.cut = False
                raise StoreUnavailable("cut")


def test_a_listing_cut_half_way_begins_again_and_shows_nothing_twice() -> None:
    inner = CutListing(FixedClock(1))
    for name in "abc":
        inner.put(name, b"")
    store = RetryingStore(inner, sleep=lambda _: None)
    assert [info.name for info in store.list("")] == ["a", "b", "c"]


def test_a_store_that_is_never_asked_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryingStore(MemoryStore(FixedClock(1)), 0)
