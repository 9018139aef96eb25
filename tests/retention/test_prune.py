"""Prune marks, waits and sweeps; what a snapshot needs stays, whatever goes on beside it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from opsd.backup.snapshot import Planned
from opsd.backup.work import Job, Result
from opsd.clock import DAY, SECOND, FixedClock
from opsd.errors import IntegrityError, KeyMissing, OpsdError, PruneRefused, TryLater
from opsd.model import SnapshotSummary
from opsd.repository.catalog import footer_of
from opsd.repository.format import Kind, digest_of, name_for
from opsd.repository.repository import Repository
from opsd.repository.run import Run, frames_of
from opsd.repository.runs import Note, RunEvent
from opsd.retention.holds import hold
from opsd.retention.policy import Rules
from opsd.retention.prune import Prune, PruneOptions
from opsd.retention.turn import Turn
from opsd.storage.memory import MemoryStore
from opsd.verify.check import Check, CheckOptions
from opsd.verify.repair import repair
from tests.support.engine import START, World, files, make_tree
from tests.support.pruning import HOUR, Nights, noise, on_disk, prune


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights.new(tmp_path)


def names(nights: Nights, prefix: str) -> set[str]:
    return {info.name for info in nights.store.list(prefix)}


def healthy(world: World) -> bool:
    """Whether a full check finds nothing, and the index leads to all."""
    report = Check(world.open(reader=True), CheckOptions(share=1.0)).run()
    return not report.problems and not report.notices


# Mark, wait, sweep


def test_what_the_rules_drop_is_marked_waits_72_hours_and_goes(nights: Nights) -> None:
    made = nights.nights(4)
    before = nights.objects("packs/", "snapshots/")
    marked = prune(nights.world)
    assert marked.marked_snapshots == 2
    assert before.items() <= nights.objects().items()
    assert [each.id for each in nights.world.open().snapshots()] == [each.id for each in made[2:]]
    nights.clock.advance(3 * DAY - HOUR)
    assert prune(nights.world).swept_snapshots == 0
    nights.require_truth([each.id for each in made])
    nights.clock.advance(2 * HOUR)
    swept = prune(nights.world)
    assert swept.swept_snapshots == 2
    assert swept.swept_bytes == sum(
        len(before[name]) for name in before.keys() - nights.objects().keys() if name.startswith("packs/")
    )
    assert names(nights, "snapshots/") == {each.name for each in made[2:]}
    nights.require_truth()


def test_packs_that_only_dropped_snapshots_needed_go_and_all_others_stay(nights: Nights) -> None:
    (nights.tree / "big").write_bytes(noise(400_000, 50))
    nights.night()
    before = sum(info.size for info in nights.store.list("packs/"))
    (nights.tree / "big").unlink()
    nights.night()
    nights.night()
    prune(nights.world)
    nights.later_prune()
    assert sum(info.size for info in nights.store.list("packs/")) < before / 2
    assert healthy(nights.world)
    nights.require_truth()


def test_backups_between_mark_and_sweep_lose_nothing_even_if_old_content_comes_back(nights: Nights) -> None:
    lost = noise(300_000, 60)
    nights.night({"lost": lost})
    (nights.tree / "lost").unlink()
    nights.nights(3)
    prune(nights.world)
    nights.night({"back": lost})
    nights.later_prune()
    nights.later_prune()
    nights.require_truth()
    assert healthy(nights.world)


def test_nothing_is_left_of_a_swept_mark_and_of_ended_prunes(nights: Nights) -> None:
    nights.nights(4)
    prune(nights.world)
    for _ in range(4):
        nights.later_prune()
    assert names(nights, "marks/") == set()
    kinds = [event.kind for _, event in nights.world.open().place.run_events()]
    assert kinds.count("prune") <= 3
    assert kinds.count("backup") == 2


def test_notes_of_many_sweeps_become_one_and_still_explain_every_number(nights: Nights) -> None:
    for number in range(40):
        nights.night({"f0": noise(5000, number)})
        prune(nights.world)
    assert len(names(nights, "notes/")) < 30
    assert healthy(nights.world)


def test_a_dry_run_changes_nothing_and_says_what_goes(nights: Nights) -> None:
    made = nights.nights(4)
    before = nights.objects()
    plan = Prune(nights.world.open(), PruneOptions(rules=Rules(keep_last=2), zone=UTC)).plan()
    assert [each.id for each in plan.dropped] == [each.id for each in made[:2]]
    assert nights.objects() == before


# Runs beside it


def test_an_open_run_noted_under_the_mark_delays_the_sweep(nights: Nights) -> None:
    nights.nights(4)
    with Run(nights.world.open()):
        prune(nights.world)
        assert nights.later_prune().swept_snapshots == 0
    assert nights.later_prune(0.01).swept_snapshots == 2


def test_packs_stored_since_an_open_run_began_are_not_marked(nights: Nights) -> None:
    nights.nights(2)
    with Run(nights.world.open()) as run:
        nights.clock.advance(HOUR)
        run.blobs.add(run.blobs.domains[1], memoryview(noise(50_000, 9)))
        run.blobs.finish()
        nights.clock.advance(HOUR)
        assert prune(nights.world).marked_packs == 0
    assert prune(nights.world).marked_packs == 1


def test_a_run_that_began_before_the_mark_may_rely_on_what_was_marked(nights: Nights) -> None:
    """Its manifest comes after the mark; the sweep then finds the packs needed."""
    lost = noise(300_000, 60)
    nights.night({"lost": lost})
    (nights.tree / "lost").unlink()
    nights.nights(3)

    def mark() -> None:
        prune(nights.world)
        nights.clock.advance(4 * DAY)
        prune(nights.world)

    make_tree(nights.tree, {"back": lost})
    report = nights.world.backup(interrupted(nights.tree, mark))
    assert report.snapshot.added_bytes < 100_000
    nights.later_prune()
    nights.later_prune()
    assert nights.world.contents(report.snapshot.id) == on_disk(nights.tree)
    assert healthy(nights.world)


def interrupted(root: Path, act: Callable[[], None]) -> Planned:
    """A files source; before its run ends, something else happens."""
    plain = files(root)

    def work(job: Job) -> Result:
        result = plain.work(job)
        act()
        return result

    return Planned(label=plain.label, kind=plain.kind, work=work)


@pytest.mark.parametrize("forgotten", [False, True], ids=["ended", "ended and forgotten"])
def test_a_run_that_slept_for_a_month_fails_instead_of_relying_on_what_was_swept(
    nights: Nights, *, forgotten: bool
) -> None:
    lost = noise(300_000, 60)
    nights.night({"lost": lost})
    (nights.tree / "lost").unlink()
    nights.nights(3)

    def sleep() -> None:
        prune(nights.world)
        nights.clock.advance(31 * DAY)
        assert prune(nights.world).swept_snapshots == 2
        if forgotten:
            nights.later_prune()
            nights.later_prune()

    make_tree(nights.tree, {"back": lost})
    with pytest.raises(IntegrityError, match="ended by another"):
        nights.world.backup(interrupted(nights.tree, sleep))
    nights.night()
    assert nights.world.contents() == on_disk(nights.tree)
    assert healthy(nights.world)


def test_an_index_that_prune_merges_under_a_reader_is_listed_again(nights: Nights) -> None:
    nights.nights(4)

    class Merging(MemoryStore):
        def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if name.startswith("index/"):
                self.read = super().read  # type: ignore[method-assign]
                prune(World(folder=nights.world.folder, store=self, clock=nights.clock))
                nights.clock.advance(4 * DAY)
                prune(World(folder=nights.world.folder, store=self, clock=nights.clock))
            return super().read(name, offset, length)

    store = Merging(nights.clock, nights.store._objects)
    for path in (nights.world.folder / "cache").rglob("index/*"):
        path.unlink()
    world = World(folder=nights.world.folder, store=store, clock=nights.clock)
    assert world.open().catalog().orphans == []


# Two prunes


def other_prune(nights: Nights) -> bytes:
    """Another host's prune has begun (signed with another key than this host's maintainer's)."""
    repository = nights.world.open()
    key = repository.place.ring.writer
    assert key
    event = RunEvent(run=b"r" * 16, writer=key.public().id, kind="prune", event="begun", time=nights.clock.now())
    content = repository.place.signed.encode_run(event, key)
    nights.store.put(name_for(Kind.RUN, content, time=event.time), content)
    return event.run


