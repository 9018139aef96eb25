"""What check finds damaged is stored anew by the next backup, and older snapshots that share it come back whole."""

import random
from pathlib import Path

from opsd.clock import DAY, FixedClock
from opsd.verify.check import Check, CheckOptions
from opsd.verify.repair import repair
from tests.support.engine import START, World, files, make_tree


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
