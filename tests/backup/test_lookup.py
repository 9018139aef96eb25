"""What did not change is known and not read; what changed, or may have, is read again. Real trees, changed at the worst moment."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from zlib import crc32

import msgpack
import pytest

from opsd.backup.cache import Cache
from opsd.backup.images import ImageTaker
from opsd.backup.snapshot import Planned
from opsd.backup.tree import TreeBackup
from opsd.backup.work import Job, Result
from opsd.clock import FixedClock
from opsd.events import Recorder
from opsd.model import Entry, EntryType, Outcome
from opsd.repository.listing import folder_parts
from opsd.sources.files import FileTree
from opsd.sources.options import FilesSource
from opsd.sources.protocol import FoundFolder, Readable
from opsd.sources.sqlite import image
from tests.support.engine import SMALL, World, files, make_tree

#: So late that no change of a test is too near to the reading; and so early that each is.
LATE = 2_000_000_000_000_000_000
EARLY = 1_000_000_000_000_000_000
NIGHT = 86_400_000_000_000

Meddle = Callable[[bytes], None]


class MeddledTree(FileTree):
    """A tree that changes after a folder's entries were found, before any is read."""

    meddle: Meddle
    device = 0

    def folders(self) -> Iterator[FoundFolder]:
        for folder in super().folders():
            self.meddle(folder.path)
            if self.device:
                folder.entries[:] = [(name, on_device(found, self.device)) for name, found in folder.entries]
            yield folder


class WatchedBackup(TreeBackup):
    """Counts what is really read, which is less than what is looked at and told of."""

    read = 0

    def _advance(self, size: int) -> None:
        WatchedBackup.read += size
        super()._advance(size)


class OnlyForward(Recorder):
    """A bar that never goes back."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        assert min(files, size) >= 0
        super().advance(files=files, size=size)


def on_device(found: os.stat_result, number: int) -> os.stat_result:
    """As after a reboot that numbered devices otherwise."""
    times = {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns", "st_rdev", "st_blocks")}
    return os.stat_result((*found[:2], number, *found[3:10]), times)


@contextmanager
def take(real: bytes, found: os.stat_result) -> Iterator[Readable | None]:
    """A database's image, as the application takes it."""
    with image(real, found=found) as taken:
        yield taken


def source(
    root: Path, meddle: Meddle | None = None, taker: ImageTaker | None = None, device: int = 0, **options: object
) -> Planned:
    chosen = FilesSource(paths=(str(root),), **options)  # type: ignore[arg-type]

    def work(job: Job) -> Result:
        tree = MeddledTree(job.label, chosen, job.reporter)
        tree.meddle = meddle or (lambda _: None)
        tree.device = device
        return WatchedBackup(job, tree, chosen, taker or (lambda *_: nullcontext())).back_up()

    return Planned(label="files", kind="files", work=work)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.new(tmp_path / "world", clock=FixedClock(LATE))


def night(world: World, planned: Planned) -> int:
    """One run; returns how many bytes were read."""
    assert isinstance(world.clock, FixedClock)
    world.clock.advance(NIGHT)
    before = WatchedBackup.read
    assert world.backup(planned).outcome in {Outcome.COMPLETE, Outcome.WARNINGS}
    return WatchedBackup.read - before


def meet(root: Path, name: str, change: Callable[[], object]) -> Meddle:
    """Change something once, when a folder below the root was looked at."""
    left = [change]

    def meddle(path: bytes) -> None:
        if path == os.fsencode(root / name if name else root) and left:
            left.pop()()

    return meddle


