"""tools/rescue.py against repositories that the engine wrote."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from opsd.storage.folder import FolderStore
from tests.support.engine import World, files, make_tree

SCRIPT = Path(__file__).parents[2] / "tools" / "rescue.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a page map, holes, links and odd names ask of a reader."""
    content = {f"small/{number}": f"file {number}\n".encode() * number for number in range(200)}
    large = random.Random(7).randbytes(300_000)
    root = make_tree(
        tmp_path / "tree",
        content | {"empty": b"", "large": large, "text": b"a line\n" * 50_000, "pages": large[:100_001]},
    )
    (root / os.fsdecode(b"n\xffme\n")).write_bytes(b"odd")
    with (root / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(1 << 20)
        file.write(b"tail")
    os.link(root / "large", root / "twin")
    (root / "way").symlink_to("../nowhere")
    os.mkfifo(root / "pipe")
    for name in ("way", "pipe"):
        os.link(root / name, root / "small" / name, follow_symlinks=False)
    (root / "locked").mkdir(mode=0o500)
    os.setxattr(root / "text", "user.note", b"kept")
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, ns=(1, 1_600_000_000_000_000_001 + number), follow_symlinks=False)
    return root


def rescue(repository: Path, key: Path, *words: object) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "OPSD_KIT_FILE": str(key)}
    command = [sys.executable, str(SCRIPT), str(repository), *map(str, words)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """What should be the same of every path."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, Path] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = (
            path.read_bytes()
            if path.is_file() and not path.is_symlink()
            else os.readlink(path)
            if path.is_symlink()
            else None
        )
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_nlink,
            path.is_dir() or first.setdefault(status.st_ino, path.relative_to(root)),
            content,
            attributes,
        )
    return found


def test_a_tree_that_the_engine_stored_comes_back_the_same(tmp_path: Path, tree: Path) -> None:
    world = World.new(tmp_path / "world", store=FolderStore.create(tmp_path / "repository"))
    world.backup(files(tree, page_map=("pages",)))
    world.backup(files(tree, page_map=("pages",)))
    (tmp_path / "kit").write_text(world.kit)
    listed = rescue(tmp_path / "repository", tmp_path / "kit", "list")
    assert (listed.returncode, listed.stderr, len(listed.stdout.splitlines())) == (0, "", 2)
    done = rescue(tmp_path / "repository", tmp_path / "kit", "restore", "latest", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert facts(Path(f"{tmp_path}/out/files{tree}")) == facts(tree)
