"""Choose which snapshots to keep.

Promise: pure (no clock, no storage), the same for any order of its input, and stable: deciding again about what was kept
drops nothing, and what a finer rule lets go later is still there for the coarser one. Snapshots whose dates can't be
trusted, held ones and the newest good snapshot of every source always stay.

How it counts, per host and job, newest first and in the site's time zone:

- `last`, `within`, then `hourly`, `daily`, `weekly` (ISO weeks), `monthly`, `yearly`: the order of fineness.
- A period stands for its newest complete snapshot. If a finer rule keeps that one, the coarser rule does not count the
  period: 30 daily and 12 monthly are 42 snapshots, and a month goes only when twelve later ones stand outside the 30 days.
  A week's last day that is not the month's last does not hold the month.
- An incomplete snapshot takes no place, and goes once it is older than the oldest that the finest rule keeps.
- A safety snapshot (taken before a restore in place) undoes one restore and belongs to no calendar: each stays 30 days.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import timedelta, tzinfo
from typing import NamedTuple

from opsd import clock
from opsd.errors import ConfigurationError
from opsd.values import dataclass

#: A snapshot may be dated this much after the store received it: clocks differ, and the store's times may be coarse.
CLOCK_TOLERANCE = 3600 * clock.SECOND

#: How long a safety snapshot stays.
SAFETY_SPAN = 30 * clock.DAY

#: Jobs that never stand for a run of every source, even where they are newer.
PARTIAL_JOBS = frozenset({"part", "safety"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How many periods of each kind keep a snapshot; 0 and None are off. Tags keep what bears one of them."""

    keep_last: int = 0
    keep_within: timedelta | None = None
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_tags: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """How many periods to keep, in the order of `Periods`."""
        return self.keep_hourly, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly

    def require_meaning(self) -> None:
        """Raise ConfigurationError if a number makes no sense, or if these rules would let everything go."""
        named = ("keep_last", self.keep_last), *zip(_COUNT_KEYS, self.counts, strict=True)
        mistakes = [f"retention.{key}: {count} is negative" for key, count in named if count < 0]
        if self.keep_within is not None and self.keep_within <= timedelta(0):
            mistakes.append("retention.keep_within: must be longer than nothing")
        if not mistakes and self.keep_within is None and not any(count for _, count in named):
            mistakes.append("retention: no rule keeps anything")
        if mistakes:
            raise ConfigurationError(tuple(mistakes), hint="for example: retention: {keep_daily: 30, keep_monthly: 12}")


#: What a site gets that says nothing.
DEFAULT_RULES = Rules(keep_daily=30, keep_monthly=12)

