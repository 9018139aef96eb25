"""A PostgreSQL server that lives as long as a drill looks at it.

Promise: reached by a socket in the drill's own folder alone, without network where that can be had, without cron, archiving or
autovacuum; of the same major version as the server that was backed up; never as root. Superuser's programs in a dump get no more rights than
the system user has that runs it.
"""

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from opsd.errors import ProgramMissing, RestoreError
from opsd.process import said
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.postgresql.tools import FOLDERS, folders_with, read_version
from opsd.values import dataclass
from opsd.verify.scratch import stop_server

#: Nothing needs to outlive a crash. Sorts and scans may use the machine: nobody else asks this server.
_SETTINGS: Final = {
    "jit": "off",  # A unit with MemoryDenyWriteExecute= ends whoever compiles.
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "min_wal_size": "2MB",
    "wal_init_zero": "off",
    "archive_mode": "off",
    "autovacuum": "off",
    "shared_preload_libraries": "",
    "logging_collector": "off",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "128MB",
    "max_parallel_workers_per_gather": "4",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
}
_SOCKET_BYTES: Final = 80
_SECONDS: Final = 120
_SERVER_USER: Final = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throwaway:
    """A running server, and the folder in which tablespaces are made."""

    server: Server
    spaces: Path
    spaces_inside: str


def find_programs(version_number: int, folders: tuple[str, ...] = FOLDERS) -> Path:
    """The folder of the server's programs of that `server_version_num`'s major version.

    Raises:
        ProgramMissing: there is none.
    """
    major = version_number // 10000
    found: list[int] = []
    for folder in folders_with("initdb", folders):
        try:
            version = read_version([str(folder / "postgres")], {"LC_ALL": "C"})[0]
        except ServerProblem:
            continue
        if version == major:
            return folder
        found.append(version)
    have = ", ".join(map(str, sorted(set(found)))) or "none"
    raise ProgramMissing(
        f"PostgreSQL {major} is needed to start what was restored, and is not installed here; found: {have}",
        hint=f"install postgresql-{major} (Debian's or from apt.postgresql.org); no cluster of it need run",
    )


@contextmanager
def running(folder: Path, programs: Path, superuser: str) -> Iterator[Throwaway]:
    """A new, empty server in `folder`, stopped at the end.

    The server sees its folder through an inherited descriptor: so neither the length of the path matters, nor whether the server's
    user may enter the folders above it.

    Raises:
        RestoreError: it can't be made or started.
    """
    account = _account()
    spaces = folder / "spaces"
    for each in (folder, spaces):
        each.mkdir(parents=True, mode=0o700)
        if account:
            os.chown(each, account.pw_uid, account.pw_gid)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    inside = f"/proc/self/fd/{descriptor}"
    host = _host(folder, descriptor)
    try:
        _start(_Runner(descriptor, account, folder / "log"), programs, inside, superuser)
        yield Throwaway(
            server=Server(host=host, port=5432, user=superuser, maintenance_database="template1"),
            spaces=spaces,
            spaces_inside=f"{inside}/spaces",
        )
    finally:
        stop_server(folder / "main")
        os.close(descriptor)


def _start(run: "_Runner", programs: Path, inside: str, superuser: str) -> None:
    """Make a cluster, and wait until its server answers."""
    how = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--wal-segsize=1"]
    run([str(programs / "initdb"), "-D", f"{inside}/main", "--username", superuser, *how])
    settings = {**_SETTINGS, "unix_socket_directories": inside, "unix_socket_permissions": "0700"}
    options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
    start = ["-D", f"{inside}/main", "-w", "-t", str(_SECONDS), "-l", f"{inside}/log", "-o", options, "start"]
    run([*_without_network(), *_as(run.account), str(programs / "pg_ctl"), *start], changed=True)


def _host(folder: Path, descriptor: int) -> str:
    """The folder of the socket for us and our children; a socket's path has at most 107 bytes (unix(7))."""
    return str(folder) if len(os.fsencode(folder)) < _SOCKET_BYTES else f"/proc/{os.getpid()}/fd/{descriptor}"


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as where we are root."""
    if os.geteuid() != 0:
        return None
    for name in (_SERVER_USER, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RestoreError("there is no user to run PostgreSQL as", hint=f"make the system user {_SERVER_USER}")


def _as(account: pwd.struct_passwd | None) -> list[str]:
    if account is None or not shutil.which("setpriv"):
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", "--"]


def _without_network() -> list[str]:
    """What takes the network away, where that is allowed: a socket in a folder is none of it."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return []
    tried = subprocess.run(["unshare", "--net", "--", "true"], check=False, capture_output=True)
    return ["unshare", "--net", "--"] if tried.returncode == 0 else []


@dataclass(frozen=True, slots=True)
class _Runner:
    """Runs a program of the server's with the folder's descriptor."""

    descriptor: int
    account: pwd.struct_passwd | None
    log: Path

    def __call__(self, command: list[str], *, changed: bool = False) -> None:
        """To its end; `changed`: the command changes its user itself.

        Raises:
            RestoreError: it failed.
        """
        account = None if changed and command[0] in {"unshare", "setpriv"} else self.account
        try:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if changed else subprocess.PIPE,
                pass_fds=(self.descriptor,),
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.defpath},
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
                start_new_session=True,  # An interrupt from the keyboard would stop initdb's server, and leave its shared memory.
                timeout=_SECONDS + 30,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RestoreError(f"the throwaway PostgreSQL can't be started: {error}") from error
        if done.returncode:
            words = done.stderr or (self.log.read_bytes() if self.log.exists() else b"")
            raise RestoreError(
                f"the throwaway PostgreSQL can't be started{said(words)}",
                hint="is there room in the scratch folder, and shared memory in /dev/shm?",
            )
