"""Add a key domain to the repository, and destroy one that can be destroyed.

Promise: keys are durable before the settings name them. Destroyed is only what has its keys outside of the repository, since of what
stands inside every copy has one. What was stored in a destroyed domain is closed for good, and nothing else is touched.
"""

from dataclasses import field, replace
from pathlib import Path

from opsd.app.creating import owner_ring, slots_folder
from opsd.app.session import Session
from opsd.backup.cache import Cache
from opsd.errors import ConfigurationError, StorageError, UsageError
from opsd.repository.domains import encode_domain_slot, opened, remove_slots, slot_files, stored_slots, write_slot
from opsd.repository.format import Kind, name_for
from opsd.repository.keys import Keyring, OpeningKey
from opsd.repository.local import HostState
from opsd.repository.opening import load_settings, put_settings
from opsd.repository.settings import Domain, RepositorySettings
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedDomain:
    """A key domain of the repository, and whether it was made now.

    Where its keys stand: `inside` the repository, or in `folder`. Neither: they were looked for, and not found.
    """

    number: int
    is_new: bool
    inside: bool = False
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A domain that can be destroyed, the slots of it in its folder, and what would go: sources, in how many snapshots.

    `was_destroyed`: it has no keys in the settings any more.
    """

    number: int
    folder: Path
    slots: int
    sources: tuple[str, ...]
    snapshots: int
    was_destroyed: bool
    ring: Keyring = field(repr=False)


def add_domain(session: Session, name: str) -> AddedDomain:
    """Make a key pair for a domain of the configuration, unless it has one.

    Raises:
        ConfigurationError: the configuration has no such domain, or a folder that can't be. KeyMissing: the owner's key is not at hand.
        StorageError: its folder can't be written to.
    """
    if name not in session.settings.key_domains:
        problem = f"the configuration has no key domain {name}: it has {', '.join(session.settings.domains) or 'none'}"
        raise ConfigurationError((problem,), hint=f"name it there first: key_domains: {{{name}: {{slots: FOLDER}}}}")
    folder = slots_folder(session, name)
    ring, settings = _owned(session)
    present = settings.domain(name)
    if present and present.keys:
        return _present(session, (ring, settings), present)
    pair = OpeningKey.generate()
    # A number of its own, also where one of this name was destroyed: nothing is shared with what nobody can read.
    number = max(domain.number for domain in settings.domains) + 1
    domain = Domain(number=number, label=name, keys=(pair.public(),))
    content = encode_domain_slot(replace(ring, domains={**ring.domains, number: (pair,)}), domain, session.clock)
    if folder:
        write_slot(folder, content)
    else:
        session.store.put(name_for(Kind.KEY_SLOT, content), content)
    _put(session, ring, settings.with_domain(domain))
    return AddedDomain(number=number, is_new=True, inside=folder is None, folder=folder)


def _owned(session: Session) -> tuple[Keyring, RepositorySettings]:
    """The owner's keys, as one slot of the repository holds them, and the settings that count."""
    ring = owner_ring(session)
    return ring, _settings(session, ring)


def _settings(session: Session, ring: Keyring) -> RepositorySettings:
    seen = HostState(session.settings.state).memory(ring.repository).settings
    return load_settings(session.store, ring, seen, session.reporter)


def _put(session: Session, ring: Keyring, settings: RepositorySettings) -> None:
    """Put new settings, and take no older ones from then on."""
    put_settings(session.store, settings, ring.owner)
    if session.has_state():
        state = HostState(session.settings.state)
        state.remember(ring.repository, replace(state.memory(ring.repository), settings=settings.number))


def _present(session: Session, owned: tuple[Keyring, RepositorySettings], domain: Domain) -> AddedDomain:
    ring, settings = owned
    if _is_inside(session, owned, domain):
        return AddedDomain(number=domain.number, is_new=False, inside=True)
    folder = session.settings.slot_folders.get(domain.label)
    slots = (slot for _, slot in slot_files(folder, ring.repository)) if folder and folder.is_dir() else ()
    found = domain.number in opened(slots, ring, settings)
    return AddedDomain(number=domain.number, is_new=False, folder=folder if found else None)


def _is_inside(session: Session, owned: tuple[Keyring, RepositorySettings], domain: Domain) -> bool:
    """Whether the repository holds a domain's keys: beside the default one's, or in a slot of its own."""
    ring, settings = owned
    slots = stored_slots(session.store, ring.repository)
    return domain.number in ring.domains or domain.number in opened(slots, ring, settings)


def find_doomed(session: Session, name: str) -> Doomed:
    """What it would mean to destroy a domain; changes nothing.

    Raises:
        UsageError: there is no such domain, or its keys stand in the repository. ConfigurationError: no folder of its slots is known.
        StorageError: that folder is not there.
    """
    ring, settings = owned = _owned(session)
    domain = settings.domain(name)
    if domain is None:
        known = ", ".join(each.label for each in settings.domains)
        raise UsageError(f"the repository has no key domain {name}", hint=f"it has {known}")
    if _is_inside(session, owned, domain):
        raise UsageError(
            f"the keys of key domain {name} stand in the repository, and every copy of it has them too: they can't be destroyed",
            hint="what is stored in it goes as all does, by 'opsd prune'; a domain with slots: from its first day could be destroyed",
        )
    folder = session.settings.slot_folders.get(name)
    if folder is None:
        problem = f"the configuration does not say where the slots of key domain {name} are"
        raise ConfigurationError((problem,), hint=f"name the folder: key_domains: {{{name}: {{slots: FOLDER}}}}")
    snapshots = [
        {source.label for source in each.sources if source.domain == domain.number}
        for each in session.open().snapshots(marked=True)
    ]
    try:
        files = slot_files(folder, ring.repository)
    except StorageError as error:
        hint = "mount its disk; if it is gone for good, make the folder again, empty"
        raise StorageError(str(error), hint=hint) from error
    return Doomed(
        number=domain.number,
        folder=folder,
        slots=sum(slot.domain == domain.number for _, slot in files),
        sources=tuple(sorted(set().union(*snapshots))),
        snapshots=sum(map(bool, snapshots)),
        was_destroyed=not domain.keys,
        ring=ring,
    )


def destroy(session: Session, doomed: Doomed) -> None:
    """Take the domain's keys out of the settings, so that no more is stored for nobody; remove its slots; forget what the cache keeps of it.

    Raises:
        StorageError: the settings can't be written, or the slots not be removed. What came before is done; the same again finishes it.
    """
    ring = doomed.ring
    settings = _settings(session, ring)
    domain = next(each for each in settings.domains if each.number == doomed.number)
    if domain.keys:
        _put(session, ring, settings.with_domain(replace(domain, keys=())))
    remove_slots(doomed.folder, ring.repository, doomed.number)
    repository = session.open()
    cache = Cache(repository.cache / "files.sqlite", repository.place.ring.index())
    for label in doomed.sources:
        cache.source(label, doomed.number).forget()
    cache.commit()
    cache.close()
