"""Years of nights: what stays is no larger than what a fresh repository of the same snapshots would be."""

from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.clock import DAY, SECOND, FixedClock
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions
from opsd.verify.check import Check, CheckOptions
from tests.support.engine import SMALL, World, files, make_tree
from tests.support.torture import TORTURE, dice

#: The quick form; scripts/torture lives through all 800.
DAYS = 800 if TORTURE else 100
#: Later than the files that the test writes, so that the cache believes their times.
START = 2_000_000_000 * SECOND
FILES = 300
FILE_BYTES = 100_000
#: Packs are small beside the repository, as they are in life, and large beside the session keys that they carry.
PARAMETERS = replace(
    SMALL, pack_bytes=512 * 1024, frame_bytes=64 * 1024, cut_min=16 * 1024, cut_average=64 * 1024, cut_max=256 * 1024
)
HOUR = 3600 * SECOND


class Life:
    """A tree that changes a little each day, from a seed; `now` is what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._random = dice(800)
        self.now = {f"d{number % 5}/f{number}": self._random.randbytes(FILE_BYTES) for number in range(FILES)}
        make_tree(self.folder, self.now)

    def change(self) -> None:
        """One day: two files are rewritten, one in part; some days one goes and another comes."""
        changes = {name: self._random.randbytes(FILE_BYTES) for name in self._random.sample(sorted(self.now), 2)}
        grown = self._random.choice(sorted(self.now))
        changes[grown] = self.now[grown][: FILE_BYTES // 2] + self._random.randbytes(FILE_BYTES // 2)
        if not self._random.randrange(4):
            gone = self._random.choice(sorted(self.now.keys() - changes.keys()))
            (self.folder / gone).unlink()
            self.now = {name: content for name, content in self.now.items() if name != gone}
            changes[f"d{self._random.randrange(5)}/n{self._random.randrange(10**9)}"] = self._random.randbytes(
                FILE_BYTES
            )
        make_tree(self.folder, changes)
        self.now = self.now | changes


def size(world: World) -> int:
    """All bytes in the store."""
    return sum(info.size for info in world.store.list(""))


def fresh(folder: Path, kept: list[dict[str, bytes]]) -> int:
    """The size of a new repository with just these snapshots."""
    clock = FixedClock(START)
    world = World.new(folder / "world", clock=clock, parameters=PARAMETERS)
    tree = folder / "tree"
    before: dict[str, bytes] = {}
    for content in kept:
        make_tree(tree, {name: each for name, each in content.items() if before.get(name) != each})
        for name in before.keys() - content.keys():
            (tree / name).unlink()
        before = content
        world.backup(files(tree))
        clock.advance(DAY)
    return size(world)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_many_nights_of_backup_and_prune_the_repository_is_within_a_tenth_of_a_fresh_one(tmp_path: Path) -> None:
    clock = FixedClock(START)
    world = World.new(tmp_path / "world", clock=clock, parameters=PARAMETERS)
    life = Life(tmp_path / "tree")
    options = PruneOptions(rules=Rules(keep_daily=30, keep_monthly=12), zone=UTC)
    truth: dict[str, dict[str, bytes]] = {}
    for day in range(DAYS):
        truth[world.backup(files(life.folder)).snapshot.id] = life.now
        life.change()
        clock.advance(HOUR)
        Prune(world.open(), options).carry_out()
        clock.advance(DAY - HOUR)
        if not day % 60:
            listed = {each.id for each in world.open().snapshots()}
            truth = {name: content for name, content in truth.items() if name in listed}
    standing = world.open().snapshots()
    assert len(standing) == 42 if DAYS >= 400 else 30 < len(standing) < 42
    nightly = size(world)
    clock.advance(4 * DAY)
    Prune(world.open(), options).carry_out()
    ideal = fresh(tmp_path / "fresh", [truth[each.id] for each in standing])
    assert nightly <= 1.1 * ideal, (
        f"{nightly / ideal:.3f} of a fresh one; {size(world) / ideal:.3f} once the grace is over"
    )
    for each in standing[:: max(1, len(standing) // 6)]:
        assert world.contents(each.id) == {
            f"files:{life.folder}/{name}": content for name, content in truth[each.id].items()
        }
    report = Check(world.open(reader=True), CheckOptions(share=1.0)).run()
    assert not report.problems
    assert not report.notices