def on_disk(root: Path) -> dict[str, bytes]:
    return {f"files:{path}": path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


def entries(world: World, root: Path) -> dict[str, Entry]:
    start = f"files:{root}/"
    return {path.removeprefix(start): entry for path, entry in world.entries().items() if path.startswith(start)}


def another_tick(path: Path) -> None:
    """Let the file system's clock move on from a file's last change."""
    tick = path.with_name("tick")
    while True:
        tick.write_bytes(b"")
        if tick.stat().st_ctime_ns > path.stat().st_ctime_ns:
            break
    tick.unlink()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders of some files."""
    content = {f"{folder}/{number:03}": f"{folder} {number}".encode() * 10 for folder in "ab" for number in range(100)}
    return make_tree(tmp_path / "tree", content)


class TestUnchanged:
    def test_nothing_is_read_again(self, world: World, root: Path) -> None:
        assert night(world, source(root)) == sum(map(len, on_disk(root).values()))
        assert night(world, source(root)) == 0
        assert world.contents() == on_disk(root)

    def test_what_is_looked_at_counts_once_whether_it_is_read_or_known(self, world: World, root: Path) -> None:
        (root / "large").write_bytes(bytes(range(256)) * 20_000)
        os.link(root / "large", root / "again")
        whole = sum(map(len, on_disk(root).values()))
        for _ in range(2):
            told = (world.recorder.files, world.recorder.size)
            night(world, source(root))
            assert (world.recorder.files - told[0], world.recorder.size - told[1]) == (202, whole)
            (root / "a/050").write_bytes(b"a 50" * 10)

    def test_a_file_that_grew_since_it_was_found_counts_as_it_was_found(self, world: World, root: Path) -> None:
        found = sum(map(len, on_disk(root).values()))
        world.recorder = OnlyForward()
        grow = meet(root, "b", lambda: (root / "b/099").write_bytes(bytes(5_000_000)))
        assert night(world, source(root, grow)) > 5_000_000
        assert world.recorder.size == found

    def test_beside_a_changed_file_nothing_else_is_read(self, world: World, root: Path) -> None:
        night(world, source(root))
        (root / "a/050").write_bytes(b"changed")
        assert night(world, source(root)) == 7
        assert night(world, source(root)) == 0
        assert world.contents() == on_disk(root)

    def test_in_a_very_large_folder_too(self, world: World, tmp_path: Path) -> None:
        root = make_tree(tmp_path / "tree", {f"many/{number:05}": b"%05d" % number for number in range(5000)})
        night(world, source(root))
        for number in (10, 2500, 4900):
            (root / f"many/{number:05}").write_bytes(b"changed")
        assert night(world, source(root)) == 3 * 7
        assert world.contents() == on_disk(root)

    def test_a_file_that_went_and_one_that_came_leave_the_others_known(self, world: World, root: Path) -> None:
        night(world, source(root))
        (root / "a/050").unlink()
        (root / "a/0505").write_bytes(b"new")
        (root / "b/099").rename(root / "a/from b")
        assert night(world, source(root)) == 3 + len("b 99" * 10)
        assert world.contents() == on_disk(root)

    def test_without_the_last_snapshot_blobs_are_looked_up_one_by_one(self, world: World, root: Path) -> None:
        night(world, source(root))
        name = world.open().snapshots()[0].name
        world.store.delete(name)
        assert night(world, source(root)) == 0
        assert world.contents() == on_disk(root)

    def test_owners_names_are_those_of_the_folder(self, world: World, root: Path) -> None:
        os.chown(root / "a/001", 1, 1)
        night(world, source(root))
        (root / "b/new").write_bytes(b"new")
        night(world, source(root))
        repository = world.open(reader=True)
        reader = repository.reader(repository.find("latest"))
        names = [folder.users for folder in reader.folders(reader.tree("files")) if folder.path.endswith(b"/a")]
        assert names
        assert all(users.get(1) == b"daemon" for users in names)


def rewrite_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes().upper())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_its_place(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().upper())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


class TestChanged:
    @pytest.mark.parametrize("change", [rewrite_and_set_the_time_back, take_its_place])
    def test_a_change_that_hides_its_time_is_seen(
        self, world: World, root: Path, change: Callable[[Path], None]
    ) -> None:
        night(world, source(root))
        another_tick(root / "a/050")
        change(root / "a/050")
        assert night(world, source(root)) == len("a 50" * 10)
        assert world.contents() == on_disk(root)

    @pytest.mark.parametrize("change", [rewrite_and_set_the_time_back, take_its_place])
    def test_a_change_between_the_looking_and_the_reading_is_seen_by_the_next_run(
        self, world: World, root: Path, change: Callable[[Path], None]
    ) -> None:
        another_tick(root / "b/050")
        night(world, source(root, meet(root, "b", lambda: change(root / "b/050"))))
        night(world, source(root))
        assert world.contents() == on_disk(root)

    def test_another_file_of_the_same_moment_is_not_taken_for_the_one_that_was_there(
        self, world: World, root: Path
    ) -> None:
        one, other = root / "one/file", root.parent / "other/file"
        one.parent.mkdir()
        other.parent.mkdir()
        for _ in range(1000):
            # A kernel may give a finer time to what was looked at before, as Python's own functions do.
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)
            for path, content in ((one, b"content"), (other, b"CONTENT")):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
                os.write(descriptor, content)
                os.close(descriptor)
            if one.stat().st_ctime_ns == other.stat().st_ctime_ns:
                break
        night(world, source(root))
        one.parent.rename(root.parent / "aside")
        other.parent.rename(root / "one")
        assert night(world, source(root)) == len(b"CONTENT")
        assert world.contents() == on_disk(root)

    def test_what_can_be_read_no_more_is_counted_and_tried_again(self, world: World, root: Path) -> None:
        (root / "a/pipe").write_bytes(b"a file yet")

        def swap() -> None:
            (root / "a/pipe").unlink()
            os.mkfifo(root / "a/pipe")
            (root / "a/001").unlink()
            (root / "a/002").rename(root / "a/aside")
            (root / "a/002").symlink_to("aside")

        night(world, source(root, meet(root, "a", swap)))
        assert len(world.recorder.warnings) == 3
        assert not {"a/pipe", "a/001", "a/002"} & entries(world, root).keys()
        night(world, source(root))
        found = entries(world, root)
        assert found["a/pipe"].type is EntryType.FIFO
        assert found["a/002"].target == b"aside"
        assert world.contents() == on_disk(root)

    def test_what_was_away_for_a_moment_is_back_in_the_next_snapshot(self, world: World, root: Path) -> None:
        night(world, source(root, meet(root, "a", lambda: (root / "a").rename(root / "away"))))
        assert "a/001" not in entries(world, root)
        (root / "away").rename(root / "a")
        night(world, source(root))
        assert world.contents() == on_disk(root)

    def test_a_file_that_changed_too_near_to_the_reading_is_read_again_and_its_neighbours_are_not(
        self, tmp_path: Path, root: Path
    ) -> None:
        world = World.new(tmp_path / "world", clock=FixedClock(EARLY))
        make_tree(root, {f"a/{number:04}": b"" for number in range(2100)})  # So that a hunk begins below the root.
        (root / "b/racy").write_bytes(b"racy")
        assert isinstance(world.clock, FixedClock)
        while (root / "b/racy").lstat().st_ctime_ns < (root / "b/099").stat().st_ctime_ns + 30_000_000:
            (root / "b/racy").write_bytes(b"racy")
        world.clock.advance((root / "b/racy").stat().st_ctime_ns + 1000 - world.clock.now())
        world.backup(source(root))
        sizes = [night(world, source(root)) for _ in range(2)]
        assert sizes == [4, 0]
        assert world.contents() == on_disk(root)


class TestLinks:
    def test_names_of_one_file_share_a_group_wherever_they_are_and_whichever_was_known(
        self, world: World, root: Path
    ) -> None:
        os.link(root / "a/001", root / "b/link")
        night(world, source(root))
        (root / "b/new").write_bytes(b"new")
        night(world, source(root))
        os.link(root / "a/001", root / "b/third")
        night(world, source(root))
        found = entries(world, root)
        assert found["a/001"].link is not None
        assert len({(found[name].link, found[name].content) for name in ("a/001", "b/link", "b/third")}) == 1
        for path in sorted((world.folder / "cache").rglob("files.sqlite*")):
            path.unlink()
        (root / "a/new").write_bytes(b"new")
        night(world, source(root))
        assert len({entries(world, root)[name].link for name in ("a/001", "b/link", "b/third")}) == 1

    def test_names_of_one_symlink_or_fifo_share_a_group_too(self, world: World, root: Path) -> None:
        (root / "a/way").symlink_to("nowhere")
        os.mkfifo(root / "a/pipe")
        night(world, source(root))
        for name in ("way", "pipe"):
            assert entries(world, root)[f"a/{name}"].link is None
            os.link(root / "a" / name, root / "b" / name, follow_symlinks=False)
        for _ in range(2):
            night(world, source(root))
            (root / "a/new").write_bytes(b"new")
            found = entries(world, root)
            assert found["a/way"].link == found["b/way"].link != found["a/pipe"].link == found["b/pipe"].link
            assert None not in {found["a/way"].link, found["a/pipe"].link}

    def test_names_stay_together_when_the_number_of_their_device_changes(self, world: World, root: Path) -> None:
        os.link(root / "a/001", root / "b/link")
        os.link(root / "a/002", root / "b/other")
        (root / "a/way").symlink_to("nowhere")
        os.link(root / "a/way", root / "b/way", follow_symlinks=False)
        night(world, source(root))
        before, ways = (entries(world, root)[name].link for name in ("a/001", "a/way"))
        (root / "b/050").unlink()  # So that one of the two folders is listed anew.
        assert night(world, source(root, device=4711)) == 0
        found = entries(world, root)
        assert found["a/001"].link == found["b/link"].link != before
        assert found["a/002"].link == found["b/other"].link != found["b/link"].link
        assert found["a/way"].link == found["b/way"].link != ways

    def test_a_file_that_changed_between_its_names_is_not_taken_for_what_it_was(self, world: World, root: Path) -> None:
        os.link(root / "a/001", root / "b/link")
        another_tick(root / "a/001")

        night(world, source(root, meet(root, "a", lambda: rewrite_and_set_the_time_back(root / "a/001"))))
        night(world, source(root))
        assert world.contents() == on_disk(root)

    def test_an_inode_that_passed_to_another_file_does_not_make_the_two_one(self, world: World, root: Path) -> None:
        os.link(root / "a/001", root / "a/also")
        number = (root / "a/001").stat().st_ino
        # Each of these ends a hunk: so many that the first was stored before the last is looked at.
        ends = [name for name in (f"c{number}" for number in range(100)) if crc32(os.fsencode(root / name)) % 4 == 0]
        make_tree(root, {f"{name}/{number:03}": b"" for name in ends[:12] for number in range(150)})
        (root / "z").mkdir()

        def pass_on() -> None:
            (root / "a/001").unlink()
            (root / "a/also").unlink()
            for attempt in range(1000):
                path = root / f"a/attempt {attempt}"
                path.write_bytes(b"a later file")
                if path.stat().st_ino == number:
                    path.rename(root / "z/later")
                    os.link(root / "z/later", root / "z/later too")
                    return
            pytest.skip("this file system does not give a number again")

        night(world, source(root, meet(root, ends[11], pass_on)))
        found, contents = entries(world, root), world.contents()
        assert found["a/001"].link == found["a/also"].link != found["z/later"].link == found["z/later too"].link
        assert contents[f"files:{root}/a/also"] == b"a 1" * 10
        assert contents[f"files:{root}/z/later too"] == b"a later file"

    def test_what_was_too_near_to_the_reading_is_read_again_under_each_of_its_names(
        self, tmp_path: Path, root: Path
    ) -> None:
        """The first name is met too soon after a change, the last much later."""
        world = World.new(tmp_path / "world", clock=FixedClock(EARLY))
        assert isinstance(world.clock, FixedClock)
        make_tree(root, {f"a/{number:04}": b"" for number in range(2100)} | {"a/001": bytes(100_000)})
        os.link(root / "a/001", root / "b/link")
        clock = world.clock
        clock.advance((root / "a/001").stat().st_ctime_ns - EARLY)
        world.backup(source(root, meet(root, "b", lambda: clock.advance(NIGHT))))
        assert night(world, source(root, exclude=("001",))) >= 100_000


def database(path: Path) -> sqlite3.Connection:
    """One that is in use, with all that was written since its making in its journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO t VALUES (1)")
    return connection


def rows(world: World, root: Path, name: str, scratch: Path) -> int:
    """How many rows the stored image has."""
    scratch.write_bytes(world.contents()[f"files:{root}/{name}"])
    with closing(sqlite3.connect(scratch)) as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


class TestDatabases:
    def test_a_change_that_only_its_journal_shows_is_seen(self, world: World, root: Path, tmp_path: Path) -> None:
        with closing(database(root / "a/x.db")) as connection:
            night(world, source(root, taker=take))
            connection.execute("INSERT INTO t VALUES (2)")
            night(world, source(root, taker=take))
            assert rows(world, root, "a/x.db", tmp_path / "image") == 2
            assert not {"a/x.db-wal", "a/x.db-shm"} & entries(world, root).keys()

    def test_also_where_the_two_are_parted_in_a_very_large_folder(self, world: World, tmp_path: Path) -> None:
        # A part of a listing ends after a name with such a checksum.
        name = next(name for number in range(10_000) if crc32((name := f"x{number}.db").encode()) % 512 == 0)
        root = make_tree(tmp_path / "tree", {f"many/{number:04}": b"" for number in range(2600)})
        with closing(database(root / "many" / name)) as connection:
            names = sorted(os.listdir(os.fsencode(root / "many")))
            assert [cut for cut in folder_parts(names) if cut.stop == names.index(name.encode()) + 1]
            night(world, source(root, taker=take))
            connection.execute("INSERT INTO t VALUES (2)")
            night(world, source(root, taker=take))
            assert rows(world, root, f"many/{name}", tmp_path / "image") == 2
            assert not {f"many/{name}-wal", f"many/{name}-shm"} & entries(world, root).keys()

    def test_one_that_was_stored_as_a_file_becomes_an_image_once_that_is_asked_for(
        self, world: World, root: Path
    ) -> None:
        database(root / "a/x.db").close()
        night(world, source(root, sqlite=False))
        assert entries(world, root)["a/x.db"].pages is None
        night(world, source(root, taker=take))
        assert entries(world, root)["a/x.db"].pages is not None

    def test_small_ones_among_many_files_are_images_too(self, world: World, root: Path) -> None:
        for number in range(5):
            with closing(sqlite3.connect(root / f"a/{number}.db")) as connection:
                connection.executescript("PRAGMA page_size = 512; CREATE TABLE t (x);")
        assert (root / "a/0.db").stat().st_size <= SMALL.cut_min
        night(world, source(root, taker=take))
        assert all(entries(world, root)[f"a/{number}.db"].pages for number in range(5))

    def test_a_page_map_that_is_asked_for_later_is_made(self, world: World, root: Path) -> None:
        night(world, source(root))
        night(world, source(root, page_map=("050",)))
        assert entries(world, root)["a/050"].pages is not None
        assert night(world, source(root, page_map=("050",))) == 0


def test_the_cache_tells_no_names_and_without_the_index_key_nothing(tmp_path: Path) -> None:
    """Who steals the state folder learns hashes; the index key, which a host has, opens rows in which no name stands."""
    named = {f"secret-plan/secret-{number}": b"content %d" % number for number in range(20)}
    world = World.new(tmp_path / "world", clock=FixedClock(2_000_000_000_000_000_000))
    world.backup(files(make_tree(tmp_path / "tree", named)))
    place = world.open()
    path = place.cache / "files.sqlite"
    stored = b"".join(each.read_bytes() for each in path.parent.glob("files.sqlite*"))
    assert b"secret-" not in stored
    with closing(Cache(path, place.place.ring.index())) as cache:
        rows = cache.execute("SELECT key, value FROM parts").fetchall()
        opened = [cache.opened(key, value) for key, value in rows]
    assert len(opened) > 1
    assert all(each is not None for each in opened)
    assert b"secret-" not in msgpack.packb(opened)
