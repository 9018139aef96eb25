"""Requests on a socket: who may ask, and what becomes of garbage, crowds and clients that leave."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsd import control
from opsd.control import REQUEST_BYTES, Line
from opsd.daemon.control import Server, Serving, Talk, beating
from opsd.errors import OpsdError, TryLater
from tests.support.services import listening, read_all

GOOD = b'{"job": "backup"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "worker.sock"


@contextmanager
def served(path: Path, handle: Callable[[Talk], None], serving: Serving | None = None) -> Iterator[socket.socket]:
    """A server in a thread, with short patience."""
    stop = threading.Event()
    with listening(path) as listener:
        server = Server(listener, handle, serving or Serving(request_seconds=0.5, send_seconds=0.5, idle_seconds=None))
        thread = threading.Thread(target=server.serve, args=(stop,))
        thread.start()
        try:
            yield listener
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()


def say_done(talk: Talk) -> None:
    talk.say(started=7)
    talk.say(exit=3, tail="with warnings", seconds=1.5)


def said(path: Path, sent: bytes) -> Line:
    """The one line that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(sent)
        (line,) = read_all(connection).splitlines()
    answer: Line = json.loads(line)
    return answer


def test_who_asks_hears_that_it_runs_and_how_it_ended(path: Path) -> None:
    heard: list[Line] = []
    with served(path, say_done):
        ended = control.ask(path, {"job": "backup"}, heard.append)
    assert heard == [{"started": 7}]
    assert (ended.exit_code, ended.tail, ended.seconds) == (3, "with warnings", 1.5)


def test_a_refusal_reaches_who_asks_with_its_hint_and_its_kind(path: Path) -> None:
    def refuse(talk: Talk) -> None:
        kind = TryLater if talk.request["job"] == "copy" else OpsdError
        raise kind("not that", hint="ask for this")

    with served(path, refuse):
        with pytest.raises(OpsdError, match="not that") as refused:
            control.ask(path, {"job": "backup"})
        with pytest.raises(TryLater):
            control.ask(path, {"job": "copy"})
    assert refused.value.hint == "ask for this"
    assert not isinstance(refused.value, TryLater)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"\x00\xff\xfe garbage\n", "no line of JSON"),
        (b"[" * 4000 + b"\n", "no line of JSON"),
        (b"[1, 2]\n", "no JSON object"),
        (b"x" * (REQUEST_BYTES + 1), "longer than 4096 bytes"),
        (b'{"job": "' + b"x" * REQUEST_BYTES + b'"}\n', "longer than 4096 bytes"),
        (b'{"job": "backup"', "no whole request came within 0.5 s"),
    ],
)
def test_what_is_no_request_gets_one_refusal_and_the_next_client_is_served(
    path: Path, sent: bytes, problem: str
) -> None:
    with served(path, say_done):
        assert problem in said(path, sent)["refused"]
        assert control.ask(path, {"job": "backup"}).exit_code == 3


def test_a_line_that_comes_byte_by_byte_has_no_more_time_than_one_that_does_not_come(path: Path) -> None:
    with served(path, say_done), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.05)
        connection.connect(str(path))
        answer = b""
        while not answer:
            connection.sendall(b" ")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
    assert b"no whole request" in answer


def test_a_mistake_of_ours_is_a_refusal_and_ends_nothing(path: Path) -> None:
    def stumble(talk: Talk) -> None:
        if talk.request["job"] == "copy":
            raise ZeroDivisionError
        say_done(talk)

    with served(path, stumble):
        with pytest.raises(OpsdError, match="ZeroDivisionError"):
            control.ask(path, {"job": "copy"})
        assert control.ask(path, {"job": "backup"}).exit_code == 3


