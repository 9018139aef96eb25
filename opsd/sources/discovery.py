"""Find what lives on this machine and would be missed: databases, container volumes, folders.

Promise: reads only names, headers and sockets' places, changes nothing, and ends in bounded time: where that ran out, it says so.
"""

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from opsd.sources import mountinfo
from opsd.sources.sqlite import is_database
from opsd.values import dataclass

#: Folders that hold what people made or what can't be installed again, as far as they are there.
FOLDERS: Final = (
    *("/etc", "/home", "/root", "/srv", "/opt"),
    *("/var/lib", "/var/www", "/var/mail", "/var/spool/cron", "/usr/local/etc", "/usr/local/bin", "/usr/local/sbin"),
)
#: What a system has in these folders; whatever else stands there, somebody made and would miss.
_USUAL: Final = {
    "/": frozenset(
        [
            "bin",
            "boot",
            "cdrom",
            "dev",
            "etc",
            "home",
            "lib",
            "lib32",
            "lib64",
            "libx32",
            "lost+found",
            "media",
            "mnt",
            "nix",
            "opt",
            "proc",
            "root",
            "run",
            "sbin",
            "snap",
            "srv",
            "sys",
            "tmp",
            "usr",
            "var",
        ]
    ),
    "/var": frozenset(
        [
            "backups",
            "cache",
            "crash",
            "empty",
            "lib",
            "lock",
            "log",
            "mail",
            "metrics",
            "run",
            "snap",
            "spool",
            "tmp",
            "www",
        ]
    ),
    "/mnt": frozenset({"lost+found"}),
    "/media": frozenset({"lost+found"}),
}
#: File systems that keep what is written to them and need no device of this machine.
_KEEPING: Final = frozenset({"zfs", "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs", "fuse.sshfs"})
#: Where SQLite files of services lie.
SQLITE_PLACES: Final = ("/var/lib", "/srv", "/opt", "/home", "/var/www", "/root")
#: Databases of the system's own tools, made anew by them; and what their servers' own sources take.
NOT_SEARCHED: Final = (
    *("/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/lxcfs", "/var/lib/apt"),
    *("/var/lib/dpkg", "/var/lib/rpm", "/var/lib/dnf", "/var/lib/snapd", "/var/lib/PackageKit", "/var/lib/fwupd"),
    *("/var/lib/postgresql", "/var/lib/pgsql", "/var/lib/mysql"),
)
#: Folders whose content is made anew.
_PASSING: Final = frozenset({"cache", ".cache", "node_modules", "__pycache__", ".git", ".venv"})
#: bford.info/cachedir: what lies beside it is left out of backups.
_CACHE_TAG: Final = "CACHEDIR.TAG"
_VOLUMES: Final = ("/var/lib/docker/volumes", "/var/lib/containers/storage/volumes")
_POSTGRESQL_SOCKETS: Final = ("/tmp", "/run/postgresql", "/var/run/postgresql")  # noqa: S108 - where servers make them
_POSTGRESQL_DATA: Final = ("/var/lib/postgresql/*/*", "/var/lib/pgsql/*/data", "/var/lib/pgsql/data")
_MARIADB_SOCKETS: Final = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108 - as above
_MARIADB_DATA: Final = "/var/lib/mysql"
#: States of proc_pid_net(5): a socket that listens.
_LISTENING: Final = "0A"
POSTGRESQL_PORT: Final = 5432
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
    MOUNT = "mount"

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
        if self.kind is Kind.MOUNT:
            return f"{where} (a file system of its own)"
        return f"SQLite {where}" if self.kind is Kind.SQLITE else where


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """All that was found. `complete` is False where the time for SQLite files ran out; `unread`: folders that could not be read."""

    found: tuple[Found, ...]
    complete: bool = True
    unread: int = 0


