"""`opsd status --fleet`, as whoever holds the copies runs it."""

import shutil
from pathlib import Path

import pytest

from opsd.app.fleet import fleet
from opsd.app.session import Access, Session
from opsd.clock import DAY, FixedClock, SystemClock
from opsd.events import Recorder
from opsd.verify.fleet import Standing
from tests.support.command_line import Desk


@pytest.fixture
def host(desk: Desk) -> Desk:
    """A host that took one snapshot and has a copy that was never filled."""
    root = desk.tree()
    desk = desk.configured(
        f"www: {{files: {{paths: [{root}]}}}}",
        f"host: web1\nschedule: {{backup: '04:00'}}\ncopies: {{disk: {{folder: {desk.folder}/disk}}}}",
    )
    desk.ok("init")
    desk.ok("backup")
    return desk


def puller(host: Desk) -> Path:
    """The configuration of another server, which holds no key."""
    path = host.folder / "puller.yaml"
    path.write_text(
        f"state: {host.folder}/state2\n"
        f"pulls: {{web1: {{from: {{folder: {host.folder}/repository}}, to: {{folder: {host.folder}/pulled}}}}}}\n"
    )
    return path


def test_hosts_that_keep_their_promise_end_with_0(host: Desk) -> None:
    host.ok("copy")
    found = host.ok("status", "--fleet", "--json").json["hosts"]
    assert [(each["place"], each["host"], each["state"]) for each in found] == [
        ("repository", "web1", "in time"),
        ("disk", "web1", "in time"),
    ]
    assert found[0]["next_due"] > found[0]["newest"]
    assert "05:00" in found[0]["next_due"]
    assert all(len(line) <= 80 for line in host.ok("status", "--fleet").text.splitlines())


def test_a_copy_that_was_never_filled_ends_with_5_and_says_what_to_do(host: Desk) -> None:
    ran = host.run("status", "--fleet")
    assert ran.code == 5
    assert "run 'opsd copy'" in ran.err


def test_a_copy_that_was_filled_and_is_gone_ends_with_4(host: Desk) -> None:
    host.ok("copy")
    shutil.rmtree(host.folder / "disk")
    ran = host.run("status", "--fleet", "--json")
    assert ran.code == 4
    assert ran.json["hosts"][1]["error"]["exit_code"] == 4
    assert ran.json["hosts"][0]["state"] == "in time"


def test_a_dead_host_is_late_where_it_was_pulled_to_though_nothing_of_it_is_left(host: Desk) -> None:
    other = str(puller(host))
    host.ok("-c", other, "copy")
    shutil.rmtree(host.folder / "repository")
    host.ok("-c", other, "status", "--fleet")
    later = FixedClock(SystemClock().now() + 2 * DAY)
    with Session(Access(configuration=other), Recorder(), later) as session:
        (found,) = fleet(session)
    assert found.exit_code == 5
    assert found.standing is Standing.LATE
    assert found.host is not None
    assert found.host.label == "web1"
    assert found.late > DAY // 2


def test_a_part_promises_nothing(host: Desk) -> None:
    before = host.run("status", "--fleet", "--json").json["hosts"][0]["next_due"]
    host.ok("backup", "--source", "www")
    assert host.run("status", "--fleet", "--json").json["hosts"][0]["next_due"] == before


def test_a_place_that_cannot_be_read_is_told_in_lines_of_their_own(host: Desk) -> None:
    host.ok("copy")
    shutil.rmtree(host.folder / "disk")
    said = host.run("status", "--fleet").err.splitlines()
    assert said[0].startswith("opsd: disk: ")
    assert said[1].startswith("      ")
