"""Make and remove read-only snapshots of file systems, each by its own tools.

Promise: one class per kind, all alike; each only knows its commands. What is made is named by the caller.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from opsd.sources.mountinfo import Mount
from opsd.values import dataclass

#: The inode of every btrfs subvolume's top folder (btrfs(5), BTRFS_FIRST_FREE_OBJECTID).
_SUBVOLUME_INODE = 256
#: How much may be written to the origin of a thick LVM snapshot before it breaks.
_LVM_SHARE = "20%ORIGIN"


class Run(Protocol):
    """Runs a program and returns its standard output; raises OpsdError if it can't or the program fails."""

    def __call__(self, arguments: Sequence[str], /) -> bytes:
        """Run it to its end, without a shell."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What one snapshot is made of: its name for the tools, the folder that shows its top, the mount that it is seen through."""

    name: str
    top: bytes
    mount: Mount


class Freezer(Protocol):
    """One kind of snapshot."""

    def volume(self, path: bytes, mount: Mount) -> Volume | None:
        """The volume that holds the folder; None if it is of another kind."""
        ...

    def freeze(self, volume: Volume, name: str) -> bytes:
        """Make the snapshot and return the folder that shows what `volume.top` showed."""
        ...

    def still_good(self, volume: Volume, name: str) -> bool:
        """Whether the snapshot held until now."""
        ...

    def thaw(self, volume: Volume, name: str) -> None:
        """Remove the snapshot, complete or half made."""
        ...

    def names(self, volume: Volume) -> list[str]:
        """All snapshots of the volume."""
        ...


class BtrfsFreezer:
    """A read-only snapshot inside the subvolume that it is of; subvolumes nested in it are not in the snapshot."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def volume(self, path: bytes, mount: Mount) -> Volume | None:
        """The nearest subvolume upwards."""
        if mount.kind != "btrfs":
            return None
        top = path
        while top != mount.point and os.lstat(top).st_ino != _SUBVOLUME_INODE:
            top = os.path.dirname(top)
        return Volume(name=os.fsdecode(top), top=top, mount=mount)

    def freeze(self, volume: Volume, name: str) -> bytes:
        """Takes a moment, whatever the size."""
        self._run(["btrfs", "subvolume", "snapshot", "-r", volume.name, os.path.join(volume.name, name)])
        return os.path.join(volume.top, name.encode())

    def still_good(self, volume: Volume, name: str) -> bool:
        """Always: it has no room of its own to run out of."""
        del volume, name
        return True

    def thaw(self, volume: Volume, name: str) -> None:
        """Blocks are given back in the background."""
        if Path(volume.name, name).exists():
            self._run(["btrfs", "subvolume", "delete", os.path.join(volume.name, name)])

    def names(self, volume: Volume) -> list[str]:
        """Everything beside them is in the list, too; the caller knows its names."""
        return [os.fsdecode(name) for name in os.listdir(volume.top)]


class ZfsFreezer:
    """A snapshot of the dataset, seen below its `.zfs` folder whether that is visible or not."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def volume(self, path: bytes, mount: Mount) -> Volume | None:
        """The dataset; a part of one that is mounted elsewhere has no `.zfs`."""
        del path
        if mount.kind != "zfs" or mount.root != b"/":
            return None
        return Volume(name=os.fsdecode(mount.source), top=mount.point, mount=mount)

    def freeze(self, volume: Volume, name: str) -> bytes:
        """The first look mounts it."""
        self._run(["zfs", "snapshot", f"{volume.name}@{name}"])
        shown = os.path.join(volume.top, b".zfs/snapshot", name.encode())
        os.listdir(shown)
        return shown

    def still_good(self, volume: Volume, name: str) -> bool:
        """Always, as with btrfs."""
        del volume, name
        return True

    def thaw(self, volume: Volume, name: str) -> None:
        """Unmounts it as well."""
        if name in self.names(volume):
            self._run(["zfs", "destroy", f"{volume.name}@{name}"])

    def names(self, volume: Volume) -> list[str]:
        """Those of the dataset itself."""
        listed = self._run(["zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-d", "1", volume.name])
        return [line.partition("@")[2] for line in listed.decode().splitlines()]


class LvmFreezer:
    """A snapshot of the logical volume, mounted read-only in a folder of opsd's own."""

    def __init__(self, run: Run, scratch: Path) -> None:
        self._run = run
        self._scratch = scratch

    def volume(self, path: bytes, mount: Mount) -> Volume | None:
        """The logical volume, as `group/volume`."""
        del path
        if not mount.source.startswith(b"/dev/"):
            return None
        columns = self._columns("vg_name,lv_name", os.fsdecode(mount.source))
        return Volume(name="/".join(columns[0]), top=mount.point, mount=mount) if columns else None

    def freeze(self, volume: Volume, name: str) -> bytes:
        """A thin volume needs no room set aside."""
        thin = self._columns("pool_lv", volume.name) != []
        room = ["--setactivationskip", "n"] if thin else ["--extents", _LVM_SHARE]
        self._run(["lvcreate", "--snapshot", "--name", name, *room, volume.name])
        shown = self._scratch / name
        shown.mkdir(mode=0o700, parents=True)
        # XFS refuses to mount two file systems of one UUID unless told.
        options = "ro,nouuid" if volume.mount.kind == "xfs" else "ro"
        self._run(["mount", "-o", options, f"/dev/{_sibling(volume, name)}", str(shown)])
        return os.fsencode(shown) + volume.mount.root.rstrip(b"/")

    def still_good(self, volume: Volume, name: str) -> bool:
        """A thick snapshot breaks when more was written to its origin than it has room for."""
        return ["snapshot", "invalid"] not in self._columns("lv_snapshot_invalid", _sibling(volume, name))

    def thaw(self, volume: Volume, name: str) -> None:
        """Unmounts it as well."""
        shown = self._scratch / name
        if shown.is_dir():
            if shown.is_mount():
                self._run(["umount", str(shown)])
            shown.rmdir()
        if name in self.names(volume):
            self._run(["lvremove", "--force", _sibling(volume, name)])

    def names(self, volume: Volume) -> list[str]:
        """All volumes of the group."""
        return [columns[0] for columns in self._columns("lv_name", volume.name.partition("/")[0])]

    def _columns(self, wanted: str, of: str) -> list[list[str]]:
        """What lvs says; lines without a value are left out."""
        listed = self._run(["lvs", "--noheadings", "--options", wanted, of]).decode()
        return [line.split() for line in listed.splitlines() if line.strip()]


def _sibling(volume: Volume, name: str) -> str:
    return f"{volume.name.partition('/')[0]}/{name}"
