"""Answer Prometheus, on loopback or a Unix socket.

Promise: it knows two pages and gives them from memory. Whoever sends garbage, too much, or too slowly is dropped by a deadline; at most
a few are served at once, and nobody can make it hold more than that. A socket that a killed daemon left is replaced, one that
somebody answers never is.
"""

import io
import os
import socket
import socketserver
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from opsd.errors import ConfigurationError
from opsd.monitor.metrics import CONTENT_TYPE

_UNIX: Final = "unix:"
_PAGES: Final = ("/metrics", "/healthz")
#: How long a client may take to ask, and then to take the answer, in seconds.
_SECONDS: Final = 5.0
#: How many are served at once; what comes on top is hung up on.
_CLIENTS: Final = 16
#: How many may wait to be hung up on; a client that finds no place even there would try again for seconds.
_WAITING: Final = 1024
#: A request with all its headers.
_LETTERS: Final = 16 * 1024
_MODE: Final = 0o660


class MetricsServer:
    """Listens at `HOST:PORT` or `unix:/path` from `start` to `stop`; `page` gives the metrics, `is_healthy` the answer to /healthz."""

    def __init__(
        self,
        listen: str,
        page: Callable[[], bytes],
        is_healthy: Callable[[], bool] = lambda: True,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._listen = listen
        self._answers: dict[str, Callable[[], bytes]] = {
            "/metrics": page,
            "/healthz": lambda: b"ok\n" if is_healthy() else b"",
        }
        self._seconds = seconds
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._inode = 0

    def start(self) -> None:
        """Listen, and answer from a thread of its own.

        Raises:
            ConfigurationError: nobody can listen there; the address is taken, or is none.
        """
        listening = self._bound()
        self._server = _Server(listening, self._answers, self._seconds)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(None,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; the socket's file goes, unless it is another's by now."""
        if not self._server or not self._thread:
            return
        self._server.socket.shutdown(socket.SHUT_RDWR)  # Wakes the thread, which else sleeps until somebody comes.
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None
        path = self._listen.removeprefix(_UNIX)
        with suppress(OSError):
            if self._inode and os.lstat(path).st_ino == self._inode:
                os.unlink(path)

    def is_alive(self) -> bool:
        """Whether it still takes requests; the watchdog asks."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def port(self) -> int:
        """The port that it listens on; 0 for a Unix socket."""
        name = self._server.socket.getsockname() if self._server else ()
        return int(name[1]) if isinstance(name, tuple) and len(name) > 1 else 0

    def _bound(self) -> socket.socket:
        try:
            if self._listen.startswith(_UNIX):
                path = Path(self._listen.removeprefix(_UNIX))
                listening = _unix(path)
                self._inode = os.lstat(path).st_ino
                return listening
            host, _, port = self._listen.rpartition(":")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_WAITING)
        except (OSError, ValueError, OverflowError) as error:
            told = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
            told = told.partition(" (while ")[0]  # Where the library names the address once more.
            raise ConfigurationError(
                (f"metrics.listen: can't listen at {self._listen}: {told}",),
                hint="is another daemon at work there? Else set metrics.listen to a free HOST:PORT, to unix:/path, or to off",
            ) from error


def _unix(path: Path) -> socket.socket:
    """A socket at a path, in place of one that nobody answers; it never stands there with other rights than its own."""
    _require_unanswered(path)
    listening = socket.socket(socket.AF_UNIX)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        listening.bind(os.fspath(fresh))
        fresh.chmod(_MODE)
        listening.listen(_WAITING)
        fresh.rename(path)
    except BaseException:
        listening.close()
        fresh.unlink(missing_ok=True)
        raise
    return listening


def _require_unanswered(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(17, "a file that is no socket is there")
    with closing(socket.socket(socket.AF_UNIX)) as asking, suppress(FileNotFoundError, ConnectionRefusedError):
        asking.settimeout(_SECONDS)
        asking.connect(os.fspath(path))
        raise FileExistsError(98, "somebody answers there already")


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """Accepts, and serves a few at once; a request is its connection."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, answers: dict[str, Callable[[], bytes]], seconds: float) -> None:
        super().__init__(listening.getsockname(), _Handler)
        self.socket = listening
        self.answers = answers
        self.seconds = seconds
        self._room = threading.BoundedSemaphore(_CLIENTS)

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def server_close(self) -> None:
        self.socket.close()
        super().server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or is dropped, is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One request. The head is read by us, with a deadline, and handed to the library as a whole."""

    server: _Server

    def setup(self) -> None:
        super().setup()
        connection: socket.socket = self.request
        head = _head(connection, time.monotonic() + self.server.seconds)
        connection.settimeout(self.server.seconds)  # All of an answer must be taken in that time (socket.sendall).
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.client_address = ("local", 0)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path  # A proxy may name the host too.
        if path not in _PAGES:
            self.send_error(HTTPStatus.NOT_FOUND, explain="there are /metrics and /healthz")
            return
        try:
            body = self.server.answers[path]()
        except Exception:  # noqa: BLE001 - whatever it is, the next scrape must be answered
            body = b""
        if not body:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def version_string(self) -> str:
        return "opsd"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Scrapes are not logged."""


def _head(connection: socket.socket, deadline: float) -> bytes:
    """The request up to its empty line.

    Raises:
        OSError: it did not come in time, is too long, or the client hung up.
    """
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part or len(head) + len(part) > _LETTERS:
            raise ConnectionAbortedError
        head += part
    return head
