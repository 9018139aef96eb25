"""Prove stored objects by their names: every byte read and hashed once, without any key.

Promise: memory is a window, whatever the object's size; what is returned as whole was read to its last byte.
"""

import hashlib
from typing import Final

from opsd.errors import NewerFormat, ObjectDamaged
from opsd.repository.format import HEADER_BYTES, KIND_OF_FOLDER, check_header, digest_of
from opsd.storage.protocol import ObjectInfo, Store

_WINDOW: Final = 8 << 20


def window() -> memoryview:
    """What to read through; for one thread at a time."""
    return memoryview(bytearray(_WINDOW))


def problem_of(store: Store, info: ObjectInfo, buffer: memoryview) -> str | None:
    """What is wrong with an object, or None.

    Raises:
        ObjectNotFound: it is gone. StorageError: it can't be read.
    """
    found, place, start = hashlib.sha256(), 0, b""
    while place < info.size or not place:
        got = store.read_into(info.name, place, buffer)
        found.update(buffer[:got])
        start = start or bytes(buffer[: min(got, HEADER_BYTES)])
        place += got
        if got < len(buffer):
            break
    try:
        if found.digest() != digest_of(info.name):
            return "its bytes do not match its name"
        kind = KIND_OF_FOLDER.get(info.name.partition("/")[0])
        if kind is not None:
            check_header(info.name, start, kind)
    except ObjectDamaged as error:
        return error.problem
    except NewerFormat:
        return None  # Whole, and for a newer opsd to read.
    return None
