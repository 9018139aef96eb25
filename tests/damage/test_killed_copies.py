"""One copy whose passes and repairs are killed again and again, wherever the process happens to be, still ends whole."""

import hashlib
import random
import signal
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsd.errors import StoreGone
from opsd.repository.format import digest_of
from opsd.storage.folder import FolderStore
from tests.support.command_line import Desk, contents
from tests.support.places import PLACES, Place, place, spoil
from tests.support.torture import TORTURE, dice

KILLS, KILLS_OF_REPAIR = (100, 30) if TORTURE else (6, 6)
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


def objects(where: Place, but: Collection[str] = ()) -> dict[str, bytes]:
    """What stands there, but for these; nothing before the first pass came so far."""
    with suppress(StoreGone):
        store = where.opened()
        return {info.name: store.read(info.name) for info in store.list("") if info.name not in but}
    return {}


def broken(found: Mapping[str, bytes]) -> set[str]:
    """Names of what has other bytes than its name promises."""
    return {name for name, content in found.items() if hashlib.sha256(content).digest() != digest_of(name)}


def host(folder: Path, where: Place) -> Desk:
    desk = Desk.at(folder)
    root = desk.tree()
    desk = desk.configured(
        f"www: {{files: {{paths: [{root}]}}}}",
        f"copies: {{disk: {{{where.configuration}, limits: {{00:00-00:00: 2 MiB/s}}}}}}",
    )
    desk.ok("init", "--json")
    return desk


def night(desk: Desk, dice: random.Random, size: int) -> None:
    (desk.folder / "data" / f"night{dice.randrange(10**9)}").write_bytes(dice.randbytes(size))
    desk.ok("backup", "--json")


def require_restored(desk: Desk) -> None:
    """The newest snapshot comes back from the copy alone."""
    root = desk.folder / "data"
    (desk.folder / "repository").rename(desk.folder / "away")
    desk.ok("restore", "latest", "--from", "disk", "--to", "back", "--json")
    assert contents(desk.folder / "back" / "www" / str(root)[1:]) == contents(root)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", PLACES if TORTURE else PLACES[:1])
def test_a_copy_that_is_killed_again_and_again_ends_whole(tmp_path: Path, kind: str) -> None:
    killer = Killer(dice(7))
    with place(kind, tmp_path) as where:
        desk = host(tmp_path, where)
        nights, whole = 0, set[str]()
        while killer.struck < KILLS:
            night(desk, killer.dice, 3_000_000)
            nights += 1
            while killer.struck < KILLS and killer.kills(desk, "copy"):
                found = objects(where, whole)
                assert broken(found) == set()
                whole |= found.keys()
        assert desk.ok("copy", "--json").json["copies"][0]["snapshots"] == nights
        assert desk.ok("check", "--copy", "disk", "--json").code == 0
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
        desk.ok("copy", "--json")
        packs = {name for name in objects(where) if name.startswith("packs/")}
        while killer.struck < KILLS_OF_REPAIR:
            spoil(where.opened(), FolderStore(tmp_path / "repository"), killer.dice)
            spoilt = broken(objects(where))
            assert len(spoilt) == 2
            while killer.struck < KILLS_OF_REPAIR and killer.kills(desk, *HEAL):
                left = broken(objects(where))
                assert left <= spoilt
                spoilt = left
            assert killer.struck < KILLS_OF_REPAIR or desk.run(*HEAL, "--json").code == 0
            assert broken(objects(where)) == set()
            assert packs <= objects(where).keys()
        assert desk.ok("check", "--copy", "disk", "--json").code == 0
        require_restored(desk)
