"""Find what lives on this machine and would be missed: databases, container volumes, folders; and say which of it no source takes.

Promise: reads only names, headers and sockets' places, changes nothing, and ends in bounded time: where that ran out, it says so.
"""

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from opsd.sources import patterns
from opsd.sources.options import CommandSource, FilesSource, PostgresqlSource, SourceSettings, SqliteSource
from opsd.sources.sqlite import is_database
from opsd.values import dataclass

#: Folders that hold what people made or what can't be installed again, as far as they are there.
FOLDERS: Final = (
    *("/etc", "/home", "/root", "/srv", "/opt"),
    *("/var/lib", "/var/www", "/var/mail", "/var/spool/cron", "/usr/local/etc"),
)
#: Where SQLite files of services lie.
SQLITE_PLACES: Final = ("/var/lib", "/srv", "/opt", "/home", "/var/www", "/root")
#: Databases of the system's own tools, made anew by them; and what their servers' own sources take.
NOT_SEARCHED: Final = (
    *(
        "/var/lib/docker",
        "/var/lib/containers",
        "/var/lib/containerd",
        "/var/lib/lxcfs",
        "/var/lib/apt",
        "/var/lib/dpkg",
    ),
    *("/var/lib/postgresql", "/var/lib/pgsql", "/var/lib/mysql", "/var/lib/snapd", "/var/lib/PackageKit"),
    *("/var/lib/fwupd", "/var/lib/rpm", "/var/lib/dnf"),
)
#: Folders whose content is made anew.
_PASSING: Final = frozenset({"cache", ".cache", "node_modules", "__pycache__", ".git", ".venv"})
_VOLUMES: Final = ("/var/lib/docker/volumes", "/var/lib/containers/storage/volumes")
_POSTGRESQL_SOCKETS: Final = ("/tmp", "/run/postgresql", "/var/run/postgresql")  # noqa: S108 - where servers make them
_POSTGRESQL_DATA: Final = ("/var/lib/postgresql/*/*", "/var/lib/pgsql/*/data", "/var/lib/pgsql/data")
_MARIADB_SOCKETS: Final = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108 - as above
_MARIADB_DATA: Final = "/var/lib/mysql"
_MARIADB_PROGRAMS: Final = ("mariadb-dump", "mysqldump", "mariadb-backup", "mariabackup", "xtrabackup", "mydumper")
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: States of proc_pid_net(5): a socket that listens.
_LISTENING: Final = "0A"
_POSTGRESQL_PORT: Final = 5432
_MARIADB_PORT: Final = 3306
#: SQLite, Database File Format, 1.3.2: a page has a power of two bytes, at least these.
_LEAST_PAGE: Final = 512
#: How long to look for SQLite files, in seconds.
SEARCH_SECONDS: Final = 10.0


