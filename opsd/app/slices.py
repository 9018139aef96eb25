"""Check in slices, and remember of every check what it read.

Promise: thin; what is due is decided by `verify.slices`. Without a state folder nothing is remembered and all else works.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from opsd.app.healing import gone_from_copy, require_filled
from opsd.app.session import Session
from opsd.app.upkeep import check
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.settings import Settings
from opsd.settings.stated import CopySettings, PullSettings
from opsd.storage.protocol import ObjectInfo
from opsd.storage.retry import bucket_of
from opsd.values import dataclass
from opsd.verify.check import CheckOptions, CheckReport
from opsd.verify.checked import CheckedFile
from opsd.verify.proof import prove_some, vouched_objects
from opsd.verify.slices import Coverage, News, after_check, coverage, due


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifying:
    """How a store is checked in slices: read, checksum or off, within a budget in bytes for 30 days."""

    verify: str = "read"
    budget: int | None = None


def verifying(settings: Settings, copy: str | None) -> Verifying:
    """What is stated of a copy; the repository is always read."""
    known: dict[str, CopySettings | PullSettings] = {each.name: each for each in settings.copies}
    stated = (known | dict(settings.pulls)).get(copy or "")
    return Verifying(verify=stated.verify, budget=stated.verify_budget) if stated else Verifying()


def check_due(session: Session) -> CheckReport:
    """Check what is due of the repository, or of the copy that this session reads.

    Raises:
        HistoryDisagrees: the copy was filled before, and is empty. StorageError: it can't be read.
    """
    copy = session.access.copy
    if copy is None:
        packs = due(list(session.store.list("packs/")), _file(session).read(), session.clock.now())
        return check(session, CheckOptions(names=frozenset(info.name for info in packs)))
    how = verifying(session.settings, copy)
    if how.verify == "off":
        return replace(prove_some(session.store, (), (), session.reporter), notices=(f"verify is off for copy {copy}",))
    require_filled(session)
    report = _slice_of_copy(session, how)
    return replace(report, problems=(*report.problems, *gone_from_copy(session)))


def _slice_of_copy(session: Session, how: Verifying) -> CheckReport:
    now = session.clock.now()
    listed = sorted(session.store.list(""), key=lambda info: info.name)
    chosen = due(listed, _file(session).read(), now, budget=None if how.verify == "checksum" else how.budget)
    bucket = bucket_of(session.store)
    if how.verify == "checksum" and bucket is not None:
        return vouched_objects(bucket, listed, chosen, session.reporter)
    report = prove_some(session.store, listed, chosen, session.reporter)
    total = sum(info.size for info in listed)
    if how.budget is not None and how.budget < total:
        notice = f"the budget lets {how.budget * 100 // total} % of this copy be read in 30 days"
        return replace(report, notices=(*report.notices, notice))
    return report


def remember(session: Session, report: CheckReport, *, is_slice: bool) -> Coverage | None:
    """Remember what a check read, and tell how far all of the store was; None where there is no state to keep it in."""
    if not session.has_state():
        return None
    wrong = frozenset(problem.object for problem in report.problems)
    news = News(wrong=wrong, read=report.read, vouched=report.vouched, size=report.bytes_read, is_slice=is_slice)
    listed = list(session.store.list(""))
    now = session.clock.now()
    with _locked(session):
        file = _file(session)
        checked = after_check(file.read(), listed, news, now)
        file.write(checked)
    return coverage(listed, checked, now)


def coverage_of_copy(session: Session, name: str, listed: Sequence[ObjectInfo]) -> Coverage:
    """How far a copy that lists so much was checked."""
    return coverage(listed, _file_of_copy(session, name).read(), session.clock.now())


@contextmanager
def _locked(session: Session) -> Iterator[None]:
    """Two checks that end at once both count."""
    with HostState(session.settings.state).locked("checked"):
        yield


def _file(session: Session) -> CheckedFile:
    copy = session.access.copy
    if copy:
        return _file_of_copy(session, copy)
    return CheckedFile(_folder(session) / "repositories" / repository_id(session.store).hex())


def _file_of_copy(session: Session, name: str) -> CheckedFile:
    return CheckedFile(_folder(session) / "copies" / name)


def _folder(session: Session) -> Path:
    return session.settings.state / "checked"
