"""A store in a folder: what is durable when, what a crash or a sick disk leaves, and what is told about it."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from opsd.errors import ObjectNotFound, StorageError, StoreFull, StoreReadOnly, StoreUnavailable
from opsd.storage import durable
from opsd.storage.folder import FOLDERS, FolderStore

NAME = "packs/ab/" + "c" * 64
DAY = 86_400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore.create(root)


class Disk:
    """The operating system's fsync, recorded, and failing when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[Path] = []
        self.failures: list[int] = []
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.synced.append(path)
        if self.failures and path.parent.name in {"tmp", "spool"}:
            code = self.failures.pop(0)
            raise OSError(code, os.strerror(code))
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def temporaries(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "tmp").iterdir())


def test_creating_makes_every_folder_and_syncs_each_and_its_parents(tmp_path: Path, disk: Disk) -> None:
    root = tmp_path / "new" / "place"
    FolderStore.create(root)
    assert len(list((root / "packs").iterdir())) == 256
    expected = {root / name for name in FOLDERS} | {root, tmp_path / "new", tmp_path}
    assert expected <= set(disk.synced)
    assert disk.synced.index(root / "packs/00") < disk.synced.index(root / "packs")


def test_creating_again_changes_nothing(store: FolderStore, root: Path) -> None:
    store.put(NAME, b"x")
    assert FolderStore.create(root).read(NAME) == b"x"


def test_creating_completes_what_was_cut_off(root: Path) -> None:
    (root / "tmp").mkdir(parents=True)
    FolderStore.create(root).put(NAME, b"x")
    assert (root / "notes").is_dir()


def test_creating_accepts_a_disk_with_only_its_lost_and_found(root: Path) -> None:
    (root / "lost+found").mkdir(parents=True)
    store = FolderStore.create(root)
    store.put(NAME, b"x")
    assert [info.name for info in store.list("")] == [NAME]


def test_creating_refuses_a_folder_that_holds_something_else(root: Path) -> None:
    root.mkdir()
    (root / "letter.txt").write_text("dear")
    with pytest.raises(StorageError, match="holds something else"):
        FolderStore.create(root)
    assert [path.name for path in root.iterdir()] == ["letter.txt"]


def test_creating_where_a_file_stands_is_an_error(root: Path) -> None:
    root.write_text("a file")
    with pytest.raises(StorageError, match="make folders"):
        FolderStore.create(root)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o377])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = FolderStore.create(tmp_path / "a" / "b")
        store.put("wal/cluster/1/segment", b"x")
        spooled = tmp_path / "a/b/spool/pack"
        spooled.touch()
        store.put(NAME, spooled)
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_put_syncs_the_bytes_then_the_folder(store: FolderStore, root: Path, disk: Disk) -> None:
    store.put(NAME, b"x")
    assert [path.parent for path in disk.synced] == [root / "tmp", root / "packs"]
    assert disk.synced[-1] == root / "packs/ab"
    assert temporaries(root) == []


def test_an_object_that_is_there_costs_one_sync_of_its_folder(store: FolderStore, root: Path, disk: Disk) -> None:
    store.put(NAME, b"x")
    disk.synced.clear()
    store.put(NAME, b"y")
    assert disk.synced == [root / "packs/ab"]


def test_a_folder_that_a_put_had_to_make_is_synced_with_its_parents(store: FolderStore, root: Path, disk: Disk) -> None:
    store.put("wal/cluster/1/segment", b"x")
    assert {root / "wal", root / "wal/cluster", root / "wal/cluster/1"} <= set(disk.synced)


def test_after_a_failed_sync_the_bytes_go_once_more_to_another_file(
    store: FolderStore, root: Path, disk: Disk, tmp_path: Path
) -> None:
    disk.failures = [errno.EIO]
    store.put(NAME, b"bytes")
    first, second = (path for path in disk.synced if path.parent == root / "tmp")
    assert first != second
    source = tmp_path / "source"
    source.write_bytes(b"a file's bytes")
    disk.failures = [errno.EIO]
    store.put("index/a", source)
    assert (store.read(NAME), store.read("index/a")) == (b"bytes", b"a file's bytes")
    assert temporaries(root) == []


def test_a_sync_that_fails_twice_is_an_error_and_leaves_nothing(store: FolderStore, root: Path, disk: Disk) -> None:
    disk.failures = [errno.EIO, errno.EIO]
    with pytest.raises(StorageError, match="input/output error") as caught:
        store.put(NAME, b"x")
    assert "dmesg" in str(caught.value.hint)
    assert list(store.list("")) == []
    assert temporaries(root) == []


def test_a_spooled_file_whose_sync_fails_is_given_up_since_its_bytes_are_nowhere_else(
    store: FolderStore, root: Path, disk: Disk
) -> None:
    spooled = root / "spool/pack"
    spooled.write_bytes(b"x")
    disk.failures = [errno.EIO]
    with pytest.raises(StorageError):
        store.put(NAME, spooled)
    assert list(store.list("")) == []


def test_a_spooled_file_is_moved_and_another_copied(store: FolderStore, root: Path, tmp_path: Path) -> None:
    spooled, elsewhere = root / "spool/pack", tmp_path / "pack"
    for path in (spooled, elsewhere):
        path.write_bytes(b"x")
    number = spooled.stat().st_ino
    os.utime(spooled, (0, 0))
    store.put(NAME, spooled)
    store.put("index/a", elsewhere)
    assert (root / NAME).stat().st_ino == number
    assert not spooled.exists()
    assert elsewhere.read_bytes() == b"x"
    assert store.stat(NAME).modified > 10**18


