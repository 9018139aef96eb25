"""opsd as a person runs it: a process of its own, in a folder of its own.

`Desk.run` forks it from a process that has imported opsd already (tests.support.warm): a third of a second less for each. What is about the
start itself, or is killed, starts `Desk.command` with `Desk.variables`.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import warm
from tests.support.warm import ROOT

PASSPHRASE = "correct horse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A host with a repository of its own, below one folder. `environment` is all that opsd is told."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path) -> "Desk":
        """A desk where the environment suffices: no configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        secret = folder / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        secret.chmod(0o600)
        variables = {"REPOSITORY": folder / "repository", "PASSPHRASE_FILE": secret, "STATE": folder / "state"}
        return cls(folder=folder, environment={f"OPSD_{name}": str(value) for name, value in variables.items()})

    def configured(self, sources: str, more: str = "") -> "Desk":
        """The same host with a configuration and nothing in the environment."""
        lines = [
            "version: 1",
            "timezone: Europe/Paris",
            f"repository: {self.folder}/repository",
            f"state: {self.folder}/state",
            f"passphrase: {{file: {self.folder}/passphrase}}",
            more,
            "sources:",
            *(f"  {line}" for line in sources.splitlines()),
        ]
        path = self.folder / "opsd.yaml"
        path.write_text("\n".join(lines) + "\n")
        return Desk(folder=self.folder, environment={"OPSD_CONFIG": str(path)})

    def bare(self) -> "Desk":
        """A new machine: no configuration, no state, no passphrase."""
        return Desk(folder=self.folder)

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "opsd", *arguments]

    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONPATH": str(ROOT), "TZ": "UTC", **self.environment}

    def run(self, *arguments: str, given: str = "") -> Ran:
        """Run to the end, whatever the exit code."""
        code, out, err = warm.run(arguments, self.folder, self.variables(), given.encode(), seconds=120)
        return Ran(code=code, out=out, err=err.decode())

    def ok(self, *arguments: str) -> Ran:
        """Run, and be sure that it ended with 0 and said nothing on stderr."""
        ran = self.run(*arguments)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran

    def tree(self, name: str = "data") -> Path:
        """A small tree of files; returns its root."""
        root = self.folder / name
        (root / "deep" / "er").mkdir(parents=True)
        (root / "hello.txt").write_text("hello\n")
        (root / "deep" / "large.bin").write_bytes(os.urandom(300_000) + bytes(100_000))
        (root / "deep" / "er" / "empty").touch()
        (root / "link").symlink_to("hello.txt")
        os.link(root / "hello.txt", root / "deep" / "hard")
        (root / "sparse").touch()
        os.truncate(root / "sparse", 2_000_000)
        with (root / "sparse").open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"in the middle")
        return root


def contents(root: Path) -> dict[str, bytes | str | None]:
    """What stands below a folder: bytes of files, targets of symlinks, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found
