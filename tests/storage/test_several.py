"""Many small objects, several at a time where that is worth it."""

import threading

import pytest

from opsd.clock import FixedClock
from opsd.errors import ObjectNotFound
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import ObjectInfo
from opsd.storage.several import read_several

COUNT = 30


class FarStore(MemoryStore):
    """A store on another server; where `pairs`, it answers nothing until two have asked at once."""

    connections = 4

    def __init__(self, *, pairs: bool = False) -> None:
        super().__init__(FixedClock(0))
        self._least = 2 if pairs else 1
        self._enough = threading.Event()
        self.reads = 0

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads += 1
        if self.reads >= self._least:
            self._enough.set()
        assert self._enough.wait(10)
        return super().read(name, offset, length)


def filled(store: MemoryStore) -> list[ObjectInfo]:
    for number in range(COUNT):
        store.put(f"marks/{number:02}", b"%d" % number)
    return sorted(store.list("marks/"), key=lambda info: info.name)


@pytest.mark.parametrize("store", [MemoryStore(FixedClock(0)), FarStore(pairs=True)], ids=["near", "far"])
def test_objects_come_in_the_order_in_which_they_were_asked_for(store: MemoryStore) -> None:
    infos = filled(store)
    found = [(info.name, content()) for info, content in read_several(store, infos)]
    assert found == [(f"marks/{number:02}", b"%d" % number) for number in range(COUNT)]


def test_one_that_is_gone_hides_no_other() -> None:
    store = FarStore()
    infos = filled(store)
    store.delete("marks/07")
    found = []
    for info, content in read_several(store, infos):
        if info.name == "marks/07":
            with pytest.raises(ObjectNotFound):
                content()
        else:
            found.append(content())
    assert len(found) == COUNT - 1


def test_whoever_stops_early_reads_little_more() -> None:
    store = FarStore()
    for _, content in read_several(store, filled(store)):
        assert content() == b"0"
        break
    assert store.reads <= 10


def test_near_nothing_is_read_before_it_is_asked_for() -> None:
    store = MemoryStore(FixedClock(0))
    infos = filled(store)
    _, content = next(iter(read_several(store, infos)))
    store.delete(infos[0].name)
    with pytest.raises(ObjectNotFound):
        content()
