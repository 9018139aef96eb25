"""What is open, and who still has to be told: `alerts.sqlite` in the state folder.

Promise: what must be sent stands here, durable, before it is sent, and is crossed out after: it is sent at least once, whatever is killed between.
What waits for an address is one letter, however often it was queued. A damaged spool is put aside and begun anew. No address stands in it.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from opsd.clock import DAY, SECOND
from opsd.errors import StorageError
from opsd.monitor.alerts import Decision, Event, Incident
from opsd.monitor.problems import Problem, Severity
from opsd.values import dataclass

FILE: Final = "alerts.sqlite"
#: Between two tries at an address, growing (ns).
_FIRST_PAUSE: Final = 60 * SECOND
LONGEST_PAUSE: Final = 3600 * SECOND
#: What ended so long ago is forgotten, also where nobody could be told (ns).
_KEPT: Final = 30 * DAY
_BUSY_SECONDS: Final = 5.0
_VERSION: Final = 1
_DAMAGED: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE incidents (id INTEGER PRIMARY KEY, key TEXT NOT NULL, ended INTEGER, value TEXT NOT NULL);
CREATE UNIQUE INDEX open ON incidents (key) WHERE ended IS NULL;
CREATE TABLE notes (
  contact TEXT NOT NULL, number INTEGER NOT NULL, incident INTEGER NOT NULL REFERENCES incidents ON DELETE CASCADE,
  event TEXT NOT NULL CHECK (event IN ('opened', 'repeated', 'ended')), queued INTEGER NOT NULL, waits INTEGER NOT NULL, sent INTEGER,
  PRIMARY KEY (contact, number, incident)
);
CREATE TABLE addresses (
  contact TEXT NOT NULL, number INTEGER NOT NULL, failures INTEGER NOT NULL, since INTEGER NOT NULL, next_try INTEGER NOT NULL,
  error TEXT NOT NULL, PRIMARY KEY (contact, number)
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""

#: A contact's name, and which of its URLs, counted from 1.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One incident in a letter; `queued` tells its versions apart, `sent`: when a version last arrived."""

    number: int
    incident: Incident
    event: Event
    queued: int
    waits: bool = True
    sent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """All that waits for one address."""

    place: Place
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An address that can't be reached: how often that was tried, since when, when the next try is due, and why it fails."""

    place: Place
    failures: int
    since: int
    next_try: int
    error: str


