"""The sections `copies` and `pulls`: how `opsd.backup.places` is written down.

Promise: the places' own defaults hold; a name is a safe file name, since what is remembered of a copy stands in a file of that name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from opsd.backup.limits import Limit
from opsd.backup.places import FolderPlace, S3Place, SftpPlace, StorePlace
from opsd.settings.retention import RETENTION
from opsd.settings.shapes import Converted, Key, Kind, MapOf, OneOf, Record, Value
from opsd.settings.stated import CopySettings, PullSettings
from opsd.settings.values import HOST, LABEL, PATH, SECRET, TEXT, choice, number, size, text

_TIME: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_RATE: Final = r"([0-9]{1,6}) ?(kbit|Mbit|Gbit|KiB|MiB|GiB)/s"
#: Midnight may end a span under either name.
_HOURS: Final = f"{_TIME}-(?:{_TIME}|24:00)"
#: Bytes a second.
_UNITS: Final = {
    "Gbit": 125_000_000,
    "Mbit": 125_000,
    "kbit": 125,
    "GiB": 1 << 30,
    "MiB": 1 << 20,
    "KiB": 1 << 10,
}


def _hours(content: str) -> str:
    if not re.fullmatch(_HOURS, content):
        raise ValueError('expected hours, such as "08:00-19:00"')
    return content


def _rate(content: str) -> int:
    found = re.fullmatch(_RATE, content)
    if not found or not int(found[1]):
        raise ValueError("expected a rate with its unit, such as 20 Mbit/s or 2 MiB/s")
    return int(found[1]) * _UNITS[found[2]]


def _shown_rate(rate: int) -> str:
    unit = next(unit for unit, size in _UNITS.items() if rate % size == 0)
    return f"{rate // _UNITS[unit]} {unit}/s"


def _remote(content: str) -> str:
    if content.startswith("~"):
        raise ValueError(
            "no shell reads ~ there: a path that does not begin with / is taken from where the login leads"
        )
    return text(content)


REMOTE: Final = Value(what="a path", convert=_remote, json={"type": "string", "pattern": "^[^~]"})
HOURS: Final = Value(what="hours", convert=_hours, json={"type": "string", "pattern": f"^{_HOURS}$"})
RATE: Final = Value(
    what="a rate such as 20 Mbit/s", convert=_rate, json={"type": "string", "pattern": f"^{_RATE}$"}, show=_shown_rate
)


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _limits(rates: Mapping[str, int]) -> tuple[Limit, ...]:
    return tuple(Limit(begin=_minute(hours[:5]), end=_minute(hours[6:]), rate=rate) for hours, rate in rates.items())


def _rates(limits: tuple[Limit, ...]) -> dict[str, int]:
    return {f"{_text(each.begin)}-{_text(each.end)}": each.rate for each in limits}


LIMITS: Final = Key(
    Converted(shape=MapOf(name=HOURS, value=RATE), make=_limits, unmake=_rates),
    "How fast at which hours, in the site's time zone. Default: as fast as it goes.",
    sample={"08:00-19:00": "20 Mbit/s"},
)

FOLDER: Final = Converted(
    shape=PATH, make=lambda path: FolderPlace(folder=Path(path)), unmake=lambda place: str(place.folder)
)
_KNOWN_HOSTS: Final = Converted(shape=PATH, make=Path, unmake=str)

SFTP: Final = Record(
    build=SftpPlace,
    keys={
        "host": Key(HOST, "The server.", required=True),
        "port": Key(number(1, 65_535), "Its port."),
        "user": Key(TEXT, "The login, of its own for this host.", required=True),
        "path": Key(REMOTE, "The folder, absolute or from where the login leads.", required=True),
        "key": Key(SECRET, "The private key, without a passphrase.", required=True),
        "known_hosts": Key(_KNOWN_HOSTS, "The file with the server's key; no other is accepted.", required=True),
    },
)

S3: Final = Record(
    build=S3Place,
    keys={
        "bucket": Key(TEXT, "The bucket, which exists.", required=True),
        "prefix": Key(TEXT, "What all names there begin with. Default: nothing.", sample="web1"),
        "endpoint": Key(TEXT, "The server's address. Default: AWS's own.", sample="https://s3.example.org"),
        "region": Key(TEXT, "The region."),
        "access_key": Key(SECRET, "Default: what the machine has, such as a role.", sample={"env": "S3_ACCESS_KEY"}),
        "secret_key": Key(SECRET, "Likewise.", sample={"env": "S3_SECRET_KEY"}),
        "object_lock_days": Key(number(1, 36_500), "So long nobody can delete an object. Default: no lock.", sample=35),
        "storage_class": Key(TEXT, "Of packs only. Default: the bucket's.", sample="STANDARD_IA"),
    },
)

KINDS: Final = {
    "folder": Key(FOLDER, "A folder of another disk."),
    "sftp": Key(SFTP, "A folder on an SFTP server."),
    "s3": Key(S3, "A bucket of an object store."),
}
_NAMES: Final = {FolderPlace: "folder", SftpPlace: "sftp", S3Place: "s3"}


def _kind(place: StorePlace, **common: Any) -> Kind:
    return Kind(kind=_NAMES[type(place)], options=place, common=common)


PLACE: Final = Converted(shape=OneOf(kinds=KINDS), make=lambda kind: kind.options, unmake=_kind)


_UPKEEP: Final = {
    "retention": Key(
        RETENTION,
        "Which snapshots 'opsd prune --copy' keeps beside those that its source still has. Default: the rules of the repository.",
        sample={"keep_daily": 90, "keep_monthly": 24},
    ),
    "verify": Key(
        choice("read", "checksum", "off"),
        "How 'opsd check --copy NAME --due' checks: reads it, asks the store (s3 only) for its own checksums, or not at all.",
    ),
    "verify_budget": Key(
        size(lambda count: count > 0, "a size above 0"),
        "How much of it a check may read in 30 days. Default: as much as it takes to read everything.",
        sample="100GiB",
    ),
}
#: What copies and pulls may state, beside where they are.
_COMMON: Final = {"limits": LIMITS, **_UPKEEP}
_DEFAULTS: Final = {"limits": (), "retention": None, "verify": "read", "verify_budget": None}


def _copies(kinds: Mapping[str, Kind]) -> tuple[CopySettings, ...]:
    return tuple(CopySettings(name=name, place=kind.options, **kind.common) for name, kind in kinds.items())


def _stated(copy: CopySettings) -> Kind:
    return _kind(copy.place, **{name: getattr(copy, name) for name in _COMMON})


COPIES: Final = Converted(
    shape=MapOf(name=LABEL, value=OneOf(kinds=KINDS, common=_COMMON, defaults=_DEFAULTS), least=1),
    make=_copies,
    unmake=lambda copies: {each.name: _stated(each) for each in copies},
)

PULL: Final = Record(
    build=PullSettings,
    keys={
        "from": Key(
            PLACE, "The other host's repository, best by a login that may only read.", required=True, into="source"
        ),
        "to": Key(PLACE, "Where its copy goes.", required=True, into="target"),
        **_COMMON,
    },
)

PULLS: Final = MapOf(name=LABEL, value=PULL, least=1)

COPIES_SAMPLE: Final = {
    "disk": {"folder": "/mnt/backup/web1"},
    "paris": {
        "sftp": {
            "host": "paris.example.org",
            "user": "web1",
            "path": "/web1",
            "key": {"file": "/etc/opsd/paris.key"},
            "known_hosts": "/etc/opsd/known_hosts",
        }
    },
    "cold": {"s3": {"bucket": "backups"}},
}
PULLS_SAMPLE: Final = {
    "web2": {
        "from": {
            "sftp": {
                "host": "web2.example.org",
                "user": "opsd-pull",
                "path": "/",
                "key": {"file": "/etc/opsd/web2.key"},
                "known_hosts": "/etc/opsd/known_hosts",
            }
        },
        "to": {"folder": "/srv/copies/web2"},
    }
}
