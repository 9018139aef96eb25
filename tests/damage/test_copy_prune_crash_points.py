"""The world stops at every operation of a prune of a copy, and copies go on beside it: what the copy lists is whole, always."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.errors import OpsdError
from opsd.storage.faulty import Fault, FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore
from tests.support.beside import Beside
from tests.support.copying import Copier
from tests.support.engine import files
from tests.support.pruning import Nights, prune

WAYS = (Stop(at=0, how=Fault.BEFORE), Stop(at=0, how=Fault.AFTER), Stop(at=0, how=Fault.LOST))
CHANGES = frozenset({"put", "delete"})


def ripe(folder: Path) -> tuple[Nights, Copier]:
    """A copy whose next prune sweeps two snapshots, and marks and moves more; one night is not in it yet."""
    nights = Nights.new(folder)
    nights.nights(8)
    copier = Copier.of(nights, folder / "copier")
    copier.copy()
    prune(nights.world, keep_last=2)
    nights.later_prune()
    copier.copy()
    copier.prune(keep_last=6)
    nights.clock.advance(4 * DAY)
    nights.nights(1)
    prune(nights.world, keep_last=2)
    return nights, copier


def stopped(copier: Copier, folder: Path) -> Iterator[Copier]:
    """A copier for every change that a prune of the copy makes and every way to stop there, stopped."""
    assert isinstance(copier.target, MemoryStore)
    for way in WAYS:
        for at in range(0, 1000, 3):
            tried = replace(copier, folder=folder / f"{way.how}-{at}", target=copier.target.clone())
            shutil.copytree(copier.folder / "state", tried.folder / "state")
            broken = replace(tried, target=FaultyStore(tried.target, replace(way, at=at, kinds=CHANGES)))
            try:
                broken.prune(keep_last=3)
            except (PowerCut, OpsdError):
                yield tried
                shutil.rmtree(tried.folder)
            else:
                break


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_anywhere_in_a_prune_of_a_copy_loses_nothing_and_the_next_copy_and_prune_end_well(
    tmp_path: Path,
) -> None:
    nights, copier = ripe(tmp_path)
    in_source = {each.id for each in nights.world.open().snapshots()}
    tried = 0
    for each in stopped(copier, tmp_path / "stops"):
        tried += 1
        assert each.restored().items() <= nights.truth.items()
        assert each.copy().is_sound
        each.prune(keep_last=3)
        assert each.copy().is_sound
        found = each.restored()
        assert found.items() <= nights.truth.items()
        assert in_source <= found.keys()
    assert tried > 15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_prune_of_the_copy_at_any_moment_of_a_copy_leaves_both_whole(tmp_path: Path) -> None:
    """It sweeps what was marked long ago and marks what the source let go since."""
    for end in ("source", "target"):
        happened = True
        places = iter(range(0, 1000, 5))
        while happened:
            nights, copier = ripe(tmp_path / "world")
            other = replace(copier)

            def act(nights: Nights = nights, other: Copier = other) -> None:
                nights.later_prune()
                other.prune(keep_last=3)

            happened = interleaved(copier, end, next(places), act)
            require_whole(nights, copier)
            shutil.rmtree(tmp_path / "world")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_backup_and_a_copy_at_any_moment_of_a_prune_of_the_copy_leave_both_whole(tmp_path: Path) -> None:
    happened = True
    places = iter(range(0, 1000, 17))
    while happened:
        nights, copier = ripe(tmp_path / "world")
        other = replace(copier)

        def act(nights: Nights = nights, other: Copier = other) -> None:
            made = nights.world.backup(files(nights.tree)).snapshot
            nights.truth[made.id] = nights.world.contents(made.id)
            assert other.copy().is_sound

        pruning = replace(copier, target=Beside(copier.target, next(places), act))
        pruning.prune(keep_last=3)
        assert isinstance(pruning.target, Beside)
        happened = pruning.target.happened
        require_whole(nights, copier)
        shutil.rmtree(tmp_path / "world")


def interleaved(copier: Copier, end: str, at: int, act: Callable[[], object]) -> bool:
    """Copy while something else happens once, before the `at`-th operation on one end; whether it did."""
    beside = Beside(getattr(copier, end), at, act)
    copying = replace(copier, source=beside) if end == "source" else replace(copier, target=beside)
    assert copying.copy().is_sound
    return beside.happened


def require_whole(nights: Nights, copier: Copier) -> None:
    """All that the copy lists restores, and one copy more brings all that the source has."""
    found = copier.restored()
    assert found
    assert found.items() <= nights.truth.items()
    assert copier.copy().is_sound
    assert {each.id for each in nights.world.open().snapshots()} <= copier.restored().keys()
    copier.prune(keep_last=3)
    assert copier.restored().items() <= nights.truth.items()
