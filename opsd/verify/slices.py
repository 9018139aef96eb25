"""Which stored objects to check now, so that every byte is read again within 30 days, and how far that is true.

Pure. Promise: what was unread longest comes first; missed nights are caught up with; a budget is never exceeded, and what it leaves
unread is shown. What only the store's own checksum vouches for never counts as read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final, NamedTuple

from opsd.clock import DAY, SECOND
from opsd.errors import ObjectDamaged
from opsd.repository.format import digest_of
from opsd.storage.protocol import ObjectInfo
from opsd.values import dataclass

#: Within this time everything is read again.
PERIOD: Final = 30 * DAY
#: What slices aim at: two nights may be missed at the end.
_AIM: Final = 28 * DAY
#: What would be older than the period before the next night.
_AGED: Final = PERIOD - 36 * DAY // 24


class Seen(NamedTuple):
    """When an object was last read, and last vouched for by its store's checksum; ns UTC, 0 for never."""

    read: int = 0
    vouched: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is remembered of the checks of one store. `since`: when that began; `slice`: when the last slice was; ns UTC.

    `seen` is by the SHA-256 of the object; `spent` are (time, bytes) that checks read in the last 30 days.
    """

    since: int = 0
    slice: int = 0
    seen: Mapping[bytes, Seen] = field(default_factory=dict)
    spent: tuple[tuple[int, int], ...] = ()

    def of(self, info: ObjectInfo) -> Seen:
        """About one object; of one whose name holds no hash, nothing."""
        try:
            return self.seen.get(digest_of(info.name), Seen())
        except ObjectDamaged:
            return Seen()

    def spent_since(self, time: int) -> int:
        """Bytes that checks have read since then."""
        return sum(size for when, size in self.spent if when > time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How well a store is checked. Bytes in all, read in the last 30 days, and only vouched for by the store's checksums in that time.

    `oldest_unread`: for how long the longest unread object was not, ns; of one never read, since it was put.
    """

    total: int
    read: int
    vouched: int
    oldest_unread: int


def due(infos: Iterable[ObjectInfo], checked: Checked, now: int, *, budget: int | None = None) -> list[ObjectInfo]:
    """What to check now, longest unchecked first; `budget` in bytes for 30 days."""
    # In whole seconds, as what was read is remembered: else what was read in the second that this began in would seem older than the rest.
    age = {
        info: (max(*checked.of(info), 0) or max(info.modified, checked.since or now)) // SECOND * SECOND
        for info in infos
    }
    passed = min(now - checked.slice, PERIOD) if checked.slice else DAY
    quota = sum(info.size for info in age) * passed / _AIM
    most = None if budget is None else budget * passed / PERIOD
    room = None if budget is None else budget - checked.spent_since(now - PERIOD)
    chosen: list[ObjectInfo] = []
    taken = 0
    for info in sorted(age, key=lambda each: (age[each], any(checked.of(each)), each.modified, each.name)):
        if taken >= quota and age[info] > now - _AGED:
            break
        if most is not None and room is not None:
            if budget is not None and info.size > budget:
                continue  # It can never be read; the coverage shows it.
            if taken >= most or taken + info.size > room:
                break
        chosen.append(info)
        taken += info.size
    return chosen


def coverage(infos: Sequence[ObjectInfo], checked: Checked, now: int) -> Coverage:
    """How far what is listed was read."""
    read = vouched = oldest = 0
    for info in infos:
        seen = checked.of(info)
        if seen.read > now - PERIOD:
            read += info.size
        elif seen.vouched > now - PERIOD:
            vouched += info.size
        oldest = max(oldest, now - (seen.read or info.modified))
    return Coverage(total=sum(info.size for info in infos), read=read, vouched=vouched, oldest_unread=oldest)


def after_check(before: Checked, listed: Iterable[ObjectInfo], news: "News", now: int) -> Checked:
    """What is remembered once a check has found so much; what is not listed any more is forgotten."""
    seen = {}
    for info in listed:
        old = Seen() if info.name in news.wrong else before.of(info)
        new = Seen(now if info.name in news.read else old.read, now if info.name in news.vouched else old.vouched)
        if any(new):
            seen[digest_of(info.name)] = new
    spent = [each for each in before.spent if each[0] > now - PERIOD]
    return Checked(
        since=before.since or now,
        slice=now if news.is_slice else before.slice,
        seen=seen,
        spent=(*spent, (now, news.size)) if news.size else tuple(spent),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a check found: names of objects that it read whole, that the store vouched for, and that are wrong; `size`: bytes it read."""

    wrong: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    vouched: frozenset[str] = frozenset()
    size: int = 0
    is_slice: bool = False
