"""Slots of key domains: a pair counts only if the owner's settings name it, and nobody pays for what is not there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import FixedClock
from opsd.errors import KeyMissing, StorageError
from opsd.events import Recorder
from opsd.repository.domains import (
    SlotFolders,
    encode_domain_slot,
    opened,
    remove_slots,
    slot_files,
    with_domains,
    write_slot,
)
from opsd.repository.format import Kind, name_for
from opsd.repository.keys import Keyring, OpeningKey, decode_slot, encode_recipient_slot, encode_secrets
from opsd.repository.kit import parse_kit
from opsd.repository.local import HostState
from opsd.repository.opening import (
    Created,
    NewRepository,
    Unlock,
    add_passphrase,
    create,
    load_settings,
    put_settings,
    unlock,
)
from opsd.repository.repository import Repository
from opsd.repository.settings import Domain
from opsd.repository.writer import BlobWriter
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import ObjectInfo
from tests.support.engine import PASSPHRASE, SMALL, START, World

CLOCK = FixedClock(START)


class Listing(MemoryStore):
    """A store that counts what is listed and read."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.listed: list[str] = []

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.listed.append(prefix)
        return super().list(prefix)


class Made:
    """A repository with the domain `staff`, whose slot is outside unless it is `inside`."""

    def __init__(self, folder: Path, *, inside: bool = False) -> None:
        self.folder = folder
        self.slots = folder / "slots"
        self.store = Listing()
        outside = {} if inside else {"staff": self.slots}
        new = NewRepository(host="host", passphrase=PASSPHRASE, domains=("staff",), parameters=SMALL, outside=outside)
        self.state = HostState(folder / "state")
        self.created: Created = create(self.store, new, self.state, CLOCK)

    @property
    def ring(self) -> Keyring:
        return self.created.ring

    def plain(self, how: Unlock | None = None) -> Keyring:
        """The keys of one slot of the repository."""
        how = how or Unlock(passphrase=lambda: PASSPHRASE)
        return unlock(self.store, self.ring.repository, how, Recorder())

    def open(self, slots: SlotFolders | None = None) -> Repository:
        around = World(folder=self.folder, store=self.store, clock=CLOCK).surroundings()
        how = Unlock(passphrase=lambda: PASSPHRASE, slots=slots or SlotFolders(by_label={"staff": self.slots}))
        return Repository.open(self.store, around, how, reader=True)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def forged(made: Made, inner: Keyring, **clear: object) -> bytes:
    """A slot that anybody could make who has seen the settings."""
    default = made.created.settings.domains[0].keys[-1]
    told = {"repository": made.ring.repository, "label": "staff", "created": START, "domain": 2} | clear
    return encode_recipient_slot(told, default, encode_secrets(inner, ("reader",)))


def test_a_slot_outside_is_private_and_alone_holds_the_keys(made: Made) -> None:
    assert made.slots.stat().st_mode & 0o777 == 0o700
    (file,) = made.slots.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(made.plain().domains) == {1}
    assert set(made.plain(Unlock(kit=parse_kit(made.created.kit.text()))).domains) == {1}
    assert made.open().place.ring.domains == made.ring.domains


def test_a_slot_outside_holds_that_domains_keys_and_nothing_else(made: Made) -> None:
    ((_, slot),) = slot_files(made.slots, made.ring.repository)
    inner = slot.open_as_recipient(made.ring.domains[1][0])
    assert inner
    assert set(inner.domains) == {2}
    assert (inner.roles, inner.id_key, inner.index_key) == (("reader",), None, None)


def test_slots_of_a_domain_inside_open_for_whoever_opens_the_default_one(tmp_path: Path) -> None:
    made = Made(tmp_path, inside=True)
    assert set(made.plain().domains) == {1, 2}  # As at every 'init' without slots.
    ring = replace(made.plain(), domains={1: made.ring.domains[1]})
    content = encode_domain_slot(made.ring, made.created.settings.domains[1], CLOCK)
    made.store.put(name_for(Kind.KEY_SLOT, content), content)
    found, closed = with_domains(made.store, ring, made.created.settings, SlotFolders())
    assert (found.domains, closed) == (made.ring.domains, {})


def test_nothing_more_is_listed_where_one_slot_opens_all_domains(tmp_path: Path) -> None:
    made = Made(tmp_path, inside=True)
    made.open()
    assert made.store.listed.count("keys/") == 1


def test_a_writer_looks_for_no_slots(made: Made) -> None:
    around = World(folder=made.folder, store=made.store, clock=CLOCK).surroundings()
    made.store.listed.clear()
    Repository.open(made.store, around, Unlock(), writer=True)
    assert "keys/" not in made.store.listed


def test_a_pair_that_the_settings_do_not_name_is_not_believed(made: Made) -> None:
    stranger = replace(made.ring, domains={2: (OpeningKey.generate(),)})
    found = opened([decode_slot(*named(forged(made, stranger)))], made.plain(), made.created.settings)
    assert found == {}


