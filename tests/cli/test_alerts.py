"""`opsd alerts` and `opsd ack`, as a person and systemd run them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opsd.cli.main import _run
from opsd.clock import DAY, SystemClock
from opsd.monitor import spool
from opsd.monitor.alerts import decide
from opsd.monitor.problems import Problem, Severity
from tests.support.command_line import Desk
from tests.support.receivers import Web, alerts, mail, web

UNIT = "unit.opsd-daemon.service.failed"
#: Exit code, what was printed, what was said beside it.
Ran = tuple[int, str, str]
Opsd = Callable[..., Ran]


@pytest.fixture
def chat() -> Iterator[Web]:
    with web() as found:
        yield found


@pytest.fixture
def host(desk: Desk, chat: Web) -> Desk:
    """A host with two contacts, of whom one can't be reached."""
    people = alerts(("anna", (chat.url("json"),)), ("bob", ("nosuch://hidden",)))
    return desk.configured("www: {files: {paths: [/srv]}}", people)


@pytest.fixture
def opsd(host: Desk, capfd: pytest.CaptureFixture[str]) -> Opsd:
    """Runs commands in this process, for speed."""

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = _run(["-c", host.environment["OPSD_CONFIG"], *arguments])
        return code, *capfd.readouterr()

    return run


def answer(opsd: Opsd, *arguments: str) -> Any:
    return json.loads(opsd(*arguments, "--json")[1])


def test_a_test_that_reached_everybody_ends_with_0_and_is_a_process_of_its_own(desk: Desk, chat: Web) -> None:
    with mail() as server:
        people = alerts(("anna", (chat.url("json"), server.url("anna@example.org", "bob@example.org"))))
        ran = desk.configured("www: {files: {paths: [/srv]}}", people).ok("alerts", "test")
    assert ran.text.count("sent") == 2
    assert all(len(line) <= 80 for line in ran.text.splitlines())
    assert len(server.messages) == 2
    assert "nothing is wrong" in chat.requests[0].json["title"]
    assert not (desk.folder / "state").exists()


def test_a_test_says_which_address_failed_and_why_and_ends_with_1(opsd: Opsd) -> None:
    code, out, err = opsd("alerts", "test")
    assert code == 1
    assert [line.split()[-1] for line in out.splitlines()] == ["RESULT", "sent", "failed"]
    assert "bob, URL 1 (nosuch://…): apprise can't read this URL" in err
    assert "hidden" not in out + err
    found = answer(opsd, "alerts", "test")["results"]
    assert [(each["contact"], each["url"], each["sent"]) for each in found] == [("anna", 1, True), ("bob", 1, False)]
    assert opsd("alerts", "test", "--contact", "anna")[0] == 0
    assert opsd("alerts", "test", "--contact", "ana")[0] == 2


def test_a_failed_unit_is_told_at_once_without_any_daemon(host: Desk, chat: Web) -> None:
    ran = host.run("alerts", "failed-unit", "opsd-daemon.service")
    assert ran.code == 0
    (request,) = chat.requests
    assert "unit opsd-daemon.service failed. Next: journalctl -u opsd-daemon.service" in request.json["title"]


def test_a_unit_that_failed_by_the_configuration_is_told_as_far_as_that_can_be_read(
    host: Desk, opsd: Opsd, chat: Web
) -> None:
    path = host.folder / "opsd.yaml"
    path.write_text(path.read_text() + "sorces: {}\n")
    code, _, err = opsd("alerts", "failed-unit", "opsd-daemon.service")
    assert code == 0
    assert len(chat.requests) == 1
    assert "did you mean sources?" in err


@pytest.mark.parametrize(("right", "slip"), [('"15m"', "oops"), ('"contacts": [', '"contacts": [{name: carl}, ')])
def test_a_slip_in_the_alerts_themselves_silences_nobody_else(
    host: Desk, opsd: Opsd, chat: Web, right: str, slip: str
) -> None:
    path = host.folder / "opsd.yaml"
    before = path.read_text()
    assert right in before
    path.write_text(before.replace(right, slip))
    assert opsd("alerts", "failed-unit", "opsd-daemon.service")[0] == 0
    assert len(chat.requests) == 1


def test_a_unit_that_failed_is_told_though_nothing_can_be_written(host: Desk, opsd: Opsd, chat: Web) -> None:
    (host.folder / "state").touch()
    code, _, err = opsd("alerts", "failed-unit", "opsd-daemon.service")
    assert code == 0
    assert len(chat.requests) == 1
    assert "alerts.sqlite" in err


