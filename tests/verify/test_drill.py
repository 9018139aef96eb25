"""A drill of files and SQLite databases: green as they are, red with the name of whatever was changed after the restore."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from opsd.app.drills import drill
from opsd.app.session import Access, Session
from opsd.clock import FixedClock
from opsd.events import Recorder
from opsd.verify.checks import Places
from opsd.verify.drill_record import DrillRecord
from tests.restore.conftest import NOBODY, as_nobody, open_up
from tests.support.command_line import Desk

CONFIGURATION = """copies: {{one: {{folder: {folder}/one}}, two: {{folder: {folder}/two}}}}
drill: {{scratch: {folder}/scratch{more}}}"""


def made(folder: Path, more: str = "") -> Desk:
    """A host with a tree of files, an SQLite database, and two copies."""
    desk = Desk.at(folder)
    root = desk.tree()
    (root / "tool").touch(mode=0o755)
    with closing(sqlite3.connect(folder / "crm.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO customer (name) VALUES (?)", [(f"n{number}",) for number in range(500)])
        connection.commit()
    shutil.copyfile(folder / "crm.db", root / "found.db")
    sources = f"www: {{files: {{paths: [{root}]}}}}\ncrm: {{sqlite: {{path: {folder}/crm.db}}}}"
    desk = desk.configured(sources, CONFIGURATION.format(folder=folder, more=more))
    desk.ok("init")
    with closing(sqlite3.connect(root / "live.db", isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
        desk.ok("backup")
    desk.ok("copy")
    return desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return made(tmp_path_factory.mktemp("drill"))


def drilled(
    desk: Desk, between: Callable[[Places], None] | None = None, *, seed: bool = False, copy: str | None = "one"
) -> DrillRecord:
    access = Access(configuration=desk.environment["OPSD_CONFIG"], copy=copy)
    with Session(access, Recorder()) as session:
        record = drill(session, seed=seed, shown=str, between=between)
    assert [path.name for path in (desk.folder / "scratch").iterdir()] == [".opsd-drill.lock"]
    return record


def test_what_came_back_as_it_was_is_green(desk: Desk) -> None:
    record = drilled(desk)
    assert (record.verdict, record.exit_code, record.deviations, record.error) == ("green", 0, [], None)
    assert {each["label"]: (each["databases"], each["rows"]) for each in record.sources} == {
        "www": (2, 0),
        "crm": (1, 500),
    }
    assert record.copy == "one"
    assert record.key == "passphrase"
    assert 0 < record.recovery_time <= record.seconds
    assert record.recovery_point > 0
    assert [name for name, _ in record.stages] == [
        "open",
        "restore www, crm",
        "compare www",
        "compare crm",
        "take down",
    ]


def flip(path: Path) -> None:
    """As `dd conv=notrunc` does, with the time of change as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    content, before = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def led_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("x")


def made_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a byte changed": (lambda data: flip(data / "deep" / "large.bin"), "/deep/large.bin", "has other content"),
    "a byte in a hole": (
        lambda data: os.pwrite(os.open(data / "sparse", os.O_RDWR), b"x", 10),
        "/sparse",
        "has other content",
    ),
    "a file cut": (lambda data: os.truncate(data / "hello.txt", 3), "/hello.txt", "has 3 bytes instead of 6"),
    "a file removed": (lambda data: (data / "deep" / "large.bin").unlink(), "/deep/large.bin", "is missing"),
    "a folder removed": (lambda data: shutil.rmtree(data / "deep" / "er"), "/deep/er/empty", "is missing"),
    "a file more": (
        lambda data: (data / "deep" / "er" / "more").touch(),
        "/deep/er/more",
        "is there and not in the snapshot",
    ),
    "another mode": (lambda data: (data / "tool").chmod(0o700), "/tool", "has mode 0700 instead of"),
    "another time": (lambda data: os.utime(data / "tool", ns=(1, 1)), "/tool", "has another time of change"),
    "another target": (
        lambda data: led_elsewhere(data / "link"),
        "/link",
        "leads elsewhere",
    ),
    "another kind": (lambda data: made_a_fifo(data / "tool"), "/tool", "is of another kind"),
    "a hard link parted": (lambda data: replaced(data / "deep" / "hard"), "", "is no hard link any more"),
    "an attribute": (lambda data: os.setxattr(data / "tool", "user.x", b"1"), "/tool", "has other attributes"),
    "a database among files": (lambda data: flip(data / "found.db"), "/found.db", "has other content"),
}


def damaged(change: Callable[[Path], object], below: str, places: Places) -> None:
    change(places.files / "www" / below)


@pytest.mark.parametrize("how", DAMAGE)
def test_whatever_changed_after_the_restore_is_red_and_named(how: str, desk: Desk) -> None:
    change, subject, problem = DAMAGE[how]
    root = desk.folder / "data"
    record = drilled(desk, partial(damaged, change, str(root)[1:]))
    assert (record.verdict, record.exit_code) == ("red", 4)
    assert any(
        each["source"] == "www" and each["subject"].endswith(subject) and problem in each["problem"]
        for each in record.deviations
    ), record.deviations


def test_another_owner_is_red_where_owners_can_be_given(desk: Desk) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give owners")
    path = str(desk.folder / "data" / "tool")
    record = drilled(desk, lambda places: os.chown(places.files / "www" / path[1:], 4711, 0))
    assert [(each["subject"], each["problem"]) for each in record.deviations] == [
        (path, "belongs to 4711:0 instead of 0:0")
    ]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM customer WHERE id = 7", "table customer has 499 rows instead of 500"),
        ("DROP TABLE customer", "table customer is missing"),
        ("CREATE INDEX more ON customer (name)", "has another schema"),
    ],
)
def test_a_changed_sqlite_database_is_red_and_its_table_named(sql: str, problem: str, desk: Desk) -> None:
    record = drilled(desk, lambda places: execute(Path(os.fsdecode(places.sqlite["crm"])), sql))
    assert record.exit_code == 4
    assert any(each["source"] == "crm" and each["problem"] == problem for each in record.deviations), record.deviations


