"""The world stops at every operation of a prune of a copy, and copies go on beside it: what the copy lists is whole, always."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.storage.faulty import Fault, Stop
from tests.support.beside import Beside
from tests.support.copying import CHANGES, Copier, every_stop
from tests.support.engine import files
from tests.support.pruning import Nights, prune
from tests.support.torture import TORTURE

WAYS = [Stop(at=0, how=how, kinds=CHANGES) for how in (Fault.BEFORE, Fault.AFTER, Fault.LOST)]


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_anywhere_in_a_prune_of_a_copy_loses_nothing_and_the_next_copy_and_prune_end_well(
    tmp_path: Path,
) -> None:
    nights, copier = ripe(tmp_path)
    in_source = {each.id for each in nights.world.open().snapshots()}
    tried = 0
    for each in every_stop(
        copier, lambda broken: broken.prune(keep_last=3), tmp_path / "stops", WAYS, step=1 if TORTURE else 3
    ):
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
    begun = ripe(tmp_path / "begun")
    for end in ("source", "target"):
        happened = True
        places = iter(range(0, 1000, 1 if TORTURE else 5))
        while happened:
            nights, copier = clones(*begun, tmp_path / "world")
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
    begun = ripe(tmp_path / "begun")
    happened = True
    places = iter(range(0, 1000, 2 if TORTURE else 17))
    while happened:
        nights, copier = clones(*begun, tmp_path / "world")
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


def clones(nights: Nights, copier: Copier, folder: Path) -> tuple[Nights, Copier]:
    other = nights.clone(folder)
    return other, copier.clone(other, folder / "copier")


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
