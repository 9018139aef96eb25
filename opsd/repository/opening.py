"""Creating a repository, unlocking it, and enrolling a host.

Promise: keys are found before settings are believed: a slot or a host's key file pins the repository id and the owner, and only
that owner's settings count.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import IntegrityError, KeyMissing, KeyRefused, NewerFormat, NotARepository, ObjectDamaged
from opsd.events import Reporter, Warning
from opsd.repository.domains import SlotFolders, encode_domain_slot, write_slot
from opsd.repository.format import Kind, check_name, name_for, unpack_map
from opsd.repository.keys import (
    ARGON2,
    DEFAULT_DOMAIN,
    Keyring,
    OpeningKey,
    Slot,
    argon2_key,
    decode_slot,
    encode_secrets,
    encode_slot,
)
from opsd.repository.kit import Kit, binding_of
from opsd.repository.local import HostState, Memory
from opsd.repository.seal import subkey
from opsd.repository.settings import (
    Domain,
    Parameters,
    RepositorySettings,
    Signer,
    choose,
    decode_settings,
    encode_settings,
)
from opsd.repository.signing import SigningKey
from opsd.storage.protocol import Store
from opsd.storage.several import read_several
from opsd.values import dataclass

_ALL_ROLES = ("owner", "reader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """How a person or a machine proves to be a reader. Callables are asked only when needed; each may be None.

    `slots`: where the slots of further key domains stand, outside of the repository.
    """

    passphrase: Callable[[], bytes] | None = None
    kit: Kit | None = None
    recipient: OpeningKey | None = None
    slots: SlotFolders = field(default_factory=SlotFolders)

    def __bool__(self) -> bool:
        return bool(self.passphrase or self.kit or self.recipient)


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new repository: all keys, its settings, and the kit to print."""

    ring: Keyring
    settings: RepositorySettings
    kit: Kit


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRepository:
    """What a new repository begins with: the host's label, a passphrase if there is one, more key domains, its parameters.

    `outside`: of which domains the keys stand in a folder outside of the repository only, by label.
    """

    host: str
    passphrase: bytes | None = None
    domains: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    outside: Mapping[str, Path] = field(default_factory=dict)


def create(store: Store, new: NewRepository, state: HostState, clock: Clock) -> Created:
    """Make a repository in an empty store: this host's keys and the slots first, the settings last.

    A crash on the way leaves no repository, and the next try works.

    Raises:
        NotARepository: there is one already, or something else.
    """
    _refuse_what_is_there(store)
    ring = _new_ring(new)
    settings = _first_settings(ring, new, clock)
    kit = Kit.generate(ring.repository, ring.owner_public)
    state.write_keys(ring)
    apart = [domain for domain in settings.domains if domain.label in new.outside]
    for domain in apart:
        write_slot(new.outside[domain.label], encode_domain_slot(ring, domain, clock))
    numbers = {domain.number for domain in apart}
    inside = replace(ring, domains={number: keys for number, keys in ring.domains.items() if number not in numbers})
    add_kit(store, inside, kit, clock)
    if new.passphrase is not None:
        add_passphrase(store, inside, new.passphrase, clock)
    put_settings(store, settings, ring.owner)
    return Created(ring=ring, settings=settings, kit=kit)


def _refuse_what_is_there(store: Store) -> None:
    foreign = ""
    for info in store.list(""):
        if info.name.startswith("settings/"):
            raise NotARepository("there is a repository already", hint="use it as it is, or choose another place")
        if not info.name.startswith("keys/"):
            foreign = info.name
    if foreign:
        raise NotARepository(f"the place is not empty: {foreign}", hint="choose an empty or absent folder")


def _new_ring(new: NewRepository) -> Keyring:
    owner = SigningKey.generate()
    return Keyring(
        repository=os.urandom(32),
        owner_public=owner.public(),
        id_key=os.urandom(32),
        index_key=os.urandom(32),
        owner=owner,
        writer=SigningKey.generate(),
        maintainer=SigningKey.generate(),
        domains={number: (OpeningKey.generate(),) for number, _ in _numbered(new)},
    )


def _numbered(new: NewRepository) -> list[tuple[int, str]]:
    return list(enumerate(("default", *new.domains), DEFAULT_DOMAIN))


