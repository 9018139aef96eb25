"""A copy on a real server is pruned as one in memory is; what object lock holds goes later."""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from opsd.backup.listings import list_source
from opsd.clock import DAY, SystemClock
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions, PruneResult
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import Store
from opsd.storage.retry import RetryingStore
from opsd.storage.s3 import S3Store
from opsd.storage.sftp import SftpStore
from tests.support.copying import Copier, objects
from tests.support.engine import World, files, make_tree
from tests.support.pruning import noise
from tests.support.s3 import S3Server
from tests.support.sshd import Server

pytest_plugins = ["tests.support.stores"]
pytestmark = pytest.mark.slow
CLOCK = SystemClock()


@pytest.fixture(params=["sftp", "s3", "s3 with locks"])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, sftp_server: Server, checking_moto: S3Server
) -> Iterator[Store]:
    if request.param == "sftp":
        with SftpStore.create(sftp_server.options(str(tmp_path / "served"))) as server:
            yield RetryingStore(server)
        return
    locks = "locks" in request.param
    bucket = checking_moto.new_bucket(**({"ObjectLockEnabledForBucket": True} if locks else {}))
    options = checking_moto.options(bucket, object_lock_days=1 if locks else None)
    with S3Store.create(options, CLOCK) as made:
        yield RetryingStore(made)


def pruned(world: World, **more: object) -> PruneResult:
    """A prune without a grace."""
    options = PruneOptions(rules=Rules(keep_last=2), zone=UTC, confirmed=True, grace=0, **more)  # type: ignore[arg-type]
    return Prune(world.open(), options).carry_out()


def test_what_the_source_let_go_goes_from_the_copy_and_the_rest_restores(
    request: pytest.FixtureRequest, tmp_path: Path, target: Store
) -> None:
    world = World.new(tmp_path / "world", store=MemoryStore(CLOCK), clock=CLOCK)
    tree = tmp_path / "tree"
    truth = {}
    for number in range(4):
        make_tree(tree, {"new": noise(60_000, number), f"f{number}": noise(20_000, 50 + number)})
        made = world.backup(files(tree)).snapshot
        truth[made.id] = world.contents(made.id)
    copier = Copier(folder=tmp_path / "copier", source=world.store, target=target, clock=CLOCK, world=world)
    copier.copy()
    pruned(world)
    assert pruned(world).swept_snapshots == 2
    assert copier.copy().is_sound
    there = copier.there()

    def elsewhere() -> frozenset[str]:
        return frozenset(list_source(world.store))

    assert pruned(there, elsewhere=elsewhere).marked_snapshots == 2
    done = pruned(there, elsewhere=elsewhere)
    if "locks" in request.node.callspec.id:
        assert done.swept_snapshots == 0
        assert done.locked >= 2
        assert done.locked_until
        assert 0 < done.locked_until - CLOCK.now() <= DAY
        assert len(list(target.list("snapshots/"))) == 4
    else:
        assert (done.swept_snapshots, done.locked) == (2, 0)
        assert {name for name in objects(target) if name.startswith(("packs/", "snapshots/"))} == {
            name for name in objects(world.store) if name.startswith(("packs/", "snapshots/"))
        }
    assert copier.copy().objects == 0
    found = copier.restored()
    assert len(found) == 2
    assert found.items() <= truth.items()
