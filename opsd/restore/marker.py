"""Claim a fresh folder for a restore, and know one's own again after it was cut off.

Promise: a folder that holds anything else is refused before anything is written; two restores never write to one folder at once.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from opsd.errors import RestoreError, TryLater
from opsd.restore.complaints import Complaints
from opsd.restore.request import RestoreRequest
from opsd.sources.roots import shown

NAME: Final = b".opsd-restore"
#: The name of the file that is being written in place.
PART: Final = b".opsd-restore.part"
#: mkfs makes it, so a new disk has it.
_LOST: Final = b"lost+found"
#: A restore that goes on holds its folder longer than all of these together.
_LOCK_STEPS: Final = 50
_STEP_SECONDS: Final = 0.02
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def opened(request: RestoreRequest) -> Iterator[tuple[int, bool]]:
    """The target as an open folder, and whether an earlier restore to it was cut off.

    Raises:
        RestoreError: the target holds something else, or can't be made or written.
        TryLater: another restore writes to it.
    """
    where = shown(request.target)
    try:
        if not request.in_place:
            os.makedirs(request.target, exist_ok=True)
        root = os.open(request.target, _FLAGS)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RestoreError(f"{where} can't be restored to: {reason}", hint="name another folder with --to") from error
    try:
        yield root, not request.in_place and _claimed(root, request)
    finally:
        os.close(root)


def release(root: int) -> None:
    """The restore is whole: remove its marker."""
    before = os.fstat(root).st_mtime_ns
    os.unlink(NAME, dir_fd=root)
    with suppress(OSError):
        os.utime(root, ns=(before, before))
    os.fsync(root)


def _claimed(root: int, request: RestoreRequest) -> bool:
    where = shown(request.target)
    _lock(root, where)
    names = sorted(name for name in map(os.fsencode, os.listdir(root)) if name != _LOST)
    if NAME in names:
        if _read(root) == _mark(request):
            return True
        text = f"{where} holds what another restore had written when it was cut off"
        raise RestoreError(text, hint="give the same command as then to go on, or name another folder")
    if names:
        listed = ", ".join(shown(name) for name in names[:3]) + (
            f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        )
        raise RestoreError(
            f"{where} is not empty: it holds {listed}", hint="name a folder that is empty or does not exist"
        )
    _write(root, request)
    return False


def _lock(root: int, where: str) -> None:
    """Claim the folder; the maker of a restore that was killed may hold it until it has noticed."""
    for step in range(_LOCK_STEPS):
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if step == _LOCK_STEPS - 1:
                hint = "wait for it, or name another folder"
                raise TryLater(f"another restore is writing to {where}", hint=hint) from error
            time.sleep(_STEP_SECONDS)
        else:
            return


def _mark(request: RestoreRequest) -> dict[str, str]:
    return {"snapshot": request.snapshot, "request": request.digest()}


def _read(root: int) -> object:
    try:
        descriptor = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
        with open(descriptor, "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _write(root: int, request: RestoreRequest) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(NAME, flags, 0o600, dir_fd=root)
        with open(descriptor, "wb") as file:
            file.write(json.dumps(_mark(request)).encode())
    except OSError as error:
        with suppress(OSError):
            os.unlink(NAME, dir_fd=root)
        Complaints().failed(request.target, "", error)
        reason = (error.strerror or str(error)).lower()
        text = f"{shown(request.target)} can't be written to: {reason}"
        raise RestoreError(text, hint="name another folder with --to") from error
