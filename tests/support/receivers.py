"""Servers that receive what opsd sends: mail, and HTTP for chat and pings; also ones that are down, slow, or answer with an error."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One that came in."""

    method: str
    path: str
    body: str
    authorization: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Web:
    """An HTTP server; `answer` chooses the status of each request, None for no answer at all."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], int | None] = lambda _: 200

    def url(self, scheme: str = "http", path: str = "/") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@contextmanager
def web() -> Iterator[Web]:
    """An HTTP server on a port of its own."""
    told = Web()
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            login = self.headers.get("Authorization") or ""
            request = Request(method=self.command, path=self.path, body=body, authorization=login)
            told.requests.append(request)
            status = told.answer(request)
            if status is None:
                closing.wait(30)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield told
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(slots=True, kw_only=True)
class Mail:
    """An SMTP server; `answer` is what it says to each message."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    answer: str = "250 OK"

    def url(self, *people: str) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=opsd@example.org&to={','.join(people)}&mode=insecure"

    def subjects(self) -> list[str]:
        return [each["Subject"] for each in self.messages]


@contextmanager
def mail(port: int = 0) -> Iterator[Mail]:
    """An SMTP server, on a port of its own unless one is named."""
    told = Mail()

    class Handler:
        async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
            self, _server: SMTP, _session: Session, envelope: Envelope
        ) -> str:
            if told.answer.startswith("2"):
                assert isinstance(envelope.content, bytes)
                message = message_from_bytes(envelope.content, policy=policy.default)
                assert isinstance(message, EmailMessage)
                told.messages.append(message)
            return told.answer

    told.port = port or free_port()
    controller = Controller(Handler(), hostname="127.0.0.1", port=told.port)
    controller.start()
    try:
        yield told
    finally:
        controller.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def alerts(*contacts: tuple[str, tuple[str, ...]], pings: Mapping[str, str] | None = None, repeat: str = "15m") -> str:
    """The section `alerts` of a configuration."""
    people = [{"name": name, "urls": list(urls)} for name, urls in contacts]
    return "alerts: " + json.dumps({"repeat": repeat, "contacts": people, "pings": dict(pings or {})})
