"""Who holds which keys, and how a passphrase, a kit or a recipient's key opens them.

Promise: a slot carries the repository id and the owner's public key inside what it authenticates, so keys are never trusted
because the store says so. Changing a passphrase or adding a reader writes one slot. docs/format.md, Key slots.
"""

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import field, replace
from threading import Lock
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from opsd.errors import KeyMissing, ObjectDamaged
from opsd.repository.allocation import in_huge_pages
from opsd.repository.format import HEADER_BYTES, Kind, Map, check_name, header, pack_map, parsing, unpack_map
from opsd.repository.seal import NotAuthentic, seal, subkey, unseal
from opsd.repository.signing import PublicKey, SigningKey
from opsd.values import dataclass

INDEX_DOMAIN: Final = 0
DEFAULT_DOMAIN: Final = 1
#: RFC 9106's second recommendation: 64 MiB, three passes, four lanes; 0.1 to 0.2 s on a small server.
ARGON2: Final = {"memory_kib": 64 * 1024, "iterations": 3, "lanes": 4}
#: A slot that asks for more is refused: it comes from the store and nobody vouched for it yet.
_ARGON2_LIMIT_KIB: Final = 4 * 1024 * 1024
_ARGON2_TURN: Final = Lock()
_HPKE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """The public half of a domain's or recipient's key pair: 1,184 and 32 raw bytes."""

    mlkem768: bytes
    x25519: bytes

    @property
    def id(self) -> bytes:
        """8 bytes that name the pair."""
        return hashlib.sha256(self.mlkem768 + self.x25519).digest()[:8]

    def seal(self, plain: bytes, info: bytes) -> bytes:
        """HPKE to this key (RFC 9180, base mode)."""
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.mlkem768), X25519PublicKey.from_public_bytes(self.x25519)
        )
        return _HPKE.encrypt(plain, key, info)

    def as_map(self) -> Map:
        """As it stands in settings."""
        return {"id": self.id, "mlkem768": self.mlkem768, "x25519": self.x25519}

    @classmethod
    def from_map(cls, value: Map) -> "SealingKey":
        """From the format's map."""
        return cls(mlkem768=bytes(value["mlkem768"]), x25519=bytes(value["x25519"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningKey:
    """The secret half: seeds of 64 and 32 bytes."""

    mlkem768: bytes
    x25519: bytes

    @classmethod
    def generate(cls) -> "OpeningKey":
        """A new pair from the system's random generator."""
        return cls(mlkem768=os.urandom(64), x25519=os.urandom(32))

    def public(self) -> SealingKey:
        """The half that anybody may have."""
        return SealingKey(
            mlkem768=MLKEM768PrivateKey.from_seed_bytes(self.mlkem768).public_key().public_bytes_raw(),
            x25519=X25519PrivateKey.from_private_bytes(self.x25519).public_key().public_bytes_raw(),
        )

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What was sealed to this key.

        Raises:
            NotAuthentic: not to this key, or altered.
        """
        key = MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(self.mlkem768), X25519PrivateKey.from_private_bytes(self.x25519)
        )
        try:
            return _HPKE.decrypt(sealed, key, info)
        except (InvalidTag, ValueError) as error:
            raise NotAuthentic from error

    def as_map(self) -> Map:
        """As it stands in a key slot."""
        return {"id": self.public().id, "mlkem768": self.mlkem768, "x25519": self.x25519}

    @classmethod
    def from_map(cls, value: Map) -> "OpeningKey":
        """From the format's map."""
        return cls(mlkem768=bytes(value["mlkem768"]), x25519=bytes(value["x25519"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys at hand for one repository; what is absent is None or empty. Combine rings with `joined`."""

    repository: bytes
    owner_public: PublicKey
    id_key: bytes | None = None
    index_key: bytes | None = None
    owner: SigningKey | None = None
    writer: SigningKey | None = None
    maintainer: SigningKey | None = None
    domains: Mapping[int, tuple[OpeningKey, ...]] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """Which roles these keys make."""
        held = {"owner": self.owner, "writer": self.writer, "maintainer": self.maintainer, "reader": self.domains}
        return tuple(role for role, key in held.items() if key)

    def joined(self, other: "Keyring") -> "Keyring":
        """Both rings' keys; of the same repository and owner."""
        if (self.repository, self.owner_public) != (other.repository, other.owner_public):
            raise ValueError("keys of two repositories")
        return replace(
            self,
            id_key=self.id_key or other.id_key,
            index_key=self.index_key or other.index_key,
            owner=self.owner or other.owner,
            writer=self.writer or other.writer,
            maintainer=self.maintainer or other.maintainer,
            domains={**other.domains, **self.domains},
        )

    def root(self, domain: int) -> bytes:
        """The key from which a domain's blob and frame id keys derive.

        Raises:
            KeyMissing: this ring has no such key.
        """
        key = self.index_key if domain == INDEX_DOMAIN else self.id_key
        if key is None:
            raise KeyMissing("the key for this is not on this machine", hint="give the passphrase or the recovery kit")
        return key

    def blob_key(self, domain: int) -> bytes:
        """What a domain's blob ids are computed with."""
        return subkey(self.root(domain), b"opsd blob id 1" + struct.pack("<I", domain))

    def frame_id_key(self, domain: int) -> bytes:
        """What a domain's frame ids are computed with."""
        return subkey(self.root(domain), b"opsd frame id 1" + struct.pack("<I", domain))

    def index(self) -> bytes:
        """The index key.

        Raises:
            KeyMissing: this ring has none.
        """
        return self.root(INDEX_DOMAIN)

    def open_session(self, domain: int, pair: bytes, sealed: bytes) -> bytes | None:
        """A session key sealed to the pair of that id; None if this ring can't open it.

        Raises:
            NotAuthentic: it was altered.
        """
        for key in self.domains.get(domain, ()):
            if key.public().id == pair:
                return key.open(sealed, session_info(self.repository, domain))
        return None


def session_info(repository: bytes, domain: int) -> bytes:
    """HPKE's `info` for a session key."""
    return b"opsd session key 1\0" + repository + struct.pack("<I", domain)


def encode_secrets(ring: Keyring, roles: tuple[str, ...]) -> bytes:
    """The `secrets` map for those roles of a ring, without what the ring lacks."""
    value: Map = {"repository": ring.repository, "owner_public": ring.owner_public.as_map(), "roles": list(roles)}
    if ring.index_key:
        value["index_key"] = ring.index_key
    if ring.id_key and {"writer", "reader"} & set(roles):
        value["id_key"] = ring.id_key
    if "owner" in roles and ring.owner:
        value["owner"] = ring.owner.as_map()
    signing = ring.writer if "writer" in roles else ring.maintainer if "maintainer" in roles else None
    if signing:
        value["signing"] = signing.as_map()
    if "reader" in roles:
        value["domains"] = [
            {"number": number, "keys": [key.as_map() for key in keys]} for number, keys in sorted(ring.domains.items())
        ]
    return pack_map(value)


def decode_secrets(name: str, plain: bytes) -> Keyring:
    """The ring that a `secrets` map makes.

    Raises:
        ObjectDamaged: it is no such map.
    """
    value = unpack_map(name, plain)
    with parsing(name, "its keys"):
        roles = value["roles"]
        signing = SigningKey.from_map(value["signing"]) if "signing" in value else None
        return Keyring(
            repository=bytes(value["repository"]),
            owner_public=PublicKey.from_map(value["owner_public"]),
            id_key=value.get("id_key"),
            index_key=value.get("index_key"),
            owner=SigningKey.from_map(value["owner"]) if "owner" in value else None,
            writer=signing if "writer" in roles else None,
            maintainer=signing if "maintainer" in roles else None,
            domains={
                int(domain["number"]): tuple(OpeningKey.from_map(key) for key in domain["keys"])
                for domain in value.get("domains", ())
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A key slot taken apart; `clear` says what opens it."""

    name: str
    clear: Map
    head: bytes
    sealed: bytes

    @property
    def kind(self) -> str:
        """passphrase, kit or recipient."""
        return str(self.clear.get("kind"))

    @property
    def domain(self) -> int:
        """The number of the key domain whose keys alone it holds; 0 where it is a slot that opens the repository."""
        value = self.clear.get("domain", 0)
        return value if isinstance(value, int) else 0

    def open(self, key: bytes) -> Keyring | None:
        """The keys inside, if that is its key."""
        try:
            return decode_secrets(self.name, unseal(key, _slot_context(self.head), self.sealed))
        except NotAuthentic:
            return None

    def open_as_recipient(self, key: OpeningKey) -> Keyring | None:
        """The keys inside, if the slot is for that recipient."""
        try:
            return decode_secrets(self.name, key.open(self.sealed, _slot_context(self.head)))
        except NotAuthentic:
            return None

    def passphrase_key(self, passphrase: bytes) -> bytes:
        """The slot's key by Argon2id (RFC 9106).

        Raises:
            ObjectDamaged: its parameters make no sense.
        """
        try:
            parameters = dict(self.clear["argon2"])
            if parameters["memory_kib"] > _ARGON2_LIMIT_KIB or parameters["iterations"] > 64:
                raise ObjectDamaged(self.name, "it asks for more memory than any slot that opsd writes")
            return argon2_key(passphrase, parameters)
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectDamaged(self.name, "its Argon2 parameters make no sense") from error

    def kit_key(self, secret: bytes) -> bytes:
        """The slot's key by the recovery kit's secret."""
        return subkey(bytes(self.clear["salt"]), b"opsd kit 1" + secret)


def argon2_key(passphrase: bytes, parameters: Map) -> bytes:
    """32 bytes from a passphrase; `parameters` as in the slot. One at a time: several at once wait for each other for ever."""
    with _ARGON2_TURN, in_huge_pages(int(parameters["memory_kib"]) * 1024):
        return Argon2id(
            salt=bytes(parameters["salt"]),
            length=32,
            iterations=int(parameters["iterations"]),
            lanes=int(parameters["lanes"]),
            memory_cost=int(parameters["memory_kib"]),
        ).derive(passphrase)


def _slot_context(head: bytes) -> bytes:
    return b"opsd slot 1\0" + head


def _slot_head(clear: Map) -> bytes:
    content = pack_map(clear)
    return header(Kind.KEY_SLOT) + struct.pack("<I", len(content)) + content


def encode_slot(clear: Map, key: bytes, secrets: bytes) -> bytes:
    """A slot's bytes, sealed under a symmetric key."""
    head = _slot_head(clear)
    return head + seal(key, _slot_context(_without_length(head)), secrets)


def encode_recipient_slot(clear: Map, recipient: SealingKey, secrets: bytes) -> bytes:
    """A slot's bytes, sealed to a recipient."""
    head = _slot_head({**clear, "kind": "recipient", "recipient": recipient.id})
    return head + recipient.seal(secrets, _slot_context(_without_length(head)))


def _without_length(head: bytes) -> bytes:
    return head[:HEADER_BYTES] + head[HEADER_BYTES + 4 :]


def decode_slot(name: str, content: bytes) -> Slot:
    """A slot taken apart.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    check_name(name, content, Kind.KEY_SLOT)
    end = HEADER_BYTES + 4 + int.from_bytes(content[HEADER_BYTES : HEADER_BYTES + 4], "little")
    clear = unpack_map(name, content[HEADER_BYTES + 4 : end])
    if not isinstance(clear, dict):
        raise ObjectDamaged(name, "its clear part is no map")
    return Slot(name=name, clear=clear, head=_without_length(content[:end]), sealed=content[end:])
