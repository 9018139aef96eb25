"""Everything prune decides from, listed in the order that makes it safe and verified to the last object.

Promise: what can't be read, or a list that is shorter than the numbers say, stops prune. Design: Many writers, Prune, step 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from opsd.clock import DAY
from opsd.errors import IntegrityError, NewerFormat, PruneRefused
from opsd.model import SnapshotSummary
from opsd.repository.catalog import marked_snapshots
from opsd.repository.format import digest_of
from opsd.repository.manifest import Manifest
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of
from opsd.repository.runs import Mark, Note, RunEvent, holds_in_force, open_runs
from opsd.storage.protocol import ObjectInfo
from opsd.values import dataclass

#: A run without a sign of life for so long (the store's time) is dead.
DEAD_AFTER: Final = 30 * DAY
ENDS: Final = frozenset({"ended", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is there. `open` are living runs and when they began, `dead` those that nobody ended; times in ns UTC.

    `ended` are runs that ended otherwise than by a manifest: one that is there all the same counts as incomplete.
    """

    now: int
    packs: Mapping[bytes, ObjectInfo]
    open: Mapping[bytes, int]
    dead: Mapping[bytes, RunEvent]
    ended: frozenset[bytes]
    manifests: tuple[Manifest, ...]
    marks: tuple[Mark, ...]
    notes: tuple[Note, ...]

    @property
    def held(self) -> Mapping[bytes, Note]:
        """The holds in force, by the SHA-256 of the snapshot."""
        return holds_in_force(self.notes, self.now)

    @property
    def doomed(self) -> frozenset[str]:
        """Names of marked manifests that no hold saves."""
        held = self.held
        return frozenset(name for name in marked_snapshots(self.marks) if digest_of(name) not in held)

    def summaries(self) -> tuple[SnapshotSummary, ...]:
        """Snapshots that are not doomed, oldest first."""
        doomed = self.doomed
        found = [
            replace(each.summary, complete=each.summary.complete and each.summary.run not in self.ended)
            for each in self.manifests
            if each.summary.name not in doomed
        ]
        return tuple(sorted(found, key=lambda each: (each.started, each.id)))


def survey(repository: Repository, *, store_now: int | None = None, gaps_known: bool = False) -> Survey:
    """List and verify: marks, packs, runs, manifests, notes. `store_now` is the store's time, of a probe put before.

    Raises:
        PruneRefused: something can't be read, or something is missing.
    """
    place = repository.place
    now = repository.around.clock.now()
    try:
        marks = tuple(place.marks())
        packs = {digest_of(info.name): info for info in place.store.list("packs/")}
        events = [event for _, event in place.run_events()]
        manifests = _manifests(repository)
        notes = tuple(place.notes())
        repository.compare_memory()
    except (IntegrityError, NewerFormat) as error:
        raise PruneRefused(
            f"prune stops: {error}", hint=error.hint or "run 'opsd check', and repair before you prune"
        ) from error
    if not gaps_known:
        _refuse_gaps(manifests, notes)
    began: dict[bytes, int] = {}
    for event in events:
        began[event.run] = min(event.received, began.get(event.run, event.received))
    unended = open_runs(events, {each.summary.run for each in manifests})
    oldest_sign = (now if store_now is None else store_now) - DEAD_AFTER
    dead = {run: last for run, last in unended.items() if last.received <= oldest_sign}
    return Survey(
        now=now,
        packs=packs,
        open={run: began[run] for run in unended if run not in dead},
        dead=dead,
        ended=frozenset(event.run for event in events if event.event in ENDS),
        manifests=manifests,
        marks=marks,
        notes=notes,
    )


def _manifests(repository: Repository) -> tuple[Manifest, ...]:
    infos = sorted(repository.place.store.list("snapshots/"), key=lambda each: each.name)
    return tuple(repository.manifest(info) for info in infos)


def missing_numbers(manifests: Iterable[Manifest], notes: Iterable[Note]) -> dict[bytes, list[int]]:
    """Sequence numbers of each writer that no listed manifest bears and no note explains."""
    dropped = {each for note in notes for each in note.sequences}
    seen: dict[bytes, set[int]] = defaultdict(set)
    for manifest in manifests:
        seen[manifest.summary.writer].add(manifest.summary.sequence)
    missing = {
        writer: [
            number for number in range(1, max(numbers)) if number not in numbers and (writer, number) not in dropped
        ]
        for writer, numbers in seen.items()
    }
    return {writer: numbers for writer, numbers in missing.items() if numbers}


def _refuse_gaps(manifests: Iterable[Manifest], notes: Iterable[Note]) -> None:
    """A listing that is too short must not let what it hides look unneeded."""
    missing = [number for numbers in missing_numbers(manifests, notes).values() for number in numbers]
    if missing:
        raise PruneRefused(
            f"prune stops: snapshots number {', '.join(map(str, missing[:10]))} of one host are not listed, and no prune dropped them",
            hint="compare the store with a copy; if they are gone for good, run 'opsd prune --yes'",
        )


def frames_needed(repository: Repository, manifests: Sequence[Manifest]) -> FrameSet:
    """The frames that these manifests refer to.

    Raises:
        PruneRefused: a list of them can't be read.
    """
    frames = FrameSet()
    try:
        for manifest in manifests:
            frames.add_all(frames_of(repository, manifest))
    except IntegrityError as error:
        raise PruneRefused(f"prune stops: {error}", hint=error.hint) from error
    return frames
