"""Make the role that dumps a PostgreSQL server of this machine, and find the way by which it logs in.

Promise: what a superuser of the server is needed for is done as `postgres` through peer authentication, or printed as SQL; each way in
is tried before it is proposed; a password never stands in an argument.
"""

import os
import pwd
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from opsd.errors import OpsdError, ProgramFailed
from opsd.process import run, said
from opsd.sources.discovery import Found, listening_ports
from opsd.sources.postgresql.server import Server, one
from opsd.sources.postgresql.session import ServerProblem, literal
from opsd.values import dataclass

ROLE: Final = "opsd"
_SECONDS: Final = 60.0
#: `pg_read_all_data` is since PostgreSQL 14; large objects of others are read only so.
_MAKE: Final = "CREATE ROLE opsd LOGIN BYPASSRLS{reads}; ALTER ROLE opsd SET lo_compat_privileges = on;"
_IS_THERE: Final = "select 1 from pg_catalog.pg_roles where rolname = 'opsd'"
_SMALLEST: Final = """
select datname from pg_catalog.pg_database where datallowconn and not datistemplate and pg_database_size(oid) < 1073741824
order by datname = 'postgres', pg_database_size(oid) limit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A server as a source: its options, the password's file content if there is one, and the database to try it with.

    `todo` says what a person must do, where opsd could not.
    """

    label: str
    options: dict[str, Any]
    password: str | None = field(default=None, repr=False)
    smallest: str | None = None
    made: bool = False
    todo: str | None = None


def join(found: Found, label: str, account: pwd.struct_passwd | None, secret: Path) -> Joined:
    """Make the role where it is missing, and find a way in; `account` runs the nights, None for whoever runs this."""
    base = {"host": found.place or "localhost", "port": found.port, "user": ROLE}
    try:
        made, smallest = _made(found)
    except OpsdError as error:
        sql = _MAKE.format(reads=" IN ROLE pg_read_all_data")
        return Joined(label=label, options=base, todo=f"as a superuser of {found}: {sql} ({error})")
    if _peer_works(found, account):
        return Joined(label=label, options=base, smallest=smallest, made=made)
    password = _password(found, secret, made=made)
    for host in _hosts(found, account) if password else ():
        if _logs_in({**base, "host": host}, password):
            options = {**base, "host": host, "password": {"file": str(secret)}}
            return Joined(label=label, options=options, password=password, smallest=smallest, made=made)
    if os.geteuid() == 0 and account is None:
        # Nothing but peer authentication: as the server's own user, whom root may become.
        options = {**base, "user": "postgres", "via": ["runuser", "-u", "postgres", "--"]}
        return Joined(label=label, options=options, smallest=smallest, made=made)
    todo = (
        f"let role opsd in: add 'local all opsd peer' to pg_hba.conf of {found}, above other local lines, and reload it"
    )
    return Joined(label=label, options=base, made=made, todo=todo)


def _password(found: Found, secret: Path, *, made: bool) -> str:
    """A new one for a new role; for one that was there, what an earlier setup kept: somebody may use that role."""
    if not made:
        return secret.read_text(encoding="utf-8").strip() if secret.is_file() else ""
    password = secrets.token_urlsafe(24)
    _as_superuser(found, f"ALTER ROLE opsd PASSWORD {literal(password)};")
    return password


def _made(found: Found) -> tuple[bool, str | None]:
    """Whether the role had to be made, and the smallest database."""
    there = bool(_as_superuser(found, _IS_THERE))
    if not there:
        version = int(_as_superuser(found, "select current_setting('server_version_num')"))
        _as_superuser(found, _MAKE.format(reads=" IN ROLE pg_read_all_data" if version >= 140_000 else ""))
    return not there, _as_superuser(found, _SMALLEST) or None


def _as_superuser(found: Found, sql: str) -> str:
    """What psql prints as the server's own user; the statements go through its input.

    Raises:
        ProgramFailed: it can't be asked.
    """
    program = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", found.place, "-p", str(found.port)]
    program += ["-U", "postgres", "-d", "postgres"]
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 and shutil.which("runuser") else []
    done = run([*become, *program], timeout=_SECONDS, given=f"{sql}\n".encode())
    if done.status:
        raise ProgramFailed(f"psql as postgres{said(done.error_text)}")
    return done.output.decode().strip()


def _peer_works(found: Found, account: pwd.struct_passwd | None) -> bool:
    """Whether the server lets the role in because the system user has its name."""
    user = account.pw_name if account else pwd.getpwuid(os.geteuid()).pw_name
    if user != ROLE:
        return False
    become = ["runuser", "-u", user, "--"] if account else []
    command = ["psql", "-X", "-w", "-h", found.place, "-p", str(found.port), "-U", ROLE, "-d", "postgres", "-c", ""]
    try:
        return run([*become, *command], timeout=_SECONDS).status == 0
    except ProgramFailed:
        return False


def _hosts(found: Found, account: pwd.struct_passwd | None) -> Iterator[str]:
    """Where a password may do; the units' worker has no network."""
    yield found.place
    if account is None and found.port in listening_ports():
        yield "localhost"


def _logs_in(options: dict[str, Any], password: str) -> bool:
    server = Server(host=options["host"], port=options["port"], user=options["user"], password=password)
    try:
        with server.session() as session:
            return one(session, "select current_user::text") == ROLE
    except ServerProblem:
        return False


def labels(servers: Sequence[Found]) -> list[str]:
    """A label for each: the first is plain, others have their port."""
    return [f"postgresql-{each.port}" if number else "postgresql" for number, each in enumerate(servers)]