def test_of_a_crowd_some_are_served_the_rest_are_refused_and_the_server_goes_on(path: Path) -> None:
    full, go = threading.Barrier(5), threading.Event()

    def wait(talk: Talk) -> None:
        full.wait(10)
        go.wait(10)
        say_done(talk)

    def connected() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(path))
        return connection

    with served(path, wait, Serving(at_once=4, idle_seconds=None)):
        working = [connected() for _ in range(4)]
        for each in working:
            each.sendall(GOOD)
        full.wait(10)
        for _ in range(1000):
            with connected() as crowd:
                assert b"too many requests" in read_all(crowd)
        go.set()
        for each in working:
            with each:
                assert b'"exit": 3' in read_all(each)


def test_a_client_that_leaves_does_not_stop_its_job(path: Path) -> None:
    left, done = threading.Event(), threading.Event()

    def work(talk: Talk) -> None:
        assert left.wait(10)
        for _ in range(10):
            talk.say(alive=1)
        assert talk.is_left
        done.set()

    with served(path, work), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(GOOD)
        connection.close()
        left.set()
        assert done.wait(10)


def test_a_client_that_reads_nothing_is_given_up_in_time(path: Path) -> None:
    done = threading.Event()

    def flood(talk: Talk) -> None:
        while not talk.is_left:
            talk.send(bytes(65536))
        done.set()

    with served(path, flood), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(GOOD)
        assert done.wait(10)


def test_a_server_that_nobody_asks_ends(path: Path) -> None:
    with listening(path) as listener:
        Server(listener, say_done, Serving(idle_seconds=0.0)).serve(threading.Event())


def test_a_release_ends_the_waiting_and_so_does_leaving(path: Path) -> None:
    def hold(talk: Talk) -> None:
        with beating(talk):
            talk.say(answer="held")
            talk.wait_for_release(threading.Event())
            talk.say(answer="released")

    with served(path, hold):
        with control.asked(path, {"job": "freeze"}) as service:
            assert service.answer() == "held"
            service.release()
            assert service.answer() == "released"
        with control.asked(path, {"job": "freeze"}) as service:
            assert service.answer() == "held"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_a_stranger_is_refused_even_where_the_mode_of_the_socket_lets_everybody_in(path: Path) -> None:
    with served(path, say_done):
        path.chmod(0o666)
        for parent in (path.parent, path.parent.parent):
            parent.chmod(0o755)
        os.chmod(path.parents[2], 0o755)
        os.setegid(4242)
        os.seteuid(4242)
        try:
            if os.access(path, os.W_OK, effective_ids=True):
                with pytest.raises(OpsdError, match="user 4242 may not ask this service"):
                    control.ask(path, {"job": "backup"})
        finally:
            os.seteuid(0)
            os.setegid(0)


def test_a_missing_socket_names_the_unit_to_start(tmp_path: Path) -> None:
    with pytest.raises(OpsdError, match="there is no service at") as error:
        control.ask(tmp_path / "drill.sock", {"job": "drill"})
    assert error.value.hint == "start its socket: systemctl enable --now opsd-drill.socket"


def test_a_socket_that_nobody_listens_at_says_so(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(OpsdError, match="nobody listens") as error:
        control.ask(path, {"job": "backup"})
    assert "systemctl restart opsd-worker.socket" in str(error.value.hint)


@pytest.mark.parametrize(
    ("answer", "problem"), [(b"", "ended before"), (b"nonsense\n", "no JSON"), (b"[]\n", "no JSON object")]
)
def test_a_service_that_dies_or_talks_nonsense_is_an_error_that_names_its_journal(
    path: Path, answer: bytes, problem: str
) -> None:
    with served(path, lambda talk: talk.send(answer)), pytest.raises(OpsdError, match=problem) as error:
        control.ask(path, {"job": "backup"})
    assert "journalctl -u opsd-worker" in str(error.value.hint)


def test_the_table_of_services_names_a_socket_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPSD_RUN_FOLDER", raising=False)
    assert control.socket_of("backup") == Path("/run/opsd/worker.sock")
    monkeypatch.setenv("OPSD_RUN_FOLDER", "/x")
    assert control.socket_of("image") == Path("/x/owner.sock")