def test_a_torn_sqlite_database_fails_its_integrity_check(desk: Desk) -> None:
    def tear(places: Places) -> None:
        with Path(os.fsdecode(places.sqlite["crm"])).open("r+b") as file:
            file.seek(4096)
            file.write(bytes(3000))

    record = drilled(desk, tear)
    assert any(
        "integrity_check" in each["problem"] or "can't be opened" in each["problem"] for each in record.deviations
    )


def test_each_kind_of_seeded_failure_is_found(desk: Desk) -> None:
    record = drilled(desk, seed=True)
    assert (record.verdict, record.seeded, record.missed) == ("red", True, [])
    assert [each["kind"] for each in record.faults] == ["byte of a file", "row of SQLite"]


def test_a_seeded_failure_that_is_undone_unseen_is_not_called_found(desk: Desk) -> None:
    def mend(places: Places) -> None:
        for path in sorted((places.files / "www").rglob("*")):
            original = Path("/") / path.relative_to(places.files / "www")
            if path.is_file() and not path.is_symlink() and path.read_bytes() != original.read_bytes():
                flip(path)

    record = drilled(desk, mend, seed=True)
    assert record.exit_code == 4
    assert len(record.missed) == 1
    assert "byte of a file in www" in record.missed[0]
    assert any(each["severity"] == "red" and "NOT FOUND" in each["problem"] for each in record.deviations)


def test_without_from_the_week_says_which_copy(desk: Desk) -> None:
    access = Access(configuration=desk.environment["OPSD_CONFIG"])
    found = []
    for week in range(2):
        with Session(access, Recorder(), FixedClock(1_800_000_000_000_000_000 + week * 7 * 86_400 * 10**9)) as session:
            found.append(drill(session, seed=False, shown=str).copy)
    assert sorted(found) == ["one", "two"]


def test_a_damaged_copy_is_red_and_the_other_one_green(tmp_path: Path) -> None:
    desk = made(tmp_path)
    for pack in (tmp_path / "one" / "packs").glob("*/*"):
        flip(pack)
    record = drilled(desk)
    assert record.exit_code == 4
    assert drilled(desk, copy="two").exit_code == 0


def test_a_newest_snapshot_that_can_not_be_read_is_red_and_named(tmp_path: Path) -> None:
    desk = made(tmp_path)
    desk.ok("backup")
    desk.ok("copy")
    manifests = sorted((tmp_path / "one" / "snapshots").iterdir())
    flip(manifests[-1])
    record = drilled(desk)
    assert (record.exit_code, [each["subject"] for each in record.deviations]) == (
        4,
        [f"snapshots/{manifests[-1].name}"],
    )
    flip(manifests[0])
    record = drilled(desk)
    assert record.exit_code == 4
    assert record.error
    assert manifests[-1].name in record.error["text"]


def test_checks_of_the_site_are_asked_of_what_was_restored(tmp_path: Path) -> None:
    checks = """, recovery_time: 1s, recovery_point: 1d, checks: [
  {source: crm, sql: "select count(*) = 500 from customer"}, {source: crm, sql: "select count(*) from customer", live: 10},
  {source: crm, sql: "select count(*) from customer", live: 1%}, {source: crm, sql: "select 0"}, {source: crm, sql: "select x"},
  {source: crm, sql: "select id from customer"},
  {source: crm, sql: "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n", timeout: 0.2s},
  {command: [sh, -c, 'test -f "$OPSD_DRILL_FILES"/www/*/hello.txt || find "$OPSD_DRILL_FILES/www" -name hello.txt | grep -q .']},
  {source: crm, sql: "select 9e999", live: 5}, {command: [sh, -c, "head -c 70000000 /dev/zero"]},
  {command: [sh, -c, "test -z \\"$OPSD_CONFIG\\"; echo no >&2; exit 3"]}, {command: [/no/such]}, {command: [sleep, "60"], timeout: 0.2s}]"""
    desk = made(tmp_path, checks)
    execute(tmp_path / "crm.db", "DELETE FROM customer WHERE id <= 8")
    record = drilled(desk)
    problems = [each["problem"] for each in record.checks]
    assert problems == [
        None,
        None,
        "500 restored and 492 live are more than 1% apart",
        "returned 0 instead of true",
        "no such column: x",
        "must return one truth value, and returned more",
        "ran longer than its limit of 0.2 s and was stopped",
        None,
        "must return a number",
        None,
        "sh exited with 3: no",
        "there is no program /no/such",
        "sleep ran longer than its limit of 0.2 s and was stopped",
    ]
    assert record.exit_code == 4


def test_a_device_that_only_root_could_make_deviates_for_others(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can take a device")
    desk = made(tmp_path)
    os.mknod(tmp_path / "data" / "zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    desk.ok("backup")
    desk.ok("copy")
    assert (
        drilled(desk).exit_code == 0
    )  # Also: all that a drill imports is there, should the ordinary user not read it.
    for folder, _, names in os.walk(tmp_path):
        for name in (folder, *(os.path.join(folder, each) for each in names)):
            os.chown(name, NOBODY, NOBODY, follow_symlinks=False)
    open_up(tmp_path)

    def work() -> None:
        record = drilled(desk)
        assert [(each["subject"], each["problem"]) for each in record.deviations] == [
            (f"{tmp_path}/data/zero", "is missing")
        ]
        assert record.exit_code == 3

    as_nobody(work)