_COUNT_KEYS = ("keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
_COUNT_NAMES = ("hourly", "daily", "weekly", "monthly", "yearly")
_FINENESS = ("last", "within", *_COUNT_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What retention looks at in a snapshot. Times in ns UTC.

    `started` is the manifest's, `received` the store's; `sequence` counts per `writer`; `complete`: no source failed;
    `held`: a hold is in force; `sources`: label to whether that source is good in this snapshot.
    """

    id: str
    started: int
    received: int
    host: str
    job: str
    sequence: int
    complete: bool
    writer: bytes = b""
    tags: frozenset[str] = frozenset()
    held: bool = False
    sources: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a snapshot stays, and every reason for it; no reason when it goes.

    Reasons: last, within, hourly, daily, weekly, monthly, yearly (a rule took it); incomplete (recent, though incomplete);
    safety; tag; hold; newest (of a source, or complete); clock (its date can't be true: report it); witness (shows that a
    later snapshot's date can't be true). A prune of a copy adds: source (which still has it).
    """

    id: str
    keep: bool
    reasons: tuple[str, ...] = ()


class Periods(NamedTuple):
    """The periods a moment lies in, as numbers that mean something only for equality."""

    hour: int
    day: int
    week: int
    month: int
    year: int


class Moment(NamedTuple):
    """A complete snapshot as the rules see it; `started` in ns UTC."""

    started: int
    periods: Periods


def moment(started: int, zone: tzinfo) -> Moment:
    """The moment with its periods in `zone`; an hour that comes twice when summer time ends is two."""
    time = clock.local(started, zone)
    day = time.toordinal()
    month = time.year * 12 + time.month
    return Moment(started, Periods((day * 24 + time.hour) * 2 + time.fold, day, day - time.weekday(), month, time.year))


def choose(moments: Sequence[Moment], rules: Rules, now: int) -> dict[int, str]:
    """Which of `moments` (newest first) a rule keeps: place to the name of the finest rule that does."""
    kept = dict.fromkeys(range(min(rules.keep_last, len(moments))), "last")
    if rules.keep_within is not None:
        oldest = now - rules.keep_within // timedelta(microseconds=1) * 1000
        for place, one in enumerate(moments):
            if one.started >= oldest:
                kept.setdefault(place, "within")
    for kind, count in enumerate(rules.counts):
        if count:
            _choose_periods(moments, kind, count, kept)
    return kept


def _choose_periods(moments: Sequence[Moment], kind: int, count: int, kept: dict[int, str]) -> None:
    """Add the newest of each of the `count` last periods whose newest nothing keeps yet."""
    seen: set[int] = set()
    for place, (_, periods) in enumerate(moments):
        period = periods[kind]
        if period in seen:
            continue
        seen.add(period)
        if place not in kept:
            kept[place] = _COUNT_NAMES[kind]
            count -= 1
            if not count:
                return


def decide(candidates: Collection[Candidate], rules: Rules, now: int, zone: tzinfo) -> tuple[Verdict, ...]:
    """A verdict for each candidate, in their order. `now` in ns UTC; ConfigurationError if `rules` keep nothing."""
    rules.require_meaning()
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    wrong, witnesses = _mistrusted(candidates)
    trusted = [one for one in candidates if one.id not in wrong]
    for group in _grouped(trusted, lambda one: (one.host, one.job)):
        for one, reason in _kept_by_rules(group, rules, now, zone):
            reasons[one.id].append(reason)
    newest = _newest_good(trusted)
    tags = frozenset(rules.keep_tags)
    for one in candidates:
        standing = (
            ("tag", bool(tags & one.tags)),
            ("hold", one.held),
            ("newest", one.id in newest),
            ("clock", one.id in wrong),
            ("witness", one.id in witnesses),
        )
        reasons[one.id].extend(reason for reason, applies in standing if applies)
    return tuple(Verdict(id=one.id, keep=bool(reasons[one.id]), reasons=tuple(reasons[one.id])) for one in candidates)


def _order(one: Candidate) -> tuple[int, int, str]:
    """Older first; sequence and id settle what starts at the same instant, so that order of input never matters."""
    return one.started, one.sequence, one.id


def _grouped(candidates: Iterable[Candidate], key: Callable[[Candidate], object]) -> Iterable[list[Candidate]]:
    """The candidates that share a key, group by group, older first."""
    groups: defaultdict[object, list[Candidate]] = defaultdict(list)
    for one in sorted(candidates, key=_order):
        groups[key(one)].append(one)
    return groups.values()


def _mistrusted(candidates: Iterable[Candidate]) -> tuple[set[str], set[str]]:
    """Ids whose date can't be true, and of those whose date shows it.

    The witness must stay with the snapshot that it convicts: once it had left the calendar, a forged date in the past
    would count after all and push a good month's end out.
    """
    wrong: set[str] = set()
    witnesses: set[str] = set()
    for group in _grouped(candidates, lambda one: (one.host, one.job, one.writer)):
        newest: Candidate | None = None
        for one in sorted(group, key=lambda one: (one.sequence, *_order(one))):
            if one.started > one.received + CLOCK_TOLERANCE:
                wrong.add(one.id)
            elif newest is not None and one.started < newest.started:
                wrong.add(one.id)
                witnesses.add(newest.id)
            elif one.complete:
                newest = one
    return wrong, witnesses


def _kept_by_rules(group: Sequence[Candidate], rules: Rules, now: int, zone: tzinfo) -> Iterable[tuple[Candidate, str]]:
    """What the rules keep of one host and job (older first), with the rule's name."""
    if group[0].job == "safety":
        return [(one, "safety") for one in group if one.started >= now - SAFETY_SPAN]
    complete = [one for one in reversed(group) if one.complete]
    chosen = choose([moment(one.started, zone) for one in complete], rules, now)
    finest = min(chosen.values(), key=_FINENESS.index, default=None)
    oldest = min(
        (complete[place].started for place, rule in chosen.items() if rule == finest), default=group[0].started
    )
    recent = [(one, "incomplete") for one in group if not one.complete and one.started >= oldest]
    return [(complete[place], rule) for place, rule in chosen.items()] + recent


def _newest_good(trusted: Iterable[Candidate]) -> set[str]:
    """Ids of the newest good snapshot of every source, and the newest complete one, of each host.

    A partial run is the newest only until another job has a newer one; it never releases what another job holds, since it
    may have taken only some paths of a source.
    """
    newest: dict[tuple[str, str | None, str | None], str] = {}
    for one in sorted(trusted, key=_order):
        good: list[str | None] = [label for label, is_good in one.sources.items() if is_good]
        for label in [*good, None] if one.complete else good:
            newest[one.host, None, label] = one.id
            if one.job not in PARTIAL_JOBS:
                newest[one.host, one.job, label] = one.id
    return set(newest.values())
