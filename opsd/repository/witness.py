"""What somebody without any key may know of a repository: who signs for it, and which numbers its snapshots bear.

Promise: nothing is believed that the owner's settings do not vouch for; whose owner that is, the first visit pins.
docs/format.md, Settings, Snapshots, Notes: their clear parts.
"""

from typing import Self

from opsd.errors import IntegrityError, ObjectDamaged
from opsd.repository.format import HEADER_BYTES, Kind, Map, check_name, decode_signed, parsing, unpack_map
from opsd.repository.manifest import LedgerHead, ledger_head
from opsd.repository.opening import repository_id
from opsd.repository.settings import RepositorySettings, choose, decode_settings
from opsd.repository.signing import PublicKey
from opsd.storage.protocol import Store
from opsd.values import dataclass

#: A writer's id and the sequence number of one of its snapshots.
Number = tuple[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a manifest says in the clear: its writer's id, its number, and whether no source failed.

    `next_due`: when the next complete one of its job is due, in ns UTC; None where none is promised.
    """

    writer: bytes
    sequence: int
    complete: bool
    next_due: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Reads the clear parts of signed objects of one repository."""

    settings: RepositorySettings

    @classmethod
    def of(cls, store: Store, owner: bytes = b"") -> Self:
        """A witness of the repository at a store; `owner` is the id of its owner's key where it is known.

        Raises:
            NotARepository: there is none. IntegrityError: no settings are valid, or they are of several owners.
        """
        repository_id(store)
        valid = []
        for info in store.list("settings/"):
            try:
                valid.append((info.name, _settings(info.name, store.read(info.name), owner)))
            except ObjectDamaged:
                continue  # Named by whoever copies or checks it.
        if len({(each.repository, each.owner.id) for _, each in valid}) > 1:
            raise IntegrityError(
                "the settings are of several repositories", hint="someone wrote to the store; compare it with a copy"
            )
        return cls(settings=choose(valid))

    @property
    def repository(self) -> bytes:
        """The repository's id."""
        return self.settings.repository

    def _clear(self, name: str, content: bytes, kind: Kind, identity: str) -> Map:
        def verify(clear: Map, message: bytes, signature: bytes) -> bool:
            key = self.settings.signer(bytes(clear.get(identity, b"")))
            return key is not None and clear.get("repository") == self.repository and key.verify(message, signature)

        return decode_signed(name, content, kind, self.repository, verify).clear

    def number(self, name: str, content: bytes) -> Number:
        """The number that a manifest bears.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        stated = self.statement(name, content)
        return stated.writer, stated.sequence

    def statement(self, name: str, content: bytes) -> Statement:
        """What a manifest says in the clear.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        clear = self._clear(name, content, Kind.SNAPSHOT, "writer")
        try:
            due = clear["next_due"]
            return Statement(
                writer=bytes(clear["writer"]),
                sequence=int(clear["sequence"]),
                complete=bool(clear["complete"]),
                next_due=None if due is None else int(due),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectDamaged(name, "it can't be parsed") from error

    def ledger(self, name: str, content: bytes) -> tuple[bytes, LedgerHead] | None:
        """The writer of a manifest, and where its ledger stood; None in older ones.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        clear = self._clear(name, content, Kind.SNAPSHOT, "writer")
        with parsing(name):
            head = ledger_head(clear)
            return (bytes(clear["writer"]), head) if head else None

    def dropped(self, name: str, content: bytes) -> tuple[Number, ...]:
        """The numbers that a note says prune dropped; none for other notes.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        clear = self._clear(name, content, Kind.NOTE, "signer")
        try:
            return tuple((bytes(writer), int(number)) for writer, number in clear["sequences"])
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectDamaged(name, "it can't be parsed") from error


def _settings(name: str, content: bytes, owner: bytes) -> RepositorySettings:
    """Settings that their own owner signed, who is the one that is known, if one is."""
    check_name(name, content, Kind.SETTINGS)
    length = int.from_bytes(content[HEADER_BYTES : HEADER_BYTES + 4], "little")
    clear = unpack_map(name, content[HEADER_BYTES + 4 : HEADER_BYTES + 4 + length])
    try:
        key, repository = PublicKey.from_map(clear["owner"]), bytes(clear["repository"])
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectDamaged(name, "its settings can't be parsed") from error
    if owner and key.id != owner:
        raise ObjectDamaged(name, "it is of another owner")
    return decode_settings(name, content, repository, key)
