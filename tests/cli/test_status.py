"""`opsd status`, and `--fleet` as whoever holds the copies runs it."""

import os
import pty
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.app.fleet import Watched, fleet
from opsd.app.pausing import pause
from opsd.app.session import Access, Session
from opsd.app.status import status
from opsd.cli.fleet import _print
from opsd.clock import DAY, FixedClock, SystemClock
from opsd.events import Recorder
from opsd.monitor.health import Pause
from opsd.monitor.state import State
from opsd.verify.fleet import Host, Standing
from tests.support.command_line import Desk, Ran
from tests.support.sites import Keeper, Site


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


def test_a_host_whose_clock_was_ahead_is_told_with_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    ahead = Host(label="web1", newest=2 * DAY, due=3 * DAY)
    _print((Watched(place="disk", kind="copy", host=ahead, standing=Standing.AHEAD),), UTC)
    assert "disk: a snapshot of web1 is dated in the future\n      set its clock right" in capsys.readouterr().err


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


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    """A host with one snapshot, two full copies, and nobody who ever looked."""
    site = Site.new(tmp_path_factory.mktemp("sites") / "web1")
    site.init()
    site.backup()
    site.copy()
    return Keeper(site.folder)


@pytest.fixture
def site(keeper: Keeper) -> Site:
    return keeper.touched()


@pytest.fixture
def whole(keeper: Keeper) -> Site:
    return keeper.whole()


def told(site: Site, *arguments: str) -> Ran:
    return Desk(folder=site.folder, environment={"OPSD_CONFIG": str(site.folder / site.file)}).run("status", *arguments)


def test_a_kept_promise_is_one_green_screen_and_ends_with_0(whole: Site) -> None:
    ran = told(whole)
    assert (ran.code, ran.err) == (0, "")
    said = ran.text.splitlines()
    assert said[0] == "web1: the promise is kept"
    assert len(said) < 24
    assert all(len(line) <= 80 for line in said)
    assert "repository, disk, tape" in said[3]


def test_a_repository_whose_snapshots_were_removed_ends_with_4_though_every_run_was_good(site: Site) -> None:
    site.snapshots()[0].unlink()
    ran = told(site, "--json")
    assert ran.code == 4
    found = ran.json
    assert (found["kept"], found["overdue"], found["exit_code"]) == (False, False, 4)
    assert [(each["key"], each["severity"]) for each in found["problems"]] == [("repository.emptied", "critical")]
    assert found["sources"][0]["places"][0]["place"] == "disk"
    assert found["jobs"][0]["last_outcome"] == "done"


def test_a_state_that_takes_nothing_is_a_problem_and_what_it_holds_is_shown_all_the_same(site: Site) -> None:
    state = site.folder / "state"
    with State.open(state, SystemClock().now()) as opened:
        pause(opened, Pause(until=SystemClock().now() + DAY, reason="moving"), SystemClock().now())
    for path in state.glob("state.sqlite-*"):
        path.unlink()
    (state / "state.sqlite-wal").mkdir()  # So it can be opened to read at the most.
    with site.session() as session:
        found = status(session, seconds=60.0).health
    assert "state.unwritable" in {each.key for each in found.problems}
    assert not found.is_kept
    assert found.pause


def test_what_is_overdue_ends_with_5_also_where_the_state_is_lost(site: Site) -> None:
    later = replace(site, clock=FixedClock(SystemClock().now() + 3 * DAY))
    with later.session() as session:
        assert status(session, seconds=60.0).health.exit_code == 5
    shutil.rmtree(site.folder / "state")
    with later.session() as session:
        found = status(session, seconds=60.0).health
    assert found.exit_code == 5
    assert {"backup.overdue", "state.missing"} <= {each.key for each in found.problems}
    assert not (site.folder / "state").exists()


def test_a_host_that_only_pulls_has_a_status_of_its_own(site: Site) -> None:
    other = replace(site, file="puller.yaml")
    (site.folder / "puller.yaml").write_text(
        f"state: {site.folder}/state2\nhost: vault\n"
        f"pulls: {{web1: {{from: {{folder: {site.folder}/repository}}, to: {{folder: {site.folder}/pulled}}}}}}\n"
    )
    other.copy()
    ran = told(other)
    assert ran.code == 0
    assert ran.text.startswith("vault: the promise is kept")
    assert "web1 (host)" in ran.text


def test_watch_needs_a_terminal_and_stands_alone(whole: Site) -> None:
    assert told(whole, "--watch").code == 2
    assert told(whole, "--watch", "--json").code == 2


def test_watch_shows_it_again_and_again_until_ctrl_c(whole: Site) -> None:
    desk = Desk(folder=whole.folder, environment={"OPSD_CONFIG": str(whole.folder / "opsd.yaml"), "TERM": "xterm"})
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        desk.command("status", "--watch"), stdin=follower, stdout=follower, stderr=follower, env=desk.variables()
    )
    os.close(follower)
    shown = b""
    while shown.count(b"the promise is kept") < 2:
        shown += os.read(leader, 65536)
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130
    os.close(leader)


def test_the_self_check_is_a_job_that_leaves_its_run_and_what_it_found(site: Site) -> None:
    desk = Desk(folder=site.folder, environment={"OPSD_CONFIG": str(site.folder / "opsd.yaml")})
    with State.open(site.folder / "state", SystemClock().now()) as state:
        state.remember("uncovered", SystemClock().now(), {"databases": 0, "folders": 2})
    ran = desk.run("self-check", "--json")
    assert (ran.code, [each["name"] for each in ran.json["places"]]) == (0, ["repository", "disk", "tape"])
    shutil.rmtree(site.folder / "disk")
    assert desk.run("self-check").code == 4
    with State.open(site.folder / "state", SystemClock().now()) as state:
        assert [run.exit_code for run in state.runs("self-check")] == [4, 0]
        found = state.fact("observed")
    assert found
    assert (found[1]["uncovered_folders"], bool(found[1]["places"]["disk"]["error"])) == (2, True)
