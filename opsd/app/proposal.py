"""Propose a configuration for what was found on a machine, and a sample of it for a first restore.

Promise: pure but for looking at files' sizes for the sample; what the proposal names is what `opsd.settings` accepts.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from opsd.settings.model import DEFAULT_STATE
from opsd.sources import patterns
from opsd.sources.discovery import Found, Kind
from opsd.values import dataclass

#: What is made anew, is no content of its own, or can only be dumped; with their volumes, containers come back from images.
_EXCLUDED: Final = (
    "/home/*/.cache/",
    "/root/.cache/",
    "/var/lib/apt/lists/",
    "/var/lib/lxcfs/",
    "/var/lib/docker/",
    "/var/lib/containerd/",
    "/var/lib/containers/",
)
#: Where the package's units let a cache be.
PACKAGE_CACHE: Final = Path("/var/cache/opsd")
_VOLUMES: Final = ("/var/lib/docker/volumes/", "/var/lib/containers/storage/volumes/")
_POSTGRESQL_DATA: Final = "/var/lib/postgresql/"
_MARIADB_DATA: Final = "/var/lib/mysql/"
_MARIADB_CLIENTS: Final = ("mariadb-dump", "mysqldump")
_HEADER: Final = "# Written by 'opsd setup'; 'opsd config generate' shows every key.\n"
#: A sample is enough to prove a restore, and small enough to be quick: files, bytes, folders looked at.
SAMPLE_FILES: Final = 400
SAMPLE_BYTES: Final = 64 << 20
_SAMPLE_FOLDERS: Final = 2000
_SFTP: Final = re.compile(r"(?P<user>[A-Za-z0-9_.-]+)@(?P<host>[A-Za-z0-9_.-]+):(?P<path>\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a person decided, or the defaults. `file` is the configuration's; secrets stand beside it.

    `copy`: a folder, `user@host:path`, or empty; `contact`: who is told, by address or URL, or empty; `time`: HH:MM.
    """

    file: Path
    repository: str
    zone: str
    time: str
    state: Path = DEFAULT_STATE
    copy: str = ""
    contact: str = ""

    @property
    def passphrase(self) -> Path:
        """Where the passphrase goes."""
        return self.file.parent / "passphrase"

    @property
    def login_key(self) -> Path:
        """The key that logs in to the copy's server."""
        return self.file.parent / "copy_key"

    @property
    def known_hosts(self) -> Path:
        """The host keys that are trusted."""
        return self.file.parent / "known_hosts"


def sftp_of(copy: str) -> Mapping[str, str] | None:
    """User, host and path of a copy on a server; None of a folder."""
    found = _SFTP.fullmatch(copy)
    return found.groupdict() if found else None


def mariadb_source(found: Sequence[Found]) -> dict[str, Any]:
    """A command that dumps MariaDB as root, whom its socket lets in; empty where no server or no client is there."""
    client = next(filter(shutil.which, _MARIADB_CLIENTS), None)
    if client is None or not any(each.kind is Kind.MARIADB and each.runs and each.place for each in found):
        return {}
    arguments = ["--all-databases", "--single-transaction", "--routines", "--events", "--quick"]
    return {"mariadb": {"command": {"run": [client, *arguments], "name": "mariadb.sql"}}}


