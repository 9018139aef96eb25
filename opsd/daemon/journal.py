"""Where the daemon's words go: under systemd to the journal with fields to search by, else to standard error.

Promise: no log files; what the journal does not take is printed, so nothing is lost in silence. systemd's own protocol for that is
one datagram of fields (systemd.io, "Native Journal Protocol").
"""

import os
import socket
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import structlog

JOURNAL: Final = Path("/run/systemd/journal/socket")
#: syslog(3).
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

Event = MutableMapping[str, Any]


def configure_log(*, as_json: bool = False) -> None:
    """Choose by where this process runs; JOURNAL_STREAM says that its errors go to the journal (systemd.exec(5))."""
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    timed = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if as_json:
        last: list[Any] = [timed, structlog.processors.JSONRenderer()]
    elif os.environ.get("JOURNAL_STREAM") and JOURNAL.exists():
        last = [ToJournal(JOURNAL)]
    else:
        last = [timed, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[*common, *last],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )


class ToJournal:
    """The last of structlog's processors: sends an event to the journal."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, _logger: Any, _method: str, event: Event) -> str:
        """Send it; what can't be sent is printed."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(datagram(event), os.fspath(self._path))
        except OSError:
            return " ".join(str(value) for value in event.values())
        raise structlog.DropEvent


def datagram(event: Event) -> bytes:
    """The event as fields: MESSAGE, PRIORITY, and each other key in capitals (`opsd_run` is OPSD_RUN)."""
    level = str(event.get("level", "info"))
    about = {key: value for key, value in event.items() if key not in {"event", "level"} and value is not None}
    words = [str(event.get("event", ""))]
    words += [f"{key}={value}" for key, value in about.items() if not key.startswith("opsd_") and key != "exception"]
    fields = {"MESSAGE": " ".join(words), "PRIORITY": str(_PRIORITIES.get(level, 6)), "SYSLOG_IDENTIFIER": "opsd"}
    for key, value in about.items():
        name = "".join(letter if letter in _PLAIN else "_" for letter in key.upper()).lstrip("_0123456789")
        if name:
            fields.setdefault(name, str(value))
    return b"".join(_field(name, value.encode(errors="replace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
