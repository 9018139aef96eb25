"""Write tiny repositories of format 1 from docs/format.md alone: what an independent writer makes of that document.

Promise: nothing of opsd is imported; keys come from fixed seeds; blobs are packed as the test says, so that it can damage one.
"""

import base64
import hashlib
import math
import struct
from dataclasses import dataclass, field
from hmac import digest
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

PASSPHRASE = "correct horse battery staple"
CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")
STARTED = 1_795_492_800_000_000_000  # 2026-11-24T04:00:00Z
NAME_OF_TIME = "20261124T040000.000000000Z"


def seed(text: str, length: int = 32) -> bytes:
    return hashlib.shake_256(text.encode()).digest(length)


def hmac(key: bytes, message: bytes) -> bytes:
    return digest(key, message, "sha256")


def keyed_blake3(key: bytes, message: bytes) -> bytes:
    return blake3(message, key=key).digest()


def packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def sized(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def header(kind: int) -> bytes:
    return b"OPSD" + bytes([kind, 1, 1, 0])


def seal(key: bytes, data: bytes, plain: bytes) -> bytes:
    nonce = keyed_blake3(hmac(key, b"opsd nonce 1"), sized(data) + plain)[:12]
    return nonce + AESGCM(key).encrypt(nonce, plain, data)


def padded_length(length: int) -> int:
    """The least length that Padmé allows."""
    exponent = int(math.log2(length))
    step = 1 << (exponent - int(math.log2(exponent)) - 1)
    return -(-length // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A signing key, made from its name."""

    name: str

    @property
    def secrets(self) -> tuple[ed25519.Ed25519PrivateKey, mldsa.MLDSA65PrivateKey]:
        return (
            ed25519.Ed25519PrivateKey.from_private_bytes(seed(self.name + " ed25519")),
            mldsa.MLDSA65PrivateKey.from_seed_bytes(seed(self.name + " mldsa65")),
        )

    @property
    def public(self) -> dict[str, bytes]:
        first, second = self.secrets
        return {"ed25519": first.public_key().public_bytes_raw(), "mldsa65": second.public_key().public_bytes_raw()}

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.public["ed25519"] + self.public["mldsa65"]).digest()[:16]

    def sign(self, message: bytes) -> bytes:
        first, second = self.secrets
        return first.sign(message) + second.sign(message)


@dataclass(slots=True, kw_only=True)
class Vector:
    """A repository in a folder, with one owner, one writer, and key domain 1."""

    folder: Path
    number: int = 1
    repository: bytes = seed("repository")
    id_key: bytes = seed("id key")
    index_key: bytes = seed("index key")
    kit_secret: bytes = seed("kit", 16)
    owner: Signer = field(default_factory=lambda: Signer(name="owner"))
    writer: Signer = field(default_factory=lambda: Signer(name="writer"))

    # Keys

    @property
    def pair(self) -> dict[str, bytes]:
        return {"mlkem768": seed("mlkem768", 64), "x25519": seed("x25519")}

    @property
    def public_pair(self) -> dict[str, bytes]:
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(self.pair["mlkem768"]).public_key().public_bytes_raw()
        curve = x25519.X25519PrivateKey.from_private_bytes(self.pair["x25519"]).public_key().public_bytes_raw()
        return {"id": hashlib.sha256(lattice + curve).digest()[:8], "mlkem768": lattice, "x25519": curve}

    @property
    def kit(self) -> str:
        """The recovery kit as it is printed."""
        owner = self.owner.public
        bound = b"opsd kit 1\0" + self.repository + owner["ed25519"] + owner["mldsa65"]
        content = self.kit_secret + hashlib.sha256(bound).digest()[:12]
        content += hashlib.sha256(content).digest()[:2]
        letters = base64.b32encode(content).decode().translate(CROCKFORD)
        return "-".join(letters[at : at + 4] for at in range(0, 48, 4))

    def sealed_session_key(self, session_key: bytes, domain: int = 1) -> bytes:
        public = self.public_pair
        key = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public["mlkem768"]),
            x25519.X25519PublicKey.from_public_bytes(public["x25519"]),
        )
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        info = b"opsd session key 1\0" + self.repository + struct.pack("<I", domain)
        sealed = suite.encrypt(session_key, key, info)
        return struct.pack("<I8sH", domain, public["id"], len(sealed)) + sealed

    def box(self, key: bytes, kind: bytes, plain: bytes) -> bytes:
        mac = keyed_blake3(hmac(key, b"opsd mac 1"), kind + b"\0" + plain)
        label = b"opsd " + kind + b" 1"
        return mac + seal(hmac(key, label + mac), label + b"\0" + self.repository, plain)

    # Objects

    def put(self, place: str, content: bytes) -> Path:
        """Store an object below `place`, the part of its name before the digits."""
        digits = hashlib.sha256(content).hexdigest()
        path = self.folder / (f"packs/{digits[:2]}/{digits}" if place == "packs" else place + digits)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def signed(
        self, signer: Signer, kind: tuple[int, bytes], clear: dict[str, Any], rest: tuple[bytes, bytes]
    ) -> bytes:
        content = header(kind[0]) + b"".join(map(sized, (packed(clear), *rest)))
        return content + signer.sign(b"opsd " + kind[1] + b" 1\0" + self.repository + content)

    def settings(self, writers: list[Signer] | None = None) -> Path:
        rows = [{"id": row.id, "key": row.public, "label": row.name} for row in writers or [self.writer]]
        clear = {
            "repository": self.repository,
            "number": self.number,
            "created": STARTED,
            "owner": self.owner.public,
            "domains": [{"number": 1, "label": "default", "keys": [self.public_pair]}],
            "writers": rows,
            "maintainers": [],
            "parameters": {"page_bytes": 8192},
            "requires": [],
        }
        return self.put(f"settings/{self.number:08}-", self.signed(self.owner, (1, b"settings"), clear, (b"", b"")))

    def slot(self, kind: str, *, memory_kib: int = 64) -> Path:
        """A key slot of kind `passphrase` or `kit` that holds all keys."""
        clear: dict[str, Any] = {"repository": self.repository, "label": kind, "created": STARTED, "kind": kind}
        if kind == "kit":
            clear["salt"] = seed("kit salt", 16)
            key = hmac(clear["salt"], b"opsd kit 1" + self.kit_secret)
        else:
            clear["argon2"] = {"salt": seed("salt", 16), "memory_kib": memory_kib, "iterations": 1, "lanes": 1}
            work = Argon2id(salt=seed("salt", 16), length=32, iterations=1, lanes=1, memory_cost=memory_kib)
            key = work.derive(PASSPHRASE.encode())
        pair = self.pair | {"id": self.public_pair["id"]}
        secrets = {
            "repository": self.repository,
            "owner_public": self.owner.public,
            "roles": ["owner"],
            "id_key": self.id_key,
            "index_key": self.index_key,
            "domains": [{"number": 1, "keys": [pair]}],
        }
        raw = packed(clear)
        sealed = seal(key, b"opsd slot 1\0" + header(2) + raw, packed(secrets))
        return self.put("keys/", header(2) + sized(raw) + sealed)

    def pack(self, *frames: "Frame", birth: str = "pack") -> list[list[bytes]]:
        """Store a pack; the references of the blobs of each frame."""
        born, session_key = seed(birth, 16), seed(birth + " session")
        content = header(4) + born + struct.pack("<H", 1) + self.sealed_session_key(session_key)
        footer, references = struct.pack("<I", len(frames)), []
        for number, frame in enumerate(frames):
            root, domain = (self.id_key if frame.domain else self.index_key), struct.pack("<I", frame.domain)
            ids = [keyed_blake3(hmac(root, b"opsd blob id 1" + domain), blob) for blob in frame.claimed or frame.blobs]
            frame_id = keyed_blake3(hmac(root, b"opsd frame id 1" + domain), b"".join(ids))
            base, plain = (session_key if frame.domain else self.index_key), b"".join(frame.blobs)
            body = zstandard.compress(plain) if frame.method else plain
            kinds = struct.pack("<BBBI", 1, frame.kind, frame.method, len(plain))
            data = b"opsd frame 1\0" + self.repository + domain + kinds
            stored = frame_id + seal(hmac(base, b"opsd frame 1" + frame_id), data, body)
            place = 0 if frame.domain else 0xFFFF
            row = (born, number, frame.kind, frame.method, frame.domain, place, len(content), len(stored), len(plain))
            footer += struct.pack("<16sHBBIHQIII", *row, len(ids))
            lengths = list(map(len, frame.blobs))
            footer += b"".join(struct.pack("<32sI", *pair) for pair in zip(ids, lengths, strict=True))
            content += stored
            references.append(
                [
                    struct.pack("<32sI16sI", blob_id, length, born, number * 65536 + at)
                    for at, (blob_id, length) in enumerate(zip(ids, lengths, strict=True))
                ]
            )
        box = self.box(self.index_key, b"footer", footer)
        end = len(box) + 4
        padding = bytes(padded_length(len(content) + end) - len(content) - end)
        self.put("packs", content + padding + box + struct.pack("<I", len(box)))
        return references

    def snapshot(self, listings: dict[str, Any], *, complete: bool = True, started: int = STARTED) -> str:
        """Store a snapshot of the given sources, each a label and the content of its listing; its id."""
        session_key = seed("manifest session")
        sources = [
            {"label": label, "kind": "files", "roots": [b"/"], "listing": listing, "facts": {}}
            for label, listing in listings.items()
        ]
        box = self.box(session_key, b"manifest", packed({"sources": sources}))
        sections = struct.pack("<H", 1) + self.sealed_session_key(session_key) + sized(box)
        clear = {
            "repository": self.repository,
            "writer": self.writer.id,
            "run": seed("run", 16),
            "sequence": 1,
            "complete": complete,
            "next_due": None,
            "seen": [],
            "requires": [],
        }
        summary = {
            "host": "db1",
            "job": "all",
            "started": started,
            "ended": started + 10**9,
            "bytes": 12345,
            "sources": [{"label": label, "kind": "files", "outcome": "complete", "domain": 1} for label in listings],
        }
        sealed = self.box(self.index_key, b"snapshot", packed(summary))
        content = self.signed(self.writer, (6, b"snapshot"), clear, (sealed, sections))
        return self.put(f"snapshots/{NAME_OF_TIME}-", content).name[-64:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Blobs to store together; kind 1 blobs, 2 pages; method 0 raw, 1 zstd. `claimed`: the blobs whose ids are written instead."""

    blobs: list[bytes]
    claimed: list[bytes] | None = None
    kind: int = 1
    method: int = 0
    domain: int = 1


def hunk(*folders: tuple[bytes, list[list[Any]]]) -> bytes:
    return packed({"users": {}, "groups": {}, "folders": [[path, entries] for path, entries in folders]})


def entry(name: bytes, kind: int, content: Any = None, **more: Any) -> list[Any]:
    """An entry of the current user; `mode`, `mtime`, `size`, `uid` and `gid` may be given, the rest goes to `more`."""
    fields = {"mode": 0o640, "uid": 0, "gid": 0, "mtime": 1_700_000_000_123_456_789, "size": 0}
    own = [more.pop(key, default) for key, default in fields.items()]
    return [name, kind, *own, content, more or None]
