"""Headers, names and signed envelopes: what all objects have in common.

Promise: no part of an object is parsed before its name, header and signature were checked, except the clear part, and that
only to learn who signed. docs/format.md, Objects and names.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Final

import msgpack

from opsd.clock import parse_stamp, stamp
from opsd.errors import NewerFormat, ObjectDamaged
from opsd.repository.seal import Bytes
from opsd.values import dataclass

MAGIC: Final = b"OPSD"
FORMAT: Final = 1
SUITE: Final = 1
HEADER_BYTES: Final = 8
#: Features that this reader knows (`requires` of settings and manifests).
FEATURES: Final = frozenset[str]()

Map = dict[str, Any]


class Kind(IntEnum):
    """Kinds of object; the number stands in the header."""

    SETTINGS = 1
    KEY_SLOT = 2
    RUN = 3
    PACK = 4
    INDEX = 5
    SNAPSHOT = 6
    WAL = 7
    MARK = 8
    NOTE = 9


FOLDERS: Final = {
    Kind.SETTINGS: "settings",
    Kind.KEY_SLOT: "keys",
    Kind.RUN: "runs",
    Kind.PACK: "packs",
    Kind.INDEX: "index",
    Kind.SNAPSHOT: "snapshots",
    Kind.MARK: "marks",
    Kind.NOTE: "notes",
}
KIND_OF_FOLDER: Final = {folder: kind for kind, folder in FOLDERS.items()}


def header(kind: Kind) -> bytes:
    """The first 8 bytes of every object."""
    return MAGIC + bytes((kind, FORMAT, SUITE, 0))


def check_header(name: str, content: Bytes, kind: Kind) -> None:
    """Refuse what this version can't read.

    Raises:
        ObjectDamaged: not an object of that kind.
        NewerFormat: of a later format or suite.
    """
    if len(content) < HEADER_BYTES or bytes(content[:4]) != MAGIC or content[4] != kind:
        raise ObjectDamaged(name, f"it is no {kind.name.lower().replace('_', ' ')} object")
    if content[5] != FORMAT or content[6] != SUITE:
        raise NewerFormat(
            f"{name} has format {content[5]}, suite {content[6]}; this opsd reads format {FORMAT}, suite {SUITE}",
            hint="install a newer opsd on this machine",
        )


def check_requires(name: str, requires: list[str]) -> None:
    """Refuse an object that needs features this reader does not know."""
    unknown = sorted(set(requires) - FEATURES)
    if unknown:
        raise NewerFormat(f"{name} requires {', '.join(unknown)}", hint="install a newer opsd on this machine")


def digest_of(name: str) -> bytes:
    """The SHA-256 that a name promises.

    Raises:
        ObjectDamaged: the name has no such part.
    """
    text = name.rpartition("/")[2].rpartition("-")[2]
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or text != text.lower():
        raise ObjectDamaged(name, "its name is not that of an object")
    return digest


def pack_name(digest: bytes) -> str:
    """The name of a pack object."""
    text = digest.hex()
    return f"packs/{text[:2]}/{text}"


def name_for(kind: Kind, content: bytes, *, time: int | None = None, number: int | None = None) -> str:
    """The name under which an object of these bytes is put."""
    digest = hashlib.sha256(content).digest()
    if kind is Kind.PACK:
        return pack_name(digest)
    prefix = f"{number:08d}-" if number is not None else f"{stamp(time)}-" if time is not None else ""
    return f"{FOLDERS[kind]}/{prefix}{digest.hex()}"


def time_of(name: str) -> int:
    """The time that stands in a name, in ns UTC.

    Raises:
        ObjectDamaged: there is none.
    """
    try:
        return parse_stamp(name.rpartition("/")[2].partition("-")[0])
    except ValueError as error:
        raise ObjectDamaged(name, "its name holds no time") from error


def check_name(name: str, content: Bytes, kind: Kind) -> None:
    """Whether the bytes are those that the name promises, of that kind.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    if hashlib.sha256(content).digest() != digest_of(name):
        raise ObjectDamaged(name, "its bytes do not match its name")
    check_header(name, content, kind)


@contextmanager
def parsing(name: str, what: str = "it") -> Iterator[None]:
    """Take decoded values from an object: what is missing or of another kind makes it damaged.

    Raises:
        ObjectDamaged: `what` of that name can't be parsed.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectDamaged(name, f"{what} can't be parsed") from error


def pack_map(value: Any) -> bytes:
    """MessagePack."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack_map(name: str, content: Bytes) -> Any:
    """The value of MessagePack bytes.

    Raises:
        ObjectDamaged: it is no whole, valid value.
    """
    try:
        return msgpack.unpackb(content, strict_map_key=False, use_list=True)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ObjectDamaged(name, "its content can't be parsed") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A signed object taken apart: the clear map, the sealed part, the sections, all authentic."""

    clear: Map
    sealed: bytes
    sections: bytes


Sign = Callable[[bytes], bytes]
Verify = Callable[[Map, bytes, bytes], bool]
SIGNATURE_BYTES: Final = 64 + 3309


def _signed_message(kind: Kind, repository: bytes, content: Bytes) -> bytes:
    return b"opsd " + kind.name.lower().encode() + b" 1\0" + repository + bytes(content)


def encode_signed(kind: Kind, envelope: Envelope, repository: bytes, sign: Sign) -> bytes:
    """The bytes of a signed object."""
    parts = [pack_map(envelope.clear), envelope.sealed, envelope.sections]
    content = header(kind) + b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return content + sign(_signed_message(kind, repository, content))


def decode_signed(name: str, content: bytes, kind: Kind, repository: bytes, verify: Verify) -> Envelope:
    """Take a signed object apart; `verify(clear, message, signature)` finds the key by the clear part.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    check_name(name, content, kind)
    parts: list[bytes] = []
    place = HEADER_BYTES
    for _ in range(3):
        length = int.from_bytes(content[place : place + 4], "little")
        parts.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    if len(content) - place != SIGNATURE_BYTES:
        raise ObjectDamaged(name, "its parts do not fill it")
    clear = unpack_map(name, parts[0])
    if not isinstance(clear, dict):
        raise ObjectDamaged(name, "its clear part is no map")
    if not verify(clear, _signed_message(kind, repository, content[:place]), content[place:]):
        raise ObjectDamaged(
            name, "its signature does not hold", hint="someone without the key may have written it; compare with a copy"
        )
    return Envelope(clear=clear, sealed=parts[1], sections=parts[2])
