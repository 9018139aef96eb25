"""What of a file's stat says that it is unchanged, and when that can't be relied on.

Promise: a change that the file system's clock may have hidden is never taken for none.
"""

import os
import struct
from typing import Final

_STATUS: Final = struct.Struct("<IQQqqIIIQ")
#: A change this long before the reading may have hidden behind the file system's clock tick (ns).
_TICK: Final = 20_000_000
_COARSE_TICK: Final = 2_000_000_000
_SECOND: Final = 1_000_000_000


def status_bytes(found: os.stat_result) -> bytes:
    """What must be equal for an entry to count as unchanged: all but the device number, which may change at a reboot."""
    return _STATUS.pack(
        found.st_mode,
        found.st_size,
        found.st_ino,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_uid,
        found.st_gid,
        found.st_nlink & 0xFFFFFFFF,
        found.st_rdev,
    )


def racy(found: os.stat_result, began: int) -> bool:
    """Whether the file may change again without showing it: its last change is too near to the reading."""
    tick = _TICK if found.st_ctime_ns % _SECOND else _COARSE_TICK
    return found.st_ctime_ns > began - tick
