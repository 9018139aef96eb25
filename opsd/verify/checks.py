"""The site's own questions to what was restored.

Promise: each ends within its time, whatever it does, and its answer is a value; none reaches a live system but to compare with it.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from opsd.errors import OpsdError, ProgramFailed
from opsd.process import ending, run, said
from opsd.sources.options import PostgresqlSource, SourceOptions, SqliteSource
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.sqlite import image
from opsd.sources.sqlite_image import Refused
from opsd.values import dataclass
from opsd.verify import sqlite_files
from opsd.verify.expectations import Deviation, Verdict
from opsd.verify.options import DrillCheck, tolerance

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a piece of the snapshot stands: `files` has a folder a source; servers and SQLite files by label of source."""

    snapshot: str
    files: Path
    servers: Mapping[str, Server]
    databases: Mapping[str, Sequence[str]]
    sqlite: Mapping[str, bytes]
    labels: frozenset[str]
    whole: bool

    def environment(self, source: str | None) -> dict[str, str]:
        """What a command is told; of ours nothing, so that it answers the same wherever it is run from."""
        found = {
            "PATH": _PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.files),
            "OPSD_DRILL_FILES": str(self.files),
            "OPSD_DRILL_SNAPSHOT": self.snapshot,
        }
        label = source if source in self.servers else next(iter(self.servers), None)
        if label is not None:
            server = self.servers[label]
            found |= {"PGHOST": server.host or "", "PGPORT": str(server.port), "PGUSER": server.user or ""}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How a check ended; `deviation` is None where it passed."""

    check: DrillCheck
    seconds: float
    deviation: Deviation | None = None


class LiveUnknown(Exception):
    """The live database could not be asked."""


class _Wrong(Exception):
    """The answer is not what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """How live sources are reached: the options of each, and its server. `scratch`: where images of SQLite databases are made."""

    options: Mapping[str, SourceOptions]
    server: Callable[[str], Server]
    scratch: Path


def is_ready(check: DrillCheck, places: Places) -> bool:
    """Whether all that a check asks stands there."""
    if check.source is None:
        return places.whole
    if check.source not in places.labels:
        return False
    if check.database is not None:
        return check.database in places.databases.get(check.source, ())
    return places.whole or check.source not in places.servers


def carry_out(check: DrillCheck, places: Places, live: Live) -> CheckResult:
    """Ask, and judge."""
    began = time.monotonic()
    deviation = None
    try:
        if check.command is not None:
            _command(check.command, check, places)
        elif check.live is None:
            _demand_true(_restored(check, places))
        else:
            _demand_near(_restored(check, places), _lively(check, live), check.live)
    except LiveUnknown as error:
        deviation = _deviation(check, f"the live database can't be asked: {error}", Verdict.DEVIATING)
    except (_Wrong, ServerProblem, sqlite3.Error, ProgramFailed) as error:
        deviation = _deviation(check, " ".join(str(error).split()), Verdict.RED)
    return CheckResult(check=check, seconds=time.monotonic() - began, deviation=deviation)


def not_run(check: DrillCheck, why: str, severity: Verdict = Verdict.DEVIATING) -> CheckResult:
    """A check that nothing could be asked of."""
    return CheckResult(check=check, seconds=0.0, deviation=_deviation(check, f"was not run: {why}", severity))


def _deviation(check: DrillCheck, problem: str, severity: Verdict) -> Deviation:
    return Deviation(source="", subject=f"check {check.name}", problem=problem, severity=severity)


def _command(command: Sequence[str], check: DrillCheck, places: Places) -> None:
    done = run(command, timeout=check.timeout, environment=places.environment(check.source), kept=False)
    if done.status:
        raise _Wrong(f"{command[0]} {ending(done.status)}{said(done.error_text)}")


def _restored(check: DrillCheck, places: Places) -> list[tuple[Any, ...]]:
    assert check.source
    if check.source in places.sqlite:
        return sqlite_files.answer(places.sqlite[check.source], check.sql or "", check.timeout)
    if check.source not in places.servers:
        raise _Wrong(f"source {check.source} is no database")
    return _asked(places.servers[check.source], check)


def _asked(server: Server, check: DrillCheck, *, first: str = "") -> list[tuple[Any, ...]]:
    with server.session(check.database) as session:
        session.run(f"{first}reset search_path; set statement_timeout = {int(check.timeout * 1000)}")
        return list(session.rows(check.sql or ""))


def _lively(check: DrillCheck, live: Live) -> list[tuple[Any, ...]]:
    """The live database's answer."""
    options = live.options.get(check.source or "")
    try:
        if isinstance(options, PostgresqlSource):
            return _asked(live.server(check.source or ""), check, first="set default_transaction_read_only = on; ")
        if isinstance(options, SqliteSource):
            return _of_image(options.path, check, live.scratch)
    except (OpsdError, ServerProblem, sqlite3.Error, Refused, OSError) as error:
        raise LiveUnknown(str(error)) from error
    raise LiveUnknown("no such source is configured here")


def _of_image(path: str, check: DrillCheck, scratch: Path) -> list[tuple[Any, ...]]:
    copy = scratch / "live.db"
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    try:
        with image(path.encode(), scratch=scratch) as taken, copy.open("wb") as file:
            while count := taken.readinto(buffer):
                file.write(buffer[:count])
        return sqlite_files.answer(copy, check.sql or "", check.timeout)
    finally:
        copy.unlink(missing_ok=True)


def _single(rows: list[tuple[Any, ...]], what: str) -> Any:
    if len(rows) != 1 or len(rows[0]) != 1:
        raise _Wrong(f"must return one {what}, and returned {'nothing' if not rows else 'more'}")
    return rows[0][0]


def _demand_true(rows: list[tuple[Any, ...]]) -> None:
    value = _single(rows, "truth value")
    if value is not True and value != 1 and value not in {"t", "true"}:
        raise _Wrong(f"returned {_shown(value)} instead of true")


def _shown(value: Any) -> str:
    """Truth values and numbers; what else stands in a database stays there."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else "something else"


def _demand_near(restored: list[tuple[Any, ...]], lively: list[tuple[Any, ...]], text: str) -> None:
    here = _number(_single(restored, "number"))
    there = _number(_single(lively, "number"))
    allowed, share = tolerance(text)
    if abs(here - there) > (allowed * max(abs(here), abs(there)) if share else allowed):
        raise _Wrong(f"{here:g} restored and {there:g} live are more than {text} apart")


def _number(value: Any) -> float:
    """Raises _Wrong: it is none, or none that is near another: nothing is far from NaN."""
    with suppress(TypeError, ValueError, OverflowError):
        if math.isfinite(number := float(value)):
            return number
    raise _Wrong("must return a number")
