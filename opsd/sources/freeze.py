"""Hold a files source still: read it from a snapshot that its file system makes.

Promise: the snapshot is removed when the context ends, however it ends; what a killed run left behind is removed when the next one
begins. Paths are recorded as they are without a snapshot. What a snapshot can't show (other file systems mounted below a root) is frozen as
well if it is of the same kind, else read as it is, and said.
"""

import itertools
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from opsd.control import asked, socket_of
from opsd.errors import OpsdError, SourceError
from opsd.events import Reporter, Warning
from opsd.sources import mountinfo, roots
from opsd.sources.freezers import BtrfsFreezer, Freezer, LvmFreezer, Run, Volume, ZfsFreezer
from opsd.sources.mountinfo import Mount
from opsd.sources.options import FilesSource
from opsd.sources.roots import shown

#: What a snapshot is called: the process that made it, when that process began (ticks since boot), a number.
_NAME = re.compile(r"opsd-(\d+)-(\d+)-\d+")
_numbers = itertools.count(1)


@contextmanager
def frozen(
    label: str, options: FilesSource, reporter: Reporter, run: Run, *, scratch: Path
) -> Iterator[Mapping[bytes, bytes]]:
    """Where to read each root while the context lasts, for FileTree; empty if no snapshot is asked for.

    `scratch` is a folder of opsd's own where LVM snapshots are mounted.

    Raises:
        SourceError: a root is missing, lies on another kind of file system, or a snapshot broke while it was read.
        OpsdError: a tool is missing or failed.
    """
    if options.snapshot is None:
        yield {}
        return
    # A root that is no folder is found through the folder that holds it.
    found = roots.find(label, options.paths).paths
    folders = [path if stat.S_ISDIR(os.lstat(path).st_mode) else os.path.dirname(path) for path in found]
    snapshots = _Snapshots(label, _freezer(options.snapshot, run, scratch), reporter)
    with ExitStack() as stack:
        stack.callback(snapshots.remove)
        mounts = mountinfo.current()
        real = {path: snapshots.of(path, mountinfo.holding(path, mounts)) for path in folders}
        for mount in [] if options.one_file_system else mountinfo.nested(found, mounts):
            if mount.point not in real:
                real[mount.point] = snapshots.of_nested(mount)
        yield real
        snapshots.check()


@contextmanager
def frozen_by_service(label: str, reporter: Reporter) -> Iterator[Mapping[bytes, bytes]]:
    """The same, made by opsd-hooks, which has the rights, for a source of the configuration; they last as long as the connection.

    Raises:
        SourceError: the service made none, or one broke.
    """
    with ExitStack() as stack:
        with _failing(label):
            service = stack.enter_context(asked(socket_of("freeze"), {"job": "freeze", "source": label}))
            real = service.answer()
        yield {os.fsencode(path): os.fsencode(at) for path, at in real.items()}
        with _failing(label):
            service.release()
            told = service.answer()
    for line in told["lines"]:
        reporter.tell(line)
    for warning in told["warnings"]:
        reporter.warn(Warning(**warning))


@contextmanager
def _failing(label: str) -> Iterator[None]:
    """What goes wrong with the service is the source's failure."""
    try:
        yield
    except OpsdError as error:
        raise SourceError(label, str(error).removeprefix(f"source {label}: "), hint=error.hint) from error


class _Snapshots:
    """The snapshots of one run of one source."""

    def __init__(self, label: str, freezer: Freezer, reporter: Reporter) -> None:
        self._label = label
        self._freezer = freezer
        self._reporter = reporter
        self._made: dict[str, tuple[Volume, str]] = {}
        self._shown: dict[str, bytes] = {}

    def of(self, path: bytes, mount: Mount) -> bytes:
        """Where a folder is to be read."""
        volume = self._freezer.volume(path, mount)
        if volume is None:
            problem = f"{shown(path)} is on {mount.kind} at {shown(mount.point)}, which can't be frozen that way"
            raise SourceError(self._label, problem, hint=f"correct or remove 'snapshot' of sources.{self._label}")
        return self._inside(volume, path)

    def of_nested(self, mount: Mount) -> bytes:
        """Where a file system mounted below a root is to be read: in a snapshot of its own, or where it is."""
        try:
            volume = self._freezer.volume(mount.point, mount)
        except OpsdError:
            volume = None
        if volume is not None:
            return self._inside(volume, mount.point)
        self._reporter.tell(f"{shown(mount.point)} is a file system of its own ({mount.kind}) and is read as it is")
        return mount.point

    def check(self) -> None:
        """Fail the source if a snapshot did not hold."""
        for volume, name in self._made.values():
            if not self._freezer.still_good(volume, name):
                problem = f"the snapshot of {volume.name} broke: more was written meanwhile than it has room for"
                raise SourceError(self._label, problem, hint="run at a quieter time, or use a thin volume")

    def remove(self) -> None:
        """Remove all that were made, the last first; what can't be removed now the next run removes."""
        for volume, name in reversed(self._made.values()):
            self._thaw(volume, name)

    def _inside(self, volume: Volume, path: bytes) -> bytes:
        if volume.name not in self._shown:
            self._freeze(volume)
        return mountinfo.beneath(volume.top, path, self._shown[volume.name])

    def _freeze(self, volume: Volume) -> None:
        for name in self._freezer.names(volume):
            if is_leftover(name):
                self._reporter.tell(f"removes snapshot {name} of {volume.name}, left behind by a run that was cut off")
                self._thaw(volume, name)
        name = f"opsd-{os.getpid()}-{_began(os.getpid())}-{next(_numbers)}"
        self._made[volume.name] = volume, name  # Noted first: half made is removed as well.
        self._shown[volume.name] = self._freezer.freeze(volume, name)

    def _thaw(self, volume: Volume, name: str) -> None:
        try:
            self._freezer.thaw(volume, name)
        except (OpsdError, OSError) as cause:
            problem = f"snapshot of {volume.name} can't be removed: {cause}"
            self._reporter.warn(Warning(subject=name, problem=problem, hint="the next run tries again"))


def without_snapshot(path: bytes) -> bytes:
    """The path that a file inside a btrfs or ZFS snapshot of ours has outside it; any other as it is."""
    parts = path.split(b"/")
    at = next((number for number, part in enumerate(parts) if _NAME.fullmatch(os.fsdecode(part))), None)
    if at is None:
        return path
    before = parts[:at]
    if before[-2:] == [b".zfs", b"snapshot"]:
        before = before[:-2]
    return b"/".join(before + parts[at + 1 :])


def is_leftover(name: str) -> bool:
    """Whether this is the name of a snapshot whose process is gone."""
    match = _NAME.fullmatch(name)
    return match is not None and _began(int(match[1])) != int(match[2])


def _began(process: int) -> int | None:
    """When a process began, in ticks since boot (proc(5), stat); None if there is none."""
    try:
        line = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return None
    return int(line.rpartition(b")")[2].split()[19])


def _freezer(kind: str, run: Run, scratch: Path) -> Freezer:
    kinds: Sequence[tuple[str, Freezer]] = (
        ("btrfs", BtrfsFreezer(run)),
        ("zfs", ZfsFreezer(run)),
        ("lvm", LvmFreezer(run, scratch)),
    )
    return dict(kinds)[kind]
