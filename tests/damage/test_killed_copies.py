"""One copy that is killed again and again, wherever its process happens to be, still ends whole."""

import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import Desk, contents

KILLS = 100 if "OPSD_TORTURE" in os.environ else 20
NIGHTS = KILLS // 4


def killed(desk: Desk, seconds: float) -> bool:
    """Start a pass and kill it after so long; whether it still ran."""
    process = subprocess.Popen(
        desk.command("copy"), env=desk.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def require_whole_objects(copy: Path) -> None:
    """What stands under a name has the bytes that the name promises."""
    for path in copy.rglob("*"):
        if path.is_file() and path.parent.name not in {"tmp", "spool", "runs"}:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.rpartition("-")[2], path


@pytest.mark.slow
def test_a_copy_that_is_killed_again_and_again_ends_whole(tmp_path: Path) -> None:
    desk = Desk.at(tmp_path)
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", f"copies: {{disk: {{folder: {desk.folder}/disk}}}}")
    desk.ok("init")
    dice = random.Random(7)
    struck, span = 0, 1.0
    for number in range(KILLS):
        if number % (KILLS // NIGHTS) == 0:
            (root / f"night{number}").write_bytes(dice.randbytes(6_000_000))
            desk.ok("backup")
        if killed(desk, dice.uniform(span * 0.3, span)):
            struck, span = struck + 1, span * 1.1
        else:  # The machine is faster than thought.
            span *= 0.7
        require_whole_objects(desk.folder / "disk")
    assert struck >= KILLS // 2
    assert desk.ok("copy", "--json").json["copies"][0]["snapshots"] == NIGHTS
    assert desk.ok("check", "--copy", "disk").code == 0
    (desk.folder / "repository").rename(desk.folder / "away")
    desk.ok("restore", "latest", "--from", "disk", "--to", "back")
    assert contents(desk.folder / "back" / "www" / str(root)[1:]) == contents(root)
