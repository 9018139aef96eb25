"""Damage a drill's own copy on purpose, to see that it is found.

Promise: only files below the drill's folder and its throwaway servers are touched; each fault says where it must show.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from opsd.model import EntryType, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import shown, walk
from opsd.sources.postgresql.server import Server
from opsd.values import dataclass
from opsd.verify.expectations import Deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that was damaged: a deviation of `source` must name `subject` and speak of `word`."""

    kind: str
    source: str
    subject: str
    word: str = ""

    def is_found(self, deviations: Iterable[Deviation]) -> bool:
        """Whether a comparison has named it."""
        return any(
            (each.source, each.subject) == (self.source, self.subject) and self.word in each.problem
            for each in deviations
        )


def spoil_files(reader: SnapshotReader, tree: SourceTree, files: Path) -> Iterator[Fault]:
    """A byte of a file, and of an SQLite database one row or, where there is none, a byte."""
    for item in walk(reader, tree):
        if item.entry.type is not EntryType.FILE or not item.entry.size:
            continue
        path = files / tree.label / os.fsdecode(item.path.lstrip(b"/"))
        subject = shown(item.path)
        if tree.kind == "sqlite" and (table := _spoil_row(path, tree.facts.get("tables", {}))):
            yield Fault(kind="row of SQLite", source=tree.label, subject=subject, word=f"table {table} ")
        else:
            _spoil_byte(path)
            yield Fault(kind="byte of a file", source=tree.label, subject=subject, word="other content")
        return


def _spoil_byte(path: Path) -> None:
    """One bit, and nothing else that a look from outside would tell."""
    before = path.stat()
    with path.open("r+b", buffering=0) as file:
        place = before.st_size // 2
        byte = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), place)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _spoil_row(path: Path, tables: Mapping[str, int]) -> str | None:
    """Delete a row of a table; None if there is none, or it does not go."""
    for table, rows in tables.items():
        if not rows or table.startswith("sqlite_"):
            continue
        name = '"' + table.replace('"', '""') + '"'
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute(f"DELETE FROM {name} WHERE rowid = (SELECT min(rowid) FROM {name})")  # noqa: S608 - quoted
        except sqlite3.Error:
            continue
        return table
    return None


def spoil_database(label: str, name: str, facts: Mapping[str, Any], server: Server) -> Iterator[Fault]:
    """A row of a table; raises ServerProblem."""
    for table, (rows, _) in facts["tables"].items():
        if rows:
            with server.session(name) as session:
                session.run("set session_replication_role = replica")
                # A published table without a key refuses to lose a row (PostgreSQL, Logical Replication, Publication).
                session.run(f"alter table only {table} replica identity full")
                row = f"ctid = (select ctid from only {table} limit 1)"  # noqa: S608 - a title is quoted where it must be
                session.run(f"delete from only {table} where {row}")  # noqa: S608 - likewise
            yield Fault(kind="row of PostgreSQL", source=label, subject=name, word=f"{table} has {rows - 1} rows")
            return
