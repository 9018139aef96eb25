"""What can be mended without a copy.

Damaged packs are marked, so that the next backup stores anew what they held; a mark ends for packs that are whole again or gone; a
damaged index object is written again from the packs' footers.

Promise: no pack is removed, nothing damaged is given a fresh name, and no mark ends but for a pack that was proved to its last
frame. Design: Many writers, and prune without locks.
"""

import os
from collections.abc import Collection, Iterable, Sequence

from opsd.repository.catalog import damaged_packs, marked_packs
from opsd.repository.format import digest_of
from opsd.repository.moving import merge_index
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark
from opsd.retention.marking import put_mark
from opsd.values import dataclass
from opsd.verify.check import CheckReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was done: names of packs marked as damaged, and of those whose mark ended, and how many index objects were replaced."""

    packs: tuple[str, ...]
    whole: tuple[str, ...]
    index_objects: int


def repair(repository: Repository, report: CheckReport) -> Repaired:
    """Mend what a check found, as far as that goes without a copy.

    Raises:
        ObjectDamaged: what only a damaged index object named has no valid footer, or a mark can't be read.
    """
    place = repository.place
    marks = repository.marks()
    packs = _damaged(report, marked_packs(marks))
    if packs:
        _mark(repository, [digest_of(name) for name in packs])
    marked = damaged_packs(marks)
    whole = tuple(sorted(name for name in report.proved if digest_of(name) in marked))
    if whole:
        _end(repository, marks, {digest_of(name) for name in whole})
    damaged_index = any(problem.object.startswith("index/") for problem in report.problems)
    return Repaired(packs=packs, whole=whole, index_objects=merge_index(place) if damaged_index else 0)


def _damaged(report: CheckReport, known: Collection[bytes]) -> tuple[str, ...]:
    """Names of the damaged packs that no mark names yet."""
    names = {problem.object for problem in report.problems if problem.object.startswith("packs/")}
    return tuple(sorted(name for name in names if digest_of(name) not in known))


def _mark(repository: Repository, packs: Sequence[bytes]) -> None:
    now = repository.around.clock.now()
    put_mark(repository, Mark(mark=os.urandom(16), event="damaged", time=now, packs=tuple(packs)))


def _end(repository: Repository, marks: Iterable[Mark], whole: Collection[bytes]) -> None:
    """Marks that name these packs no more; what else a mark names is marked anew before it goes."""
    for mark in marks:
        rest = [pack for pack in mark.packs if pack not in whole]
        if mark.event != "damaged" or len(rest) == len(mark.packs):
            continue
        if rest:
            _mark(repository, rest)
        repository.place.store.delete(mark.name)
