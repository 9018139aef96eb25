"""No needed frame is ever without a holder among the packs that stay and the rows that are moved."""

from hypothesis import given
from hypothesis import strategies as st

from opsd.repository.frames import BlobPlace, FrameRow
from opsd.repository.index import PackRow
from opsd.repository.references import FrameSet
from opsd.retention.liveness import Liveness, PackState, judge

Frame = tuple[int, int]
PACK_BYTES = 1000

frames = st.tuples(st.integers(0, 3), st.integers(0, 5))
packs = st.lists(st.tuples(st.lists(frames, max_size=8), st.booleans(), st.integers(0, 600), st.booleans()), max_size=8)
Drawn = list[tuple[list[Frame], bool, int, bool]]


def state(number: int, inside: list[Frame], *, settled: bool, padding: int = 0, damaged: bool = False) -> PackState:
    """A pack with frames of 50 bytes."""
    rows = tuple(
        FrameRow(bytes([birth]) * 16, frame, 1, 0, 1, 0, 100 + 50 * place, 50, 50, (BlobPlace(b"i" * 32, 0, 50),))
        for place, (birth, frame) in enumerate(inside)
    )
    row = PackRow(b"p" * 16, bytes([number]) * 32, 50 * len(rows) + 20 + padding, 10)
    return PackState(pack=row, rows=rows, settled=settled, damaged=damaged)


def states_of(drawn: Drawn) -> list[PackState]:
    """Packs as hypothesis drew them."""
    return [
        state(number, inside, settled=settled, padding=padding, damaged=damaged)
        for number, (inside, settled, padding, damaged) in enumerate(drawn)
    ]


def needed_frames(wanted: set[Frame]) -> FrameSet:
    found = FrameSet()
    for birth, frame in wanted:
        found.add(bytes([birth]) * 16, frame)
    return found


def outcome(given_packs: list[PackState], wanted: set[Frame]) -> tuple[Liveness, set[tuple[bytes, int]]]:
    """The judgement, and every frame that some pack holds when all is carried out."""
    found = judge(given_packs, needed_frames(wanted), PACK_BYTES)
    going = {pack.digest for pack in found.dead} | {each.pack.digest for each in found.rewrite}
    held = {(row.birth, row.number) for each in given_packs if each.pack.digest not in going for row in each.rows}
    return found, held | {(row.birth, row.number) for each in found.rewrite for row in each.rows}


@given(packs, st.sets(frames))
def test_every_needed_frame_that_some_pack_holds_is_held_afterwards(drawn: Drawn, wanted: set[Frame]) -> None:
    states = states_of(drawn)
    held_before = {(row.birth, row.number) for each in states for row in each.rows}
    found, held = outcome(states, wanted)
    assert held >= {frame for frame in needed_frames(wanted).frames() if frame in held_before}
    unsettled = {each.pack.digest for each in states if not each.settled}
    assert not unsettled & ({pack.digest for pack in found.dead} | {each.pack.digest for each in found.rewrite})


@given(packs, st.sets(frames))
def test_a_settled_pack_without_needed_frames_is_dead_and_sizes_add_up(drawn: Drawn, wanted: set[Frame]) -> None:
    states = states_of(drawn)
    needed = needed_frames(wanted)
    found, _ = outcome(states, wanted)
    useless = {
        each.pack.digest
        for each in states
        if each.settled and not any((row.birth, row.number) in needed for row in each.rows)
    }
    assert useless <= {pack.digest for pack in found.dead}
    assert found.total_bytes == sum(each.pack.size for each in states) == found.live_bytes + found.dead_bytes
    assert 0 <= found.freed_bytes <= found.total_bytes


@given(packs, st.sets(frames))
def test_what_stands_in_a_damaged_pack_counts_as_standing_nowhere(drawn: Drawn, wanted: set[Frame]) -> None:
    states = states_of(drawn)
    sound = [each for each in states if not each.damaged]
    before = {(row.birth, row.number) for each in sound for row in each.rows}
    found, _ = outcome(states, wanted)
    going = {pack.digest for pack in found.dead} | {each.pack.digest for each in found.rewrite}
    after = {(row.birth, row.number) for each in sound if each.pack.digest not in going for row in each.rows}
    after |= {(row.birth, row.number) for each in found.rewrite for row in each.rows}
    assert after >= {frame for frame in needed_frames(wanted).frames() if frame in before}
    assert not {each.pack.digest for each in states if each.damaged} & {each.pack.digest for each in found.rewrite}


def test_of_two_packs_with_the_same_frames_exactly_one_goes() -> None:
    found, held = outcome(
        [state(1, [(0, 0), (0, 1)], settled=True), state(2, [(0, 0), (0, 1)], settled=True)], {(0, 0), (0, 1)}
    )
    assert len(found.dead) == 1
    assert len(held) == 2


def test_a_pack_that_holds_a_frame_twice_is_no_second_holder_of_it() -> None:
    found, held = outcome([state(1, [(0, 0), (0, 0)], settled=True)], {(0, 0)})
    assert found.dead == ()
    assert held


def test_the_deadest_packs_are_rewritten_until_little_is_dead() -> None:
    full = [state(number, [(1, frame) for frame in range(6)], settled=True) for number in range(1)]
    holey = state(9, [(0, frame) for frame in range(6)], settled=True)
    found, _ = outcome([*full, holey], {(1, frame) for frame in range(6)} | {(0, 0)})
    assert [each.pack.digest for each in found.rewrite] == [holey.pack.digest]
    assert len(found.rewrite[0].rows) == 1
