"""What is checked when: every byte within 30 days, oldest first, within a budget, and never called read if it was not."""

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clock import DAY, SECOND
from opsd.errors import ObjectNotFound, StoreReadOnly
from opsd.events import Recorder
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import ObjectInfo
from opsd.verify.checked import CheckedFile
from opsd.verify.proof import prove_some, vouched_objects
from opsd.verify.slices import PERIOD, Checked, News, Seen, after_check, coverage, due
from tests.support.pruning import Nights

START = 1_800_000_000 * SECOND
MIB = 1 << 20


def pack(number: int, size: int = 32 * MIB, modified: int = START - 400 * DAY) -> ObjectInfo:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return ObjectInfo(name=f"packs/{digest[:2]}/{digest}", size=size, modified=modified)


def read(checked: Checked, listed: Iterable[ObjectInfo], chosen: Iterable[ObjectInfo], now: int) -> Checked:
    chosen = list(chosen)
    news = News(read=frozenset(info.name for info in chosen), size=sum(info.size for info in chosen), is_slice=True)
    return after_check(checked, listed, news, now)


def slices(
    infos: list[ObjectInfo],
    days: Iterable[int],
    *,
    budget: int | None = None,
    grow: Callable[[int], list[ObjectInfo]] = lambda _: [],
) -> tuple[Checked, list[int]]:
    """Nights of slices; what is remembered, and the bytes that each read."""
    checked, sizes = Checked(), []
    for day in days:
        infos += grow(day)
        now = START + day * DAY
        chosen = due(infos, checked, now, budget=budget)
        checked = read(checked, infos, chosen, now)
        sizes.append(sum(info.size for info in chosen))
    return checked, sizes


def oldest(infos: list[ObjectInfo], checked: Checked, now: int) -> int:
    """How long the longest unread was not, from the beginning of the checks on."""
    return max(now - (checked.of(info).read or max(info.modified, checked.since)) for info in infos)


def test_everything_is_read_within_30_days_in_even_slices() -> None:
    infos = [pack(number) for number in range(280)]
    checked, sizes = slices(infos, range(29))
    assert coverage(infos, checked, START + 28 * DAY).read == 280 * 32 * MIB
    assert max(sizes) <= 11 * 32 * MIB
    assert min(sizes) > 0


def test_years_of_growth_odd_sizes_and_removals_never_let_anything_grow_older_than_30_days() -> None:
    random_ = random.Random(5)
    infos = [pack(number, random_.randrange(1, 64 * MIB)) for number in range(100)]
    checked = Checked()
    for day in range(200):
        now = START + day * DAY
        infos += [pack(1000 + day * 10 + number, random_.randrange(1, 64 * MIB), now) for number in range(3)]
        infos = [info for info in infos if random_.random() > (0.4 if day == 90 else 0.01)]
        checked = read(checked, infos, due(infos, checked, now), now)
        assert oldest(infos, checked, now) <= PERIOD - DAY, day


def test_a_repository_that_lost_half_of_itself_still_reads_the_rest_in_time() -> None:
    infos = [pack(number) for number in range(280)]
    checked, _ = slices(infos, range(42))
    infos = [info for info in infos if checked.of(info).read < START + 28 * DAY]
    assert len(infos) == 140
    for day in range(42, 120):
        now = START + day * DAY
        checked = read(checked, infos, due(infos, checked, now), now)
        assert oldest(infos, checked, now) <= PERIOD - DAY, day


def test_missed_nights_are_caught_up_with() -> None:
    infos = [pack(number) for number in range(280)]
    checked, sizes = slices(infos, [*range(10), 17, 18])
    assert 81 * 32 * MIB >= sizes[-2] >= 80 * 32 * MIB
    assert sizes[-1] <= 11 * 32 * MIB
    assert len(checked.seen) == 190


def test_a_second_slice_of_the_same_hour_reads_next_to_nothing() -> None:
    infos = [pack(number) for number in range(280)]
    checked, _ = slices(infos, [0])
    assert len(due(infos, checked, START + SECOND)) <= 1


def test_what_was_unread_longest_comes_first_and_the_never_read_before_that_by_age() -> None:
    infos = [pack(1), pack(2), pack(3, modified=START - 2 * DAY)]
    checked = Checked(
        since=START - 90 * DAY,
        slice=START - DAY,
        seen={bytes.fromhex(infos[0].name[-64:]): Seen(read=START - 5 * DAY)},
    )
    assert due(infos, checked, START)[0] == infos[1]
    assert due([infos[0], infos[2]], checked, START)[0] == infos[0]


def test_a_budget_is_never_exceeded_and_what_it_leaves_unread_shows() -> None:
    infos = [pack(number) for number in range(280)]
    budget = 90 * 32 * MIB
    checked, sizes = slices(infos, range(100), budget=budget)
    for day in range(70):
        assert sum(sizes[day : day + 30]) <= budget
    assert sum(sizes[-30:]) > budget * 0.9
    found = coverage(infos, checked, START + 99 * DAY)
    assert 0.28 < found.read / found.total < 0.33
    assert found.oldest_unread > 80 * DAY