def test_a_unit_that_fails_again_and_again_is_no_storm(opsd: Opsd, chat: Web) -> None:
    assert [opsd("alerts", "failed-unit", "opsd-daemon.service")[0] for _ in range(5)] == [0] * 5
    assert len(chat.requests) == 1


def test_a_failed_unit_of_which_nobody_hears_ends_with_1(desk: Desk, opsd: Opsd) -> None:
    desk.configured("www: {files: {paths: [/srv]}}")
    code, _, err = opsd("alerts", "failed-unit", "opsd-daemon.service")
    assert code == 1
    assert "nobody could be told" in err


def test_what_is_no_unit_is_a_usage_error(opsd: Opsd, chat: Web) -> None:
    for name in ("", "a b", "\udcff", "x\nSubject: y", "é.service"):
        assert opsd("alerts", "failed-unit", name)[0] == 2
    assert chat.requests == []


def test_the_list_tells_who_was_told_who_waits_and_why(opsd: Opsd) -> None:
    assert opsd("alerts", "list") == (0, "nothing is open\n", "")
    opsd("alerts", "failed-unit", "opsd-daemon.service")
    found = answer(opsd, "alerts", "list")
    (incident,) = found["incidents"]
    assert (incident["key"], incident["severity"], incident["acknowledged"]) == (UNIT, "critical", None)
    assert [each["contact"] for each in incident["told"]] == ["anna"]
    assert incident["waiting"] == [{"contact": "bob", "url": 1}]
    (trouble,) = found["unreachable"]
    assert (trouble["contact"], trouble["failures"]) == ("bob", 1)
    code, out, err = opsd("alerts", "list")
    assert code == 0
    assert "told: anna; waits for: bob" in out
    assert f"key: {UNIT}" in out
    assert "hidden" not in out + err


def test_what_is_away_says_so_and_when_the_all_clear_comes(opsd: Opsd, host: Desk) -> None:
    now, state = SystemClock().now(), host.folder / "state"
    state.mkdir()
    problem = Problem(key="a.b", severity=Severity.WARNING, title="t", next_step="n", since=now)
    with spool.opened(state, pytest.fail) as opened:
        opened.change(lambda known: decide(known, [problem], now, DAY), (), now)
        opened.change(lambda known: decide(known, [], now, DAY), (), now)
    assert opsd("ack", "a.b")[0] == 0
    assert answer(opsd, "alerts", "list")["incidents"][0]["away"] is not None
    assert "the all-clear comes once it stayed away for 5 minutes" in " ".join(opsd("alerts", "list")[1].split())


def test_an_acknowledgement_names_what_it_means_and_stands_in_the_ledger(opsd: Opsd) -> None:
    opsd("alerts", "failed-unit", "opsd-daemon.service")
    assert answer(opsd, "ack", UNIT, "--reason", "on it") == {"acknowledged": [UNIT]}
    assert answer(opsd, "alerts", "list")["incidents"] == []  # Nobody sees the end of a failed unit: this was it.
    (entry,) = answer(opsd, "ledger", "show")
    assert (entry["action"], entry["reason"], entry["details"]) == ("ack", "on it", {"incidents": 1})


def test_an_acknowledgement_of_nothing_says_so(opsd: Opsd) -> None:
    assert opsd("ack")[0] == 2
    assert opsd("ack", "a", "--all")[0] == 2
    assert opsd("ack", "--all") == (0, "nothing is open\n", "")
    code, _, err = opsd("ack", "backup.overdue")
    assert code == 1
    assert "no open incident is called backup.overdue" in err
    assert "opsd alerts list" in err


def test_validating_the_configuration_finds_a_service_that_does_not_exist(desk: Desk, opsd: Opsd) -> None:
    people = alerts(("anna", ("mialto://user:hidden@example.org", "json://localhost")))
    desk.configured("www: {files: {paths: [/srv]}}", people)
    code, _, err = opsd("config", "validate")
    assert code == 2
    assert "opsd.yaml:6 alerts.contacts[0].urls[0]: apprise knows no service mialto, did you mean mailto?" in err
    assert "hidden" not in err
    desk.configured("www: {files: {paths: [/srv]}}", people.replace("mialto", "mailto"))
    assert opsd("config", "validate")[0] == 0
