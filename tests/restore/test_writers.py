"""Writing contents: whole or not at all, and nothing under way once it is over."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.errors import IntegrityError, ObjectDamaged
from opsd.model import Entry, EntryType
from opsd.restore.protocol import Pieces
from opsd.restore.writers import Writers

MEBIBYTE = 1 << 20
LARGE = 256 * 1024


def entry(size: int, extents: tuple[tuple[int, int], ...] | None = None, pages: bytes | None = None) -> Entry:
    return Entry(
        name=b"f", type=EntryType.FILE, mode=0o600, uid=0, gid=0, mtime=0, size=size, extents=extents, pages=pages
    )


def pieces_of(content: bytes, step: int) -> Pieces:
    for place in range(0, len(content), step):
        yield place, memoryview(content)[place : place + step]


@pytest.fixture
def writers() -> Iterator[Writers]:
    with Writers.begun() as begun:
        yield begun


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    held = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield held
    os.close(held)


@pytest.mark.parametrize("step", [1000, LARGE - 1, LARGE, MEBIBYTE])
def test_pieces_of_any_length_make_the_file(writers: Writers, descriptor: int, step: int) -> None:
    content = os.urandom(9 * MEBIBYTE + 1)
    assert writers.fill(descriptor, entry(len(content)), pieces_of(content, step)) == len(content)
    assert os.pread(descriptor, len(content) + 1, 0) == content


def test_large_pieces_leave_holes_where_the_listing_has_them(writers: Writers, descriptor: int) -> None:
    content = os.urandom(MEBIBYTE)
    sparse = entry(4 * MEBIBYTE, extents=((2 * MEBIBYTE, MEBIBYTE),))
    assert writers.fill(descriptor, sparse, iter([(2 * MEBIBYTE, memoryview(content))])) == MEBIBYTE
    assert os.fstat(descriptor).st_size == 4 * MEBIBYTE
    assert os.fstat(descriptor).st_blocks * 512 < 2 * MEBIBYTE
    assert os.pread(descriptor, MEBIBYTE, 2 * MEBIBYTE) == content


def test_what_reaches_past_the_end_is_not_written(writers: Writers, descriptor: int) -> None:
    with pytest.raises(IntegrityError, match="past its end"):
        writers.fill(descriptor, entry(MEBIBYTE - 1), pieces_of(bytes(MEBIBYTE), MEBIBYTE))
    assert os.fstat(descriptor).st_size == 0


def test_content_that_lacks_a_piece_is_refused(writers: Writers, descriptor: int) -> None:
    with pytest.raises(IntegrityError, match="missing"):
        writers.fill(descriptor, entry(2 * MEBIBYTE), pieces_of(bytes(MEBIBYTE), MEBIBYTE))


@pytest.mark.parametrize("count", [1, 20])
def test_a_write_that_fails_in_a_thread_is_heard(writers: Writers, tmp_path: Path, count: int) -> None:
    (tmp_path / "file").touch()
    reading = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            writers.fill(reading, entry(count * LARGE), pieces_of(bytes(count * LARGE), LARGE))
    finally:
        os.close(reading)


def test_after_damage_nothing_is_under_way(writers: Writers, tmp_path: Path) -> None:
    """The descriptor is closed next, and its number may be another file's a moment later."""
    content = os.urandom(3 * MEBIBYTE)

    def damaged() -> Pieces:
        yield from pieces_of(content, MEBIBYTE)
        raise ObjectDamaged("packs/00/00ff", "flipped on purpose")

    for _ in range(20):
        victim = tmp_path / "another"
        victim.write_bytes(b"")
        held = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        with pytest.raises(ObjectDamaged):
            writers.fill(held, entry(4 * MEBIBYTE), damaged())
        os.close(held)
        again = os.open(victim, os.O_RDWR)
        os.close(again)
        assert again == held
        assert (tmp_path / "file").read_bytes() == content
        assert victim.read_bytes() == b""
