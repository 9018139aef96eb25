"""What is fetched ahead is exactly what was found, whatever happens to the scouts; what is not is read without them."""

import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from opsd.backup.fetching import Fetcher
from opsd.clock import FixedClock
from opsd.errors import StorageError
from opsd.storage.faulty import Fault, FaultyStore, Stop
from opsd.storage.memory import MemoryStore
from tests.support.descriptors import settled_descriptors
from tests.support.engine import START, World, files, make_tree

SMALL = 256 * 1024


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(SMALL)
    yield fetcher
    fetcher.close()


def children() -> str:
    """The processes that this thread has started and that are still there."""
    return Path("/proc/thread-self/children").read_text(encoding="ascii")


def some_files(folder: Path, count: int, size: int = 20_000) -> dict[bytes, bytes]:
    """Files of all sizes up to one, none like another."""
    chance = random.Random(count)
    content = {f"{number:05}": chance.randbytes(chance.randrange(size)) for number in range(count)}
    make_tree(folder, content | {"empty": b""})
    return {os.fsencode(folder / name): each for name, each in content.items()} | {os.fsencode(folder / "empty"): b""}


def expect(fetcher: Fetcher, paths: dict[bytes, bytes]) -> None:
    fetcher.expect((path, os.lstat(path)) for path in paths)


def taken(fetcher: Fetcher, path: bytes) -> bytes | None:
    found = fetcher.take(path)
    return None if found is None else bytes(found.content)


@contextmanager
def at_most_descriptors(more: int) -> Iterator[None]:
    """As if this process could open only so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held = []
    with suppress(OSError):
        while True:
            held.append(os.dup(0))
    for _ in range(more):
        os.close(held.pop())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def test_every_file_comes_as_it_is(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 2000)
    expect(fetcher, paths)
    assert not [path for path, content in paths.items() if taken(fetcher, path) != content]
    assert len(fetcher._scouts) > 1


def test_files_may_be_expected_while_others_are_taken(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 1548)
    names = list(paths)
    wrong = []
    for start in range(0, len(names), 100):
        expect(fetcher, {name: paths[name] for name in names[start : start + 100]})
        wrong += [name for name in names[max(0, start - 50) : start + 50] if taken(fetcher, name) != paths[name]]
    assert not wrong


def test_a_file_that_is_not_asked_for_holds_nothing_up(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 2000)
    expect(fetcher, paths)
    every_seventh = list(paths)[::7]
    assert not [path for path in every_seventh if taken(fetcher, path) != paths[path]]


def test_a_file_is_given_once(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 100)
    expect(fetcher, paths)
    first = next(iter(paths))
    assert taken(fetcher, first) == paths[first]
    assert taken(fetcher, first) is None


def test_attributes_come_with_the_content(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 100)
    first = next(iter(paths))
    os.setxattr(first, "user.colour", b"blue")
    expect(fetcher, paths)
    found = fetcher.take(first)
    assert found is not None
    assert found.extra is not None
    assert found.extra.xattrs == {b"user.colour": b"blue"}


def test_a_few_files_are_not_worth_a_process(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 62)
    expect(fetcher, paths)
    assert [taken(fetcher, path) for path in paths] == [None] * 63
    assert not fetcher._scouts


def test_large_files_make_room_for_those_after_them(fetcher: Fetcher, tmp_path: Path) -> None:
    for number in range(100):
        with (tmp_path / f"{number:03}").open("wb") as file:
            file.truncate(64 * 1024 * 1024)
    paths = [os.fsencode(tmp_path / f"{number:03}") for number in range(100)]
    fetcher.expect((path, os.lstat(path)) for path in paths)
    assert fetcher.has_enough
    assert [taken(fetcher, path) for path in paths] == [None] * 100
    assert not fetcher.has_enough


def test_more_is_not_sent_than_there_is_memory_for(fetcher: Fetcher, tmp_path: Path) -> None:
    paths = some_files(tmp_path, 60, size=SMALL)
    for number in range(5):
        more = some_files(tmp_path / str(number), 60, size=SMALL)
        paths |= more
    expect(fetcher, paths)
    assert fetcher.has_enough
    assert not [path for path, content in paths.items() if taken(fetcher, path) != content]


class TestTrouble:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
    def test_scouts_that_die_cost_time_only(self, fetcher: Fetcher, tmp_path: Path, how: signal.Signals) -> None:
        paths = some_files(tmp_path, 3000)
        expect(fetcher, paths)
        got = {}
        for number, path in enumerate(paths):
            if number in {40, 700, 1500}:
                process = fetcher._scouts[number % len(fetcher._scouts)]._process
                if process:
                    process.send_signal(how)
            got[path] = taken(fetcher, path)
        assert not [path for path, each in got.items() if each not in {None, paths[path]}]
        assert got[next(iter(paths))] is not None

    @pytest.mark.parametrize("more", [1, 2, 3, 4, 6])
    def test_where_nothing_can_be_opened_any_more_nothing_is_fetched(self, tmp_path: Path, more: int) -> None:
        paths = some_files(tmp_path, 2000, size=100)
        found = [(path, os.lstat(path)) for path in paths]
        before = settled_descriptors()
        with closing(Fetcher(SMALL)) as fetcher, at_most_descriptors(more):
            for start in range(0, len(found), 500):
                fetcher.expect(found[start : start + 500])
            assert [taken(fetcher, path) for path, _ in found] == [None] * len(found)
            assert not fetcher.has_enough
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_closing_does_not_mind_what_is_still_held(self, tmp_path: Path) -> None:
        paths = some_files(tmp_path, 100)
        before = settled_descriptors()
        fetcher = Fetcher(SMALL)
        expect(fetcher, paths)
        last = list(paths)[-2]
        held = fetcher.take(last)
        assert held is not None
        fetcher.close()
        assert bytes(held.content) == paths[last]
        del held
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_closing_in_the_middle_leaves_no_process(self, tmp_path: Path) -> None:
        fetcher = Fetcher(SMALL)
        expect(fetcher, some_files(tmp_path, 2000))
        processes = [scout._process for scout in fetcher._scouts]
        fetcher.close()
        assert processes
        assert all(process and process.returncode is not None for process in processes)

    def test_a_store_that_fails_is_what_is_told(self, tmp_path: Path) -> None:
        root = tmp_path / "tree"
        before = children()
        some_files(root, 2000, size=3000)
        clock = FixedClock(START)
        inner = MemoryStore(clock)
        world = World.new(tmp_path / "world", clock=clock, store=inner)
        world.store = FaultyStore(inner, Stop(at=3, how=Fault.ERROR, kinds=frozenset({"put"}), times=1000))
        with pytest.raises(StorageError, match="failed as a test asked"):
            world.backup(files(root))
        assert children() == before
