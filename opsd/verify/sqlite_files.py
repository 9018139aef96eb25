"""Look into restored SQLite databases.

Promise: read-only and without a trace: no journal is made, nothing that a schema holds is trusted.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opsd.sources.sqlite_image import counted
from opsd.verify.expectations import fact_problems


@contextmanager
def opened(path: bytes | Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that nobody else writes (SQLite, Uniform Resource Identifiers, `immutable`)."""
    name = quote(path if isinstance(path, bytes) else str(path))
    with closing(sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True, isolation_level=None)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # ATTACH would make a file.
        connection.text_factory = lambda text: text.decode(errors="replace")
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        yield connection


def problems(path: bytes, recorded: Mapping[str, Any]) -> list[str]:
    """What `integrity_check` says of a database, and how it differs from its facts."""
    try:
        with opened(path) as connection:
            lines = [str(line) for (line,) in connection.execute("PRAGMA integrity_check(20)")]
            found = [f"integrity_check says: {line}" for line in lines if line != "ok"]
            return found + list(fact_problems(recorded, counted(connection, rows="tables" in recorded)))
    except sqlite3.Error as error:
        return [f"can't be opened: {error}"]


def answer(path: bytes | Path, sql: str, timeout: float) -> list[tuple[Any, ...]]:
    """The rows of a question.

    Raises:
        sqlite3.Error: it can't be answered, or not within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    with opened(path) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        try:
            return connection.execute(sql).fetchmany(2)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise sqlite3.OperationalError(f"ran longer than its limit of {timeout:g} s and was stopped") from error
