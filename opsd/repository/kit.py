"""The recovery kit: 48 characters on paper that open a repository when everything else is gone.

Promise: a kit binds the repository and its owner, and a typing mistake is told from a wrong kit. docs/format.md, Key slots.
"""

import hashlib
import os
from typing import Final

from opsd.errors import KeyRefused
from opsd.repository.signing import PublicKey
from opsd.values import dataclass

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENIENT: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": "", " ": "", "\n": "", "\r": "", "\t": ""})
_CHARACTERS: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A kit's secret (16 bytes) and what binds it to a repository (12 bytes)."""

    secret: bytes
    binding: bytes

    @classmethod
    def generate(cls, repository: bytes, owner: PublicKey) -> "Kit":
        """A new kit for that repository."""
        return cls(secret=os.urandom(16), binding=binding_of(repository, owner))

    def text(self) -> str:
        """Twelve groups of four characters."""
        content = self.secret + self.binding
        number = int.from_bytes(content + _check(content), "big")
        text = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_CHARACTERS)))
        return "-".join(text[start : start + 4] for start in range(0, _CHARACTERS, 4))


def binding_of(repository: bytes, owner: PublicKey) -> bytes:
    """12 bytes that tell this repository and owner from all others."""
    return hashlib.sha256(b"opsd kit 1\0" + repository + owner.ed25519 + owner.mldsa65).digest()[:12]


def _check(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:2]


def parse_kit(text: str) -> Kit:
    """A kit as typed: case, dashes and spaces do not matter, O is read as 0, I and L as 1.

    Raises:
        KeyRefused: it was mistyped.
    """
    plain = text.upper().translate(_LENIENT)
    if len(plain) != _CHARACTERS or set(plain) - set(_ALPHABET):
        raise KeyRefused(
            f"a recovery kit has {_CHARACTERS} letters and digits; these are {len(plain)}",
            hint="type all twelve groups of four",
        )
    number = 0
    for character in plain:
        number = number << 5 | _ALPHABET.index(character)
    content = number.to_bytes(30, "big")
    if _check(content[:28]) != content[28:]:
        raise KeyRefused("the recovery kit was mistyped", hint="compare it with the paper, group by group")
    return Kit(secret=content[:16], binding=content[16:28])
