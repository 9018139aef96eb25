"""Who runs a job tells its dead-man switch, and no job suffers from it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.app.running import tracked
from opsd.app.session import Access, Session
from opsd.errors import StorageError, TryLater
from opsd.events import Recorder
from tests.support.command_line import Desk
from tests.support.receivers import Web, alerts, free_port, web


@pytest.fixture
def switch() -> Iterator[Web]:
    with web() as found:
        yield found


def host(folder: Path, url: str) -> Desk:
    return Desk.at(folder).configured(
        f"www: {{files: {{paths: [{folder}/data]}}}}", alerts(pings={"backup": url, "check": url})
    )


def session(folder: Path, url: str) -> Session:
    return Session(Access(configuration=host(folder, url).environment["OPSD_CONFIG"]), Recorder())


def phases(switch: Web) -> list[str]:
    return [each.path.partition("?")[0] for each in switch.requests]


@pytest.mark.parametrize(("code", "end"), [(0, ["/u"]), (3, ["/u"]), (1, ["/u/fail"]), (4, ["/u/fail"]), (75, [])])
def test_the_beginning_and_the_end_of_a_run_are_told_with_one_id(
    code: int, end: list[str], tmp_path: Path, switch: Web
) -> None:
    with tracked(session(tmp_path, switch.url(path="/u")), "backup") as record:
        record.ended(code)
    assert record._pings
    record._pings.wait()
    assert phases(switch) == ["/u/start", *end]
    assert len({each.path.partition("rid=")[2] for each in switch.requests}) == 1
    assert all(re.search(r"^run \S+$", each.body, re.MULTILINE) for each in switch.requests)
    assert f"exit code {code}" in switch.requests[-1].body or code == 75


def test_a_run_by_hand_tells_both_and_no_path(tmp_path: Path, switch: Web) -> None:
    (tmp_path / "data").mkdir()
    desk = host(tmp_path, switch.url(path="/u"))
    desk.ok("init")
    desk.ok("backup")
    assert phases(switch) == ["/u/start", "/u"]
    assert "backup on" in switch.requests[1].body
    assert not [each for each in switch.requests if str(tmp_path) in each.body or "www" in each.body]


def test_a_run_that_raises_is_told_as_failed_and_one_that_must_wait_is_not(tmp_path: Path, switch: Web) -> None:
    opened = session(tmp_path, switch.url(path="/u"))
    for error in (StorageError("no room on /srv/customer"), TryLater("later")):
        with pytest.raises(type(error)), tracked(opened, "backup") as record:
            raise error
        assert record._pings
        record._pings.wait()
    assert phases(switch) == ["/u/start", "/u/fail", "/u/start"]
    assert "customer" not in "".join(each.body for each in switch.requests)


def test_a_part_at_noon_does_not_tell_that_the_night_was_done(tmp_path: Path, switch: Web) -> None:
    with tracked(session(tmp_path, switch.url(path="/u")), "backup", part=True) as record:
        assert record._pings is None


def test_jobs_without_a_url_and_what_runs_within_another_tell_nothing(
    tmp_path: Path, switch: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = session(tmp_path, switch.url(path="/u"))
    with tracked(opened, "copy") as record:
        assert record._pings is None
    monkeypatch.setenv("OPSD_WITHIN", "another")
    with tracked(opened, "check") as record:
        assert record._pings is None


def test_a_server_that_never_answers_delays_no_job(tmp_path: Path, switch: Web) -> None:
    switch.answer = lambda _: None
    began = time.monotonic()
    with tracked(session(tmp_path, switch.url(path="/u")), "backup") as record:
        record.ended(0)
    assert time.monotonic() - began < 1
    assert record._pings
    assert record._pings._thread.is_alive()


def test_a_server_that_is_down_changes_no_exit_code_and_is_said_at_the_end(tmp_path: Path) -> None:
    ran = host(tmp_path, f"http://127.0.0.1:{free_port()}/hidden").run("backup")
    assert ran.code == 1  # There is no repository.
    assert ran.err.splitlines()[-1] == "the ping of backup did not arrive: Connection refused"