def test_a_spooled_file_whose_object_is_there_is_consumed(store: FolderStore, root: Path) -> None:
    store.put(NAME, b"x")
    spooled = root / "spool/pack"
    spooled.write_bytes(b"x")
    store.put(NAME, spooled)
    assert not spooled.exists()


def test_neither_unfinished_writes_nor_strange_files_are_listed(store: FolderStore, root: Path) -> None:
    for name in ("tmp/left", "spool/left", "index/.x y", "packs/Thumbs~db"):
        (root / name).write_bytes(b"x")
    (root / "index/link").symlink_to(root / "tmp/left")
    assert list(store.list("")) == []


def test_leftovers_of_killed_runs_go_when_they_are_old(store: FolderStore, root: Path) -> None:
    for name, days in {"tmp/old": 2, "tmp/new": 0.5, "spool/slow": 3, "spool/old": 8}.items():
        (root / name).touch()
        age = (root / name).stat().st_mtime - days * DAY
        os.utime(root / name, (age, age))
    store.put(NAME, b"x")
    assert temporaries(root) == ["new"]
    assert [path.name for path in (root / "spool").iterdir()] == ["slow"]


@pytest.mark.parametrize(
    "code, kind",
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EACCES, StoreReadOnly),
        (errno.EPERM, StoreReadOnly),
        (errno.ESTALE, StoreUnavailable),
    ],
)
def test_what_the_system_says_becomes_an_error_that_advises(
    store: FolderStore, root: Path, disk: Disk, code: int, kind: type[StorageError]
) -> None:
    disk.failures = [code]
    with pytest.raises(kind, match=f"store {NAME} in store folder {root}: {os.strerror(code).lower()}") as caught:
        store.put(NAME, b"x")
    assert caught.value.hint
    assert temporaries(root) == []


def test_a_full_disk_is_told_and_leaves_room_as_it_was() -> None:
    # /dev/full is the one full disk that every machine has.
    with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("wb", buffering=0) as full:
        durable.write_whole(full.fileno(), b"x")
    assert isinstance(durable.failure(caught.value, "store", Path("/x")), StoreFull)


@pytest.mark.parametrize("state", ["gone", "empty"])
@pytest.mark.parametrize("operation", ["put", "read", "stat", "list", "delete", "open"])
def test_an_unmounted_disk_is_an_error_never_an_empty_store(
    store: FolderStore, root: Path, state: str, operation: str
) -> None:
    shutil.rmtree(root)
    if state == "empty":
        root.mkdir()
    asked = {
        "put": lambda: store.put(NAME, b"x"),
        "read": lambda: store.read(NAME),
        "stat": lambda: store.stat(NAME),
        "list": lambda: list(store.list("packs/")),
        "delete": lambda: store.delete(NAME),
        "open": lambda: FolderStore(root),
    }
    words = "is not there" if state == "gone" else "is empty"
    with pytest.raises(StorageError, match=f"store folder {root} {words}") as caught:
        asked[operation]()  # type: ignore[no-untyped-call]
    assert not isinstance(caught.value, ObjectNotFound)
    assert "is the disk mounted?" in str(caught.value.hint)


def test_a_store_copied_without_its_empty_folders_still_takes_objects(store: FolderStore, root: Path) -> None:
    store.put(NAME, b"x")
    for path in root.iterdir():
        if path.name != "packs":
            shutil.rmtree(path)
    copied = FolderStore(root)
    copied.put("index/a", b"y")
    assert copied.capabilities.spool is None
    assert sorted(info.name for info in copied.list("")) == ["index/a", NAME]


def test_a_disk_without_hard_links_still_never_overwrites(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store.put(NAME, b"right")
    with pytest.raises(FileExistsError):
        durable.link(root / NAME, root / NAME)
    assert store.read(NAME) == b"right"
    assert temporaries(root) == []


@pytest.mark.parametrize("faster", [b"right", b"wronged"])
def test_of_two_who_store_at_once_the_second_finds_it_done_or_damaged(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, faster: bytes
) -> None:
    real = os.link

    def overtaken(source: Path, target: Path) -> None:
        (root / NAME).write_bytes(faster)
        real(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    if faster == b"right":
        store.put(NAME, b"right")
    else:
        with pytest.raises(StorageError, match="damaged"):
            store.put(NAME, b"right")
    assert store.read(NAME) == faster


def test_a_file_that_another_process_replaced_or_deleted_is_read_anew(store: FolderStore, root: Path) -> None:
    store.put(NAME, b"wrong")
    assert store.read(NAME) == b"wrong"
    other = FolderStore(root)
    other.put(NAME, b"right", replace=True)
    assert store.read(NAME, 1, 2) == b"ig"
    other.delete(NAME)
    with pytest.raises(ObjectNotFound):
        store.read(NAME)


def open_files(root: Path) -> int:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link).startswith(str(root)) for link in links)


def test_few_files_stay_open_and_none_after_closing(store: FolderStore, root: Path) -> None:
    with store:
        for number in range(100):
            store.put(f"index/{number}", b"x")
            store.read(f"index/{number}")
        assert 1 < open_files(root) <= 64
    assert open_files(root) == 0


def test_a_symlink_is_never_followed_out_of_the_store(store: FolderStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "index/link").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError):
        store.read("index/link")
    with pytest.raises(ObjectNotFound):
        store.stat("index/link")


def test_a_file_that_vanished_before_it_was_stored_is_an_error(store: FolderStore, tmp_path: Path, root: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        store.put(NAME, tmp_path / "gone")
    assert temporaries(root) == []
