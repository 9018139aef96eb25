"""Prune: mark, wait, sweep, without locks.

Promise: nothing that a listed, unmarked or held manifest needs is ever removed, whatever runs go on beside it; where anything
can't be read and verified, prune stops. Design: Many writers, and prune without locks; the steps stand there.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final

from opsd.clock import DAY, SECOND
from opsd.errors import IntegrityError, KeyMissing, NewerFormat, ObjectDamaged, PruneRefused
from opsd.model import Outcome, SnapshotSummary
from opsd.repository.catalog import Catalog, footer_of, load_catalog, marked_packs, marked_snapshots
from opsd.repository.format import Kind, digest_of, name_for
from opsd.repository.index import PackRow
from opsd.repository.manifest import Manifest
from opsd.repository.moving import FrameMover, merge_index
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of
from opsd.repository.runs import Mark, Note, RunEvent, open_runs
from opsd.retention.holds import holds_in_force
from opsd.retention.liveness import Liveness, PackState, judge
from opsd.retention.policy import Candidate, Rules, Verdict, decide
from opsd.storage.protocol import ObjectInfo

GRACE: Final = 3 * DAY
#: A run without a sign of life for so long is dead.
DEAD_AFTER: Final = 30 * DAY
#: Clocks of host and store may differ by this much.
CLOCK_TOLERANCE: Final = 300 * SECOND
#: A prune that would remove more than this share of all bytes needs a person.
CONFIRM_SHARE: Final = 0.2
_ENDS: Final = ("ended", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """How to prune. `confirmed`: a person agreed to losing more than a fifth of all bytes."""

    rules: Rules
    zone: tzinfo
    confirmed: bool = False
    grace: int = GRACE


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What a prune would do: a verdict for each snapshot (oldest first), and what happens to packs."""

    snapshots: tuple[SnapshotSummary, ...]
    verdicts: Mapping[str, Verdict]
    liveness: Liveness

    @property
    def dropped(self) -> tuple[SnapshotSummary, ...]:
        """The snapshots to be marked."""
        return tuple(each for each in self.snapshots if not self.verdicts[each.id].keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune did. `swept_*` were removed for good, `waiting_until` is when what was marked now may be (ns UTC)."""

    plan: PrunePlan
    marked_snapshots: int
    marked_packs: int
    moved_packs: int
    swept_snapshots: int
    swept_bytes: int
    waiting_until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """Everything prune decides from, listed in the order that the design gives: packs, open runs, manifests."""

    now: int
    packs: dict[bytes, ObjectInfo]
    open: dict[bytes, int]
    manifests: tuple[Manifest, ...]
    failed: frozenset[bytes]
    marks: tuple[Mark, ...]
    notes: tuple[Note, ...]

    @property
    def doomed(self) -> frozenset[str]:
        """Names of marked manifests that no hold saves."""
        held = holds_in_force(self.notes, self.now)
        return frozenset(name for name in marked_snapshots(self.marks) if digest_of(name) not in held)


class Prune:
    """One prune of one repository."""

    def __init__(self, repository: Repository, options: PruneOptions) -> None:
        options.rules.require_meaning()
        if repository.place.ring.maintainer is None:
            raise KeyMissing("the maintainer's key is not on this machine", hint="run prune on a host that has it, or enrol this one")
        self._repository = repository
        self._place = repository.place
        self._options = options
        self._clock = repository.around.clock
        self._store_now = 0

    # What is there

    def _strict(self) -> _Listing:
        """List and verify everything.

        Raises:
            PruneRefused: something can't be read.
        """
        store = self._place.store
        try:
            marks = tuple(self._place.marks())
            packs = {digest_of(info.name): info for info in store.list("packs/")}
            events = [event for _, event in self._place.run_events()]
            infos = sorted(store.list("snapshots/"), key=lambda each: each.name)
            manifests = tuple(self._repository.manifest(info) for info in infos)
            notes = tuple(self._place.notes())
            self._repository.compare_memory()
        except (IntegrityError, NewerFormat) as error:
            raise PruneRefused(f"prune stops: {error}", hint=error.hint or "run 'opsd check', and repair before you prune") from error
        now = self._clock.now()
        began: dict[bytes, int] = {}
        for event in events:
            began[event.run] = min(event.received, began.get(event.run, event.received))
        living = open_runs(events, {each.summary.run for each in manifests})
        return _Listing(
            now=now,
            packs=packs,
            open={run: began[run] for run, last in living.items() if last.received > now - DEAD_AFTER},
            manifests=manifests,
            failed=frozenset(event.run for event in events if event.event == "failed"),
            marks=marks,
            notes=notes,
        )

    def _summaries(self, listing: _Listing) -> tuple[SnapshotSummary, ...]:
        """Unmarked snapshots, oldest first; one whose run ended as failed counts as incomplete."""
        found = [
            replace(each.summary, complete=each.summary.complete and each.summary.run not in listing.failed)
            for each in listing.manifests
            if each.summary.name not in listing.doomed
        ]
        return tuple(sorted(found, key=lambda each: (each.started, each.id)))

    def _frames(self, manifests: Sequence[Manifest]) -> FrameSet:
        frames = FrameSet()
        for manifest in manifests:
            frames.add_all(frames_of(self._repository, manifest))
        return frames

    # Deciding

    def plan(self) -> PrunePlan:
        """What a prune would do now; changes nothing.

        Raises:
            PruneRefused: something can't be read.
        """
        return self._plan(self._strict())

    def _plan(self, listing: _Listing) -> PrunePlan:
        summaries = self._summaries(listing)
        held = holds_in_force(listing.notes, listing.now)
        candidates = [_candidate(each, bytes.fromhex(each.id) in held) for each in summaries]
        verdicts = {each.id: each for each in decide(candidates, self._options.rules, listing.now, self._options.zone)}
        staying = {each.id for each in summaries if verdicts[each.id].keep}
        needed = self._frames([each for each in listing.manifests if each.summary.id in staying])
        return PrunePlan(snapshots=summaries, verdicts=verdicts, liveness=self._judge(listing, needed))

    def _judge(self, listing: _Listing, needed: FrameSet) -> Liveness:
        oldest = min(listing.open.values(), default=listing.now)
        marked = marked_packs(listing.marks)
        states, unreadable = [], []
        for digest, info in listing.packs.items():
            if digest in marked:
                continue
            try:
                pack, rows = footer_of(self._place, info)
            except ObjectDamaged:
                pack, rows = PackRow(b"", digest, info.size, 0), ()
                unreadable.append(info)
            states.append(PackState(pack=pack, rows=rows, settled=info.modified < oldest))
        if unreadable:
            self._refuse_if_needed(unreadable, states, needed)
        return judge(states, needed, self._place.settings.parameters.pack_bytes)

    def _refuse_if_needed(self, unreadable: list[ObjectInfo], states: list[PackState], needed: FrameSet) -> None:
        """Packs without a valid footer go like dead ones, provided that nothing which a snapshot needs can stand in them."""
        there = {(row.birth, row.number) for state in states for row in state.rows}
        if any(frame not in there for frame in needed.frames()):
            raise PruneRefused(
                f"prune stops: {unreadable[0].name} is damaged, and a snapshot may need it",
                hint="run 'opsd check', and heal it from a copy before you prune",
            )

    # Carrying out

    def carry_out(self) -> PruneResult:
        """Sweep what was marked long enough ago, then mark what the rules drop now.

        Raises:
            PruneRefused: something can't be read, a clock is off, or a person must confirm.
        """
        run = self._begin()
        try:
            swept, freed = self._sweep()
            merge_index(self._place)
            result = self._mark(run, swept, freed)
        except BaseException:
            self._say(run, "failed")
            raise
        self._say(run, "ended")
        self._forget_old_runs()
        return result

    def _begin(self) -> bytes:
        """Say that a prune has begun; what the store then lists proves that it lists at once, and tells its time."""
        run = os.urandom(16)
        name = self._say(run, "begun")
        found = next((info for info in self._place.store.list("runs/") if info.name == name), None)
        if found is None:
            raise PruneRefused("the store does not list what was just put", hint="prune only where listings are current")
        self._store_now = found.modified
        difference = abs(found.modified - self._clock.now())
        if difference > CLOCK_TOLERANCE:
            self._say(run, "failed")
            raise PruneRefused(
                f"the clocks of this host and of the store differ by {difference // SECOND} s", hint="set them right (NTP), then prune again"
            )
        return run

    def _say(self, run: bytes, event: str) -> str:
        key = self._place.signed.signer()
        now = self._clock.now()
        content = self._place.signed.encode_run(RunEvent(run=run, writer=key.public().id, kind="prune", event=event, time=now), key)
        name = name_for(Kind.RUN, content, time=now)
        self._place.store.put(name, content)
        return name

    def _put_mark(self, mark: Mark) -> None:
        content = self._place.signed.encode_mark(mark)
        self._place.store.put(name_for(Kind.MARK, content, time=mark.time), content)

    def _mark(self, run: bytes, swept: int, freed: int) -> PruneResult:
        listing = self._strict()
        listing = replace(listing, open={key: began for key, began in listing.open.items() if key != run})
        plan = self._plan(listing)
        self._confirm(plan)
        moved = FrameMover(self._place, self._repository.spool(), self._clock).move(plan.liveness.rewrite)
        packs = (*plan.liveness.dead, *(each.pack for each in plan.liveness.rewrite))
        names = tuple(each.name for each in plan.dropped)
        if packs or names:
            now = self._clock.now()
            identity = os.urandom(16)
            self._put_mark(
                Mark(mark=identity, event="mark", time=now, snapshots=names, packs=tuple(pack.digest for pack in packs))
            )
            self._note_open_runs(identity, run)
        return PruneResult(
            plan=plan,
            marked_snapshots=len(names),
            marked_packs=len(packs),
            moved_packs=len(moved),
            swept_snapshots=swept,
            swept_bytes=freed,
            waiting_until=self._clock.now() + self._options.grace if packs or names else None,
        )

    def _confirm(self, plan: PrunePlan) -> None:
        going = plan.liveness.freed_bytes
        if self._options.confirmed or going <= plan.liveness.total_bytes * CONFIRM_SHARE:
            return
        raise PruneRefused(
            f"this would remove {going * 100 // max(1, plan.liveness.total_bytes)} % of all stored bytes",
            hint="look at 'opsd prune --dry-run'; if that is meant, run 'opsd prune --yes'",
        )

    def _note_open_runs(self, identity: bytes, own: bytes) -> None:
        """After the mark is durable: the runs that are open now, which may still rely on what it names."""
        events = [event for _, event in self._place.run_events()]
        finished = {self._repository.manifest(info).summary.run for info in self._place.store.list("snapshots/")}
        now = self._clock.now()
        living = tuple(
            run for run, last in open_runs(events, finished).items() if run != own and last.received > now - DEAD_AFTER
        )
        self._put_mark(Mark(mark=identity, event="open_runs", time=now, runs=living))

    # Sweeping

    def _sweep(self) -> tuple[int, int]:
        """Remove what ripe marks name. Returns how many snapshots and bytes went."""
        listing = self._strict()
        noted = {mark.mark: mark for mark in listing.marks if mark.event == "open_runs"}
        snapshots = size = 0
        for mark in listing.marks:
            if mark.event != "mark":
                continue
            note = noted.get(mark.mark)
            if note is None:
                self._note_open_runs(mark.mark, b"")
            elif mark.received <= self._store_now - self._options.grace and not set(note.runs) & set(listing.open):
                gone, freed = self._sweep_mark(mark)
                snapshots += gone
                size += freed
        return snapshots, size

    def _sweep_mark(self, mark: Mark) -> tuple[int, int]:
        store = self._place.store
        self._put_mark(Mark(mark=mark.mark, event="sweep", time=self._clock.now()))
        listing = self._strict()
        held = holds_in_force(listing.notes, listing.now)
        going = [each for each in listing.manifests if each.summary.name in mark.snapshots and digest_of(each.summary.name) not in held]
        names = {each.summary.name for each in going}
        needed = self._frames([each for each in listing.manifests if each.summary.name not in names])
        catalog = load_catalog(self._place, listing.marks)
        packs = [digest for digest in mark.packs if digest in catalog.packs and self._may_go(digest, needed, catalog, mark)]
        if going:
            sequences = tuple((each.summary.writer, each.summary.sequence) for each in going)
            note = Note(event="dropped", time=self._clock.now(), sequences=sequences)
            content = self._place.signed.encode_note(note)
            store.put(name_for(Kind.NOTE, content, time=note.time), content)
        runs = {each.summary.run for each in going}
        for name, event in self._place.run_events():
            if event.run in runs:
                store.delete(name)
        for each in going:
            store.delete(each.summary.name)
        self._drop_from_index(set(packs))
        freed = sum(catalog.packs[digest].size for digest in packs)
        for digest in packs:
            store.delete(catalog.packs[digest].name)
        for each_mark in self._place.marks():
            if each_mark.mark == mark.mark and each_mark.event != "mark":
                store.delete(each_mark.name)
        store.delete(mark.name)
        return len(going), freed

    def _may_go(self, digest: bytes, needed: FrameSet, catalog: Catalog, mark: Mark) -> bool:
        """Whether every live frame of a marked pack stands in another listed pack without a mark."""
        try:
            _, rows = footer_of(self._place, catalog.packs[digest])
        except ObjectDamaged:
            rows = ()
        live = [row for row in rows if (row.birth, row.number) in needed]
        others: dict[bytes, set[tuple[bytes, int]]] = {}
        for row in live:
            for pack in catalog.objects.get(row.birth, ()):
                if pack.digest != digest and pack.digest in catalog.usable() and pack.digest not in mark.packs:
                    if pack.digest not in others:
                        _, found = footer_of(self._place, catalog.packs[pack.digest])
                        others[pack.digest] = {(each.birth, each.number) for each in found}
        return all(any((row.birth, row.number) in frames for frames in others.values()) for row in live)

    def _drop_from_index(self, digests: set[bytes]) -> None:
        """Write the index without those packs, before they go, so that nobody is led to what is not there."""
        if digests:
            merge_index(self._place, most=0, without=digests)

    def _forget_old_runs(self) -> None:
        """Remove the objects of runs that ended without a manifest, a grace after their last sign; the end itself goes last."""
        events = self._place.run_events()
        finished = {self._repository.manifest(info).summary.run for info in self._place.store.list("snapshots/")}
        ended = {event.run for _, event in events if event.event in _ENDS} - finished
        last: dict[bytes, int] = {}
        for _, event in events:
            last[event.run] = max(event.received, last.get(event.run, 0))
        noted = {run for mark in self._place.marks() for run in mark.runs}
        for name, event in sorted(events, key=lambda each: each[1].event in _ENDS):
            if event.run in ended - noted and last[event.run] <= self._store_now - self._options.grace:
                self._place.store.delete(name)


def _candidate(summary: SnapshotSummary, held: bool) -> Candidate:  # noqa: FBT001 - one flag, private
    return Candidate(
        id=summary.id,
        started=summary.started,
        received=summary.received,
        host=summary.host,
        job=summary.job,
        sequence=summary.sequence,
        complete=summary.complete,
        writer=summary.writer,
        tags=frozenset(summary.tags),
        held=held,
        sources={source.label: source.outcome is not Outcome.FAILED for source in summary.sources},
    )
