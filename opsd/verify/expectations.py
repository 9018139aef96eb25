"""Judge what was restored against what the manifest recorded.

Promise: pure. Whatever is not as recorded is a Deviation that names it; a drill is green only where there is none.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from os import stat_result
from typing import Any, Final

from opsd.clock import DAY, SECOND
from opsd.model import Entry, EntryType, SnapshotSummary, SourceSummary
from opsd.restore.files import TYPE_BITS
from opsd.values import dataclass

_SET_BITS: Final = stat.S_ISUID | stat.S_ISGID
_WEEK: Final = 7 * DAY
#: 1970-01-01 was a Thursday.
_MONDAY: Final = 3 * DAY
#: In one week of so many, an older snapshot.
_OLDER_EVERY: Final = 5
#: What a new PostgreSQL cluster takes, its first WAL included.
SERVER_BYTES: Final = 34 << 20


class Verdict(StrEnum):
    """How a drill ended; also how bad one deviation is. Best first."""

    GREEN = "green"
    DEVIATING = "deviating"  # All came back; a target was missed, or something could not be tried.
    FAILED = "failed"  # The drill could not be carried out; nothing is known to be wrong.
    RED = "red"  # Something did not come back as it was.

    @property
    def exit_code(self) -> int:
        """As commands end."""
        return {"green": 0, "deviating": 3, "failed": 1, "red": 4}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """What is wrong: `subject` names it (a path, a table), `source` is empty for the drill as a whole."""

    source: str
    subject: str
    problem: str
    severity: Verdict = Verdict.RED
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.source}: {self.subject}: {self.problem}" if self.source else f"{self.subject}: {self.problem}"


def worse(one: Verdict, other: Verdict) -> Verdict:
    """The worse of two."""
    return max(one, other, key=list(Verdict).index)


def entry_problems(
    entry: Entry, found: stat_result, owner: tuple[int, int] | None, target: bytes | None
) -> Iterator[str]:
    """How what stands there differs from its entry, content aside. `owner` is None where it can't be given; `target` a symlink's."""
    if stat.S_IFMT(found.st_mode) != TYPE_BITS[entry.type]:
        yield "is of another kind"
        return
    if entry.type is EntryType.FILE and found.st_size != entry.size:
        yield f"has {found.st_size} bytes instead of {entry.size}"
    if target != entry.target:
        yield "leads elsewhere"
    if entry.device is not None and (os.major(found.st_rdev), os.minor(found.st_rdev)) != tuple(entry.device):
        yield "is another device"
    mask = 0o7777 if owner is not None else 0o7777 & ~_SET_BITS
    if entry.type is not EntryType.SYMLINK and (found.st_mode ^ entry.mode) & mask:
        yield f"has mode {stat.S_IMODE(found.st_mode):04o} instead of {entry.mode & 0o7777:04o}"
    if owner is not None and (found.st_uid, found.st_gid) != owner:
        yield f"belongs to {found.st_uid}:{found.st_gid} instead of {owner[0]}:{owner[1]}"
    if found.st_mtime_ns != entry.mtime:
        yield "has another time of change"


def listing_deviations(recorded: SourceSummary, listed: tuple[int, int]) -> Iterator[Deviation]:
    """Whether a source's listing has as many files and bytes as the manifest says."""
    if listed != (recorded.files, recorded.bytes):
        text = f"has {listed[0]} files of {listed[1]} bytes, and {recorded.files} of {recorded.bytes} were recorded"
        yield Deviation(source=recorded.label, subject="listing", problem=text, severity=Verdict.DEVIATING)


