"""The section `sources`, and hooks: how `opsd.sources.options` is written down.

Promise: the options' own defaults hold; a label is a safe file name, since a restore puts each source in a folder of that name.
"""

from collections.abc import Mapping
from typing import Any, Final

from opsd.settings.shapes import Converted, Key, Kind, ListOf, MapOf, OneOf, Record
from opsd.settings.values import (
    DURATION,
    FILE_NAME,
    LABEL,
    PATH,
    PROGRAM,
    SECRET,
    SHARE,
    TEXT,
    TEXTS,
    TRUTH,
    choice,
    number,
    size,
)
from opsd.sources.options import (
    CommandSource,
    FilesSource,
    Hook,
    Hooks,
    PostgresqlSource,
    SourceSettings,
    SqliteSource,
)

HOOK: Final = Record(
    build=Hook,
    keys={
        "run": Key(PROGRAM, "A program and its arguments.", required=True),
        "timeout": Key(DURATION, "After this it is killed, and has failed."),
    },
)


def _hook(moment: str, *run: str) -> Key:
    says = f"{moment}. Default: none."
    return Key(ListOf(item=HOOK), says, sample=[{"run": list(run), "timeout": "5m"}])


HOOKS: Final = Record(
    build=Hooks,
    keys={
        "before": _hook("In order, before anything is read or written", "systemctl", "stop", "app"),
        "after": _hook("Always, at the end, or at the next start after a kill", "systemctl", "start", "app"),
        "on_error": _hook("When something failed", "logger", "opsd failed"),
    },
)

FILES: Final = Record(
    build=FilesSource,
    keys={
        "paths": Key(ListOf(item=PATH, least=1), "Folders and files.", required=True),
        "exclude": Key(TEXTS, "Patterns as in .gitignore, matched against the absolute path."),
        "include": Key(TEXTS, "Patterns that bring back what exclude would leave out."),
        "exclude_caches": Key(TRUTH, "Leave out folders with a CACHEDIR.TAG."),
        "one_file_system": Key(TRUTH, "Leave out what is mounted below the paths."),
        "page_map": Key(TEXTS, "Patterns of files that are updated in place, such as disk images."),
        "sqlite": Key(TRUTH, "Take SQLite databases that are found as consistent images."),
        "snapshot": Key(
            choice("btrfs", "zfs", "lvm"), "Freeze the file system meanwhile. Default: no.", sample="btrfs"
        ),
    },
)


def _is_page(length: int) -> bool:
    return length == 0 or (4096 <= length <= 1 << 20 and length & (length - 1) == 0)


SQLITE: Final = Record(
    build=SqliteSource,
    keys={
        "path": Key(PATH, "The database file.", required=True),
        "page_bytes": Key(
            size(_is_page, "0B, or a power of two from 4KiB to 1MiB"),
            "The block in which changes are stored; 0B for the repository's.",
        ),
    },
)

POSTGRESQL: Final = Record(
    build=PostgresqlSource,
    keys={
        "host": Key(TEXT, "A host, or the folder of a socket. Default: as libpq, PGHOST."),
        "port": Key(number(1, 65_535), "Default: as libpq, PGPORT.", sample=5432),
        "user": Key(TEXT, "Default: as libpq, PGUSER.", sample="opsd"),
        "password": Key(SECRET, "Default: as libpq, ~/.pgpass.", sample={"file": "/etc/opsd/shop.password"}),
        "maintenance_database": Key(TEXT, "Where to ask which databases there are."),
        "databases": Key(TEXTS, "Patterns of names to take."),
        "exclude": Key(TEXTS, "Patterns of names to leave out."),
        "via": Key(TEXTS, "Put before each client program. Default: none.", sample=["docker", "exec", "db"]),
        "digest": Key(SHARE, "Rows that a drill compares: full, off, or a share such as 10%."),
        "parallel": Key(number(1, 64), "Processes that dump at the same time."),
        "parallel_bytes": Key(
            size(lambda length: length > 0, "more than nothing"),
            "From this size one database is dumped by several processes.",
        ),
    },
)

COMMAND: Final = Record(
    build=CommandSource,
    keys={
        "run": Key(PROGRAM, "A program and its arguments; its output is stored.", required=True),
        "name": Key(FILE_NAME, "The file's name in the snapshot.", required=True),
        "timeout": Key(DURATION, "After this it is killed, and the source has failed; 0s for never."),
    },
)

KINDS: Final = {
    "files": Key(FILES, "Folders and files."),
    "sqlite": Key(SQLITE, "One SQLite database, while it is in use."),
    "postgresql": Key(POSTGRESQL, "A PostgreSQL server's databases, roles and tablespaces."),
    "command": Key(COMMAND, "What a program prints."),
}

_COMMON: Final = {
    "hooks": Key(HOOKS, "Programs around this source; any source may have them."),
    "domain": Key(LABEL, "The key domain: who can read it; any source may have one."),
}


def _settings(kinds: Mapping[str, Kind]) -> tuple[SourceSettings, ...]:
    return tuple(SourceSettings(label=label, options=kind.options, **kind.common) for label, kind in kinds.items())


def _kinds(sources: tuple[SourceSettings, ...]) -> dict[str, Any]:
    names = {key.shape.build: name for name, key in KINDS.items() if isinstance(key.shape, Record)}
    return {
        source.label: Kind(
            kind=names[type(source.options)],
            options=source.options,
            common={"hooks": source.hooks, "domain": source.domain},
        )
        for source in sources
    }


_ONE: Final = OneOf(kinds=KINDS, common=_COMMON, defaults={"hooks": Hooks(), "domain": "default"})

SOURCES: Final = Converted(shape=MapOf(name=LABEL, value=_ONE, least=1), make=_settings, unmake=_kinds)
