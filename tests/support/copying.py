"""Copies of a world's repository: what tests of copies, checks and repairs of them need."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path

from opsd.backup.copies import Copy, CopyOptions, CopyReport
from opsd.backup.copy_needs import needs_of
from opsd.backup.copy_run import CopyKeys
from opsd.backup.copy_state import CopyState
from opsd.backup.limits import Throttle
from opsd.backup.listings import list_source
from opsd.backup.transfers import Spool
from opsd.clock import Clock
from opsd.errors import OpsdError
from opsd.events import Recorder
from opsd.repository.local import HostState
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions, PruneResult
from opsd.storage.faulty import FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import Store
from tests.support.engine import World
from tests.support.pruning import Nights

#: What changes a store.
CHANGES = frozenset({"put", "delete"})


@dataclass(slots=True)
class Copier:
    """A host that fills one copy; with `world` it holds that host's keys, else none."""

    folder: Path
    source: Store
    target: Store
    clock: Clock
    world: World | None = None
    recorder: Recorder = field(default_factory=Recorder)

    @classmethod
    def of(cls, nights: Nights, folder: Path, *, keys: bool = True) -> "Copier":
        """One with an empty target in memory."""
        world = nights.world if keys else None
        return cls(
            folder=folder, source=nights.store, target=MemoryStore(nights.clock), clock=nights.clock, world=world
        )

    def clone(self, nights: Nights, folder: Path) -> "Copier":
        """A copier of its own for a clone of its nights, which has copied as much."""
        assert isinstance(self.target, MemoryStore)
        target = MemoryStore(nights.clock, self.target._objects)
        world = self.world and nights.world
        made = Copier(folder=folder, source=nights.store, target=target, clock=nights.clock, world=world)
        shutil.copytree(self.folder / "state", made.folder / "state")
        return made

    @property
    def state(self) -> CopyState:
        return CopyState(self.folder / "state", "disk")

    def options(self) -> CopyOptions:
        return CopyOptions(
            state=self.state,
            spool=Spool(folder=self.folder / "spool", stem="copy"),
            clock=self.clock,
            reporter=self.recorder,
            throttle=Throttle((), UTC, self.clock),
            keys=self.keys,
        )

    def keys(self) -> CopyKeys | None:
        if self.world is None:
            return None
        repository = self.world.open()
        state = HostState(self.folder / "state")
        return CopyKeys(signed=repository.place.signed, state=state, needs=needs_of(repository))

    def copy(self) -> CopyReport:
        """One `opsd copy`."""
        return Copy(self.source, self.target, self.options()).bring_up_to_date()

    def there(self) -> World:
        """The copy as a repository that is opened with the host's keys."""
        assert self.world
        there = replace(self.world, store=self.target, folder=self.folder / "reading")
        HostState(there.folder / "state").write_keys(self.world.open().place.ring)
        return there

    def restored(self) -> dict[str, dict[str, bytes]]:
        """What every snapshot in the copy restores to."""
        there = self.there()
        return {each.id: there.contents(each.id) for each in there.open().snapshots()}

    def prune(self, **rules: int) -> PruneResult:
        """One `opsd prune` of the copy, by default of all but the last two snapshots."""
        options = PruneOptions(
            rules=Rules(**(rules or {"keep_last": 2})),  # type: ignore[arg-type]
            zone=UTC,
            confirmed=True,
            elsewhere=lambda: frozenset(list_source(self.source)),
        )
        return Prune(self.there().open(), options).carry_out()


def every_stop(
    copier: Copier,
    act: Callable[[Copier], object],
    folder: Path,
    ways: Iterable[Stop],
    *,
    end: str = "target",
    step: int = 1,
) -> Iterator[Copier]:
    """A copier for every `step`-th operation of an act on one end and every way to stop there, stopped; it is gone when the next one
    is asked for.
    """
    assert isinstance(copier.target, MemoryStore)
    for way in ways:
        for at in range(0, 1000, step):
            tried = replace(copier, folder=folder / f"{way.how}-{way.torn_at}-{at}", target=copier.target.clone())
            if (copier.folder / "state").is_dir():
                shutil.copytree(copier.folder / "state", tried.folder / "state")
            faulty = FaultyStore(getattr(tried, end), replace(way, at=at))
            broken = replace(tried)
            setattr(broken, end, faulty)
            try:
                act(broken)
            except (PowerCut, OpsdError):
                yield tried
            else:
                # The last write may have been lost too, and then nobody noticed.
                if faulty.has_lost:
                    yield tried
                break
            finally:
                shutil.rmtree(tried.folder, ignore_errors=True)


def objects(store: Store) -> dict[str, bytes]:
    """All that travels, by name."""
    kept = ("runs/", "marks/")
    return {info.name: store.read(info.name) for info in store.list("") if not info.name.startswith(kept)}


def flip(store: Store, name: str, place: int = -1) -> None:
    """Turn one bit of an object, by default in its middle."""
    content = bytearray(store.read(name))
    content[len(content) // 2 if place < 0 else place] ^= 1
    store.put(name, bytes(content), replace=True)


def largest_pack(store: Store) -> str:
    return max(store.list("packs/"), key=lambda info: info.size).name