def test_a_pair_of_one_domain_is_not_believed_for_another(made: Made) -> None:
    swapped = replace(made.ring, domains={3: made.ring.domains[2]})
    settings = made.created.settings.with_domain(
        Domain(number=3, label="third", keys=(OpeningKey.generate().public(),))
    )
    assert opened([decode_slot(*named(forged(made, swapped, domain=3)))], made.plain(), settings) == {}


def test_a_slot_of_another_repository_is_not_believed(made: Made, tmp_path: Path) -> None:
    other = Made(tmp_path / "other")
    inner = replace(made.ring, repository=other.ring.repository)
    assert opened([decode_slot(*named(forged(made, inner)))], made.plain(), made.created.settings) == {}


def test_a_forged_slot_does_not_hide_the_true_one(made: Made) -> None:
    for number in range(8):
        stranger = replace(made.ring, domains={2: (OpeningKey.generate(),)})
        content = forged(made, stranger, created=number)
        made.store.put(name_for(Kind.KEY_SLOT, content), content)
        write_slot(made.slots, content)
    (made.slots / ("0" * 64)).write_bytes(b"damaged")
    assert made.open().place.ring.domains == made.ring.domains


def test_a_forged_slot_brings_no_other_keys(made: Made) -> None:
    stranger = replace(
        made.ring, id_key=bytes(32), index_key=bytes(32), domains={**made.ring.domains, 1: (OpeningKey.generate(),)}
    )
    content = forged(made, stranger)
    made.store.put(name_for(Kind.KEY_SLOT, content), content)
    ring = made.open().place.ring
    assert (ring.id_key, ring.index_key, ring.domains) == (made.ring.id_key, made.ring.index_key, made.ring.domains)


def test_a_new_passphrase_does_not_bring_keys_inside_that_stand_outside(made: Made) -> None:
    add_passphrase(made.store, made.plain(), b"another", CLOCK)
    assert set(made.plain(Unlock(passphrase=lambda: b"another")).domains) == {1}


def test_what_is_closed_says_which_folder_is_missing(made: Made) -> None:
    made.slots.rename(made.folder / "away")
    place = made.open().place
    assert set(place.ring.domains) == {1}
    assert "key domain staff" in place.closed[2].problem
    assert str(made.slots) in place.closed[2].problem
    assert isinstance(place.closed[2].error("source a"), KeyMissing)
    elsewhere = SlotFolders(by_label={"staff": made.slots}, other=made.folder / "away")
    assert made.open(elsewhere).place.closed == {}
    assert "no folder outside is named" in made.open(SlotFolders()).place.closed[2].problem


def test_a_domain_without_keys_is_destroyed_and_no_slot_opens_it(made: Made) -> None:
    settings = made.created.settings.with_domain(Domain(number=2, label="staff", keys=()))
    put_settings(made.store, settings, made.ring.owner)
    place = made.open().place
    assert place.closed[2].destroyed
    assert set(place.ring.domains) == {1}
    with BlobWriter(place, made.open().catalog(), made.folder / "spool", CLOCK) as writer:
        assert set(writer.domains) == {0, 1}


def test_a_domain_of_the_same_name_has_another_number_and_shares_no_blob(made: Made) -> None:
    pair = OpeningKey.generate()
    gone = made.created.settings.with_domain(Domain(number=2, label="staff", keys=()))
    settings = gone.with_domain(Domain(number=3, label="staff", keys=(pair.public(),)))
    put_settings(made.store, settings, made.ring.owner)
    assert load_settings(made.store, made.ring, 0, Recorder()) == settings
    found = settings.domain("staff")
    assert found
    assert found.number == 3
    assert made.ring.blob_key(2) != made.ring.blob_key(3)


def test_only_slots_of_that_domain_and_repository_are_removed(made: Made, tmp_path: Path) -> None:
    other = Made(tmp_path / "other")
    (theirs,) = other.slots.iterdir()
    kept = made.slots / theirs.name
    kept.write_bytes(theirs.read_bytes())
    note = made.slots / "note.txt"
    note.write_text("where else they are kept")
    third = encode_domain_slot(
        replace(made.ring, domains={**made.ring.domains, 3: made.ring.domains[2]}),
        Domain(number=3, label="third", keys=()),
        CLOCK,
    )
    also = write_slot(made.slots, third)
    assert remove_slots(made.slots, made.ring.repository, 2) == 1
    assert {*made.slots.iterdir()} == {kept, note, also}
    with pytest.raises(StorageError, match="no such file"):
        remove_slots(made.folder / "absent", made.ring.repository, 2)


def named(content: bytes) -> tuple[str, bytes]:
    return name_for(Kind.KEY_SLOT, content), content
