"""What a host keeps of its repositories: its role keys, the highest settings number and the newest manifests it has seen.

Promise: files are private (0600), replaced whole and synced; losing them costs an enrolment with the passphrase, nothing stored.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from opsd.errors import StorageError, StoreReadOnly
from opsd.repository.keys import Keyring, decode_secrets, encode_secrets
from opsd.storage.durable import private_file, private_folder
from opsd.values import dataclass

_ROLES = ("writer", "maintainer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What was seen last: settings number, this writer's last sequence number and manifest (SHA-256 in hex)."""

    settings: int = 0
    sequence: int = 0
    head: str = ""


class HostState:
    """The part of the state folder that belongs to the engine. `seen`: where it remembers; what a copy shows is not what its source does."""

    def __init__(self, folder: Path, seen: str = "seen") -> None:
        self.folder = folder
        self._seen = seen

    def _prepare(self, name: str) -> Path:
        path = self.folder / name
        try:
            private_folder(path)
        except OSError as error:
            raise StoreReadOnly(
                f"the state folder {self.folder} can't be written to: {error.strerror}",
                hint="run as the user that owns it, or set state: in the configuration (OPSD_STATE)",
            ) from error
        return path

    def read_keys(self, repository: bytes) -> Keyring | None:
        """The role keys of this host for a repository, joined; None if there are none."""
        ring: Keyring | None = None
        for role in _ROLES:
            path = self.folder / "keys" / f"{repository.hex()}.{role}"
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    part = decode_secrets(str(path), path.read_bytes())
                except PermissionError as error:
                    raise StorageError(f"{path} can't be read", hint="run as the user that owns it") from error
                ring = part if ring is None else ring.joined(part)
        return ring

    def write_keys(self, ring: Keyring) -> None:
        """Keep the writer's and the maintainer's keys of a ring."""
        folder = self._prepare("keys")
        for role in _ROLES:
            replace_file(folder / f"{ring.repository.hex()}.{role}", encode_secrets(ring, (role,)))

    def memory(self, repository: bytes) -> Memory:
        """What was seen of a repository."""
        try:
            value = json.loads((self.folder / self._seen / f"{repository.hex()}.json").read_text())
            return Memory(settings=int(value["settings"]), sequence=int(value["sequence"]), head=str(value["head"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Memory()

    def newest(self) -> tuple[Memory, int] | None:
        """What this host put last, into whichever repository, and when (ns UTC); None if nothing is known."""
        found = []
        for path in (self.folder / self._seen).glob("*.json"):
            with suppress(OSError, ValueError):
                found.append((path.stat().st_mtime_ns, self.memory(bytes.fromhex(path.stem))))
        put = [(memory, when) for when, memory in sorted(found, key=lambda each: each[0]) if memory.head]
        return put[-1] if put else None

    def remember(self, repository: bytes, memory: Memory) -> None:
        """Keep what was seen."""
        replace_file(self._prepare(self._seen) / f"{repository.hex()}.json", json.dumps(asdict(memory)).encode())

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of this state folder; waits for it."""
        with open(private_file(self._prepare("locks") / name, os.O_WRONLY), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def alive(self, run: bytes) -> Iterator[None]:
        """Show that a run of this host lives, for as long as the process does."""
        path = self._prepare("runs") / run.hex()
        with open(private_file(path, os.O_WRONLY), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def is_alive(self, run: bytes) -> bool:
        """Whether a process of this host still holds that run."""
        try:
            with (self.folder / "runs" / run.hex()).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def any_alive(self) -> bool:
        """Whether a process of this host holds any run."""
        folder = self.folder / "runs"
        return folder.is_dir() and any(self.is_alive(bytes.fromhex(path.name)) for path in folder.iterdir())


def replace_file(path: Path, content: bytes) -> None:
    """Replace a private file whole, synced."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = private_file(partial, os.O_WRONLY | os.O_TRUNC)
    try:
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.rename(path)
    except OSError:
        partial.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
