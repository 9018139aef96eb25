"""What a site may say about each kind of source; the configuration is parsed into these.

Promise: frozen values with every default in place; secrets are references, resolved only when needed.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program run before, after or on error: an argument list, never a shell. `timeout` in seconds."""

    run: tuple[str, ...]
    timeout: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Hooks of a source, a run or a restore, in order."""

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    on_error: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """Folders and files. Patterns as in gitignore, matched against the absolute path.

    `snapshot` is None, "btrfs", "zfs" or "lvm"; `page_map` names files that are updated in place (disk images).
    """

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude_caches: bool = True
    one_file_system: bool = False
    page_map: tuple[str, ...] = ()
    sqlite: bool = True
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSource:
    """One SQLite database, taken through the backup API. `page_bytes`: the page map's block, 0 for the default."""

    path: str
    page_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlSource:
    """A PostgreSQL server, logically: its databases, roles and tablespaces.

    What is None comes from libpq's environment. `password` is a secret reference such as {"file": "/etc/x"}.
    `via` is put before every client program. `digest`: "full", "off", or a share of rows such as "10%".
    A database larger than `parallel_bytes` is dumped by `parallel` processes on one exported snapshot.
    """

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: Mapping[str, Any] | None = None
    maintenance_database: str = "postgres"
    databases: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    digest: str = "full"
    parallel: int = 2
    parallel_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSource:
    """The output of a program, stored under `name`. `timeout` in seconds, 0 for none."""

    run: tuple[str, ...]
    name: str
    timeout: float = 0.0


SourceOptions = FilesSource | SqliteSource | PostgresqlSource | CommandSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """One entry of `sources:`: its label, what it is, its hooks, key domain and shrink guard."""

    label: str
    options: SourceOptions
    hooks: Hooks = field(default_factory=Hooks)
    domain: str = "default"
