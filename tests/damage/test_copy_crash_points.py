"""The world stops at every operation of a copy, and others work beside it: what the copy lists is whole, and the next pass ends whole."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.storage.faulty import Fault, Stop
from tests.support.beside import Beside
from tests.support.copying import CHANGES, Copier, every_stop, objects
from tests.support.engine import files
from tests.support.pruning import Nights, noise, prune
from tests.support.torture import TORTURE

WAYS = [
    Stop(at=0, how=Fault.BEFORE),
    Stop(at=0, how=Fault.AFTER),
    Stop(at=0, how=Fault.TORN, torn_at=0, kinds=CHANGES),
    Stop(at=0, how=Fault.TORN, torn_at=100, kinds=CHANGES),
    Stop(at=0, how=Fault.LOST, kinds=CHANGES),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("filled", [False, True], ids=["a first copy", "a copy of one more night"])
def test_a_stop_anywhere_in_a_copy_leaves_what_it_lists_whole_and_the_next_pass_ends_whole(
    tmp_path: Path, end: str, *, filled: bool
) -> None:
    nights = Nights.new(tmp_path)
    nights.nights(2)
    copier = Copier.of(nights, tmp_path / "copier")
    if filled:
        copier.copy()
        nights.night({"new": noise(40_000, 99)})
    tried = 0
    for stopped in every_stop(copier, Copier.copy, tmp_path / "stops", WAYS, end=end):
        tried += 1
        if any(True for _ in stopped.target.list("snapshots/")):
            assert stopped.restored().items() <= nights.truth.items()
        assert stopped.copy().is_sound
        assert objects(stopped.target) == objects(nights.store)
        assert not list((stopped.folder / "spool").iterdir())
    assert tried > 30
    assert stopped.restored() == nights.truth


def ripe(folder: Path) -> Nights:
    """Nights whose next prune sweeps snapshots, merges the index and rewrites packs."""
    nights = Nights.new(folder)
    nights.nights(12)
    prune(nights.world, keep_last=2)
    nights.clock.advance(4 * DAY)
    return nights


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("keys", [True, False], ids=["with keys", "without"])
def test_a_prune_and_a_backup_at_any_moment_of_a_copy_leave_the_copy_whole(tmp_path: Path, *, keys: bool) -> None:
    happened = True
    places = iter(range(0, 1000, 1 if TORTURE else 3))
    begun = ripe(tmp_path / "begun")
    while happened:
        folder = tmp_path / "world"
        nights = begun.clone(folder)
        copier = Copier.of(nights, folder / "copier", keys=keys)

        def act(nights: Nights = nights) -> None:
            before = {info.name for info in nights.store.list("packs/")}
            prune(nights.world, keep_last=2)
            made = nights.world.backup(files(nights.tree)).snapshot
            nights.truth[made.id] = nights.world.contents(made.id)
            assert before - {info.name for info in nights.store.list("packs/")}

        copier.source = beside = Beside(nights.store, next(places), act)
        report = copier.copy()
        happened = beside.happened
        assert report.is_sound
        reading = replace(copier, world=nights.world)
        found = reading.restored()
        assert found
        assert found.items() <= nights.truth.items()
        copier.source = nights.store
        assert copier.copy().is_sound
        assert {each.id for each in nights.world.open().snapshots()} <= reading.restored().keys()
        shutil.rmtree(folder)
