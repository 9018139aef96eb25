"""The daemon has its jobs run by services, where their sockets are there."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsd.control import Ended
from opsd.daemon.asking import AsConfigured
from opsd.daemon.control import Server, Serving, Talk
from opsd.daemon.runner import LeftRunning
from opsd.errors import OpsdError, TryLater
from tests.support.command_line import Desk
from tests.support.receivers import Web, alerts, web
from tests.support.services import listening, serving

ABOUT = {"OPSD_RUN_ID": "r1", "OPSD_RUN_SLOT": "7", "OPSD_RUN_ATTEMPT": "2"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPSD_RUN_FOLDER", str(tmp_path / "run"))
    return tmp_path / "run"


class Answers:
    """A service that gives the same lines to everybody, and keeps what it was asked."""

    def __init__(self, *lines: dict[str, object]) -> None:
        self.lines = lines
        self.asked: list[object] = []
        self.go = threading.Event()

    def __call__(self, talk: Talk) -> None:
        self.asked.append(talk.request)
        for line in self.lines:
            talk.say(**line)
        self.go.wait(10)


@contextmanager
def served(folder: Path, name: str, answers: Answers) -> Iterator[None]:
    stop = threading.Event()
    with listening(folder / f"{name}.sock") as listener:
        server = threading.Thread(target=Server(listener, answers, Serving(idle_seconds=None)).serve, args=(stop,))
        server.start()
        try:
            yield
        finally:
            answers.go.set()
            stop.set()
            server.join()


def ask(job: str, stop: threading.Event | None = None) -> tuple[Ended, list[int]]:
    heard: list[int] = []
    return AsConfigured(None)(job, ABOUT, heard.append, stop or threading.Event()), heard


def test_the_service_of_the_job_is_asked_and_told_which_run_it_is(folder: Path) -> None:
    answers = Answers({"started": 5}, {"alive": 5}, {"exit": 3, "tail": "t", "seconds": 1})
    with served(folder, "upkeep", answers):
        ended, heard = ask("check")
    assert ended == Ended(exit_code=3, tail="t", seconds=1)
    assert heard == [5, 5]
    assert answers.asked == [{"job": "check", "run": "r1", "slot": 7, "attempt": 2}]


def test_a_daemon_that_stops_leaves_the_job_running(folder: Path) -> None:
    stop = threading.Event()
    stop.set()
    with served(folder, "worker", Answers({"started": 5})), pytest.raises(LeftRunning):
        ask("backup", stop)


def test_a_service_that_is_at_work_already_is_told_as_it_is(folder: Path) -> None:
    refusal = Answers({"refused": "opsd-worker is at work on backup", "hint": "ask again", "code": 75})
    with served(folder, "worker", refusal), pytest.raises(TryLater, match="at work on backup"):
        ask("backup")


def test_without_a_socket_the_job_is_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSD_CONFIG", str(tmp_path / "none.yaml"))
    ended, heard = ask("backup")
    assert ended.exit_code == 2
    assert len(heard) == 1


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """What a job's pings arrive at, for the configuration that is in force."""
    with web() as found:
        desk = Desk.at(tmp_path / "desk")
        text = alerts(pings={job: found.url(path="/u") for job in ("backup", "check")})
        monkeypatch.setenv(
            "OPSD_CONFIG", desk.configured("www: {files: {paths: [/x]}}", text).environment["OPSD_CONFIG"]
        )
        yield found


def phases(switch: Web) -> list[str]:
    return [each.path.partition("?")[0] for each in switch.requests]


@pytest.mark.parametrize(("code", "end"), [(0, "/u"), (4, "/u/fail")])
def test_whoever_asks_pings_for_a_job_that_may_have_no_network(folder: Path, switch: Web, code: int, end: str) -> None:
    with served(folder, "worker", Answers({"started": 5}, {"exit": code, "tail": ""})):
        ask("backup")
    assert phases(switch) == ["/u/start", end]
    assert all("run r1" in each.body for each in switch.requests)


def test_a_job_that_no_service_did_is_a_failure_that_is_pinged(folder: Path, switch: Web) -> None:
    with served(folder, "worker", Answers({"refused": "no", "hint": None, "code": 1})), pytest.raises(OpsdError):
        ask("backup")
    assert phases(switch)[-1] == "/u/fail"


def test_the_end_of_a_job_that_goes_on_alone_is_not_pinged(folder: Path, switch: Web) -> None:
    stop = threading.Event()
    stop.set()
    with served(folder, "worker", Answers({"started": 5})), pytest.raises(LeftRunning):
        ask("backup", stop)
    assert set(phases(switch)) <= {"/u/start"}


def test_a_job_in_a_service_does_not_ping_itself(tmp_path: Path, switch: Web) -> None:
    configured = Desk(folder=tmp_path / "desk", environment={"OPSD_CONFIG": os.environ["OPSD_CONFIG"]})
    with serving(configured, "upkeep") as service:
        assert service.ask({"job": "check"}).exit_code == 1
    assert phases(switch) == []
