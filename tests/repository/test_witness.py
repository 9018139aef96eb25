"""Whoever holds no key believes what the owner's settings vouch for, and nothing else."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from opsd.errors import IntegrityError, NotARepository, ObjectDamaged
from opsd.repository.format import Kind, name_for
from opsd.repository.manifest import decode_manifest, encode_manifest
from opsd.repository.runs import Note, Signed
from opsd.repository.witness import Witness
from opsd.storage.memory import MemoryStore
from tests.support.engine import START, World, files, make_tree


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.new(tmp_path / "world")
    for _ in range(2):
        world.backup(files(make_tree(tmp_path / "tree", {"a": b"x"})))
    return world


@pytest.fixture
def stranger(tmp_path: Path) -> World:
    return World.new(tmp_path / "stranger")


def test_numbers_and_dropped_ones_are_read_without_a_key(world: World) -> None:
    witness = Witness.of(world.store)
    place = world.open().place
    assert place.ring.writer
    writer = place.ring.writer.public().id
    found = sorted(witness.number(info.name, world.store.read(info.name)) for info in world.store.list("snapshots/"))
    assert found == [(writer, 1), (writer, 2)]
    dropped = place.signed.encode_note(Note(event="dropped", time=START, sequences=((writer, 1),)))
    held = place.signed.encode_note(Note(event="hold", time=START, snapshot=b"s" * 32, reason="audit"))
    assert witness.dropped(name_of(dropped), dropped) == ((writer, 1),)
    assert witness.dropped(name_of(held), held) == ()


def test_where_the_ledger_stood_is_read_without_a_key_and_by_readers(world: World) -> None:
    ring = world.open().place.ring
    assert ring.writer
    (older, _) = world.open().manifests()
    assert older.ledger is None
    content = encode_manifest(replace(older, ledger=(7, b"h" * 32)), ring)
    name = name_for(Kind.SNAPSHOT, content, time=older.summary.started)
    witness = Witness.of(world.store)
    assert witness.ledger(name, content) == (ring.writer.public().id, (7, b"h" * 32))
    assert decode_manifest(name, content, 0, ring, witness.settings).ledger == (7, b"h" * 32)
    assert witness.ledger(older.summary.name, world.store.read(older.summary.name)) is None


def name_of(content: bytes) -> str:
    return f"notes/20261124T040000.000000000Z-{sha256(content).hexdigest()}"


def test_what_a_stranger_signed_is_damaged(world: World, stranger: World) -> None:
    witness = Witness.of(world.store)
    own, other = world.open().place, stranger.open().place
    ring = replace(other.ring, repository=own.ring.repository, index_key=own.ring.index_key)
    note = Signed(ring=ring, settings=other.settings).encode_note(Note(event="dropped", time=START))
    with pytest.raises(ObjectDamaged, match="signature"):
        witness.dropped(name_of(note), note)
    manifest = encode_manifest(next(iter(world.open().manifests())), ring)
    with pytest.raises(ObjectDamaged, match="signature"):
        witness.number(name_of(manifest).replace("notes", "snapshots"), manifest)


def test_only_the_owner_that_is_known_counts(world: World, stranger: World) -> None:
    owner = Witness.of(world.store).settings.owner.id
    assert Witness.of(world.store, owner).repository == world.open().place.ring.repository
    with pytest.raises(IntegrityError, match="no valid settings"):
        Witness.of(stranger.store, owner)
    for info in stranger.store.list("settings/"):
        world.store.put(info.name, stranger.store.read(info.name))
    assert Witness.of(world.store, owner).settings.owner.id == owner
    with pytest.raises(IntegrityError, match="several repositories"):
        Witness.of(world.store)


def test_a_store_without_settings_is_no_repository(world: World) -> None:
    with pytest.raises(NotARepository):
        Witness.of(MemoryStore(world.clock))