def test_prune_waits_for_another_that_lives_and_names_its_beginning(nights: Nights) -> None:
    nights.nights(4)
    other_prune(nights)
    began = nights.clock.now()
    nights.clock.advance(23 * HOUR)
    before = nights.objects("packs/", "marks/", "snapshots/", "index/")
    with pytest.raises(TryLater, match=r"2023-11-1[89]T") as caught:
        prune(nights.world)
    assert caught.value.exit_code == 75
    assert began < nights.clock.now()
    assert nights.objects("packs/", "marks/", "snapshots/", "index/") == before


def test_a_prune_without_a_sign_for_a_day_is_ended_by_the_next(nights: Nights) -> None:
    nights.nights(4)
    run = other_prune(nights)
    nights.clock.advance(25 * HOUR)
    assert prune(nights.world).marked_snapshots == 2
    ended = {event.run for _, event in nights.world.open().place.run_events() if event.event == "ended"}
    assert run in ended


def test_a_living_prune_of_this_host_is_waited_for_and_a_killed_one_ended_at_once(nights: Nights) -> None:
    nights.nights(4)
    repository = nights.world.open()
    key = repository.place.ring.maintainer
    assert key
    event = RunEvent(run=b"k" * 16, writer=key.public().id, kind="prune", event="begun", time=nights.clock.now())
    content = repository.place.signed.encode_run(event, key)
    nights.store.put(name_for(Kind.RUN, content, time=event.time), content)
    with nights.world.state.alive(event.run), pytest.raises(TryLater):
        prune(nights.world)
    assert prune(nights.world).marked_snapshots == 2


