"""A desk with a repository and one snapshot, made once for the tests that only read."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.command_line import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A host without a repository yet."""
    return Desk.at(tmp_path)


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A host with a tree in `data`, a repository, two snapshots of the tree, the time between
    them in `between.txt`, and a kit in `kit.txt`."""
    desk = Desk.at(tmp_path_factory.mktemp("taken"))
    kit = desk.ok("init", "--json").json["kit"]
    (desk.folder / "kit.txt").write_text(kit)
    root = desk.tree()
    desk.ok("backup", str(root))
    (desk.folder / "between.txt").write_text(datetime.now(UTC).isoformat(timespec="microseconds"))
    (root / "new.txt").write_text("new\n")
    (root / "hello.txt").chmod(0o600)
    (root / "deep" / "er" / "empty").unlink()
    desk.ok("backup", str(root))
    return desk
