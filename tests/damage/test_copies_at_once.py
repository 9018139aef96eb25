"""Copies, prunes, repairs and a backup at once, as processes of two hosts, one of them killed: what is listed restores, from both ends."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from opsd.storage.folder import FolderStore
from tests.support.command_line import Desk, contents
from tests.support.places import PLACES, place, spoil
from tests.support.torture import TORTURE, dice

ROUNDS = 8 if TORTURE else 2
#: What a command may end with where others are at work: done, not now, killed.
ENDS = {0, 75, -signal.SIGKILL}
HEAL = ("check", "--copy", "disk", "--repair")


def at_once(
    dice: random.Random, commands: Sequence[tuple[Desk, tuple[str, ...]]], kill_within: float, *, damaged: bool
) -> float:
    """Run all of these side by side, and kill one within so many seconds; how many they took.

    Where something is damaged, they may say so: warn, or end with 4, and a prune stops.
    """
    began = time.monotonic()
    running = [
        subprocess.Popen(desk.command(*line), env=desk.variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for desk, line in dice.sample(commands, len(commands))
    ]
    victim = dice.choice(running)
    try:
        victim.wait(dice.uniform(0.1, kill_within))
    except subprocess.TimeoutExpired:
        victim.kill()
    ended = [(process.communicate()[0].decode(), process) for process in running]
    for said, process in ended:
        well = process.returncode in ENDS or (damaged and (process.returncode in {3, 4} or "prune stops" in said))
        assert well, (process.args, process.returncode, said)
        assert "Traceback" not in said, said
        assert "spool" not in said, said  # Nobody takes another's file.
    return time.monotonic() - began


def let_marks_be(folder: Path, days: int) -> None:
    """So old as this are the marks of prunes there; after three days the next prune sweeps what they name."""
    past = time.time() - days * 86_400
    for mark in folder.glob("marks/*"):
        os.utime(mark, (past, past))


@dataclass(slots=True)
class Truth:
    """What each snapshot of a tree held when it was made."""

    desk: Desk
    root: Path
    held: dict[str, dict[str, bytes | str | None]] = field(default_factory=dict)

    def listed(self, *more: str) -> list[str]:
        return [each["id"] for each in self.desk.ok("snapshots", "--json", *more).json]

    def learn(self) -> None:
        """The tree has not changed since the newest snapshots were made."""
        now = contents(self.root)
        for each in self.listed():
            self.held.setdefault(each, now)

    def require(self, *more: str) -> None:
        """All that is listed there restores to what it held."""
        back = self.desk.folder / "back"
        for each in self.listed(*more):
            self.desk.ok("restore", each, *more, "--to", "back", "--json")
            assert contents(back / "www" / str(self.root)[1:]) == self.held[each]
            shutil.rmtree(back)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PLACES if TORTURE else PLACES[:1])
def test_two_hosts_that_copy_prune_and_heal_one_copy_at_once_lose_nothing(tmp_path: Path, kind: str) -> None:
    rolled = dice(11)
    desk = Desk.at(tmp_path)
    root = desk.tree()
    with place(kind, tmp_path) as where:
        sources = f"www: {{files: {{paths: [{root}]}}}}"
        desk = desk.configured(sources, f"copies: {{disk: {{{where.configuration}}}}}\nretention: {{keep_last: 2}}")
        truth = Truth(desk, root)
        # With --json nobody tells how far it is, however long that takes on a busy machine.
        desk.ok("init", "--json")
        desk.ok("backup", "--json")
        truth.learn()
        desk.ok("copy", "--json")
        # The same host once more, with a state of its own: a second configuration, or one that was cloned.
        other = Desk(folder=tmp_path, environment={"OPSD_CONFIG": str(tmp_path / "other.yaml")})
        shutil.copytree(tmp_path / "state", tmp_path / "state2")
        own = (tmp_path / "opsd.yaml").read_text()
        (tmp_path / "other.yaml").write_text(own.replace(f"{tmp_path}/state", f"{tmp_path}/state2"))
        seconds = 3.0
        for number in range(ROUNDS):
            for more in range(2):
                (root / f"night{number}-{more}").write_bytes(rolled.randbytes(2_000_000))
                desk.ok("backup", "--json")
                truth.learn()
            # In turns: damage in the copy, which can be healed as long as its source sweeps nothing; then sweeps in both.
            if damaged := number % 2 == 0:
                spoil(where.opened(), FolderStore(tmp_path / "repository"), rolled)
            else:
                assert desk.run(*HEAL, "--json").code == 0
            let_marks_be(tmp_path / "repository", days=0 if damaged else 4)
            let_marks_be(tmp_path / "disk", days=4)
            prune = ("prune", "--copy", "disk", "--yes")
            commands = [(desk, ("copy",)), (desk, ("backup",)), (desk, ("prune", "--yes")), (desk, prune), (desk, HEAL)]
            commands += [(other, ("copy",)), (other, HEAL)]
            seconds = at_once(rolled, commands, seconds, damaged=damaged)
            truth.learn()
        assert desk.run(*HEAL, "--json").code == 0
        desk.ok("backup", "--json")
        truth.learn()
        desk.ok("copy", "--json")
        assert other.run("copy", "--json").code == 0
        assert desk.ok("check", "--read-data", "--json").code == desk.ok("check", "--copy", "disk", "--json").code == 0
        assert len(truth.listed()) < len(truth.held)
        truth.require()
        truth.require("--from", "disk")
        assert set(truth.listed()) <= set(truth.listed("--from", "disk"))
