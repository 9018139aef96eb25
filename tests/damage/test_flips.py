"""Any bit of any object flipped: always found, never wrong data (design, What must hold, 2)."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY, FixedClock
from opsd.errors import OpsdError
from opsd.repository.repository import Repository
from opsd.storage.memory import MemoryStore
from opsd.verify.check import Check, CheckOptions
from tests.support.engine import START, World, files, make_tree

#: Objects up to this size are tried byte by byte, larger ones at so many sampled places.
SMALL_BYTES = 600
SAMPLES = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two snapshots of a small tree."""
    folder = tmp_path_factory.mktemp("flips")
    clock = FixedClock(START)
    world = World.new(folder / "world", clock=clock)
    tree = make_tree(
        folder / "tree", {f"f{number}": random.Random(number).randbytes(3000 * number) for number in range(20)}
    )
    world.backup(files(tree))
    clock.advance(DAY)
    (tree / "f3").write_bytes(b"changed")
    world.backup(files(tree))
    return world


def flipped(world: World, name: str, place: int, folder: Path) -> World:
    """The world with one bit of one object turned, and no cache."""
    assert isinstance(world.store, MemoryStore)
    store = world.store.clone()
    content = bytearray(store.read(name))
    content[place] ^= 1 << place % 8
    store.put(name, bytes(content), replace=True)
    copy = replace(world, store=store, folder=folder)
    (folder / "state").mkdir(parents=True, exist_ok=True)
    return copy


def places(size: int) -> list[int]:
    """Which bytes to turn."""
    if size <= SMALL_BYTES:
        return list(range(0, size, 7))
    chosen = random.Random(size)
    return sorted({0, 4, 5, 6, 8, 12, size // 2, size - 1, size - 4, *(chosen.randrange(size) for _ in range(SAMPLES))})


def as_reader(world: World, original: World) -> Repository:
    """Opened with all keys, the state of the original host."""
    return replace(original, store=world.store, folder=original.folder).open(reader=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_check_names_every_flipped_object_and_reading_never_lies(world: World, tmp_path: Path) -> None:
    whole = world.contents()
    tried = 0
    for info in list(world.store.list("")):
        for place in places(info.size):
            tried += 1
            copy = flipped(world, info.name, place, tmp_path / str(tried))
            opened = Repository(
                as_reader(world, world).place, replace(world.surroundings(), cache=tmp_path / str(tried))
            )
            opened.place = replace(opened.place, store=copy.store)
            problems = Check(opened, CheckOptions(share=1.0)).run().problems
            assert any(info.name in problem.object for problem in problems), (info.name, place, problems)
            try:
                found = replace(copy, folder=world.folder).contents()
            except OpsdError:
                continue
            assert found in (whole, world.contents(world.open().snapshots()[0].id)), (info.name, place)
    assert tried > 250