def configuration(answers: Answers, found: Sequence[Found], servers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration; `servers` are the sources of database servers by label, each with its kind."""
    proposed: dict[str, Any] = {"version": 1, "timezone": answers.zone, "repository": answers.repository}
    if answers.state != DEFAULT_STATE:
        proposed["state"] = str(answers.state)
    elif PACKAGE_CACHE.is_dir():
        proposed["cache"] = str(PACKAGE_CACHE)
    proposed["passphrase"] = {"file": str(answers.passphrase)}
    files = _files(found, servers)
    proposed["sources"] = ({"system": {"files": files}} if files else {}) | dict(servers)
    proposed["retention"] = {"keep_daily": 30, "keep_monthly": 12}
    proposed["schedule"] = {"backup": answers.time}
    if answers.copy:
        proposed["copies"] = {"elsewhere": _copy(answers)}
    if answers.contact:
        proposed["alerts"] = {"contacts": [{"name": "admin", "urls": [_url(answers.contact)]}]}
    return proposed


def _url(contact: str) -> str:
    """A URL as it is; an address as mail over this host's own server (docs/alerts.md)."""
    if "://" in contact:
        return contact
    return f"mailto://localhost:25?from=opsd@{os.uname().nodename}&to={contact}&mode=insecure"


def text_of(proposed: Mapping[str, Any]) -> str:
    """A configuration as it is written."""
    return _HEADER + yaml.safe_dump(dict(proposed), sort_keys=False, allow_unicode=True, width=120)


def _files(found: Sequence[Found], servers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The source of all folders; SQLite databases in them are taken as images, servers' own files by their dumps."""
    paths = [each.place for each in found if each.kind is Kind.FOLDER]
    if not paths:
        return {}
    dumped: list[str] = []
    if any("postgresql" in server for server in servers.values()):
        known = [
            f"{each.data.rstrip('/')}/" for each in found if each.kind is Kind.POSTGRESQL and each.runs and each.data
        ]
        dumped += known or [_POSTGRESQL_DATA]
    dumped += [_MARIADB_DATA] * ("mariadb" in servers)
    files: dict[str, Any] = {
        "paths": paths,
        "exclude": [each for each in (*_EXCLUDED, *dumped) if _is_below(each, paths)],
    }
    # Also where there are none yet: a volume that is made tomorrow is nobody's to forget.
    volumes = [place for place in _VOLUMES if _is_below(place, paths)]
    return files | ({"include": volumes} if volumes else {})


def _is_below(pattern: str, paths: Iterable[str]) -> bool:
    return any(pattern.startswith(f"{path}/") for path in paths)


def _copy(answers: Answers) -> dict[str, Any]:
    place = sftp_of(answers.copy)
    if place is None:
        return {"folder": answers.copy}
    key = {"key": {"file": str(answers.login_key)}, "known_hosts": str(answers.known_hosts)}
    return {"sftp": {**place, **key}}


def sample(proposed: Mapping[str, Any], found: Sequence[Found], smallest: Mapping[str, str]) -> dict[str, Any]:
    """The same configuration with a little of each source: some files, the smallest SQLite and PostgreSQL databases.

    `smallest` names the database to take of each server; one that it does not name is left out.
    """
    sources: dict[str, Any] = {}
    for label, source in proposed["sources"].items():
        if "files" in source:
            chosen = _sampled(source["files"], found)
            sources |= {label: {"files": {"paths": chosen}}} if chosen else {}
        elif label in smallest and "postgresql" in source:
            sources[label] = {"postgresql": {**source["postgresql"], "databases": [smallest[label]]}}
    kept = {key: value for key, value in proposed.items() if key not in {"sources", "copies", "alerts"}}
    return kept | {"sources": sources}


def _sampled(files: Mapping[str, Any], found: Sequence[Found]) -> list[str]:
    """The smallest SQLite databases first, then files of every folder in turn, as many as fit."""
    excluded = patterns.compile(files["exclude"])
    databases = sorted((_size(each.place), each.place) for each in found if each.kind is Kind.SQLITE)
    left, chosen = SAMPLE_BYTES, []
    candidates = [*databases[:3], *_in_turn([_below(path, excluded) for path in files["paths"]])]
    for size, path in candidates:
        if 0 <= size <= left and path not in chosen and not excluded.selects(os.fsencode(path)):
            chosen.append(path)
            left -= size
        if len(chosen) == SAMPLE_FILES:
            break
    return sorted(chosen)


def _in_turn(walks: Sequence[Iterator[tuple[int, str]]]) -> Iterator[tuple[int, str]]:
    waiting = list(walks)
    while waiting:
        for walk in tuple(waiting):
            try:
                yield next(walk)
            except StopIteration:
                waiting.remove(walk)


def _below(root: str, excluded: patterns.Matcher) -> Iterator[tuple[int, str]]:
    """Files below a folder with their sizes, nearest first, of a bounded number of folders."""
    waiting = [root]
    for folder in waiting:  # It grows meanwhile.
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if not entry.path.isprintable() or excluded.selects(os.fsencode(entry.path), is_folder=True):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting += [entry.path] * (len(waiting) < _SAMPLE_FOLDERS)
            elif entry.is_file(follow_symlinks=False):
                yield _size(entry.path), entry.path


def _size(path: str) -> int:
    """Bytes of a file; -1 where it is gone, or no file."""
    try:
        found = os.lstat(path)
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
