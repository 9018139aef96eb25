"""What of the machine itself may spoil a night: the clock, and versions of programs.

Promise: pure where it judges; nothing is changed, and the network is not asked.
"""

import ctypes
import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from shutil import which
from typing import Final

from opsd.clock import SECOND
from opsd.verify.findings import Finding, failure, fine, warning

Version = tuple[int, ...]

#: The minor release of each major version that mends what is known (postgresql.org/support/security): CVE-2025-8714 and CVE-2025-8715,
#: CVE-2026-18408, CVE-2026-116314: a dump that somebody else could write to runs programs on whoever restores it; CVE-2026-6477.
_POSTGRESQL_MENDED: Final[Mapping[int, int]] = {14: 25, 15: 20, 16: 16, 17: 12, 18: 7}
#: sqlite.org/wal.html#walresetbug: since 3.7.0; mended in 3.51.3, and in these older series.
_SQLITE_BUG_SINCE: Final = (3, 7, 0)
_SQLITE_MENDED: Final = (3, 51, 3)
_SQLITE_SERIES: Final[Mapping[tuple[int, int], int]] = {(3, 44): 6, (3, 50): 7}
#: adjtimex(2): more than struct timex has; where its `status` stands, after five longs; and the flag of a clock that nobody sets.
_TIMEX_BYTES: Final = 512
_STATUS_AT: Final = 5 * ctypes.sizeof(ctypes.c_long)
_UNSYNCHRONISED: Final = 0x40
_CLOCK_ERROR: Final = 5
#: How far a clock may be from another before somebody should look, and before S3 servers refuse what is signed by it, in ns.
_OFFSET: Final = 60 * SECOND
_REFUSED_OFFSET: Final = 900 * SECOND


def clock_is_set() -> Iterator[Finding]:
    """Whether something keeps the kernel's clock right: timesyncd, chrony and ntpd all tell it."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        yield warning("clock", f"can't be asked: {os.strerror(ctypes.get_errno()).lower()}")
        return
    (status,) = struct.unpack_from("i", buffer, _STATUS_AT)
    if state == _CLOCK_ERROR or status & _UNSYNCHRONISED:
        yield warning("clock", "nothing keeps it right", "apt install systemd-timesyncd, or: timedatectl set-ntp true")
    else:
        yield fine("clock", "is kept right by NTP")


def clock_went_on(now: int, newest: int) -> Iterator[Finding]:
    """Whether the clock is later than the newest thing that opsd has dated; both in ns UTC, 0 for none."""
    if newest > now:
        behind = (newest - now) // SECOND
        step = "set the clock: timedatectl; until then no snapshot counts as new"
        yield failure("clock", f"went back: the newest snapshot is dated {behind} s ahead of it", step)


def clock_beside(subject: str, ours: int, theirs: int) -> Iterator[Finding]:
    """Our clock beside a server's, in ns UTC; what lies between is known to a few seconds only."""
    apart = abs(ours - theirs)
    if apart > _REFUSED_OFFSET:
        yield failure(subject, f"its clock and ours are {apart // SECOND} s apart", "set both by NTP")
    elif apart > _OFFSET:
        yield warning(subject, f"its clock and ours are {apart // SECOND} s apart", "set both by NTP")


def sqlite_is_mended(version: Version = sqlite3.sqlite_version_info) -> bool:
    """Whether the library is free of the fault that may damage a database in WAL mode that several programs have open."""
    if version < _SQLITE_BUG_SINCE or version >= _SQLITE_MENDED:
        return True
    least = _SQLITE_SERIES.get((version[0], version[1]))
    return least is not None and version[2] >= least


def postgresql_programs(subject: str, version: Version) -> Iterator[Finding]:
    """Whether programs of that major and minor version are known to be dangerous."""
    major, minor = version[:2]
    shown = f"pg_dump and pg_restore {major}.{minor}"
    least = _POSTGRESQL_MENDED.get(major)
    if major < min(_POSTGRESQL_MENDED):
        step = f"install postgresql-client-{max(_POSTGRESQL_MENDED)} from apt.postgresql.org: newer programs dump older servers too"
        yield warning(subject, f"{shown} get no security updates any more", step)
    elif least is not None and minor < least:
        text = f"{shown} are dangerous below {major}.{least}: a crafted dump runs code where it is restored (CVE-2026-116314)"
        yield warning(subject, text, f"apt update && apt install postgresql-client-{major}")
    else:
        yield fine(subject, f"{shown} fit the server")


def program_there(label: str, arguments: Sequence[str]) -> Iterator[Finding]:
    """Whether a program can be started."""
    if which(arguments[0]) is None:
        yield failure(
            label, f"there is no program {arguments[0]} that this user may run", "install it, or give its full path"
        )
