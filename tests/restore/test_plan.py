"""A plan says what a restore would do, and changes nothing."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from opsd.errors import RestoreError
from opsd.events import Recorder
from opsd.model import EntryType
from opsd.restore.apply import apply, plan_restore
from opsd.restore.placement import Placed, placed
from opsd.restore.plan import plan
from opsd.restore.request import Overwrite, RestoreRequest
from opsd.restore.standing import Standing
from tests.restore.conftest import make_exotic
from tests.support.reader import MemoryReader, entry, observe, scan

FRESH = RestoreRequest(snapshot="ab12", target=b"/nowhere")


class Known:
    """A target that is known by heart."""

    def __init__(self, standings: Mapping[bytes, Standing], names: Mapping[bytes, list[bytes]]) -> None:
        self.standings = standings
        self.there = names

    def look(self, placed: Placed) -> Mapping[bytes, Standing]:
        return {each.name: found for each in placed.entries if (found := self.standings.get(placed.at(each.name)))}

    def names(self, path: bytes, *, mounted: bool) -> Iterator[bytes]:
        del mounted
        yield from self.there.get(path, [])


def small() -> MemoryReader:
    reader = MemoryReader()
    reader.add(
        "s",
        {
            b"/": [entry(b"d"), reader.file(b"e", b"xx", link=b"1"), reader.file(b"f", b"xx", link=b"1")],
            b"/d": [
                reader.file(b"p", b"x" * 1000, mode=stat.S_ISUID | 0o755),
                entry(b"q", EntryType.SYMLINK, target=b"p"),
                entry(b"r", EntryType.FIFO),
                entry(b"s", EntryType.SOCKET),
            ],
        },
    )
    return reader


def all_of(reader: MemoryReader, request: RestoreRequest) -> Iterator[Placed]:
    return (each for tree in reader.trees() for each in placed(reader, tree, request))


def test_a_fresh_place_gets_everything_counted_by_kind() -> None:
    found = plan(all_of(small(), FRESH), FRESH)
    assert found.created == {
        "files": 2, "hard links": 1, "folders": 1, "symlinks": 1, "fifos": 1, "sockets": 1, "setuid": 1,
    }  # fmt: skip
    assert (found.size, found.overwritten, found.unchanged, found.deletions) == (1002, {}, {}, ())
    assert found.seconds > 0
    assert b"s/d/p" in found.examples


def test_what_stands_in_place_is_told_apart() -> None:
    request = RestoreRequest(snapshot="ab12", in_place=True)
    standings = {b"d": Standing.SAME, b"d/p": Standing.DIFFERENT, b"d/q": Standing.METADATA, b"d/r": Standing.BLOCKED}
    found = plan(all_of(small(), request), request, Known(standings, {}))
    assert (found.overwritten, found.metadata, found.unchanged) == (
        {"files": 1, "setuid": 1},
        {"symlinks": 1},
        {"folders": 1},
    )
    assert (found.created, found.blocked) == ({"files": 1, "hard links": 1, "sockets": 1}, (b"d/r",))
    assert found.size == 1002


def test_deletions_are_listed_only_when_asked_for_and_only_below_the_roots() -> None:
    reader = small()
    reader.roots["s"] = (b"/d",)
    names = {b"": [b"d", b"stray"], b"d": [b"p", b"z"]}
    asked = RestoreRequest(snapshot="ab12", in_place=True, delete=True)
    unasked = RestoreRequest(snapshot="ab12", in_place=True)
    assert plan(all_of(reader, asked), asked, Known({}, names), reader.trees()).deletions == (b"d/z",)
    assert plan(all_of(reader, unasked), unasked, Known({}, names), reader.trees()).deletions == ()


def test_deletions_keep_to_the_path_and_the_patterns_asked_for() -> None:
    reader = small()
    names = {b"": [b"stray"], b"d": [b"p", b"y.log", b"z"]}
    for more, expected in (({"subtree": b"/d"}, (b"d/y.log", b"d/z")), ({"patterns": ("/d/", "!z")}, (b"d/y.log",))):
        request = RestoreRequest(snapshot="ab12", in_place=True, delete=True, **more)
        assert plan(all_of(reader, request), request, Known({}, names), reader.trees()).deletions == expected


def test_a_folder_of_which_only_a_part_is_restored_keeps_the_rest() -> None:
    request = RestoreRequest(snapshot="ab12", in_place=True, delete=True, patterns=("p", "y.log"))
    existing = Known({}, {b"d": [b"p", b"y.log"]})
    reader = small()
    assert plan(all_of(reader, request), request, existing, reader.trees()).deletions == ()


def test_a_cache_of_which_only_the_tag_was_kept_is_not_emptied() -> None:
    reader = MemoryReader()
    reader.add("s", {b"/": [entry(b"c")], b"/c": [reader.file(b"CACHEDIR.TAG", b"x")]})
    request = RestoreRequest(snapshot="ab12", in_place=True, delete=True)
    existing = Known({}, {b"": [b"c"], b"c": [b"CACHEDIR.TAG", b"kept"]})
    assert plan(all_of(reader, request), request, existing, reader.trees()).deletions == ()


def test_a_large_folder_that_comes_in_parts_loses_none_of_them() -> None:
    reader = MemoryReader()
    reader.add("s", {b"/": [reader.file(b"a", b"x")]})
    reader.sources["s"] += [type(reader.sources["s"][0])(path=b"/", entries=(reader.file(b"b", b"x"),))]
    request = RestoreRequest(snapshot="ab12", in_place=True, delete=True)
    existing = Known({}, {b"": [b"a", b"b", b"c"]})
    assert plan(all_of(reader, request), request, existing, reader.trees()).deletions == (b"c",)


def test_examples_stay_few_however_large_the_snapshot() -> None:
    reader = MemoryReader()
    reader.add("s", {b"/": [reader.file(b"%06d" % number, b"x") for number in range(5000)]})
    found = plan(all_of(reader, FRESH), FRESH)
    assert (found.created, len(found.examples)) == ({"files": 5000}, 20)


def test_a_plan_changes_nothing_and_a_restore_then_does_what_it_says(tmp_path: Path) -> None:
    make_exotic(tmp_path / "source", privileged=os.geteuid() == 0)
    reader = scan(tmp_path / "source")
    root = tmp_path / "root"
    root.mkdir()
    request = RestoreRequest(snapshot="ab12", target=os.fsencode(root), in_place=True)
    apply(reader, request, Recorder())
    (root / "srv/www/large").write_bytes(b"other")
    (root / "srv/www/nothing").chmod(0o600)
    (root / "srv/www/to folder").unlink()
    before = observe(root)
    found = plan_restore(reader, request)
    assert observe(root) == before
    assert (found.created, found.overwritten) == ({"symlinks": 1}, {"files": 1})
    result = apply(reader, request, Recorder())
    assert (result.written, result.size) == ({"symlinks": 1, "files": 1}, found.size)
    # The time of the folder changed with what was taken out of it.
    assert found.metadata == {"files": 1, "folders": 1}


def test_overwriting_can_be_ruled_out(tmp_path: Path) -> None:
    reader = MemoryReader()
    reader.add("s", {b"/": [reader.file(b"f", b"x")]})
    (tmp_path / "f").write_bytes(b"mine")
    request = RestoreRequest(snapshot="ab12", target=os.fsencode(tmp_path), in_place=True, overwrite=Overwrite.NEVER)
    assert plan_restore(reader, request).unchanged == {"files": 1}


def test_a_plan_for_a_target_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    request = RestoreRequest(snapshot="ab12", target=os.fsencode(tmp_path / "none"), in_place=True)
    with pytest.raises(RestoreError, match="can't be read"):
        plan_restore(small(), request)
