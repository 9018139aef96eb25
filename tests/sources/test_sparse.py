"""Holes in real files."""

import os
from pathlib import Path

import pytest

from opsd.sources.sparse import data_extents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image"


def extents(path: Path) -> list[tuple[int, int]] | None:
    with path.open("rb") as opened:
        found = data_extents(opened.fileno(), os.fstat(opened.fileno()))
        assert opened.tell() == 0
    return found


def test_a_file_without_holes_has_none(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)
    assert extents(path) is None
    path.write_bytes(b"")
    assert extents(path) is None


def test_a_file_that_is_one_hole_holds_nothing(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)
    assert extents(path) == []


def test_bytes_between_holes_are_found_and_all_else_reads_as_zeros(path: Path) -> None:
    with path.open("wb") as file:
        for place in (1 << 20, 8 << 20):
            file.seek(place)
            file.write(b"x" * 5000)
        file.truncate(20 << 20)
    found = extents(path)
    assert found is not None
    assert len(found) == 2
    content = bytearray(path.read_bytes())
    for offset, length in found:
        content[offset : offset + length] = bytes(length)
    assert not any(content)
    assert sum(length for _, length in found) < 40_000


def test_bytes_at_the_end_stop_at_the_size(path: Path) -> None:
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 10)
    found = extents(path)
    assert found is not None
    assert sum(found[-1]) == (1 << 20) + 10
