"""Where a server is, as whom it is asked, and by which programs.

Promise: a password reaches a program only through its environment (PGPASSWORD), never through its arguments, and
every problem in reaching a server comes with a next step.
"""

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from shutil import which

from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.session import (
    TEXT_FORM,
    PsqlSession,
    PsycopgSession,
    ServerProblem,
    Session,
    connection_string,
    quoted,
)
from opsd.sources.postgresql.tools import Tools, find_tools, through
from opsd.values import dataclass

#: runuser(1).
_BECOME = ("runuser", "-u")
_SUPERUSER = "postgres"
_MAKES_DATABASES = "select (rolsuper or rolcreatedb)::text from pg_catalog.pg_roles where rolname = current_user"
_PEER = (
    "the server lets only the system user of that name in: name the role that matches in 'user', run opsd as that user, or "
    "add a line to pg_ident.conf"
)
_ROLE = "set 'user' to a role made for backups: CREATE ROLE opsd LOGIN BYPASSRLS IN ROLE pg_read_all_data;"
_DOWN = "check that the server runs and that 'host' and 'port' are right (systemctl status postgresql; pg_isready)"
_DIED = "the server went away: see its log for why, and run the backup again once it is up"

#: What a failed connection says, and the next step; libpq has no SQLSTATE for these.
_HINTS = (
    (r"peer authentication failed", _PEER),
    (r"password authentication failed|no password supplied", "check 'user' and 'password' of this source"),
    (r"role .* does not exist", _ROLE),
    (r"not permitted to log in", "ALTER ROLE {user} LOGIN;"),
    (r"too many connections for role", "ALTER ROLE {user} CONNECTION LIMIT -1;"),
    (r"no pg_hba.conf entry", "add a line for this role and address to pg_hba.conf and reload the server"),
    (r"permission denied for database", "GRANT CONNECT ON DATABASE {database} TO {user};"),
    (r"too many clients|remaining connection slots", "raise max_connections, or lower 'parallel' of this source"),
    (r"starting up|shutting down|in recovery mode", "the server is not ready: try again in a moment"),
    (r"lock timeout", "another session keeps a table locked: see pg_locks, and run the backup at another time"),
    (r"refused|no such file|timeout|timed out|could not translate|not known|unreachable", _DOWN),
    (
        r"server closed|closed the connection|connection .*lost|terminating connection|ssl connection has been closed",
        _DIED,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server as one role sees it. What is None comes from libpq's environment, on whichever side the programs run.

    A lock that is not had after `lock_seconds` is given up: who waits for one holds up those who come later.
    """

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    maintenance_database: str = "postgres"
    via: tuple[str, ...] = ()
    lock_seconds: int = 60

    @classmethod
    def of(cls, options: PostgresqlSource, password: str | None) -> "Server":
        """The server that a source's options speak of."""
        return cls(
            host=options.host,
            port=options.port,
            user=options.user,
            password=password,
            maintenance_database=options.maintenance_database,
            via=options.via,
        )

    def within_reach(self) -> "Server":
        """The same server; for root, whom it lets in only as the system user of the role's name, through that user."""
        if self.password is not None or not self._root_may_become(self.user):
            return self
        other = replace(self, via=(*_BECOME, str(self.user), "--"))
        return next((each for each in (self, other) if each.lets_in()), self)

    def for_restores(self) -> "Server":
        """The same, within reach; for root, whose role may only read, as the server's superuser, through the system user of that name."""
        reached = self.within_reach()
        if not self._root_may_become(_SUPERUSER) or not reached.lets_in():
            return reached
        with reached.session() as session:
            if one(session, _MAKES_DATABASES) == "true":
                return reached
        other = replace(self, user=_SUPERUSER, password=None, via=(*_BECOME, _SUPERUSER, "--"))
        return other if other.lets_in() else reached

    def lets_in(self) -> bool:
        """Whether the server can be asked at all."""
        try:
            self._connect(self.maintenance_database).close()
        except ServerProblem:
            return False
        return True

    def address(self, database: str) -> str:
        """The connection string of one of its databases, without the password."""
        return connection_string(database, host=self.host, port=self.port, user=self.user)

    def environment(self) -> dict[str, str]:
        """The environment of a client program."""
        own = {**os.environ, "LC_ALL": "C.UTF-8"}
        return own if self.password is None else {**own, "PGPASSWORD": self.password}

    def through(self, program: str) -> tuple[str, ...]:
        """The arguments that start a client program wherever they are to run."""
        return (*through(self.via, secret=self.password is not None), program)

    @contextmanager
    def session(self, database: str | None = None) -> Iterator[Session]:
        """A conversation with one database, or with the one for maintenance; raises ServerProblem with a hint."""
        name = self.maintenance_database if database is None else database
        try:
            session = self._connect(name)
        except ServerProblem as problem:
            hint = advice(str(problem), name, self.user)
            raise ServerProblem(
                f"can't connect to database {name}: {problem}", hint=hint, state=problem.state
            ) from problem
        try:
            yield session
        finally:
            session.close()

    def tools(self, *, dump: int = 0) -> Tools:
        """The client programs that fit this server, and a dump that needs that major version; raises ServerProblem when all are too old."""
        with self.session() as session:
            return find_tools(int(one(session, "select current_setting('server_version_num')")), self, dump=dump)

    def to(self, **changes: str | int | None) -> "Server":
        """The same server, seen otherwise."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def _root_may_become(self, user: str | None) -> bool:
        """Whether this is root, and that a system user whom the server of this machine may let in."""
        is_local = self.host is not None and self.host.startswith("/")
        if os.geteuid() != 0 or self.via or not is_local or not which(_BECOME[0]):
            return False
        try:
            return pwd.getpwnam(user or "").pw_uid != 0
        except KeyError:
            return False

    def _connect(self, database: str) -> Session:
        opening = TEXT_FORM.format(lock_seconds=self.lock_seconds)
        if self.via:
            return PsqlSession(self.through("psql"), self.address(database), self.environment(), opening)
        return PsycopgSession(self.address(database), self.password, opening)


def one(session: Session, sql: str) -> str:
    """The single value of a statement; empty for NULL."""
    return session.rows(sql)[0][0] or ""


def advice(said: str, database: str, user: str | None) -> str | None:
    """The next step for what a server or a program said, where it is a known complaint."""
    for pattern, hint in _HINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return hint.format(database=quoted(database), user=quoted(user) if user else "the role")
    return None
