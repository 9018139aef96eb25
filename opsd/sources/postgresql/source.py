"""A server as a source of streams: `/globals.sql`, and for each database `/NAME.dump` or, if large, `/NAME/PART.dump`.

Promise: nothing is staged on disk; rows and digests are of the very snapshot that was dumped; a database that fails stops no
other, and one that was dropped after it was listed is a Warning.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from opsd.clock import Clock
from opsd.errors import SourceError, StreamGone
from opsd.events import Reporter, Warning
from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.databases import Choice, Database, choose, file_name, list_databases
from opsd.sources.postgresql.dump import Dump, parts
from opsd.sources.postgresql.dumps import UNKNOWN, Dumps
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, literal
from opsd.sources.postgresql.snapshot import Snapshot
from opsd.sources.postgresql.tables import Counted, Table, merged, share_of
from opsd.sources.protocol import Readable, Stream

GLOBALS = "/globals.sql"

#: What facts say of the server itself.
_SERVER = """
select json_build_object(
  'version', current_setting('server_version'), 'version_number', current_setting('server_version_num')::int,
  'digest', {digest},
  'roles', (select count(*) from pg_catalog.pg_roles where rolname !~ '^pg_'))::text
"""

Counts = dict[Table, Counted]


def _no_password() -> str | None:
    return None


class PostgresqlStreams:
    """The databases, roles and tablespaces of one server, for one run.

    `password` resolves the options' secret reference, and is called when the server is first spoken to.
    """

    def __init__(
        self,
        label: str,
        options: PostgresqlSource,
        *,
        reporter: Reporter,
        clock: Clock,
        password: Callable[[], str | None] = _no_password,
    ) -> None:
        self.label = label
        self.kind = "postgresql"
        self.parallel = max(1, options.parallel)
        self._options = options
        self._reporter = reporter
        self._clock = clock
        self._password = password
        self._lock = threading.Lock()
        self._warnings = 0
        self._about: dict[str, Any] = {}
        self._databases: dict[str, Any] = {}

    @property
    def warnings(self) -> int:
        """How many Warnings were reported so far."""
        return self._warnings

    def facts(self) -> Mapping[str, Any]:
        """Version, roles and, of every database that was dumped whole, its properties, streams, rows and digests."""
        with self._lock:
            return {**self._about, "databases": dict(sorted(self._databases.items()))}

    @contextmanager
    def streams(self) -> Iterator[Iterator[Stream]]:
        """Everything on the server; raises SourceError where the server can't even be asked what it has."""
        try:
            dumps, choice = self._survey()
        except ServerProblem as problem:
            raise SourceError(self.label, str(problem), hint=problem.hint or UNKNOWN) from problem
        for pattern in choice.idle:
            self._warn(pattern, "no database fits this pattern", "check 'databases' of this source")
        with ExitStack() as held:
            yield self._all(dumps, choice, held)

    def _survey(self) -> tuple[Dumps, Choice]:
        options = self._options
        server = Server.of(options, self._password()).within_reach()
        dumps = Dumps(server=server, tools=server.tools(), share=share_of(options.digest))
        with server.session() as session:
            (row,) = session.rows(_SERVER.format(digest=literal(options.digest)))
            self._about = json.loads(row[0] or "{}")
            choice = choose(list_databases(session), options.databases, options.exclude)
        self._about["passwords"] = dumps.passwords()
        if not self._about["passwords"]:
            self._reporter.tell(
                f"{self.label}: roles are saved without their passwords, which this role may not read; after a total loss, set "
                "them anew"
            )
        return dumps, choice

    def _all(self, dumps: Dumps, choice: Choice, held: ExitStack) -> Iterator[Stream]:
        roles = partial(dumps.globals, passwords=self._about["passwords"])
        yield self._stream(GLOBALS, partial(self._opened, dumps, None, roles, _nothing))
        for database in choice.databases:
            if not database.valid:
                self._warn(
                    database.name, "a DROP DATABASE of it was interrupted, it can't be read any more", "drop it again"
                )
            elif database.size > self._options.parallel_bytes:
                yield from self._large(dumps, database, held)
            else:
                yield self._whole(dumps, database)
        yield from (self._stream(f"/{file_name(name)}.dump", partial(self._absent, name)) for name in choice.absent)

    def _whole(self, dumps: Dumps, database: Database) -> Stream:
        path = f"/{file_name(database.name)}.dump"
        publish = partial(self._publish, database, [path])
        return self._stream(
            path, partial(self._opened, dumps, database.name, partial(dumps.whole, database.name), publish)
        )

    def _large(self, dumps: Dumps, database: Database, held: ExitStack) -> Iterator[Stream]:
        """The parts of a large database; where its moment can't be had, one stream that says why when it is opened."""
        folder = f"/{file_name(database.name)}"
        with ExitStack() as mine:
            try:
                snapshot = mine.enter_context(dumps.exported(database.name, sizes=True))
            except ServerProblem:
                yield self._whole(dumps, database)
                return
            moment = held.enter_context(mine.pop_all())
        pieces = parts(snapshot.tables, self.parallel)
        paths = [f"{folder}/{piece.name}" for piece in pieces]
        shared = _Moment(snapshot, moment, len(pieces), partial(self._publish, database, paths))
        for path, piece in zip(paths, pieces, strict=True):
            dump = partial(dumps.part, database.name, snapshot, piece)
            yield self._stream(
                path, partial(shared.opened, partial(self._opened, dumps, database.name, dump, shared.done))
            )

    def _stream(self, path: str, opener: Callable[[], AbstractContextManager[Readable]]) -> Stream:
        return Stream(path=path.encode(), open=opener, mtime=self._clock.now())

    @contextmanager
    def _opened(
        self,
        dumps: Dumps,
        name: str | None,
        dump_of: Callable[[], AbstractContextManager[Dump]],
        done: Callable[[Counts], None],
    ) -> Iterator[Readable]:
        """A dump as a stream's content; `done` gets rows and digests once all of it was read. `name` is None for roles."""
        try:
            with dump_of() as dump:
                yield dump
        except ServerProblem as problem:
            raise self._failure(dumps, name, problem) from problem
        subject = name or "roles and tablespaces"
        for complaint in dump.complaints():
            self._warn(subject, complaint, None)
        done(self._counts(subject, dump))

    def _counts(self, name: str, dump: Dump) -> Counts:
        """What was counted beside the dump. The dump is whole even where that failed."""
        try:
            return dump.counted.result() if dump.counted else {}
        except ServerProblem as problem:
            self._warn(
                name, f"rows could not be counted: {problem}", "a drill can't compare this database: run a backup again"
            )
            return {}

    def _failure(self, dumps: Dumps, name: str | None, problem: ServerProblem) -> SourceError:
        if name is None:
            explained = dumps.explained(dumps.server.maintenance_database, problem)
            return SourceError(self.label, f"roles and tablespaces: {explained}", hint=explained.hint)
        if dumps.gone(name):
            self._warn(name, "was dropped while the backup ran", None)
            return StreamGone(self.label, f"database {name} was dropped while the backup ran")
        explained = dumps.explained(name, problem)
        return SourceError(self.label, f"database {name}: {explained}", hint=explained.hint)

    @contextmanager
    def _absent(self, name: str) -> Iterator[Readable]:
        hint = "check 'databases' of this source; a pattern such as 'shop_*' may match nothing"
        raise SourceError(self.label, f"there is no database {name} on the server", hint=hint)
        yield  # type: ignore[unreachable]  # makes this a generator

    def _publish(self, database: Database, paths: list[str], counts: Counts) -> None:
        tables = merged({table.title: counted for table, counted in counts.items() if table.kind != "m"})
        views = {table.title: rows for table, (rows, _) in counts.items() if table.kind == "m"}
        with self._lock:
            self._databases[database.name] = {
                **database.properties,
                "streams": paths,
                "tables": tables,
                "materialized_views": dict(sorted(views.items())),
            }

    def _warn(self, name: str, problem: str, hint: str | None) -> None:
        with self._lock:
            self._warnings += 1
        self._reporter.warn(Warning(subject=f"{self.label}: {name}", problem=problem, hint=hint))


class _Moment:
    """The snapshot that all parts of a large database share: kept until the last is left, published when all are whole."""

    def __init__(self, snapshot: Snapshot, held: ExitStack, count: int, publish: Callable[[Counts], None]) -> None:
        self._snapshot = snapshot
        self._held = held
        self._open = count
        self._missing = count
        self._publish = publish
        self._counts: Counts = {}
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, opener: Callable[[], AbstractContextManager[Readable]]) -> Iterator[Readable]:
        """One part; the last to be left lets the moment go."""
        try:
            with opener() as readable:
                yield readable
        finally:
            with self._lock:
                self._open -= 1
                last = not self._open
            if last:
                self._held.close()

    def done(self, counts: Counts) -> None:
        """One part is whole."""
        with self._lock:
            self._counts.update(counts)
            self._missing -= 1
            complete = not self._missing
        if complete:
            self._publish(self._counts)


def _nothing(counts: Counts) -> None:
    """Roles have no rows."""
    del counts
