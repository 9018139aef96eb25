"""The service opsd-owner: takes the image of one SQLite database as the owner of its file, and sends it.

Promise: only databases that a source of the configuration covers are opened, each in a process that became its owner for good; it is the very
file that was asked for, whatever takes its name meanwhile.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Final

from opsd.app.session import find_settings
from opsd.control import Line
from opsd.daemon.control import Talk, beating
from opsd.daemon.hooks import scratch
from opsd.errors import OpsdError, SourceError
from opsd.settings import Settings
from opsd.sources import roots
from opsd.sources.freeze import without_snapshot
from opsd.sources.options import FilesSource, SqliteSource
from opsd.sources.sqlite import image
from opsd.sources.sqlite_image import Care, Reason, Refused

_STEP: Final = 1024 * 1024


class OwnerService:
    """Answers `image`."""

    def __init__(self, configuration: str | None) -> None:
        self._configuration = configuration

    def __call__(self, talk: Talk) -> None:
        """Answer with what the image is, or why there is none; then its bytes follow."""
        path, care, file = _told(talk.request)
        if not covers(find_settings(self._configuration), path):
            raise OpsdError(f"no source covers {os.fsdecode(path)}", hint="name it in the configuration: sources:")
        try:
            _send(talk, path, care, _found(path, file))
        except Refused as error:
            talk.say(answer={"refused": error.reason, "text": error.text})


def _found(path: bytes, file: tuple[int, int] | None) -> os.stat_result:
    """The file that is asked for.

    Raises:
        Refused: another stands there, or a symlink leads there: whoever owns a folder could aim at anybody's database.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Refused(Reason.MISSING, (error.strerror or str(error)).lower()) from error
    if os.path.realpath(path) != path or (file and file != (found.st_dev, found.st_ino)):
        raise Refused(Reason.MISSING, "another file took its place meanwhile")
    return found


def _send(talk: Talk, path: bytes, care: Care, found: os.stat_result) -> None:
    """The image's size and facts, its bytes, and a word at the end that all went well."""
    with ExitStack() as stack:
        with beating(talk):
            taken = stack.enter_context(image(path, found=found, care=care))
        talk.say(answer={"size": taken.size, "facts": taken.facts})
        buffer = memoryview(bytearray(_STEP))
        while (count := taken.readinto(buffer)) and not talk.is_left:
            talk.send(buffer[:count])
    talk.say(answer="whole")


def covers(settings: Settings, path: bytes) -> bool:
    """Whether a source names this database, or a folder that it lies in; one in a snapshot of ours lies where it was taken."""
    frozen_at = os.fsencode(scratch()) + b"/"
    if path.startswith(frozen_at):
        return any(isinstance(each.options, FilesSource) and each.options.snapshot for each in settings.sources)
    real = without_snapshot(path)
    return any(real == root or real.startswith(root.rstrip(b"/") + b"/") for root in _roots(settings))


def _roots(settings: Settings) -> Iterator[bytes]:
    for source in settings.sources:
        if isinstance(source.options, SqliteSource):
            yield os.fsencode(os.path.realpath(source.options.path))
        elif isinstance(source.options, FilesSource):
            for path in source.options.paths:
                with suppress(SourceError):
                    yield from roots.find(source.label, [path]).paths


def _told(request: Line) -> tuple[bytes, Care, tuple[int, int] | None]:
    """Path, care, and the device and inode of the file, which a worker of an earlier version does not tell."""
    path, asked, file = request.get("path"), request.get("care"), request.get("file")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or os.path.normpath(path) != path:
        raise OpsdError(f"path: {path!r} is no plain absolute path")
    kinds = {"busy_seconds": float, "check_bytes": int, "count_bytes": int, "frozen": bool}
    if not isinstance(asked, Mapping) or any(not isinstance(asked.get(key), kind) for key, kind in kinds.items()):
        raise OpsdError(f"care: expected {', '.join(kinds)}")
    care = Care(**{key: asked[key] for key in kinds})
    match file:
        case None:
            return os.fsencode(path), care, None
        case [int(device), int(inode)]:
            return os.fsencode(path), care, (device, inode)
        case _:
            raise OpsdError("file: expected device and inode")
