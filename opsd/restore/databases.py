"""Give a PostgreSQL database back, or one of its tables, and prove that the rows are those of the snapshot.

Promise: what exists is never written into. In place, the database is restored beside the old one and takes its name in one
transaction, once its rows were compared; the old one is kept under another name unless asked otherwise. What fails half-way
leaves everything as it was.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from opsd.clock import Clock, stamp
from opsd.errors import ProgramFailed, RestoreError
from opsd.events import Reporter, Warning
from opsd.process import feed
from opsd.restore.comparison import compare
from opsd.restore.properties import complete, creation
from opsd.sources.postgresql.databases import database_exists
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, literal, quoted
from opsd.sources.postgresql.tools import Tools

#: A stream of a snapshot, in pieces that are valid until the next one.
Content = Callable[[], Iterable[bytes | memoryview]]

#: The first minor release of each major version whose pg_restore no longer runs what a hostile dump holds (CVE-2026-116314).
SOUND = {14: 25, 15: 20, 16: 16, 17: 12, 18: 7}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRestore:
    """What is restored: a database by its facts (one of `databases` in its source's facts), under which name.

    `digest` is the source's. `in_place` takes the place of an existing database; `drop_old` drops that one afterwards.
    `compared`: a whole database's rows are compared at the end; False where the caller does that.
    """

    target: str
    facts: Mapping[str, Any]
    digest: str
    in_place: bool = False
    drop_old: bool = False
    compared: bool = True


class DatabaseRestorer:
    """Restores into one server."""

    def __init__(self, server: Server, reporter: Reporter, clock: Clock) -> None:
        self._server = server
        self._reporter = reporter
        self._clock = clock
        self._known: Tools | None = None

    def database(self, request: DatabaseRestore, contents: Mapping[str, Content]) -> None:
        """Restore a whole database; `contents` has its streams by path.

        Raises:
            RestoreError: it exists and is not to be replaced, something went wrong, or its rows are not the snapshot's.
        """
        with _as_restore_error(request.target):
            exists = self._exists(request.target)
            if exists and not request.in_place:
                hint = "choose another name with --as, or replace it with --in-place"
                raise RestoreError(f"database {request.target} exists already", hint=hint)
            tools = self._tools()
            if exists:
                self._replace(request, contents, tools)
            else:
                self._fresh(request, request.target, contents, tools)

    def table(self, request: DatabaseRestore, table: str, contents: Mapping[str, Content]) -> None:
        """Restore one table with its rows, without indexes, constraints, defaults and triggers.

        The target database is made where it is missing, as is the schema. `table` is a name in the facts: `public.orders`.

        Raises:
            RestoreError: there is no such table, the target has one already, or its rows are not the snapshot's.
        """
        schema, name = _table_name(request.facts, table)
        with _as_restore_error(request.target):
            tools = self._tools()
            if not self._exists(request.target):
                self._create(request, request.target)
            self._make_room(request.target, schema, name)
            arguments = [f"--schema={schema}", f"--table={name}", *self._ownership(request.facts)]
            for path in _streams(request.facts, after_rows=False):
                self._feed(tools, request.target, arguments, _content(contents, path))
            _demand(request.target, compare(self._server, request.target, request.facts, request.digest, only=(table,)))
        self._reporter.tell(f"{table} is restored without indexes, constraints, defaults and triggers")

    def _exists(self, database: str) -> bool:
        with self._administration(database).session() as session:
            return database_exists(session, database)

    def _administration(self, target: str) -> Server:
        """The server, entered by a database that is not the one to be replaced."""
        own = self._server.maintenance_database
        return self._server.to(maintenance_database="template1") if target == own else self._server

    def _tools(self) -> Tools:
        if self._known is None:
            self._known = self._server.tools()
            self._warn_of_holes(self._known)
        return self._known

    def _warn_of_holes(self, tools: Tools) -> None:
        major, minor = tools.version
        if minor < SOUND.get(major, 0) or major < min(SOUND):
            text = f"pg_restore {major}.{minor} may run commands that a forged dump holds (CVE-2026-116314)"
            hint = (
                f"upgrade the PostgreSQL client programs to {major}.{SOUND.get(major, 0)}" if major in SOUND else None
            )
            self._reporter.warn(
                Warning(subject="pg_restore", problem=text, hint=hint or "upgrade them to a supported version")
            )

    def _create(self, request: DatabaseRestore, name: str) -> None:
        with self._administration(request.target).session() as session:
            session.run(creation(session, name, request.facts))

    def _fresh(self, request: DatabaseRestore, name: str, contents: Mapping[str, Content], tools: Tools) -> None:
        """Make a database and fill it; it is dropped where that fails, kept where its rows differ."""
        self._create(request, name)
        try:
            ownership = self._ownership(request.facts)
            for path in _streams(request.facts, after_rows=True):
                self._feed(tools, name, ownership, _content(contents, path))
        except BaseException:
            self._drop(request, name)
            raise
        for warning in complete(self._administration(request.target), name, request.facts):
            self._reporter.warn(warning)
        if request.compared:
            self._verify(request, name)

    def _verify(self, request: DatabaseRestore, name: str) -> None:
        if not request.facts["tables"]:
            self._reporter.tell(f"{name}: the snapshot holds no rows to compare with")
            return
        _demand(name, compare(self._server, name, request.facts, request.digest))

    def _replace(self, request: DatabaseRestore, contents: Mapping[str, Content], tools: Tools) -> None:
        moment = stamp(self._clock.now())[:15].replace("T", "_")
        beside, before = (_fitting(request.target, f"_{word}_{moment}") for word in ("opsd_new", "before_opsd"))
        self._fresh(request, beside, contents, tools)
        self._swap(request.target, beside, before)
        if request.drop_old:
            self._drop(request, before)
        else:
            self._reporter.tell(f"the database that was {request.target} is kept as {before}")

    def _swap(self, target: str, beside: str, before: str) -> None:
        """Rename both in one transaction, after ending all sessions of the old one and letting no new ones in."""
        with self._administration(target).session() as session:
            session.run(f"alter database {quoted(target)} allow_connections false")
            try:
                session.run(_END_SESSIONS.format(literal(target)))
                session.run(f"begin; alter database {quoted(target)} rename to {quoted(before)}")
                session.run(f"alter database {quoted(beside)} rename to {quoted(target)}; commit")
            except ServerProblem:
                self._admit(target, target)
                raise
        self._admit(target, before)

    def _admit(self, target: str, database: str) -> None:
        """Let sessions into a database again; in a session of its own, for the other may be broken."""
        with self._administration(target).session() as session:
            session.run(f"alter database {quoted(database)} allow_connections true")

    def _drop(self, request: DatabaseRestore, name: str) -> None:
        with self._administration(request.target).session() as session:
            session.run(f"drop database if exists {quoted(name)} with (force)")

    def _ownership(self, facts: Mapping[str, Any]) -> list[str]:
        """Owners and rights come back only where all roles that they speak of exist."""
        with self._server.session() as session:
            there = {name for (name,) in session.rows("select rolname::text from pg_catalog.pg_roles")}
        missing = sorted(set(facts["roles"]) - there)
        if not missing:
            return []
        problem = f"the server has no role {', '.join(missing)}: all objects will belong to the restoring role, without rights"
        self._reporter.warn(Warning(subject="roles", problem=problem, hint="restore the roles first"))
        return ["--no-owner", "--no-privileges"]

    def _feed(self, tools: Tools, database: str, arguments: Sequence[str], content: Content) -> None:
        command = [*tools.command("pg_restore"), "--exit-on-error", "--no-password", *arguments]
        address = f"--dbname={self._server.address(database)}"
        feed([*command, address], self._counted(content()), environment=self._server.environment())

    def _counted(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            yield piece
            self._reporter.advance(size=len(piece))

    def _make_room(self, database: str, schema: str, name: str) -> None:
        with self._server.session(database) as session:
            full = f"{quoted(schema)}.{quoted(name)}"
            if session.rows(f"select '' where pg_catalog.to_regclass({literal(full)}) is not null"):
                hint = "restore it into another database with --as"
                raise RestoreError(f"database {database} has a table {schema}.{name} already", hint=hint)
            session.run(f"create schema if not exists {quoted(schema)}")


_END_SESSIONS = """
select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity
where datname = {} and pid <> pg_catalog.pg_backend_pid()
"""


@contextmanager
def _as_restore_error(target: str) -> Iterator[None]:
    try:
        yield
    except (ServerProblem, ProgramFailed) as problem:
        hint = problem.hint or "nothing was changed; see the server's log for more"
        raise RestoreError(f"database {target} can't be restored: {problem}", hint=hint) from problem


def _demand(database: str, differences: Sequence[str]) -> None:
    """Raise where the rows are not the snapshot's."""
    if differences:
        more = f"; and {len(differences) - 10} more" if len(differences) > 10 else ""
        text = f"database {database} was restored, but differs from the snapshot: {'; '.join(differences[:10])}{more}"
        raise RestoreError(text, hint=f"it is left as {database} to be looked at; run 'opsd check --read-data'")


def _streams(facts: Mapping[str, Any], *, after_rows: bool) -> list[str]:
    """The paths of its streams, in the order in which they are restored: facts keep them so."""
    return [path for path in facts["streams"] if after_rows or not path.endswith("/post-data.dump")]


def _content(contents: Mapping[str, Content], path: str) -> Content:
    if path not in contents:
        raise RestoreError(f"the snapshot has no stream {path}", hint="run 'opsd check'")
    return contents[path]


def _table_name(facts: Mapping[str, Any], table: str) -> tuple[str, str]:
    """Schema and name of a table that the facts know by this title."""
    known = [*facts["tables"], *facts["materialized_views"]]
    if known and table not in known:
        near = get_close_matches(table, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known[:10])}"
        raise RestoreError(f"the snapshot's database has no table {table}", hint=hint)
    parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', table)
    if len(parts) != 2:
        raise RestoreError(f"{table} is no table's name", hint="give schema and name: public.orders")
    schema, name = (inside.replace('""', '"') or plain for inside, plain in parts)
    return schema, name


def _fitting(name: str, ending: str) -> str:
    """A name of at most 63 bytes, which is what the server keeps."""
    return name.encode()[: 63 - len(ending)].decode(errors="ignore") + ending
