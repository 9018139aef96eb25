"""Whether the places that a night writes to are there, writable, large enough, and can't be emptied by whoever fills them.

Promise: nothing is left behind, and nothing is deleted: whether a deletion is allowed is asked with a name that nothing has.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from opsd.clock import SECOND
from opsd.errors import StorageError, StoreUnavailable
from opsd.model import SnapshotSummary
from opsd.storage.protocol import Store
from opsd.verify.findings import Finding, failure, fine, warning

#: Of so many nights the largest tells what the next may need; so many nights should fit.
_NIGHTS: Final = 7
#: A name like a pack's, which no object has: packs are named by their digest.
_NO_OBJECT: Final = "packs/00/opsd-doctor-asks-whether-this-may-be-deleted"
#: The least that should be free, as a share of the disk.
_LEAST_SHARE: Final = 0.05
_WEB_SECONDS: Final = 10.0
_FULL: Final = "make room on that disk: df -h"
#: What helps where it is not the folder's owner.
_MENDING: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "a disk with errors turns read-only by itself (dmesg); else mount it writable: findmnt -T",
}


def folder_writable(subject: str, folder: Path, what: str, *, mended: Path | None = None) -> Iterator[Finding]:
    """Whether files can be made in a folder that is there; `mended`: whose owner to set where it can't, with all below."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"opsd doctor")
            file.flush()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        owner = f"-R {_user()} {mended}" if mended else f"{_user()} {folder}"
        step = _MENDING.get(error.errno or 0, f"chown {owner}, or see its mount options: findmnt -T")
        yield failure(subject, f"{what} {folder} can't be written to: {reason}", f"{step} {folder}")


def room(subject: str, folder: Path, snapshots: Sequence[SnapshotSummary]) -> Iterator[Finding]:
    """Whether what the last nights added fits once more, and for a week."""
    usage = shutil.disk_usage(folder)
    free = f"{_size(usage.free)} free"
    step = f"make room: opsd prune --dry-run, or a larger disk for {folder}"
    # The first snapshot adds all there is, and says nothing of a night.
    growth = max((each.added_bytes for each in snapshots[1:][-_NIGHTS:]), default=0)
    if usage.free < growth:
        yield failure(subject, f"{free}, and a night adds up to {_size(growth)}", step)
    elif usage.free < growth * _NIGHTS or usage.free < usage.total * _LEAST_SHARE:
        yield warning(subject, f"{free}: not enough for a week of nights like the largest", step)
    else:
        yield fine(subject, f"{free}" + (f"; a night added at most {_size(growth)}" if growth else ""))


def store_lacks(subject: str, store: Store) -> Iterator[Finding]:
    """What a store does not do; opsd makes up for it, but for what a power cut there may take."""
    capabilities = store.capabilities
    if not capabilities.durable or not capabilities.lists_at_once:
        for text in capabilities.lacks:
            yield warning(subject, text)


def deletable(subject: str, store: Store, *, locked: bool) -> Iterator[Finding]:
    """Whether the account that fills a copy could empty it too; `locked`: objects are, for days."""
    if locked:
        yield fine(subject, "objects are locked: whoever breaks in here can't delete them")
        return
    try:
        store.delete(_NO_OBJECT)
    except StoreUnavailable:
        raise
    except StorageError:
        yield fine(subject, "this account may add and not delete")
        return
    step = "let that server pull, make the login append-only, or lock objects: docs/copies.md, 'Which way'"
    yield warning(subject, "this account may delete all of it: so may whoever breaks in here", step)


def server_time(url: str) -> int | None:
    """What a web server's clock shows, in ns UTC; None where it does not say (RFC 9110, section 6.6.1)."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_WEB_SECONDS) as answer:  # noqa: S310 - an S3 server's address
            stated = answer.headers["Date"]
    except HTTPError as error:
        stated = error.headers["Date"]
    except (OSError, ValueError):
        return None
    try:
        return int(parsedate_to_datetime(stated).timestamp()) * SECOND
    except (TypeError, ValueError):
        return None


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"


def _user() -> str:
    return f"{os.geteuid()}:{os.getegid()}"
