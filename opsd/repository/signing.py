"""Signatures: Ed25519 and ML-DSA-65 side by side; both must hold, so either may fall.

docs/format.md, Conventions.
"""

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from opsd.errors import KeyRefused
from opsd.repository.format import Map
from opsd.values import dataclass

_ED25519_BYTES = 64
_PUBLIC: Final = "public signing key"
#: Signatures that held, by the hash of key, message and signature: prune lists everything several times, and each costs 0.4 ms.
_held: Final[OrderedDict[bytes, None]] = OrderedDict()
_HELD_LIMIT: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public signing key: 32 and 1,952 raw bytes."""

    ed25519: bytes
    mldsa65: bytes

    @property
    def id(self) -> bytes:
        """16 bytes that name the key."""
        return hashlib.sha256(self.ed25519 + self.mldsa65).digest()[:16]

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether both signatures hold."""
        parts = (self.ed25519, self.mldsa65, hashlib.sha256(message).digest(), signature)
        proof = hashlib.sha256(b"".join(parts)).digest()
        if proof in _held:
            return True
        try:
            Ed25519PublicKey.from_public_bytes(self.ed25519).verify(signature[:_ED25519_BYTES], message)
            MLDSA65PublicKey.from_public_bytes(self.mldsa65).verify(signature[_ED25519_BYTES:], message)
        except (InvalidSignature, ValueError):
            return False
        _held[proof] = None
        if len(_held) > _HELD_LIMIT:
            _held.popitem(last=False)
        return True

    def as_map(self) -> Map:
        """As it stands in settings."""
        return {"ed25519": self.ed25519, "mldsa65": self.mldsa65}

    @classmethod
    def from_map(cls, value: Map) -> "PublicKey":
        """From the format's map."""
        return cls(ed25519=bytes(value["ed25519"]), mldsa65=bytes(value["mldsa65"]))


def public_key_text(key: PublicKey) -> str:
    """A public signing key as a file: JSON with two keys in hex."""
    return json.dumps({"opsd": _PUBLIC, "ed25519": key.ed25519.hex(), "mldsa65": key.mldsa65.hex()}, indent=1) + "\n"


def read_public_key(path: Path) -> PublicKey:
    """The key in such a file.

    Raises:
        KeyRefused: it holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        key = PublicKey(ed25519=bytes.fromhex(value["ed25519"]), mldsa65=bytes.fromhex(value["mldsa65"]))
        if value["opsd"] == _PUBLIC and (len(key.ed25519), len(key.mldsa65)) == (32, 1952):
            return key
    except (ValueError, KeyError, TypeError):
        pass
    raise KeyRefused(f"{path} holds no {_PUBLIC}", hint="'opsd key public' prints one")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A secret signing key: two seeds of 32 bytes."""

    ed25519: bytes
    mldsa65: bytes

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key from the system's random generator."""
        return cls(ed25519=os.urandom(32), mldsa65=os.urandom(32))

    def public(self) -> PublicKey:
        """The key that verifies."""
        return PublicKey(
            ed25519=Ed25519PrivateKey.from_private_bytes(self.ed25519).public_key().public_bytes_raw(),
            mldsa65=MLDSA65PrivateKey.from_seed_bytes(self.mldsa65).public_key().public_bytes_raw(),
        )

    def sign(self, message: bytes) -> bytes:
        """Both signatures, 3,373 bytes."""
        first = Ed25519PrivateKey.from_private_bytes(self.ed25519).sign(message)
        return first + MLDSA65PrivateKey.from_seed_bytes(self.mldsa65).sign(message)

    def as_map(self) -> Map:
        """As it stands in a key slot."""
        return {"ed25519": self.ed25519, "mldsa65": self.mldsa65}

    @classmethod
    def from_map(cls, value: Map) -> "SigningKey":
        """From the format's map."""
        return cls(ed25519=bytes(value["ed25519"]), mldsa65=bytes(value["mldsa65"]))
