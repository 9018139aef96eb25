"""Make the runs of a lost state again: from the ledger, and from the snapshots of the repository.

Promise: only what came before the state was begun is made; to do it again changes nothing. What can't be read is done without.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Final

from opsd import clock
from opsd.app.looking import known_of
from opsd.app.planning import REBUILT
from opsd.app.session import Session
from opsd.app.shots import Known
from opsd.errors import OpsdError
from opsd.model import Outcome
from opsd.monitor.ledger import BEGUN, Entry, review
from opsd.monitor.ledger_file import LedgerFile
from opsd.monitor.state import INTERRUPTED, Run, State
from opsd.retention.policy import PARTIAL_JOBS

#: So far back.
_DAYS: Final = 90
#: The job of each action in the ledger; a check changes nothing, and is not in it.
_JOBS: Final = {
    "backup": "backup",
    "copy": "copy",
    "pull": "copy",
    "prune": "prune",
    "drill": "drill",
    "restore": "restore",
}


def rebuild(session: Session, state: State) -> int:
    """Fill a state that was begun anew, once; how many runs were found. Call it wherever a state is opened to be looked at.

    Raises:
        StorageError: the state can't be written.
    """
    if state.fact(REBUILT):
        return 0
    found = [run for run in found_runs(session) if run.ended <= state.since]
    state.put(found)
    state.remember(REBUILT, session.clock.now(), {"runs": len(found)})
    return len(found)


def found_runs(session: Session) -> list[Run]:
    """The runs of the last 90 days, as repository and ledger tell of them."""
    known = Known()
    with suppress(OpsdError):
        known = known_of(session) if session.settings.repository else known
    entries = review(LedgerFile(session.settings.state).lines()).entries
    begun = {each.number: each for each in entries if each.outcome == BEGUN}
    oldest = session.clock.now() - _DAYS * clock.DAY
    return [run for run in (*_of_repository(known), *_of_ledger(entries, begun, known)) if run.started > oldest]


def _of_repository(known: Known) -> Iterator[Run]:
    """A run for each snapshot of all sources; without keys, of what its writer signed in the clear."""
    for each in known.summaries:
        if each.job not in PARTIAL_JOBS:
            failed = not each.complete
            warned = any(source.outcome is Outcome.WARNINGS for source in each.sources)
            outcome, code = ("failed", 1) if failed else ("warnings", 3) if warned else ("done", 0)
            yield _run(each.id, "backup", each.started, ended=each.ended, outcome=outcome, exit_code=code)
    for name, shot in known.shots.items() if not known.summaries else ():
        if shot.whole:
            yield _run(name.rpartition("-")[2], "backup", shot.time, ended=shot.time, outcome="done", exit_code=0)


def _of_ledger(entries: tuple[Entry, ...], begun: Mapping[int, Entry], known: Known) -> Iterator[Run]:
    """A run for each action that is a job; one that began and never ended was cut off."""
    snapshots = {each.id for each in known.summaries}
    ended = {each.begun for each in entries if each.begun is not None}
    for entry in entries:
        job = _JOBS.get(entry.action)
        snapshot = entry.details.get("snapshot")
        if job is None or (entry.outcome == BEGUN and entry.number in ended):
            continue
        if job == "backup" and snapshot in snapshots:
            continue  # The snapshot itself tells when it began.
        start = begun.get(entry.begun or 0, entry)
        yield _run(
            f"ledger-{entry.number}",
            job,
            _time(start),
            part=bool(entry.details.get("part")),
            ended=_time(entry),
            outcome=INTERRUPTED if entry.outcome == BEGUN else entry.outcome,
            exit_code=entry.exit_code,
        )


def _run(identity: str, job: str, started: int, **how: object) -> Run:
    return Run(id=identity, job=job, cause="person", started=started, **how)  # type: ignore[arg-type]


def _time(entry: Entry) -> int:
    return int(datetime.fromisoformat(entry.time).timestamp() * 1_000_000) * 1000
