"""What unchanged files and folders were stored as: makes the unchanged case fast, disposable, never trusted alone.

Promise: no names, only keyed hashes; a row that was altered is not used; rows of a run that did not end are rolled back. The cache says
which blobs a file had; that they are still stored is for the caller to know (`snapshot` says in which manifest they were).
"""

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgpack
from blake3 import blake3

from opsd.repository.seal import keyed_hash, subkey

_SCHEMA: Final = """
DROP TABLE IF EXISTS sources;
DROP TABLE IF EXISTS hunks;
DROP TABLE IF EXISTS parts;
CREATE TABLE sources (source BLOB PRIMARY KEY, snapshot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE hunks (
    id INTEGER PRIMARY KEY, source BLOB NOT NULL, digest BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (source, digest));
CREATE TABLE parts (
    source BLOB NOT NULL, key BLOB NOT NULL, hunk INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (source, key)) WITHOUT ROWID;
"""
_VERSION: Final = 2
_MAC_BYTES: Final = 8


class Cache:
    """The file cache of one repository on one host. One thread. Use `source` for each source, then `commit` or `close`."""

    def __init__(self, path: Path, index_key: bytes) -> None:
        self._key = subkey(index_key, b"opsd file cache 1")
        self._path = path
        self._connection = self._open()
        self.writable = self._begin()

    def hash(self, content: bytes) -> bytes:
        """16 bytes that stand for a path or a stat."""
        return blake3(content, key=self._key).digest(16)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return self._connect()
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0.0, check_same_thread=False)
        try:
            # Rows are some kilobytes long, and a cold cache is read from a disk: few large pages, mapped.
            connection.execute("PRAGMA page_size = 16384")
            connection.execute("PRAGMA mmap_size = 67108864")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                connection.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" not in str(error):
                raise
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _begin(self) -> bool:
        """Take the right to write; another run that has it leaves this one reading."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True

    def source(self, label: str) -> "SourceCache":
        """The part of one source."""
        return SourceCache(self, self._connection, self.hash(label.encode()))

    def sealed(self, key: bytes, value: Any) -> bytes:
        """A value with a MAC over it and its key."""
        content: bytes = msgpack.packb(value, use_bin_type=True)
        return keyed_hash(self._key, key + content)[:_MAC_BYTES] + content

    def opened(self, key: bytes, value: bytes) -> Any:
        """The value, or None if it was altered."""
        content = value[_MAC_BYTES:]
        if keyed_hash(self._key, key + content)[:_MAC_BYTES] != value[:_MAC_BYTES]:
            return None
        return msgpack.unpackb(content, strict_map_key=False, use_list=True)

    def commit(self) -> None:
        """Keep what was written; failing to costs time in the next run, nothing else."""
        if self.writable:
            with suppress(sqlite3.Error):
                self._connection.execute("COMMIT")
            self.writable = False

    def close(self) -> None:
        """Roll back what was not committed."""
        with suppress(sqlite3.Error):
            self._connection.close()


class SourceCache:
    """The rows of one source."""

    def __init__(self, cache: Cache, connection: sqlite3.Connection, source: bytes) -> None:
        self._cache = cache
        #: 16 bytes that stand for a path or a stat.
        self.hash = cache.hash
        self._connection = connection
        self._source = source
        self._used: list[int] = []
        with suppress(sqlite3.Error):
            connection.execute("SAVEPOINT source")

    def undo(self) -> None:
        """Forget what was kept since this was made: the source failed."""
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK TO source")

    def _one(self, statement: str, *values: object) -> Any:
        with suppress(sqlite3.Error):
            return self._connection.execute(statement, (self._source, *values)).fetchone()
        return None

    @property
    def snapshot(self) -> str:
        """The id of the manifest that all rows are of; empty if there are none."""
        row = self._one("SELECT snapshot FROM sources WHERE source = ?")
        return str(row[0]) if row else ""

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
        with suppress(sqlite3.Error):
            cursor = self._connection.execute(
                "INSERT OR REPLACE INTO hunks (source, digest, value) VALUES (?, ?, ?)",
                (self._source, digest, self._cache.sealed(digest, hunk)),
            )
            number = cursor.lastrowid or 0
            self._used.append(number)
            rows = ((self._source, key, number, self._cache.sealed(key, part)) for key, part in parts.items())
            self._connection.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", rows)

    def finish(self, snapshot: str) -> None:
        """Drop what this run did not use, and say which manifest the rows are of now."""
        if not self._cache.writable:
            return
        with suppress(sqlite3.Error):
            run = self._connection.execute
            run("CREATE TEMP TABLE IF NOT EXISTS used (id INTEGER PRIMARY KEY)")
            run("DELETE FROM used")
            self._connection.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((each,) for each in self._used))
            run("DELETE FROM hunks WHERE source = ? AND id NOT IN (SELECT id FROM used)", (self._source,))
            run("DELETE FROM parts WHERE source = ? AND hunk NOT IN (SELECT id FROM used)", (self._source,))
            run("INSERT OR REPLACE INTO sources VALUES (?, ?)", (self._source, snapshot))