def discover(skip: Collection[str] = (), *, root: Path = Path("/"), seconds: float = SEARCH_SECONDS) -> Discovery:
    """Everything below `root`, but for what lies in `skip`: opsd's own folders."""
    usual = folders(root, skip)
    search = SqliteSearch(root, (*NOT_SEARCHED, *skip), seconds, (each.place for each in usual))
    servers = (*postgresql_servers(root), *mariadb_servers(root))
    found = (*servers, *search.files(), *volumes(root), *usual, *mounts(root, skip))
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
        if POSTGRESQL_PORT in listening_ports(root):
            found.append(Found(kind=Kind.POSTGRESQL, place="", port=POSTGRESQL_PORT))
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
    """The usual folders, and those of the site beside them, that hold something beside what is opsd's own.

    The site's are those on the file system of the root: another may be larger than any repository, or hold backups itself.
    """
    device = device_of(root)
    places = [*FOLDERS, *(place for place in _of_the_site(root) if device_of(_below(root, place)) == device)]
    return tuple(Found(kind=Kind.FOLDER, place=each) for each in places if holds_more(each, skip, root))


def mounts(root: Path = Path("/"), skip: Collection[str] = ()) -> tuple[Found, ...]:
    """File systems of their own, beside the usual folders, that hold something beside what is opsd's own."""
    try:
        every = mountinfo.parse(_below(root, "/proc/self/mountinfo").read_bytes())
    except OSError:
        return ()
    points = [os.fsdecode(each.point) for each in every if each.source.startswith(b"/dev/") or each.kind in _KEEPING]
    places = ("/mnt", "/media", *_of_the_site(root))
    found = [each for each in points if any(lies_in(each, place) for place in places)]
    return tuple(Found(kind=Kind.MOUNT, place=each) for each in found if holds_more(each, skip, root))


def _of_the_site(root: Path) -> list[str]:
    """Folders that no system has where they stand."""
    found = []
    for above, usual in _USUAL.items():
        with suppress(OSError), os.scandir(_below(root, above)) as entries:
            names = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
            found += [os.path.join(above, name) for name in names if name not in usual]
    return found


class SqliteSearch:
    """Looks for SQLite files by their header, breadth first, until the time is over."""

    def __init__(self, root: Path, skip: Iterable[str], seconds: float, places: Iterable[str] = ()) -> None:
        self.complete = True
        self.unread = 0
        self._root = root
        self._skip = frozenset(skip)
        self._end = time.monotonic() + seconds
        self._places = tuple(dict.fromkeys((*SQLITE_PLACES, *places)))

    def files(self) -> Iterator[Found]:
        """Each that was found."""
        waiting = list(self._places)
        device = {place: device_of(_below(self._root, place)) for place in waiting}
        for folder in waiting:  # It grows meanwhile.
            if time.monotonic() > self._end:
                self.complete = False
                return
            top = next(place for place in self._places if folder == place or folder.startswith(f"{place}/"))
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
                found = sorted(entries, key=lambda entry: entry.name)
            return [] if any(entry.name == _CACHE_TAG for entry in found) else found
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


def lies_in(path: str, folder: str) -> bool:
    """Whether a path is the folder, or lies below it."""
    folder = folder.rstrip("/")
    return path.rstrip("/") == folder or path.startswith(f"{folder}/")


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def device_of(path: Path) -> int:
    """The file system that a path is on; -1 where it is not there."""
    try:
        return path.stat().st_dev
    except OSError:
        return -1


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def holds_more(folder: str, own: Collection[str], root: Path = Path("/")) -> bool:
    """Whether a folder holds something beside opsd's own folders and the way to them."""
    if folder in own:
        return False
    names = {os.path.relpath(each, folder).partition("/")[0] for each in own if lies_in(each, folder)}
    return _holds_something(_below(root, folder), names) or any(
        holds_more(os.path.join(folder, name), own, root) for name in names
    )


def _holds_something(path: Path, beside: Collection[str] = ()) -> bool:
    """Whether a folder holds more than these names; one that can't be read may."""
    try:
        with os.scandir(path) as entries:
            return any(entry.name not in beside for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
