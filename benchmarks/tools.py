"""How opsd and each peer is driven: the same steps, each one whole process, on a repository of its own.

A peer that is too old to be a fair measure makes the run invalid. Each runs with its defaults, but borg compresses with
zstd 3 as the others do, so that stored sizes compare.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of a repository that the bench makes and deletes


class TooOld(Exception):
    """A peer below the version that this bench compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One process to time."""

    arguments: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None


class Tool(Protocol):
    """A backup program with a repository and a state below its own folder, for one source."""

    name: str
    version: str

    def prepare(self, folder: Path, source: Path) -> Sequence[Command]:
        """Take an empty folder; return what makes the repository (not timed)."""

    def backup(self, number: int) -> Command: ...

    def restore(self, target: Path, part: Path | None = None) -> Command:
        """Restore the newest snapshot, or one folder of it, into `target`."""

    def check(self) -> Command: ...

    def listing(self) -> Command: ...


@dataclass(slots=True)
class Restic:
    """restic, with its cache beside the repository."""

    program: str
    version: str
    name: str = "restic"
    folder: Path = Path()
    source: Path = Path()

    def prepare(self, folder: Path, source: Path) -> Sequence[Command]:
        self.folder, self.source = folder, source
        return [self._command("init")]

    def backup(self, number: int) -> Command:
        return self._command("backup", "--tag", f"n{number}", str(self.source))

    def restore(self, target: Path, part: Path | None = None) -> Command:
        return self._command("restore", f"latest:{part}" if part else "latest", "--target", str(target))

    def check(self) -> Command:
        return self._command("check", "--read-data")

    def listing(self) -> Command:
        return self._command("snapshots")

    def _command(self, *arguments: str) -> Command:
        environment = {"RESTIC_PASSWORD": PASSPHRASE, "RESTIC_REPOSITORY": str(self.folder / "repository")}
        environment["RESTIC_CACHE_DIR"] = str(self.folder / "state")
        return Command(arguments=(self.program, *arguments), environment=environment)


@dataclass(slots=True)
class Borg:
    """borg, with its cache beside the repository."""

    program: str
    version: str
    name: str = "borg"
    folder: Path = Path()
    source: Path = Path()
    newest: str = ""

    def prepare(self, folder: Path, source: Path) -> Sequence[Command]:
        self.folder, self.source = folder, source
        return [self._command("init", "--encryption", "repokey-blake2")]

    def backup(self, number: int) -> Command:
        self.newest = f"::n{number}"
        return self._command("create", "--compression", "zstd,3", self.newest, str(self.source))

    def restore(self, target: Path, part: Path | None = None) -> Command:
        wanted = [str(part).lstrip("/")] if part else []
        return self._command("extract", self.newest, *wanted, folder=target)

    def check(self) -> Command:
        return self._command("check", "--verify-data")

    def listing(self) -> Command:
        return self._command("list")

    def _command(self, *arguments: str, folder: Path | None = None) -> Command:
        environment = {
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_REPO": str(self.folder / "repository"),
            "BORG_BASE_DIR": str(self.folder / "state"),
        }
        return Command(arguments=(self.program, *arguments), environment=environment, folder=folder)


@dataclass(slots=True)
class Opsd:
    """The checkout's opsd, with its state beside the repository; an image is mapped by pages."""

    program: Sequence[str]
    version: str
    name: str = "opsd"
    folder: Path = Path()

    def prepare(self, folder: Path, source: Path) -> Sequence[Command]:
        self.folder = folder
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        (folder / "passphrase").chmod(0o600)
        (folder / "opsd.yaml").write_text(
            "version: 1\ntimezone: UTC\n"
            f"repository: {folder / 'repository'}\n"
            f"state: {folder / 'state'}\n"
            f"passphrase: {{file: {folder / 'passphrase'}}}\n"
            f'sources: {{bench: {{files: {{paths: ["{source}"], page_map: ["*.img"]}}}}}}\n'
        )
        return [self._command("init")]

    def backup(self, number: int) -> Command:
        del number
        return self._command("backup")

    def restore(self, target: Path, part: Path | None = None) -> Command:
        return self._command("restore", f"latest:{part}" if part else "latest", "--to", str(target))

    def check(self) -> Command:
        return self._command("check", "--read-data")

    def listing(self) -> Command:
        return self._command("snapshots")

    def _command(self, *arguments: str) -> Command:
        return Command(arguments=(*self.program, "-c", str(self.folder / "opsd.yaml"), *arguments))


def _asked(arguments: Sequence[str]) -> str | None:
    """Return the version that a program prints, or None if it does not run."""
    try:
        output = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d+(\.\d+)+", output)
    return found[0] if found else None


def _newest(name: str, ask: str, least: tuple[int, int], folders: Sequence[Path]) -> tuple[str, str] | None:
    """Return program and version of the newest copy of a peer on the path or in `folders`."""
    found = []
    for program in (shutil.which(name), *(str(folder / name) for folder in folders)):
        version = _asked([program, ask]) if program else None
        if program and version:
            found.append((tuple(int(part) for part in version.split(".")), program, version))
    if not found:
        return None
    numbers, program, version = max(found)
    if numbers < least:
        raise TooOld(f"{name} {version} is older than {least[0]}.{least[1]}: no measure for today")
    return program, version


def find(peers: Path) -> list[Tool]:
    """Return opsd (if it runs) and every peer, those in the folder `peers` as well as on the path."""
    tools: list[Tool] = []
    opsd = [sys.executable, str(Path(sys.executable).with_name("opsd"))]
    if version := _asked([*opsd, "--version"]):
        tools.append(Opsd(opsd, version))
    if restic := _newest("restic", "version", (0, 18), [peers / "bin"]):
        tools.append(Restic(*restic))
    if borg := _newest("borg", "--version", (1, 4), [peers / "bin"]):
        tools.append(Borg(*borg))
    return tools


def environment_of(command: Command) -> dict[str, str]:
    return {**os.environ, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "no", **command.environment}
