"""Look after a repository: prune, hold, check, stats.

Promise: thin: what is decided is decided by `retention` and `verify`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from opsd.app.session import Session
from opsd.errors import ObjectDamaged, ObjectLost, UsageError
from opsd.model import SnapshotSummary
from opsd.repository.repository import Repository
from opsd.retention.calendar import Kept, simulate
from opsd.retention.holds import hold, release
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions, PrunePlan, PruneResult
from opsd.settings import Settings
from opsd.values import dataclass
from opsd.verify.advice import hint_of
from opsd.verify.check import Check, CheckOptions, CheckReport
from opsd.verify.repair import Repaired, repair


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How much is stored. `objects` is (kind, number, bytes); sizes in bytes, `created` in ns UTC.

    `latest_bytes` is what a restore of the newest whole snapshot writes, `all_bytes` the sum over all snapshots.
    """

    repository: str
    created: int
    hosts: tuple[str, ...]
    snapshots: int
    marked: int
    objects: tuple[tuple[str, int, int], ...]
    stored_bytes: int
    latest_bytes: int
    all_bytes: int


def _prune(session: Session, *, confirmed: bool) -> Prune:
    settings = session.settings
    options = PruneOptions(rules=settings.retention, zone=settings.zone, confirmed=confirmed)
    return Prune(session.open(writer=True), options)


def plan_prune(session: Session) -> PrunePlan:
    """What a prune would do now; changes nothing.

    Raises:
        PruneRefused: something can't be read.
    """
    return _prune(session, confirmed=False).plan()


def prune(session: Session, *, confirmed: bool) -> PruneResult:
    """Sweep what waited long enough, then mark what the rules drop now.

    Raises:
        PruneRefused: something can't be read, a clock is off, or a person must confirm.
    """
    return _prune(session, confirmed=confirmed).carry_out()


def simulated(settings: Settings, days: int, now: int, rules: Rules | None = None) -> tuple[Kept, ...]:
    """The calendar that one run each night at 04:00 and a prune lead to; by these rules, or those of the repository."""
    return simulate(days, rules or settings.retention, settings.zone, now)


def hold_snapshot(session: Session, text: str, until: int | None, reason: str) -> SnapshotSummary:
    """Keep a snapshot until a time (ns UTC) or for good.

    Raises:
        PruneRefused: it is being removed already.
    """
    if until is not None and until <= session.clock.now():
        raise UsageError(
            "that date has passed", hint="a hold ends at the end of its date; 'opsd hold --release' ends one"
        )
    repository = session.open(writer=True)
    summary = repository.find(text).summary
    hold(repository, summary, until, reason)
    return summary


def release_snapshot(session: Session, text: str) -> SnapshotSummary:
    """End a hold."""
    repository = session.open(writer=True)
    summary = repository.find(text).summary
    release(repository, summary)
    return summary


def check(session: Session, options: CheckOptions) -> CheckReport:
    """Check the repository; packs are decrypted where a reader's key is at hand unasked.

    Raises:
        StorageError: the store can't be read at all.
    """
    with _advised():
        return Check(session.open(reader=session.can_unlock()), options).run()


def sample(share: float) -> CheckOptions:
    """To read that share of all packs, 0 to 1; another sample each time, and nothing secret hangs on it."""
    return CheckOptions(share=share, seed=random.SystemRandom().getrandbits(32))


def mend(session: Session, report: CheckReport) -> Repaired:
    """Mend what a check found, as far as that goes without a copy."""
    with _advised():
        return repair(session.open(writer=True), report)


@contextmanager
def _advised() -> Iterator[None]:
    """Whoever runs a check is not sent to run a check."""
    try:
        yield
    except (ObjectDamaged, ObjectLost) as error:
        raise type(error)(error.name, error.problem, hint=hint_of(error, error.name)) from error


def stats(session: Session) -> Stats:
    """Count and add up; needs the index key only."""
    repository = session.open()
    found: dict[str, list[int]] = {}
    for info in session.store.list(""):
        row = found.setdefault(info.name.partition("/")[0], [0, 0])
        row[0] += 1
        row[1] += info.size
    summaries = repository.snapshots(marked=True)
    return Stats(
        repository=repository.place.ring.repository.hex(),
        created=repository.place.settings.created,
        hosts=tuple(sorted({each.host for each in summaries})),
        snapshots=len(summaries),
        marked=sum(each.marked for each in summaries),
        objects=tuple((kind, count, size) for kind, (count, size) in sorted(found.items())),
        stored_bytes=sum(size for _, size in found.values()),
        latest_bytes=_latest_bytes(repository, summaries),
        all_bytes=sum(each.bytes for each in summaries),
    )


def _latest_bytes(repository: Repository, summaries: list[SnapshotSummary]) -> int:
    return repository.find("latest").summary.bytes if any(not each.marked for each in summaries) else 0
