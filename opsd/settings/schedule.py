"""The sections `schedule` and `metrics`: when the daemon starts what, and where it is watched.

Promise: every time is one of the site's wall clock; `off` means that the daemon never starts it.
"""

from ipaddress import ip_address
from typing import Final

from opsd.schedule import WEEKDAYS
from opsd.settings.shapes import Key, Record, Value
from opsd.settings.values import TIME
from opsd.values import dataclass

AFTER_BACKUP: Final = "after backup"
AFTER_COPY: Final = "after copy"
OFF: Final = "off"

_DAYS: Final = "|".join(WEEKDAYS)
_OF_WEEK: Final = frozenset(f"{day} " for day in WEEKDAYS)
_PORT_MOST: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When each job is due: `HH:MM` of every day, `Sun HH:MM` of every week, `off`, or after another job."""

    backup: str = "04:00"
    copy: str = AFTER_BACKUP
    prune: str = AFTER_COPY
    check: str = "05:00"
    drill: str = "Sun 06:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where the daemon answers Prometheus: `HOST:PORT`, `unix:/path`, or `off`."""

    listen: str = "127.0.0.1:9797"


def _when(*words: str) -> Value:
    allowed = "|".join((*words, OFF))
    pattern = rf"(({_DAYS}) )?{TIME.json['pattern'][1:-1]}|{allowed}"

    def convert(content: str) -> str:
        time = content[4:] if content[:4] in _OF_WEEK else content
        if content in {*words, OFF}:
            return content
        try:
            TIME.convert(time)
        except ValueError:
            raise ValueError(
                f'expected a time such as "04:00" or "Sun 06:00", or {" or ".join((*words, OFF))}'
            ) from None
        return content

    return Value(what="a time", convert=convert, json={"type": "string", "pattern": f"^({pattern})$"})


def _address(content: str) -> str:
    if content == OFF:
        return content
    if content.startswith("unix:/"):
        return content
    host, _, port = content.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= _PORT_MOST:
        raise ValueError("expected HOST:PORT such as 127.0.0.1:9797, unix:/path, or off")
    if not _is_loopback(host):
        raise ValueError(f"{host} is no address of this machine alone: listen on 127.0.0.1, behind a proxy with TLS")
    return content


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


SCHEDULE: Final = Record(
    build=Schedule,
    keys={
        "backup": Key(_when(), "When the backup begins, in the site's time zone; a time of every day, or off."),
        "copy": Key(
            _when(AFTER_BACKUP), "When copies and pulls are brought up to date. A host that only pulls: 06:00."
        ),
        "prune": Key(
            _when(AFTER_COPY), "When the repository, and each copy that states retention of its own, is pruned."
        ),
        "check": Key(_when(), "When the part that is due is read again, of the repository and of each copy."),
        "drill": Key(_when(), "When all of a copy is restored and compared."),
    },
)

METRICS: Final = Record(
    build=Metrics,
    keys={
        "listen": Key(
            Value(what="an address", convert=_address, json={"type": "string", "minLength": 1}),
            "Where the daemon answers Prometheus: HOST:PORT, unix:/run/opsd/metrics.sock, or off.",
        )
    },
)
