"""Serve requests on a Unix stream socket: who may ask is known by the kernel, what may be asked stands in a table.

Promise: nothing that a client sends or leaves out stops the server or another client: each has five seconds for one line of at most
4 KiB, gets one clear refusal if that is wrong, and only so many are heard at once. A client that goes away does not stop its job.

The protocol stands in `opsd.control`.
"""

import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from opsd.control import HEARTBEAT_SECONDS, REQUEST_BYTES, Line
from opsd.errors import OpsdError
from opsd.values import dataclass

#: struct ucred of SO_PEERCRED, unix(7): process, user, group.
_CREDENTIALS: Final = struct.Struct("3i")
_LOOK: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a server serves: seconds for a request, requests at once, seconds without any after which it ends (None: never).

    `send_seconds`: a client that reads no more for so long is taken to have left.
    """

    request_seconds: float = 5.0
    send_seconds: float = 5.0
    at_once: int = 32
    idle_seconds: float | None = 30.0


class Talk:
    """One connection: what was asked, and the way to answer. Several threads may answer."""

    def __init__(self, connection: socket.socket, request: Line) -> None:
        self.request = request
        self._connection = connection
        self._lock = threading.Lock()
        self.is_left = False

    def say(self, **line: Any) -> None:
        """Send one line; where the client has left, nobody hears it."""
        self.send(json.dumps(line).encode() + b"\n")

    def send(self, content: bytes | memoryview) -> None:
        """Send bytes; where the client has left, nobody gets them."""
        with self._lock:
            if self.is_left:
                return
            try:
                self._connection.sendall(content)
            except OSError:
                self.is_left = True

    def wait_for_release(self, stop: threading.Event) -> None:
        """Until the client wants nothing more, or has left, or `stop` is set."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLRDHUP)
        while not stop.is_set() and not poll.poll(_LOOK * 1000):
            pass


@contextmanager
def beating(talk: Talk) -> Iterator[None]:
    """Tell the client every ten seconds that its job is being done."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            talk.say(alive=os.getpid())

    thread = threading.Thread(target=beat, name="opsd-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


Handle = Callable[[Talk], None]


class Server:
    """A listening socket, and a thread for each client that is heard."""

    def __init__(self, listener: socket.socket, handle: Handle, serving: Serving | None = None) -> None:
        self._listener = listener
        self._handle = handle
        self._serving = serving or Serving()
        self._slots = threading.BoundedSemaphore(self._serving.at_once)
        self._threads: set[threading.Thread] = set()
        self._allowed = _allowed(listener)

    def serve(self, stop: threading.Event) -> None:
        """Until `stop` is set or nobody asked for a while; returns once every request is answered."""
        self._listener.setblocking(False)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        quiet_since = time.monotonic()
        while not stop.is_set():
            if poll.poll(_LOOK * 1000):
                self._accept()
            self._threads = {thread for thread in self._threads if thread.is_alive()}
            if self._threads:
                quiet_since = time.monotonic()
            idle = self._serving.idle_seconds
            if idle is not None and time.monotonic() - quiet_since > idle:
                break
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # It left, or there is no descriptor for it.
            time.sleep(_LOOK)
            return
        connection.settimeout(self._serving.send_seconds)
        if not self._slots.acquire(blocking=False):
            connection.setblocking(False)
            Talk(connection, {}).say(refused="too many requests at once", hint="try again in a minute", code=75)
            connection.close()
            return
        thread = threading.Thread(target=self._serve_one, args=(connection,), name="opsd-request", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._answer(connection)
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket) -> None:
        talk = Talk(connection, {})
        try:
            self._require_allowed(connection)
            talk.request = _request(connection, self._serving.request_seconds)
            connection.settimeout(self._serving.send_seconds)
            self._handle(talk)
        except OpsdError as error:
            talk.say(refused=str(error), hint=error.hint, code=error.exit_code)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the server
            hint = "this is a bug in opsd; the journal of the unit may say more"
            talk.say(refused=f"{type(error).__name__}: {error}", hint=hint, code=1)

    def _require_allowed(self, connection: socket.socket) -> None:
        _, uid, gid = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        users, group = self._allowed
        if uid not in users and gid != group:
            raise OpsdError(f"user {uid} may not ask this service", hint="ask as root, or as the user of opsd")


def _allowed(listener: socket.socket) -> tuple[frozenset[int], int | None]:
    """Who may ask: root, the server's own user, and owner and group of the socket's file; a group of root is nobody's."""
    users = {0, os.geteuid()}
    group = None
    with suppress(OSError, ValueError):  # It has no file, or that is gone.
        status = os.stat(listener.getsockname())
        users.add(status.st_uid)
        group = status.st_gid or None
    return frozenset(users), group


def _request(connection: socket.socket, seconds: float) -> Line:
    """One line of JSON, within its time, however slowly it comes.

    Raises:
        OpsdError: it is too long, too late, or something else.
    """
    end = time.monotonic() + seconds
    held = b""
    while b"\n" not in held:
        if len(held) > REQUEST_BYTES:
            raise OpsdError(f"the request is longer than {REQUEST_BYTES} bytes")
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            piece = connection.recv(REQUEST_BYTES)
        except TimeoutError as error:
            raise OpsdError(f"no whole request came within {seconds:g} s") from error
        except OSError as error:
            raise OpsdError("the client left") from error
        if not piece:
            raise OpsdError("the request ended before its line did")
        held += piece
    return _parsed(held.partition(b"\n")[0])


def _parsed(line: bytes) -> Line:
    if len(line) > REQUEST_BYTES:
        raise OpsdError(f"the request is longer than {REQUEST_BYTES} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OpsdError("the request is no line of JSON") from error
    if not isinstance(request, Mapping):
        raise OpsdError("the request is no JSON object")
    return request
