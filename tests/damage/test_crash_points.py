"""The world stops at the N-th storage operation, for every N of init, backup and prune: nothing listed before is lost.

After each stop every earlier snapshot restores in full and the next run succeeds with no hand at work (design, What must hold, 1).
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.clock import DAY, FixedClock
from opsd.errors import OpsdError, PruneRefused
from opsd.repository.local import HostState
from opsd.repository.opening import NewRepository, create
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions
from opsd.storage.faulty import Fault, FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore
from opsd.verify.check import Check, CheckOptions
from tests.support.engine import SMALL, START, World, files, make_tree
from tests.support.torture import TORTURE

#: Every kind of stop; a torn write leaves so many bytes.
WAYS = [
    Stop(at=0, how=Fault.BEFORE),
    Stop(at=0, how=Fault.AFTER),
    Stop(at=0, how=Fault.TORN, torn_at=0),
    Stop(at=0, how=Fault.TORN, torn_at=100),
    Stop(at=0, how=Fault.LOST),
]


#: The quick form tries every fourth operation of a prune; scripts/torture tries all.
PRUNE_STEP = 1 if TORTURE else 4


def on_disk(root: Path) -> dict[str, bytes]:
    """What a tree holds now."""
    return {f"files:{path}": path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def stopped(world: World, stop: Stop, act: Callable[[World], object]) -> bool:
    """Act on a store that stops; whether it stopped before the act was done, or lost the last that was written."""
    faulty = FaultyStore(world.store, stop)
    try:
        act(replace(world, store=faulty))
    except (PowerCut, OpsdError):
        return True
    return faulty.has_lost


def every_stop(world: World, act: Callable[[World], object], folder: Path, step: int = 1) -> Iterator[World]:
    """A copy of the world for every operation of an act and every way to stop there, stopped."""
    assert isinstance(world.store, MemoryStore)
    for way in WAYS:
        kinds = frozenset({"put", "delete"}) if way.how in {Fault.TORN, Fault.LOST} else way.kinds
        for at in range(0, 10_000, step):
            copy = replace(world, folder=folder / f"{way.how}-{way.torn_at}-{at}", store=world.store.clone())
            shutil.copytree(world.folder, copy.folder)
            if not stopped(copy, replace(way, at=at, kinds=kinds), act):
                shutil.rmtree(copy.folder)
                break
            yield copy
            shutil.rmtree(copy.folder)


def heal(world: World, options: PruneOptions) -> None:
    """Prune again. A store that tore a mark or note, which those that opsd writes to can't, needs a hand: prune stops at it."""
    try:
        Prune(world.open(), options).carry_out()
    except PruneRefused:
        damaged = [problem.object for problem in Check(world.open(), CheckOptions()).run().problems]
        assert damaged
        for name in damaged:
            world.store.delete(name)
        Prune(world.open(), options).carry_out()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stop_anywhere_in_init_leaves_a_place_where_init_works(tmp_path: Path) -> None:
    clock = FixedClock(START)
    for way in WAYS:
        for at in range(100):
            store = MemoryStore(clock)
            state = HostState(tmp_path / f"{way.how}{way.torn_at}{at}")
            faulty = FaultyStore(store, replace(way, at=at))
            new = NewRepository(host="host", parameters=SMALL)
            try:
                create(faulty, new, state, clock)
            except (PowerCut, OpsdError):
                listed = [info.name for info in store.list("settings/")]
                whole = listed and way.how is Fault.AFTER
                if not listed:
                    create(store, new, state, clock)
                else:
                    assert whole or way.how is Fault.TORN
                continue
            break


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_anywhere_in_a_backup_loses_nothing(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", {f"f{number}": b"%d" % number * 3000 for number in range(12)})
    clock = FixedClock(START)
    world = World.new(tmp_path / "world", clock=clock)
    first = world.backup(files(tree)).snapshot.id
    clock.advance(DAY)
    before = on_disk(tree)
    (tree / "f3").write_bytes(b"new" * 9000)
    after = on_disk(tree)
    tried = 0
    for copy in every_stop(world, lambda each: each.backup(files(tree)), tmp_path / "stops"):
        tried += 1
        assert copy.contents(first) == before
        clock.advance(DAY)
        copy.backup(files(tree))
        assert copy.contents(first) == before
        assert copy.contents() == after
    assert tried > 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_anywhere_in_a_prune_loses_nothing(tmp_path: Path) -> None:
    clock = FixedClock(START)
    world = World.new(tmp_path / "world", clock=clock)
    tree = make_tree(tmp_path / "tree", {f"f{number}": b"%d" % number * 9000 for number in range(8)})
    options = PruneOptions(rules=Rules(keep_last=2), zone=UTC, confirmed=True)
    for day in range(4):
        (tree / f"f{day}").write_bytes(os.urandom(40_000))
        world.backup(files(tree))
        clock.advance(DAY)
    Prune(world.open(), options).carry_out()
    clock.advance(4 * DAY)
    kept = {each.id: world.contents(each.id) for each in world.open().snapshots()}
    assert len(kept) == 2
    tried = 0
    for copy in every_stop(world, lambda each: Prune(each.open(), options).carry_out(), tmp_path / "stops", PRUNE_STEP):
        tried += 1
        assert {each.id: copy.contents(each.id) for each in copy.open().snapshots()} == kept
        heal(copy, options)
        assert {each.id: copy.contents(each.id) for each in copy.open().snapshots()} == kept
        copy.backup(files(tree))
        assert copy.contents() == on_disk(tree)
    assert tried > 60