class Spool:
    """An open spool; every method is one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def change(self, decide: Callable[[list[Incident]], Decision], places: Collection[Place], now: int) -> Decision:
        """Let something decide what becomes of the open incidents, and queue what is to be told for these addresses."""
        with self._transaction():
            known = self.incidents()
            decision = decide(known)
            if decision.events or list(decision.incidents) != known:
                self._write(decision, places, now)
        return decision

    def incidents(self) -> list[Incident]:
        """Those that are open, the oldest first."""
        rows = self._all("SELECT value FROM incidents WHERE ended IS NULL ORDER BY id")
        return [_incident(value) for (value,) in rows]

    def _write(self, decision: Decision, places: Collection[Place], now: int) -> None:
        events = dict(decision.events)
        for incident in decision.incidents:
            number = self._put(incident)
            if incident.key in events:
                rows = [(*place, number, events[incident.key], now) for place in places]
                self._connection.executemany(
                    "INSERT INTO notes VALUES (?, ?, ?, ?, ?, TRUE, NULL) ON CONFLICT DO UPDATE SET event = excluded.event, "
                    "queued = max(excluded.queued, notes.queued + 1), waits = TRUE",
                    rows,
                )
        self._forget(now)

    def _forget(self, now: int) -> None:
        """Drop what has ended and was told to all, or ended long ago."""
        self._all(
            "DELETE FROM incidents WHERE ended IS NOT NULL AND (ended < ? OR NOT EXISTS "
            "(SELECT 1 FROM notes WHERE incident = incidents.id AND waits))",
            now - _KEPT,
        )

    def _put(self, incident: Incident) -> int:
        """Write an incident; the number of its row."""
        given = asdict(incident)
        del given["problem"]["covers"]  # It is of the moment.
        value = json.dumps(given)
        rows = self._all(
            "UPDATE incidents SET ended = ?, value = ? WHERE key = ? AND ended IS NULL RETURNING id",
            incident.ended,
            value,
            incident.key,
        ) or self._all(
            "INSERT INTO incidents (key, ended, value) VALUES (?, ?, ?) RETURNING id",
            incident.key,
            incident.ended,
            value,
        )
        return int(rows[0][0])

    def notes(self, place: Place) -> list[Note]:
        """What was told at an address, or waits for it, of all incidents that are not forgotten."""
        rows = self._all(
            "SELECT incidents.id, value, event, queued, waits, sent FROM notes JOIN incidents "
            "ON incidents.id = notes.incident WHERE contact = ? AND number = ? ORDER BY incidents.id",
            *place,
        )
        return [
            Note(
                number=number,
                incident=_incident(value),
                event=Event(event),
                queued=queued,
                waits=bool(waits),
                sent=sent,
            )
            for number, value, event, queued, waits, sent in rows
        ]

    def letters(self, places: Iterable[Place], now: int) -> list[Letter]:
        """What waits for these addresses and is to be tried now. A clock that was set back makes nothing wait for longer."""
        resting = {each.place for each in self.troubles() if now < each.next_try <= now + LONGEST_PAUSE}
        waiting = set(self._all("SELECT DISTINCT contact, number FROM notes WHERE waits")) - resting
        return [
            Letter(place=place, notes=tuple(each for each in self.notes(place) if each.waits))
            for place in places
            if place in waiting
        ]

    def troubles(self) -> list[Trouble]:
        """The addresses that can't be reached."""
        rows = self._all("SELECT contact, number, failures, since, next_try, error FROM addresses ORDER BY 1, 2")
        return [
            Trouble(place=(contact, number), failures=failures, since=since, next_try=next_try, error=error)
            for contact, number, failures, since, next_try, error in rows
        ]

    def arrived(self, place: Place, notes: Sequence[Note], now: int) -> None:
        """Cross out what arrived, but for what was queued anew meanwhile."""
        with self._transaction():
            for note in notes:
                self._all(
                    "UPDATE notes SET sent = ?, waits = queued > ? WHERE contact = ? AND number = ? AND incident = ?",
                    now,
                    note.queued,
                    *place,
                    note.number,
                )
            self._all("DELETE FROM addresses WHERE contact = ? AND number = ?", *place)
            self._forget(now)

    def failed(self, place: Place, error: str, now: int) -> None:
        """Remember that an address can't be reached, and why; it is tried again later and later."""
        with self._transaction():
            before = next((each for each in self.troubles() if each.place == place), None)
            failures = before.failures if before else 0
            pause = min(LONGEST_PAUSE, _FIRST_PAUSE << min(failures, 10))
            since = before.since if before else now
            self._all(
                "INSERT OR REPLACE INTO addresses VALUES (?, ?, ?, ?, ?, ?)",
                *place,
                failures + 1,
                since,
                now + pause,
                error,
            )

    def forget_others(self, places: Collection[Place]) -> None:
        """Drop what waits for addresses that no configuration names any more."""
        known = self._all("SELECT contact, number FROM notes UNION SELECT contact, number FROM addresses")
        with self._transaction():
            for place in set(known).difference(places):
                self._all("DELETE FROM notes WHERE contact = ? AND number = ?", *place)
                self._all("DELETE FROM addresses WHERE contact = ? AND number = ?", *place)

    def _all(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            yield


def _incident(value: str) -> Incident:
    """What `_put` wrote; ValueError, TypeError or KeyError where that was something else."""
    known = json.loads(value)
    problem = known.pop("problem")
    severity = Severity(problem.pop("severity"))
    return Incident(problem=Problem(severity=severity, **problem), **known)


@contextmanager
def opened(folder: Path, tell: Callable[[str], None]) -> Iterator[Spool]:
    """The spool in a folder, which is made; a damaged one is put aside, and told of.

    Raises:
        StorageError: it can't be read or written: no room, no right, or somebody else holds it for over 5 seconds.
    """
    path = folder / FILE
    try:
        connection = _connected(path, tell)
        with closing(connection):
            yield Spool(connection)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}", hint=_hint(folder)) from error
    except OSError as error:
        raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}", hint=_hint(folder)) from error


def _hint(folder: Path) -> str:
    return f"see that {folder} has room and that this user may write there"


def _connected(path: Path, tell: Callable[[str], None]) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = _connection(path)
    if connection is None:
        aside = _put_aside(path)
        tell(
            f"{path} was damaged: it is begun anew, and what is still wrong is told again; the old one is {aside.name}"
        )
        connection = _connection(path)
    if connection is None:
        raise OSError("made anew, and damaged again")
    return connection


def _connection(path: Path) -> sqlite3.Connection | None:
    """The database, with its tables; None if it is damaged, or of another version."""
    create(path)
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        if _is_sound(connection):
            return connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGED:
            connection.close()
            raise
    connection.close()
    return None


def _is_sound(connection: sqlite3.Connection) -> bool:
    """Lay the tables out if there are none, and read all there is: a damaged spool must not stop a daemon later."""
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA user_version").fetchone() == (0,):
        _lay_out(connection)
    try:
        for (value,) in connection.execute("SELECT value FROM incidents").fetchall():
            _incident(value)
    except (ValueError, TypeError, KeyError):
        return False
    version = connection.execute("PRAGMA user_version").fetchone()
    return bool(version == (_VERSION,) and connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])


def _lay_out(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process was faster."""
    try:
        connection.executescript(_SCHEMA)
    except sqlite3.OperationalError:
        with suppress(sqlite3.Error):
            connection.rollback()
        if connection.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            raise


def create(path: Path) -> None:
    """Make an empty file for its user alone; where root is first, for the user whose folder it is: the daemon's."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            if os.geteuid() == 0:
                owner = os.stat(path.parent)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def _put_aside(path: Path) -> Path:
    """Only the newest damaged one is kept: the folder must not fill."""
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    for suffix in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside
