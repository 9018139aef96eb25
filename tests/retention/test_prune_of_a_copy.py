"""A copy keeps longer than its source, by rules of its own, and what was pruned from it never comes again."""

from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.repository.run import Run
from opsd.storage.memory import MemoryStore
from opsd.verify.check import Check, CheckOptions
from tests.support.copying import Copier, objects
from tests.support.pruning import Nights, noise, prune


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    made = Nights.new(tmp_path)
    made.nights(6)
    return made


@pytest.fixture
def copier(nights: Nights, tmp_path: Path) -> Copier:
    made = Copier.of(nights, tmp_path / "copier")
    made.copy()
    return made


def pruned_source(nights: Nights) -> None:
    """All but the last two snapshots are gone from the source for good."""
    prune(nights.world, keep_last=2)
    assert nights.later_prune().swept_snapshots == 4


def whole(copier: Copier) -> bool:
    """A full check of the copy finds nothing, and what it lists restores to what it held."""
    report = Check(copier.there().open(reader=True), CheckOptions(share=1.0)).run()
    return not report.problems


def test_what_the_source_still_lists_stays_whatever_the_rules_of_the_copy_say(copier: Copier) -> None:
    before = objects(copier.target)
    done = copier.prune(keep_last=1)
    assert (done.marked_snapshots, done.marked_packs, done.moved_packs) == (0, 0, 0)
    assert all("source" in each.reasons for each in done.plan.verdicts.values())
    assert objects(copier.target) == before


def test_a_copy_keeps_longer_than_its_source_and_the_rest_goes_after_the_grace(nights: Nights, copier: Copier) -> None:
    pruned_source(nights)
    assert copier.copy().is_sound
    assert copier.prune(keep_last=4).marked_snapshots == 2
    assert copier.copy().is_sound
    assert len(copier.restored()) == 4
    nights.clock.advance(4 * DAY)
    assert copier.prune(keep_last=4).swept_snapshots == 2
    found = copier.restored()
    assert len(found) == 4
    assert found.items() <= nights.truth.items()
    assert whole(copier)


def test_nothing_that_was_pruned_from_a_copy_is_brought_again(nights: Nights, copier: Copier) -> None:
    for number in range(30):
        nights.night({f"more{number % 3}": noise(12_000, 500 + number)})
        prune(nights.world, keep_last=2)
        assert copier.copy().is_sound
        copier.prune(keep_last=3)
        report = copier.copy()
        assert report.is_sound
        assert report.objects == 0
    assert objects(nights.store).keys() <= objects(copier.target).keys()
    assert 3 <= len(copier.restored()) <= 8
    assert whole(copier)


def test_a_pack_of_a_backup_that_is_still_at_work_is_not_marked(nights: Nights, copier: Copier) -> None:
    """Runs do not travel, so the copy alone would take it for dead."""
    with Run(nights.world.open()) as run:
        run.blobs.add(run.blobs.domains[1], memoryview(noise(50_000, 9)))
        run.blobs.finish()
        assert copier.copy().objects
        nights.clock.advance(DAY)
        assert copier.prune(keep_last=1).marked_packs == 0
    assert copier.copy().is_sound


def test_packs_that_the_source_rewrote_go_from_the_copy_and_the_new_ones_stay(nights: Nights, copier: Copier) -> None:
    pruned_source(nights)
    nights.later_prune()
    assert copier.copy().is_sound
    copier.prune(keep_last=2)
    nights.clock.advance(4 * DAY)
    copier.prune(keep_last=2)
    assert {info.name for info in copier.target.list("packs/")} == {info.name for info in nights.store.list("packs/")}
    assert copier.copy().objects == 0
    assert whole(copier)


class Locked(MemoryStore):
    """A store that locks all that it holds until one moment."""

    until = 0

    def checksum(self, name: str) -> bytes | None:
        raise AssertionError(name)

    def locked_until(self, name: str) -> int | None:
        self.stat(name)
        return self.until

    def retain(self, name: str, until: int) -> None:
        raise AssertionError(name, until)


def test_what_the_store_locks_is_counted_and_goes_once_the_locks_have_ended(nights: Nights, copier: Copier) -> None:
    store = Locked(nights.clock, copier.target._objects)  # type: ignore[attr-defined]
    copier.target = store
    pruned_source(nights)
    copier.copy()
    copier.prune(keep_last=2)
    store.until = nights.clock.now() + 10 * DAY
    nights.clock.advance(4 * DAY)
    before = objects(store)
    done = copier.prune(keep_last=2)
    assert done.swept_snapshots == 0
    assert done.locked > 4
    assert done.locked_until == store.until
    assert before.items() <= objects(store).items()
    assert copier.copy().is_sound
    nights.clock.advance(7 * DAY)
    done = copier.prune(keep_last=2)
    assert (done.swept_snapshots, done.locked, done.locked_until) == (4, 0, None)
    assert whole(copier)


@pytest.mark.parametrize("prefix", ["", "packs/"], ids=["all", "packs"])
def test_what_comes_back_to_the_source_after_it_was_marked_in_the_copy_stays(
    nights: Nights, copier: Copier, prefix: str
) -> None:
    kept = {name: content for name, content in objects(nights.store).items() if name.startswith(prefix)}
    pruned_source(nights)
    copier.copy()
    assert copier.prune(keep_last=2).marked_snapshots == 4
    nights.clock.advance(4 * DAY)
    for name, content in kept.items():
        nights.store.put(name, content)
    assert copier.prune(keep_last=2).swept_snapshots == (4 if prefix else 0)
    assert len(list(copier.target.list("snapshots/"))) == (2 if prefix else 6)
    assert kept.keys() <= objects(copier.target).keys()
    assert copier.copy().is_sound
    assert copier.restored().items() >= {each: nights.truth[each] for each in copier.restored()}.items()
    assert whole(copier)
