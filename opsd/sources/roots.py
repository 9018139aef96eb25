"""Find what the configured paths name, before anything is read.

Promise: every root exists and can be read, or the source fails as a whole. A symlink on the way to a root is resolved as
the kernel would, and both the link and the place it leads to are recorded: after a restore the path as written works again. A
root that is itself a symlink stays one; a slash at the end means what it leads to.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from opsd.errors import SourceError
from opsd.sources.opening import open_folder, reachable
from opsd.values import dataclass

#: As many symlinks as the kernel follows on one path.
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """`paths`: where the roots are; `ways`: for each folder above one, the names to list; `links`: roots that are symlinks to folders."""

    paths: tuple[bytes, ...]
    ways: Mapping[bytes, tuple[bytes, ...]]
    links: tuple[bytes, ...]


def find(label: str, paths: Iterable[str | bytes]) -> Roots:
    """Resolve the paths; relative ones begin at the working folder.

    Raises:
        SourceError: one is missing or can't be read; all are named.
    """
    ways: dict[bytes, set[bytes]] = defaultdict(set)
    found: dict[bytes, bool] = {}
    problems: list[str] = []
    for path in map(os.fsencode, paths):
        try:
            root = _resolve(path, ways)
            found[root] = _readable(root)
        except OSError as cause:
            problems.append(f"{shown(path)}: {(cause.strerror or str(cause)).lower()}")
    if problems or not found:
        hint = "correct sources." + label + ", or mount what is missing; nothing of this source was read"
        raise SourceError(label, "; ".join(problems) or "names no path", hint=hint)
    return Roots(
        paths=tuple(sorted(found, key=lambda path: path.split(b"/"))),
        ways={folder: tuple(sorted(names)) for folder, names in ways.items()},
        links=tuple(path for path, is_link in found.items() if is_link),
    )


def mounts(paths: Iterable[bytes]) -> dict[bytes, bool]:
    """For each root whether something is mounted on it: its device is not its parent's."""
    return {path: os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev for path in paths}


def join(folder: bytes, name: bytes) -> bytes:
    """The path of a name in a folder; both absolute, without a final slash but for `/` itself."""
    return folder + name if folder == b"/" else folder + b"/" + name


def shown(path: bytes) -> str:
    """The path as text for people; bytes that are no UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")


def _resolve(path: bytes, ways: dict[bytes, set[bytes]]) -> bytes:
    """The path with all symlinks resolved but a last one; notes each name on the way."""
    absolute = path if path.startswith(b"/") else os.getcwdb() + b"/" + path
    through_last = absolute.endswith((b"/", b"/.", b"/.."))
    parts = [part for part in reversed(absolute.split(b"/")) if part not in {b"", b"."}]
    trail: list[bytes] = [b"/"]
    links = 0
    while parts:
        part = parts.pop()
        if part == b"..":
            trail = trail[:-1] or [b"/"]
            continue
        here = join(trail[-1], part)
        found = os.lstat(here)
        if not stat.S_ISLNK(found.st_mode) or not (parts or through_last):
            trail.append(here)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(f"more than {_MOST_LINKS} symlinks")
        _note([*trail, here], ways)
        target = os.readlink(here)
        parts += [each for each in reversed(target.split(b"/")) if each not in {b"", b"."}]
        trail = [b"/"] if target.startswith(b"/") else trail
    _note(trail, ways)
    return trail[-1]


def _note(trail: list[bytes], ways: dict[bytes, set[bytes]]) -> None:
    for folder, child in pairwise(trail):
        ways[folder].add(os.path.basename(child))


def _readable(root: bytes) -> bool:
    """Whether the root is a symlink to a folder; raises OSError if it is a folder that can't be listed."""
    with reachable(root) as short:
        found = os.lstat(short)
        if stat.S_ISLNK(found.st_mode):
            return os.path.isdir(short)
    if stat.S_ISDIR(found.st_mode):
        with open_folder(root):
            pass
    return False