class Kind(StrEnum):
    """What was found."""

    POSTGRESQL = "postgresql"
    MARIADB = "mariadb"
    SQLITE = "sqlite"
    VOLUME = "volume"
    FOLDER = "folder"

    @property
    def is_database(self) -> bool:
        """Whether it is one."""
        return self in {Kind.POSTGRESQL, Kind.MARIADB, Kind.SQLITE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something that lives here. `place`: a file, a folder, or the folder of a server's socket (empty: only a port is known).

    `runs`: whether a server answers there, as far as its socket shows. `data`: a server's own folder, where that is known.
    """

    kind: Kind
    place: str
    port: int = 0
    runs: bool = True
    data: str = ""

    def __str__(self) -> str:
        where = self.place or (self.data if not self.runs else "")
        if self.kind in {Kind.POSTGRESQL, Kind.MARIADB}:
            name = "PostgreSQL" if self.kind is Kind.POSTGRESQL else "MariaDB or MySQL"
            port = f"port {self.port}" if self.port else ""
            return " ".join(filter(None, (name, where, port, "" if self.runs else "(not running)")))
        return f"SQLite {where}" if self.kind is Kind.SQLITE else where


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """All that was found. `complete` is False where the time for SQLite files ran out; `unread`: folders that could not be read."""

    found: tuple[Found, ...]
    complete: bool = True
    unread: int = 0


def discover(skip: Collection[str] = (), *, root: Path = Path("/"), seconds: float = SEARCH_SECONDS) -> Discovery:
    """Everything below `root`, but for what lies in `skip`: opsd's own folders."""
    search = SqliteSearch(root, (*NOT_SEARCHED, *skip), seconds)
    databases = tuple(search.files())
    found = (*postgresql_servers(root), *mariadb_servers(root), *databases, *volumes(root), *folders(root, skip))
    return Discovery(found=found, complete=search.complete, unread=search.unread)


def postgresql_servers(root: Path = Path("/")) -> tuple[Found, ...]:
    """By their sockets; clusters that are stopped, by their data; whatever else listens at PostgreSQL's own port."""
    running = {port: folder for folder, port in _postgresql_sockets(root)}
    configured = dict(_configured_clusters(root))
    found = [
        Found(kind=Kind.POSTGRESQL, place=folder, port=port, data=configured.get(port, ""))
        for port, folder in sorted(running.items())
    ]
    known = set(configured.values())
    stopped = {port: data for port, data in configured.items() if port not in running}
    found += [
        Found(kind=Kind.POSTGRESQL, place="", port=port, runs=False, data=data)
        for port, data in sorted(stopped.items())
    ]
    if not running:
        others = [data for data in _data_folders(root) if data not in known]
        found += [Found(kind=Kind.POSTGRESQL, place="", runs=False, data=data) for data in others]
        if _POSTGRESQL_PORT in listening_ports(root):
            found.append(Found(kind=Kind.POSTGRESQL, place="", port=_POSTGRESQL_PORT))
    return tuple(found)


def _postgresql_sockets(root: Path) -> Iterator[tuple[str, int]]:
    for folder in _POSTGRESQL_SOCKETS:
        for path in sorted(_below(root, folder).glob(".s.PGSQL.*")):
            number = path.name.rpartition(".")[2]
            if number.isdigit() and _is_socket(path):
                yield folder, int(number)


def _configured_clusters(root: Path) -> Iterator[tuple[int, str]]:
    """Port and data folder of each cluster that Debian's tools know."""
    for path in sorted(_below(root, "/etc/postgresql").glob("*/*/postgresql.conf")):
        values = dict(_assignments(path))
        if values.get("port", "").isdigit():
            version, name = path.parts[-3:-1]
            yield int(values["port"]), values.get("data_directory") or f"/var/lib/postgresql/{version}/{name}"


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, equals, value = line.partition("#")[0].partition("=")
        if equals:
            yield name.strip(), value.strip().strip("'")


def _data_folders(root: Path) -> Iterator[str]:
    for pattern in _POSTGRESQL_DATA:
        for path in sorted(root.glob(f"{pattern.lstrip('/')}/PG_VERSION")):
            yield f"/{path.parent.relative_to(root)}"


def mariadb_servers(root: Path = Path("/")) -> tuple[Found, ...]:
    """By the socket, the data, or the port."""
    data = _MARIADB_DATA if _below(root, f"{_MARIADB_DATA}/ibdata1").exists() else ""
    for socket in _MARIADB_SOCKETS:
        if _is_socket(_below(root, socket)):
            return (Found(kind=Kind.MARIADB, place=socket, data=data),)
    if _MARIADB_PORT in listening_ports(root):
        return (Found(kind=Kind.MARIADB, place="", port=_MARIADB_PORT, data=data),)
    return (Found(kind=Kind.MARIADB, place="", runs=False, data=data),) if data else ()


def listening_ports(root: Path = Path("/")) -> frozenset[int]:
    """The TCP ports at which something listens, as /proc/net tells."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = _below(root, f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if len(fields) > 3 and fields[3] == _LISTENING:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)


def volumes(root: Path = Path("/")) -> tuple[Found, ...]:
    """The named volumes of Docker and Podman that hold something."""
    return tuple(
        Found(kind=Kind.VOLUME, place=f"{folder}/{path.parent.name}/_data")
        for folder in _VOLUMES
        for path in sorted(_below(root, folder).glob("*/_data"))
        if _holds_something(path)
    )


def folders(root: Path = Path("/"), skip: Collection[str] = ()) -> tuple[Found, ...]:
    """The usual folders that are there and hold something beside what is opsd's own."""
    own = {os.path.split(path) for path in skip}
    return tuple(
        Found(kind=Kind.FOLDER, place=folder)
        for folder in FOLDERS
        if _holds_something(_below(root, folder), {name for above, name in own if above == folder})
    )


class SqliteSearch:
    """Looks for SQLite files by their header, breadth first, until the time is over."""

    def __init__(self, root: Path, skip: Iterable[str], seconds: float) -> None:
        self.complete = True
        self.unread = 0
        self._root = root
        self._skip = frozenset(skip)
        self._end = time.monotonic() + seconds

    def files(self) -> Iterator[Found]:
        """Each that was found."""
        waiting = list(SQLITE_PLACES)
        device = {place: _device(_below(self._root, place)) for place in waiting}
        for folder in waiting:  # It grows meanwhile.
            if time.monotonic() > self._end:
                self.complete = False
                return
            top = next(place for place in SQLITE_PLACES if folder == place or folder.startswith(f"{place}/"))
            for entry in self._entries(folder):
                path = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if self._enters(path, entry, device[top]):
                        waiting.append(path)
                elif entry.is_file(follow_symlinks=False) and _is_sqlite(entry):
                    yield Found(kind=Kind.SQLITE, place=path)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(_below(self._root, folder)) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError:
            self.unread += 1
            return []

    def _enters(self, path: str, entry: "os.DirEntry[str]", device: int) -> bool:
        """Not what is made anew, and no other file system: that may be a backup, or on a network."""
        if path in self._skip or entry.name in _PASSING:
            return False
        try:
            return entry.stat(follow_symlinks=False).st_dev == device
        except OSError:
            return False


def _is_sqlite(entry: "os.DirEntry[str]") -> bool:
    """A file of whole pages that begins as databases do. Sizes leave out nearly all others, which then need not be opened."""
    try:
        size = entry.stat(follow_symlinks=False).st_size
        if not size or size % _LEAST_PAGE:
            return False
        # Not to wait for a lease, nor to follow what takes its place meanwhile.
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return is_database(os.read(descriptor, 16))
    except OSError:
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """Something that no source takes. `partly`: paths below it that one does take."""

    found: Found
    partly: tuple[str, ...] = ()


def uncovered(sources: Sequence[SourceSettings], found: Iterable[Found]) -> tuple[Uncovered, ...]:
    """What no source takes; what an `exclude` of a files source names was left out on purpose and is not told."""
    return tuple(each for each in map(_Taken(sources).judged, found) if each)


class _Taken:
    """What the sources of a configuration take, by kind."""

    def __init__(self, sources: Sequence[SourceSettings]) -> None:
        options = [source.options for source in sources]
        self._files = [each for each in options if isinstance(each, FilesSource)]
        self._excluded = [patterns.compile(each.exclude) for each in self._files]
        self._included = [patterns.compile(each.include) for each in self._files]
        self._servers = [each for each in options if isinstance(each, PostgresqlSource)]
        self._sqlite = {os.path.realpath(each.path) for each in options if isinstance(each, SqliteSource)}
        programs = {os.path.basename(word) for each in options if isinstance(each, CommandSource) for word in each.run}
        self._dumps_mariadb = any(program in " ".join(programs) for program in _MARIADB_PROGRAMS)

    def judged(self, found: Found) -> Uncovered | None:
        """What is to be said of it."""
        if found.data and self._is_left_out(found.data):
            return None
        if found.kind is Kind.POSTGRESQL:
            taken = any(_is_of(found, server) for server in self._servers)
        elif found.kind is Kind.MARIADB:
            taken = self._dumps_mariadb
        else:
            taken = os.path.realpath(found.place) in self._sqlite or self._is_walked(found.place)
        return None if taken else Uncovered(found=found, partly=self._below(found.place))

    def _is_walked(self, path: str) -> bool:
        """Whether a files source takes it, or leaves it out by a pattern of its own."""
        return self._is_left_out(path) or any(_lies_in(path, root) for each in self._files for root in each.paths)

    def _is_left_out(self, path: str) -> bool:
        name = os.fsencode(path)
        return any(matcher.selects(name, is_folder=True) for matcher in self._excluded)

    def _below(self, path: str) -> tuple[str, ...]:
        named = (root.rstrip("/") for each in self._files for root in each.paths)
        return tuple(sorted(each for each in (*named, *self._sqlite) if path and _lies_in(each, path)))


def _is_of(found: Found, source: PostgresqlSource) -> bool:
    """Whether a source speaks of that server, as far as socket and port tell; one in a container shows a port alone."""
    if source.via:
        return not found.place and found.runs
    host = source.host or os.environ.get("PGHOST") or "/var/run/postgresql"
    port = source.port or int(os.environ.get("PGPORT") or _POSTGRESQL_PORT)
    if found.port and port != found.port:
        return False
    return host in _LOCAL or not found.place or os.path.realpath(host) == os.path.realpath(found.place)


def _lies_in(path: str, folder: str) -> bool:
    folder = folder.rstrip("/")
    return path.rstrip("/") == folder or path.startswith(f"{folder}/")


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _device(path: Path) -> int:
    try:
        return path.stat().st_dev
    except OSError:
        return -1


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _holds_something(path: Path, beside: Collection[str] = ()) -> bool:
    """Whether a folder holds more than these names; one that can't be read may."""
    try:
        with os.scandir(path) as entries:
            return any(entry.name not in beside for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
