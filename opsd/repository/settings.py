"""The repository's own settings: who may do what, and its parameters; signed by the owner.

Promise: only the pinned owner's signature counts; the highest valid number wins, of two the lower hash. docs/format.md, Settings.
"""

from collections.abc import Iterable
from dataclasses import field, replace

from opsd.errors import IntegrityError, ObjectDamaged
from opsd.repository.format import (
    Envelope,
    Kind,
    Map,
    check_requires,
    decode_signed,
    digest_of,
    encode_signed,
    parsing,
)
from opsd.repository.keys import SealingKey
from opsd.repository.signing import PublicKey, SigningKey
from opsd.values import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Sizes in bytes. The cutter's are FastCDC's; another choice costs deduplication, never reading."""

    pack_bytes: int = 32 * MIB
    frame_bytes: int = MIB
    cut_min: int = 256 * 1024
    cut_average: int = MIB
    cut_max: int = 4 * MIB
    cut_seed: int = 0
    page_bytes: int = 16 * 1024

    def as_map(self) -> Map:
        """As it stands in the object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A writer or maintainer that the owner vouches for."""

    key: PublicKey
    label: str

    def as_map(self) -> Map:
        """As it stands in the object."""
        return {"id": self.key.id, "key": self.key.as_map(), "label": self.label}


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A key domain: who can read. The last key is the current one; one without keys was destroyed."""

    number: int
    label: str
    keys: tuple[SealingKey, ...]

    def as_map(self) -> Map:
        """As it stands in the object."""
        return {"number": self.number, "label": self.label, "keys": [key.as_map() for key in self.keys]}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """The content of a settings object."""

    repository: bytes
    number: int
    created: int
    owner: PublicKey
    domains: tuple[Domain, ...]
    writers: tuple[Signer, ...] = ()
    maintainers: tuple[Signer, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    requires: tuple[str, ...] = ()

    def domain(self, label: str) -> Domain | None:
        """The key domain of that label; the newest, where earlier ones were destroyed."""
        return next((domain for domain in reversed(self.domains) if domain.label == label), None)

    def signer(self, identity: bytes) -> PublicKey | None:
        """The key of a writer or maintainer."""
        return next((each.key for each in (*self.writers, *self.maintainers) if each.key.id == identity), None)

    def with_signers(self, writer: Signer, maintainer: Signer) -> "RepositorySettings":
        """The next settings, with one more host."""
        return replace(
            self, number=self.number + 1, writers=(*self.writers, writer), maintainers=(*self.maintainers, maintainer)
        )

    def with_hosts_of(self, others: Iterable["RepositorySettings"]) -> "RepositorySettings":
        """The same, with the hosts of these too.

        Hosts are added and never taken away, and of two that join at the same moment each puts settings that lack the other.
        """
        every = (self, *others)
        writers = dict.fromkeys(signer for each in every for signer in each.writers)
        maintainers = dict.fromkeys(signer for each in every for signer in each.maintainers)
        return replace(self, writers=tuple(writers), maintainers=tuple(maintainers))

    def with_domain(self, domain: Domain) -> "RepositorySettings":
        """The next settings, with this domain as the newest, or in the place of the one with its number."""
        domains = {each.number: each for each in (*self.domains, domain)}
        return replace(self, number=self.number + 1, domains=tuple(domains.values()))

    def as_map(self) -> Map:
        """As it stands in the object."""
        return {
            "repository": self.repository,
            "number": self.number,
            "created": self.created,
            "owner": self.owner.as_map(),
            "domains": [domain.as_map() for domain in self.domains],
            "writers": [signer.as_map() for signer in self.writers],
            "maintainers": [signer.as_map() for signer in self.maintainers],
            "parameters": self.parameters.as_map(),
            "requires": list(self.requires),
        }


def _signers(values: Iterable[Map]) -> tuple[Signer, ...]:
    return tuple(Signer(key=PublicKey.from_map(value["key"]), label=str(value["label"])) for value in values)


def _from_map(name: str, value: Map) -> RepositorySettings:
    check_requires(name, list(value.get("requires", ())))
    known = set(Parameters.__slots__)
    with parsing(name, "its settings"):
        return RepositorySettings(
            repository=bytes(value["repository"]),
            number=int(value["number"]),
            created=int(value["created"]),
            owner=PublicKey.from_map(value["owner"]),
            domains=tuple(
                Domain(
                    number=int(each["number"]),
                    label=str(each["label"]),
                    keys=tuple(SealingKey.from_map(key) for key in each["keys"]),
                )
                for each in value["domains"]
            ),
            writers=_signers(value["writers"]),
            maintainers=_signers(value["maintainers"]),
            parameters=Parameters(**{key: int(each) for key, each in value["parameters"].items() if key in known}),
            requires=tuple(value.get("requires", ())),
        )


def encode_settings(settings: RepositorySettings, owner: SigningKey) -> bytes:
    """The signed bytes."""
    envelope = Envelope(clear=settings.as_map(), sealed=b"", sections=b"")
    return encode_signed(Kind.SETTINGS, envelope, settings.repository, owner.sign)


def decode_settings(name: str, content: bytes, repository: bytes, owner: PublicKey) -> RepositorySettings:
    """Settings that the pinned owner of that repository signed.

    Raises:
        ObjectDamaged, NewerFormat.
    """
    envelope = decode_signed(
        name, content, Kind.SETTINGS, repository, lambda _clear, message, signature: owner.verify(message, signature)
    )
    settings = _from_map(name, envelope.clear)
    if settings.repository != repository or settings.owner != owner:
        raise ObjectDamaged(name, "it is of another repository")
    return settings


def choose(candidates: Iterable[tuple[str, RepositorySettings]], at_least: int = 0) -> RepositorySettings:
    """The settings that count; `at_least` is the highest number that this host has seen.

    Raises:
        IntegrityError: there is none, or only older ones than were seen.
    """
    ranked = sorted(candidates, key=lambda each: (-each[1].number, digest_of(each[0])))
    if not ranked:
        raise IntegrityError("no valid settings in the repository", hint="restore the folder settings/ from a copy")
    chosen = ranked[0][1]
    if chosen.number < at_least:
        raise IntegrityError(
            f"the repository shows settings {chosen.number}, but this host has seen {at_least}",
            hint="the store was rolled back; compare it with a copy before you write to it",
        )
    return chosen
