"""Runs, index merge and prune side by side lose nothing, and each rule of the protocol is there for a reason."""

from collections.abc import Callable

import pytest

from tests.protocol.explorer import explore
from tests.protocol.model import MODEL, Protocol, World

#: What must be reached for the proof to mean something.
SIGHTS: dict[str, Callable[[World], bool]] = {
    "both snapshots are listed": lambda world: world.manifests == 0b11,
    "a run kept the old pack alive though its manifest was swept": lambda world: (
        not world.old and world.packs & 1 == 1 and any(one == _done(0) for one in world.writers)
    ),
    "a run used the pack of the other": lambda world: world.writers[0] == _done(2),
    "the old pack is gone": lambda world: not world.packs & 1,
    "a pack of a run that was cut off is gone": lambda world: world.earlier[1] == 0 and world.packs == 0b100,
    "a run that was ended by another failed before its manifest": lambda world: world.writers[0].step == "failed",
    "a run that was ended by another failed after its manifest": lambda world: world.failed == 1,
    "the index leads to a pack that is gone": lambda world: bool(world.entries & ~world.packs),
}


def _done(needs: int) -> tuple[str, int, int, int, int]:
    return ("done", 0, 0, 0, needs)


@pytest.mark.slow
def test_with_all_rules_no_order_of_steps_loses_a_pack_that_a_complete_snapshot_needs() -> None:
    findings = explore(MODEL, Protocol(), SIGHTS)
    assert not findings.story, str(findings)
    assert findings.seen == SIGHTS.keys()
    # Recorded so that a change of the model is noticed: about 25 s on one core.
    assert findings.worlds == 448_901, str(findings)


@pytest.mark.parametrize(
    "left_out, last_step",
    [
        pytest.param(Protocol(pack_listing=False), "writer 0: manifest", id="the pack listing"),
        pytest.param(Protocol(marks_first=False), "writer 0: manifest", id="marks before packs and index"),
        pytest.param(
            Protocol(runs_first_in_mark=False, runs_first_in_sweep=False),
            "prune: sweep_packs",
            id="runs before manifests",
        ),
        pytest.param(Protocol(note_of_runs=False), "prune: sweep_packs", id="the note of open runs"),
        pytest.param(Protocol(second_check=False), "prune: sweep_packs", id="the second check of a run that was ended"),
        pytest.param(Protocol(doubt=False), "prune: sweep_packs", id="the doubt until that check is done"),
        pytest.param(Protocol(one_prune=False), "forgotten prune: sweeps", id="one prune at a time"),
    ],
)
def test_leaving_out_a_rule_loses_a_pack(left_out: Protocol, last_step: str) -> None:
    findings = explore(MODEL, left_out)
    assert findings.story, str(findings)
    assert findings.story[-1] == last_step, str(findings)


@pytest.mark.slow
def test_the_order_of_runs_and_manifests_guards_the_sweep_and_in_the_mark_only_saves_work() -> None:
    findings = explore(MODEL, Protocol(runs_first_in_mark=False))
    assert not findings.story, str(findings)
    assert explore(MODEL, Protocol(runs_first_in_sweep=False)).story
