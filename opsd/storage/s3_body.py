"""The bytes of a put, and the sums that servers check.

Promise: a file is never held in memory whole, and is hashed only as the server asks for.
"""

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opsd.errors import StorageError
from opsd.storage.folder import Content


class Body:
    """An open file, to be sent from its beginning; `size` in bytes."""

    def __init__(self, file: io.BufferedReader | io.BytesIO) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def sum(self, kind: str) -> bytes:
        """The digest of all bytes: sha256, or md5 where a server checks nothing better."""
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, lambda: hashlib.new(kind, usedforsecurity=False)).digest()
        self.file.seek(0)
        return digest

    def sum_in_header(self, kind: str) -> str:
        """The same, as S3's headers want it."""
        return base64.b64encode(self.sum(kind)).decode()


@contextmanager
def opened(name: str, content: Content) -> Iterator[Body]:
    """The body of the object of that name; StorageError if a file can't be read."""
    try:
        file = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    except OSError as error:
        raise StorageError(f"can't read what is to be stored as {name}: {str(error).lower()}") from error
    with file:
        yield Body(file)
