"""Copies, prunes, repairs and a backup at once, as processes of two hosts, one of them killed: what is listed restores, from both ends."""

import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.command_line import Desk, contents
from tests.support.places import PLACES, place, spoil
from tests.support.torture import TORTURE, dice

ROUNDS = 8 if TORTURE else 1
#: What a command may end with where others are at work: done, damage that is being healed, not now, killed. A prune stops at damage.
ENDS = {0, 3, 4, 75, -signal.SIGKILL}
HEAL = ("check", "--copy", "disk", "--repair")


def at_once(dice: random.Random, commands: Sequence[tuple[Desk, tuple[str, ...]]], *, kill: bool) -> None:
    """Run all of these side by side, and kill one somewhere on its way."""
    running = [
        subprocess.Popen(desk.command(*line), env=desk.variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for desk, line in dice.sample(commands, len(commands))
    ]
    if kill:
        victim = dice.choice(running)
        try:
            victim.wait(dice.uniform(0.5, 3))
        except subprocess.TimeoutExpired:
            victim.kill()
    ended = [(process.communicate()[0].decode(), process) for process in running]
    for said, process in ended:
        assert process.returncode in ENDS or "prune stops" in said, said
        assert "Traceback" not in said, said
        assert "spool" not in said, said  # Nobody takes another's file.


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
        desk.ok("init")
        desk.ok("backup")
        desk.ok("copy")
        # The same host once more, with a state of its own: a second configuration, or one that was cloned.
        other = Desk(folder=tmp_path, environment={"OPSD_CONFIG": str(tmp_path / "other.yaml")})
        shutil.copytree(tmp_path / "state", tmp_path / "state2")
        own = (tmp_path / "opsd.yaml").read_text()
        (tmp_path / "other.yaml").write_text(own.replace(f"{tmp_path}/state", f"{tmp_path}/state2"))
        for number in range(ROUNDS):
            for more in range(2):
                (root / f"night{number}-{more}").write_bytes(rolled.randbytes(2_000_000))
                desk.ok("backup")
            spoil(where.opened(), rolled)
            prune = ("prune", "--copy", "disk", "--yes")
            commands = [(desk, ("copy",)), (desk, ("backup",)), (desk, ("prune", "--yes")), (desk, prune), (desk, HEAL)]
            at_once(rolled, [*commands, (other, ("copy",)), (other, HEAL)], kill=number % 2 == 0)
        assert desk.run(*HEAL).code == 0
        desk.ok("backup")
        desk.ok("copy")
        assert other.run("copy").code == 0
        assert desk.ok("check", "--read-data").code == desk.ok("check", "--copy", "disk").code == 0
        listed = desk.ok("snapshots", "--from", "disk", "--json").json
        assert len(listed) >= 2 * ROUNDS + 2
        for snapshot in listed:
            shutil.rmtree(tmp_path / "back", ignore_errors=True)
            desk.ok("restore", snapshot["id"], "--from", "disk", "--to", "back")
        assert contents(tmp_path / "back" / "www" / str(root)[1:]) == contents(root)