def test_a_prune_that_was_ended_while_it_slept_stops_before_it_removes_anything(nights: Nights) -> None:
    nights.nights(4)
    before = nights.objects("packs/", "snapshots/")
    with Turn(nights.world.open()) as turn:
        nights.clock.advance(2 * DAY)
        turn.say("ended", turn.run)
        with pytest.raises(PruneRefused, match="ended"):
            turn.alive()
    assert nights.objects("packs/", "snapshots/") == before


def test_a_long_prune_shows_signs_of_life(nights: Nights) -> None:
    with Turn(nights.world.open()) as turn:
        turn.alive()
        nights.clock.advance(7 * HOUR)
        turn.alive()
    events = [event.event for _, event in nights.world.open().place.run_events() if event.run == turn.run]
    assert sorted(events) == ["alive", "begun", "ended"]


# What stops it


def changes_nothing(nights: Nights, match: str, **options: bool) -> OpsdError:
    """Prune refuses, and but for its own run objects all is as it was."""
    before = nights.objects("packs/", "marks/", "snapshots/", "index/", "notes/")
    with pytest.raises(PruneRefused, match=match) as caught:
        prune(nights.world, **options)
    assert nights.objects("packs/", "marks/", "snapshots/", "index/", "notes/") == before
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("prefix", ["snapshots/", "marks/", "notes/", "runs/"])
@pytest.mark.parametrize("place", [9, 60, -1])
def test_a_damaged_small_object_stops_prune_before_anything_changes(nights: Nights, prefix: str, place: int) -> None:
    nights.nights(4)
    prune(nights.world)
    nights.later_prune()
    nights.nights(2)
    prune(nights.world)
    nights.clock.advance(4 * DAY)
    nights.flip(min(names(nights, prefix)), place)
    changes_nothing(nights, "prune stops")


def test_a_clock_that_is_off_by_more_than_five_minutes_stops_prune(tmp_path: Path) -> None:
    stored, own = FixedClock(START), FixedClock(START)
    world = World.new(tmp_path / "world", store=MemoryStore(stored), clock=own)
    tree = make_tree(tmp_path / "tree", {"a": b"a"})
    world.backup(files(tree))
    own.advance(299 * SECOND)
    prune(world)
    own.advance(2 * SECOND)
    with pytest.raises(PruneRefused, match="differ by 301 s"):
        prune(world)
    own.advance(-602 * SECOND)
    with pytest.raises(PruneRefused, match="differ by 301 s"):
        prune(world)


def test_the_stores_clock_decides_when_the_grace_is_over(tmp_path: Path) -> None:
    """A host's clock that jumps ahead for one prune must not shorten the wait."""
    nights = Nights.new(tmp_path)
    nights.nights(4)
    prune(nights.world)
    ahead = FixedClock(nights.clock.now() + 10 * DAY)
    with pytest.raises(PruneRefused, match="clocks"):
        prune(World(folder=nights.world.folder, store=nights.store, clock=ahead))
    assert len(names(nights, "snapshots/")) == 4


