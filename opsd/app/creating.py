"""Create a repository, and change who can open it.

Promise: the recovery kit is returned, never written; the last slot is never removed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsd.app.session import Session
from opsd.errors import ConfigurationError, KeyMissing, UsageError
from opsd.repository.keys import Keyring, Slot
from opsd.repository.kit import Kit
from opsd.repository.local import HostState
from opsd.repository.opening import (
    Created,
    NewRepository,
    add_kit,
    add_passphrase,
    create,
    repository_id,
    slots,
    unlock,
)
from opsd.repository.recipients import add_recipient, generate_key_files, read_public_file
from opsd.storage.folder import FolderStore
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlot:
    """Something that opens the repository, or a domain of it; `kind` is passphrase, kit, recipient or domain, `created` in ns UTC."""

    id: str
    kind: str
    label: str
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedKey:
    """A new slot's id, and the kit's text where one was made."""

    id: str
    kit: str | None = None


def initialise(session: Session) -> Created:
    """Create the repository of this session's settings.

    Raises:
        NotARepository: there is one already, or something else. KeyMissing, ConfigurationError: no passphrase can be had.
    """
    settings = session.settings
    if not settings.repository:
        raise ConfigurationError(
            ("this configuration has no repository of its own, only pulls",), hint="'opsd copy' makes what it pulls"
        )
    for name in settings.domains:
        slots_folder(session, name)
    question = "New passphrase (empty for none: only the recovery kit will open it)"
    passphrase = session.configured_passphrase() or session.new_passphrase(question)
    store = FolderStore.create(settings.repository)
    new = NewRepository(
        host=settings.host,
        passphrase=passphrase or None,
        domains=settings.domains,
        outside=settings.slot_folders,
    )
    return create(store, new, HostState(settings.state), session.clock)


def slots_folder(session: Session, name: str) -> Path | None:
    """The configured folder of a domain's slots; None where they stand in the repository.

    Raises:
        ConfigurationError: it leads into a folder of opsd's own.
    """
    folder = session.settings.key_domains[name].slots
    if folder is None:
        return None
    slots = {os.fsencode(os.path.abspath(each)) for each in session.settings.slot_folders.values()}
    for own in map(os.fsdecode, session.own_folders() - slots):
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(own)):
            problem = f"key_domains.{name}.slots: {folder} lies in {own}, which is opsd's own"
            raise ConfigurationError((problem,), hint="keys that may have to be destroyed stand apart from all else")
    return folder


def key_slots(session: Session) -> tuple[KeySlot, ...]:
    """Everything that opens the repository, oldest first; needs no key."""
    found = (_slot(slot) for slot in slots(session.store, session.reporter))
    return tuple(sorted(found, key=lambda each: (each.created, each.id)))


def _slot(slot: Slot) -> KeySlot:
    clear: Mapping[str, Any] = slot.clear
    return KeySlot(
        id=slot.name.rpartition("/")[2],
        kind="domain" if slot.domain else slot.kind,
        label=str(clear.get("label", "")),
        created=int(clear.get("created", 0)),
    )


def owner_ring(session: Session) -> Keyring:
    """The keys that a slot of the repository holds; not those of domains that have slots of their own.

    Raises:
        KeyMissing: what opens this repository here does not hold them.
    """
    ring = unlock(session.store, repository_id(session.store), session.unlock(), session.reporter)
    if ring.owner is None:
        raise KeyMissing(
            "the owner's key is not at hand", hint="open the repository with a passphrase or kit of its owner"
        )
    return ring


def add_passphrase_slot(session: Session, file: str | None, label: str) -> AddedKey:
    """Let another passphrase open the repository: a file's first line, or what is asked for."""
    ring = owner_ring(session)
    if file:
        passphrase = Path(file).read_bytes().split(b"\n")[0].removesuffix(b"\r")
    else:
        passphrase = session.new_passphrase("The passphrase to add")
    if not passphrase:
        raise UsageError("an empty passphrase protects nothing", hint="for example: openssl rand -base64 24 > FILE")
    return AddedKey(id=_identity(add_passphrase(session.store, ring, passphrase, session.clock, label)))


def add_recipient_slot(session: Session, file: str, label: str) -> AddedKey:
    """Let the holder of a key file open the repository."""
    recipient = read_public_file(Path(file))
    return AddedKey(id=_identity(add_recipient(session.store, owner_ring(session), recipient, session.clock, label)))


def add_kit_slot(session: Session) -> AddedKey:
    """Make another recovery kit."""
    ring = owner_ring(session)
    kit = Kit.generate(ring.repository, ring.owner_public)
    return AddedKey(id=_identity(add_kit(session.store, ring, kit, session.clock)), kit=kit.text())


def _identity(name: str) -> str:
    return name.rpartition("/")[2]


def remove_slot(session: Session, prefix: str) -> KeySlot:
    """Remove the slot whose id begins so, after something else has opened the repository.

    Raises:
        UsageError: no slot or several begin so, or it is the last.
        KeyRefused: what was given opens no other slot.
    """
    known = key_slots(session)
    found = [slot for slot in known if slot.id.startswith(prefix.lower())]
    if len(found) != 1:
        raise UsageError(f"{len(found) or 'no'} key slots begin with {prefix}", hint="'opsd key list' shows them all")
    if found[0].kind == "domain":
        raise UsageError(
            f"this is the slot of key domain {found[0].label}: without it nobody could read what is stored in that domain",
            hint="a copy has it too; only slots outside of the repository can be destroyed: 'opsd key destroy'",
        )
    if sum(slot.kind != "domain" for slot in known) == 1:
        raise UsageError(
            "this is the last key slot: without it nobody could read the repository", hint="add another first"
        )
    owner_ring(session)
    session.store.delete(f"keys/{found[0].id}")
    return found[0]


def generate_recipient(file: str) -> str:
    """Make a recipient's key pair, FILE and FILE.pub; returns the pair's id."""
    return generate_key_files(Path(file)).id.hex()


def enrol_host(session: Session) -> str:
    """Let this host write to the repository; returns its writer's id."""
    ring = session.open(writer=True).place.ring
    return ring.writer.public().id.hex() if ring.writer else ""
