"""A scout reads exactly what was found or nothing, and whatever happens to it costs time only."""

import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsd.sources.scout import Wanted, first_message, look, message
from opsd.sources.scouts import Scout
from tests.support.descriptors import settled_descriptors

AREA_BYTES = 1024 * 1024


class Memory:
    """What scouts and a test share."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("area")
        os.ftruncate(self.descriptor, AREA_BYTES)
        self.map = mmap.mmap(self.descriptor, 0)

    def close(self) -> None:
        self.map.close()
        os.close(self.descriptor)


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.close()


@pytest.fixture
def scout(memory: Memory) -> Iterator[Scout]:
    scout = Scout(memory.descriptor)
    yield scout
    scout.close()


def wanted(path: Path) -> Wanted:
    """A file as it is found now."""
    found = path.lstat()
    return (os.fsencode(path), found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def ask(scout: Scout, *files: Wanted, small: int = AREA_BYTES) -> list[object]:
    scout.ask((0, AREA_BYTES, small, list(files)))
    answers = scout.answer()
    assert isinstance(answers, list)
    return answers


def process_of(scout: Scout) -> "subprocess.Popen[bytes]":
    assert scout._process
    return scout._process


def ends(process: int) -> bool:
    """Wait until a process that may be somebody else's child has ended."""
    descriptor = os.pidfd_open(process)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(10_000))
    finally:
        os.close(descriptor)


