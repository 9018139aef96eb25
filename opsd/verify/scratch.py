"""The private place of one drill, and its end.

Promise: one drill at a time in one scratch folder. All that a drill makes stands in one folder, closed to others, with a marker in it;
what a killed drill left is found by that and cleared, its server stopped. Nothing without the marker is ever removed.
"""

import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from opsd.errors import RestoreError, TryLater
from opsd.events import Reporter
from opsd.values import dataclass

_MARKER: Final = ".opsd-drill"
_LOCK: Final = ".opsd-drill.lock"
_NAME: Final = re.compile(r"drill-[0-9a-f]{16}")
#: Shares of the file system that stay free: of one of its own, and of one that others need.
_RESERVE: Final = 0.01
_SHARED_RESERVE: Final = 0.05
_STOPPING_MS: Final = 10_000
#: How initdb calls the server (PostgreSQL, initdb.c): such a process ends by itself.
_MAKING: Final = {b"--boot", b"--single", b"--check"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """The folder of one drill. `neighbours`: opsd's and the site's own folders on the same file system."""

    folder: Path
    neighbours: tuple[str, ...] = ()

    @property
    def files(self) -> Path:
        """Where sources of files are restored to, each under its label."""
        return self.folder / "files"

    def server(self, label: str) -> Path:
        """Where the throwaway server of a source stands."""
        return self.folder / "servers" / label

    def room(self) -> int:
        """Bytes that may be used."""
        found = os.statvfs(self.folder)
        reserve = _SHARED_RESERVE if self.neighbours else _RESERVE
        return max(0, found.f_bavail * found.f_frsize - int(found.f_blocks * found.f_frsize * reserve))

    def clear(self) -> None:
        """Remove what was restored, so that the next piece has room."""
        for server in (self.folder / "servers").glob("*"):
            stop_server(server / "main")
        for folder in (self.files, self.folder / "servers"):
            remove(folder)


@contextmanager
def opened(place: Path, others: tuple[str, ...], reporter: Reporter) -> Iterator[Scratch]:
    """A new folder in `place`, for the time of the context; leftovers of killed drills are cleared first.

    `others` are folders that should not share its file system.

    Raises:
        RestoreError: the place is not there, or others may write to it. TryLater: another drill is at work there.
    """
    _prepare(place)
    neighbours = tuple(each for each in others if _same_disk(place, each))
    with _locked(place):
        clear_leftovers(place, reporter)
        folder = place / f"drill-{secrets.token_hex(8)}"
        try:
            with _refusals(place):
                folder.mkdir(mode=0o700)
                _mark(folder)
        except RestoreError:
            _drop_unmarked(folder)
            raise
        try:
            yield Scratch(folder=folder, neighbours=neighbours)
        finally:
            _end(folder)


def _prepare(place: Path) -> None:
    """See that the place is there and nobody else may rename what is in it."""
    if not place.parent.is_dir():
        raise RestoreError(
            f"the scratch folder {place} is not there", hint="mount its disk, or name another: drill.scratch"
        )
    with _refusals(place):
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise RestoreError(f"the scratch folder {place} is no folder", hint="name another: drill.scratch")
    shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if shared or found.st_uid not in {0, os.geteuid()}:
        raise RestoreError(
            f"the scratch folder {place} is not private: others may change what is in it",
            hint=f"run 'chmod 700 {place}' as its owner, or name another: drill.scratch",
        )


@contextmanager
def _refusals(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RestoreError(
            f"the scratch folder {place} can't be used: {reason}",
            hint="make room there, or name another: drill.scratch",
        ) from error


def _same_disk(place: Path, other: str) -> bool:
    with suppress(OSError):
        return os.stat(other).st_dev == place.stat().st_dev
    return False


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    with _refusals(place):
        descriptor = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(f"another drill is at work in {place}", hint="wait for it to end") from error
        yield
    finally:
        os.close(descriptor)


def _mark(folder: Path) -> None:
    descriptor = os.open(folder / _MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        json.dump({"opsd": "drill", "folder": folder.name, "process": os.getpid()}, file)


def clear_leftovers(place: Path, reporter: Reporter) -> None:
    """Stop and remove what killed drills left; the place is locked."""
    for folder in sorted(place.iterdir()):
        if not _NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if _is_marked(folder):
            _end(folder)
            reporter.tell(f"cleared {folder}, which a drill that was cut off had left")
        else:
            _drop_unmarked(folder)


def _drop_unmarked(folder: Path) -> None:
    """Made, and cut off or out of room before it was marked: only an empty one goes, or one with an empty marker."""
    with suppress(OSError):
        if os.listdir(folder) == [_MARKER] and not (folder / _MARKER).lstat().st_size:
            (folder / _MARKER).unlink()
        folder.rmdir()


def _is_marked(folder: Path) -> bool:
    if folder.lstat().st_uid != os.geteuid():
        return False
    try:
        descriptor = os.open(folder / _MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor) as file:
            value = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and (value.get("opsd"), value.get("folder")) == ("drill", folder.name)


def _end(folder: Path) -> None:
    """The marker goes last: a removal that was cut off is found again."""
    _await_makers(folder)
    for server in (folder / "servers").glob("*"):
        stop_server(server / "main")
    for name in os.listdir(folder):
        if name != _MARKER:
            remove(folder / name)
    remove(folder)


def _await_makers(folder: Path) -> None:
    """Wait for what still makes or starts a server there: a half-made one that loses its files leaves shared memory behind.

    They hold the server's folder open, as the server itself does.
    """
    inside = os.path.realpath(folder / "servers") + "/"
    end = time.monotonic() + _STOPPING_MS / 1000
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            held = any(os.readlink(each).startswith(inside) for each in (process / "fd").iterdir())
            words = (process / "cmdline").read_bytes().split(b"\0")
            runs = os.path.basename(words[0]).startswith(b"postgres") and not _MAKING & set(words)
            if int(process.name) == os.getpid() or not held or runs:
                continue
            descriptor = os.pidfd_open(int(process.name))
            with open(descriptor):
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.poll(max(0.0, end - time.monotonic()) * 1000)


def remove(path: Path) -> None:
    """Remove a file or a tree, whatever modes its folders have; symlinks are not followed.

    Raises:
        RestoreError: some of it stays.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, onerror=_opening_up)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        text = f"{path} could not be removed: {(error.strerror or str(error)).lower()}"
        raise RestoreError(text, hint="remove it by hand; nothing but a drill's copy is in it") from error


def _opening_up(function: Callable[..., Any], path: str, _error: object) -> None:
    """Try again once the folder above, or the one to be listed, may be written to."""
    for each in (os.path.dirname(path), path):
        if os.path.isdir(each) and not os.path.islink(each):
            os.chmod(each, 0o700)
    if function in {os.open, os.scandir, os.listdir, os.lstat}:
        shutil.rmtree(path)
    else:
        function(path)


def stop_server(main: Path) -> None:
    """Stop the PostgreSQL server of a data folder, if one runs there: what works in that very folder, and nothing else."""
    try:
        process = int((main / "postmaster.pid").read_text().split("\n", 1)[0])
        descriptor = os.pidfd_open(process)
    except (OSError, ValueError):
        return
    try:
        if not os.path.samefile(f"/proc/{process}/cwd", main):
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        signal.pidfd_send_signal(descriptor, signal.SIGQUIT)  # Immediate: nothing of it is needed any more.
        if not poll.poll(_STOPPING_MS):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll.poll(_STOPPING_MS)
    except OSError:
        return
    finally:
        os.close(descriptor)
