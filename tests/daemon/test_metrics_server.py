"""The metrics by HTTP: what a good client gets, and what bad ones can't do."""

import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from opsd.daemon.metrics_server import MetricsServer
from opsd.errors import ConfigurationError

PAGE = b"opsd_promise_kept 1.0\n"


@contextmanager
def serving(
    listen: str = "127.0.0.1:0", page: Callable[[], bytes] = lambda: PAGE, *, seconds: float = 5.0
) -> Iterator[MetricsServer]:
    server = MetricsServer(listen, page, seconds=seconds)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with serving() as running:
        yield running


def connected(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def said(connection: socket.socket) -> bytes:
    """All that it says until it hangs up."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def asked(server: MetricsServer, path: str = "/metrics", method: str = "GET") -> tuple[int, bytes]:
    client = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        client.request(method, path)
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


def test_it_answers_with_the_page_and_nothing_else(server: MetricsServer) -> None:
    assert asked(server) == (200, PAGE)
    assert asked(server, "/metrics?name=x") == (200, PAGE)
    assert asked(server, "http://db1/metrics") == (200, PAGE)
    assert asked(server, "/healthz") == (200, b"ok\n")
    assert asked(server, "/")[0] == 404
    assert asked(server, "/metrics/../etc/passwd")[0] == 404
    assert asked(server, method="POST")[0] == 501


def test_a_head_request_gets_the_length_and_no_page(server: MetricsServer) -> None:
    with connected(server) as client:
        client.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = said(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert f"Content-Length: {len(PAGE)}".encode() in head
    assert not body


def test_the_page_is_told_in_prometheus_text_format(server: MetricsServer) -> None:
    with connected(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in said(client)


def test_a_page_that_can_not_be_made_is_no_reason_to_stop() -> None:
    def page() -> bytes:
        raise RuntimeError("broken")

    with serving(page=page) as server:
        assert asked(server)[0] == 503
        assert asked(server)[0] == 503
        assert server.is_alive()


def test_a_daemon_that_is_not_well_says_so() -> None:
    server = MetricsServer("127.0.0.1:0", lambda: PAGE, lambda: False)
    server.start()
    assert asked(server, "/healthz")[0] == 503
    server.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(128, 192)) + b"\r\n\r\n",
        b"\x00" * 9000 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"\r\n\r\n",
        b"A" * 100_000,
        b"",
    ],
    ids=["tls", "zeros", "short", "version", "headers", "blank", "long", "nothing"],
)
def test_garbage_is_hung_up_on(server: MetricsServer, garbage: bytes) -> None:
    with connected(server) as client:
        try:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It hung up already.
        assert PAGE not in said(client)
    assert asked(server) == (200, PAGE)


def test_a_client_that_asks_byte_by_byte_is_dropped_by_the_deadline() -> None:
    with serving(seconds=0.2) as server, connected(server) as client:
        begin = time.monotonic()
        client.settimeout(0.05)
        while time.monotonic() < begin + 5:
            try:
                client.sendall(b"G")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - begin < 2
        assert asked(server) == (200, PAGE)


def test_a_client_that_says_nothing_is_dropped_by_the_deadline() -> None:
    with serving(seconds=0.2) as server, connected(server) as client:
        begin = time.monotonic()
        assert said(client) == b""
        assert time.monotonic() - begin < 2


def test_a_client_that_says_too_much_is_dropped_at_once(server: MetricsServer) -> None:
    with connected(server) as client:
        begin = time.monotonic()
        client.sendall(b"GET /metrics HTTP/1.1\r\nCookie: " + b"a" * 20_000)
        assert said(client) == b""
        assert time.monotonic() - begin < 2


def test_a_client_that_never_reads_is_dropped_by_the_deadline() -> None:
    large = b"x" * 50_000_000
    with serving(page=lambda: large, seconds=0.2) as server, ExitStack() as stack:
        for _ in range(16):
            client = stack.enter_context(connected(server))
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert until_answered(server) == 200


def test_a_thousand_connections_leave_it_alive_and_answering() -> None:
    with serving(seconds=0.3) as server:
        with ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(connected(server))
            assert until_answered(server, "/healthz") == 200
        for _ in range(700):
            connected(server).close()
        assert until_answered(server, "/healthz") == 200
        assert server.is_alive()


def until_answered(server: MetricsServer, path: str = "/healthz") -> int:
    """The first answer; whoever comes while all are served is hung up on."""
    end = time.monotonic() + 10
    while True:
        try:
            return asked(server, path)[0]
        except OSError:
            assert time.monotonic() < end


def test_no_more_than_a_few_are_served_at_once() -> None:
    with serving(seconds=5) as server, ExitStack() as stack:
        waiting = [stack.enter_context(connected(server)) for _ in range(16)]
        for each in waiting:
            each.sendall(b"GET /metrics HT")
        with connected(server) as late:
            assert said(late) == b""
        waiting[0].sendall(b"TP/1.1\r\n\r\n")
        assert said(waiting[0]).endswith(PAGE)


def test_it_stops_at_once_and_listens_again() -> None:
    with serving() as server:
        port = server.port
    assert not server.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    server.start()
    assert asked(server) == (200, PAGE)
    server.stop()


def test_an_address_that_is_taken_is_named_with_what_to_do(server: MetricsServer) -> None:
    listen = f"127.0.0.1:{server.port}"
    with pytest.raises(ConfigurationError, match=f"can't listen at {listen}: address already in use$") as caught:
        MetricsServer(listen, lambda: PAGE).start()
    assert "metrics.listen" in (caught.value.hint or "")


def over_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        return said(client)


def test_a_unix_socket_is_for_owner_and_group_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with serving(f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert over_unix(path).endswith(PAGE)
        assert [each.name for each in tmp_path.iterdir()] == ["metrics.sock"]
    assert not path.exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving(f"unix:{path}"):
        assert over_unix(path).endswith(PAGE)


def test_a_socket_that_somebody_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with serving(f"unix:{path}"):
        with pytest.raises(ConfigurationError, match="somebody answers there already"):
            MetricsServer(f"unix:{path}", lambda: b"other").start()
        assert over_unix(path).endswith(PAGE)


def test_a_file_in_the_way_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="a file that is no socket is there"):
        MetricsServer(f"unix:{path}", lambda: PAGE).start()
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with serving(f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


@pytest.mark.parametrize("listen", ["unix:/nowhere/at/all.sock", "unix:/" + "x" * 200, "nowhere.invalid:1"])
def test_an_impossible_address_is_one_clear_message(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="can't listen at"):
        MetricsServer(listen, lambda: PAGE).start()