def _first_settings(ring: Keyring, new: NewRepository, clock: Clock) -> RepositorySettings:
    seed = new.parameters.cut_seed or int.from_bytes(os.urandom(7), "little")
    return RepositorySettings(
        repository=ring.repository,
        number=1,
        created=clock.now(),
        owner=ring.owner_public,
        domains=tuple(
            Domain(number=number, label=label, keys=(ring.domains[number][0].public(),))
            for number, label in _numbered(new)
        ),
        writers=_signers(ring.writer, new.host),
        maintainers=_signers(ring.maintainer, new.host),
        parameters=replace(new.parameters, cut_seed=seed),
    )


def _signers(key: SigningKey | None, label: str) -> tuple[Signer, ...]:
    return (Signer(key=key.public(), label=label),) if key else ()


def put_settings(store: Store, settings: RepositorySettings, owner: SigningKey | None) -> None:
    """Put a settings object.

    Raises:
        KeyMissing: the owner's key is not at hand.
    """
    if owner is None:
        raise KeyMissing(
            "the owner's key is not on this machine, so the repository's settings can't be changed",
            hint="give the passphrase (OPSD_PASSPHRASE_FILE) or the recovery kit (--kit)",
        )
    content = encode_settings(settings, owner)
    store.put(name_for(Kind.SETTINGS, content, number=settings.number), content)


def add_passphrase(store: Store, ring: Keyring, passphrase: bytes, clock: Clock, label: str = "passphrase") -> str:
    """Write a slot that a passphrase opens; returns its name."""
    parameters = {**ARGON2, "salt": os.urandom(16)}
    clear = {
        "repository": ring.repository,
        "label": label,
        "created": clock.now(),
        "kind": "passphrase",
        "argon2": parameters,
    }
    content = encode_slot(clear, argon2_key(passphrase, parameters), encode_secrets(ring, _ALL_ROLES))
    name = name_for(Kind.KEY_SLOT, content)
    store.put(name, content)
    return name


def add_kit(store: Store, ring: Keyring, kit: Kit, clock: Clock) -> str:
    """Write the slot that a recovery kit opens; returns its name."""
    salt = os.urandom(16)
    clear = {
        "repository": ring.repository,
        "label": "recovery kit",
        "created": clock.now(),
        "kind": "kit",
        "salt": salt,
    }
    content = encode_slot(clear, subkey(salt, b"opsd kit 1" + kit.secret), encode_secrets(ring, _ALL_ROLES))
    name = name_for(Kind.KEY_SLOT, content)
    store.put(name, content)
    return name


def slots(store: Store, reporter: Reporter) -> list[Slot]:
    """All key slots that can be read; a damaged one is told."""
    found = []
    for info, content in read_several(store, store.list("keys/")):
        try:
            found.append(decode_slot(info.name, content()))
        except ObjectDamaged as error:
            reporter.warn(Warning(subject=error.name, problem=error.problem, hint="restore it from a copy"))
    return found


def unlock(store: Store, identity: bytes, how: Unlock, reporter: Reporter) -> Keyring:
    """The keys of a repository behind a passphrase, a kit or a recipient's key.

    Raises:
        KeyRefused: it opens no slot. IntegrityError: it opens none that can be read, and one can't be read, or none is there.
    """
    try:
        return _unlock(store, identity, how, reporter)
    except KeyRefused as error:
        # Whose slot it was, its damage hides: the passphrase may well be right.
        if damaged := ", ".join(_damaged_slots(store)):
            raise IntegrityError(
                f"{error}; but {damaged} can't be read, and may be the slot that is meant",
                hint="restore it from a copy, or open with another slot: the recovery kit (--kit), another passphrase",
            ) from error
        raise


def _damaged_slots(store: Store) -> Iterator[str]:
    for info in store.list("keys/"):
        try:
            decode_slot(info.name, store.read(info.name))
        except ObjectDamaged:
            yield info.name


