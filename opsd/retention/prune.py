"""Prune: mark, wait, sweep, without locks.

Promise: nothing that a listed, unmarked or held manifest needs is ever removed, whatever runs go on beside it; where anything
can't be read and verified, prune stops. Design: Many writers, and prune without locks; the steps stand there.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import tzinfo
from typing import Final

from opsd.clock import DAY
from opsd.errors import KeyMissing, ObjectDamaged, PruneRefused
from opsd.model import Outcome, SnapshotSummary
from opsd.repository.catalog import damaged_packs, footer_of, marked_packs
from opsd.repository.format import digest_of
from opsd.repository.index import PackRow
from opsd.repository.moving import FrameMover, merge_index
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark
from opsd.retention.liveness import Liveness, PackState, judge
from opsd.retention.marking import note_open_runs, put_mark
from opsd.retention.policy import Candidate, Rules, Verdict, decide
from opsd.retention.survey import Survey, frames_needed, survey
from opsd.retention.sweep import Sweep, SweepOptions, Swept
from opsd.retention.turn import Turn
from opsd.storage.protocol import ObjectInfo
from opsd.values import dataclass

GRACE: Final = 3 * DAY
#: A prune that would remove more than this share of all bytes needs a person.
CONFIRM_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """How to prune. `confirmed`: a person agreed to losing more than a fifth of all bytes, and to gaps in the numbers.

    `grace` in nanoseconds. `elsewhere`, of a copy: lists now the names that its source still has. They stay whatever the rules
    say, or the next copy would bring them again.
    """

    rules: Rules
    zone: tzinfo
    confirmed: bool = False
    grace: int = GRACE
    elsewhere: Callable[[], Collection[str]] = frozenset


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
    """What a prune did. `swept_*` were removed for good, `waiting_until` is when what was marked now may be (ns UTC).

    `locked` objects were marked long enough ago and could not go, since the store locks them, at the latest until `locked_until`.
    """

    plan: PrunePlan
    marked_snapshots: int
    marked_packs: int
    moved_packs: int
    swept_snapshots: int
    swept_bytes: int
    waiting_until: int | None
    locked: int = 0
    locked_until: int | None = None


class Prune:
    """One prune of one repository."""

    def __init__(self, repository: Repository, options: PruneOptions) -> None:
        options.rules.require_meaning()
        if repository.place.ring.maintainer is None:
            raise KeyMissing(
                "the maintainer's key is not on this machine", hint="run prune on a host that has it, or enrol this one"
            )
        self._repository = repository
        self._place = repository.place
        self._options = options
        self._clock = repository.around.clock

    # Deciding

    def plan(self) -> PrunePlan:
        """What a prune would do now; changes nothing.

        Raises:
            PruneRefused: something can't be read, or is missing.
        """
        return self._plan(survey(self._repository, gaps_known=self._options.confirmed), None)

    def _plan(self, found: Survey, own: bytes | None) -> PrunePlan:
        summaries = found.summaries()
        held = found.held
        candidates = [_candidate(each, held=bytes.fromhex(each.id) in held) for each in summaries]
        # Listed last: what has come to the copy since is in its source all the same.
        elsewhere = frozenset(self._options.elsewhere())
        there = {each.id for each in summaries if each.name in elsewhere}
        decided = decide(candidates, self._options.rules, found.now, self._options.zone)
        verdicts = {each.id: _kept_elsewhere(each) if each.id in there else each for each in decided}
        staying = {each.id for each in summaries if verdicts[each.id].keep}
        needed = frames_needed(self._repository, [each for each in found.manifests if each.summary.id in staying])
        began = min((began for run, began in found.open.items() if run != own), default=found.now)
        return PrunePlan(snapshots=summaries, verdicts=verdicts, liveness=self._judge(found, needed, began, elsewhere))

    def _judge(self, found: Survey, needed: FrameSet, began: int, elsewhere: Collection[str]) -> Liveness:
        """About every pack that is not marked to go; what was stored since the oldest open run began stays for now."""
        damaged = damaged_packs(found.marks)
        going = marked_packs(mark for mark in found.marks if mark.event != "damaged")
        states, unreadable = [], []
        for digest, info in found.packs.items():
            if digest in going:
                continue
            try:
                pack, rows = footer_of(self._place, info)
            except ObjectDamaged:
                pack, rows = PackRow(b"", digest, info.size, 0), ()
                unreadable.append(info)
            settled = info.modified < began and info.name not in elsewhere
            state = PackState(pack=pack, rows=rows, settled=settled, damaged=digest in damaged)
            states.append(state)
        if unreadable:
            states = self._without_unknown(unreadable, states, needed)
        return judge(states, needed, self._place.settings.parameters.pack_bytes)

    def _without_unknown(
        self, unreadable: list[ObjectInfo], states: list[PackState], needed: FrameSet
    ) -> list[PackState]:
        """Packs without a valid footer go like dead ones, provided that nothing which a snapshot needs can stand in them.

        Raises:
            PruneRefused: something can, and no mark tells every run of it.
        """
        there = {(row.birth, row.number) for state in states if not state.damaged for row in state.rows}
        if all(frame in there for frame in needed.frames()):
            return states
        unknown = {digest_of(info.name): info.name for info in unreadable}
        for state in states:
            if state.pack.digest in unknown and not state.damaged:
                raise PruneRefused(
                    f"prune stops: {unknown[state.pack.digest]} is damaged, and a snapshot may need it",
                    hint="run 'opsd check', and heal it from a copy before you prune",
                )
        return [state for state in states if state.pack.digest not in unknown]

    # Carrying out

    def carry_out(self) -> PruneResult:
        """Sweep what was marked long enough ago, then mark what the rules drop now.

        Raises:
            TryLater: another prune is at work.
            PruneRefused: something can't be read or is missing, a clock is off, or a person must confirm.
        """
        confirmed = self._options.confirmed
        with Turn(self._repository) as turn:
            elsewhere = self._options.elsewhere
            options = SweepOptions(grace=self._options.grace, gaps_known=confirmed, elsewhere=elsewhere)
            sweep = Sweep(self._repository, turn, options)
            swept = sweep.carry_out()
            merge_index(self._place, staying=elsewhere)
            found = survey(self._repository, store_now=turn.store_now, gaps_known=confirmed)
            plan = self._plan(found, turn.run)
            self._confirm(plan)
            result = self._mark(plan, turn, swept)
            sweep.forget_old_runs()
        return result

    def _mark(self, plan: PrunePlan, turn: Turn, swept: Swept) -> PruneResult:
        stem = self._repository.spool() / turn.run.hex()
        moved = FrameMover(self._place, stem, self._clock, turn.alive).move(plan.liveness.rewrite)
        packs = (*(pack.digest for pack in plan.liveness.dead), *moved.sources)
        names = tuple(each.name for each in plan.dropped)
        now = self._clock.now()
        if packs or names:
            turn.alive()
            identity = os.urandom(16)
            put_mark(self._repository, Mark(mark=identity, event="mark", time=now, snapshots=names, packs=packs))
            note_open_runs(self._repository, identity, turn.run)
        return PruneResult(
            plan=plan,
            marked_snapshots=len(names),
            marked_packs=len(packs),
            moved_packs=len(moved.stored),
            swept_snapshots=swept.snapshots,
            swept_bytes=swept.size,
            waiting_until=now + self._options.grace if packs or names else None,
            locked=swept.locked,
            locked_until=swept.locked_until or None,
        )

    def _confirm(self, plan: PrunePlan) -> None:
        going = plan.liveness.freed_bytes
        if self._options.confirmed or going <= plan.liveness.total_bytes * CONFIRM_SHARE:
            return
        raise PruneRefused(
            f"this would remove {going * 100 // max(1, plan.liveness.total_bytes)} % of all stored bytes",
            hint="look at 'opsd prune --dry-run'; if that is meant, run 'opsd prune --yes'",
        )


def _kept_elsewhere(verdict: Verdict) -> Verdict:
    return replace(verdict, keep=True, reasons=(*verdict.reasons, "source"))


def _candidate(summary: SnapshotSummary, *, held: bool) -> Candidate:
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
