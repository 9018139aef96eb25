"""One moment of one database, exported so that several programs and sessions see the same rows.

Promise: the tables stay as they are listed until the context ends: they are locked before the moment is taken.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, Session, literal
from opsd.sources.postgresql.tables import Counted, Table, digest, list_tables, lock
from opsd.values import dataclass

#: A table dropped after it was listed, and a lock that could not be had in time, are worth so many tries.
TRIES = 3
_WORTH_ANOTHER = {"42P01", "3F000", "55P03"}

_BEGIN = "begin transaction isolation level repeatable read, read only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An exported snapshot: its id, the session that keeps it, and the tables that it holds."""

    id: str
    session: Session
    tables: tuple[Table, ...]


@contextmanager
def exported(server: Server, database: str, *, sizes: bool = False, keys: bool = False) -> Iterator[Snapshot]:
    """Take the moment and keep it for the time of the context; raises ServerProblem."""
    with server.session(database) as session:
        tables = _locked(session, sizes=sizes, keys=keys)
        (row,) = session.rows("select pg_catalog.pg_export_snapshot()")
        yield Snapshot(id=row[0] or "", session=session, tables=tuple(tables))


@contextmanager
def imported(server: Server, database: str, identity: str) -> Iterator[Session]:
    """Another session that sees an exported snapshot."""
    with server.session(database) as session:
        session.run(f"{_BEGIN}; set transaction snapshot {literal(identity)}")
        yield session


def _locked(session: Session, *, sizes: bool, keys: bool) -> list[Table]:
    for tries_left in reversed(range(TRIES)):
        tables = list_tables(session, sizes=sizes, keys=keys)
        try:
            session.run(_BEGIN)
            lock(session, tables)
        except ServerProblem as problem:
            if problem.state not in _WORTH_ANOTHER or not tries_left:
                raise
            session.run("rollback")
        else:
            return tables
    raise AssertionError  # The last try returned or raised.


@contextmanager
def counting(session: Session, tables: tuple[Table, ...], share: float) -> Iterator["Future[dict[Table, Counted]]"]:
    """Count rows and digest them while the context goes on; broken off where it ends in an error."""
    with ThreadPoolExecutor(1, "digest") as executor:
        future = executor.submit(lambda: dict(digest(session, tables, share)))
        try:
            yield future
        except BaseException:
            session.cancel()
            raise
