"""What every store promises, tried on each of them."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.clock import FixedClock
from opsd.errors import ObjectNotFound, StorageError
from opsd.storage.faulty import FaultyStore
from opsd.storage.folder import FolderStore
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import Store
from opsd.storage.retry import RetryingStore
from opsd.storage.s3 import S3Store
from opsd.storage.sftp import SftpStore
from tests.support.s3 import S3Server
from tests.support.sshd import Server

pytest_plugins = ["tests.support.stores"]

NAME = "packs/ab/" + "c" * 64
NOW = 1_800_000_000 * 10**9


Make = Callable[[Path, pytest.FixtureRequest], AbstractContextManager[Store]]


def folder(path: Path, _: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return FolderStore.create(path / "store")


def memory(_path: Path, _: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return nullcontext(MemoryStore(FixedClock(NOW)))


def faulty(_path: Path, _: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return nullcontext(FaultyStore(MemoryStore(FixedClock(NOW))))


def retrying(path: Path, _: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return nullcontext(RetryingStore(FolderStore.create(path / "store")))


def sftp(path: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    server: Server = request.getfixturevalue("sftp_server")
    return SftpStore.create(server.options(path / "store"))


def s3(request: pytest.FixtureRequest, server: str) -> AbstractContextManager[Store]:
    running: S3Server = request.getfixturevalue(server)
    return S3Store.create(running.options(running.new_bucket()), FixedClock(NOW))


def s3_as_aws(_path: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return s3(request, "checking_moto")


def s3_without_checksums(_path: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return s3(request, "moto")


def s3_without_conditions(_path: Path, request: pytest.FixtureRequest) -> AbstractContextManager[Store]:
    return s3(request, "rclone")


MAKERS: list[Make] = [
    *(folder, memory, faulty, retrying, sftp),
    *(s3_as_aws, s3_without_checksums, s3_without_conditions),
]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    make: Make = request.param
    with make(tmp_path, request) as made:
        yield made


def names(store: Store, prefix: str) -> list[str]:
    return sorted(info.name for info in store.list(prefix))


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(100_000)], ids=len)
def test_what_was_put_is_read_back_whole(store: Store, content: bytes) -> None:
    store.put(NAME, content)
    assert store.read(NAME) == content


def test_a_memoryview_of_items_wider_than_a_byte_is_stored_whole(store: Store) -> None:
    store.put(NAME, memoryview(b"abcdefgh").cast("I"))
    assert store.read(NAME) == b"abcdefgh"
    assert store.stat(NAME).size == 8


def test_a_buffer_may_be_reused_after_it_was_put(store: Store) -> None:
    buffer = bytearray(b"first")
    store.put(NAME, memoryview(buffer))
    buffer[:] = b"later"
    assert store.read(NAME) == b"first"


def test_a_file_is_stored_whole(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(b"in a file")
    store.put(NAME, path)
    assert store.read(NAME) == b"in a file"


def test_a_file_in_the_spool_is_stored_whole(store: Store, tmp_path: Path) -> None:
    path = (store.capabilities.spool or tmp_path) / "pack"
    path.write_bytes(b"in a file")
    store.put(NAME, path)
    assert store.read(NAME) == b"in a file"


@given(offset=st.integers(0, 12), length=st.none() | st.integers(0, 12) | st.just(1 << 40))
def test_a_range_is_what_a_slice_of_the_bytes_would_be(module_store: Store, offset: int, length: int | None) -> None:
    end = None if length is None else offset + length
    assert module_store.read(NAME, offset, length) == b"0123456789"[offset:end]


@given(offset=st.integers(0, 12), size=st.integers(0, 12))
def test_a_buffer_is_filled_up_to_the_end_of_the_object(module_store: Store, offset: int, size: int) -> None:
    buffer = bytearray(b"-" * size)
    count = module_store.read_into(NAME, offset, memoryview(buffer))
    part = b"0123456789"[offset : offset + size]
    assert count == len(part)
    assert bytes(buffer) == part + b"-" * (size - count)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def module_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    make: Make = request.param
    with make(tmp_path_factory.mktemp("store"), request) as made:
        made.put(NAME, b"0123456789")
        yield made


def test_an_object_put_again_with_equal_length_stays_as_it_is(store: Store) -> None:
    store.put(NAME, b"right")
    before = store.stat(NAME)
    store.put(NAME, b"right")
    assert store.stat(NAME) == before


@pytest.mark.parametrize("other", [b"righ", b"right!"])
def test_an_object_is_never_overwritten_by_another_length(store: Store, other: bytes) -> None:
    store.put(NAME, b"right")
    with pytest.raises(StorageError, match="damaged") as caught:
        store.put(NAME, other)
    assert "opsd check --repair" in str(caught.value.hint)
    assert store.read(NAME) == b"right"


@pytest.mark.parametrize("damaged", [b"wrong", b"too long"])
def test_a_repair_replaces_the_bytes_for_readers_too(store: Store, damaged: bytes) -> None:
    store.put(NAME, damaged)
    assert store.read(NAME) == damaged
    store.put(NAME, b"right", replace=True)
    assert store.read(NAME) == b"right"
    assert store.stat(NAME).size == 5


def test_a_repair_may_store_what_is_missing(store: Store) -> None:
    store.put(NAME, b"right", replace=True)
    assert store.read(NAME) == b"right"


@pytest.mark.parametrize("operation", ["read", "read_into", "stat"])
def test_an_object_that_is_not_there_is_named(store: Store, operation: str) -> None:
    asked: dict[str, Callable[[], object]] = {
        "read": lambda: store.read(NAME),
        "read_into": lambda: store.read_into(NAME, 0, memoryview(bytearray(1))),
        "stat": lambda: store.stat(NAME),
    }
    with pytest.raises(ObjectNotFound) as caught:
        asked[operation]()
    assert caught.value.name == NAME


def test_a_listing_shows_what_starts_with_the_prefix_and_nothing_else(store: Store) -> None:
    stored = ["index/a", "keys/a", "packs/aa/aab", "packs/aa/abb", "packs/ab/aab", "wal/c/1/s-1"]
    for name in stored:
        store.put(name, name.encode())
    assert names(store, "") == stored
    assert names(store, "packs/") == stored[2:5]
    assert names(store, "packs/aa/aa") == ["packs/aa/aab"]
    assert names(store, "packs/a") == stored[2:5]
    assert names(store, "wal/c/") == ["wal/c/1/s-1"]
    assert names(store, "notes/") == []
    assert names(store, "no-such-folder/x") == []


def test_a_listing_tells_size_and_time_as_stat_does(store: Store) -> None:
    store.put(NAME, b"12345")
    assert list(store.list("packs/")) == [store.stat(NAME)]
    assert store.stat(NAME).size == 5


def test_a_deleted_object_is_gone_for_readers_and_lists(store: Store) -> None:
    store.put(NAME, b"x")
    assert store.read(NAME) == b"x"
    store.delete(NAME)
    with pytest.raises(ObjectNotFound):
        store.read(NAME)
    assert names(store, "") == []


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete(NAME)
    store.delete("wal/no/such/folder")
    assert names(store, "") == []


def test_a_deleted_object_can_be_put_again_with_another_length(store: Store) -> None:
    store.put(NAME, b"x")
    store.delete(NAME)
    store.put(NAME, b"longer")
    assert store.read(NAME) == b"longer"


BAD_NAMES = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "a b",
    "ä",
    "a\0",
    "a\n",
    "tmp/a",
    "spool/a",
    "x" * 256,
]


def test_a_name_that_could_leave_the_store_is_refused(store: Store) -> None:
    asked: list[Callable[[str], object]] = [lambda name: store.put(name, b""), store.read, store.stat, store.delete]
    for name, ask in itertools.product(BAD_NAMES, asked):
        with pytest.raises(ValueError, match="not an object's name"):
            ask(name)
    assert names(store, "") == []


def test_many_threads_put_and_read_the_same_and_different_objects(store: Store) -> None:
    contents = {f"packs/{number:02x}/{number}": bytes([number]) * 5000 for number in range(24)}
    wrong: list[str] = []

    def work(shift: int) -> None:
        order = list(contents)
        for name in order[shift:] + order[:shift]:
            try:
                store.put(name, contents[name])
                if store.read(name, 10, 4000) != contents[name][10:4010]:
                    wrong.append(name)
            except StorageError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(shift,)) for shift in (0, 0, 7, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert names(store, "") == sorted(contents)
