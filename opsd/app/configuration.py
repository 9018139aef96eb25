"""The configuration as text: the commented example, its JSON Schema, and the settings in force.

Promise: the example and what `shown` prints are accepted as they stand; the schema knows each key that opsd.settings knows. Secrets
stay references.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from opsd.retention.policy import Rules
from opsd.settings import Settings
from opsd.sources.options import (
    CommandSource,
    FilesSource,
    Hook,
    Hooks,
    PostgresqlSource,
    SourceSettings,
    SqliteSource,
)

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_PATH: Final = {"type": "string", "pattern": "^/"}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_FLAG: Final = {"type": "boolean"}
_SIZE: Final = {"type": ["string", "integer"], "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$"}
_DURATION: Final = {"type": ["string", "integer"], "pattern": "^[0-9]+ *(s|m|min|h|d|w)?$"}
_PROGRAM: Final = {"type": "array", "items": _TEXT, "minItems": 1}
_SECRET: Final = {
    "type": "object",
    "properties": {"file": _PATH, "env": _TEXT, "credential": _TEXT, "command": _PROGRAM},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
_HOOK: Final = {
    "anyOf": [
        _PROGRAM,
        {
            "type": "object",
            "properties": {"run": _PROGRAM, "timeout": _DURATION},
            "required": ["run"],
            "additionalProperties": False,
        },
    ]
}
_HOOK_LIST: Final = {"type": "array", "items": _HOOK}


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its value in the example, what it means, and the shape of its value. `active`: not commented out."""

    name: str
    example: str
    meaning: str
    shape: Mapping[str, Any]
    active: bool = False


HOOKS: Final = (
    Key("before", "[[systemctl, stop, shop]]", "exit code 75 means: not now, try later", _HOOK_LIST),
    Key("after", "[{run: [systemctl, start, shop], timeout: 5m}]", "always run, also after a kill", _HOOK_LIST),
    Key("on_error", "[[logger, backup failed]]", "told what happened by OPSD_OUTCOME and OPSD_ERROR", _HOOK_LIST),
)
FILES: Final = (
    Key("paths", "[/srv/www, /etc]", "a slash at the end follows a symlink", {**_TEXTS, "minItems": 1}, active=True),
    Key("exclude", '["*.tmp", "/srv/www/cache/"]', "patterns as in gitignore, on the whole path", _TEXTS, active=True),
    Key("include", "[/srv/www/cache/keep/]", "what is kept although excluded", _TEXTS),
    Key("exclude_caches", "true", "of folders with a CACHEDIR.TAG keep only the tag", _FLAG),
    Key("one_file_system", "false", "do not enter what is mounted below", _FLAG),
    Key("page_map", '["*.qcow2"]', "files that are updated in place: store only changed pages", _TEXTS),
    Key("sqlite", "true", "take SQLite databases that are met as consistent images", _FLAG),
    Key("snapshot", "btrfs", "freeze it first: btrfs, zfs or lvm", {"enum": ["btrfs", "zfs", "lvm"]}),
)
SQLITE: Final = (
    Key("path", "/var/lib/crm/crm.db", "the database", _PATH, active=True),
    Key("page_bytes", "8KiB", "the blocks that it is compared by", _SIZE),
)
POSTGRESQL: Final = (
    Key("host", "/var/run/postgresql", "a name, or the socket's folder; else libpq's environment", _TEXT, active=True),
    Key("port", "5432", "", _NUMBER),
    Key("user", "opsd", "CREATE ROLE opsd LOGIN BYPASSRLS IN ROLE pg_read_all_data", _TEXT),
    Key("password", "{file: /etc/opsd/postgresql}", "a reference, never the password itself", _SECRET),
    Key("maintenance_database", "postgres", "where the list of databases is read", _TEXT),
    Key("databases", '["*"]', "names or patterns", _TEXTS, active=True),
    Key("exclude", '["scratch_*"]', "names or patterns", _TEXTS, active=True),
    Key("via", "[docker, exec, db]", "put before every client program", _TEXTS),
    Key("digest", "full", "of each table's rows: full, off, or a share such as 10%", _TEXT),
    Key("parallel", "2", "dumps at a time", _NUMBER),
    Key("parallel_bytes", "256MiB", "a larger database is dumped by several processes", _SIZE),
)
COMMAND: Final = (
    Key("run", "[dump-mail, --all]", "a list, never a shell's line; a failure fails the source", _PROGRAM, active=True),
    Key("name", "mail.mbox", "what its output is stored as", {"type": "string", "pattern": "^[^/]+$"}, active=True),
    Key("timeout", "1h", "0 for none", _DURATION),
)
KINDS: Final = {"files": FILES, "sqlite": SQLITE, "postgresql": POSTGRESQL, "command": COMMAND}
_LABELS: Final = {"files": "www", "sqlite": "crm", "postgresql": "shop", "command": "mail"}
RETENTION: Final = (
    Key("keep_last", "3", "whatever their age", _NUMBER),
    Key("keep_within", "2d", "all that are younger", _DURATION),
    Key("keep_hourly", "24", "", _NUMBER),
    Key("keep_daily", "30", "", _NUMBER, active=True),
    Key("keep_weekly", "8", "", _NUMBER),
    Key("keep_monthly", "12", "a period already held by a finer rule is not counted", _NUMBER, active=True),
    Key("keep_yearly", "5", "", _NUMBER),
    Key("keep_tags", "[release]", "those that bear one of these tags", _TEXTS),
)
SCHEDULE: Final = (Key("backup", '"04:00"', "when the nightly run is due, local time", _TEXT),)
TOP: Final = (
    Key("version", "1", "of this file's form", {"const": 1}, active=True),
    Key("timezone", "Europe/Paris", "in which days begin and times are shown", _TEXT, active=True),
    Key("repository", "/var/backups/opsd", "its own folder, best on another disk", _PATH, active=True),
    Key("state", "/var/lib/opsd", "this host's keys and memory", _PATH, active=True),
    Key("cache", "/var/lib/opsd/cache", "disposable", _PATH),
    Key("host", "web1", "what its snapshots are filed under; by default its name", _TEXT),
    Key(
        "passphrase",
        "{file: /etc/opsd/passphrase}",
        "only for unattended restores and checks; or {credential: N}, {env: N}, {command: [..]}",
        _SECRET,
    ),
    Key("key_domains", "[mail]", "what else can have readers of its own", _TEXTS),
)


