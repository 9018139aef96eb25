"""Give a PostgreSQL database back, or one of its tables, and prove that the rows are those of the snapshot.

Promise: what exists is never written into. In place, the database is restored beside the old one and takes its name in one
transaction, once its rows were compared; the old one is kept under another name unless asked otherwise. What fails half-way
leaves everything as it was.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any

from opsd.clock import Clock, stamp
from opsd.errors import ProgramFailed, ProgramMissing, RestoreError
from opsd.events import Reporter, Warning
from opsd.restore.comparison import compare
from opsd.restore.dump_contents import Choice, Name, choose, parse_path, relations
from opsd.restore.pg_restore import Content, PgRestore
from opsd.restore.properties import complete, creation
from opsd.sources.postgresql.databases import database_exists
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, literal, quoted
from opsd.sources.postgresql.tables import Table
from opsd.sources.postgresql.tools import Tools, reads_since
from opsd.values import dataclass

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
        self._known: dict[int, Tools] = {}

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
            program = self._program(request, contents)
            if exists:
                self._replace(request, contents, program)
            else:
                self._fresh(request, request.target, contents, program)

    def tables(self, request: DatabaseRestore, tables: Sequence[str], contents: Mapping[str, Content]) -> None:
        """Restore tables with their rows, their partitions, and all that belongs to them, from indexes to triggers.

        The target database is made where it is missing, as are schemas. `tables` are names such as `public.orders`. What the target
        refuses, such as a foreign key to a table that is not there, is a warning.

        Raises:
            RestoreError: one is not there, the target has something of a name that is needed, or its rows are not the snapshot's.
        """
        with _as_restore_error(request.target):
            program = self._program(request, contents)
            streams = {path: _content(contents, path) for path in request.facts["streams"]}
            dumps = {path: program.items(content) for path, content in streams.items()}
            choice = choose(dumps, [_table_name(relations(dumps), table) for table in tables])
            ownership = self._ownership(request.facts)
            with self._room(request, choice) as filled:
                for path, items in choice.rows.items():
                    if items:
                        if not program.is_atomic:
                            filled.append(path)  # What comes before an error stays.
                        program.fill_some(request.target, streams[path], items, ownership)
                        filled.append(path)
            for path, items in choice.rest.items():
                if items:
                    refused = program.try_some(request.target, streams[path], items, ownership)
                    self._warn_of_refused(request.target, refused)
            self._verify(request, request.target, only={_title(each) for each in choice.tables})

    def _warn_of_refused(self, target: str, refused: Mapping[str, str]) -> None:
        hint = "make what it needs, then add it by hand"
        for what, reason in refused.items():
            self._reporter.warn(Warning(subject=target, problem=f"{what} was left out: {reason}", hint=hint))

    def _exists(self, database: str) -> bool:
        with self._administration(database).session() as session:
            return database_exists(session, database)

    def _administration(self, target: str) -> Server:
        """The server, entered by a database that is not the one to be replaced."""
        own = self._server.maintenance_database
        return self._server.to(maintenance_database="template1") if target == own else self._server

    def _program(self, request: DatabaseRestore, contents: Mapping[str, Content]) -> PgRestore:
        """What reads this database's dumps, which one pg_dump made, and fits the server."""
        dump = next(iter(_content(contents, request.facts["streams"][0])()), b"")
        since = reads_since(dump)
        if since not in self._known:
            try:
                self._known[since] = self._server.tools(dump=since)
            except ServerProblem as problem:
                raise ProgramMissing(
                    f"database {request.target} can't be restored: {problem}", hint=problem.hint
                ) from problem
            self._warn_of_holes(self._known[since])
        return PgRestore(server=self._server, tools=self._known[since], reporter=self._reporter)

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

    def _fresh(self, request: DatabaseRestore, name: str, contents: Mapping[str, Content], program: PgRestore) -> None:
        """Make a database and fill it; it is dropped where that fails, kept where its rows differ."""
        self._create(request, name)
        try:
            ownership = self._ownership(request.facts)
            for path in request.facts["streams"]:  # In the order in which they are restored: facts keep them so.
                program.fill(name, _content(contents, path), ownership)
        except BaseException:
            self._drop(request, name)
            raise
        for warning in complete(self._administration(request.target), name, request.facts):
            self._reporter.warn(warning)
        if request.compared:
            self._verify(request, name)

    def _verify(self, request: DatabaseRestore, name: str, only: Collection[str] | None = None) -> None:
        if not request.facts["tables"]:
            self._reporter.tell(f"{name}: the snapshot holds no rows to compare with")
            return
        _demand(name, compare(self._server, name, request.facts, request.digest, only=only))

    def _replace(self, request: DatabaseRestore, contents: Mapping[str, Content], program: PgRestore) -> None:
        moment = stamp(self._clock.now())[:15].replace("T", "_")
        beside, before = (_fitting(request.target, f"_{word}_{moment}") for word in ("opsd_new", "before_opsd"))
        self._fresh(request, beside, contents, program)
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

    @contextmanager
    def _room(self, request: DatabaseRestore, choice: Choice) -> Iterator[list[str]]:
        """The target database, made where it is missing; a failure leaves nothing of the tables, once a dump `filled` some."""
        exists, filled = self._exists(request.target), list[str]()
        if not exists:
            self._create(request, request.target)
        try:
            self._make_room(request.target, choice)
            yield filled
        except BaseException:
            if not exists:
                self._drop(request, request.target)
            elif filled:
                names = ", ".join(f"{quoted(schema)}.{quoted(name)}" for schema, name in choice.tables)
                with suppress(ServerProblem), self._server.session(request.target) as session:
                    session.run(f"drop table if exists {names}")
            raise

    def _make_room(self, database: str, choice: Choice) -> None:
        with self._server.session(database) as session:
            for schema, name in sorted(choice.relations):
                full = f"{quoted(schema)}.{quoted(name)}"
                if session.rows(f"select '' where pg_catalog.to_regclass({literal(full)}) is not null"):
                    what = "table" if (schema, name) in choice.tables else "sequence"
                    hint = "restore it into another database with --as"
                    raise RestoreError(f"database {database} has a {what} {schema}.{name} already", hint=hint)
            for schema in sorted({schema for schema, _ in choice.relations}):
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


def _content(contents: Mapping[str, Content], path: str) -> Content:
    if path not in contents:
        raise RestoreError(f"the snapshot has no stream {path}", hint="run 'opsd check'")
    return contents[path]


def _table_name(known: Sequence[Name], table: str) -> Name:
    """The one of the tables that is meant by this title."""
    name = parse_path(table)
    if name is not None and name in known:
        return name
    titles = sorted(_title(each) for each in known)
    near = get_close_matches(table, titles, 1)
    hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(titles[:10])}"
    raise RestoreError(f"the snapshot's database has no table {table}", hint=hint)


def _fitting(name: str, ending: str) -> str:
    """A name of at most 63 bytes, which is what the server keeps."""
    return name.encode()[: 63 - len(ending)].decode(errors="ignore") + ending


def _title(name: Name) -> str:
    return Table(schema=name.schema, name=name.name, kind="r").title
