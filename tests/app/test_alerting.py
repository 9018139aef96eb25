"""What a daemon uses: it observes, a child sends, and nothing that breaks stops either."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from opsd.app.alerting import Alerting
from opsd.app.delivery import deliver, send_test
from opsd.app.session import Access, Session
from opsd.clock import SECOND, SystemClock
from opsd.errors import ConfigurationError, UsageError
from opsd.events import Recorder
from opsd.monitor import spool
from opsd.monitor.problems import Problem, Severity
from tests.support.command_line import Desk
from tests.support.receivers import Request, Web, alerts, free_port, mail, web

LATE = Problem(key="backup.overdue", severity=Severity.CRITICAL, title="backup is late", next_step="run it", since=0)
NOW = SystemClock().now()
MINUTE = 60 * SECOND


@pytest.fixture
def chat() -> Iterator[Web]:
    with web() as found:
        yield found


def host(folder: Path, *urls: str, more: tuple[str, ...] = ()) -> Desk:
    contacts = [("anna", urls), *((("bob", more),) if more else ())]
    return Desk.at(folder).configured("www: {files: {paths: [/srv]}}", alerts(*contacts))


def session(desk: Desk) -> Session:
    return Session(Access(configuration=desk.environment["OPSD_CONFIG"]), Recorder())


def alerting(desk: Desk) -> tuple[Alerting, Recorder]:
    reporter = Recorder()
    opened = session(desk)
    return Alerting(opened.settings, reporter, desk.environment["OPSD_CONFIG"]), reporter


def child_of(watch: Alerting) -> "subprocess.Popen[bytes]":
    assert watch._child
    return watch._child


def test_what_was_observed_reaches_people_through_a_child_and_only_once(tmp_path: Path, chat: Web) -> None:
    watch, reporter = alerting(host(tmp_path, chat.url("json")))
    watch.observe([LATE], NOW)
    watch.deliver(NOW)
    assert child_of(watch).wait(60) == 0
    assert watch.is_due(NOW + SECOND)
    watch.observe([LATE], NOW + SECOND)
    watch.deliver(NOW + SECOND)
    assert watch._child is None
    assert not watch.is_due(NOW + 15 * MINUTE - SECOND)
    assert watch.is_due(NOW + 15 * MINUTE)
    (request,) = chat.requests
    assert request.json["title"] == f"opsd {watch._settings.host}: backup is late. Next: run it"
    assert (reporter.warnings, reporter.lines) == ([], [])


def test_what_a_daemon_imports_for_it_is_light() -> None:
    code = "import sys, opsd.app.alerting; print({'apprise', 'requests', 'boto3', 'paramiko', 'cryptography'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_quiet_daemon_starts_no_child(tmp_path: Path, chat: Web) -> None:
    watch, _ = alerting(host(tmp_path, chat.url("json")))
    watch.observe([], NOW)
    watch.deliver(NOW)
    assert watch._child is None
    nobody, _ = alerting(Desk.at(tmp_path).configured("www: {files: {paths: [/srv]}}"))
    nobody.observe([LATE], NOW)
    nobody.deliver(NOW)
    assert nobody._child is None


def test_a_daemon_that_stops_leaves_no_child_and_what_that_was_sending_is_sent_again(tmp_path: Path, chat: Web) -> None:
    desk = host(tmp_path, chat.url("json", "/?rto=60"))
    came = threading.Event()

    def hold(_: Request) -> None:
        came.set()

    chat.answer = hold
    watch, _ = alerting(desk)
    watch.observe([LATE], NOW)
    watch.deliver(NOW)
    assert came.wait(60)
    watch.close()
    assert child_of(watch).poll() is not None
    chat.answer = lambda _: 200
    assert [result.error for result in deliver(session(desk))] == [""]
    assert len(chat.requests) == 2
    assert deliver(session(desk)) == []


def test_two_deliveries_at_once_send_nothing_twice(tmp_path: Path, chat: Web) -> None:
    desk = host(tmp_path, chat.url("json"))
    alerting(desk)[0].observe([LATE], NOW)
    came, go = threading.Event(), threading.Event()

    def hold(_: Request) -> int:
        came.set()
        go.wait(60)
        return 200

    chat.answer = hold
    with ThreadPoolExecutor(2) as both:
        first = both.submit(deliver, session(desk))
        assert came.wait(60)
        second = both.submit(deliver, session(desk))
        assert wait([second], 0.2).not_done
        go.set()
        assert [result.error for result in first.result()] == [""]
        assert second.result() == []
    assert len(chat.requests) == 1


def test_a_mail_server_that_is_down_holds_up_nobody_and_gets_one_message_once_it_is_back(
    tmp_path: Path, chat: Web
) -> None:
    port = free_port()
    desk = host(tmp_path, f"mailto://127.0.0.1:{port}?from=a@b.cd&to=a@b.cd&mode=insecure", more=(chat.url("json"),))
    watch, _ = alerting(desk)
    for hour in range(5):
        watch.observe([LATE], NOW + hour * 60 * MINUTE)
        deliver(session(desk))
    assert len(chat.requests) == 5
    with mail(port) as server:
        send_test(session(desk), "anna")  # What reached somebody again has no pause to sit out.
        deliver(session(desk))
        assert deliver(session(desk)) == []
    assert ["test" in subject for subject in server.subjects()] == [True, False]


def test_who_can_not_be_reached_is_a_problem_of_its_own_that_names_no_secret(tmp_path: Path) -> None:
    watch, _ = alerting(host(tmp_path, "nosuch://hidden"))
    watch.observe([LATE], NOW)
    assert watch.problems() == []
    with spool.opened(tmp_path / "state", pytest.fail) as opened:
        for _ in range(3):
            opened.failed(("anna", 1), "no", NOW)
    watch.deliver(NOW)
    assert not watch.is_due(NOW + MINUTE)
    assert watch.is_due(NOW + 4 * MINUTE)
    (problem,) = watch.problems()
    assert (problem.key, problem.since) == ("alerts.anna.1.unreachable", NOW)
    assert "hidden" not in problem.title


def test_a_damaged_spool_is_said_and_begun_anew(tmp_path: Path, chat: Web) -> None:
    watch, reporter = alerting(host(tmp_path, chat.url("json")))
    watch.observe([LATE], NOW)
    (tmp_path / "state" / spool.FILE).write_bytes(b"garbage" * 1000)
    watch.observe([LATE], NOW + SECOND)
    assert "was damaged" in reporter.lines[0]
    deliver(session(host(tmp_path, chat.url("json"))))
    assert len(chat.requests) == 1


def test_a_state_folder_that_can_not_be_written_is_said_once_and_people_are_told_all_the_same(
    tmp_path: Path, chat: Web
) -> None:
    (tmp_path / "state").touch()
    watch, reporter = alerting(host(tmp_path, chat.url("json")))
    watch.observe([LATE], NOW)
    watch.observe([LATE], NOW + SECOND)
    watch.deliver(NOW + SECOND)
    assert child_of(watch).wait(60) == 0
    assert [warning.subject for warning in reporter.warnings] == ["alerts"]
    assert [(problem.key, problem.since) for problem in watch.problems()] == [("alerts.spool", NOW)]
    assert len(chat.requests) == 1
    folder = watch._folder
    (tmp_path / "state").unlink()
    watch.observe([LATE], NOW + 2 * SECOND)
    assert watch.problems() == []
    assert not folder.exists()


def test_a_child_that_breaks_is_said_and_not_started_again_at_once(tmp_path: Path, chat: Web) -> None:
    desk = host(tmp_path, chat.url("json"))
    reporter = Recorder()
    watch = Alerting(session(desk).settings, reporter, str(tmp_path / "gone.yaml"))
    watch.observe([LATE], NOW)
    watch.deliver(NOW)
    assert child_of(watch).wait(60) == 2
    watch.deliver(NOW)
    assert watch._child is None
    assert [warning.problem for warning in reporter.warnings] == ["'opsd alerts deliver' ended with 2"]


def test_a_test_goes_to_each_address_of_the_contact_that_was_named(tmp_path: Path, chat: Web) -> None:
    desk = host(tmp_path, "nosuch://x", more=(chat.url("json"), chat.url("json", "/second")))
    assert [(each.place, each.error) for each in send_test(session(desk), "bob")] == [
        (("bob", 1), ""),
        (("bob", 2), ""),
    ]
    with pytest.raises(UsageError, match="did you mean bob"):
        send_test(session(desk), "bop")
    with pytest.raises(ConfigurationError, match="nobody is told"):
        send_test(session(Desk.at(tmp_path).configured("www: {files: {paths: [/srv]}}")), None)
