"""The store in memory, where it differs from others: its clock and its clones."""

from opsd.clock import FixedClock
from opsd.storage.memory import MemoryStore


def test_objects_are_dated_by_the_clock_of_the_store() -> None:
    clock = FixedClock(1000)
    store = MemoryStore(clock)
    store.put("a", b"")
    clock.advance(5)
    store.put("b", b"")
    assert (store.stat("a").modified, store.stat("b").modified) == (1000, 1005)


def test_what_happens_to_a_clone_leaves_the_first_world_alone() -> None:
    store = MemoryStore(FixedClock(1))
    store.put("a", b"1")
    other = store.clone()
    other.delete("a")
    other.put("b", b"2")
    assert [info.name for info in store.list("")] == ["a"]
    assert [info.name for info in other.list("")] == ["b"]
