"""A store on real S3 servers: what each of them really does, what is made up for, and what broken connections leave."""

import gc
import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from opsd.clock import FixedClock
from opsd.errors import ObjectNotFound, StorageError, StoreFull, StoreReadOnly, StoreUnavailable
from opsd.storage.protocol import Capabilities, Store
from opsd.storage.retry import RetryingStore, bucket_of
from opsd.storage.s3 import S3Store
from opsd.storage.s3_client import explained
from opsd.storage.s3_probe import Behaviour, probe
from tests.support.proxy import Fault, Harm, Proxy, Way, running_proxy
from tests.support.s3 import S3Server

pytest_plugins = ["tests.support.stores"]
#: urllib3 leaves the socket of an answer that was cut to the garbage collector, which says so.
leaves_sockets = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

NAME = "packs/ab/" + "c" * 64
CLOCK = FixedClock(1_800_000_000 * 10**9)
SERVERS = ["checking_moto", "moto", "rclone"]
BEHAVIOURS = {
    "checking_moto": Behaviour(conditional=True, sha256=True, md5=True, lists_at_once=True),
    "moto": Behaviour(conditional=True, sha256=False, md5=False, lists_at_once=True),
    "rclone": Behaviour(conditional=False, sha256=False, md5=True, lists_at_once=True),
}


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> S3Server:
    running: S3Server = request.getfixturevalue(kind)
    return running


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.new_bucket()


@pytest.fixture
def store(server: S3Server, bucket: str) -> Iterator[S3Store]:
    with S3Store.create(server.options(bucket), CLOCK) as made:
        yield made


def names(store: Store) -> list[str]:
    return sorted(info.name for info in store.list(""))


# What a server really does.


def test_a_probe_finds_what_the_server_really_does_and_leaves_nothing(kind: str, server: S3Server, bucket: str) -> None:
    client = server.client()
    assert probe(client, server.options(bucket)) == BEHAVIOURS[kind]
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_capabilities_name_what_is_lacking(kind: str, store: S3Store) -> None:
    expected = {
        "checking_moto": (),
        "moto": ("it checks no checksum: opsd reads back what it put",),
        "rclone": ("it stores over what is there: opsd looks before each put",),
    }
    assert store.capabilities.lacks == expected[kind]
    assert len(Capabilities(durable=False, lists_at_once=False).lacks) == 2


def test_where_nobody_checks_other_bytes_of_equal_length_are_found_out(moto: S3Server) -> None:
    bucket = moto.new_bucket()
    with S3Store.create(moto.options(bucket), CLOCK) as store:
        store.put(NAME, b"right")
        moto.client().put_object(Bucket=bucket, Key=f"host/{NAME}", Body=b"wrong")
        with pytest.raises(StorageError, match="its bytes are others"):
            store.put(NAME, b"right")
        store.put(NAME, b"right", replace=True)
        assert store.read(NAME) == b"right"


# Where objects are, and on what terms.


def test_stores_of_one_bucket_do_not_see_each_other(server: S3Server, bucket: str, store: S3Store) -> None:
    store.put(NAME, b"one")
    with S3Store.create(replace(server.options(bucket), prefix="host2/"), CLOCK) as other:
        assert names(other) == []
        other.put(NAME, b"other")
    assert store.read(NAME) == b"one"
    assert names(store) == [NAME]


def test_a_prefix_is_a_folder_however_it_is_written(moto: S3Server) -> None:
    options = moto.options("bucket")
    for prefix, start in {"": "", "/": "", "a": "a/", "/a/b/": "a/b/"}.items():
        assert replace(options, prefix=prefix).start == start


def test_creating_refuses_a_prefix_that_holds_something_else(server: S3Server, bucket: str) -> None:
    server.client().put_object(Bucket=bucket, Key="host/letter.txt", Body=b"dear")
    with pytest.raises(StorageError, match="holds something else"):
        S3Store.create(server.options(bucket), CLOCK)


def test_creating_again_changes_nothing(server: S3Server, bucket: str, store: S3Store) -> None:
    store.put(NAME, b"x")
    with S3Store.create(server.options(bucket), CLOCK) as again:
        assert again.read(NAME) == b"x"


