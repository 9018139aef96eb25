"""Many writers at once, and prunes without any grace beside them: nothing that a complete snapshot needs is lost."""

import random
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.clock import SystemClock
from opsd.errors import IntegrityError, ObjectNotFound, PruneRefused, TryLater
from opsd.repository.opening import Unlock
from opsd.repository.repository import Repository
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions
from opsd.storage.folder import FolderStore
from opsd.verify.check import Check, CheckOptions
from tests.support.engine import PASSPHRASE, World, files
from tests.support.torture import TORTURE, dice

#: The quick form; scripts/torture takes two dozen.
WRITERS, ROUNDS, PRUNES = (24, 5, 12) if TORTURE else (4, 5, 12)


def change(root: Path, rng: random.Random) -> None:
    """A day's work: some files new, some changed, some gone, many shared with the other writers."""
    root.mkdir(exist_ok=True)
    for _ in range(12):
        (root / f"f{rng.randrange(30)}").write_bytes(random.Random(rng.randrange(40)).randbytes(20_000))
    for path in rng.sample(sorted(root.iterdir()), 3):
        path.unlink()


def write(world: World, root: Path, number: int, failures: list[BaseException]) -> None:
    """One host: several backups of a changing tree."""
    rng = dice(number)
    try:
        Repository.open(world.store, world.surroundings(), Unlock(passphrase=lambda: PASSPHRASE), writer=True)
        for _ in range(ROUNDS):
            change(root, rng)
            world.backup(files(root, label=f"host{number}"))
    except BaseException as error:  # noqa: BLE001 - shown by the test
        failures.append(error)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_with_many_writers_and_prunes_at_once(tmp_path: Path) -> None:
    store = FolderStore.create(tmp_path / "repository")
    first = World.new(tmp_path / "first", store=store, clock=SystemClock(), passphrase=PASSPHRASE)
    hosts = [replace(first, folder=tmp_path / f"host{seed}") for seed in range(WRITERS)]
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=write, args=(world, tmp_path / f"tree{seed}", seed, failures))
        for seed, world in enumerate(hosts)
    ]
    for thread in threads:
        thread.start()
    options = PruneOptions(rules=Rules(keep_last=2), zone=UTC, confirmed=True, grace=0)
    pruned = 0
    while any(thread.is_alive() for thread in threads) or pruned < PRUNES:
        with suppress(PruneRefused, TryLater, ObjectNotFound, IntegrityError):
            Prune(first.open(), options).carry_out()
        pruned += 1
    for thread in threads:
        thread.join()
    assert failures == []
    Prune(first.open(), options).carry_out()
    snapshots = first.open().snapshots()
    assert len(snapshots) >= 2
    for snapshot in snapshots:
        assert first.contents(snapshot.id)
    assert Check(first.open(reader=True), CheckOptions(share=1.0)).run().problems == ()
