"""Repositories that earlier versions wrote still open and restore, by the engine and by the rescue script."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from opsd.clock import SystemClock
from opsd.events import Recorder
from opsd.model import EntryType
from opsd.repository.format import FORMAT
from opsd.repository.kit import parse_kit
from opsd.repository.local import HostState
from opsd.repository.opening import Unlock
from opsd.repository.repository import Repository, Surroundings
from opsd.storage.folder import FolderStore

GOLDEN = Path(__file__).parent / "golden"
RESCUE = Path(__file__).parents[2] / "tools" / "rescue.py"
FORMATS = range(1, FORMAT + 1)


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A golden repository, unpacked, and what it must give."""
    with tarfile.open(GOLDEN / f"format-{request.param}.tar.xz") as tar:
        tar.extractall(tmp_path / "repository", filter="data")
    return tmp_path / "repository", json.loads((GOLDEN / f"format-{request.param}.json").read_text())


def test_no_format_is_without_a_golden_repository() -> None:
    assert {path.name for path in GOLDEN.glob("*.tar.xz")} == {f"format-{number}.tar.xz" for number in FORMATS}


@pytest.mark.parametrize("way", ["passphrase", "kit"])
def test_every_snapshot_restores_with_no_state_at_all(
    golden: tuple[Path, dict[str, Any]], tmp_path: Path, way: str
) -> None:
    folder, wanted = golden
    how = Unlock(kit=parse_kit(wanted["kit"])) if way == "kit" else Unlock(passphrase=wanted["passphrase"].encode)
    around = Surroundings(
        state=HostState(tmp_path / "state"),
        cache=tmp_path / "cache",
        clock=SystemClock(),
        reporter=Recorder(),
        host="other",
    )
    with FolderStore(folder) as store:
        repository = Repository.open(store, around, how, reader=True)
        for identity, files in wanted["snapshots"].items():
            reader = repository.reader(repository.find(identity))
            found = {}
            for tree in reader.trees():
                entries = [
                    (os.path.relpath(os.fsdecode(folder.path.rstrip(b"/") + b"/" + entry.name), wanted["root"]), entry)
                    for folder in reader.folders(tree)
                    for entry in folder.entries
                    if entry.type is EntryType.FILE
                ]
                sizes = {name: entry.size for name, entry in entries}
                for name, pieces in reader.contents(entries):
                    whole = bytearray(sizes[name])
                    for offset, view in pieces:
                        whole[offset : offset + len(view)] = view
                    found[name] = hashlib.sha256(whole).hexdigest()
            assert found == files


def test_the_rescue_script_restores_it(golden: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, wanted = golden
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(wanted["passphrase"])
    identity, files = list(wanted["snapshots"].items())[-1]
    command = [sys.executable, RESCUE, folder, "restore", identity[:12], tmp_path / "back"]
    subprocess.run(command, check=True, env={**os.environ, "OPSD_PASSPHRASE_FILE": str(passphrase)})
    root = tmp_path / "back" / "files" / wanted["root"].lstrip("/")
    found = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert found == files
