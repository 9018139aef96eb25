"""The bench's input is the same each time, and a day can be taken back: else its rounds would not compare."""

import hashlib
from pathlib import Path

import pytest

from benchmarks import make
from benchmarks.make import Place

pytestmark = pytest.mark.slow


def digest(folder: Path) -> str:
    """Return one hash over names and bytes below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def test_a_day_changes_little_and_can_be_taken_back(tmp_path: Path) -> None:
    place = Place(folder=tmp_path, scale=0.005)
    make.make(place)
    sources = place.files, place.image.parent
    first = [digest(source) for source in sources]
    make.day_two(place)
    assert all(digest(source) != before for source, before in zip(sources, first, strict=True))
    make.day_one(place)
    assert [digest(source) for source in sources] == first


def test_the_same_seed_makes_the_same_bytes_in_another_place(tmp_path: Path) -> None:
    places = [Place(folder=tmp_path / name, scale=0.003) for name in ("one", "two")]
    for place in places:
        make.make(place)
        make.day_two(place)
    one, two = ([digest(place.files), digest(place.image.parent)] for place in places)
    assert one == two