def _unlock(store: Store, identity: bytes, how: Unlock, reporter: Reporter) -> Keyring:
    # An 'init' that was cut off and done again leaves slots of a repository that never was.
    found = [slot for slot in slots(store, reporter) if slot.clear.get("repository") == identity and not slot.domain]
    if not found:
        raise IntegrityError(
            "the repository has no key slot that can be read",
            hint="'opsd check --repair' takes them from a copy",
        )
    if how.kit:
        return _by_kit(found, how.kit)
    if how.recipient:
        rings = (slot.open_as_recipient(how.recipient) for slot in found if slot.kind == "recipient")
        return _first(
            rings, "this recipient's key opens no slot of this repository", "add it with 'opsd key add --recipient'"
        )
    if how.passphrase is None:
        raise KeyMissing(
            "the passphrase is not at hand", hint="set passphrase: or OPSD_PASSPHRASE_FILE, or use the recovery kit"
        )
    passphrase = how.passphrase()
    rings = (slot.open(slot.passphrase_key(passphrase)) for slot in found if slot.kind == "passphrase")
    return _first(
        rings, "wrong passphrase: it opens no slot of this repository", "try again, or use the recovery kit (--kit)"
    )


def _by_kit(found: Sequence[Slot], kit: Kit) -> Keyring:
    rings = (slot.open(slot.kit_key(kit.secret)) for slot in found if slot.kind == "kit")
    ring = _first(rings, "this recovery kit opens no slot of this repository", "it may belong to another repository")
    if binding_of(ring.repository, ring.owner_public) != kit.binding:
        raise KeyRefused(
            "this recovery kit belongs to another repository", hint="look for the kit printed with this one"
        )
    return ring


def _first(rings: Iterable[Keyring | None], text: str, hint: str) -> Keyring:
    for ring in rings:
        if ring is not None:
            return ring
    raise KeyRefused(text, hint=hint)


def repository_id(store: Store) -> bytes:
    """Which repository a store claims to hold; believed only once keys confirm it.

    Raises:
        NotARepository: it holds none. IntegrityError: its settings can't be read, or are gone.
    """
    failure: ObjectDamaged | NewerFormat | None = None
    for info in store.list("settings/"):
        try:
            content = store.read(info.name)
            check_name(info.name, content, Kind.SETTINGS)
            length = int.from_bytes(content[8:12], "little")
            return bytes(unpack_map(info.name, content[12 : 12 + length])["repository"])
        except (ObjectDamaged, NewerFormat) as error:
            failure = error
        except (KeyError, TypeError):
            failure = ObjectDamaged(info.name, "it names no repository")
    if failure:
        raise failure
    if any(True for _ in store.list("snapshots/")):
        raise IntegrityError(
            "the folder settings/ is empty, and there are snapshots",
            hint="'opsd check --repair' ('--copy NAME' for a copy) takes the settings from elsewhere; do not run 'opsd init'",
        )
    raise NotARepository("there is no repository at this place", hint="check the path, or create one with 'opsd init'")


def load_settings(store: Store, ring: Keyring, at_least: int, reporter: Reporter) -> RepositorySettings:
    """The settings that count for a ring.

    Raises:
        IntegrityError: none is valid, or the store was rolled back.
    """
    valid = []
    for info in store.list("settings/"):
        try:
            settings = decode_settings(info.name, store.read(info.name), ring.repository, ring.owner_public)
            valid.append((info.name, settings))
        except ObjectDamaged as error:
            reporter.warn(Warning(subject=error.name, problem=error.problem, hint="restore it from a copy"))
    return choose(valid, at_least).with_hosts_of(each for _, each in valid)


def enrol(
    store: Store, ring: Keyring, settings: RepositorySettings, host: str, state: HostState
) -> tuple[Keyring, RepositorySettings]:
    """Make this host a writer and maintainer, with the owner's key.

    Raises:
        KeyMissing: the ring has no owner's key.
    """
    if ring.owner is None:
        raise KeyMissing(
            "this host has no key to write to the repository, and can't make one without the passphrase",
            hint="give the passphrase once (OPSD_PASSPHRASE_FILE) or copy <state>/keys from the old state folder",
        )
    writer, maintainer = SigningKey.generate(), SigningKey.generate()
    grown = replace(ring, writer=writer, maintainer=maintainer)
    settings = settings.with_signers(
        Signer(key=writer.public(), label=host), Signer(key=maintainer.public(), label=host)
    )
    state.write_keys(grown)
    put_settings(store, settings, ring.owner)
    state.remember(ring.repository, Memory(settings=settings.number))
    return grown, settings