def test_a_full_check_counts_for_the_budget_and_for_the_slices() -> None:
    infos = [pack(number) for number in range(28)]
    now = START
    checked = read(Checked(), infos, infos, now)
    assert due(infos, replace(checked, slice=0), now + DAY, budget=28 * 32 * MIB) == []
    assert coverage(infos, checked, now + DAY).read == 28 * 32 * MIB
    assert coverage(infos, checked, now + 31 * DAY).read == 0


def test_an_object_larger_than_the_budget_does_not_keep_the_others_unread() -> None:
    infos = [pack(1, 100 * MIB), pack(2, MIB)]
    assert due(infos, Checked(), START, budget=50 * MIB) == [infos[1]]


def test_what_the_store_vouches_for_is_never_shown_as_read() -> None:
    infos = [pack(1), pack(2), pack(3)]
    news = News(vouched=frozenset({infos[0].name, infos[1].name}), is_slice=True)
    checked = after_check(Checked(), infos, news, START)
    checked = read(checked, infos, [infos[1]], START)
    found = coverage(infos, checked, START + DAY)
    assert (found.read, found.vouched) == (32 * MIB, 32 * MIB)
    assert found.oldest_unread == 401 * DAY


def test_what_was_found_damaged_counts_as_never_read_and_what_is_gone_is_forgotten() -> None:
    infos = [pack(1), pack(2)]
    checked = read(Checked(), infos, infos, START)
    checked = after_check(checked, infos[:1], News(wrong=frozenset({infos[0].name})), START + DAY)
    assert checked.seen == {}


def test_strange_names_are_due_and_never_remembered() -> None:
    strange = ObjectInfo(name="packs/letter.txt", size=5, modified=START)
    assert due([strange], Checked(), START) == [strange]
    assert after_check(Checked(), [strange], News(), START).seen == {}


# The file


def test_what_is_remembered_comes_back_and_100_000_objects_are_4_mb(tmp_path: Path) -> None:
    seen = {hashlib.sha256(str(number).encode()).digest(): Seen(START, number * SECOND) for number in range(100_000)}
    checked = Checked(since=START, slice=START + 1, seen=seen, spent=((START, 5), (START + DAY, 7)))
    file = CheckedFile(tmp_path / "checked" / "disk")
    file.write(checked)
    assert file.read() == checked
    assert (tmp_path / "checked" / "disk").stat().st_size < 4_100_000


@pytest.mark.parametrize("place", [0, 20, 60, -1])
def test_a_file_that_is_lost_or_broken_is_as_if_nothing_had_been_checked(tmp_path: Path, place: int) -> None:
    path = tmp_path / "disk"
    assert CheckedFile(path).read() == Checked()
    CheckedFile(path).write(Checked(since=1, seen={b"a" * 32: Seen(SECOND, 0)}))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert CheckedFile(path).read() == Checked()


def test_a_state_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreReadOnly, match="can't be kept"):
        CheckedFile(tmp_path / "file" / "disk").write(Checked())


# Proving some


class Told(MemoryStore):
    """A store that vouches for what it was told to."""

    sums: dict[str, bytes | None]

    def checksum(self, name: str) -> bytes | None:
        if name not in self.sums:
            raise ObjectNotFound(name)
        return self.sums[name]

    def locked_until(self, name: str) -> int | None:
        raise AssertionError(name)

    def retain(self, name: str, until: int) -> None:
        raise AssertionError(name, until)


def test_only_the_chosen_are_read_and_the_whole_ones_named(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path)
    nights.nights(2)
    listed = list(nights.store.list(""))
    chosen = listed[:4]
    nights.flip(chosen[0].name, -1)
    report = prove_some(nights.store, listed, [*chosen, pack(7)], Recorder())
    assert report.read == {info.name for info in chosen[1:]}
    assert [problem.object for problem in report.problems] == [chosen[0].name]
    assert report.bytes_read == sum(info.size for info in chosen)


def test_a_store_is_taken_at_its_word_and_one_that_says_nothing_is_told(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path)
    nights.nights(2)
    listed = list(nights.store.list(""))
    store = Told(nights.clock)
    store.sums = {info.name: bytes.fromhex(info.name[-64:]) for info in listed}
    store.sums[listed[0].name] = b"x" * 32
    store.sums[listed[1].name] = None
    strange = ObjectInfo(name="packs/letter.txt", size=5, modified=START)
    store.sums[strange.name] = b""
    report = vouched_objects(store, listed, [*listed, strange, pack(7)], Recorder())
    assert report.vouched == {info.name for info in listed[2:]}
    assert report.read == frozenset()
    assert report.bytes_read == 0
    assert [problem.object for problem in report.problems] == [listed[0].name, strange.name]
    assert "no SHA-256 of 1 objects" in report.notices[0]


def test_a_pack_read_in_the_second_that_the_checks_began_in_is_not_read_again_before_the_others(tmp_path: Path) -> None:
    infos = [pack(number) for number in range(2)]
    now = START + SECOND // 2
    file = CheckedFile(tmp_path / "checked")  # It keeps seconds.
    file.write(read(Checked(), infos, infos[:1], now))
    assert due(infos, file.read(), now + 1) == infos[1:]
