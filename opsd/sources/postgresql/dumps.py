"""Open the dumps of one server: each with the moment it shows, and with the count of rows that runs beside it.

Promise: rows and digests are of the dumped snapshot; a lock that can't be had in time lets everything go and tries again,
so that opsd never holds up those who wait for it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from opsd.sources.postgresql.databases import database_exists
from opsd.sources.postgresql.dump import LOCK_WAIT, Dump, Part, dumping
from opsd.sources.postgresql.server import Server, advice
from opsd.sources.postgresql.session import ServerProblem, Session
from opsd.sources.postgresql.snapshot import TRIES, Snapshot, counting, exported, imported
from opsd.sources.postgresql.tables import Table, lacking
from opsd.sources.postgresql.tools import Tools
from opsd.values import dataclass

UNKNOWN = "see the server's log; the same program run by hand shows more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumps:
    """How to dump from a server: by which programs, and with a digest of which share of the rows (0: without)."""

    server: Server
    tools: Tools
    share: float

    @contextmanager
    def globals(self, *, passwords: bool) -> Iterator[Dump]:
        """Roles and tablespaces as SQL; raises ServerProblem."""
        without = () if passwords else ("--no-role-passwords",)
        command = self.tools.command("pg_dumpall")
        command += ["--globals-only", "--no-password", *without, f"--database={self.server.maintenance_database}"]
        address = self.server.address(self.server.maintenance_database)
        with dumping([*command, f"--dbname={address}"], self.server.environment()) as dump:
            yield dump

    @contextmanager
    def whole(self, database: str) -> Iterator[Dump]:
        """A database as one dump; raises ServerProblem."""

        def attempt(stack: ExitStack) -> Dump:
            if not self.share:
                return stack.enter_context(self._dump(database, None, ()))
            snapshot = stack.enter_context(self.exported(database))
            return self._counted(stack, database, snapshot, (), (snapshot.session, snapshot.tables))

        with _persistently(attempt) as dump:
            yield dump

    @contextmanager
    def part(self, database: str, snapshot: Snapshot, part: Part) -> Iterator[Dump]:
        """A part of a large database, as a snapshot shows it that another context keeps; raises ServerProblem."""

        def attempt(stack: ExitStack) -> Dump:
            if not (self.share and part.tables):
                return stack.enter_context(self._dump(database, snapshot, part.arguments))
            session = stack.enter_context(imported(self.server, database, snapshot.id))
            return self._counted(stack, database, snapshot, part.arguments, (session, part.tables))

        with _persistently(attempt) as dump:
            yield dump

    @contextmanager
    def exported(self, database: str, *, sizes: bool = False) -> Iterator[Snapshot]:
        """A moment of a database, kept for the time of the context; raises ServerProblem."""
        with exported(self.server, database, sizes=sizes, keys=0 < self.share < 1) as snapshot:
            yield snapshot

    def explained(self, database: str, problem: ServerProblem) -> ServerProblem:
        """The problem with its next step: where the role lacks a right, the statement that gives it."""
        text = str(problem)
        if problem.hint:
            return problem
        denied = problem.state == "42501" or "permission denied" in text or "row-level security" in text
        return (self._denied(database, text) if denied else None) or ServerProblem(
            text, hint=advice(text, database, self.server.user) or UNKNOWN, state=problem.state
        )

    def passwords(self) -> bool:
        """Whether the role may read the hashes of passwords: managed servers keep them from everybody."""
        try:
            with self.server.session() as session:
                return bool(session.rows("select rolpassword::text from pg_catalog.pg_authid limit 1"))
        except ServerProblem:
            return False

    def gone(self, database: str) -> bool:
        """Whether the server answers and has no such database any more."""
        try:
            with self.server.session() as session:
                return not database_exists(session, database)
        except ServerProblem:
            return False

    def _denied(self, database: str, text: str) -> ServerProblem | None:
        try:
            with self.server.session(database) as session:
                return _lacking(session, text)
        except ServerProblem:
            return None

    def _dump(self, database: str, snapshot: Snapshot | None, arguments: Sequence[str]) -> AbstractContextManager[Dump]:
        command = self.tools.command("pg_dump")
        # Uncompressed: only so do equal rows of two days become equal blobs.
        command += ["--format=custom", "--compress=0", "--no-password", f"--lock-wait-timeout={LOCK_WAIT}", *arguments]
        if snapshot:
            command.append(f"--snapshot={snapshot.id}")
        return dumping([*command, f"--dbname={self.server.address(database)}"], self.server.environment())

    def _counted(
        self,
        stack: ExitStack,
        database: str,
        snapshot: Snapshot,
        arguments: Sequence[str],
        count: tuple[Session, tuple[Table, ...]],
    ) -> Dump:
        # Counting begins once pg_dump has: should it fail before, its transaction would take the snapshot with it.
        dump = stack.enter_context(self._dump(database, snapshot, arguments))
        dump.counted = stack.enter_context(counting(*count, self.share))
        return dump


@contextmanager
def _persistently(attempt: Callable[[ExitStack], Dump]) -> Iterator[Dump]:
    """Open by `attempt`, again where a lock could not be had in time; nothing was read of it before."""
    with ExitStack() as stack:
        yield _begun(stack, attempt)


def _begun(stack: ExitStack, attempt: Callable[[ExitStack], Dump]) -> Dump:
    for tries_left in reversed(range(TRIES)):
        try:
            with ExitStack() as tentative:
                dump = attempt(tentative)
                stack.push(tentative.pop_all())
                return dump
        except ServerProblem as problem:
            if "lock timeout" not in str(problem) or not tries_left:
                raise
    raise AssertionError  # The last try returned or raised.


def _lacking(session: Session, text: str) -> ServerProblem | None:
    """Name what the role may not read, and the SQL that changes it."""
    (row,) = session.rows("select current_user::text")
    role = row[0] or ""
    if "large object" in text:
        hint = f'ALTER ROLE "{role}" SET lo_compat_privileges = on;'
        return ServerProblem(f"role {role} may not read the large objects", hint=hint)
    found = lacking(session)
    if not found:
        return None
    (first, _), more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
    statements = " ".join(dict.fromkeys(sql for _, sql in found[:5]))
    always = f'for all tables, now and later: GRANT pg_read_all_data TO "{role}"; ALTER ROLE "{role}" BYPASSRLS;'
    return ServerProblem(f"role {role} may not read {first}{more}", hint=f"{statements} ({always})")
