"""Read what an lstat doesn't tell: extended attributes (ACLs and capabilities among them), targets, devices, names.

Promise: nothing is followed. An attribute that may not be read is named in the result, never left out in silence.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from dataclasses import field

from opsd.sources.opening import reachable
from opsd.values import dataclass

_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What goes into an entry besides its lstat; `unread` names attributes that were refused."""

    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    target: bytes | None = None
    device: tuple[int, int] | None = None
    unread: tuple[bytes, ...] = ()


class MetadataReader:
    """Reads for one run: remembers which devices have no attributes, and owners' names. For several threads."""

    def __init__(self) -> None:
        self._without: set[int] = set()
        self._owners: dict[int, bytes | None] = {}
        self._groups: dict[int, bytes | None] = {}

    def read(self, where: bytes | int, found: os.stat_result) -> Extra | None:
        """What there is besides the lstat; None for most. `where` is the real path, or a descriptor of a file or folder.

        Raises:
            OSError: the entry is gone, or is another one now.
        """
        if isinstance(where, bytes) and len(where) > 4000:
            with reachable(where) as short:
                return self._read(short, found)
        return self._read(where, found)

    def owner_name(self, number: int) -> bytes | None:
        """The user's name, None where the machine knows none."""
        if number not in self._owners:
            self._owners[number] = _name(lambda: pwd.getpwuid(number).pw_name)
        return self._owners[number]

    def group_name(self, number: int) -> bytes | None:
        """The group's name, None where the machine knows none."""
        if number not in self._groups:
            self._groups[number] = _name(lambda: grp.getgrgid(number).gr_name)
        return self._groups[number]

    def _read(self, where: bytes | int, found: os.stat_result) -> Extra | None:
        names = self._attribute_names(where, found)
        kind = stat.S_IFMT(found.st_mode)
        device = kind in {stat.S_IFCHR, stat.S_IFBLK}
        if not names and not device and kind != stat.S_IFLNK:
            return None
        xattrs, unread = _values(where, names)
        return Extra(
            xattrs=xattrs,
            target=os.readlink(where) if kind == stat.S_IFLNK and isinstance(where, bytes) else None,
            device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if device else None,
            unread=unread,
        )

    def _attribute_names(self, where: bytes | int, found: os.stat_result) -> list[str]:
        if found.st_dev in self._without:
            return []
        try:
            return os.listxattr(where, follow_symlinks=isinstance(where, int))
        except OSError as cause:
            if cause.errno not in _UNSUPPORTED:
                raise
            # Some file systems refuse for symlinks and pipes only: what a file or folder says holds for all.
            if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                self._without.add(found.st_dev)
            return []


def _values(where: bytes | int, names: list[str]) -> tuple[dict[bytes, bytes], tuple[bytes, ...]]:
    values: dict[bytes, bytes] = {}
    unread: list[bytes] = []
    for name in sorted(names):
        try:
            values[os.fsencode(name)] = os.getxattr(where, name, follow_symlinks=isinstance(where, int))
        except OSError as cause:
            if cause.errno in {errno.EACCES, errno.EPERM}:
                unread.append(os.fsencode(name))
            elif cause.errno not in _UNSUPPORTED | {errno.ENODATA}:  # Removed since it was listed.
                raise
    return values, tuple(unread)


def _name(look_up: Callable[[], str]) -> bytes | None:
    try:
        return os.fsencode(look_up())
    except KeyError:
        return None
