"""A hold binds every prune that has not announced its sweep."""

from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.errors import PruneRefused
from opsd.repository.format import Kind, name_for
from opsd.repository.runs import Mark, Note, holds_in_force
from opsd.retention.holds import hold, release
from tests.support.pruning import Nights, prune


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    nights = Nights.new(tmp_path)
    nights.nights(4)
    return nights


def shown(nights: Nights) -> list[str]:
    return [each.id for each in nights.world.open().snapshots()]


def announce(nights: Nights) -> None:
    """What a sweep does first."""
    place = nights.world.open().place
    mark = next(each for each in place.marks() if each.event == "mark")
    content = place.signed.encode_mark(Mark(mark=mark.mark, event="sweep", time=nights.clock.now()))
    nights.store.put(name_for(Kind.MARK, content, time=nights.clock.now()), content)


def test_a_held_snapshot_is_never_marked(nights: Nights) -> None:
    oldest = nights.world.open().snapshots()[0]
    hold(nights.world.open(), oldest, None, "evidence")
    assert prune(nights.world).marked_snapshots == 1
    nights.later_prune()
    assert oldest.id in shown(nights)
    nights.require_truth()


def test_a_hold_before_the_sweep_brings_a_marked_snapshot_back_at_once_and_for_good(nights: Nights) -> None:
    oldest = nights.world.open().snapshots()[0]
    prune(nights.world)
    assert oldest.id not in shown(nights)
    hold(nights.world.open(), oldest, None, "evidence")
    assert oldest.id in shown(nights)
    for _ in range(3):
        nights.later_prune()
    assert len(shown(nights)) == 3
    nights.require_truth()


def test_a_hold_after_an_announced_sweep_fails_and_says_what_to_do(nights: Nights) -> None:
    oldest = nights.world.open().snapshots()[0]
    prune(nights.world)
    announce(nights)
    with pytest.raises(PruneRefused, match="announced") as caught:
        hold(nights.world.open(), oldest, None, "too late")
    assert "restore" in str(caught.value.hint)


def test_a_hold_of_what_is_already_gone_fails(nights: Nights) -> None:
    oldest = nights.world.open().snapshots()[0]
    prune(nights.world)
    nights.later_prune()
    with pytest.raises(PruneRefused, match="being removed"):
        hold(nights.world.open(), oldest, None, "too late")


def test_a_hold_ends_with_its_date_and_with_its_release(nights: Nights) -> None:
    first, second = nights.world.open().snapshots()[:2]
    hold(nights.world.open(), first, nights.clock.now() + DAY, "a day")
    hold(nights.world.open(), second, None, "until released")
    assert prune(nights.world).marked_snapshots == 0
    nights.clock.advance(2 * DAY)
    assert prune(nights.world).marked_snapshots == 1
    release(nights.world.open(), second)
    assert prune(nights.world).marked_snapshots == 1


def test_a_hold_counts_even_after_a_release_from_a_clock_that_ran_ahead(nights: Nights) -> None:
    first = nights.world.open().snapshots()[0]
    nights.clock.advance(DAY)
    release(nights.world.open(), first)
    nights.clock.advance(-DAY)
    hold(nights.world.open(), first, None, "evidence")
    assert prune(nights.world).marked_snapshots == 1
    assert first.id in shown(nights)


def test_the_last_word_of_each_snapshot_counts() -> None:
    def note(event: str, time: int, until: int | None = None) -> Note:
        return Note(event=event, time=time, snapshot=b"s" * 32, until=until, reason="")

    assert set(holds_in_force([note("hold", 1)], 5)) == {b"s" * 32}
    assert not holds_in_force([note("hold", 1), note("release", 2)], 5)
    assert holds_in_force([note("release", 2), note("hold", 3)], 5)
    assert not holds_in_force([note("hold", 1), note("hold", 2, until=5)], 5)
    assert not holds_in_force([Note(event="dropped", time=1, sequences=((b"w", 1),))], 5)
