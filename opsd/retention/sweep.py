"""Sweep: remove what a mark named, once its grace is over and no noted run is open.

Promise: a pack goes only if every frame in it that a manifest needs stands in another listed, unmarked pack; manifests go
before the packs they need, and a signed note says which numbers went. Design: Many writers, Prune, step 3.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from opsd.errors import ObjectDamaged, ObjectNotFound
from opsd.repository.catalog import Catalog, footer_of, load_catalog
from opsd.repository.format import Kind, digest_of, name_for, pack_name
from opsd.repository.manifest import Manifest
from opsd.repository.moving import merge_index
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark, Note
from opsd.retention.marking import note_open_runs, put_mark
from opsd.retention.survey import ENDS, Survey, frames_needed, survey
from opsd.retention.turn import Turn
from opsd.storage.retry import bucket_of
from opsd.values import dataclass

#: Notes of dropped numbers beyond which they are written as one.
_NOTES_LIMIT: Final = 24

Frame = tuple[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What went for good; `size` in bytes, of packs.

    `locked` objects could not go yet, since the store locks them: until `locked_until` at the latest (ns UTC, 0 if there are none).
    """

    snapshots: int = 0
    size: int = 0
    locked: int = 0
    locked_until: int = 0

    def and_also(self, other: "Swept") -> "Swept":
        """Both."""
        return Swept(
            snapshots=self.snapshots + other.snapshots,
            size=self.size + other.size,
            locked=self.locked + other.locked,
            locked_until=max(self.locked_until, other.locked_until),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """How to sweep. `grace` in nanoseconds; `elsewhere` lists now what the source of a copy still has, which stays."""

    grace: int
    gaps_known: bool
    elsewhere: Callable[[], Collection[str]] = frozenset


class Sweep:
    """All ripe marks of one repository, for one prune."""

    def __init__(self, repository: Repository, turn: Turn, options: SweepOptions) -> None:
        self._repository = repository
        self._place = repository.place
        self._store = repository.place.store
        self._clock = repository.around.clock
        self._turn = turn
        self._grace = options.grace
        self._options = options

    def _survey(self) -> Survey:
        return survey(self._repository, store_now=self._turn.store_now, gaps_known=self._options.gaps_known)

    def carry_out(self) -> Swept:
        """Remove what ripe marks name.

        Raises:
            PruneRefused: something can't be read and verified.
        """
        found = self._survey()
        self._end_dead(found)
        noted = {mark.mark: mark for mark in found.marks if mark.event == "open_runs"}
        gone = Swept()
        for mark in found.marks:
            if mark.event != "mark":
                continue
            note = noted.get(mark.mark)
            if note is None:
                note_open_runs(self._repository, mark.mark, self._turn.run)
            elif mark.received <= self._turn.store_now - self._grace and not set(note.runs) & set(found.open):
                gone = gone.and_also(self._locked(mark, found) or self._sweep(mark))
        self._end_damaged(found.marks)
        return gone

    def _end_damaged(self, marks: Sequence[Mark]) -> None:
        """Nothing is left to warn of once every pack that such a mark names is gone."""
        listed = {digest_of(info.name) for info in self._store.list("packs/")}
        for mark in marks:
            if mark.event == "damaged" and listed.isdisjoint(mark.packs):
                self._store.delete(mark.name)

    def _end_dead(self, found: Survey) -> None:
        """Say so before anything goes: one that wakes up after all must find itself ended, and look again."""
        for run, last in found.dead.items():
            self._turn.say("ended", run, last.kind)

    def _locked(self, mark: Mark, found: Survey) -> Swept | None:
        """What of a mark the store would not let go yet; then nothing of it goes, since manifests go before their packs."""
        bucket = bucket_of(self._store)
        if bucket is None:
            return None
        listed = {each.summary.name for each in found.manifests} | {info.name for info in found.packs.values()}
        ends = []
        for name in listed & {*mark.snapshots, *map(pack_name, mark.packs)}:
            with suppress(ObjectNotFound):
                ends.append(bucket.locked_until(name) or 0)
        locked = [end for end in ends if end > self._turn.store_now]
        return Swept(locked=len(locked), locked_until=max(locked)) if locked else None

    def _sweep(self, mark: Mark) -> Swept:
        self._turn.alive()
        put_mark(self._repository, Mark(mark=mark.mark, event="sweep", time=self._clock.now()))
        found = self._survey()
        held = found.held
        elsewhere = frozenset(self._options.elsewhere())
        named = set(mark.snapshots) - elsewhere
        going = [
            each for each in found.manifests if each.summary.name in named and digest_of(each.summary.name) not in held
        ]
        names = {each.summary.name for each in going}
        needed = frames_needed(self._repository, [each for each in found.manifests if each.summary.name not in names])
        catalog = load_catalog(self._place, found.marks)
        own = [digest for digest in mark.packs if pack_name(digest) not in elsewhere]
        packs = self._removable(own, needed, catalog)
        self._drop_snapshots(going, [note for note in found.notes if note.name not in elsewhere])
        self._turn.alive()
        if packs:
            # The index goes first, so that nobody is led to what is not there.
            merge_index(self._place, most=0, without=packs, staying=self._options.elsewhere)
        for digest in packs:
            self._turn.alive()
            self._store.delete(catalog.packs[digest].name)
        self._end_mark(mark)
        return Swept(snapshots=len(going), size=sum(catalog.packs[digest].size for digest in packs))

    def _end_mark(self, mark: Mark) -> None:
        for each in self._place.marks():
            if each.mark == mark.mark and each.event != "mark":
                self._store.delete(each.name)
        self._store.delete(mark.name)

    # Packs

    def _removable(self, marked: Collection[bytes], needed: FrameSet, catalog: Catalog) -> list[bytes]:
        """Those of the marked packs whose needed frames all stand elsewhere; copies in packs that are marked do not count."""
        inside = {digest: self._needed_inside(digest, needed, catalog) for digest in marked if digest in catalog.packs}
        births = {birth for frames in inside.values() for birth, _ in frames}
        usable = catalog.usable() - set(marked)
        holders = {row.digest for birth in births for row in catalog.objects.get(birth, ()) if row.digest in usable}
        elsewhere: set[Frame] = set()
        for digest in sorted(holders):
            elsewhere |= self._frames(digest, catalog) or set()
        return [digest for digest, frames in inside.items() if frames <= elsewhere]

    def _needed_inside(self, digest: bytes, needed: FrameSet, catalog: Catalog) -> set[Frame]:
        """The needed frames in a pack. Of one without a valid footer, all that may stand there: it could still be healed."""
        frames = self._frames(digest, catalog)
        if frames is not None:
            return {frame for frame in frames if frame in needed}
        births = {birth for birth, rows in catalog.objects.items() if any(row.digest == digest for row in rows)}
        return {frame for frame in needed.frames() if not births or frame[0] in births}

    def _frames(self, digest: bytes, catalog: Catalog) -> set[Frame] | None:
        try:
            _, rows = footer_of(self._place, catalog.packs[digest])
        except ObjectDamaged:
            return None
        return {(row.birth, row.number) for row in rows}

    # Snapshots

    def _drop_snapshots(self, going: Sequence[Manifest], notes: Sequence[Note]) -> None:
        """Note first, then run objects, then manifests: a crash in between leaves nothing unexplained and no run open."""
        if not going:
            return
        old = [note for note in notes if note.event == "dropped"]
        old = old if len(old) >= _NOTES_LIMIT else []
        new = {(each.summary.writer, each.summary.sequence) for each in going}
        known = {each for note in old for each in note.sequences}
        note = Note(event="dropped", time=self._clock.now(), sequences=tuple(sorted(new | known)))
        content = self._place.signed.encode_note(note)
        self._store.put(name_for(Kind.NOTE, content, time=note.time), content)
        for each in old:
            self._store.delete(each.name)
        runs = {each.summary.run for each in going}
        for name, event in self._place.run_events():
            if event.run in runs:
                self._store.delete(name)
        for manifest in going:
            self._store.delete(manifest.summary.name)

    # Runs

    def forget_old_runs(self) -> None:
        """Remove the objects of runs that ended without a manifest, a grace after their last sign; the end itself goes last."""
        events = self._place.run_events()
        finished = {each.summary.run for each in self._survey().manifests}
        ended = {event.run for _, event in events if event.event in ENDS} - finished
        last: dict[bytes, int] = {}
        for _, event in events:
            last[event.run] = max(event.received, last.get(event.run, 0))
        noted = {run for mark in self._place.marks() for run in mark.runs}
        for name, event in sorted(events, key=lambda each: each[1].event in ENDS):
            if event.run in ended - noted and last[event.run] <= self._turn.store_now - self._grace:
                self._store.delete(name)
