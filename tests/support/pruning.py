"""Nights of backup and prune on a world: what most tests of retention need."""

import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path

from opsd.clock import DAY, FixedClock
from opsd.model import SnapshotSummary
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions, PruneResult
from opsd.storage.memory import MemoryStore
from tests.support.engine import START, World, files, make_tree

HOUR = 3600 * 10**9


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def prune(world: World, *, confirmed: bool = True, **rules: int) -> PruneResult:
    """One prune, by default of all but the last two snapshots."""
    options = PruneOptions(rules=Rules(**(rules or {"keep_last": 2})), zone=UTC, confirmed=confirmed)  # type: ignore[arg-type]
    return Prune(world.open(), options).carry_out()


@dataclass(slots=True)
class Nights:
    """A world, its clock and a tree that changes; `truth` is what each snapshot held when it was made."""

    world: World
    clock: FixedClock
    tree: Path
    truth: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @classmethod
    def new(cls, folder: Path, content: Mapping[str, bytes] | None = None) -> "Nights":
        """A new repository and a tree."""
        clock = FixedClock(START)
        tree = make_tree(folder / "tree", content or {f"f{number}": noise(12_000, number) for number in range(8)})
        return cls(world=World.new(folder / "world", clock=clock), clock=clock, tree=tree)

    def clone(self, folder: Path) -> "Nights":
        """A world of its own in this folder that has come as far, over the same tree."""
        clock = FixedClock(self.clock.now())
        world = replace(self.world, folder=folder / "world", store=MemoryStore(clock, self.store._objects), clock=clock)
        shutil.copytree(self.world.folder, world.folder)
        return Nights(world=world, clock=clock, tree=self.tree, truth=dict(self.truth))

    @property
    def store(self) -> MemoryStore:
        """The store."""
        assert isinstance(self.world.store, MemoryStore)
        return self.world.store

    def night(self, changes: Mapping[str, bytes] | None = None) -> SnapshotSummary:
        """Change files, back up, and let a day pass."""
        make_tree(self.tree, changes or {})
        made = self.world.backup(files(self.tree)).snapshot
        self.truth[made.id] = on_disk(self.tree)
        self.clock.advance(DAY)
        return made

    def nights(self, count: int, size: int = 30_000) -> list[SnapshotSummary]:
        """Several, one new file each."""
        return [self.night({f"night{number}": noise(size, 1000 + number)}) for number in range(count)]

    def later_prune(self, days: float = 4) -> PruneResult:
        """Let the grace pass, and prune."""
        self.clock.advance(int(days * DAY))
        return prune(self.world)

    def objects(self, *prefixes: str) -> dict[str, bytes]:
        """What the store holds, by name."""
        return {info.name: self.store.read(info.name) for each in prefixes or ("",) for info in self.store.list(each)}

    def flip(self, name: str, place: int) -> None:
        """Turn one bit."""
        content = bytearray(self.store.read(name))
        content[place] ^= 1
        modified = self.store.stat(name).modified
        self.store._objects[name] = (bytes(content), modified)

    def require_truth(self, snapshots: Iterable[str] | None = None) -> None:
        """Every listed snapshot (or these) restores to what it held."""
        for each in snapshots or [each.id for each in self.world.open().snapshots()]:
            assert self.world.contents(each) == self.truth[each]


def on_disk(root: Path) -> dict[str, bytes]:
    """What a tree holds."""
    return {f"files:{path}": path.read_bytes() for path in root.rglob("*") if path.is_file()}