def test_more_than_a_fifth_of_all_bytes_needs_a_person(nights: Nights) -> None:
    (nights.tree / "big").write_bytes(noise(400_000, 50))
    nights.night()
    (nights.tree / "big").unlink()
    nights.nights(2)
    error = changes_nothing(nights, r"would remove [5-9]\d %", confirmed=False)
    assert "--yes" in str(error.hint)
    assert prune(nights.world, confirmed=True).marked_snapshots == 1


def test_a_snapshot_that_vanished_without_a_note_stops_prune_until_a_person_says_so(nights: Nights) -> None:
    made = nights.nights(4)
    nights.store.delete(made[1].name)
    changes_nothing(nights, "number 2 ", confirmed=False)
    prune(nights.world, confirmed=True)


def test_an_older_state_of_the_store_stops_prune_whatever_a_person_says(nights: Nights) -> None:
    made = nights.nights(4)
    nights.store.delete(made[3].name)
    changes_nothing(nights, "newest of this host", confirmed=True)


def test_another_writers_dropped_number_does_not_excuse_a_vanished_snapshot(nights: Nights) -> None:
    made = nights.nights(3)
    place = nights.world.open().place
    note = Note(event="dropped", time=nights.clock.now(), sequences=((b"w" * 16, 3),))
    content = place.signed.encode_note(note)
    nights.store.put(name_for(Kind.NOTE, content, time=note.time), content)
    nights.store.delete(made[2].name)
    changes_nothing(nights, "newest of this host")


