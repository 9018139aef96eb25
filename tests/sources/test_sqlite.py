"""Images of SQLite databases, while real programs write to them."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from opsd.errors import SourceError
from opsd.sources import sqlite, sqlite_image
from opsd.sources.options import SqliteSource
from opsd.sources.protocol import Readable
from opsd.sources.sqlite import SqliteDatabase, companion_of, image, is_database, may_become_others
from opsd.sources.sqlite_image import Care, Reason, Refused
from tests.support.descriptors import settled_descriptors

NOBODY = 65534
needs_root = pytest.mark.skipif(not may_become_others(), reason="only who may become another user can read as one")


def make(path: Path, *, mode: str = "delete", rows: int = 200, size: int = 1000) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")
        database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, content BLOB)")
        database.execute("CREATE TABLE counter (one INTEGER, two INTEGER)")
        database.execute("INSERT INTO counter VALUES (0, 0)")
        database.executemany("INSERT INTO item (content) VALUES (randomblob(?))", ((size,) for _ in range(rows)))
        database.execute("PRAGMA user_version = 7")
        database.commit()
    return path


def read_all(reader: Readable) -> bytes:
    whole = bytearray()
    buffer = memoryview(bytearray(100_000))
    while count := reader.readinto(buffer):
        whole += buffer[:count]
    return bytes(whole)


def taken(path: Path, care: Care | None = None) -> bytes:
    with image(os.fsencode(path), care=care) as reader:
        whole = read_all(reader)
        assert len(whole) == reader.size
    return whole


@contextmanager
def opened(content: bytes, folder: Path) -> Iterator[sqlite3.Connection]:
    """An image as a database of its own."""
    place = folder / "restored.db"
    place.write_bytes(content)
    with closing(sqlite3.connect(place)) as database:
        yield database
    for left in folder.glob("restored.db*"):
        left.unlink()


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
number = 0
while True:
    number += 1
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE counter SET one = one + 1")
    database.execute("UPDATE item SET content = randomblob(1000) WHERE id % 50 = ?", (number % 50,))
    database.execute("UPDATE counter SET two = two + 1")
    database.execute("COMMIT")
    if number == 3:
        print("writing", flush=True)
"""


