"""Which pg_dump, pg_dumpall, pg_restore and psql to run.

Promise: the programs are at least as new as the server (an older pg_dump refuses) and as the dump (an older pg_restore can't read it), and the
closest to them; on Debian the real programs are run, not the wrapper, which costs a tenth of a second each time.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Protocol

from opsd.errors import ProgramFailed
from opsd.process import ending, run, said
from opsd.sources.postgresql.session import ServerProblem
from opsd.values import dataclass

#: Where distributions keep the programs of each major version: Debian and Ubuntu, then Red Hat and SUSE.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin")

#: Since which major version pg_restore reads these formats, 1.15 and 1.16; older ones all do. PostgreSQL, pg_backup_archiver.h
_READ_SINCE = {15: 16, 16: 17}


class Place(Protocol):
    """What starts a client program."""

    @property
    def via(self) -> tuple[str, ...]:
        """The arguments before the program's name."""
        ...

    def through(self, program: str) -> tuple[str, ...]:
        """The arguments that start a program there."""
        ...

    def environment(self) -> dict[str, str]:
        """The environment to start it in."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Client programs of one version; `start` is put before their names, which are joined to `folder` where it is set.

    `newer`: of a newer major version than the server.
    """

    version: tuple[int, int]
    start: tuple[str, ...] = ()
    folder: Path | None = None
    newer: bool = False

    def command(self, program: str) -> list[str]:
        """The arguments that run a program."""
        return [*self.start, self._path(program)]

    def command_with_list(self, program: str, text: str) -> list[str]:
        """As `command`, with a text to be read from /dev/fd/3: a file of ours could not be read where `start` leads."""
        shell = 'list=$1; shift; exec "$@" 3<<END\n$list\nEND\n'
        return [*self.start, "sh", "-c", shell, "sh", text, self._path(program)]

    def _path(self, program: str) -> str:
        return program if self.folder is None else str(self.folder / program)


def through(via: tuple[str, ...], *, secret: bool) -> tuple[str, ...]:
    """`via` as a container's exec needs it: with standard input, and with the password's variable (not its value)."""
    if len(via) < 3 or Path(via[0]).name not in {"docker", "podman", "kubectl"} or via[1] != "exec":
        return via
    given = via[2:]
    extra = () if {"-i", "--interactive", "-it"} & set(given) else ("-i",)
    if secret and Path(via[0]).name != "kubectl":
        extra = (*extra, "-e", "PGPASSWORD")
    return (*via[:2], *extra, *given)


def find_tools(server_version: int, place: Place, folders: Sequence[str] = FOLDERS, *, dump: int = 0) -> Tools:
    """The programs to use for a server of that `server_version_num`, and to read a dump that needs that major version.

    Raises:
        ServerProblem: all are older.
    """
    server = server_version // 10000
    found = [_there(place)] if place.via else _here(place, folders)
    fitting = [tools for tools in found if tools.version[0] >= max(server, dump)]
    if not fitting:
        have = ", ".join(f"{tools.version[0]}.{tools.version[1]}" for tools in found) or "none"
        what = "dump was made by" if dump > server else "server is"
        raise ServerProblem(
            f"the {what} PostgreSQL {max(server, dump)}, and the client programs must be at least as new; found: {have}",
            hint=f"install postgresql-client-{max(server, dump)} (Debian's or from apt.postgresql.org), on the side where 'via' leads",
        )
    closest = min(fitting, key=lambda tools: tools.version[0])
    return replace(closest, newer=closest.version[0] > server)


def reads_since(dump: bytes | memoryview) -> int:
    """The major version that a dump's first bytes ask of pg_restore; 0 where any will do."""
    made_with = dump[6] if len(dump) > 6 and bytes(dump[:5]) == b"PGDMP" else 0
    return max((major for minor, major in _READ_SINCE.items() if minor <= made_with), default=0)


def _there(place: Place) -> Tools:
    start = place.through("pg_dump")[:-1]
    version = read_version([*start, "pg_dump"], place.environment())
    return Tools(version=version, start=start)


def _here(place: Place, folders: Sequence[str]) -> list[Tools]:
    return [
        Tools(version=read_version([str(folder / "pg_dump")], place.environment()), folder=folder)
        for folder in folders_with("pg_dump", folders)
    ]


def folders_with(program: str, folders: Sequence[str] = FOLDERS) -> list[Path]:
    """The folder on the path that holds it first, unless that is Debian's wrapper; then those of each version."""
    places = [path for pattern in folders for path in sorted(Path("/").glob(pattern.lstrip("/")))]
    on_path = which(program)
    if on_path and Path(on_path).resolve().name != "pg_wrapper":
        places.insert(0, Path(on_path).parent)
    return [folder for folder in places if (folder / program).exists()]


def read_version(command: Sequence[str], environment: dict[str, str]) -> tuple[int, int]:
    """Major and minor version that a client program states; raises ServerProblem when it can't be run."""
    try:
        result = run([*command, "--version"], timeout=60, environment=environment)
    except ProgramFailed as failure:
        raise ServerProblem(str(failure), hint=failure.hint) from failure
    found = re.search(rb"\(PostgreSQL\) (\d+)\.?(\d+)?", result.output)
    if not found:
        raise ServerProblem(
            f"'{' '.join(command)} --version' {ending(result.status)}{said(result.error_text)}",
            hint="install the PostgreSQL client programs, or check 'via'",
        )
    return int(found[1]), int(found[2] or 0)
