"""A copy, backups, a prune of its source and one of the copy side by side lose nothing, and the order of a pass is there for a reason."""

from collections.abc import Callable

import pytest

from tests.protocol.copy_model import MODEL, NEW, OLD, CopyProtocol, CopyWorld
from tests.protocol.explorer import explore

#: What must be reached for the proof to mean something.
SIGHTS: dict[str, Callable[[CopyWorld], bool]] = {
    "the copy has all of a source that has swept": lambda world: (
        world.there_manifests == world.manifests == NEW and not world.packs & 0b001 and not world.copier.brought
    ),
    "the copy keeps longer than its source": lambda world: bool(
        world.there_manifests & OLD and not world.manifests & OLD
    ),
    "the copy let go what its source let go": lambda world: (
        world.there_manifests == NEW and not world.there_packs & 0b101
    ),
    "the moved frames suffice in the copy": lambda world: world.there_manifests == OLD and world.there_packs == 0b100,
    "a pass finds that something was removed or marked": lambda world: world.copier.step == "settle",
    "a prune waits for a pass": lambda world: bool(world.noted and world.open and world.prune.step == "await_runs"),
    "a pass relies on what is marked": lambda world: bool(world.open and max(world.mark, 0) & world.copier.packs),
}


@pytest.mark.slow
def test_with_all_rules_no_order_of_steps_leaves_a_snapshot_in_the_copy_without_what_it_needs() -> None:
    findings = explore(MODEL, CopyProtocol(), SIGHTS)
    assert not findings.story, str(findings)
    assert findings.seen == SIGHTS.keys()
    # Recorded so that a change of the model is noticed: about 5 s on one core.
    assert findings.worlds == 365_053, str(findings)


@pytest.mark.parametrize(
    "left_out, last_step",
    [
        pytest.param(
            CopyProtocol(manifests_listed_first=False),
            "copier: brings manifests 010",
            id="manifests first in the listing",
        ),
        pytest.param(
            CopyProtocol(manifests_last=False), "copier: brings manifests 001", id="manifests last in the transfer"
        ),
        pytest.param(CopyProtocol(run=False), "prune: sweep_packs", id="the run in the copy"),
        pytest.param(
            CopyProtocol(again=False, proof=False), "copier: brings manifests 001", id="beginning again, and the proof"
        ),
    ],
)
def test_leaving_out_a_rule_of_copying_loses_a_pack(left_out: CopyProtocol, last_step: str) -> None:
    findings = explore(MODEL, left_out)
    assert findings.story, str(findings)
    assert findings.story[-1] == last_step, str(findings)
