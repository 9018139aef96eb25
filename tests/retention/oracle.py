"""Retention told a second time, as sets of days and labels, to hold the real one against.

Promise: shares no code with opsd.retention beyond its types.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from opsd.retention.policy import Candidate, Rules

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR

#: All sorts of summer time: north, south, at midnight, half an hour, quarter-hour offsets, abolished, a date skipped.
ZONES = (
    "UTC",
    "Europe/Paris",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Asia/Gaza",
)

_LABELS = {
    "keep_hourly": "%Y-%m-%d %H %z",
    "keep_daily": "%Y-%m-%d",
    "keep_weekly": "%G week %V",
    "keep_monthly": "%Y-%m",
    "keep_yearly": "%Y",
}


def moment(text: str, zone: str = "UTC") -> int:
    """The ns UTC of a local time such as `2024-02-29 04:00`."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def snapshot(started: int | str, number: int = 0, **other: Any) -> Candidate:
    """A complete snapshot of every source, as a normal night leaves it, but for what `other` says."""
    at = moment(started) if isinstance(started, str) else started
    sequence = number or at // SECOND
    usual: dict[str, Any] = {
        "id": f"{at}/{number}",
        "started": at,
        "received": at + 600 * SECOND,
        "host": "server",
        "job": "all",
        "sequence": sequence,
        "complete": True,
    }
    return Candidate(**{**usual, **other})


def expected(history: Collection[Candidate], rules: Rules, now: int, zone: tzinfo) -> set[str]:
    """Ids that rules keep of complete, trusted snapshots of one host and job."""
    newest_first = sorted(history, key=lambda one: (one.started, one.sequence, one.id), reverse=True)
    kept = {one.id for one in newest_first[: rules.keep_last]}
    if rules.keep_within is not None:
        kept |= {one.id for one in history if now - one.started <= rules.keep_within / timedelta(seconds=1) * SECOND}
    for key, label in _LABELS.items():
        newest: dict[str, str] = {}
        for one in reversed(newest_first):
            newest[f"{datetime.fromtimestamp(one.started // SECOND, UTC).astimezone(zone):{label}}"] = one.id
        beyond = [one.id for one in newest_first if one.id in set(newest.values()) - kept]
        kept |= set(beyond[: getattr(rules, key)])
    return kept


def nightly(starts: Iterator[int], zone: tzinfo, daily: int, monthly: int) -> Iterator[list[int]]:
    """What each night leaves of one run a night: the last days, and before them the last days of months."""
    days: list[int] = []
    ends: list[int] = []
    month = 0
    for start in starts:
        today = datetime.fromtimestamp(start // SECOND, zone)
        if days and today.month != month:
            ends.append(days[-1])
        month = today.month
        days.append(start)
        window = days[-daily:]
        before = [end for end in ends[-monthly - 3 :] if end < window[0]]
        yield before[-monthly:] + window
