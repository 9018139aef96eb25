"""Bring the databases of one server back into a throwaway server, and compare them with what the manifest recorded.

Promise: what a dump or a role's definition says about places on the original machine (tablespaces) is led into the drill's own folder.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from opsd.errors import RestoreError
from opsd.events import Reporter, Total
from opsd.model import SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import content, look_up, walk
from opsd.restore.comparison import compare
from opsd.restore.databases import DatabaseRestore, DatabaseRestorer
from opsd.restore.pg_restore import Content
from opsd.restore.roles import restore_roles, roles_in
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, literal
from opsd.sources.postgresql.source import GLOBALS
from opsd.sources.postgresql.tables import digest, list_tables
from opsd.values import dataclass
from opsd.verify.expectations import Deviation, Verdict, count_problems, role_problems
from opsd.verify.throwaway import Throwaway, find_programs, running

_LOCATION = re.compile(r"(CREATE TABLESPACE .*? LOCATION )'(?:[^']|'')*'", re.DOTALL)

#: An index that is not valid answers no question (PostgreSQL, pg_index); of a partitioned one, its parts are looked at.
_INVALID = """
select 'index ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where not i.indisvalid and c.relkind = 'i' order by 1
"""
#: A dump makes a constraint that is not validated only where it was so when it was dumped.
_UNVALIDATED = """
select 'constraint ' || quote_ident(c.conname) || ' of ' || c.conrelid::pg_catalog.regclass::text
from pg_catalog.pg_constraint c where not c.convalidated order by 1
"""


@dataclass(frozen=True, slots=True)
class DatabaseDrill:
    """The databases of one source, and the throwaway server that they go to."""

    reader: SnapshotReader
    tree: SourceTree
    throwaway: Throwaway
    restorer: DatabaseRestorer
    reporter: Reporter

    @property
    def server(self) -> Server:
        """The throwaway server."""
        return self.throwaway.server

    @property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """What the manifest recorded, by database."""
        return databases_of(self.tree)

    def roles(self) -> None:
        """Make roles and tablespaces.

        Raises:
            RestoreError: the snapshot holds none. IntegrityError: they can't be read.
        """
        restore_roles(self.server, self._relocated(self._globals()), self.reporter)

    def _globals(self) -> str:
        item = look_up(self.reader, self.tree, GLOBALS.encode())
        if item is None:
            raise RestoreError(f"source {self.tree.label} of this snapshot holds no roles")
        return b"".join(bytes(piece) for piece in content(self.reader, item)).decode("utf-8", "surrogateescape")

    def _relocated(self, sql: str) -> str:
        """Tablespaces in folders of the drill's."""

        def instead(found: re.Match[str]) -> str:
            number = len(list(self.throwaway.spaces.iterdir()))
            folder = self.throwaway.spaces / str(number)
            folder.mkdir(mode=0o700)
            owner = self.throwaway.spaces.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
            return f"{found[1]}{literal(f'{self.throwaway.spaces_inside}/{number}')}"

        return _LOCATION.sub(instead, sql)

    def restore(self, name: str) -> int:
        """Restore a database; returns the bytes of its dumps.

        Raises:
            RestoreError: it does not come back. IntegrityError: its dump can't be read.
        """
        facts = self.facts[name]
        wanted = set(facts["streams"])
        items = {os.fsdecode(item.path): item for item in walk(self.reader, self.tree)}
        items = {path: item for path, item in items.items() if path in wanted}
        size = sum(item.entry.size for item in items.values())
        self.reporter.stage(f"restore {self.tree.label}/{name}", Total(size=size))
        contents: dict[str, Content] = {path: partial(content, self.reader, item) for path, item in items.items()}
        request = DatabaseRestore(
            target=name, facts=facts, digest=str(self.tree.facts.get("digest", "off")), compared=False
        )
        self.restorer.database(request, contents)
        return size

    def compare_roles(self) -> Iterator[Deviation]:
        """Roles by name and number."""
        with self.server.session() as session:
            found = [row[0] or "" for row in session.rows("select rolname::text from pg_roles where rolname !~ '^pg_'")]
        for problem in role_problems(roles_in(self._globals()), int(self.tree.facts.get("roles", 0)), found):
            yield self._deviation("roles", problem)

    def compare(self, name: str) -> Iterator[Deviation]:
        """One database: rows and digests of tables, rows of materialized views, indexes and constraints."""
        facts = self.facts[name]
        self.reporter.stage(f"compare {self.tree.label}/{name}")
        try:
            for problem in compare(self.server, name, facts, str(self.tree.facts.get("digest", "off"))):
                yield self._deviation(name, problem)
            with self.server.session(name) as session:
                if not facts["tables"] and any(table.kind == "r" for table in list_tables(session)):
                    yield self._deviation(name, "no rows were recorded that could be compared", Verdict.DEVIATING)
                views = (
                    [table for table in list_tables(session) if table.kind == "m"]
                    if facts["materialized_views"]
                    else []
                )
                counted = {table.title: rows for table, (rows, _) in digest(session, views, 0)}
                for problem in count_problems(facts["materialized_views"], counted):
                    yield self._deviation(name, problem)
                for (index,) in session.rows(_INVALID):
                    yield self._deviation(name, f"{index} is not valid")
                for (constraint,) in session.rows(_UNVALIDATED):
                    yield self._deviation(name, f"{constraint} is not validated", Verdict.DEVIATING)
        except ServerProblem as problem:
            yield self._deviation(name, f"can't be compared: {problem}")

    def rows(self, name: str) -> int:
        """Rows that the manifest recorded."""
        return sum(counted[0] for counted in self.facts[name]["tables"].values())

    def _deviation(self, subject: str, problem: str, severity: Verdict = Verdict.RED) -> Deviation:
        return Deviation(source=self.tree.label, subject=subject, problem=problem, severity=severity)


def databases_of(tree: SourceTree) -> Mapping[str, Mapping[str, Any]]:
    """The facts of a server's databases by name."""
    found: Mapping[str, Mapping[str, Any]] = tree.facts.get("databases", {})
    return found


@contextmanager
def server_for(tree: SourceTree, folder: Path) -> Iterator[Throwaway]:
    """A throwaway server for the databases of a source, empty but for its superuser.

    Raises:
        RestoreError: there are no programs of its version, or they can't be started.
    """
    programs = find_programs(int(tree.facts["version_number"]))
    with running(folder, programs, _superuser(tree)) as throwaway:
        try:
            with throwaway.server.session() as session:
                session.run("drop database postgres")  # The snapshot brings its own.
        except ServerProblem as problem:
            raise RestoreError(f"the throwaway PostgreSQL can't be used: {problem}", hint=problem.hint) from problem
        yield throwaway


def _superuser(tree: SourceTree) -> str:
    """The original bootstrap superuser, which every database's facts name: so the roles are the same."""
    named = [set(facts["roles"]) for facts in databases_of(tree).values()]
    common = set.intersection(*named) if named else set()
    return "postgres" if not common or "postgres" in common else min(common)