@contextmanager
def busy_writer(path: Path, program: str = WRITER, user: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that does not stop committing."""
    arguments = [sys.executable, "-c", program, str(path)]
    if user is not None:
        # The interpreter may lie where that user can't go: it starts as we and becomes the user.
        become = f"import os, sqlite3; os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        arguments[2] = become + program
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"writing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_images_taken_under_a_busy_writer_are_each_of_one_moment(tmp_path: Path, mode: str) -> None:
    path = make(tmp_path / "crm.db", mode=mode, rows=3000)
    counts = []
    with busy_writer(path) as writer:
        for _ in range(8):
            with opened(taken(path), tmp_path) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                one, two = database.execute("SELECT one, two FROM counter").fetchone()
                assert one == two
                counts.append(one)
        assert writer.poll() is None
    assert counts == sorted(counts)
    assert counts[-1] > counts[0], "the writer stood still: nothing was shown"


def test_a_commit_in_the_log_is_in_the_image_and_one_after_it_is_not(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", mode="wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("UPDATE counter SET one = 5, two = 5")
        with image(os.fsencode(path)) as reader:
            writer.execute("UPDATE counter SET one = 6, two = 6")
            content = read_all(reader)
    with opened(content, tmp_path) as database:
        assert database.execute("SELECT one FROM counter").fetchone() == (5,)


def test_a_writer_with_a_log_never_waits_for_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "crm.db", mode="wal")
    written = []

    def write(*_: int) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as writer:
            written.append(writer.execute("UPDATE counter SET one = one + 1, two = two + 1").rowcount)

    monkeypatch.setattr(sqlite_image, "_STEP_PAGES", 10)
    monkeypatch.setattr(sqlite_image, "_heed_signals", write)
    with opened(taken(path), tmp_path) as database:
        assert database.execute("SELECT one, two FROM counter").fetchone() == (0, 0)
    assert len(written) > 3


def test_only_changed_pages_differ_between_two_images(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", rows=20_000, size=400)
    before = taken(path)
    pages = len(before) // 4096
    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "UPDATE item SET content = randomblob(400) WHERE id = ?",
            ((n * 20_000 // (pages // 100),) for n in range(1, pages // 100)),
        )
        database.commit()
    after = taken(path)
    assert len(after) == len(before)
    blocks = range(0, len(before), 8192)
    changed = sum(before[start : start + 8192] != after[start : start + 8192] for start in blocks)
    assert 0 < changed / len(blocks) < 0.03


def test_two_images_of_an_unchanged_database_are_equal(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", mode="wal")
    assert taken(path) == taken(path)


def test_the_image_is_byte_for_byte_what_the_backup_api_gives(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", mode="wal")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "other.db")) as target:
        source.backup(target)
    assert taken(path) == (tmp_path / "other.db").read_bytes()


def test_an_application_finds_its_journal_mode_again(tmp_path: Path) -> None:
    with opened(taken(make(tmp_path / "crm.db", mode="wal")), tmp_path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_nothing_is_left_beside_the_database_nor_in_the_scratch_folder(tmp_path: Path, mode: str) -> None:
    place, scratch = tmp_path / "place", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    path = make(place / "crm.db", mode=mode)
    with image(os.fsencode(path), scratch=scratch) as reader:
        assert reader.size
        assert list(scratch.iterdir()) == []
    assert list(place.iterdir()) == [path]


def test_what_a_killed_writer_left_in_a_rollback_journal_is_undone(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", rows=3000)
    spilling = """
import sqlite3, sys, os
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 5")
database.execute("BEGIN")
database.execute("UPDATE counter SET one = 99")
database.execute("UPDATE item SET content = zeroblob(1000)")
print("writing", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", spilling, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout
        writer.stdout.readline()
        writer.kill()
    assert (tmp_path / "crm.db-journal").exists()
    with opened(taken(path), tmp_path) as database:
        assert database.execute("SELECT one, two FROM counter").fetchone() == (0, 0)
        assert database.execute("SELECT count(*) FROM item WHERE content = zeroblob(1000)").fetchone() == (0,)


def test_a_database_in_a_frozen_file_system_is_read_with_its_log(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", mode="wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("UPDATE counter SET one = 5, two = 5")
        frozen = tmp_path / "frozen"
        frozen.mkdir()
        for name in ("crm.db", "crm.db-wal"):
            shutil.copyfile(tmp_path / name, frozen / name)
    stood = {each.name: each.read_bytes() for each in frozen.iterdir()}
    content = taken(frozen / "crm.db", Care(frozen=True))
    assert {each.name: each.read_bytes() for each in frozen.iterdir()} == stood
    with opened(content, tmp_path) as database:
        assert database.execute("SELECT one FROM counter").fetchone() == (5,)


def test_facts_are_those_of_the_image(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute('CREATE TABLE "odd ""name" (x)')
    with image(os.fsencode(path)) as reader:
        facts = reader.facts
    schema = facts.pop("schema")
    assert facts == {
        "checked": True,
        "page_size": 4096,
        "page_count": os.path.getsize(path) // 4096,
        "user_version": 7,
        "tables": {"counter": 1, "item": 200, 'odd "name': 0},
    }
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE INDEX by_content ON item (content)")
    with image(os.fsencode(path)) as reader:
        assert reader.facts["schema"] != schema


def test_a_large_database_is_neither_counted_nor_checked(tmp_path: Path) -> None:
    path = os.fsencode(make(tmp_path / "crm.db"))
    with image(path, care=Care(count_bytes=1)) as reader:
        assert reader.facts["checked"]
        assert "tables" not in reader.facts
    with image(path, care=Care(check_bytes=1)) as reader:
        assert reader.facts == {"checked": False}


def test_what_only_the_application_knows_is_no_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db")
    with closing(sqlite3.connect(path)) as database:
        database.create_function("ours", 1, lambda value: value, deterministic=True)
        database.create_collation("ours", lambda one, two: (one > two) - (one < two))
        database.execute(
            "CREATE TABLE odd (a TEXT COLLATE ours, b INTEGER CHECK (ours(b) > 0), c INTEGER NOT NULL DEFAULT 1)"
        )
        database.execute("INSERT INTO odd VALUES ('x', 1, 1)")
        database.execute("CREATE INDEX odd_a ON odd (a)")
        database.execute("CREATE INDEX odd_b ON odd (ours(b))")
        database.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
        database.commit()
    with image(os.fsencode(path)) as reader:
        assert reader.facts["tables"]["odd"] == 1
        assert "words" not in reader.facts["tables"]


def test_memory_does_not_grow_with_the_database(tmp_path: Path) -> None:
    path = make(tmp_path / "crm.db", rows=100, size=600_000)
    buffer = memoryview(bytearray(65536))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with image(os.fsencode(path)) as reader:
        while reader.readinto(buffer):
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


class TestRefusals:
    def refused(self, path: Path, care: Care | None = None) -> Refused:
        with pytest.raises(Refused) as caught, image(os.fsencode(path), care=care):
            pytest.fail("there was an image")
        return caught.value

    def test_a_missing_file_is_one(self, tmp_path: Path) -> None:
        error = self.refused(tmp_path / "no.db")
        assert (error.reason, error.plain) == (Reason.MISSING, False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "content", [b"SQLite format 3\0", b"SQLite format 3\0" + bytes(5000), os.urandom(8192), b"text" * 2000]
    )
    def test_what_only_looks_like_a_database_may_be_read_plainly(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "odd.db").write_bytes(content)
        error = self.refused(tmp_path / "odd.db")
        assert (error.reason, error.plain) == (Reason.NO_DATABASE, True)

    def test_a_damaged_one_is_named_by_what_is_damaged(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db", rows=2000)
        with path.open("r+b") as file:
            file.seek(4096 * 20)
            file.write(os.urandom(4096 * 200))
        error = self.refused(path)
        assert (error.reason, error.plain) == (Reason.DAMAGED, True)
        assert "quick_check says" in error.text or "malformed" in error.text

    def test_a_truncated_one_is_damaged(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db", rows=2000)
        os.truncate(path, os.path.getsize(path) // 2)
        assert self.refused(path).reason == Reason.DAMAGED

    @pytest.mark.parametrize("mode", ["wal", "delete"])
    def test_one_that_a_program_keeps_for_itself_is_locked(self, tmp_path: Path, mode: str) -> None:
        path = make(tmp_path / "crm.db", mode=mode)
        with closing(sqlite3.connect(path, isolation_level=None)) as owner:
            owner.execute("PRAGMA locking_mode = EXCLUSIVE")
            owner.execute("BEGIN EXCLUSIVE")
            error = self.refused(path, Care(busy_seconds=0.1))
            assert (error.reason, error.plain) == (Reason.LOCKED, False)
            owner.execute("COMMIT")

    def test_a_folder_or_a_fifo_is_none(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        assert self.refused(tmp_path).reason == Reason.NO_DATABASE
        assert self.refused(tmp_path / "fifo").reason == Reason.NO_DATABASE

    def test_another_file_of_the_same_name_is_not_read(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        found = path.lstat()
        path.rename(tmp_path / "old.db")
        path.symlink_to(make(tmp_path / "secret.db"))
        with pytest.raises(Refused, match="another file"), image(os.fsencode(path), found=found):
            pytest.fail("there was an image")

    def test_an_error_of_whoever_reads_stays_what_it_is(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        with pytest.raises(OSError, match="theirs"), image(os.fsencode(path)):
            raise OSError("theirs")

    def test_a_refusal_leaves_nothing_open_and_nothing_behind(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(8192))
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        open_before = len(settled_descriptors())
        with pytest.raises(Refused), image(os.fsencode(path), scratch=scratch):
            pytest.fail("there was an image")
        assert list(scratch.iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == open_before


@needs_root
class TestAsTheOwner:
    @pytest.fixture
    def way(self) -> Iterator[Path]:
        """A folder that anyone can pass; pytest closes its own to others whenever it starts."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            yield Path(folder)

    @pytest.fixture
    def place(self, way: Path) -> Path:
        """A folder of another user."""
        place = way / "theirs"
        place.mkdir(mode=0o700)
        os.chown(place, NOBODY, NOBODY)
        return place

    def theirs(self, place: Path, mode: str = "wal") -> Path:
        path = make(place / "crm.db", mode=mode, rows=2000)
        path.chmod(0o600)
        os.chown(path, NOBODY, NOBODY)
        return path

    @pytest.mark.parametrize("mode", ["wal", "delete"])
    def test_root_reads_it_as_its_owner_while_the_owner_writes(self, place: Path, tmp_path: Path, mode: str) -> None:
        path = self.theirs(place, mode)
        with busy_writer(path, user=NOBODY) as writer:
            for _ in range(3):
                with opened(taken(path), tmp_path) as database:
                    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    one, two = database.execute("SELECT one, two FROM counter").fetchone()
                    assert one == two > 0
            assert writer.poll() is None
            assert {each.stat().st_uid for each in place.iterdir()} == {NOBODY}

    def test_nothing_of_roots_is_left_beside_it(self, place: Path) -> None:
        path = self.theirs(place)
        content = taken(path)
        assert is_database(content[:16])
        assert list(place.iterdir()) == [path]

    def test_facts_and_refusals_come_from_the_helper_as_from_here(self, place: Path) -> None:
        path = self.theirs(place)
        with image(os.fsencode(path)) as reader:
            facts = reader.facts
            assert len(read_all(reader)) == reader.size
        assert facts["tables"] == {"item": 2000, "counter": 1}
        path.write_bytes(os.urandom(8192))
        with pytest.raises(Refused, match="not a database") as caught, image(os.fsencode(path)):
            pytest.fail("there was an image")
        assert caught.value.reason == Reason.NO_DATABASE

    def test_a_way_that_is_closed_to_the_owner_is_no_obstacle(self, place: Path, way: Path) -> None:
        path = self.theirs(place)
        way.chmod(0o700)
        content = taken(path)
        assert is_database(content[:16])
        assert list(place.iterdir()) == [path]

    @pytest.mark.parametrize("closed", [False, True])
    def test_a_symlink_of_the_owner_leads_the_helper_to_nothing_of_others(
        self, place: Path, way: Path, *, closed: bool
    ) -> None:
        path = self.theirs(place)
        found = path.lstat()
        secret = make(way / "secret.db")
        secret.chmod(0o600)
        path.rename(place / "old.db")
        path.symlink_to(secret)
        way.chmod(0o700 if closed else 0o755)
        with pytest.raises(Refused) as caught, sqlite._by_helper(os.fsencode(path), found, None, Care()):
            pytest.fail("there was an image")
        assert caught.value.reason == Reason.FORBIDDEN

    def test_a_name_that_is_no_utf8_is_passed_as_it_is(self, place: Path) -> None:
        path = self.theirs(place)
        odd = os.fsencode(place) + b"/caf\xe9 ?#%41.db"
        os.rename(path, odd)
        with image(odd) as reader:
            assert is_database(read_all(reader)[:16])

    def test_an_image_that_was_not_read_to_its_end_fails(self, place: Path) -> None:
        path = self.theirs(place)
        with pytest.raises(Refused, match="not read to its end"), image(os.fsencode(path)) as reader:
            reader.readinto(memoryview(bytearray(10)))

    def test_a_reader_of_everything_who_can_not_become_the_owner_is_told_what_is_missing(self, place: Path) -> None:
        said = asked_with("dac_read_search", self.theirs(place))
        assert "forbidden run opsd as root or as the file's owner, or give it CAP_SETUID" in said

    def test_who_may_become_the_owner_but_end_no_process_of_theirs_hears_the_refusal(self, place: Path) -> None:
        path = self.theirs(place)
        path.write_bytes(sqlite_image.HEADER + b"nonsense")
        assert asked_with("dac_read_search,+setuid,+setgid", path).startswith("no database")


def asked_with(capabilities: str, path: Path) -> str:
    """What a user with these capabilities and no other is told of a database."""
    program = (
        "import sys; from opsd.sources.sqlite import *\n"
        "try:\n with image(sys.argv[1].encode()) as reader: print(reader.size)\n"
        "except Refused as error: print(error.reason, HINTS[error.reason])"
    )
    rights = [f"--{each}=-all,+{capabilities}" for each in ("inh-caps", "ambient-caps", "bounding-set")]
    who = ["--reuid=65533", "--regid=65533", "--clear-groups"]
    done = subprocess.run(
        ["setpriv", *who, *rights, sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout or done.stderr


class TestSource:
    def test_a_database_is_one_stream_under_its_own_path_with_its_metadata(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        path.chmod(0o640)
        source = SqliteDatabase("crm", SqliteSource(path=str(path)))
        with source.streams() as streams:
            (stream,) = streams
            with stream.open() as reader:
                content = read_all(reader)
        status = path.stat()
        assert (stream.path, stream.mode, stream.pages) == (os.fsencode(path), 0o640, 8192)
        assert (stream.uid, stream.gid, stream.mtime) == (status.st_uid, status.st_gid, status.st_mtime_ns)
        assert source.facts()["tables"] == {"item": 200, "counter": 1}
        with opened(content, tmp_path) as database:
            assert database.execute("SELECT count(*) FROM item").fetchone() == (200,)

    def test_a_database_behind_a_symlink_is_named_by_its_real_path(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        (tmp_path / "link.db").symlink_to(path)
        with SqliteDatabase("crm", SqliteSource(path=str(tmp_path / "link.db"))).streams() as streams:
            assert next(streams).path == os.fsencode(path.resolve())

    def test_a_symlink_that_took_its_place_is_not_followed(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        source = SqliteDatabase("crm", SqliteSource(path=str(path)))
        path.rename(tmp_path / "other.db")
        path.symlink_to("other.db")
        with pytest.raises(SourceError, match="a symlink took its place"), source.streams():
            pytest.fail("there were streams")

    def test_a_missing_database_fails_its_source_with_a_hint(self, tmp_path: Path) -> None:
        source = SqliteDatabase("crm", SqliteSource(path=str(tmp_path / "no.db")))
        with pytest.raises(SourceError, match=r"source crm: .*no\.db: no such file") as caught, source.streams():
            pytest.fail("there were streams")
        assert caught.value.hint

    def test_what_is_no_database_fails_its_source_with_a_hint(self, tmp_path: Path) -> None:
        (tmp_path / "odd.db").write_bytes(os.urandom(5000))
        source = SqliteDatabase("crm", SqliteSource(path=str(tmp_path / "odd.db")))
        with source.streams() as streams:
            stream = next(streams)
            with pytest.raises(SourceError, match="file is not a database") as caught, stream.open():
                pytest.fail("there was an image")
        assert "encrypted" in str(caught.value.hint)

    def test_an_empty_database_is_stored_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "new.db").write_bytes(b"")
        source = SqliteDatabase("crm", SqliteSource(path=str(tmp_path / "new.db")))
        with source.streams() as streams, next(streams).open() as reader:
            assert len(read_all(reader)) in {0, 4096}

    def test_an_image_that_was_not_read_whole_fails_its_source(self, tmp_path: Path) -> None:
        path = make(tmp_path / "crm.db")
        with SqliteDatabase("crm", SqliteSource(path=str(path))).streams() as streams:
            stream = next(streams)
            with pytest.raises(SourceError, match="not read to the end"), stream.open() as reader:
                reader.readinto(memoryview(bytearray(10)))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (b"a.db-wal", b"a.db"),
        (b"a.db-shm", b"a.db"),
        (b"a.db-journal", b"a.db"),
        (b"a.db", None),
        (b"-wal", None),
        (b"wal", None),
    ],
)
def test_companions_are_known_by_their_names(name: bytes, base: bytes | None) -> None:
    assert companion_of(name) == base


def test_a_database_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    assert is_database(make(tmp_path / "crm.db").read_bytes()[:16])
    assert not is_database(b"SQLite format 2\0")
    assert not is_database(b"")
