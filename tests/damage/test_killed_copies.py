"""One copy whose passes and repairs are killed again and again, wherever the process happens to be, still ends whole."""

import hashlib
import random
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsd.errors import StoreGone
from opsd.repository.format import digest_of
from tests.support.command_line import Desk, contents
from tests.support.places import PLACES, Place, place, spoil
from tests.support.torture import TORTURE, dice

KILLS = 100 if TORTURE else 6
HEAL = ("check", "--copy", "disk", "--repair")


@dataclass(slots=True)
class Killer:
    """Kills a process somewhere on its way; what it learns of how long that takes makes it independent of the machine."""

    dice: random.Random
    span: float = 1.0
    struck: int = 0

    def kills(self, desk: Desk, *line: str) -> bool:
        """Start a command and kill it after a while; whether it still ran. It ends well if it ends."""
        process = subprocess.Popen(
            desk.command(*line), env=desk.variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = process.communicate(timeout=self.dice.uniform(self.span * 0.3, self.span))
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        struck = process.returncode == -signal.SIGKILL
        assert struck or process.returncode == 0, said.decode()
        self.struck += struck
        self.span *= 1.1 if struck else 0.7
        return struck


def objects(where: Place) -> dict[str, bytes]:
    """What stands there; nothing before the first pass came so far."""
    with suppress(StoreGone):
        store = where.opened()
        return {info.name: store.read(info.name) for info in store.list("")}
    return {}


def broken(where: Place) -> set[str]:
    """Names of what has other bytes than its name promises."""
    return {name for name, content in objects(where).items() if hashlib.sha256(content).digest() != digest_of(name)}


def host(folder: Path, where: Place) -> Desk:
    desk = Desk.at(folder)
    root = desk.tree()
    desk = desk.configured(
        f"www: {{files: {{paths: [{root}]}}}}",
        f"copies: {{disk: {{{where.configuration}, limits: {{00:00-00:00: 4 MiB/s}}}}}}",
    )
    desk.ok("init")
    return desk


def night(desk: Desk, dice: random.Random, size: int) -> None:
    (desk.folder / "data" / f"night{dice.randrange(10**9)}").write_bytes(dice.randbytes(size))
    desk.ok("backup")


def require_restored(desk: Desk) -> None:
    """The newest snapshot comes back from the copy alone."""
    root = desk.folder / "data"
    (desk.folder / "repository").rename(desk.folder / "away")
    desk.ok("restore", "latest", "--from", "disk", "--to", "back")
    assert contents(desk.folder / "back" / "www" / str(root)[1:]) == contents(root)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PLACES if TORTURE else PLACES[:1])
def test_a_copy_that_is_killed_again_and_again_ends_whole(tmp_path: Path, kind: str) -> None:
    killer = Killer(dice(7))
    with place(kind, tmp_path) as where:
        desk = host(tmp_path, where)
        nights = 0
        while killer.struck < KILLS:
            night(desk, killer.dice, 6_000_000)
            nights += 1
            while killer.struck < KILLS and killer.kills(desk, "copy"):
                assert broken(where) == set()
        assert desk.ok("copy", "--json").json["copies"][0]["snapshots"] == nights
        assert desk.ok("check", "--copy", "disk").code == 0
        require_restored(desk)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PLACES if TORTURE else PLACES[:1])
def test_a_repair_that_is_killed_again_and_again_breaks_nothing_and_ends_whole(tmp_path: Path, kind: str) -> None:
    killer = Killer(dice(8))
    with place(kind, tmp_path) as where:
        desk = host(tmp_path, where)
        for _ in range(4):
            night(desk, killer.dice, 3_000_000)
        desk.ok("copy")
        packs = {name for name in objects(where) if name.startswith("packs/")}
        while killer.struck < KILLS:
            spoil(where.opened(), killer.dice)
            spoilt = broken(where)
            assert len(spoilt) == 2
            while killer.struck < KILLS and killer.kills(desk, *HEAL):
                left = broken(where)
                assert left <= spoilt
                spoilt = left
            assert killer.struck < KILLS or desk.run(*HEAL).code == 0
            assert broken(where) == set()
            assert packs <= objects(where).keys()
        assert desk.ok("check", "--copy", "disk").code == 0
        require_restored(desk)
