"""Key domains beside the default one: slots of their own, inside the repository or outside of it, and what stays closed without them.

Promise: a pair counts only if the owner-signed settings name it for that domain, whatever a slot says, since anybody can seal to a
public key. Nothing is looked for where the settings name no more domains than the keys at hand open. docs/format.md, Key slots.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Final

from opsd.clock import Clock
from opsd.errors import KeyMissing, ObjectDamaged, ObjectNotFound, StorageError
from opsd.events import Warning
from opsd.repository.format import Kind, name_for
from opsd.repository.keys import (
    DEFAULT_DOMAIN,
    Keyring,
    OpeningKey,
    Slot,
    decode_slot,
    encode_recipient_slot,
    encode_secrets,
)
from opsd.repository.local import replace_file
from opsd.repository.settings import Domain, RepositorySettings
from opsd.storage.durable import make_folder, sync_folder
from opsd.storage.protocol import Store
from opsd.values import dataclass

_NAME_LETTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFolders:
    """Where slots stand outside of the repository: by the domain's label, and one folder for whatever domain (OPSD_SLOTS)."""

    by_label: Mapping[str, Path] = field(default_factory=dict)
    other: Path | None = None

    def of(self, label: str) -> tuple[Path, ...]:
        """Where to look for a domain's slots."""
        return tuple(folder for folder in (self.other, self.by_label.get(label)) if folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A key domain of which nothing can be read now: why, and the next step. `destroyed`: on purpose, for good."""

    label: str
    problem: str
    hint: str
    destroyed: bool = False

    def error(self, what: str) -> KeyMissing:
        """That it is why `what` can't be read."""
        return KeyMissing(f"{what} can't be read: {self.problem}", hint=self.hint)

    def warning(self, subject: str) -> Warning:
        """The same, for whoever goes on without."""
        return Warning(subject=subject, problem=f"can't be read: {self.problem}", hint=self.hint)


def encode_domain_slot(ring: Keyring, domain: Domain, clock: Clock) -> bytes:
    """A slot with one domain's keys of a ring, which whoever has the default domain's newest pair opens."""
    clear = {"repository": ring.repository, "label": domain.label, "created": clock.now(), "domain": domain.number}
    keys = {domain.number: ring.domains[domain.number]}
    inner = Keyring(repository=ring.repository, owner_public=ring.owner_public, domains=keys)
    recipient = ring.domains[DEFAULT_DOMAIN][-1].public()
    return encode_recipient_slot(clear, recipient, encode_secrets(inner, ("reader",)))


def write_slot(folder: Path, content: bytes) -> Path:
    """Put a slot into a folder outside of the repository, private and durable; returns its file.

    Raises:
        StorageError: it can't be written.
    """
    path = folder / name_for(Kind.KEY_SLOT, content).rpartition("/")[2]
    try:
        make_folder(folder)
        replace_file(path, content)
    except OSError as error:
        raise _failure("the domain's slot can't be written to", folder, error) from error
    return path


def slot_files(folder: Path, repository: bytes) -> list[tuple[Path, Slot]]:
    """The slots of that repository in a folder. A file that is damaged is passed over: it opens nothing.

    Raises:
        StorageError: the folder is not there, or can't be read.
    """
    found = []
    try:
        for path in sorted(folder.iterdir()):
            if len(path.name) == _NAME_LETTERS:
                with suppress(ObjectDamaged):
                    found.append((path, decode_slot(str(path), path.read_bytes())))
    except OSError as error:
        raise _failure("no slot can be read in", folder, error) from error
    return [(path, slot) for path, slot in found if slot.clear.get("repository") == repository]


def remove_slots(folder: Path, repository: bytes, number: int) -> int:
    """Remove every slot of a domain from a folder, durably; returns how many there were.

    Raises:
        StorageError: the folder is not there, or can't be written to.
    """
    paths = [path for path, slot in slot_files(folder, repository) if slot.domain == number]
    try:
        for path in paths:
            path.unlink()
        sync_folder(folder)
    except OSError as error:
        raise _failure("the domain's slots can't be removed from", folder, error) from error
    return len(paths)


def _failure(what: str, folder: Path, error: OSError) -> StorageError:
    reason = (error.strerror or str(error)).lower()
    return StorageError(f"{what} {folder}: {reason}", hint="is its disk mounted, and may this user use the folder?")


def stored_slots(store: Store, repository: bytes) -> Iterator[Slot]:
    """The slots of domains in the repository itself. A damaged one is passed over: whoever lists all slots tells of it."""
    for info in store.list("keys/"):
        with suppress(ObjectDamaged, ObjectNotFound):
            slot = decode_slot(info.name, store.read(info.name))
            if slot.domain and slot.clear.get("repository") == repository:
                yield slot


def opened(slots: Iterable[Slot], ring: Keyring, settings: RepositorySettings) -> dict[int, tuple[OpeningKey, ...]]:
    """What these slots hold for the default domain's pairs in a ring: only pairs that the settings name for that very domain."""
    named = {domain.number: domain.keys for domain in settings.domains}
    found: dict[int, tuple[OpeningKey, ...]] = {}
    for slot in slots:
        for number, keys in _inside(slot, ring).items():
            good = tuple(key for key in keys if key.public() in named.get(number, ()))
            if good:
                found[number] = good
    return found


def _inside(slot: Slot, ring: Keyring) -> Mapping[int, tuple[OpeningKey, ...]]:
    for key in ring.domains.get(DEFAULT_DOMAIN, ()):
        with suppress(ObjectDamaged):
            inner = slot.open_as_recipient(key) if slot.clear.get("recipient") == key.public().id else None
            if inner and (inner.repository, inner.owner_public) == (ring.repository, ring.owner_public):
                return inner.domains
    return {}


def with_domains(
    store: Store, ring: Keyring, settings: RepositorySettings, folders: SlotFolders
) -> tuple[Keyring, Mapping[int, Closed]]:
    """A reader's ring with the keys of every domain that can be had, and by number the domains that stay closed."""
    destroyed = {domain.number for domain in settings.domains if not domain.keys}
    held = {number: keys for number, keys in ring.domains.items() if number not in destroyed}
    missing = [domain for domain in settings.domains if domain.number not in held]
    if DEFAULT_DOMAIN not in held:
        return ring, {}
    if len(missing) > len(destroyed):
        held = {**opened(stored_slots(store, ring.repository), ring, settings), **held}
    closed = {}
    for domain in missing:
        if domain.number not in held:
            keys, why = _outside(domain, ring, settings, folders)
            held = {**keys, **held}
            if domain.number not in held:
                closed[domain.number] = why
    return replace(ring, domains=held), closed


def _outside(
    domain: Domain, ring: Keyring, settings: RepositorySettings, folders: SlotFolders
) -> tuple[Mapping[int, tuple[OpeningKey, ...]], Closed]:
    """What a domain's folders hold, and what to say if that is nothing of use."""
    label, reasons = domain.label, list[str]()
    if not domain.keys:
        problem = f"key domain {label} was destroyed on purpose, and with its keys all that was stored in it"
        hint = "'opsd ledger show' on its host tells when and why; the other sources are not touched"
        return {}, Closed(label=label, problem=problem, hint=hint, destroyed=True)
    keys: dict[int, tuple[OpeningKey, ...]] = {}
    for folder in folders.of(label):
        try:
            keys |= opened((slot for _, slot in slot_files(folder, ring.repository)), ring, settings)
            reasons.append(f"{folder} holds no slot that fits")
        except StorageError as error:
            reasons.append(str(error))
    hint = "bring its slots back from where they are kept besides, into that folder or another: OPSD_SLOTS=FOLDER"
    if not reasons:
        reasons = ["no slot in the repository fits, and no folder outside is named"]
        hint = (
            f"name the folder: key_domains: {{{label}: {{slots: FOLDER}}}} in the configuration, or OPSD_SLOTS=FOLDER"
        )
    problem = f"the keys of key domain {label} are not at hand: {'; '.join(reasons)}"
    return keys, Closed(label=label, problem=problem, hint=hint)