class TestReading:
    def test_files_come_one_after_the_other_with_their_attributes(
        self, scout: Scout, memory: Memory, tmp_path: Path
    ) -> None:
        for name, content in (("one", b"first"), ("empty", b""), ("two", b"second")):
            (tmp_path / name).write_bytes(content)
        os.setxattr(tmp_path / "two", "user.colour", b"blue")
        answers = ask(scout, *(wanted(tmp_path / name) for name in ("one", "empty", "two")))
        assert answers == [(), (), ((b"user.colour", b"blue"),)]
        assert memory.map[:11] == b"firstsecond"

    def test_a_file_that_can_not_be_had_leaves_the_places_of_the_others_alone(
        self, scout: Scout, memory: Memory, tmp_path: Path
    ) -> None:
        for name in ("one", "two", "three"):
            (tmp_path / name).write_bytes(name.encode())
        found = [wanted(tmp_path / name) for name in ("one", "two", "three")]
        (tmp_path / "two").unlink()
        assert ask(scout, *found) == [(), None, ()]
        assert memory.map[:3] == b"one"
        assert memory.map[6:11] == b"three"

    def test_a_large_file_is_only_brought_into_the_cache(self, scout: Scout, memory: Memory, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(b"x" * 1000)
        (tmp_path / "small").write_bytes(b"small")
        assert ask(scout, wanted(tmp_path / "large"), wanted(tmp_path / "small"), small=10) == [None, ()]
        assert memory.map[:5] == b"small"

    def test_a_file_that_only_claims_to_be_empty_is_not_taken_for_empty(self, scout: Scout) -> None:
        path = Path("/proc/version")
        assert path.stat().st_size == 0
        assert ask(scout, wanted(path)) == [None]

    def test_it_opens_no_path_that_the_kernel_does_not_take(self, scout: Scout, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        path = os.fsencode(tmp_path) + b"/." * 2100 + b"/x"
        assert ask(scout, (path, *wanted(tmp_path / "x")[1:])) == [None]


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 3)


def rewrite_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_its_place(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_symlink(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def lead_there_by_a_symlink(path: Path) -> None:
    """To the very file, unchanged."""
    path.parent.rename(path.parent.with_name("aside"))
    path.parent.mkdir()
    path.symlink_to("../aside/file")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def change_its_mode(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize(
    "meddle",
    [
        grow,
        shrink,
        rewrite_and_set_the_time_back,
        take_its_place,
        become_a_pipe,
        become_a_symlink,
        lead_there_by_a_symlink,
        become_a_folder,
        change_its_mode,
        Path.unlink,
    ],
)
def test_what_is_not_as_it_was_found_is_not_given(scout: Scout, tmp_path: Path, meddle: Callable[[Path], None]) -> None:
    path = tmp_path / "folder/file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    found = wanted(path)
    tick = tmp_path / "tick"
    tick.touch()
    while tick.stat().st_ctime_ns <= found[5]:  # What follows must not fall into the same tick of the clock.
        tick.write_bytes(b"")
    meddle(path)
    assert ask(scout, found) == [None]


def make(path: Path, content: bytes) -> None:
    """Without looking at the file, as Python's own functions do."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, content)
    os.close(descriptor)


def test_another_file_of_the_same_moment_is_not_taken_for_the_one_that_was_found(scout: Scout, tmp_path: Path) -> None:
    one, other = tmp_path / "one/file", tmp_path / "other/file"
    one.parent.mkdir()
    other.parent.mkdir()
    for _ in range(1000):
        # A kernel may give a finer time to what was looked at before.
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)
        make(one, b"content")
        make(other, b"CONTENT")
        found = wanted(one)
        if wanted(other)[4:] == found[4:]:
            break
    one.parent.rename(tmp_path / "aside")
    other.parent.rename(tmp_path / "one")
    assert wanted(one)[4:] == found[4:]
    assert ask(scout, found) == [None]


class TestPatience:
    def test_questions_and_answers_longer_than_pipes_do_not_wait_for_each_other(
        self, scout: Scout, tmp_path: Path
    ) -> None:
        path = tmp_path / ("n" * 200)
        path.write_bytes(b"x")
        os.setxattr(path, "user.note", b"v" * 3000)
        for _ in range(40):
            scout.ask((0, AREA_BYTES, AREA_BYTES, [wanted(path) for _ in range(64)]))
        for _ in range(40):
            assert scout.answer() == [((b"user.note", b"v" * 3000),)] * 64

    @pytest.mark.parametrize("asked", [1, 100])
    def test_one_that_was_stopped_is_given_up(self, memory: Memory, tmp_path: Path, asked: int) -> None:
        (tmp_path / "x").touch()
        scout = Scout(memory.descriptor, patience_seconds=0.2)
        assert ask(scout, wanted(tmp_path / "x")) == [()]
        process = process_of(scout)
        process.send_signal(signal.SIGSTOP)
        for _ in range(asked):
            scout.ask((0, AREA_BYTES, AREA_BYTES, [wanted(tmp_path / "x") for _ in range(64)]))
        assert scout.answer() is None
        assert process.returncode == -signal.SIGKILL
        assert not scout.lives

    def test_folders_are_dropped_rather_than_waited_for(self, tmp_path: Path) -> None:
        scout = Scout(patience_seconds=3600)
        process_of(scout).send_signal(signal.SIGSTOP)
        for _ in range(10_000):
            scout.mention(os.fsencode(tmp_path))
        scout.close()


class TestEnding:
    def test_one_that_was_killed_answers_nothing_any_more(self, scout: Scout, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        process_of(scout).kill()
        for _ in range(3):
            scout.ask((0, AREA_BYTES, AREA_BYTES, [wanted(tmp_path / "x")]))
            assert scout.answer() is None

    def test_closing_leaves_no_process_and_no_descriptor(self, memory: Memory, tmp_path: Path) -> None:
        before = settled_descriptors()
        scout = Scout(memory.descriptor)
        folders = Scout()
        folders.mention(os.fsencode(tmp_path))
        processes = [process_of(scout), process_of(folders)]
        scout.close()
        folders.close()
        assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_it_ends_when_whoever_started_it_is_killed(self) -> None:
        program = (
            "import sys; from opsd.sources.scouts import Scout; s = Scout(); print(s._process.pid, flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as starter:
            assert starter.stdout
            pid = int(starter.stdout.readline())
            starter.kill()
            starter.wait()
            assert ends(pid)

    def test_an_interrupt_from_the_keyboard_is_none_of_its_business(self, scout: Scout, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        assert ask(scout, wanted(tmp_path / "x")) == [()]
        process_of(scout).send_signal(signal.SIGINT)
        assert ask(scout, wanted(tmp_path / "x")) == [()]


@pytest.mark.parametrize("interpreter", ["", None, "/nowhere/python", "/bin/true", "chatter"])
def test_without_an_interpreter_there_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, memory: Memory, tmp_path: Path, interpreter: str | None
) -> None:
    if interpreter == "chatter":
        interpreter = str(tmp_path / "chatter")
        Path(interpreter).write_text("#!/bin/sh\nhead -c 70000 /dev/zero\nexec cat\n", encoding="ascii")
        Path(interpreter).chmod(0o700)
    monkeypatch.setattr(sys, "executable", interpreter)
    scout = Scout(memory.descriptor, patience_seconds=5)
    (tmp_path / "x").touch()
    for _ in range(3):
        scout.ask((0, AREA_BYTES, AREA_BYTES, [wanted(tmp_path / "x")]))
        assert not scout.answer()
    scout.close()


def test_no_symlink_is_followed_to_a_folder(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    os.utime(seen, ns=(0, 10**18))  # So old that a mount with relatime would touch it.
    (tmp_path / "link").symlink_to("seen")
    look(os.fsencode(tmp_path / "link"))
    assert seen.stat().st_atime_ns == 0
    look(os.fsencode(seen))
    look(os.fsencode(tmp_path / "gone"))


def test_a_message_is_taken_only_when_it_is_whole() -> None:
    whole = message([None, ()]) + message(["next"])
    received = bytearray()
    taken = []
    for byte in whole:
        received.append(byte)
        taken.append(first_message(received))
    assert [each for each in taken if each is not None] == [[None, ()], ["next"]]
    assert taken[-1] == ["next"]