def test_a_store_that_does_not_list_what_was_put_stops_prune(nights: Nights) -> None:
    nights.nights(3)

    class Late(MemoryStore):
        def list(self, prefix: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return (info for info in super().list(prefix) if not prefix.startswith("runs/"))

    with pytest.raises(PruneRefused, match="does not list"):
        prune(World(folder=nights.world.folder, store=Late(nights.clock, nights.store._objects), clock=nights.clock))


def test_prune_needs_the_maintainers_key(nights: Nights) -> None:
    repository = nights.world.open()
    ring = replace(repository.place.ring, maintainer=None)
    poor = Repository(replace(repository.place, ring=ring), nights.world.surroundings())
    with pytest.raises(KeyMissing, match="maintainer"):
        Prune(poor, PruneOptions(rules=Rules(keep_last=1), zone=UTC))


# Moving frames


def holey(nights: Nights) -> None:
    """Many packs with a dead part each."""
    for number in range(30):
        make_tree(nights.tree, {f"data{number}": noise(16_000, 200 + number)})
    nights.night()
    for number in range(0, 30, 2):
        (nights.tree / f"data{number}").write_bytes(noise(500, 300 + number))
    nights.night()
    nights.night()


def test_mostly_dead_packs_are_rewritten_and_old_addresses_still_lead_to_content(nights: Nights) -> None:
    holey(nights)
    packs = names(nights, "packs/")
    births = set(frames_of(nights.world.open(), nights.world.open().find("latest")).births())
    done = prune(nights.world)
    assert done.moved_packs
    nights.later_prune()
    assert not packs <= names(nights, "packs/")
    catalog = nights.world.open().catalog()
    moved = [birth for birth in births if not any(row.name in packs for row in catalog.objects[birth])]
    assert moved
    nights.require_truth()
    assert healthy(nights.world)


def test_blobs_in_moved_frames_are_found_again_and_not_stored_twice(nights: Nights) -> None:
    holey(nights)
    prune(nights.world)
    nights.later_prune()
    for path in sorted((nights.world.folder / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert nights.night().added_bytes < 30_000
    nights.require_truth()


def test_small_packs_are_gathered_once_they_are_worth_a_pack(nights: Nights) -> None:
    for number in range(30):
        nights.night({f"small{number}": noise(6000, number)})
    before = len(names(nights, "packs/"))
    assert prune(nights.world, keep_last=100).moved_packs
    nights.clock.advance(4 * DAY)
    prune(nights.world, keep_last=100)
    assert len(names(nights, "packs/")) < before / 4
    nights.require_truth()
    assert healthy(nights.world)


def test_prune_comes_to_rest(nights: Nights) -> None:
    holey(nights)
    for number in range(20):
        nights.night({f"small{number}": noise(6000, number)})
    for _ in range(3):
        nights.later_prune()
    before = names(nights, "packs/")
    last = nights.later_prune()
    assert (last.marked_packs, last.moved_packs, last.marked_snapshots) == (0, 0, 0)
    assert names(nights, "packs/") == before


@pytest.mark.parametrize("place", [30, 2000, 40_000], ids=["head", "session or frame", "frame"])
def test_a_damaged_pack_is_left_alone_and_told_and_its_bytes_get_no_fresh_name(nights: Nights, place: int) -> None:
    holey(nights)
    plan = Prune(nights.world.open(), PruneOptions(rules=Rules(keep_last=2), zone=UTC)).plan()
    victim = max((each.pack for each in plan.liveness.rewrite), key=lambda each: each.size)
    nights.flip(victim.name, place)
    prune(nights.world)
    assert victim.name in {warning.subject for warning in nights.world.recorder.warnings}
    nights.later_prune()
    nights.later_prune()
    report = Check(nights.world.open(reader=True), CheckOptions(share=1.0)).run()
    assert {problem.object for problem in report.problems} == {victim.name}


def marked_as_damaged(nights: Nights, snapshot: SnapshotSummary, place: int) -> set[str]:
    """Damage the packs that only that snapshot needs, and have a check mark them; their names."""
    world = nights.world
    others = [each for each in world.open().manifests() if each.summary.id != snapshot.id]
    shared = {birth for each in others for birth in frames_of(world.open(), each).births()}
    own = set(frames_of(world.open(), world.open().find(snapshot.id)).births()) - shared
    rows = {row.name for birth in own for row in world.open().catalog().objects[birth]}
    assert rows
    for name in rows:
        nights.flip(name, place)
    report = Check(world.open(reader=True), CheckOptions(share=1.0)).run()
    assert set(repair(world.open(), report).packs) == rows
    return rows


@pytest.mark.parametrize("place", [-20, 2000], ids=["footer", "frame"])
def test_a_pack_marked_as_damaged_goes_once_no_snapshot_needs_it_and_its_mark_ends(nights: Nights, place: int) -> None:
    nights.night()
    lost = nights.night({"lost": noise(300_000, 60)})
    (nights.tree / "lost").unlink()
    nights.nights(1)
    damaged = marked_as_damaged(nights, lost, place)
    for _ in range(2):
        nights.later_prune()
        assert damaged <= names(nights, "packs/")
        assert "damaged" in {mark.event for mark in nights.world.open().marks()}
    nights.night({"night1": noise(30_000, 2000)})
    prune(nights.world)
    assert damaged <= names(nights, "packs/")
    nights.later_prune()
    assert not damaged & names(nights, "packs/")
    nights.later_prune()
    assert names(nights, "marks/") == set()
    nights.require_truth()
    assert healthy(nights.world)


def test_a_marked_pack_whose_footer_breaks_stays_while_a_held_snapshot_may_need_it(nights: Nights) -> None:
    nights.night({"lost": noise(300_000, 60)})
    (nights.tree / "lost").unlink()
    nights.nights(3)
    prune(nights.world)
    first = nights.world.open().snapshots(marked=True)[0]
    marked = {pack for mark in nights.world.open().marks() for pack in mark.packs}
    hold(nights.world.open(), first, None, "evidence")
    place = nights.world.open().place
    needed = frames_of(nights.world.open(), nights.world.open().find(first.id))
    infos = [info for info in nights.store.list("packs/") if digest_of(info.name) in marked]
    victims = [info for info in infos if any((row.birth, row.number) in needed for row in footer_of(place, info)[1])]
    assert victims
    for info in victims:
        nights.flip(info.name, -20)
    with pytest.raises(PruneRefused, match="a snapshot may need it"):
        nights.later_prune()
    assert {info.name for info in victims} <= names(nights, "packs/")
    for info in victims:
        nights.flip(info.name, -20)
    nights.require_truth([first.id])


def test_a_pack_with_a_broken_footer_that_a_snapshot_needs_stops_prune(nights: Nights) -> None:
    nights.nights(3)
    for name in names(nights, "packs/"):
        nights.flip(name, -20)
    changes_nothing(nights, "a snapshot may need it")
