"""Which packs are needed, which can go, and which are worth rewriting.

Pure: no clock, no storage. Promise: a pack is let go only while every live frame in it stands in another pack that stays.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from opsd.repository.frames import FrameRow
from opsd.repository.index import PackRow
from opsd.repository.moving import Moving
from opsd.repository.references import FrameSet
from opsd.values import dataclass

#: Dead bytes that may stay, as a share of live ones; the rest is won back by rewriting, the deadest packs first.
DEAD_SHARE = 0.05
#: Packs smaller than this are gathered into larger ones, once together they fill half of one.
SMALL_PACK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PackState:
    """A listed pack that is not marked to go: its frames, and whether it was stored before the oldest open run began.

    `damaged`: it is marked as such, so what stands in it counts as standing nowhere.
    """

    pack: PackRow
    rows: tuple[FrameRow, ...]
    settled: bool
    damaged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """What to do with packs. `dead` need nothing first; `rewrite` go once their live frames were moved. Sizes in bytes."""

    dead: tuple[PackRow, ...]
    rewrite: tuple[Moving, ...]
    live_bytes: int
    dead_bytes: int
    total_bytes: int

    @property
    def freed_bytes(self) -> int:
        """What the store will have less in the end."""
        moved = sum(row.stored_length for each in self.rewrite for row in each.rows)
        return sum(pack.size for pack in self.dead) + sum(each.pack.size for each in self.rewrite) - moved


def _live_rows(state: PackState, needed: FrameSet) -> tuple[FrameRow, ...]:
    """Each needed frame once, even if a pack holds it twice: a pack is no second holder of what it holds."""
    once = {(row.birth, row.number): row for row in state.rows if (row.birth, row.number) in needed}
    return tuple(once.values())


def judge(states: Sequence[PackState], needed: FrameSet, pack_bytes: int) -> Liveness:
    """Decide about every pack, given the frames that some manifest needs."""
    live = {state.pack.digest: _live_rows(state, needed) for state in states}
    sound = [state for state in states if not state.damaged]
    holders = Counter((row.birth, row.number) for state in sound for row in live[state.pack.digest])
    dead: list[PackRow] = []
    staying: list[PackState] = []
    # The damaged last: by then it is known what the others still hold.
    for state in sorted(states, key=lambda each: (each.damaged, len(live[each.pack.digest]), each.pack.digest)):
        rows = live[state.pack.digest]
        others = 0 if state.damaged else 1
        if state.settled and all(holders[row.birth, row.number] > others for row in rows):
            holders.subtract((row.birth, row.number) for row in rows if not state.damaged)
            dead.append(state.pack)
        else:
            staying.append(state)
    rewrite = _worth_rewriting([state for state in staying if not state.damaged], live, pack_bytes)
    live_bytes = sum(row.stored_length for state in staying for row in live[state.pack.digest])
    total = sum(state.pack.size for state in states)
    return Liveness(
        dead=tuple(dead), rewrite=rewrite, live_bytes=live_bytes, dead_bytes=total - live_bytes, total_bytes=total
    )


def _worth_rewriting(
    staying: Iterable[PackState], live: dict[bytes, tuple[FrameRow, ...]], pack_bytes: int
) -> tuple[Moving, ...]:
    """The deadest packs until little enough is dead, and small ones once they are worth a pack."""
    moving = {
        state.pack.digest: Moving(pack=state.pack, rows=live[state.pack.digest]) for state in staying if state.settled
    }
    sizes = {digest: sum(row.stored_length for row in each.rows) for digest, each in moving.items()}
    waste = {
        digest: sum(row.stored_length for row in state.rows) - sizes[digest]
        for state in staying
        if (digest := state.pack.digest) in moving
    }
    allowed = sum(sizes.values()) * DEAD_SHARE
    chosen: set[bytes] = set()
    total = sum(waste.values())
    for digest in sorted(waste, key=lambda each: (-waste[each] / moving[each].pack.size, each)):
        if total <= allowed or not waste[digest]:
            break
        chosen.add(digest)
        total -= waste[digest]
    small = {digest for digest, each in moving.items() if each.pack.size < min(SMALL_PACK_BYTES, pack_bytes // 4)}
    if len(small) > 1 and sum(sizes[digest] for digest in small) >= pack_bytes // 2:
        chosen |= small
    return tuple(moving[digest] for digest in sorted(chosen, key=lambda each: moving[each].pack.birth))
