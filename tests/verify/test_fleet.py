"""Whether every host that writes to a store still does."""

from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.repository.format import Kind, name_for
from opsd.verify.fleet import Host, Standing, hosts
from tests.support.engine import START, files
from tests.support.pruning import HOUR, Nights

DUE = START + 25 * HOUR


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights.new(tmp_path)


def night(nights: Nights, next_run: int | None, *, fails: bool = False) -> int:
    """Back up; returns when, in ns UTC."""
    source = files(nights.tree / "absent" if fails else nights.tree)
    return nights.world.backup(source, next_run=next_run).snapshot.started


@pytest.mark.parametrize(
    ("newest", "due", "now", "standing"),
    [
        (None, None, START, Standing.NEVER),
        (START, DUE, START, Standing.IN_TIME),
        (START, DUE, DUE, Standing.IN_TIME),
        (START, DUE, DUE + 1, Standing.LATE),
        (START, None, START + 900 * DAY, Standing.UNPLANNED),
        (START + 2 * HOUR, DUE, START, Standing.AHEAD),
        (START + 1, DUE, START, Standing.IN_TIME),
    ],
)
def test_a_host_stands_where_its_last_promise_says(
    newest: int | None, due: int | None, now: int, standing: Standing
) -> None:
    assert Host(label="web1", newest=newest, due=due).standing(now) is standing


def test_a_copy_is_given_time_to_be_filled() -> None:
    host = Host(label="web1", newest=START, due=DUE)
    assert host.standing(DUE + HOUR, patience=HOUR) is Standing.IN_TIME
    assert host.standing(DUE + HOUR + 1, patience=HOUR) is Standing.LATE


def test_the_next_one_is_due_an_hour_after_it_begins_and_its_writer_signs_that(nights: Nights) -> None:
    time = night(nights, DUE)
    (found,) = hosts(nights.store)
    assert (found.newest, found.due) == (time, DUE + HOUR)


def test_a_host_that_only_fails_keeps_the_promise_of_its_last_complete_snapshot(nights: Nights) -> None:
    time = night(nights, DUE)
    nights.clock.advance(DAY)
    night(nights, DUE + DAY, fails=True)
    (found,) = hosts(nights.store)
    assert (found.newest, found.due) == (time, DUE + HOUR)
    assert found.standing(nights.clock.now() + 3 * HOUR) is Standing.LATE


def test_a_snapshot_that_promises_nothing_does_not_hide_the_last_promise(nights: Nights) -> None:
    night(nights, DUE)
    nights.clock.advance(DAY)
    night(nights, None)
    assert hosts(nights.store)[0].due == DUE + HOUR


def test_a_host_without_a_snapshot_is_seen(nights: Nights) -> None:
    (found,) = hosts(nights.store)
    assert found.standing(START) is Standing.NEVER


def test_what_no_writer_signed_promises_nothing(nights: Nights) -> None:
    night(nights, DUE)
    (info,) = nights.store.list("snapshots/")
    forged = bytearray(nights.store.read(info.name))
    place = forged.index(b"next_due") + len(b"next_due") + 2
    forged[place] ^= 0x40
    nights.store.put(name_for(Kind.SNAPSHOT, bytes(forged), time=START + DAY), bytes(forged))
    assert hosts(nights.store)[0].due == DUE + HOUR
