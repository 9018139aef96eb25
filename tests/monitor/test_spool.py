"""The spool: what must be sent survives, is one letter an address, and no damage stops a daemon."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from opsd.clock import DAY, SECOND
from opsd.errors import StorageError
from opsd.monitor import spool
from opsd.monitor.alerts import Decision, Event, Incident, decide
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import FILE, LONGEST_PAUSE, Place, Spool

START = 1_800_000_000 * SECOND
MINUTE = 60 * SECOND
REPEAT = 15 * MINUTE
ANNA, BOB = ("anna", 1), ("bob", 1)
PLACES = (ANNA, BOB)


def tick(opened: Spool, now: int, *keys: str, places: tuple[Place, ...] = PLACES) -> Decision:
    problems = [Problem(key=key, severity=Severity.WARNING, title=key, next_step="look", since=START) for key in keys]
    return opened.change(lambda known: decide(known, problems, now, REPEAT), places, now)


def events(opened: Spool, now: int) -> dict[Place, dict[str, Event]]:
    letters = opened.letters(PLACES, now)
    return {letter.place: {note.incident.key: note.event for note in letter.notes} for letter in letters}


def arrive(opened: Spool, place: Place, now: int) -> None:
    for letter in opened.letters([place], now):
        opened.arrived(place, letter.notes, now)


def refuse(text: str) -> None:
    pytest.fail(f"told {text}")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Spool]:
    with spool.opened(tmp_path, refuse) as found:
        yield found


def test_what_waits_is_there_after_it_was_closed(tmp_path: Path) -> None:
    with spool.opened(tmp_path / "state", refuse) as first:
        tick(first, START, "a")
    with spool.opened(tmp_path / "state", refuse) as second:
        assert events(second, START) == {ANNA: {"a": Event.OPENED}, BOB: {"a": Event.OPENED}}
        arrive(second, ANNA, START)
    with spool.opened(tmp_path / "state", refuse) as third:
        assert list(events(third, START)) == [BOB]
        assert third.incidents()[0].key == "a"


def test_a_change_that_breaks_off_leaves_no_trace(opened: Spool) -> None:
    def broken(_: list[Incident]) -> Decision:
        raise StorageError("no")

    tick(opened, START, "a")
    with pytest.raises(StorageError):
        opened.change(broken, PLACES, START)
    assert tick(opened, START + SECOND, "a").events == ()


def test_a_day_without_a_mail_server_is_one_letter_and_the_others_get_theirs(opened: Spool) -> None:
    sent = tried = 0
    now = START
    while now < START + DAY:
        tick(opened, now, "a", *(("b",) if now > START + DAY // 2 else ()))
        if ANNA in events(opened, now):
            opened.failed(ANNA, "connection refused", now)
            tried += 1
        sent += BOB in events(opened, now)
        arrive(opened, BOB, now)
        now += 4 * REPEAT
    assert sent == tried == 24
    (trouble,) = opened.troubles()
    assert (trouble.place, trouble.failures, trouble.since) == (ANNA, tried, START)
    assert events(opened, now + LONGEST_PAUSE) == {ANNA: {"a": Event.REPEATED, "b": Event.REPEATED}}
    arrive(opened, ANNA, now + LONGEST_PAUSE)
    assert events(opened, now + LONGEST_PAUSE) == {}
    assert opened.troubles() == []


def test_pauses_grow_to_an_hour_and_a_clock_set_back_does_not_lengthen_them(opened: Spool) -> None:
    tick(opened, START, "a")
    now, pauses = START, []
    for _ in range(9):
        opened.failed(ANNA, "down", now)
        pause = opened.troubles()[0].next_try - now
        assert ANNA not in events(opened, now + pause - 1)
        assert ANNA in events(opened, now + pause)
        now += pause
        pauses.append(pause // MINUTE)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert ANNA in events(opened, now - 365 * DAY)


def test_what_ended_while_nobody_could_be_told_is_told_and_then_forgotten(opened: Spool) -> None:
    for minute in range(20):
        tick(opened, START + minute * MINUTE, *(("a",) if minute < 5 else ()))
    now = START + 20 * MINUTE
    assert events(opened, now) == {ANNA: {"a": Event.ENDED}, BOB: {"a": Event.ENDED}}
    arrive(opened, ANNA, now)
    arrive(opened, BOB, now)
    assert opened.notes(ANNA) == opened.notes(BOB) == []


def test_what_nobody_could_ever_be_told_is_forgotten_after_a_month(opened: Spool) -> None:
    for minute in range(20):
        tick(opened, START + minute * MINUTE, *(("a",) if minute < 5 else ()))
    tick(opened, START + 29 * DAY, "b")
    assert "a" in events(opened, START + 29 * DAY)[ANNA]
    tick(opened, START + 31 * DAY, "b", "c")
    assert "a" not in events(opened, START + 31 * DAY)[ANNA]


def test_a_message_that_was_queued_while_another_was_on_its_way_still_waits(opened: Spool) -> None:
    tick(opened, START, "a")
    (letter,) = opened.letters([ANNA], START)
    tick(opened, START - DAY, "a")  # A repeat, with a clock that was set back.
    opened.arrived(ANNA, letter.notes, START)
    assert events(opened, START)[ANNA] == {"a": Event.REPEATED}


def test_addresses_that_are_configured_no_more_are_forgotten(opened: Spool) -> None:
    tick(opened, START, "a")
    opened.failed(ANNA, "down", START)
    opened.forget_others([BOB])
    assert opened.notes(ANNA) == []
    assert opened.troubles() == []
    assert list(events(opened, START)) == [BOB]


def test_a_quiet_tick_writes_nothing(opened: Spool, tmp_path: Path) -> None:
    tick(opened, START, "a")
    before = (tmp_path / FILE).read_bytes()
    tick(opened, START + SECOND, "a")
    assert (tmp_path / FILE).read_bytes() == before


def test_only_its_user_reads_it(opened: Spool, tmp_path: Path) -> None:
    tick(opened, START, "a")
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage " * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:12288] = bytes(8192)
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


def other_values(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE incidents SET value = replace(value, 'warning', 'wrong')")


def other_events(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE notes SET event = 'wrong'")


@pytest.mark.parametrize("damage", [garbage, cut, overwrite, of_another_version, other_values, other_events])
def test_a_damaged_spool_is_put_aside_and_begun_anew_and_what_is_wrong_is_told_again(
    damage: object, tmp_path: Path
) -> None:
    with spool.opened(tmp_path, refuse) as first:
        tick(first, START, "a")
    assert callable(damage)
    damage(tmp_path / FILE)
    said: list[str] = []
    with spool.opened(tmp_path, said.append) as second:
        assert dict(tick(second, START + SECOND, "a").events) == {"a": Event.OPENED}
        assert list(events(second, START + SECOND)) == [ANNA, BOB]
    assert len(said) == 1
    assert "was damaged" in said[0]
    assert (tmp_path / "alerts.sqlite.damaged").exists()


def test_an_emptied_spool_is_laid_out_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    with spool.opened(tmp_path, refuse) as opened:
        assert tick(opened, START, "a").events


def fill(folder: Path) -> None:
    """Have it find no room for more than there is."""
    with spool.opened(folder, refuse) as opened:
        ((pages,),) = opened._connection.execute("PRAGMA page_count").fetchall()
        opened._connection.execute(f"PRAGMA max_page_count = {pages}")
        tick(opened, START + SECOND, *(f"problem {number}" for number in range(500)))


def test_a_full_disk_is_an_error_with_its_next_step_and_loses_nothing(tmp_path: Path) -> None:
    with spool.opened(tmp_path, refuse) as opened:
        tick(opened, START, "a")
    with pytest.raises(StorageError, match="full") as caught:
        fill(tmp_path)
    assert "has room" in (caught.value.hint or "")
    with spool.opened(tmp_path, refuse) as opened:
        assert [each.key for each in opened.incidents()] == ["a"]


def test_a_folder_that_is_none_is_an_error_with_its_next_step(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StorageError) as caught, spool.opened(tmp_path / "state", refuse):
        pass
    assert caught.value.hint
