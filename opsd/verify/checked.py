"""What a host remembers of when it last checked each object of a store.

Promise: 40 bytes an object, replaced whole and synced. One that is lost or broken is as if nothing had ever been checked, which costs
reading and nothing else.
"""

import hashlib
import struct
from pathlib import Path
from typing import Final

from opsd.clock import SECOND
from opsd.errors import StoreReadOnly
from opsd.repository.local import replace_file
from opsd.storage.durable import private_folder
from opsd.verify.slices import Checked, Seen

_MAGIC: Final = b"opsd checked 1\n"
_HEAD: Final = struct.Struct("<QQII")
_SPENT: Final = struct.Struct("<QQ")
#: SHA-256, and seconds since 1970 of the last reading and the last vouching.
_SEEN: Final = struct.Struct("<32sII")


class CheckedFile:
    """The memory of one store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Checked:
        """What is remembered; nothing where the file is absent or broken."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return Checked()
        start = len(_MAGIC) + 32
        body = memoryview(content)[start:]
        if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != content[len(_MAGIC) : start]:
            return Checked()
        since, last, spent, _ = _HEAD.unpack_from(body)
        middle = _HEAD.size + spent * _SPENT.size
        return Checked(
            since=since,
            slice=last,
            spent=tuple(_SPENT.iter_unpack(body[_HEAD.size : middle])),
            seen={
                digest: Seen(read * SECOND, vouched * SECOND)
                for digest, read, vouched in _SEEN.iter_unpack(body[middle:])
            },
        )

    def write(self, checked: Checked) -> None:
        """Remember.

        Raises:
            StoreReadOnly: the state folder can't be written to.
        """
        parts = [_HEAD.pack(checked.since, checked.slice, len(checked.spent), len(checked.seen))]
        parts += [_SPENT.pack(*each) for each in checked.spent]
        parts += [
            _SEEN.pack(digest, seen.read // SECOND, seen.vouched // SECOND) for digest, seen in checked.seen.items()
        ]
        body = b"".join(parts)
        try:
            private_folder(self._path.parent)
            replace_file(self._path, _MAGIC + hashlib.sha256(body).digest() + body)
        except OSError as error:
            raise StoreReadOnly(
                f"what was checked can't be kept in {self._path.parent}: {(error.strerror or str(error)).lower()}",
                hint="make room there, or run as the user that owns the state folder; what was read is read again",
            ) from error
