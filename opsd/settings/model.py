"""The configuration as values, and the keys that it is made of: one table a section.

Promise: example, schema, reading and `config show` all come from `CONFIGURATION`; a new section is one dataclass and one line in it.
"""

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from opsd.monitor.alert_options import AlertSettings
from opsd.retention.policy import DEFAULT_RULES, Rules
from opsd.settings.alerts import ALERTS
from opsd.settings.copies import COPIES, COPIES_SAMPLE, PULLS, PULLS_SAMPLE
from opsd.settings.drill import DRILL
from opsd.settings.retention import RETENTION
from opsd.settings.schedule import METRICS, SCHEDULE, Metrics, Schedule
from opsd.settings.shapes import Converted, Key, MapOf, Record
from opsd.settings.sources import HOOKS, SOURCES
from opsd.settings.stated import CopySettings, PullSettings
from opsd.settings.values import HOST, LABEL, PATH, SECRET, ZONE, number
from opsd.sources.options import Hooks, SourceSettings
from opsd.values import dataclass
from opsd.verify.options import DrillSettings

DEFAULT_STATE: Final = Path("/var/lib/opsd")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDomain:
    """A set of readers. `slots`: the folder where its key slots stand; None is in the repository."""

    slots: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole configuration, every default in place, secrets as references. Whoever only pulls has no repository and no sources.

    `text`: what it was read from, for the snapshots. `origin`: where each key that a file sets stands, as `file:line`.
    """

    version: int = 1
    timezone: str = "UTC"
    repository: str = ""
    state: Path = DEFAULT_STATE
    cache: Path = DEFAULT_STATE / "cache"
    passphrase: Mapping[str, Any] | None = None
    host: str = "localhost"
    sources: tuple[SourceSettings, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    restore_hooks: Hooks = field(default_factory=Hooks)
    key_domains: Mapping[str, KeyDomain] = field(default_factory=dict)
    retention: Rules = DEFAULT_RULES
    schedule: Schedule = field(default_factory=Schedule)
    metrics: Metrics = field(default_factory=Metrics)
    copies: tuple[CopySettings, ...] = ()
    pulls: Mapping[str, PullSettings] = field(default_factory=dict)
    drill: DrillSettings = field(default_factory=DrillSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    text: str = field(default="", compare=False, repr=False)
    origin: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the key domains beside `default`."""
        return tuple(self.key_domains)

    @property
    def slot_folders(self) -> Mapping[str, Path]:
        """By the name of a key domain, the folder outside of the repository where its slots stand."""
        return {name: each.slots for name, each in self.key_domains.items() if each.slots}


def system_zone(environment: Mapping[str, str]) -> str:
    """The machine's zone by name: TZ, else what /etc/localtime links to; UTC where neither is one."""
    name = (
        environment.get("TZ", "").removeprefix(":") or str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    )
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        return "UTC"


def filled(given: dict[str, Any]) -> dict[str, Any]:
    """The same with the defaults that depend on the machine, or on another key."""
    state = given.get("state", DEFAULT_STATE)
    return {"timezone": system_zone(os.environ), "host": os.uname().nodename, "cache": state / "cache", **given}


FOLDER: Final = Converted(shape=PATH, make=Path, unmake=str)

KEY_DOMAIN: Final = Record(
    build=KeyDomain,
    keys={
        "slots": Key(
            FOLDER,
            "A folder outside of repository and copies that alone holds its keys: see docs/security.md. Default: the repository.",
            sample="/media/keys/staff",
        ),
    },
)

_SOURCES_EXAMPLE: Final = {
    "www": {"files": {"paths": ["/srv/www", "/etc"], "exclude": ["*.tmp", "/srv/www/cache/"]}},
    "crm": {"sqlite": {"path": "/var/lib/crm/crm.db"}},
    "shop": {"postgresql": {"host": "/var/run/postgresql", "databases": ["*"], "exclude": ["scratch_*"]}},
    "mail": {"command": {"run": ["dump-mail", "--all"], "name": "mail.mbox"}},
}

CONFIGURATION: Final = Record(
    build=Settings,
    fill=filled,
    varying=frozenset({"timezone", "host", "cache"}),
    keys={
        "version": Key(number(1, 1), "The version of this file's form.", example=1),
        "timezone": Key(ZONE, "The site's time zone, by its IANA name. Default: the system's.", example="Europe/Paris"),
        "repository": Key(
            PATH,
            "Where snapshots go: a folder that holds nothing else.",
            required=True,
            unless="pulls",
            example="/var/backups/opsd",
        ),
        "state": Key(FOLDER, "What this host remembers between runs.", example="/var/lib/opsd"),
        "cache": Key(
            FOLDER,
            "What only saves time, and may be lost. Default: cache, in the state folder.",
            sample="/var/lib/opsd/cache",
        ),
        "passphrase": Key(
            SECRET,
            "For restores without a person; or {credential: N}, {env: N}, {command: [..]}. A backup needs none. Default: none.",
            example={"file": "/etc/opsd/passphrase"},
        ),
        "host": Key(HOST, "This host's name in every list. Default: the system's.", sample="web1"),
        "sources": Key(
            SOURCES,
            "What is backed up: a label each, and one kind.",
            required=True,
            unless="pulls",
            example=_SOURCES_EXAMPLE,
        ),
        "hooks": Key(
            HOOKS,
            "Programs around a whole run: argument lists without a shell, 5m each unless they say otherwise. Exit 75 is: try later.",
        ),
        "restore_hooks": Key(HOOKS, "Programs around a restore."),
        "key_domains": Key(
            MapOf(name=LABEL, value=KEY_DOMAIN),
            "Sets of readers beside the one named default; a source names its own by domain, slots a folder for its keys. Default: none.",
            sample={"staff": {"slots": "/media/keys/staff"}},
        ),
        "retention": Key(
            RETENTION,
            "Which snapshots stay. Without this section 30 daily and 12 monthly ones; with it, only what it says.",
            example={"keep_daily": 30, "keep_monthly": 12},
        ),
        "schedule": Key(SCHEDULE, "When 'opsd daemon' starts what."),
        "metrics": Key(METRICS, "How 'opsd daemon' is watched: see docs/metrics.md."),
        "copies": Key(
            COPIES,
            "Copies of the repository: a name each, and one kind of place. 'opsd copy' fills them. Default: none.",
            sample=COPIES_SAMPLE,
        ),
        "pulls": Key(
            PULLS,
            "Copies of other hosts' repositories, fetched by this one: see docs/copies.md. Default: none.",
            sample=PULLS_SAMPLE,
        ),
        "drill": Key(DRILL, "The full restore that proves a copy: see docs/drill.md."),
        "alerts": Key(ALERTS, "Who is told when something is wrong: see docs/alerts.md."),
    },
)