def _object(keys: Iterable[Key], *required: str) -> dict[str, Any]:
    properties = {key.name: {**key.shape, "description": key.meaning} for key in keys}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the configuration."""
    required = {"files": ("paths",), "sqlite": ("path",), "command": ("run", "name")}
    kinds = {kind: _object(keys, *required.get(kind, ())) for kind, keys in KINDS.items()}
    source = {
        "type": "object",
        "properties": {**kinds, "hooks": _object(HOOKS), "domain": _TEXT},
        "additionalProperties": False,
        "oneOf": [{"required": [kind]} for kind in KINDS],
    }
    top = _object(TOP, "repository")
    top["properties"] |= {
        "sources": {"type": "object", "additionalProperties": source},
        "hooks": _object(HOOKS),
        "restore_hooks": _object(HOOKS),
        "retention": _object(RETENTION),
        "schedule": _object(SCHEDULE),
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "opsd.yaml", **top}


def _lines(keys: Iterable[Key], indent: str, off: str = "") -> Iterable[str]:
    """A line a key; what is commented out begins with # at the same depth."""
    for key in keys:
        hidden = off or ("" if key.active else "# ")
        line = f"{indent}{hidden}{key.name}: {key.example}"
        yield f"{line:<56}  # {key.meaning}" if key.meaning else line


def example() -> str:
    """The example with every key: accepted as it stands; what begins with # shows a default or a possibility."""
    lines = ["# The configuration of opsd: /etc/opsd/opsd.yaml. Every key but repository and one source has a default.", ""]
    lines += [*_lines(TOP, ""), "", "sources:"]
    for kind, keys in KINDS.items():
        off = "" if kind == "files" else "# "
        lines += [f"  {off}{_LABELS[kind]}:", f"  {off}  {kind}:"]
        lines += [f"  {off}    {line}" for line in _lines(keys, "")]
        if kind == "files":
            lines += ["    # domain: default", "    # hooks:", *_lines(HOOKS, "    #  ", off=" ")]
    lines += ["", "retention:", *_lines(RETENTION, "  "), ""]
    for name, meaning in (("hooks", "around each run"), ("restore_hooks", "around each restore")):
        lines += [f"# {name}:  # {meaning}", *_lines(HOOKS, "# ", off=" ")]
    return "\n".join([*lines, "# schedule:", *_lines(SCHEDULE, "# ", off=" "), ""])


_KIND_OF: Final[dict[type[Any], str]] = {
    FilesSource: "files",
    SqliteSource: "sqlite",
    PostgresqlSource: "postgresql",
    CommandSource: "command",
}


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, Hook):
        return {"run": list(value.run), "timeout": f"{value.timeout:.0f}s"}
    if isinstance(value, timedelta):
        return f"{int(value.total_seconds())}s"
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, float):
        return f"{value:.0f}s"
    return str(value) if isinstance(value, Path) else value


def _options(value: Any) -> dict[str, Any]:
    """A dataclass as a mapping, without what is not set."""
    found = {each.name: getattr(value, each.name) for each in fields(value)}
    return {name: _plain(each) for name, each in found.items() if each is not None and each != ()}


def _hooks(hooks: Hooks) -> dict[str, Any]:
    found = {name: each for name, each in _options(hooks).items() if each}
    return {"hooks": found} if found else {}


def _source(source: SourceSettings) -> dict[str, Any]:
    return {_KIND_OF[type(source.options)]: _options(source.options), **_hooks(source.hooks), "domain": source.domain}


def _retention(rules: Rules) -> dict[str, Any]:
    return {name: each for name, each in _options(rules).items() if each}


def shown(settings: Settings) -> str:
    """The settings in force, every default in place, as a configuration that would give the same."""
    value: dict[str, Any] = {
        "version": 1,
        "timezone": settings.timezone,
        "host": settings.host,
        "repository": settings.repository,
        "state": str(settings.state),
        "cache": str(settings.cache),
        "sources": {source.label: _source(source) for source in settings.sources},
        "retention": _retention(settings.retention),
        "schedule": {"backup": settings.backup_at},
        **_hooks(settings.hooks),
    }
    if settings.passphrase:
        value["passphrase"] = _plain(settings.passphrase)
    if settings.domains:
        value["key_domains"] = list(settings.domains)
    if restore := _hooks(settings.restore_hooks):
        value["restore_hooks"] = restore["hooks"]
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
