"""Read which file systems are mounted where.

Promise: pure but for `current`; later mounts hide earlier ones of the same place.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from opsd.values import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of proc(5)'s mountinfo: folder `root` of the file system `source` is seen at `point`."""

    point: bytes
    root: bytes
    kind: str
    source: bytes


def current() -> tuple[Mount, ...]:
    """What this process sees mounted."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def parse(text: bytes) -> tuple[Mount, ...]:
    """The mounts of a mountinfo file, one per place, in its order."""
    mounts: dict[bytes, Mount] = {}
    for line in text.splitlines():
        fields = line.split(b" ")
        kind, source = fields[fields.index(b"-") + 1 :][:2]
        root, point = (_plain(field) for field in fields[3:5])
        mounts.pop(point, None)
        mounts[point] = Mount(point=point, root=root, kind=kind.decode(), source=_plain(source))
    return tuple(mounts.values())


def holding(path: bytes, mounts: Iterable[Mount]) -> Mount:
    """The mount that the path is on."""
    return max((mount for mount in mounts if is_below(path, mount.point)), key=lambda mount: len(mount.point))


def nested(paths: Sequence[bytes], mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts strictly below any of the paths."""
    return [mount for mount in mounts if any(mount.point != path and is_below(mount.point, path) for path in paths)]


def is_below(path: bytes, folder: bytes) -> bool:
    """Whether the path is the folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def beneath(base: bytes, path: bytes, other: bytes) -> bytes:
    """Where `path`, at or below `base`, stands below `other`."""
    rest = os.path.relpath(path, base)
    return other if rest == b"." else os.path.join(other, rest)


def _plain(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
