"""How hosts come to write to one repository."""

from pathlib import Path

from opsd.events import Recorder
from opsd.repository.local import HostState
from opsd.repository.opening import Unlock, enrol, load_settings, repository_id, unlock
from opsd.repository.settings import RepositorySettings
from tests.support.engine import PASSPHRASE, World


def test_hosts_that_join_at_the_same_moment_all_count(tmp_path: Path) -> None:
    world = World.new(tmp_path, passphrase=PASSPHRASE)
    ring = unlock(world.store, repository_id(world.store), Unlock(passphrase=lambda: PASSPHRASE), Recorder())
    before = load_settings(world.store, ring, 0, Recorder())
    joined = []
    for number in range(8):  # Each has read the same settings; which of two counts is chance.
        host = f"host{number}"
        grown, _ = enrol(world.store, ring, before, host, HostState(tmp_path / host))
        joined.append(grown.writer)
    late, _ = enrol(
        world.store, ring, load_settings(world.store, ring, 0, Recorder()), "late", HostState(tmp_path / "late")
    )
    joined.append(late.writer)
    after = load_settings(world.store, ring, 0, Recorder())
    assert labels(after) == {"host", "late", *(f"host{number}" for number in range(8))}
    assert all(writer and after.signer(writer.public().id) for writer in joined)
    assert len(after.writers) == len(after.maintainers) == 10


def labels(settings: RepositorySettings) -> set[str]:
    return {each.label for each in settings.writers}
