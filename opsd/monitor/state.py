"""What ran, when, and how it ended: one SQLite file in the state folder.

Promise: every job leaves its run here, whoever started it, also one that was killed (its process is gone, and so it was interrupted).
Nothing that a backup needs stands here: what is damaged is put aside and begun anew, and no job fails because this can't be written.

Times are ns UTC. Outcomes are the ledger's words, and `running`, `interrupted` (its process is gone), `skipped` (the one before still
ran) and `missed` (nothing ran when it was due, and a later time has come since).
"""

import fcntl
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final, Self

from opsd import clock
from opsd.errors import StorageError
from opsd.storage.durable import private_file, private_folder
from opsd.values import dataclass

RUNNING: Final = "running"
INTERRUPTED: Final = "interrupted"
SKIPPED: Final = "skipped"
MISSED: Final = "missed"
MISDATED: Final = "misdated"
#: What counts as done: the job did what it is for.
GOOD: Final = frozenset({"done", "warnings"})
#: What says that nothing was tried.
NEVER_RAN: Final = frozenset({SKIPPED, MISSED})
#: So long a run is remembered.
_KEPT: Final = 800 * clock.DAY
_KEPT_SELF_CHECKS: Final = 30 * clock.DAY
_SECONDS: Final = 5.0
_VERSION: Final = 1
_BROKEN: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_IOERR_SHORT_READ"})
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs(
    id TEXT PRIMARY KEY, job TEXT NOT NULL, cause TEXT NOT NULL, slot INTEGER NOT NULL, attempt INTEGER NOT NULL, part INTEGER NOT NULL, started INTEGER NOT NULL,
    ended INTEGER NOT NULL, outcome TEXT NOT NULL, exit_code INTEGER, error TEXT NOT NULL, hint TEXT NOT NULL, stage TEXT NOT NULL,
    files INTEGER NOT NULL, bytes INTEGER NOT NULL, details TEXT NOT NULL, stages TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_job ON runs(job, started);
CREATE TABLE IF NOT EXISTS facts(topic TEXT PRIMARY KEY, time INTEGER NOT NULL, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job. `cause`: `daemon` or `person`; `slot`: the due time that it answers, 0 for none; `attempt` counts from 1.

    `part`: it did a part of the job only, and answers no due time. `ended` is 0 while it runs. `stage`, `files` and `bytes` say how far it is; `stages` are (name, seconds); `details` are counts and words of opsd's own.
    """

    id: str
    job: str
    cause: str
    started: int
    slot: int = 0
    attempt: int = 1
    part: bool = False
    ended: int = 0
    outcome: str = RUNNING
    exit_code: int | None = None
    error: str = ""
    hint: str = ""
    stage: str = ""
    files: int = 0
    bytes: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[tuple[str, float]] = ()

    @property
    def is_good(self) -> bool:
        """Whether the job did all that it is for."""
        return self.outcome in GOOD and not self.part

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it runs."""
        return max(0, self.ended - self.started) / clock.SECOND if self.ended else 0.0


_FIELDS: Final = tuple(Run.__dataclass_fields__)
_INSERT: Final = f"INSERT OR REPLACE INTO runs({', '.join(_FIELDS)}) VALUES({', '.join('?' * len(_FIELDS))})"
_COUNT: Final = "SELECT job, outcome, COUNT(*) FROM runs"
_OLD: Final = "WHERE started < ? OR job = 'self-check' AND started < ?"


class State:
    """The file; a context manager. A reader never waits for a writer (WAL)."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, is_new: bool) -> None:
        self._connection = connection
        self.path = path
        self._inode = os.stat(path).st_ino
        #: Whether there was none, or it was damaged: what came before is not known.
        self.is_new = is_new

    @classmethod
    def open(cls, folder: Path, now: int, *, verify: bool = False) -> Self:
        """The state of a folder; one that is damaged is put aside as `state.sqlite.damaged-TIME` and begun anew.

        `verify`: read all of it, to see whether it is; else what can't be opened counts.

        Raises:
            StorageError: it can't be written to.
        """
        path = folder / "state.sqlite"
        try:
            private_folder(folder)
            is_new = not path.exists()
            try:
                connection = _connected(path, verify=verify)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_broken(error):
                    raise
                _put_aside(path, now)
                connection, is_new = _connected(path, verify=False), True
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(path, error) from error
        state = cls(connection, path, is_new=is_new)
        if is_new or not state.fact("since"):
            state.remember("since", now, now)
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def is_there(self) -> bool:
        """Whether the file that was opened still stands at its place."""
        with suppress(OSError):
            return os.stat(self.path).st_ino == self._inode
        return False

    @property
    def since(self) -> int:
        """When this file was begun; what was due before is nobody's debt."""
        found = self.fact("since")
        return int(found[1]) if found else 0

    def put(self, runs: Iterable[Run]) -> None:
        """Write runs, in place of those of the same id.

        Raises:
            StorageError: the disk is full, or it can't be written to.
        """
        with self._writing():
            self._connection.executemany(_INSERT, [_row(run) for run in runs])

    @property
    def changes(self) -> int:
        """Another number whenever another process has written."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def forget(self, now: int) -> None:
        """Drop what is older than anybody asks for; it goes on to be counted."""
        with self._writing():
            old = (now - _KEPT, now - _KEPT_SELF_CHECKS)
            gone = self._connection.execute(f"{_COUNT} {_OLD} GROUP BY job, outcome", old).fetchall()
            if gone:
                counts = self._forgotten()
                for job, outcome, count in gone:
                    counts[job, INTERRUPTED if outcome == RUNNING else outcome] += count
                value = json.dumps([[*key, count] for key, count in counts.items()])
                self._connection.execute("INSERT OR REPLACE INTO facts VALUES('forgotten', ?, ?)", (now, value))
                self._connection.execute(f"DELETE FROM runs {_OLD}", old)  # noqa: S608

    def runs(self, job: str | None = None, *, most: int = 1000) -> list[Run]:
        """The newest runs, newest first; one whose process is gone was interrupted."""
        where, values = ("WHERE job = ?", (job,)) if job else ("", ())
        query = f"SELECT {', '.join(_FIELDS)} FROM runs {where} ORDER BY started DESC, id DESC LIMIT ?"  # noqa: S608
        with self._reading():
            return [_run(row, self.path.parent) for row in self._connection.execute(query, (*values, most))]

    def newest_good(self, job: str) -> Run | None:
        """The newest run of a job that did what it is for."""
        query = f"SELECT {', '.join(_FIELDS)} FROM runs WHERE job = ? AND NOT part AND outcome IN ('done', 'warnings') ORDER BY started DESC LIMIT 1"  # noqa: S608
        with self._reading():
            row = self._connection.execute(query, (job,)).fetchone()
        return _run(row, self.path.parent) if row else None

    def counts(self) -> dict[tuple[str, str], int]:
        """How many runs of each job ended with each outcome, those that were dropped for their age included."""
        counts = self._forgotten()
        with self._reading():
            ended = self._connection.execute(f"{_COUNT} WHERE outcome != ? GROUP BY job, outcome", (RUNNING,))
            counts.update({(job, outcome): count for job, outcome, count in ended})
            others = self._connection.execute("SELECT id, job FROM runs WHERE outcome = ?", (RUNNING,)).fetchall()
        counts.update((job, RUNNING if _lives(self.path.parent, run) else INTERRUPTED) for run, job in others)
        return counts

    def _forgotten(self) -> Counter[tuple[str, str]]:
        found = self.fact("forgotten")
        return Counter({(job, outcome): count for job, outcome, count in (found[1] if found else ())})

    def remember(self, topic: str, time: int, value: Any) -> None:
        """Keep a fact, in place of the one before."""
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES(?, ?, ?)", (topic, time, json.dumps(value)))

    def fact(self, topic: str) -> tuple[int, Any] | None:
        """When a fact was found, and what it is."""
        with self._reading():
            row = self._connection.execute("SELECT time, value FROM facts WHERE topic = ?", (topic,)).fetchone()
        return (row[0], json.loads(row[1])) if row else None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._connection:
                yield
        except sqlite3.Error as error:
            raise _unwritable(self.path, error) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"the state {self.path} can't be read: {error}", hint="see its disk and owner"
            ) from error


def read_only(folder: Path) -> State | None:
    """What the state of a folder holds, where its disk takes nothing more; nothing can be put. None where it can't be read.

    What only its journal holds is not seen: to read that needs room beside it (sqlite.org/wal.html, section 5).
    """
    path = folder / "state.sqlite"
    with suppress(OSError, sqlite3.Error), ExitStack() as stack:
        connection = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True, check_same_thread=False)
        stack.callback(connection.close)
        connection.execute("SELECT count(*) FROM runs, facts").fetchone()
        state = State(connection, path, is_new=False)
        stack.pop_all()
        return state
    return None


def begun(job: str, now: int, environment: Mapping[str, str], *, part: bool = False) -> Run:
    """A run of this process that begins now; the daemon says by the environment which due time it answers."""
    return Run(
        id=environment.get("OPSD_RUN_ID") or f"{clock.stamp(now)}-{os.getpid():x}",
        job=job,
        cause="daemon" if "OPSD_RUN_ID" in environment else "person",
        slot=int(environment.get("OPSD_RUN_SLOT") or 0),
        attempt=int(environment.get("OPSD_RUN_ATTEMPT") or 1),
        part=part,
        started=now,
    )


@contextmanager
def living(folder: Path, run: str) -> Iterator[None]:
    """Show that a run lives, as long as this process does: a locked file, which whoever may not see our process can see."""
    path = _life(folder, run)
    private_folder(path.parent)
    descriptor = private_file(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o644)  # A run by root is looked at by the service's user.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lives(folder: Path, run: str) -> bool:
    try:
        descriptor = os.open(_life(folder, run), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _life(folder: Path, run: str) -> Path:
    return folder / "running" / run


def _connected(path: Path, *, verify: bool) -> sqlite3.Connection:
    os.close(private_file(path, os.O_RDWR))  # Its journals get its owner.
    connection = sqlite3.connect(path, timeout=_SECONDS, check_same_thread=False)
    try:
        os.chmod(path, 0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        if verify:
            _require_whole(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_whole(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _is_broken(error: sqlite3.Error) -> bool:
    """Whether the content is at fault, not the disk, the owner or another process."""
    return getattr(error, "sqlite_errorname", "SQLITE_CORRUPT") in _BROKEN


def _put_aside(path: Path, now: int) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(f"{path}{suffix}.damaged-{clock.stamp(now)}")


def _unwritable(path: Path, error: Exception) -> StorageError:
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StorageError(
        f"the state {path} can't be written: {told.lower()}", hint="see the room on its disk, and its owner"
    )


def _row(run: Run) -> tuple[Any, ...]:
    values = {name: getattr(run, name) for name in _FIELDS}
    values |= {"details": json.dumps(dict(run.details)), "stages": json.dumps([list(each) for each in run.stages])}
    return tuple(values.values())


def _run(row: Sequence[Any], folder: Path) -> Run:
    values = dict(zip(_FIELDS, row, strict=True))
    values["stages"] = tuple((str(name), float(seconds)) for name, seconds in json.loads(values["stages"]))
    run = Run(**(values | {"part": bool(values["part"]), "details": json.loads(values["details"])}))
    return replace(run, outcome=INTERRUPTED) if run.outcome == RUNNING and not _lives(folder, run.id) else run
