"""Recipients: readers who hold a key pair of their own, so that no passphrase need be shared.

Promise: a key file is private (0600) and never replaces another; the public half, `FILE.pub`, is all that `key add` needs. Both are
JSON: {"opsd": kind, "mlkem768": hex, "x25519": hex}.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from opsd.clock import Clock
from opsd.errors import KeyRefused
from opsd.repository.format import Kind, name_for
from opsd.repository.keys import Keyring, OpeningKey, SealingKey, encode_recipient_slot, encode_secrets
from opsd.storage.protocol import Store

_SECRET: Final = "recipient's secret key"  # noqa: S105 - the name of a kind
_PUBLIC: Final = "recipient's public key"


def generate_key_files(path: Path) -> SealingKey:
    """Make a key pair: the secret half in `path`, the public one in `path.pub`.

    Raises:
        FileExistsError: one of them is there; nothing was changed.
    """
    public = path.with_name(f"{path.name}.pub")
    if public.exists():
        raise FileExistsError(17, "file exists", str(public))
    key = OpeningKey.generate()
    _write(path, _SECRET, key.mlkem768, key.x25519)
    half = key.public()
    _write(public, _PUBLIC, half.mlkem768, half.x25519)
    return half


def _write(path: Path, kind: str, mlkem768: bytes, x25519: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump({"opsd": kind, "mlkem768": mlkem768.hex(), "x25519": x25519.hex()}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(descriptor)


def read_key_file(path: Path) -> OpeningKey:
    """The secret half.

    Raises:
        KeyRefused: the file holds none.
    """
    return read_key(path.read_bytes(), str(path))


def read_key(content: bytes, name: str) -> OpeningKey:
    """The secret half from a key file's content; `name` is for messages.

    Raises:
        KeyRefused: it holds none.
    """
    value = _parsed(content, name, _SECRET)
    return OpeningKey(mlkem768=_part(name, value, "mlkem768", 64), x25519=_part(name, value, "x25519", 32))


def read_public_file(path: Path) -> SealingKey:
    """The public half, from either file.

    Raises:
        KeyRefused: the file holds neither.
    """
    name = str(path)
    value = _parsed(path.read_bytes(), name, _PUBLIC, _SECRET)
    if value["opsd"] == _SECRET:
        return read_key_file(path).public()
    return SealingKey(mlkem768=_part(name, value, "mlkem768", 1184), x25519=_part(name, value, "x25519", 32))


def _parsed(content: bytes, name: str, *kinds: str) -> Mapping[str, Any]:
    try:
        value = json.loads(content.decode())
    except (UnicodeDecodeError, ValueError):
        value = None
    if not isinstance(value, dict) or value.get("opsd") not in kinds:
        raise KeyRefused(
            f"{name} holds no {kinds[0]}", hint="'opsd key generate FILE' makes FILE (secret) and FILE.pub (public)"
        )
    return value


def _part(file: str, value: Mapping[str, Any], name: str, length: int) -> bytes:
    try:
        content = bytes.fromhex(value[name])
    except (KeyError, TypeError, ValueError):
        content = b""
    if len(content) != length:
        raise KeyRefused(f"{file} is damaged: its {name} is no key", hint="take the file from where it was kept safe")
    return content


def add_recipient(store: Store, ring: Keyring, recipient: SealingKey, clock: Clock, label: str) -> str:
    """Write a slot that a recipient's key opens; returns its name."""
    clear = {"repository": ring.repository, "label": label, "created": clock.now()}
    content = encode_recipient_slot(clear, recipient, encode_secrets(ring, ("owner", "reader")))
    name = name_for(Kind.KEY_SLOT, content)
    store.put(name, content)
    return name