def fact_problems(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """How an SQLite database differs from its facts; what was not recorded is not compared."""
    words = {"page_size": "page size", "page_count": "pages", "user_version": "user version", "schema": "schema"}
    for name, word in words.items():
        if name in recorded and recorded[name] != found.get(name):
            yield (
                f"has another {word}"
                if name == "schema"
                else f"has {word} {found.get(name)} instead of {recorded[name]}"
            )
    yield from count_problems(recorded.get("tables", {}), found.get("tables", {}))


def count_problems(recorded: Mapping[str, int], found: Mapping[str, int]) -> Iterator[str]:
    """Rows by table."""
    for name, rows in recorded.items():
        if name not in found:
            yield f"table {name} is missing"
        elif found[name] != rows:
            yield f"table {name} has {found[name]} rows instead of {rows}"


def role_problems(recorded: Iterable[str], count: int, found: Iterable[str]) -> Iterator[str]:
    """Roles by name, and how many there were."""
    there, wanted = set(found), set(recorded)
    yield from (f"role {name} is missing" for name in sorted(wanted - there))
    if wanted <= there and len(there) < count:
        yield f"has {len(there)} roles instead of {count}"


def target_deviations(
    seconds: Mapping[str, float], targets: Mapping[str, float | None], shown: Callable[[float], str]
) -> Iterator[Deviation]:
    """Targets that were missed, by name; `shown` writes a span."""
    for name, target in targets.items():
        if target is not None and seconds[name] > target:
            text = f"{shown(seconds[name])}, and the target is {shown(target)}"
            yield Deviation(source="", subject=name, problem=text, severity=Verdict.DEVIATING)


def week_of(moment: int) -> int:
    """Weeks from Monday to Sunday, UTC, counted from 1970."""
    return (moment + _MONDAY) // _WEEK


def copy_of_week(names: Sequence[str], moment: int) -> str | None:
    """Another copy each week, without anything remembered; None if there is none."""
    return names[week_of(moment) % len(names)] if names else None


def chosen_snapshot(snapshots: Sequence[SnapshotSummary], moment: int, host: str = "") -> SnapshotSummary | None:
    """The newest complete one; every fifth week one that is over a week older, where there is such. None without any.

    One of `host`, and one of all sources, where there is any; `snapshots` come oldest first; at `moment` 0 the newest is chosen.
    """
    complete = [each for each in snapshots if each.complete and each.job != "safety"]
    complete = [each for each in complete if each.host == host] or complete
    whole = [each for each in complete if each.job == "all"] or complete
    whole = [each for each in whole if not each.is_ahead_of(whole)]
    if not whole:
        return None
    newest = whole[-1]
    older = [each for each in whole if newest.started - each.started > _WEEK]
    week = week_of(moment)
    return older[week // _OLDER_EVERY % len(older)] if older and moment and week % _OLDER_EVERY == 0 else newest


def age_seconds(snapshot: SnapshotSummary, moment: int) -> float:
    """How much time its moment is back."""
    return (moment - snapshot.started) / SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is restored and removed as one: a source of files (no `database`), or one database. `size`: bytes of scratch."""

    source: str
    size: int
    database: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Parts that stand in scratch together; `whole` if that is all of the snapshot."""

    parts: tuple[Part, ...]
    whole: bool

    @property
    def size(self) -> int:
        """Bytes of scratch, with the servers."""
        return sum(part.size for part in self.parts) + len(self.databases()) * SERVER_BYTES

    def files(self) -> tuple[str, ...]:
        """Labels of its sources of files."""
        return tuple(part.source for part in self.parts if part.database is None)

    def databases(self) -> dict[str, list[str]]:
        """Its databases, by the label of their server."""
        found: dict[str, list[str]] = {}
        for part in self.parts:
            if part.database is not None:
                found.setdefault(part.source, []).append(part.database)
        return found


def pieces(parts: Sequence[Part], room: int) -> tuple[Piece, ...]:
    """All at once where that fits into `room` bytes, else one after the other."""
    whole = Piece(parts=tuple(parts), whole=True)
    if whole.size <= room or len(parts) < 2:
        return (whole,)
    return tuple(Piece(parts=(part,), whole=False) for part in parts)
