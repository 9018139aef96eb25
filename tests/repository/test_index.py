"""The index finds every blob, only in packs that count, and is small."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.errors import ObjectDamaged
from opsd.repository.format import Kind, name_for
from opsd.repository.index import (
    Index,
    IndexCache,
    IndexEntry,
    IndexPart,
    PackRow,
    decode_index,
    encode_index,
    index_table,
)

REPOSITORY, KEY = b"r" * 32, b"k" * 32


def rows(count: int) -> list[PackRow]:
    """Packs with made-up names."""
    return [PackRow(bytes([number]) * 16, bytes([number]) * 32, 1000, 100) for number in range(count)]


def part(entries: list[IndexEntry], packs: int = 3, name: str = "index/x") -> IndexPart:
    """A part in memory."""
    return IndexPart(name, index_table(rows(packs), entries))


@given(
    st.dictionaries(
        st.binary(min_size=16, max_size=16), st.tuples(st.integers(0, 2), st.integers(0, 2**32 - 1)), max_size=300
    )
)
def test_every_entry_is_found_and_nothing_else(entries: dict[bytes, tuple[int, int]]) -> None:
    index = Index([part([IndexEntry(prefix, row, number) for prefix, (row, number) in entries.items()])])
    for prefix, (row, number) in entries.items():
        assert index.find(prefix + b"\0" * 16) == bytes([row]) * 16 + number.to_bytes(4, "little")
    assert index.find(b"absent" * 6) is None


def test_a_large_part_is_searched_in_few_steps() -> None:
    rng = random.Random(1)
    entries = [IndexEntry(rng.randbytes(16), 0, number) for number in range(50_000)]
    found = part(entries)
    assert all(found.find(entry.prefix) == (b"\0" * 16, entry.number) for entry in rng.sample(entries, 500))
    assert found.find(rng.randbytes(16)) is None


def test_ids_that_are_not_uniform_are_found_as_well() -> None:
    entries = [IndexEntry(b"\0" * 8 + number.to_bytes(8, "big"), 0, number) for number in range(3000)]
    found = part(entries)
    assert all(found.find(entry.prefix) == (b"\0" * 16, entry.number) for entry in entries[::97])


def test_an_entry_counts_only_if_its_pack_is_usable() -> None:
    prefix = b"p" * 16
    index = Index([part([IndexEntry(prefix, 0, 1), IndexEntry(prefix, 1, 2)])])
    index.use_only({bytes([1]) * 32})
    assert index.find(prefix * 2) == bytes([1]) * 16 + (2).to_bytes(4, "little")
    index.use_only(set())
    assert index.find(prefix * 2) is None


def test_an_entry_takes_24_bytes() -> None:
    few, many = (index_table(rows(1), [IndexEntry(bytes(16), 0, n) for n in range(count)]) for count in (0, 1000))
    assert len(many) - len(few) == 24_000


def test_an_object_is_refused_under_another_key_name_or_after_a_change() -> None:
    content = encode_index(index_table(rows(2), []), REPOSITORY, KEY)
    name = name_for(Kind.INDEX, content)
    assert decode_index(name, content, REPOSITORY, KEY) == index_table(rows(2), [])
    with pytest.raises(ObjectDamaged):
        decode_index(name, content, REPOSITORY, b"o" * 32)
    with pytest.raises(ObjectDamaged):
        decode_index(name, content[:-1] + b"x", REPOSITORY, KEY)


def test_the_cache_gives_back_what_it_kept_and_forgets_the_rest(tmp_path: Path) -> None:
    cache = IndexCache(tmp_path / "index")
    plain = index_table(rows(1), [IndexEntry(b"p" * 16, 0, 7)])
    cache.keep("index/aa", plain)
    cache.keep("index/bb", plain)
    kept = cache.part("index/aa")
    assert kept is not None
    assert kept.find(b"p" * 16) == (b"\0" * 16, 7)
    cache.forget_others({"index/aa"})
    assert cache.part("index/bb") is None
    (tmp_path / "index" / "aa").write_bytes(plain[:-1])
    assert cache.part("index/aa") is None
