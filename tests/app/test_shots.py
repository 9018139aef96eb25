"""What is told of a place beside which a prune is at work."""

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from opsd.app.shots import of_witness
from opsd.backup.copy_state import CopyMemory, CopyState, older_unopened
from opsd.backup.history import History, Visit
from opsd.backup.listings import list_target, read_history
from opsd.clock import DAY
from opsd.repository.witness import Witness
from opsd.storage.protocol import Store
from tests.support.beside import Beside
from tests.support.pruning import Nights, prune

Look = Callable[[Store, CopyState], object]


def lost(store: Store, _: CopyState) -> object:
    """How many snapshots of a pulled copy are gone, and no prune dropped them."""
    return of_witness(store, Witness.of(store), None, ()).lost


@pytest.mark.parametrize("look", [lost, older_unopened])
def test_what_a_prune_sweeps_at_any_moment_of_a_look_is_no_loss(tmp_path: Path, look: Look) -> None:
    begun = Nights.new(tmp_path)
    begun.nights(4)
    prune(begun.world)
    begun.clock.advance(4 * DAY)
    shown = read_history(begun.store, list_target(begun.store), History(), lambda: Witness.of(begun.store))
    state = CopyState(tmp_path / "state", "disk")
    state.write(CopyMemory(repository="ab", owner="cd", visit=Visit(source=shown, target=shown)))
    happened, places = True, count()
    while happened:
        at = next(places)
        nights = begun.clone(tmp_path / f"{at}")
        beside = Beside(nights.store, at, partial(prune, nights.world))
        assert not look(beside, state)
        happened = beside.happened
    assert at > 1
