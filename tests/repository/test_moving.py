"""Frames move byte for byte, and a merged index says all that its parts said."""

from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.errors import ObjectDamaged
from opsd.repository.catalog import Place, footer_of
from opsd.repository.format import digest_of
from opsd.repository.frames import FrameRow
from opsd.repository.index import IndexPart, decode_index
from opsd.repository.moving import FrameMover, Moved, Moving, merge_index
from tests.support.pruning import Nights, noise


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = Nights.new(tmp_path)
    for number in range(12):
        nights.night({f"new{number}": noise(20_000, number)})
    return nights


Known = tuple[bytes, bytes, int, bytes]


def entries(place: Place) -> set[Known]:
    """All that the index says: prefix, birth id, number, object."""
    found = set()
    for info in place.store.list("index/"):
        part = IndexPart(
            info.name, decode_index(info.name, place.store.read(info.name), place.ring.repository, place.ring.index())
        )
        found |= {
            (each.prefix, part.rows[each.row].birth, each.number, part.rows[each.row].digest) for each in part.entries()
        }
    return found


def rows(place: Place) -> dict[tuple[bytes, int], list[bytes]]:
    """Every frame's stored bytes, by address, as often as it stands anywhere."""
    found: dict[tuple[bytes, int], list[bytes]] = {}
    for info in place.store.list("packs/"):
        for row in footer_of(place, info)[1]:
            found.setdefault((row.birth, row.number), []).append(
                place.store.read(info.name, row.offset, row.stored_length)
            )
    return found


def all_of(place: Place) -> list[Moving]:
    found = [footer_of(place, info) for info in place.store.list("packs/")]
    return [Moving(pack=pack, rows=frames) for pack, frames in sorted(found, key=lambda each: each[0].birth)]


def move(nights: Nights, chosen: list[Moving]) -> Moved:
    repository = nights.world.open()
    return FrameMover(repository.place, repository.spool() / "moving", nights.clock, lambda: None).move(chosen)


# Index


def test_a_merge_keeps_every_entry_and_leaves_one_object(nights: Nights) -> None:
    place = nights.world.open().place
    before = entries(place)
    assert merge_index(place) == 12
    assert entries(place) == before
    assert len(list(place.store.list("index/"))) == 1
    assert merge_index(place) == 0


def test_few_objects_are_not_merged(nights: Nights) -> None:
    place = nights.world.open().place
    assert merge_index(place, most=12) == 0


def test_a_merge_drops_entries_of_packs_that_are_gone_and_no_others(nights: Nights) -> None:
    place = nights.world.open().place
    before = entries(place)
    gone = next(info for info in place.store.list("packs/") if any(each[3] == digest_of(info.name) for each in before))
    place.store.delete(gone.name)
    assert merge_index(place, most=12)
    assert entries(place) == {each for each in before if each[3] != digest_of(gone.name)}


def test_a_merge_leaves_out_packs_that_are_about_to_go(nights: Nights) -> None:
    place = nights.world.open().place
    before = entries(place)
    going = {each[3] for each in sorted(before)[:3]}
    merge_index(place, most=0, without=going)
    assert entries(place) == {each for each in before if each[3] not in going}


def test_what_a_damaged_index_object_said_comes_back_from_footers(nights: Nights) -> None:
    place = nights.world.open().place
    before = entries(place)
    victim = min(info.name for info in place.store.list("index/"))
    nights.flip(victim, 100)
    merge_index(place)
    assert entries(place) == before
    assert victim not in {info.name for info in place.store.list("index/")}


def test_a_merge_stops_where_neither_index_nor_footer_tells_what_a_pack_holds(nights: Nights) -> None:
    place = nights.world.open().place
    for info in place.store.list("index/"):
        nights.flip(info.name, 100)
    nights.flip(min(info.name for info in place.store.list("packs/")), -20)
    listed = {info.name for info in place.store.list("index/")}
    with pytest.raises(ObjectDamaged):
        merge_index(place)
    assert {info.name for info in place.store.list("index/")} == listed


# Frames


def test_moved_frames_are_the_same_bytes_under_the_same_address(nights: Nights) -> None:
    place = nights.world.open().place
    before = rows(place)
    moved = move(nights, all_of(place))
    assert len(moved.stored) < len(moved.sources)
    for name in [info.name for info in place.store.list("packs/") if digest_of(info.name) in moved.sources]:
        place.store.delete(name)
    assert rows(place) == before
    nights.require_truth()


def test_a_frame_that_two_packs_hold_is_moved_once(nights: Nights) -> None:
    place = nights.world.open().place
    move(nights, all_of(place))
    nights.clock.advance(DAY)
    before = {info.name for info in place.store.list("packs/")}
    chosen = all_of(place)
    again = move(nights, chosen)
    assert set(again.sources) == {each.pack.digest for each in chosen}
    for name in before:
        place.store.delete(name)
    assert {len(each) for each in rows(place).values()} == {1}
    nights.require_truth()


def test_only_the_chosen_frames_move(nights: Nights) -> None:
    place = nights.world.open().place
    one = max(all_of(place), key=lambda each: len(each.rows))
    kept: tuple[FrameRow, ...] = one.rows[::2]
    (stored,) = move(nights, [Moving(pack=one.pack, rows=kept)]).stored
    assert {(row.birth, row.number) for row in stored.rows} == {(row.birth, row.number) for row in kept}


@pytest.mark.parametrize("place", [3, 40, 1500, -300, -2], ids=["header", "head", "middle", "footer", "end"])
def test_a_damaged_pack_is_left_out_and_the_others_of_its_group_move(nights: Nights, place: int) -> None:
    chosen = all_of(nights.world.open().place)
    victim = chosen[3].pack
    nights.flip(victim.name, place)
    moved = move(nights, chosen)
    assert set(moved.sources) == {each.pack.digest for each in chosen} - {victim.digest}
    assert [warning.subject for warning in nights.world.recorder.warnings] == [victim.name]
    inside = {(row.birth, row.number) for each in moved.stored for row in each.rows}
    assert not inside & {(row.birth, row.number) for row in chosen[3].rows}


def test_nothing_is_put_where_all_packs_are_damaged(nights: Nights) -> None:
    chosen = all_of(nights.world.open().place)[:2]
    for each in chosen:
        nights.flip(each.pack.name, 1500)
    before = nights.objects()
    assert move(nights, chosen) == Moved(stored=(), sources=())
    assert nights.objects() == before
