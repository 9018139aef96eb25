"""Which of what lives on a machine no source takes.

Promise: judges by the sources' options alone; what an `exclude:` names was left out on purpose.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from opsd.sources import patterns
from opsd.sources.discovery import POSTGRESQL_PORT, Found, Kind, device_of, lies_in
from opsd.sources.options import CommandSource, FilesSource, PostgresqlSource, SourceSettings, SqliteSource
from opsd.values import dataclass

_MARIADB_PROGRAMS: Final = ("mariadb-dump", "mysqldump", "mariadb-backup", "mariabackup", "xtrabackup", "mydumper")
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


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
        return self._is_left_out(path) or any(_reaches(each, path) for each in self._files)

    def _is_left_out(self, path: str) -> bool:
        name = os.fsencode(path)
        return any(matcher.selects(name, is_folder=True) for matcher in self._excluded)

    def _below(self, path: str) -> tuple[str, ...]:
        named = (root.rstrip("/") for each in self._files for root in each.paths)
        return tuple(sorted(each for each in (*named, *self._sqlite) if path and lies_in(each, path)))


def _is_of(found: Found, source: PostgresqlSource) -> bool:
    """Whether a source speaks of that server, as far as socket and port tell; one in a container shows a port alone."""
    if source.via:
        return not found.place and found.runs
    host = source.host or os.environ.get("PGHOST") or "/var/run/postgresql"
    port = source.port or int(os.environ.get("PGPORT") or POSTGRESQL_PORT)
    if found.port and port != found.port:
        return False
    return host in _LOCAL or not found.place or os.path.realpath(host) == os.path.realpath(found.place)


def _reaches(source: FilesSource, path: str) -> bool:
    """Whether a walk from one of its folders comes to the path."""
    above = [root for root in source.paths if lies_in(path, root)]
    return any(not source.one_file_system or device_of(Path(root)) == device_of(Path(path)) for root in above)
