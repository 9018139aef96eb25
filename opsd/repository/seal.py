"""The few cryptographic operations of the format, each with one purpose.

Promise: a nonce is derived from key, associated data and plaintext, so it can repeat only with the same bytes; nothing is
returned that was not authenticated. docs/format.md, Conventions.
"""

import hmac
from typing import Final

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MAC_BYTES: Final = 32
SEAL_OVERHEAD: Final = NONCE_BYTES + TAG_BYTES
BOX_OVERHEAD: Final = MAC_BYTES + SEAL_OVERHEAD

Bytes = bytes | bytearray | memoryview


class NotAuthentic(Exception):
    """A seal or box does not hold; whoever opens it knows the object's name and says so."""


def subkey(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256: a key for one purpose (RFC 5869's reason, with fixed-length uniform keys)."""
    return hmac.digest(key, text, "sha256")


def keyed_hash(key: bytes, content: Bytes) -> bytes:
    """BLAKE3 in keyed mode, 32 bytes."""
    return blake3.blake3(content, key=key).digest()


def _nonce(key: bytes, associated: bytes, plain: Bytes) -> bytes:
    hasher = blake3.blake3(len(associated).to_bytes(4, "little") + associated, key=subkey(key, b"opsd nonce 1"))
    return hasher.update(plain).digest(NONCE_BYTES)


def seal(key: bytes, associated: bytes, plain: Bytes) -> bytes:
    """Nonce, ciphertext and tag."""
    nonce = _nonce(key, associated, plain)
    return nonce + AESGCM(key).encrypt(nonce, bytes(plain), associated)


def seal_into(key: bytes, associated: bytes, plain: Bytes, target: memoryview) -> None:
    """As `seal`, into a buffer of exactly `len(plain) + SEAL_OVERHEAD` bytes."""
    nonce = _nonce(key, associated, plain)
    target[:NONCE_BYTES] = nonce
    AESGCM(key).encrypt_into(nonce, plain, associated, target[NONCE_BYTES:])


def unseal(key: bytes, associated: bytes, sealed: Bytes) -> bytes:
    """The plaintext.

    Raises:
        NotAuthentic: the key, the associated data or a bit is wrong.
    """
    view = memoryview(sealed)
    if len(view) < SEAL_OVERHEAD:
        raise NotAuthentic
    try:
        return AESGCM(key).decrypt(bytes(view[:NONCE_BYTES]), view[NONCE_BYTES:], associated)
    except InvalidTag as error:
        raise NotAuthentic from error


def unseal_into(key: bytes, associated: bytes, sealed: memoryview, target: memoryview) -> None:
    """As `unseal`, into a buffer of exactly `len(sealed) - SEAL_OVERHEAD` bytes; on NotAuthentic its content is worthless."""
    try:
        AESGCM(key).decrypt_into(bytes(sealed[:NONCE_BYTES]), sealed[NONCE_BYTES:], associated, target)
    except InvalidTag as error:
        raise NotAuthentic from error


def box(key: bytes, kind: bytes, repository: bytes, plain: bytes) -> bytes:
    """A MAC of the plaintext, then the plaintext sealed under a key that only this MAC has."""
    mac = keyed_hash(subkey(key, b"opsd mac 1"), kind + b"\0" + plain)
    context = b"opsd " + kind + b" 1"
    return mac + seal(subkey(key, context + mac), context + b"\0" + repository, plain)


def open_box(key: bytes, kind: bytes, repository: bytes, sealed: Bytes) -> bytes:
    """The plaintext of a box.

    Raises:
        NotAuthentic: it is not a box of that kind under that key in that repository.
    """
    mac = bytes(sealed[:MAC_BYTES])
    context = b"opsd " + kind + b" 1"
    plain = unseal(subkey(key, context + mac), context + b"\0" + repository, memoryview(sealed)[MAC_BYTES:])
    if not hmac.compare_digest(mac, keyed_hash(subkey(key, b"opsd mac 1"), kind + b"\0" + plain)):
        raise NotAuthentic
    return plain
