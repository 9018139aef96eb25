"""Stores of one repository give each other back what rotted or vanished, and a stop on the way spoils nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from opsd.backup.limits import Throttle
from opsd.backup.transfers import Spool, Transfers
from opsd.clock import DAY
from opsd.errors import OpsdError, StoreUnavailable
from opsd.events import Recorder
from opsd.storage.faulty import Fault, FaultyStore, PowerCut, Stop
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import Store
from opsd.verify.check import Check, CheckOptions, CheckReport
from opsd.verify.healing import Donor, Healing, healed_report
from opsd.verify.proof import prove_objects
from tests.support.beside import Beside
from tests.support.copying import Copier, flip, objects
from tests.support.pruning import Nights, noise, prune
from tests.support.torture import TORTURE

WAYS = [
    Stop(at=0, how=Fault.BEFORE),
    Stop(at=0, how=Fault.AFTER),
    Stop(at=0, how=Fault.TORN, torn_at=0),
    Stop(at=0, how=Fault.TORN, torn_at=100),
    Stop(at=0, how=Fault.LOST),
]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    made = Nights.new(tmp_path)
    made.nights(3)
    return made


def copy_of(nights: Nights, folder: Path) -> MemoryStore:
    copier = Copier.of(nights, folder)
    copier.copy()
    assert isinstance(copier.target, MemoryStore)
    return copier.target


def checked(nights: Nights, store: Store) -> CheckReport:
    return Check(replace(nights.world, store=store).open(), CheckOptions(share=1.0)).run()


def healing(nights: Nights, store: Store, donors: Sequence[Store], folder: Path) -> Healing:
    spool = Spool(folder=folder / "healing", stem="heal")
    spool.clear()
    throttle = Throttle((), UTC, nights.clock)
    made = [
        Donor(name=f"donor {number}", transfers=Transfers(source=each, target=store, spool=spool, throttle=throttle))
        for number, each in enumerate(donors)
    ]
    return Healing.of(store, made, Recorder())


def heal(nights: Nights, store: Store, donors: Sequence[Store], folder: Path) -> Healing:
    """What `opsd check --repair` does, without keys first and with them then."""
    work = healing(nights, store, donors, folder)
    work.replace([problem.object for problem in prove_objects(store, Recorder()).problems])
    repository = replace(nights.world, store=store).open()
    report = Check(repository, CheckOptions(share=1.0)).run()
    work.restore(repository, report.lost)
    return work


def packs(store: Store) -> list[str]:
    return sorted(info.name for info in store.list("packs/"))


def test_a_proof_without_keys_names_every_kind_of_damage(nights: Nights) -> None:
    store = nights.store
    spoilt = []
    for prefix in ("settings/", "keys/", "packs/", "index/", "snapshots/", "runs/"):
        name = max(info.name for info in store.list(prefix))
        flip(store, name)
        spoilt.append(name)
    torn = packs(store)[0]
    store.put(torn, b"", replace=True)
    store.put("packs/ab/stray", b"no object")
    report = prove_objects(store, Recorder())
    assert {problem.object for problem in report.problems} == {*spoilt, torn, "packs/ab/stray"}
    assert all(problem.hint for problem in report.problems)


def test_a_proof_reads_every_byte_once(nights: Nights) -> None:
    large = noise(9_000_000, 1)
    nights.store.put(f"packs/ab/{sha256(large).hexdigest()}", large)
    recorder = Recorder()
    report = prove_objects(nights.store, recorder)
    assert len(report.problems) == 1  # It is no pack, though its bytes are those that its name says.
    assert report.bytes_read == recorder.size == sum(info.size for info in nights.store.list(""))


def test_three_stores_damaged_in_different_places_heal_each_other(nights: Nights, tmp_path: Path) -> None:
    nights.nights(4)
    stores = [nights.store, copy_of(nights, tmp_path / "one"), copy_of(nights, tmp_path / "two")]
    whole = objects(nights.store)
    names = packs(nights.store)
    assert len(names) >= 6
    for number, store in enumerate(stores):
        flip(store, names[number])
        store.delete(names[-1 - number])
    for number, store in enumerate(stores):
        donors = [each for each in stores if each is not store]
        assert len(heal(nights, store, donors, tmp_path / f"{number}").healed) == 2
    assert all(objects(store) == whole for store in stores)
    nights.require_truth()


def test_only_right_bytes_are_taken_and_from_the_first_who_has_them(nights: Nights, tmp_path: Path) -> None:
    one, two = copy_of(nights, tmp_path / "one"), copy_of(nights, tmp_path / "two")
    name = packs(nights.store)[0]
    for place, store in enumerate((nights.store, one)):
        flip(store, name, place=50 + place)
    assert heal(nights, nights.store, [one, two], tmp_path).healed == {name: "donor 1"}
    flip(nights.store, name)
    flip(two, name)
    assert heal(nights, nights.store, [one, two], tmp_path).healed == {}


def test_what_the_store_does_not_give_back_is_not_healed(nights: Nights, tmp_path: Path) -> None:
    class Forgetful(MemoryStore):
        def put(self, name: str, content: bytes | memoryview | Path, *, replace: bool = False) -> None:
            if not replace:
                super().put(name, content)

    copy = copy_of(nights, tmp_path / "one")
    name = packs(nights.store)[0]
    flip(nights.store, name)
    store = Forgetful(nights.clock, nights.store._objects)
    assert heal(nights, store, [copy], tmp_path).healed == {}


def test_what_prune_dropped_does_not_come_back(nights: Nights, tmp_path: Path) -> None:
    nights.nights(2)
    old = copy_of(nights, tmp_path / "one")
    nights.later_prune()
    assert nights.later_prune().swept_snapshots
    before = objects(nights.store)
    assert heal(nights, nights.store, [old], tmp_path).healed == {}
    assert objects(nights.store) == before


def test_what_a_prune_drops_at_any_moment_of_a_repair_does_not_come_back(nights: Nights, tmp_path: Path) -> None:
    old = copy_of(nights, tmp_path / "one")
    prune(nights.world)
    nights.clock.advance(4 * DAY)
    happened, places = True, count()
    while happened:
        at = next(places)
        each = nights.clone(tmp_path / f"{at}")
        beside = Beside(each.store, at, partial(prune, each.world))
        healing(each, beside, [old], tmp_path).restore(replace(each.world, store=beside).open(), ())
        assert len(each.world.open().snapshots(marked=True)) == (2 if beside.happened else 3)
        happened = beside.happened


def test_removed_snapshots_come_back_with_all_that_they_need(nights: Nights, tmp_path: Path) -> None:
    copy = copy_of(nights, tmp_path / "one")
    for info in [
        *sorted(nights.store.list("snapshots/"), key=lambda each: each.name)[1:],
        *nights.store.list("packs/"),
    ]:
        nights.store.delete(info.name)
    heal(nights, nights.store, [copy], tmp_path)
    assert len(nights.world.open().snapshots()) == 3
    nights.require_truth()


def test_a_donor_that_fails_is_told_and_passed_over(nights: Nights, tmp_path: Path) -> None:
    away = Stop(at=0, how=Fault.ERROR, error=StoreUnavailable("it does not answer"), times=10_000)
    one, two = FaultyStore(copy_of(nights, tmp_path / "one"), away), copy_of(nights, tmp_path / "two")
    name = packs(nights.store)[0]
    flip(nights.store, name)
    work = heal(nights, nights.store, [one, two], tmp_path)
    assert work.healed == {name: "donor 1"}
    assert isinstance(work.reporter, Recorder)
    assert {warning.subject for warning in work.reporter.warnings} == {"healing from donor 0"}


def test_what_is_damaged_at_a_donor_is_told_as_the_donors(nights: Nights, tmp_path: Path) -> None:
    copy = copy_of(nights, tmp_path / "one")
    name = max(info.name for info in copy.list("index/"))
    flip(copy, name)
    work = heal(nights, nights.store, [copy], tmp_path)
    assert isinstance(work.reporter, Recorder)
    told = [(each.subject, each.problem, each.hint) for each in work.reporter.warnings]
    assert told == [("healing from donor 0", f"{name} there: its bytes do not match its name", None)]


def test_a_repair_counts_what_is_there_after_it(nights: Nights, tmp_path: Path) -> None:
    copy = copy_of(nights, tmp_path / "one")
    whole = checked(nights, nights.store)
    flip(nights.store, max(info.name for info in nights.store.list("snapshots/")))
    nights.store.delete(packs(nights.store)[0])
    before = checked(nights, nights.store)
    work = heal(nights, nights.store, [copy], tmp_path)
    report = healed_report(before, checked(nights, nights.store), work.healed)
    assert (report.snapshots, report.packs, report.bytes_stored) == (whole.snapshots, whole.packs, whole.bytes_stored)
    assert report.snapshots > before.snapshots


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_anywhere_in_a_repair_spoils_nothing_and_the_next_ends_whole(nights: Nights, tmp_path: Path) -> None:
    copy = copy_of(nights, tmp_path / "one")
    whole = objects(nights.store)
    flip(nights.store, packs(nights.store)[0])
    flip(nights.store, min(info.name for info in nights.store.list("snapshots/")))
    nights.store.delete(packs(nights.store)[-1])
    tried = 0
    for way in WAYS:
        kinds = frozenset({"put", "delete"}) if way.how in {Fault.TORN, Fault.LOST} else way.kinds
        for at in range(0, 1000, 3 if way.how in {Fault.BEFORE, Fault.AFTER} and not TORTURE else 1):
            store = nights.store.clone()
            faulty = FaultyStore(store, replace(way, at=at, kinds=kinds))
            try:
                heal(nights, faulty, [copy], tmp_path)
            except (PowerCut, OpsdError):
                pass
            else:
                if not faulty.has_lost:
                    break
            tried += 1
            assert objects(copy) == whole
            heal(nights, store, [copy], tmp_path)
            assert objects(store) == whole
            assert checked(nights, store).problems == ()
    assert tried > 15
