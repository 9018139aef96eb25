"""Make a golden repository: `python -m tests.compat.make_golden FOLDER` writes format-<n>.tar.xz and what it must restore to.

Run once for each format; what it wrote is kept for good and never made anew.
"""

import hashlib
import io
import json
import os
import random
import sys
import tarfile
import tempfile
from pathlib import Path

from opsd.clock import DAY, FixedClock
from opsd.repository.format import FORMAT
from opsd.storage.folder import FolderStore
from tests.support.engine import PASSPHRASE, START, World, files, make_tree


def expected(world: World, root: Path) -> dict[str, object]:
    """What each file of each snapshot holds, by SHA-256; paths relative to the root."""
    found = {}
    for snapshot in world.open().snapshots():
        contents = world.contents(snapshot.id)
        found[snapshot.id] = {
            os.path.relpath(name.removeprefix("files:"), root): hashlib.sha256(content).hexdigest()
            for name, content in contents.items()
        }
    return {"passphrase": PASSPHRASE.decode(), "kit": world.kit, "root": str(root), "snapshots": found}


def main(target: Path) -> None:
    """Two snapshots of everything that a listing can hold without root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        clock = FixedClock(START)
        store = FolderStore.create(folder / "repository")
        world = World.new(folder / "world", store=store, clock=clock, passphrase=PASSPHRASE)
        root = make_tree(folder / "tree", {f"d/f{number}": b"file %d " % number * 50 * number for number in range(20)})
        (root / "noise").write_bytes(random.Random(5).randbytes(120_000))
        (root / "disk.img").write_bytes(bytes(8192) + random.Random(6).randbytes(40_000))
        (root / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"odd name")
        (root / "link").symlink_to("d/f1")
        os.link(root / "d" / "f2", root / "hard")
        with (root / "sparse").open("wb") as file:
            file.seek(1_000_000)
            file.write(b"end")
        world.backup(files(root, page_map=("*.img",)))
        clock.advance(DAY)
        (root / "d" / "f3").write_bytes(b"changed")
        world.backup(files(root, page_map=("*.img",)))
        (target / f"format-{FORMAT}.json").write_text(
            json.dumps(expected(world, root), indent=1, sort_keys=True) + "\n"
        )
        with tarfile.open(target / f"format-{FORMAT}.tar.xz", "w:xz") as tar:
            for path in sorted((folder / "repository").rglob("*")):
                if path.is_file():
                    info = tarfile.TarInfo(str(path.relative_to(folder / "repository")))
                    content = path.read_bytes()
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
