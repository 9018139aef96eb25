"""What can be mended without a copy.

Damaged packs are marked, so that the next backup stores anew what they held; a damaged index object is written again from the
packs' footers.

Promise: nothing is removed, and nothing damaged is given a fresh name. Design: Many writers, and prune without locks.
"""

import os
from dataclasses import dataclass

from opsd.repository.catalog import marked_packs
from opsd.repository.format import Kind, digest_of, name_for
from opsd.repository.moving import merge_index
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark
from opsd.verify.check import CheckReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was done: names of packs marked as damaged, and how many index objects were replaced."""

    packs: tuple[str, ...]
    index_objects: int


def repair(repository: Repository, report: CheckReport) -> Repaired:
    """Mend what a check found, as far as that goes without a copy.

    Raises:
        ObjectDamaged: what only a damaged index object named has no valid footer.
    """
    place = repository.place
    known = marked_packs(repository.marks())
    names = {problem.object for problem in report.problems if problem.object.startswith("packs/")}
    packs = tuple(sorted(name for name in names if "(" not in name and digest_of(name) not in known))
    if packs:
        now = repository.around.clock.now()
        digests = tuple(digest_of(name) for name in packs)
        content = place.signed.encode_mark(Mark(mark=os.urandom(16), event="damaged", time=now, packs=digests))
        place.store.put(name_for(Kind.MARK, content, time=now), content)
    damaged_index = any(problem.object.startswith("index/") for problem in report.problems)
    return Repaired(packs=packs, index_objects=merge_index(place) if damaged_index else 0)
