"""A store on a real OpenSSH server: whom it trusts, what is durable when, and what broken connections and disks leave."""

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.errors import ObjectNotFound, StorageError, StoreFull, StoreReadOnly, StoreUnavailable
from opsd.storage.folder import FOLDERS, FolderStore
from opsd.storage.protocol import Store
from opsd.storage.retry import RetryingStore
from opsd.storage.sftp import SftpStore
from opsd.storage.sftp_session import SftpOptions
from tests.support.proxy import Fault, Harm, Proxy, Way, running_proxy
from tests.support.sshd import Server, make_key, running_server

pytest_plugins = ["tests.support.stores"]

NAME = "packs/ab/" + "c" * 64
DAY = 86_400


@pytest.fixture
def root() -> Iterator[Path]:
    """In memory where there is some: these tests sync thousands of times."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="opsd-sftp-", dir=memory if os.access(memory, os.W_OK) else None)
    yield Path(folder) / "store"
    shutil.rmtree(folder)


@pytest.fixture
def store(sftp_server: Server, root: Path) -> Iterator[SftpStore]:
    with SftpStore.create(sftp_server.options(root)) as made:
        yield made


def temporaries(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "tmp").iterdir())


def names(root: Path) -> list[str]:
    """What the store holds, by the folder itself."""
    return sorted(info.name for info in FolderStore(root).list(""))


def test_creating_makes_every_folder_and_its_parents(sftp_server: Server, tmp_path: Path) -> None:
    root = tmp_path / "new" / "place"
    SftpStore.create(sftp_server.options(root)).close()
    assert all((root / name).is_dir() for name in FOLDERS)
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")} == {0o700}
    assert temporaries(root) == []


def test_creating_again_completes_what_was_cut_off_and_changes_nothing_else(
    store: SftpStore, sftp_server: Server, root: Path
) -> None:
    store.put(NAME, b"x")
    (root / "notes").rmdir()
    with SftpStore.create(sftp_server.options(root)) as again:
        assert again.read(NAME) == b"x"
    assert (root / "notes").is_dir()


def test_creating_refuses_a_folder_that_holds_something_else(sftp_server: Server, root: Path) -> None:
    root.mkdir()
    (root / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="holds something else"):
        SftpStore.create(sftp_server.options(root))
    assert [path.name for path in root.iterdir()] == ["letter.txt"]


def test_creating_where_a_file_stands_is_an_error(sftp_server: Server, root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(StorageError, match=f"{root}"):
        SftpStore.create(sftp_server.options(root))


def test_creating_where_a_file_has_the_name_of_a_folder_is_an_error(
    store: SftpStore, sftp_server: Server, root: Path
) -> None:
    store.put(NAME, b"x")
    (root / "notes").rmdir()
    (root / "notes").touch()
    with pytest.raises(StorageError, match="make folders"):
        SftpStore.create(sftp_server.options(root))


def test_a_folder_store_and_an_sftp_store_are_the_same_bytes(store: SftpStore, root: Path) -> None:
    store.put("wal/cluster/1/segment", b"wal")
    with FolderStore(root) as folder:
        folder.put(NAME, b"pack")
        assert folder.read("wal/cluster/1/segment") == b"wal"
    assert store.read(NAME) == b"pack"
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()} == {0o600}


def test_a_large_object_travels_in_many_blocks(store: SftpStore, tmp_path: Path) -> None:
    content = os.urandom((9 << 20) + 12345)
    path = tmp_path / "pack"
    path.write_bytes(content)
    store.put(NAME, path)
    buffer = bytearray(len(content) + 10)
    assert store.read_into(NAME, 0, memoryview(buffer)) == len(content)
    assert buffer[: len(content)] == content
    assert store.read(NAME, 5 << 20, 3 << 20) == content[5 << 20 : 8 << 20]
    assert path.read_bytes() == content


def test_a_file_that_vanished_before_it_was_stored_is_an_error(store: SftpStore, root: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        store.put(NAME, tmp_path / "gone")
    assert temporaries(root) == []


def test_a_folder_of_many_objects_is_listed_whole(store: SftpStore, root: Path) -> None:
    expected = [f"index/{number:04}" for number in range(2500)]
    for name in expected:
        (root / name).touch()
    assert sorted(info.name for info in store.list("index/")) == expected


def test_neither_unfinished_writes_nor_strange_files_are_listed(store: SftpStore, root: Path) -> None:
    for name in ("tmp/left", "spool/left", "index/.x y", "packs/Thumbs~db"):
        (root / name).write_bytes(b"x")
    (root / "index/ä").write_bytes(b"x")
    (root / "index/link").symlink_to(root / "tmp/left")
    assert list(store.list("")) == []


def test_a_symlink_is_never_followed_out_of_the_store(store: SftpStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "index/link").symlink_to(tmp_path / "secret")
    for look in (store.read, store.stat):
        with pytest.raises(ObjectNotFound):
            look("index/link")


@pytest.mark.usefixtures("store")
def test_leftovers_of_killed_runs_go_when_they_are_old(root: Path, sftp_server: Server) -> None:
    for name, days in {"old": 2, "new": 0.5}.items():
        path = root / "tmp" / name
        path.touch()
        age = path.stat().st_mtime - days * DAY
        os.utime(path, (age, age))
    with SftpStore(sftp_server.options(root)) as another:
        another.put(NAME, b"x")
    assert temporaries(root) == ["new"]


@pytest.mark.parametrize("state", ["gone", "empty"])
@pytest.mark.parametrize("operation", ["put", "read", "stat", "list", "list all", "delete"])
def test_an_unmounted_disk_is_an_error_never_an_empty_store(
    store: SftpStore, root: Path, state: str, operation: str
) -> None:
    shutil.rmtree(root)
    if state == "empty":
        root.mkdir()
    asked: dict[str, Callable[[], object]] = {
        "put": lambda: store.put(NAME, b"x"),
        "read": lambda: store.read(NAME),
        "stat": lambda: store.stat(NAME),
        "list": lambda: store.list("packs/"),
        "list all": lambda: store.list(""),
        "delete": lambda: store.delete(NAME),
    }
    words = "is not there" if state == "gone" else "is empty"
    with pytest.raises(StorageError, match=f"{root} {words}") as caught:
        asked[operation]()
    assert not isinstance(caught.value, ObjectNotFound)
    assert "is the disk mounted there?" in str(caught.value.hint)


def test_a_store_copied_without_its_empty_folders_still_takes_objects(store: SftpStore, root: Path) -> None:
    store.put(NAME, b"x")
    for path in root.iterdir():
        if path.name != "packs":
            shutil.rmtree(path)
    store.put("index/a", b"y")
    assert names(root) == ["index/a", NAME]


@pytest.mark.parametrize("faster", [b"", b"wrong"])
def test_of_two_who_store_at_once_the_second_finds_it_done_or_damaged(
    store: SftpStore, root: Path, tmp_path: Path, faster: bytes
) -> None:
    # What is read from a pipe comes only after the other has stored.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    failures: list[Exception] = []

    def slow() -> None:
        try:
            store.put(NAME, pipe)
        except StorageError as error:
            failures.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    with pipe.open("wb"):
        FolderStore(root).put(NAME, faster)
    thread.join()
    assert bool(failures) == (faster == b"wrong")
    assert all("damaged" in str(failure) for failure in failures)
    assert (root / NAME).read_bytes() == faster
    assert temporaries(root) == []


# Whom it trusts.


def test_an_unknown_host_key_is_refused_before_any_login(sftp_server: Server, root: Path, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    logins = accepted(sftp_server)
    with pytest.raises(StorageError, match=r"unknown: .* shows ssh-ed25519 SHA256:") as caught:
        SftpStore.create(replace(sftp_server.options(root), known_hosts=known))
    assert not isinstance(caught.value, StoreUnavailable)
    assert f"ssh-keyscan -p {sftp_server.port} 127.0.0.1 >> {known}" in str(caught.value.hint)
    assert fingerprint(sftp_server.folder / "host.pub") in str(caught.value)
    assert accepted(sftp_server) == logins
    assert known.read_text() == ""


def test_a_changed_host_key_is_refused_before_any_login(sftp_server: Server, root: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sftp_server.port} {(tmp_path / 'other.pub').read_text()}")
    logins = accepted(sftp_server)
    with pytest.raises(StorageError, match="has changed") as caught:
        SftpStore.create(replace(sftp_server.options(root), known_hosts=known))
    assert not isinstance(caught.value, StoreUnavailable)
    for key in (sftp_server.folder / "host.pub", tmp_path / "other.pub"):
        assert fingerprint(key) in str(caught.value)
    assert f"ssh-keygen -f {known} -R '[127.0.0.1]:{sftp_server.port}'" in str(caught.value.hint)
    assert accepted(sftp_server) == logins


def test_without_a_file_of_known_hosts_nobody_is_trusted(sftp_server: Server, root: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't read") as caught:
        SftpStore.create(replace(sftp_server.options(root), known_hosts=tmp_path / "gone"))
    assert "ssh-keyscan" in str(caught.value.hint)
    assert str(caught.value).endswith("gone: no such file or directory")


def fingerprint(public: Path) -> str:
    return subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout.split()[1]


def accepted(server: Server) -> int:
    log = server.folder / "log"
    return log.read_text().count("Accepted publickey") if log.exists() else 0


def test_a_refused_login_names_key_and_user(sftp_server: Server, root: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(StorageError, match="refuses") as caught:
        SftpStore.create(replace(sftp_server.options(root), key=tmp_path / "stranger"))
    assert not isinstance(caught.value, StoreUnavailable)
    assert "authorized_keys" in str(caught.value.hint)


def test_a_key_that_is_missing_sealed_or_none_is_named(sftp_server: Server, root: Path, tmp_path: Path) -> None:
    sealed, none = tmp_path / "sealed", tmp_path / "none"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", sealed], check=True)
    none.write_text("hello")
    for key, words in {
        tmp_path / "gone": "gone: no such",
        sealed: "needs a passphrase",
        none: "it is no private",
    }.items():
        with pytest.raises(StorageError, match=words) as caught:
            SftpStore.create(replace(sftp_server.options(root), key=key))
        assert str(key) in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize("command", ["/bin/false", "echo welcome"])
def test_a_login_without_sftp_is_told(root: Path, command: str) -> None:
    with running_server(f"ForceCommand {command}\n") as server, pytest.raises(StorageError) as caught:
        SftpStore.create(server.options(root))
    assert "offers" in str(caught.value)
    assert not isinstance(caught.value, StoreUnavailable)


# Connections that break.


def test_a_server_that_is_away_may_come_back(sftp_server: Server, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreUnavailable, match=f"port {port}"):
        SftpStore(sftp_server.options(root, port=port)).stat(NAME)


def test_a_server_that_says_nothing_is_given_up(sftp_server: Server, store: SftpStore, root: Path) -> None:
    store.put(NAME, b"x")
    with running_proxy(sftp_server.port) as proxy:
        sftp_server.trust(proxy.port)
        options = replace(sftp_server.options(root, port=proxy.port), timeout=0.5)
        for held in (Fault(Way.DOWN, 0, Harm.HOLD), Fault(Way.DOWN, 2650, Harm.HOLD)):
            proxy.faults.append(held)
            with SftpStore(options) as silent:
                with pytest.raises(StoreUnavailable):
                    silent.read(NAME)
                assert silent._pool._idle == []


def test_connections_that_the_server_dropped_are_opened_again(root: Path) -> None:
    with running_server() as server, SftpStore.create(server.options(root)) as store:
        store.put(NAME, b"x")
        server.drop()
        assert store.read(NAME) == b"x"
        server.drop()
        store.put("index/a", b"y")
        server.drop()
        assert names(root) == sorted(info.name for info in store.list(""))


def test_no_more_connections_are_open_than_asked_for(root: Path) -> None:
    with running_server() as server, SftpStore.create(replace(server.options(root), connections=2)) as store:
        threads = [threading.Thread(target=store.put, args=(f"index/{number}", b"x" * 100_000)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names(root)) == 12
        assert len(server.started) <= 2


@pytest.fixture
def proxy(sftp_server: Server) -> Iterator[Proxy]:
    with running_proxy(sftp_server.port) as running:
        sftp_server.trust(running.port)
        yield running


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("index/new", b"new bytes"),
    "put again": lambda store: store.put("index/old", b"old bytes"),
    "put in a new folder": lambda store: store.put("wal/cluster/1/segment", b"new bytes"),
    "replace": lambda store: store.put("index/old", b"new bytes", replace=True),
    "read": lambda store: store.read("index/old"),
    "stat": lambda store: store.stat("index/old").size,
    "list": lambda store: [info.name for info in store.list("index/")],
    "delete": lambda store: store.delete("index/old"),
}


#: Every place of every operation is for one Python; what another could change shows with a put.
BREAKS = [
    pytest.param(operation, harm, marks=() if operation == "put" else pytest.mark.slow)
    for operation in OPERATIONS
    for harm in (Harm.CUT, Harm.FLIP)
]


@contextmanager
def behind(server: Server, proxy: Proxy, root: Path) -> Iterator[SftpStore]:
    # A length that was altered makes either side wait for bytes that never come.
    with SftpStore(replace(server.options(root, port=proxy.port), timeout=1.0)) as store:
        yield store


def prepared(root: Path) -> None:
    """Only two objects, whatever was there before."""
    with FolderStore(root) as folder:
        for info in folder.list(""):
            folder.delete(info.name)
        folder.put("index/old", b"old bytes")
        folder.put("snapshots/other", b"other")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("operation", "harm"), BREAKS)
def test_a_connection_that_breaks_anywhere_leaves_all_or_nothing_and_the_next_try_succeeds(
    sftp_server: Server, proxy: Proxy, store: SftpStore, root: Path, operation: str, harm: Harm
) -> None:
    prepared(root)
    del store
    with behind(sftp_server, proxy, root) as clean:
        expected = OPERATIONS[operation](RetryingStore(clean))
    whole, result = proxy.connections[-1].counts, names(root)
    before = ["index/old", "snapshots/other"]
    # What comes before the first request is the same for all: a few places are enough there.
    login = {Way.UP: 1700, Way.DOWN: 2500}
    step = 900 if harm is Harm.FLIP or operation in {"read", "stat", "list"} else 150
    places = [
        Fault(way, at, harm)
        for way in Way
        for at in (*range(30, login[way], 900), *range(login[way], whole[way], step))
    ]
    for fault in places:
        prepared(root)
        proxy.faults.append(fault)
        with behind(sftp_server, proxy, root) as broken:
            with suppress(StoreUnavailable):
                assert OPERATIONS[operation](broken) == expected, fault
            assert names(root) in (before, result), fault
            for name in names(root):
                with suppress(FileNotFoundError):
                    assert (root / name).read_bytes() in {b"old bytes", b"new bytes", b"other"}, fault
            assert OPERATIONS[operation](RetryingStore(broken, sleep=lambda _: None)) == expected, fault
            assert names(root) == result, fault
        # What the server was asked before the cut, it may still be doing.
        sftp_server.drop()


# Accounts and disks that do not let it.


def test_an_account_that_may_only_read_is_told_apart(store: SftpStore, root: Path) -> None:
    store.put(NAME, b"x")
    with running_server("ForceCommand internal-sftp -R\n") as server, SftpStore(server.options(root)) as reader:
        assert reader.read(NAME) == b"x"
        assert [info.name for info in reader.list("")] == [NAME]
        asked: list[Callable[[], object]] = [
            lambda: reader.put("index/a", b"x"),
            lambda: reader.put(NAME, b"y", replace=True),
            lambda: reader.delete(NAME),
            lambda: SftpStore.create(server.options(root.parent / "other")),
        ]
        for ask in asked:
            with pytest.raises(StoreReadOnly) as caught:
                ask()
            assert "may only read" in str(caught.value.hint)
    assert names(root) == [NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can confine a login")
def test_a_login_that_is_confined_to_its_folder_sees_the_store_below_it() -> None:
    # sshd_config(5): every folder above must belong to root and be writable by nobody else, which /tmp is not.
    jail = Path(tempfile.mkdtemp(prefix="opsd-jail-", dir="/run"))
    try:
        jail.chmod(0o755)
        with running_server(f"ChrootDirectory {jail}\nForceCommand internal-sftp\n") as server:
            with SftpStore.create(server.options("/store")) as store:
                store.put(NAME, b"x")
                assert [info.name for info in store.list("")] == [NAME]
            assert (jail / "store" / NAME).read_bytes() == b"x"
            with SftpStore.create(server.options("deep/er")) as relative:
                relative.put(NAME, b"y")
            assert (jail / "deep/er" / NAME).read_bytes() == b"y"
    finally:
        shutil.rmtree(jail)


#: The answer to a host that was broken into: it may add, and neither change nor remove.
APPEND_ONLY = (
    "ForceCommand internal-sftp -u 0222 -p realpath,stat,lstat,fstat,opendir,readdir,open,read,write,close,rename,limits,"
    "fsync,statvfs\n"
)


def test_an_account_that_may_only_add_takes_new_objects_and_loses_none(store: SftpStore, root: Path) -> None:
    store.put(NAME, b"x")
    with running_server(APPEND_ONLY) as server, SftpStore(server.options(root)) as adder:
        adder.put("index/a", b"new")
        adder.put("index/a", b"new")
        assert adder.read("index/a") == b"new"
        with pytest.raises(StoreReadOnly):
            adder.delete(NAME)
        with pytest.raises(StorageError):
            adder.put(NAME, b"y", replace=True)
    assert names(root) == ["index/a", NAME]
    assert (root / NAME).read_bytes() == b"x"
    assert stat.S_IMODE((root / "index/a").stat().st_mode) == 0o400


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own in a folder; what is yielded changes its options."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]

    def change(more: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{more}", str(folder)], check=True)

    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield change
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_what_is_there_stays(sftp_server: Server, root: Path) -> None:
    with small_disk(root, "size=4m"), SftpStore.create(sftp_server.options(root)) as store:
        store.put(NAME, b"x" * (2 << 20))
        with pytest.raises(StoreFull, match="0 bytes are free") as caught:
            store.put("index/a", b"y" * (3 << 20))
        assert "opsd prune" in str(caught.value.hint)
        assert temporaries(root) == []
        assert names(root) == [NAME]
        store.delete(NAME)
        store.put("index/a", b"y" * (3 << 20))
        assert names(root) == ["index/a"]


def test_a_disk_without_room_for_another_file_is_full_too(sftp_server: Server, root: Path) -> None:
    with small_disk(root, "nr_inodes=280"), SftpStore.create(sftp_server.options(root)) as store:

        def fill() -> None:
            for number in range(280):
                store.put(f"index/{number}", b"")

        with pytest.raises(StoreFull, match="no room for another file"):
            fill()
        assert temporaries(root) == []


def test_a_disk_that_turned_read_only_is_told(sftp_server: Server, root: Path) -> None:
    with small_disk(root, "size=4m") as change, SftpStore.create(sftp_server.options(root)) as store:
        store.put(NAME, b"x")
        change("ro")
        with pytest.raises(StoreReadOnly, match="mounted read-only"):
            store.put("index/a", b"y")
        assert store.read(NAME) == b"x"


@pytest.mark.parametrize("without", ["fsync", "posix-rename", "limits", "statvfs"])
def test_a_server_that_lacks_an_extension_is_used_as_far_as_it_goes(root: Path, without: str) -> None:
    with (
        running_server(f"ForceCommand internal-sftp -P {without}\n") as server,
        SftpStore.create(server.options(root)) as store,
    ):
        assert store.capabilities.durable == (without != "fsync")
        store.put(NAME, b"x" * 100_000)
        assert store.read(NAME) == b"x" * 100_000
        if without == "posix-rename":
            with pytest.raises(StorageError, match=r"lacks posix-rename@openssh\.com"):
                store.put(NAME, b"y", replace=True)
            assert temporaries(root) == []
            assert store.read(NAME, 0, 1) == b"x"


# What is durable when.


@pytest.fixture
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    return found


def watched(log: Path) -> str:
    """What a server did, a word for each call that gives or makes durable."""
    calls = []
    for line in log.read_text().splitlines():
        found = re.search(r"(fsync|link|linkat|unlink|rename)\(", line)
        if found and ("fsync" in line or "/tmp/" in line or "packs/" in line):
            calls.append(found[1])
    return " ".join(calls)


@pytest.mark.usefixtures("store")
def test_a_put_is_synced_before_and_after_it_gets_its_name(root: Path, tmp_path: Path, strace: str) -> None:
    log = tmp_path / "calls"
    # Each connection has a strace of its own: they add to the log, or one would write over what another noted.
    wrapper = [strace, "-f", "-qq", "-A", "-o", str(log), "-e", "trace=fsync,link,unlink,rename"]
    with running_server(wrapper=wrapper) as server, SftpStore(server.options(root)) as watched_store:
        watched_store.put(NAME, b"x")
        watched_store.close()
        assert "fsync link unlink fsync" in watched(log)
        log.write_text("")
        watched_store.put(NAME, b"x")
        watched_store.close()
        assert watched(log) == "fsync"
        log.write_text("")
        watched_store.put(NAME, b"y", replace=True)
        watched_store.close()
        assert watched(log) == "fsync rename fsync"
        log.write_text("")
        watched_store.delete(NAME)
        watched_store.close()
        assert re.match("unlink link unlink fsync", watched(log))


@pytest.mark.usefixtures("store")
def test_a_failed_sync_is_final_for_that_file_and_the_next_try_writes_another(root: Path, strace: str) -> None:
    # Of the server's processes, only the one that serves files syncs any.
    wrapper = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"]
    with running_server(wrapper=wrapper) as server, SftpStore(server.options(root)) as sick:
        with pytest.raises(StoreUnavailable, match="fsync") as caught:
            sick.put(NAME, b"x")
        assert "dmesg" in str(caught.value.hint)
        assert names(root) == []
        assert temporaries(root) == []
        sick.put(NAME, b"x")
        assert names(root) == [NAME]


def test_options_tell_a_person_where() -> None:
    options = SftpOptions(host="h", user="u", path="/p", key=Path("k"), known_hosts=Path("f"))
    assert str(options) == "u@h:/p"