def test_strange_objects_and_unfinished_ones_are_not_listed(server: S3Server, bucket: str, store: S3Store) -> None:
    for key in ("host/tmp/probe", "host/index/a b", "host2/index/a"):
        server.client().put_object(Bucket=bucket, Key=key, Body=b"x")
    assert names(store) == []


def test_a_listing_of_many_pages_is_whole(rclone: S3Server) -> None:
    bucket = rclone.new_bucket()
    folder = rclone.folder / "served" / bucket / "host/wal/c"
    folder.mkdir(parents=True)
    for number in range(2300):
        (folder / f"{number}").touch()
    with S3Store.create(rclone.options(bucket), CLOCK) as store:
        assert len(names(store)) == 2300


def test_only_packs_get_the_storage_class(checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket()
    with S3Store.create(checking_moto.options(bucket, storage_class="STANDARD_IA"), CLOCK) as store:
        store.put(NAME, b"x")
        store.put("index/a", b"x")
    client = checking_moto.client()
    assert client.head_object(Bucket=bucket, Key=f"host/{NAME}")["StorageClass"] == "STANDARD_IA"
    assert "StorageClass" not in client.head_object(Bucket=bucket, Key="host/index/a")


def locked_until(server: S3Server, bucket: str) -> datetime:
    found = server.client().head_object(Bucket=bucket, Key=f"host/{NAME}")
    assert found["ObjectLockMode"] == "COMPLIANCE"
    until: datetime = found["ObjectLockRetainUntilDate"]
    return until


def test_a_locked_object_stays_until_its_day_whoever_deletes_it(checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket(ObjectLockEnabledForBucket=True)
    options = checking_moto.options(bucket, object_lock_days=35)
    start = datetime.fromtimestamp(CLOCK.now() // 10**9, UTC)
    with S3Store.create(options, CLOCK) as store:
        store.put(NAME, b"x")
        assert locked_until(checking_moto, bucket) == start + timedelta(days=35)
        version = checking_moto.client().head_object(Bucket=bucket, Key=f"host/{NAME}")["VersionId"]
        store.delete(NAME)
    with pytest.raises(ClientError, match="AccessDenied"):
        checking_moto.client().delete_object(Bucket=bucket, Key=f"host/{NAME}", VersionId=version)
    found = checking_moto.client().get_object(Bucket=bucket, Key=f"host/{NAME}", VersionId=version)
    assert found["Body"].read() == b"x"


def test_a_lock_grows_with_a_later_put_or_on_demand_and_never_shrinks(checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket(ObjectLockEnabledForBucket=True)
    options = checking_moto.options(bucket, object_lock_days=35)
    start = datetime.fromtimestamp(CLOCK.now() // 10**9, UTC)
    day = 86_400 * 10**9
    with S3Store.create(options, CLOCK) as store, S3Store(options, FixedClock(CLOCK.now() + 10 * day)) as later:
        store.put(NAME, b"x")
        later.put(NAME, b"x")
        assert locked_until(checking_moto, bucket) == start + timedelta(days=45)
        store.put(NAME, b"x")
        assert locked_until(checking_moto, bucket) == start + timedelta(days=45)
        store.retain(NAME, CLOCK.now() + 400 * day)
        store.retain(NAME, CLOCK.now() + 100 * day)
        assert locked_until(checking_moto, bucket) == start + timedelta(days=400)
        with pytest.raises(ObjectNotFound):
            store.retain("index/none", CLOCK.now())


def test_a_bucket_tells_the_sum_that_it_checked_and_when_a_lock_ends(checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket(ObjectLockEnabledForBucket=True)
    with S3Store.create(checking_moto.options(bucket, object_lock_days=35), CLOCK) as locking:
        locking.put(NAME, b"x")
        asked = bucket_of(RetryingStore(locking))
        assert asked
        assert asked.checksum(NAME) == hashlib.sha256(b"x").digest()
        assert asked.locked_until(NAME) == CLOCK.now() + 35 * 86_400 * 10**9
        for ask in (asked.checksum, asked.locked_until):
            with pytest.raises(ObjectNotFound):
                ask("index/none")
    with S3Store(checking_moto.options(checking_moto.new_bucket()), CLOCK) as plain:
        checking_moto.client().put_object(Bucket=plain._options.bucket, Key="host/index/a", Body=b"x")
        assert plain.locked_until("index/a") is None


@pytest.mark.parametrize("kind", ["moto", "rclone"])
def test_a_bucket_that_can_lock_nothing_is_refused_where_locks_are_wanted(server: S3Server, bucket: str) -> None:
    with pytest.raises(StorageError, match="has no object lock") as caught:
        S3Store.create(server.options(bucket, object_lock_days=35), CLOCK)
    assert "when a bucket is made" in str(caught.value.hint)


# What fails.


@pytest.mark.parametrize("operation", ["create", "put", "read", "stat", "list", "delete"])
def test_a_missing_bucket_is_an_error_never_an_empty_store(server: S3Server, operation: str) -> None:
    options = server.options("no-such-bucket")
    with S3Store(options, CLOCK) as store:
        asked: dict[str, Callable[[], object]] = {
            "create": lambda: S3Store.create(options, CLOCK),
            "put": lambda: store.put(NAME, b"x"),
            "read": lambda: store.read(NAME),
            "stat": lambda: store.stat(NAME),
            "list": lambda: list(store.list("packs/")),
            "delete": lambda: store.delete(NAME),
        }
        with pytest.raises(StorageError, match="no bucket no-such-bucket") as caught:
            asked[operation]()
        assert not isinstance(caught.value, ObjectNotFound)
        assert caught.value.hint


@pytest.mark.parametrize("wrong", [{"access_key": "AKIDOTHER"}, {"secret_key": "other"}])
def test_wrong_keys_are_told_and_not_tried_again(rclone: S3Server, wrong: dict[str, str]) -> None:
    options = replace(rclone.options(rclone.new_bucket()), **wrong)  # type: ignore[arg-type]
    with S3Store(options, CLOCK) as store, pytest.raises(StorageError) as caught:
        store.put(NAME, b"x")
    assert not isinstance(caught.value, StoreUnavailable | StoreReadOnly)
    assert "secret_key" in str(caught.value.hint)


def test_secrets_do_not_show_where_options_are_printed(moto: S3Server) -> None:
    options = moto.options("bucket")
    assert "secret-of-tests" not in f"{options!r} {options}"
    assert str(options).startswith("s3://bucket/host/ at http://127.0.0.1")


def test_a_server_that_is_away_may_come_back(moto: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with S3Store(moto.options("bucket", port=port), CLOCK) as store, pytest.raises(StoreUnavailable, match=f"{port}"):
        store.put(NAME, b"x")


def test_a_server_that_says_nothing_is_given_up(moto: S3Server) -> None:
    bucket = moto.new_bucket()
    with running_proxy(moto.port) as proxy:
        proxy.faults.append(Fault(Way.DOWN, 0, Harm.HOLD))
        options = replace(moto.options(bucket, port=proxy.port), timeout=0.5)
        with S3Store(options, CLOCK, BEHAVIOURS["moto"]) as store, pytest.raises(StoreUnavailable):
            store.read(NAME)


@pytest.mark.parametrize(
    ("code", "http", "expected"),
    [
        ("QuotaExceeded", 403, StoreFull),
        ("XMinioStorageFull", 507, StoreFull),
        ("", 507, StoreFull),
        ("AccessDenied", 403, StoreReadOnly),
        ("403", 403, StoreReadOnly),
        ("SlowDown", 503, StoreUnavailable),
        ("InternalError", 500, StoreUnavailable),
        ("ConditionalRequestConflict", 409, StoreUnavailable),
        ("BadDigest", 400, StoreUnavailable),
        ("NoSuchKey", 404, ObjectNotFound),
        ("RequestTimeTooSkewed", 403, StorageError),
        ("InvalidStorageClass", 400, StorageError),
    ],
)
def test_what_a_server_answers_becomes_the_error_that_it_is(
    moto: S3Server, code: str, http: int, expected: type[StorageError]
) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "Said So"}, "ResponseMetadata": {"HTTPStatusCode": http}}
    with pytest.raises(StorageError) as caught, explained("store x", moto.options("bucket"), "x"):
        raise ClientError(answer, "PutObject")
    assert type(caught.value) is expected
    assert expected is ObjectNotFound or "said so" in str(caught.value)


def test_a_file_that_vanished_before_it_was_stored_is_an_error(store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        store.put(NAME, tmp_path / "gone")
    assert names(store) == []


def test_a_large_object_goes_both_ways(store: S3Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (9 << 12) + b"end"
    path = tmp_path / "pack"
    path.write_bytes(content)
    store.put(NAME, path)
    buffer = bytearray(len(content) + 10)
    assert store.read_into(NAME, 0, memoryview(buffer)) == len(content)
    assert buffer[: len(content)] == content
    assert path.read_bytes() == content


# Connections that break.

OPERATIONS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("index/new", b"new bytes"),
    "put again": lambda store: store.put("index/old", b"old bytes"),
    "replace": lambda store: store.put("index/old", b"new bytes", replace=True),
    "read": lambda store: store.read("index/old"),
    "read into": lambda store: store.read_into("index/old", 2, memoryview(bytearray(4))),
    "stat": lambda store: store.stat("index/old").size,
    "list": names,
    "delete": lambda store: store.delete("index/old"),
}


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with running_proxy(server.port) as running:
        yield running


#: The interpreter can change what its HTTP client makes of a cut answer: one server shows it.
CUTS = [
    pytest.param(kind, operation, marks=() if kind == "moto" else pytest.mark.slow)
    for kind in SERVERS
    for operation in OPERATIONS
]
CHANGES = {"put", "replace", "delete"}


class Broken:
    """A store whose first connection breaks as told, in a world that can be looked at beside it."""

    def __init__(self, kind: str, server: S3Server, bucket: str, proxy: Proxy) -> None:
        self.direct = S3Store(server.options(bucket), CLOCK, BEHAVIOURS[kind])
        self.options = replace(server.options(bucket, port=proxy.port), timeout=2.0)
        self.proxy = proxy
        self.kind = kind

    def prepare(self) -> None:
        for name in names(self.direct):
            self.direct.delete(name)
        self.direct.put("index/old", b"old bytes")
        self.direct.put("snapshots/other", b"other")

    def store(self, *faults: Fault, afresh: bool = True) -> S3Store:
        if afresh:
            self.prepare()
        self.proxy.faults.clear()
        self.proxy.faults.extend(faults)
        return S3Store(self.options, CLOCK, BEHAVIOURS[self.kind])


@pytest.fixture
def broken(kind: str, server: S3Server, bucket: str, proxy: Proxy) -> Iterator[Broken]:
    world = Broken(kind, server, bucket, proxy)
    with world.direct:
        yield world
    gc.collect()  # Here, where the warning is expected, and not in whichever test comes next.


@leaves_sockets
@pytest.mark.parametrize(("kind", "operation"), CUTS, indirect=["kind"])
def test_a_connection_cut_anywhere_leaves_all_or_nothing_and_the_next_try_succeeds(
    broken: Broken, operation: str
) -> None:
    ask = OPERATIONS[operation]
    with broken.store() as clean:
        expected = ask(clean)
    result, before = names(broken.direct), ["index/old", "snapshots/other"]
    counts = broken.proxy.connections[-1].counts
    for fault in (
        Fault(way, at) for way, step in ((Way.UP, 120), (Way.DOWN, 50)) for at in range(0, counts[way], step)
    ):
        with broken.store(fault, afresh=operation in CHANGES) as cut:
            with suppress(StoreUnavailable):
                assert ask(cut) == expected, fault
            # rclone shows an object twice while it is replaced.
            assert sorted({*names(broken.direct)}) in (before, result), fault
            for name in names(broken.direct):
                # A server may carry out only now what it was asked before the cut.
                with suppress(ObjectNotFound):
                    assert broken.direct.read(name) in {b"old bytes", b"new bytes", b"other"}, fault
            assert ask(RetryingStore(cut, sleep=lambda _: None)) == expected, fault
            assert names(broken.direct) == result, fault


def test_bytes_altered_on_their_way_never_become_the_object(broken: Broken) -> None:
    content = b"0123456789" * 500
    with broken.store() as clean:
        clean.put(NAME, content)
    # There, all three servers are being sent the body.
    for at in range(2400, 5400, 600):
        with broken.store(Fault(Way.UP, at, Harm.FLIP)) as altered:
            # Without TLS the bytes are signed too, and a server that looks there first calls it a wrong signature.
            with suppress(StorageError):
                altered.put(NAME, content)
            assert NAME not in names(broken.direct) or broken.direct.read(NAME) == content
            RetryingStore(altered, sleep=lambda _: None).put(NAME, content)
            assert broken.direct.read(NAME) == content
