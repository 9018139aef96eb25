"""The store that fails on demand does exactly what it was told, and lets nothing through afterwards."""

import contextlib
from collections.abc import Callable

import pytest

from opsd.clock import FixedClock
from opsd.errors import ObjectNotFound, StoreFull
from opsd.storage.faulty import Fault, FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore(FixedClock(1))


def stored(inner: MemoryStore) -> dict[str, bytes]:
    return {info.name: inner.read(info.name) for info in inner.list("")}


def test_operations_are_counted_by_kind(inner: MemoryStore) -> None:
    store = FaultyStore(inner)
    store.put("a", b"1")
    store.put("b", b"2")
    store.read("a")
    store.stat("a")
    store.read_into("a", 0, memoryview(bytearray(1)))
    list(store.list(""))
    store.delete("b")
    assert store.counts == {"put": 2, "read": 3, "list": 1, "delete": 1}
    assert store.operations[-1] == ("delete", "b")


@pytest.mark.parametrize(
    "how, left",
    [
        (Fault.BEFORE, {"a": b"first"}),
        (Fault.AFTER, {"a": b"first", "b": b"second"}),
        (Fault.TORN, {"a": b"first", "b": b"sec"}),
    ],
)
def test_the_world_stops_at_the_chosen_put(inner: MemoryStore, how: Fault, left: dict[str, bytes]) -> None:
    store = FaultyStore(inner, Stop(at=1, how=how, torn_at=3))
    store.put("a", b"first")
    with pytest.raises(PowerCut):
        store.put("b", b"second")
    assert stored(inner) == left


def test_a_lost_write_is_reported_as_done_and_the_world_stops_at_the_next_operation(inner: MemoryStore) -> None:
    store = FaultyStore(inner, Stop(at=0, how=Fault.LOST))
    store.put("a", b"first")
    with pytest.raises(PowerCut):
        store.put("b", b"second")
    assert stored(inner) == {}


def test_a_lost_delete_leaves_the_object(inner: MemoryStore) -> None:
    inner.put("a", b"first")
    store = FaultyStore(inner, Stop(at=0, how=Fault.LOST))
    store.delete("a")
    assert stored(inner) == {"a": b"first"}


@pytest.mark.parametrize("how", [Fault.TORN, Fault.LOST])
def test_what_writes_nothing_can_be_neither_torn_nor_lost(inner: MemoryStore, how: Fault) -> None:
    inner.put("a", b"first")
    store = FaultyStore(inner, Stop(at=0, how=how))
    with pytest.raises(PowerCut):
        store.read("a")


def test_nothing_reaches_the_store_once_the_world_has_stopped(inner: MemoryStore) -> None:
    store = FaultyStore(inner, Stop(at=0))
    with pytest.raises(PowerCut):
        store.list("")
    for operation in (lambda: store.put("a", b""), lambda: store.stat("a"), lambda: store.delete("a")):
        with pytest.raises(PowerCut):
            operation()
    assert stored(inner) == {}
    assert store.counts == {"list": 1}


def test_a_power_cut_is_not_swallowed_by_except_exception(inner: MemoryStore) -> None:
    store = FaultyStore(inner, Stop(at=0))
    with pytest.raises(PowerCut), contextlib.suppress(Exception):
        store.put("a", b"")


@pytest.mark.parametrize("kind", ["list", "read", "delete"])
def test_only_chosen_kinds_count_towards_the_stop(inner: MemoryStore, kind: str) -> None:
    store = FaultyStore(inner, Stop(at=0, how=Fault.AFTER, kinds=frozenset({kind})))
    store.put("a", b"first")
    operations: dict[str, Callable[[], object]] = {
        "list": lambda: store.list(""),
        "read": lambda: store.stat("a"),
        "delete": lambda: store.delete("a"),
    }
    with pytest.raises(PowerCut):
        operations[kind]()


def test_the_world_goes_on_after_an_error(inner: MemoryStore) -> None:
    store = FaultyStore(inner, Stop(at=1, how=Fault.ERROR, error=StoreFull("no room"), times=2))
    store.put("a", b"1")
    for _ in range(2):
        with pytest.raises(StoreFull):
            store.put("b", b"2")
    with pytest.raises(ObjectNotFound):
        store.read("b")
    store.put("b", b"2")
    assert stored(inner) == {"a": b"1", "b": b"2"}
