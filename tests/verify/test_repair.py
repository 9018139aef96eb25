"""What check finds damaged is stored anew by the next backup, and older snapshots that share it come back whole."""

import random
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from opsd.clock import DAY, FixedClock
from opsd.repository.catalog import damaged_packs
from opsd.repository.format import digest_of
from opsd.storage.faulty import Fault, FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore
from opsd.verify.check import Check, CheckOptions, CheckReport
from opsd.verify.repair import Repaired, repair
from tests.support.copying import CHANGES
from tests.support.engine import START, World, files, make_tree, way_to


def flip(world: World, name: str, place: int) -> None:
    """Turn one bit of a stored object."""
    content = bytearray(world.store.read(name))
    content[place] ^= 1
    world.store.put(name, bytes(content), replace=True)


def test_a_damaged_pack_is_stored_anew_and_all_snapshots_heal(tmp_path: Path) -> None:
    clock = FixedClock(START * 2)
    world = World.new(tmp_path / "world", clock=clock)
    content = {f"f{number}": random.Random(number).randbytes(40_000) for number in range(12)}
    tree = make_tree(tmp_path / "tree", content)
    first = world.backup(files(tree)).snapshot.id
    whole = world.contents(first)
    pack = max(world.store.list("packs/"), key=lambda info: info.size)
    flip(world, pack.name, pack.size // 2)
    report = Check(world.open(reader=True), CheckOptions(share=1.0)).run()
    assert [problem.object for problem in report.problems] == [pack.name]
    assert repair(world.open(), report).packs == (pack.name,)
    assert repair(world.open(), report).packs == ()
    clock.advance(DAY)
    second = world.backup(files(tree))
    assert second.snapshot.added_bytes > 100_000
    assert world.contents() == whole
    assert world.contents(first) == whole


def test_a_damaged_index_object_is_written_again(tmp_path: Path) -> None:
    world = World.new(tmp_path / "world")
    tree = make_tree(tmp_path / "tree", {"a": b"x" * 9000})
    world.backup(files(tree))
    (index,) = world.store.list("index/")
    flip(world, index.name, 100)
    report = Check(world.open(), CheckOptions()).run()
    assert repair(world.open(), report).index_objects == 1
    assert Check(world.open(), CheckOptions()).run().problems == ()
    assert world.contents() == {f"files:{tree}/a": b"x" * 9000}


# The end of a mark


def checked(world: World, *, share: float = 0.0, reader: bool = True) -> CheckReport:
    return Check(world.open(reader=reader), CheckOptions(share=share)).run()


def mended(world: World, *, share: float = 0.0, reader: bool = True) -> Repaired:
    return repair(world.open(), checked(world, share=share, reader=reader))


def marked(world: World) -> set[bytes]:
    return set(damaged_packs(world.open().marks()))


def spoilt(folder: Path) -> tuple[World, list[str], list[tuple[int, ...]]]:
    """A world of several packs, two of them damaged and marked, their names, and the way to its tree before its last snapshot."""
    world = World.new(folder / "world")
    for number in range(3):
        content = {f"f{number}": random.Random(number).randbytes(60_000)}
        tree = make_tree(folder / "tree", content)
        before = way_to(tree)
        world.backup(files(tree))
    names = [info.name for info in sorted(world.store.list("packs/"), key=lambda info: -info.size)[:2]]
    for name in names:
        flip(world, name, 30_000)
    assert mended(world, share=1.0).packs == tuple(sorted(names))
    return world, names, before


def test_a_marked_pack_is_read_by_every_check_until_it_is_whole(tmp_path: Path) -> None:
    world, names, _ = spoilt(tmp_path)
    report = checked(world)
    assert {problem.object for problem in report.problems} == set(names)
    assert report.packs_read == 2
    assert mended(world) == Repaired(packs=(), whole=(), index_objects=0)
    assert marked(world) == {digest_of(name) for name in names}


def test_the_mark_of_a_pack_that_is_whole_again_ends_and_runs_rely_on_it(tmp_path: Path) -> None:
    world, names, before = spoilt(tmp_path)
    flip(world, names[0], 30_000)
    assert mended(world).whole == (names[0],)
    assert marked(world) == {digest_of(names[1])}
    flip(world, names[1], 30_000)
    assert mended(world).whole == (names[1],)
    assert not list(world.store.list("marks/"))
    assert checked(world).packs_read == 0
    again = world.backup(files(tmp_path / "tree")).snapshot
    # Where somebody wrote in /tmp meanwhile, the listing is another; the content is not.
    most = 0 if way_to(tmp_path / "tree") == before else again.bytes // 50
    assert again.added_bytes <= most


def test_no_mark_ends_where_no_key_can_prove_the_frames(tmp_path: Path) -> None:
    world, names, _ = spoilt(tmp_path)
    for name in names:
        flip(world, name, 30_000)
    assert mended(world, reader=False).whole == ()
    assert marked(world) == {digest_of(name) for name in names}


# Stopped on the way


def held(world: World) -> dict[str, dict[str, bytes]]:
    return {each.id: world.contents(each.id) for each in world.open().snapshots()}


def two_packs(folder: Path) -> tuple[World, str, dict[str, dict[str, bytes]]]:
    """Two nights and what they hold; the pack of the first is marked as damaged and whole again, the other's is damaged, and an index object too."""
    world = World.new(folder / "world", clock=FixedClock(START * 2))
    tree = make_tree(folder / "tree", {"a": random.Random(1).randbytes(40_000)})
    world.backup(files(tree))
    first = max(world.store.list("packs/"), key=lambda info: info.size).name
    flip(world, first, 5_000)
    mended(world, share=1.0)
    flip(world, first, 5_000)
    make_tree(tree, {"b": random.Random(2).randbytes(30_000)})
    world.backup(files(tree))
    truth = held(world)
    others = [info for info in world.store.list("packs/") if info.name != first]
    second = max(others, key=lambda info: info.size).name
    flip(world, second, 5_000)
    flip(world, max(info.name for info in world.store.list("index/")), 100)
    return world, second, truth


@pytest.mark.slow
def test_a_stop_anywhere_in_a_repair_without_a_copy_spoils_nothing_and_the_next_ends_well(tmp_path: Path) -> None:
    begun, damaged, truth = two_packs(tmp_path)
    assert isinstance(begun.store, MemoryStore)
    tried = 0
    for way in (Stop(at=0), *(Stop(at=0, how=how, torn_at=100, kinds=CHANGES) for how in (Fault.TORN, Fault.LOST))):
        for at in count():
            world = replace(begun, folder=tmp_path / f"{way.how}{at}", store=begun.store.clone())
            shutil.copytree(begun.folder, world.folder)
            faulty = FaultyStore(world.store, replace(way, at=at))
            with suppress(PowerCut):
                mended(replace(world, store=faulty), share=1.0)
                if not faulty.has_lost:
                    break
            tried += 1
            # No store that opsd writes to tears a mark; a person removes it.
            torn = [each.object for each in checked(world).problems if each.object.startswith("marks/")]
            for name in torn:
                world.store.delete(name)
            mended(world, share=1.0)
            assert damaged_packs(world.open().marks()) == {digest_of(damaged)}
            world.backup(files(tmp_path / "tree"))
            assert {each.object for each in checked(world, share=1.0).problems} == {damaged}
            assert truth.items() <= held(world).items()
    assert tried > 15
