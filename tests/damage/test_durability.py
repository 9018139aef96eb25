"""Under strace: every object is synced before it has its name, its folder after, and each kind before the next begins."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = "fsync,fdatasync,link,linkat,rename,renameat,renameat2"
SYNC = re.compile(r"(?:fsync|fdatasync)\(\d+<([^>]*)>")
NAME = re.compile(r"(?:link|rename)(?:at|at2)?\((?:[^\"]*)\"([^\"]+)\", (?:[^\"]*)\"([^\"]+)\"")


def traced(folder: Path, *arguments: str) -> list[str]:
    """The calls of an opsd command that make something durable, in order."""
    trace = folder / "trace"
    command = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace)]
    run = [*command, sys.executable, "-m", "opsd", *arguments]
    done = subprocess.run(run, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return trace.read_text().splitlines()


def environment(folder: Path) -> dict[str, str]:
    """A repository without a configuration file."""
    return {
        **os.environ,
        "OPSD_REPOSITORY": str(folder / "repository"),
        "OPSD_STATE": str(folder / "state"),
        "OPSD_PASSPHRASE_FILE": str(folder / "passphrase"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_object_of_a_backup_is_synced_before_its_name_and_its_folder_after(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(os.urandom(100_000))
    subprocess.run(
        [sys.executable, "-m", "opsd", "init"], env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL
    )
    lines = traced(tmp_path, "backup", str(tmp_path / "data"))
    synced: set[str] = set()
    unsynced: dict[str, str] = {}
    kinds: list[str] = []
    repository = str(tmp_path / "repository")
    for line in lines:
        if found := SYNC.search(line):
            synced.add(found[1])
            unsynced = {folder: name for folder, name in unsynced.items() if folder != found[1]}
        elif (found := NAME.search(line)) and found[2].startswith(repository):
            source, target = found[1], found[2]
            assert source in synced, f"{target} was named before it was synced"
            kind = target.removeprefix(repository + "/").partition("/")[0]
            if kinds[-1:] != [kind]:
                assert not unsynced, f"{kind} began while {unsynced} was not durable"
                kinds.append(kind)
            unsynced[str(Path(target).parent)] = target
    assert kinds == ["runs", "packs", "index", "snapshots"]
    assert not unsynced
    assert len([line for line in lines if SYNC.search(line) and repository in line]) >= 8
