"""Whether files, SQLite databases and programs can be taken, before the night: as this user, with these capabilities.

Promise: nothing is changed, and each look ends in bounded time: a tree is walked for a moment only.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from opsd.sources.options import CommandSource, FilesSource, Hooks, SqliteSource
from opsd.sources.sqlite import HINTS, image
from opsd.sources.sqlite_image import Reason, Refused
from opsd.verify.doctor_host import program_there, sqlite_is_mended
from opsd.verify.findings import Finding, failure, fine, warning

#: How long a tree is looked at, in seconds, and a database whose image is tried at most, in bytes.
LOOK_SECONDS: Final = 2.0
_TRIED_BYTES: Final = 256 << 20
#: CAP_DAC_READ_SEARCH and CAP_DAC_OVERRIDE, capabilities(7).
_READS_ALL: Final = 1 << 2 | 1 << 1
_FREEZERS: Final = {"btrfs": "btrfs", "zfs": "zfs", "lvm": "lvcreate"}
#: SQLite, Database File Format, 1.3.3: byte 18 is 2 where a write-ahead log is used.
_WAL_AT: Final = 18


def reads_everything(status: str | None = None) -> bool:
    """Whether this process may read every file, whatever its mode; `status` is /proc/self/status."""
    text = status if status is not None else Path("/proc/self/status").read_text(encoding="ascii")
    effective = next((int(line.split()[1], 16) for line in text.splitlines() if line.startswith("CapEff:")), 0)
    return bool(effective & _READS_ALL)


def files(label: str, options: FilesSource, own: Iterable[str], *, all_read: bool) -> Iterator[Finding]:
    """Whether every path is there, no folder of opsd's own, and readable; `all_read`: as `reads_everything` says."""
    opsds = {os.path.realpath(path) for path in own}
    found = [finding for path in options.paths for finding in _root(label, path, opsds)]
    if options.snapshot:
        found += program_there(label, (_FREEZERS[options.snapshot],))
    if not found and not all_read:
        found += _walked(label, options.paths)
    yield from found or [fine(label, f"files: {_listed(options.paths)} can be read")]


def _root(label: str, path: str, own: Iterable[str]) -> Iterator[Finding]:
    if os.path.realpath(path) in own:
        yield failure(label, f"{path} is opsd's own: repository, copy, state or cache", "name other paths")
        return
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield failure(
            label, f"{path} is not there", "correct the path, mount what belongs there, or remove it from the source"
        )
        return
    needed = os.R_OK | os.X_OK if stat.S_ISDIR(found.st_mode) else os.R_OK
    if not os.access(path, needed, effective_ids=True):
        yield failure(label, f"{path} can't be read by this user", _right(path))


def _walked(label: str, paths: Iterable[str]) -> Iterator[Finding]:
    """What can't be read of the first things that are met."""
    end = time.monotonic() + LOOK_SECONDS
    waiting, unread = list(paths), []
    for path in waiting:  # It grows meanwhile.
        if time.monotonic() > end:
            break
        try:
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                waiting += [os.path.join(path, name) for name in os.listdir(path)]
            elif stat.S_ISREG(found.st_mode) and not os.access(path, os.R_OK, effective_ids=True):
                unread.append(path)
        except PermissionError:
            unread.append(path)
        except OSError:
            continue  # Gone meanwhile, or no folder any more.
    if unread:
        more = f" and {len(unread) - 1} more that were looked at" if len(unread) > 1 else ""
        yield failure(label, f"{unread[0]}{more} can't be read by this user", _right(unread[0]))


def _right(path: str) -> str:
    return f"run opsd with CAP_DAC_READ_SEARCH, as its units do, or as root; or: setfacl -m u:{os.geteuid()}:rX {path}"


def _listed(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def sqlite(label: str, options: SqliteSource) -> Iterator[Finding]:
    """Whether the database opens as it will at night; a very large one is only looked at."""
    path = Path(os.path.realpath(options.path))
    try:
        size = path.stat().st_size
        if size <= _TRIED_BYTES:
            with image(os.fsencode(path)) as taken:
                size = taken.size
        else:
            path.open("rb").close()
    except FileNotFoundError:
        yield failure(label, f"{path} is not there", "correct the path, or remove the source")
        return
    except Refused as error:
        yield failure(label, f"{path}: {error.text}", HINTS[error.reason])
        return
    except PermissionError as error:
        yield failure(label, f"{path}: {(error.strerror or str(error)).lower()}", HINTS[Reason.FORBIDDEN])
        return
    yield from _room(label, size)
    yield from _library(label, path)
    yield fine(label, f"SQLite: {path} opens")


def _room(label: str, size: int) -> Iterator[Finding]:
    """The image of a database needs as much room as the database."""
    folder = os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())  # noqa: S108 - as SQLite's images
    free = shutil.disk_usage(folder).free
    if free < size:
        yield failure(
            label,
            f"its image needs {size >> 20} MiB and {folder} has {free >> 20} free",
            "set TMPDIR to a larger place",
        )


def _library(label: str, path: Path) -> Iterator[Finding]:
    """The library that opsd itself uses; the application's own may be another."""
    with path.open("rb") as file:
        header = file.read(_WAL_AT + 1)
    if header[_WAL_AT:] == b"\2" and not sqlite_is_mended():
        text = "it uses a write-ahead log, and this SQLite library has the WAL-reset fault, which may damage it"
        yield warning(label, text, "use SQLite 3.51.3, 3.50.7 or 3.44.6: apt update && apt upgrade libsqlite3-0")


def command(label: str, options: CommandSource) -> Iterator[Finding]:
    """Whether the program is there; it is not run."""
    found = list(program_there(label, options.run))
    yield from found or [fine(label, f"command: {options.run[0]} is there (it was not run)")]


def hooks(subject: str, given: Hooks) -> Iterator[Finding]:
    """Whether the programs of hooks are there."""
    for hook in (*given.before, *given.after, *given.on_error):
        yield from program_there(subject, hook.run)
