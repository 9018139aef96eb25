"""Set what an entry says besides its content: owner, mode, ACLs, attributes, capabilities, times.

Promise: in the order in which nothing undoes what was set before (chown clears setuid bits and capabilities, each change of
content the times). What may not be set is a counted complaint. An owner that can't be given takes the setuid bits with it.
"""

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final, Protocol

from opsd.model import Entry, EntryType
from opsd.restore.complaints import Complaints
from opsd.restore.owners import Owners

#: An open file, or a path that leads to exactly one inode (`/proc/self/fd/N` of an O_PATH descriptor).
Handle = int | bytes
#: User, group and permission bits that an inode has now; None where unknown.
Given = tuple[int, int, int]

_SET_BITS: Final = stat.S_ISUID | stat.S_ISGID
_LAST: Final = b"security.capability"
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
#: Attributes that a restore in place removes where the snapshot lacks them; others are the system's own.
_REMOVED: Final = (b"user.", b"trusted.", *_ACLS, _LAST)


class Names(Protocol):
    """The names of owners, as a folder of the listing gives them."""

    @property
    def users(self) -> Mapping[int, bytes]:
        """Users' names by number."""
        ...

    @property
    def groups(self) -> Mapping[int, bytes]:
        """Groups' names by number."""
        ...


class Metadata:
    """Sets and compares metadata for one restore."""

    def __init__(self, owners: Owners, complaints: Complaints) -> None:
        self._owners = owners
        self._complaints = complaints
        self._root = os.geteuid() == 0

    @property
    def may_give_away(self) -> bool:
        """Whether files can be given to anybody."""
        return self._root

    def differing(self, entry: Entry, names: Names, given: Given) -> tuple[tuple[int, int] | None, int | None]:
        """Owner and mode that an entry's inode must be given because it has others; None where it has not."""
        owner = self._owners.user(entry.uid, names.users), self._owners.group(entry.gid, names.groups)
        mode = entry.mode & 0o7777
        return None if owner == given[:2] else owner, None if mode == given[2] else mode

    def settle(self, handle: Handle, entry: Entry, names: Names, given: Given, path: bytes) -> None:
        """Give a file, folder, fifo or device all that its entry says."""
        mode = entry.mode & 0o7777
        uid, gid = self._owners.user(entry.uid, names.users), self._owners.group(entry.gid, names.groups)
        if uid != given[0] or gid != given[1]:
            if not self._own(handle, (uid, gid), given, path) and mode & _SET_BITS:
                self._complaints.add(
                    path, "setuid and setgid bits left out: the owner could not be set", "run the restore as root"
                )
                mode &= ~_SET_BITS
            given = (uid, gid, given[2] if not given[2] & _SET_BITS else -1)
        if mode != given[2]:
            try:
                os.chmod(handle, mode)
            except OSError as error:
                self._complaints.failed(path, "the mode could not be set", error)
        if entry.xattrs:
            self._set_xattrs(handle, entry, names, path)
        self.touch(handle, entry, path)

    def touch(self, handle: Handle, entry: Entry, path: bytes) -> None:
        """Set the time of change alone."""
        try:
            os.utime(handle, ns=(entry.mtime, entry.mtime))
        except OSError as error:
            self._complaints.failed(path, "the time could not be set", error)
        except OverflowError:
            self._complaints.add(path, "the time could not be set: it is out of range")

    def settle_link(self, folder: int, entry: Entry, names: Names, at: bytes, path: bytes) -> None:
        """Give the symlink called `at` in an open folder its owner, attributes and time."""
        uid, gid = self._owners.user(entry.uid, names.users), self._owners.group(entry.gid, names.groups)
        try:
            found = os.stat(at, dir_fd=folder, follow_symlinks=False)
            if (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(at, uid, gid, dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError) as error:
            self._not_owned(error, path)
        for name, value in entry.xattrs.items():
            self._set_xattr(b"/proc/self/fd/%d/%s" % (folder, at), name, value, path, follow=False)
        try:
            os.utime(at, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)
        except (OSError, OverflowError) as error:
            self._complaints.add(path, f"the time could not be set: {error}")

    def clean(self, handle: Handle, entry: Entry, path: bytes) -> None:
        """Remove attributes that an inode has and its entry lacks; an ACL that a new file took from its folder is one."""
        for name in _listed(handle, follow=True):
            if name.startswith(_REMOVED) and name not in entry.xattrs:
                try:
                    os.removexattr(handle, name)
                except OSError as error:
                    self._complaints.failed(
                        path, f"attribute {name.decode(errors='replace')} could not be removed", error
                    )

    def differs(self, where: bytes, found: os.stat_result, entry: Entry, names: Names) -> bool:
        """Whether what stands at `where` (not followed) has other metadata; owners count where they can be given."""
        if found.st_mtime_ns != entry.mtime:
            return True
        if entry.type is not EntryType.SYMLINK and stat.S_IMODE(found.st_mode) != entry.mode & 0o7777:
            return True
        if self._root:
            uid, gid = self._owners.user(entry.uid, names.users), self._owners.group(entry.gid, names.groups)
            if (found.st_uid, found.st_gid) != (uid, gid):
                return True
        present = {name for name in _listed(where, follow=False) if name.startswith(_REMOVED)}
        wanted = {name for name in entry.xattrs if self._root or name.startswith((b"user.", *_ACLS))}
        return not wanted >= present or any(
            _value(where, name) != self._translated(name, entry.xattrs[name], names) for name in wanted
        )

    def _own(self, handle: Handle, wanted: tuple[int, int], given: Given, path: bytes) -> bool:
        uid, gid = wanted
        try:
            os.chown(handle, uid, gid)
        except (OSError, OverflowError) as error:
            self._not_owned(error, path)
        else:
            return True
        if gid != given[1]:
            try:
                os.chown(handle, -1, gid)  # One's own file may be given to any of one's own groups.
            except (OSError, OverflowError):
                return False
        return False

    def _not_owned(self, error: OSError | OverflowError, path: bytes) -> None:
        if isinstance(error, OSError):
            self._complaints.failed(path, "the owner could not be set", error)
        else:
            self._complaints.add(path, "the owner could not be set: no such number")

    def _set_xattrs(self, handle: Handle, entry: Entry, names: Names, path: bytes) -> None:
        # ACLs before anything else, since they repeat the mode; capabilities last, since much clears them.
        for name in sorted(entry.xattrs, key=lambda each: (each == _LAST, each not in _ACLS, each)):
            self._set_xattr(handle, name, self._translated(name, entry.xattrs[name], names), path)

    def _translated(self, name: bytes, value: bytes, names: Names) -> bytes:
        return self._owners.acl(value, names.users, names.groups) if name in _ACLS else value

    def _set_xattr(self, handle: Handle, name: bytes, value: bytes, path: bytes, *, follow: bool = True) -> None:
        try:
            os.setxattr(handle, name, value, follow_symlinks=follow)
        except (OSError, ValueError) as error:
            what = f"attribute {name.decode(errors='replace')} could not be set"
            if isinstance(error, OSError):
                self._complaints.failed(path, what, error)
            else:
                self._complaints.add(path, what)


def _listed(handle: Handle, *, follow: bool) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listxattr(handle, follow_symlinks=follow)]
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOENT}:
            return []
        raise


def _value(where: bytes, name: bytes) -> bytes | None:
    try:
        return os.getxattr(where, name, follow_symlinks=False)
    except OSError:
        return None
