"""Which number an owner has on this machine: by name first, then by the number that was recorded.

Promise: each name is looked up once; a name that this machine lacks keeps its number.
"""

import grp
import os
import pwd
import struct
from collections.abc import Callable, Mapping
from typing import Final

#: Entries of POSIX ACLs in their xattr form that name somebody (linux/posix_acl_xattr.h).
_ACL_USER: Final = 0x02
_ACL_GROUP: Final = 0x08
_ACL_HEAD: Final = 4
_ACL_ENTRY: Final = struct.Struct("<HHI")


class Owners:
    """Numbers of users and groups here, for one restore."""

    def __init__(self, *, numeric: bool) -> None:
        self._numeric = numeric
        self._users: dict[tuple[int, bytes | None], int] = {}
        self._groups: dict[tuple[int, bytes | None], int] = {}

    def user(self, number: int, names: Mapping[int, bytes]) -> int:
        """The user that was `number` where the snapshot was taken."""
        key = (number, names.get(number))
        found = self._users.get(key)
        if found is None:
            found = self._users[key] = self._find(key, lambda name: pwd.getpwnam(name).pw_uid)
        return found

    def group(self, number: int, names: Mapping[int, bytes]) -> int:
        """The group that was `number` where the snapshot was taken."""
        key = (number, names.get(number))
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = self._find(key, lambda name: grp.getgrnam(name).gr_gid)
        return found

    def acl(self, value: bytes, users: Mapping[int, bytes], groups: Mapping[int, bytes]) -> bytes:
        """An ACL's xattr with the numbers of this machine; one of an unknown form stays as it is."""
        if self._numeric or (len(value) - _ACL_HEAD) % _ACL_ENTRY.size:
            return value
        found = bytearray(value)
        for place in range(_ACL_HEAD, len(value), _ACL_ENTRY.size):
            tag, permissions, number = _ACL_ENTRY.unpack_from(value, place)
            if tag == _ACL_USER:
                _ACL_ENTRY.pack_into(found, place, tag, permissions, self.user(number, users))
            elif tag == _ACL_GROUP:
                _ACL_ENTRY.pack_into(found, place, tag, permissions, self.group(number, groups))
        return bytes(found)

    def _find(self, key: tuple[int, bytes | None], look_up: Callable[[str], int]) -> int:
        number, name = key
        if self._numeric or not name:
            return number
        try:
            return look_up(os.fsdecode(name))
        except (KeyError, ValueError):
            return number
