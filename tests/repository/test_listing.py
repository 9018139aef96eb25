"""Listings: hunks come apart to what was put in, one path needs few of them, and unchanged parts stay the same."""

from hypothesis import given
from hypothesis import strategies as st

from opsd.model import Entry, EntryType
from opsd.repository.format import pack_map
from opsd.repository.listing import (
    HunkPlace,
    decode_hunk,
    decode_root,
    encode_entry,
    encode_hunk,
    encode_root,
    ends_hunk,
    folder_parts,
    hunks_for,
    path_parts,
)

names = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)
entries = st.builds(
    Entry,
    name=names,
    type=st.sampled_from(EntryType),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(-(2**63), 2**63 - 1),
    size=st.integers(0, 2**63 - 1),
    content=st.none() | st.binary(max_size=112) | st.tuples(st.integers(1, 3), st.binary(max_size=56)),
    target=st.none() | st.binary(),
    xattrs=st.dictionaries(names, st.binary(), max_size=2),
    link=st.none() | st.binary(min_size=16, max_size=16),
    extents=st.none() | st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**40)), max_size=3).map(tuple),
    device=st.none() | st.tuples(st.integers(0, 4095), st.integers(0, 255)),
    pages=st.none() | st.binary(max_size=56),
    changed=st.booleans(),
)


@given(st.lists(st.tuples(names.map(lambda name: b"/" + name), st.lists(entries, max_size=5)), max_size=4))
def test_a_hunk_comes_apart_to_what_was_put_in(folders: list[tuple[bytes, list[Entry]]]) -> None:
    content = encode_hunk(
        {0: b"root"},
        {5: b"five"},
        [(path, pack_map([encode_entry(each) for each in found])) for path, found in folders],
    )
    decoded = list(decode_hunk(content))
    assert [(folder.path, list(folder.entries)) for folder in decoded] == folders
    assert all(folder.users == {0: b"root"} and folder.groups == {5: b"five"} for folder in decoded)


@given(st.lists(names, min_size=1, max_size=6000, unique=True).map(sorted))
def test_the_parts_of_a_folder_are_all_of_it_in_order(found: list[bytes]) -> None:
    parts = [found[cut] for cut in folder_parts(found)]
    assert [name for part in parts for name in part] == found
    assert all(len(part) <= 2048 for part in parts)


def test_a_name_more_changes_few_parts_of_a_very_large_folder() -> None:
    found = [b"%06d" % number for number in range(0, 60_000, 2)]
    before = {tuple(found[cut]) for cut in folder_parts(found)}
    more = sorted([*found, b"030001"])
    after = {tuple(more[cut]) for cut in folder_parts(more)}
    assert len(after - before) <= 4


def test_paths_are_ordered_by_their_parts() -> None:
    assert sorted([b"/a-b", b"/a/b", b"/a", b"/"], key=path_parts) == [b"/", b"/a", b"/a/b", b"/a-b"]


def place(path: bytes, name: bytes = b"") -> HunkPlace:
    """A hunk that begins there."""
    return HunkPlace(path=path, name=name, content=path, entries=1, files=1, size=1)


def test_one_path_needs_the_hunks_on_the_way_and_below() -> None:
    hunks = [place(b"/"), place(b"/a"), place(b"/a/b"), place(b"/a/b/c"), place(b"/a/d"), place(b"/e"), place(b"/f")]
    assert [hunk.path for hunk in hunks_for(hunks, b"/a/b")] == [b"/", b"/a", b"/a/b", b"/a/b/c"]
    assert [hunk.path for hunk in hunks_for(hunks, b"/e")] == [b"/", b"/e"]
    assert hunks_for(hunks, b"/") == hunks


def test_a_folder_in_several_hunks_is_found_whole() -> None:
    hunks = [place(b"/"), place(b"/big", b"a"), place(b"/big", b"k"), place(b"/big", b"t"), place(b"/z")]
    assert [hunk.name for hunk in hunks_for(hunks, b"/big") if hunk.path == b"/big"] == [b"a", b"k", b"t"]
    assert [hunk.name for hunk in hunks_for(hunks, b"/big/m/deep") if hunk.path == b"/big"] == [b"k", b"t"]


@given(st.lists(st.builds(place, names.map(lambda name: b"/" + name), names), max_size=5))
def test_a_root_comes_apart_to_its_hunks(hunks: list[HunkPlace]) -> None:
    assert list(decode_root(encode_root(hunks))) == hunks


def test_borders_depend_on_the_folders_own_path_and_a_count() -> None:
    assert not ends_hunk(b"/any", 10)
    assert ends_hunk(b"/any", 5000)
    assert any(ends_hunk(b"/%d" % number, 200) for number in range(20))
