"""A pack is read once, through a window of any size, and nothing in it goes unseen."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.repository.catalog import Place, footer_of
from opsd.storage.protocol import ObjectInfo
from opsd.verify.packs import Footer, PackProof, PackRead
from tests.support.engine import World, files, make_tree

WINDOWS = [1000, 20_000, 1 << 20]


@pytest.fixture
def world(tmp_path: Path) -> World:
    noise = random.Random(1)
    tree = make_tree(tmp_path / "tree", {f"f{number}": noise.randbytes(7000 * number) for number in range(12)})
    world = World.new(tmp_path / "world")
    world.backup(files(tree))
    return world


@pytest.fixture
def place(world: World) -> Place:
    return world.open(reader=True).place


def largest(place: Place) -> tuple[ObjectInfo, Footer]:
    info = max(place.store.list("packs/"), key=lambda each: each.size)
    return info, footer_of(place, info)


def read_as(place: Place, content: bytes, window: int, *, decodes: bool = True) -> PackRead:
    """Read the largest pack as if it had these bytes now; its footer was read before."""
    info, footer = largest(place)
    place.store.put(info.name, content, replace=True)
    return PackProof(place, decodes=decodes, window=window).read(replace(info, size=len(content)), footer)


@pytest.mark.parametrize("window", WINDOWS)
def test_whole_packs_hold_through_any_window(place: Place, window: int) -> None:
    for info in place.store.list("packs/"):
        found = PackProof(place, decodes=True, window=window).read(info, footer_of(place, info))
        assert (found.size, found.problem, found.bad, found.unread) == (info.size, None, {}, set())


@pytest.mark.parametrize("window", WINDOWS)
def test_a_flipped_bit_is_seen_in_the_name_and_in_its_frame_alone(place: Place, window: int) -> None:
    info, (_, rows) = largest(place)
    whole = place.store.read(info.name)
    for row in rows:
        content = bytearray(whole)
        content[row.offset + row.stored_length // 2] ^= 1
        found = read_as(place, bytes(content), window)
        assert found.problem == "its bytes do not match its name"
        assert set(found.bad) == {row}


@pytest.mark.parametrize("place_of_flip", [0, 10, -1, -5])
def test_a_flip_outside_of_the_frames_is_seen_too(place: Place, place_of_flip: int) -> None:
    content = bytearray(place.store.read(largest(place)[0].name))
    content[place_of_flip] ^= 1
    assert read_as(place, bytes(content), 1 << 20).problem == "its bytes do not match its name"


@pytest.mark.parametrize("window", WINDOWS)
def test_of_a_pack_that_was_cut_the_frames_behind_the_cut_are_bad(place: Place, window: int) -> None:
    info, (_, rows) = largest(place)
    cut = rows[len(rows) // 2].offset + 1
    found = read_as(place, place.store.read(info.name)[:cut], window)
    assert found.problem
    assert set(found.bad) == {row for row in rows if row.offset + row.stored_length > cut}


def test_bytes_after_the_end_do_not_go_unseen(place: Place) -> None:
    found = read_as(place, place.store.read(largest(place)[0].name) + b"x", 20_000)
    assert (found.problem, found.bad) == ("its bytes do not match its name", {})


def test_without_keys_a_pack_is_still_compared_with_its_name(place: Place) -> None:
    info, (_, rows) = largest(place)
    whole = place.store.read(info.name)
    assert read_as(place, whole, 20_000, decodes=False) == PackRead(size=len(whole), unread=set(rows))
    assert read_as(place, whole[:-1] + b"?", 20_000, decodes=False).problem == "its bytes do not match its name"
