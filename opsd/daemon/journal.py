"""Where the log goes: to systemd's journal with fields that can be asked for, else a line each to standard error.

Promise: logging fails nothing and blocks nobody. Fields are OPSD_RUN, OPSD_JOB, OPSD_SOURCE and whatever else was said, as
`journalctl OPSD_JOB=backup` finds it; MESSAGE says all of it to a person.

The journal's native protocol is one datagram of `KEY=value` lines (systemd.io, "Native Journal Protocol").
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

SOCKET: Final = Path("/run/systemd/journal/socket")
#: syslog(3).
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
#: Well below what a datagram may hold.
_VALUE_BYTES: Final = 32 * 1024
_IDENTIFIER: Final = "opsd"
_STANDARD_ERROR: Final = 2

Event = MutableMapping[str, Any]


def is_under_systemd(environment: Mapping[str, str]) -> bool:
    """Whether the service manager keeps what this process says (systemd.exec(5), JOURNAL_STREAM)."""
    return bool(environment.get("JOURNAL_STREAM")) and SOCKET.exists()


def configure(path: Path | None = None, *, as_json: bool = False) -> None:
    """Send the log to the journal at `path` (its usual socket where this runs under systemd), else to standard error; or there in JSON."""
    if path is None and not as_json and is_under_systemd(os.environ):
        path = SOCKET
    timed = structlog.processors.TimeStamper(fmt="iso", utc=True)
    written = structlog.processors.JSONRenderer() if as_json else _line
    last: list[Any] = [Journal(path)] if path else [timed, written, _to_standard_error]
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, *last],
        cache_logger_on_first_use=False,
    )


class Journal:
    """A processor of structlog that sends each event, and ends its way."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __call__(self, _logger: Any, _method: str, event: Event) -> Any:
        """Send it."""
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto(datagram(event), self._path)
        raise structlog.DropEvent


def datagram(event: Mapping[str, Any]) -> bytes:
    """An event as the journal reads it; fields without a value are left out."""
    level = str(event.get("level", "info"))
    fields: dict[str, Any] = {
        "MESSAGE": message(event),
        "PRIORITY": _PRIORITIES.get(level, 6),
        "SYSLOG_IDENTIFIER": _IDENTIFIER,
        "SYSLOG_PID": os.getpid(),
    }
    for key, value in event.items():
        if key not in {"event", "level", "exception"} and value not in {None, ""}:
            fields[f"OPSD_{key.removeprefix('opsd_')}".upper()] = value
    return b"".join(_field(key, str(value).encode(errors="replace")) for key, value in fields.items())


def _field(key: str, value: bytes) -> bytes:
    value = value[:_VALUE_BYTES]
    if b"\n" not in value:
        return key.encode() + b"=" + value + b"\n"
    return key.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def message(event: Mapping[str, Any]) -> str:
    """What a person reads: the event, what was said besides, the hint, and where an error came from."""
    more = {key: value for key, value in event.items() if not key.startswith("opsd_")}
    text, hint, trace = str(more.pop("event", "")), more.pop("hint", None), more.pop("exception", None)
    more.pop("level", None)
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in more.items())
    if job := event.get("opsd_job"):
        text = f"{job}: {text}"
    text += f" ({said})" * bool(said) + f"; {hint}" * bool(hint)
    return f"{text}\n{trace}" if trace else text


def _line(_logger: Any, _method: str, event: Event) -> str:
    time = event.pop("timestamp")
    return f"{time} {event.get('level', 'info'):7} {message(event)}"


def _to_standard_error(_logger: Any, _method: str, line: Any) -> Any:
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{line}\n".encode(errors="replace"))
    raise structlog.DropEvent
