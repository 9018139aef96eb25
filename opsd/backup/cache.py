"""What unchanged files and folders were stored as: makes the unchanged case fast, disposable, never trusted alone.

Promise: no names of what is in the tree, only keyed hashes, and rows are sealed; a row that was altered is not used; rows of a run that did not end are rolled back, and so are all rows
of a run that could not write one of them. The cache says which blobs a file had; that they are still stored is for the caller to know
(`snapshot` says in which manifest they were). No backup fails for it. docs/decisions/0010-the-file-cache.md
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgpack
from blake3 import blake3

from opsd.repository.seal import NotAuthentic, keyed_hash, seal, subkey, unseal
from opsd.storage.durable import private_file, private_folder

#: Values of some kilobytes: in a table without row numbers each would begin a page of its own.
_SCHEMA: Final = """
DROP TABLE IF EXISTS sources;
DROP TABLE IF EXISTS hunks;
DROP TABLE IF EXISTS parts;
CREATE TABLE sources (source BLOB PRIMARY KEY, snapshot BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE hunks (
    id INTEGER PRIMARY KEY, source BLOB NOT NULL, digest BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (source, digest));
CREATE TABLE parts (
    source BLOB NOT NULL, key BLOB NOT NULL, hunk INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (source, key));
"""
_VERSION: Final = 6


class Cache:
    """The file cache of one repository on one host. One thread. Use `source` for each source, then `commit` or `close`."""

    def __init__(self, path: Path, index_key: bytes) -> None:
        self._key = subkey(index_key, b"opsd file cache 1")
        self._connection = _opened(path)
        #: Whether this run's rows are kept: not beside another run, nor after one could not be written.
        self.writable = bool(self._connection) and self._begin()

    def _begin(self) -> bool:
        """Take the right to write; another run that has it leaves this one reading."""
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            return False
        return True

    def source(self, label: str, domain: int) -> "SourceCache":
        """The part of one source; what it stored in another key domain, by its number, is not known in this one."""
        return SourceCache(self, keyed_hash(self._key, f"{domain}\0{label}".encode()))

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Read or write, within one transaction.

        Raises:
            sqlite3.Error: it can't be done, or there is no cache any more.
        """
        if not self._connection:
            raise sqlite3.ProgrammingError("there is no cache")
        return self._connection.execute(statement, values)

    def sealed(self, key: bytes, value: Any) -> bytes:
        """A value that only the index key opens, and only beside its key."""
        return seal(self._key, key, msgpack.packb(value, use_bin_type=True))

    def opened(self, key: bytes, value: bytes) -> Any:
        """The value, or None if it was altered."""
        try:
            return msgpack.unpackb(unseal(self._key, key, value), strict_map_key=False, use_list=True)
        except NotAuthentic:
            return None

    def commit(self) -> None:
        """Keep what was written; failing to costs time in the next run, nothing else."""
        if self.writable:
            with suppress(sqlite3.Error):
                self.execute("COMMIT")
            self.writable = False

    def close(self) -> None:
        """Roll back what was not committed. From now on nothing is known."""
        self.writable = False
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _opened(path: Path) -> sqlite3.Connection | None:
    """The file, made anew if it is damaged; None where none can be had, or another run is making it."""
    for _ in range(2):
        try:
            private_folder(path.parent)
            return _connected(path)
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                return None
        except OSError:
            return None
        with suppress(OSError):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
    return None


def _connected(path: Path) -> sqlite3.Connection:
    os.close(private_file(path, os.O_RDWR))  # Its journals get its owner.
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
    try:
        # Rows are some kilobytes long, and a cold cache is read from a disk: few large pages, mapped.
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA mmap_size = 67108864")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            connection.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


class SourceCache:
    """The rows of one source."""

    def __init__(self, cache: Cache, source: bytes) -> None:
        self._cache = cache
        self._source = source
        self._key = source
        self._used: list[int] = []
        self._write("SAVEPOINT source")

    def depend_on(self, reading: bytes) -> None:
        """What is known holds only for this way of reading; before the first `hash`."""
        self._key = keyed_hash(self._source, reading)

    def hash(self, content: bytes) -> bytes:
        """16 bytes that stand for a path or a stat."""
        return blake3(content, key=self._key).digest(16)

    def undo(self) -> None:
        """Forget what was kept since this was made: the source failed."""
        self._write("ROLLBACK TO source")

    def _write(self, statement: str, *values: object) -> int:
        """Write; returns the row's number. After an error some rows may be of one snapshot and some of another, so none is kept or read."""
        try:
            return self._cache.execute(statement, values).lastrowid or 0
        except sqlite3.Error:
            self._cache.close()
            return 0

    def _one(self, statement: str, *values: object) -> Any:
        with suppress(sqlite3.Error):
            return self._cache.execute(statement, (self._source, *values)).fetchone()
        return None

    @property
    def snapshot(self) -> str:
        """The id of the manifest that all rows are of; empty if there are none."""
        row = self._one("SELECT snapshot FROM sources WHERE source = ?")
        return str((self._cache.opened(self._source, row[0]) if row else None) or "")

    def forget(self) -> None:
        """Drop all rows."""
        for table in ("sources", "hunks", "parts"):
            self._write(f"DELETE FROM {table} WHERE source = ?", self._source)  # noqa: S608 - one of three names

    def hunk(self, digest: bytes) -> Any:
        """What an unchanged hunk was stored as, or None."""
        row = self._one("SELECT id, value FROM hunks WHERE source = ? AND digest = ?", digest)
        value = self._cache.opened(digest, row[1]) if row else None
        if value is not None:
            self._used.append(row[0])
        return value

    def part(self, key: bytes) -> Any:
        """What a folder's part was stored as, or None."""
        row = self._one("SELECT value FROM parts WHERE source = ? AND key = ?", key)
        return self._cache.opened(key, row[0]) if row else None

    def keep(self, digest: bytes, hunk: Any, parts: Mapping[bytes, Any]) -> None:
        """Keep a hunk (None: it can't be used again as a whole) and its folders' parts."""
        if not self._cache.writable:
            return
        statement = "INSERT OR REPLACE INTO hunks (source, digest, value) VALUES (?, ?, ?)"
        number = self._write(statement, self._source, digest, self._cache.sealed(digest, hunk))
        self._used.append(number)
        for key, part in parts.items():
            value = self._cache.sealed(key, part)
            self._write("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", self._source, key, number, value)

    def finish(self, snapshot: str) -> None:
        """Drop what this run did not use, and say which manifest the rows are of now."""
        if not self._cache.writable:
            return
        self._write("CREATE TEMP TABLE IF NOT EXISTS used (id INTEGER PRIMARY KEY)")
        self._write("DELETE FROM used")
        for each in self._used:
            self._write("INSERT OR IGNORE INTO used VALUES (?)", each)
        self._write("DELETE FROM hunks WHERE source = ? AND id NOT IN (SELECT id FROM used)", self._source)
        self._write("DELETE FROM parts WHERE source = ? AND hunk NOT IN (SELECT id FROM used)", self._source)
        self._write(
            "INSERT OR REPLACE INTO sources VALUES (?, ?)", self._source, self._cache.sealed(self._source, snapshot)
        )
