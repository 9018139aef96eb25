"""What is restored, and where it goes."""

import pytest

from opsd.errors import IntegrityError, RestoreError
from opsd.model import Folder
from opsd.restore.placement import chosen, placed
from opsd.restore.request import RestoreRequest
from tests.support.reader import MemoryReader, entry


def reader() -> MemoryReader:
    made = MemoryReader()
    made.add(
        "www",
        {
            b"/": [entry(b"srv")],
            b"/srv": [entry(b"www")],
            b"/srv/www": [entry(b"a"), entry(b"a.b"), made.file(b"f")],
            b"/srv/www/a": [made.file(b"g.txt")],
            b"/srv/www/a.b": [made.file(b"h.log"), made.file(b"h.txt")],
        },
        roots=(b"/srv/www",),
    )
    made.add("etc", {b"/": [entry(b"etc")], b"/etc": [made.file(b"hosts")]}, roots=(b"/etc",))
    return made


def where(request: RestoreRequest, made: MemoryReader | None = None) -> list[tuple[bytes, list[bytes], bool]]:
    made = made or reader()
    return [
        (each.path, [entry.name for entry in each.entries], each.way)
        for tree in chosen(made, request)
        for each in placed(made, tree, request)
    ]


def test_each_source_goes_below_its_label_with_full_paths() -> None:
    assert where(RestoreRequest(snapshot="x", target=b"/t")) == [
        (b"www", [b"srv"], False),
        (b"www/srv", [b"www"], False),
        (b"www/srv/www", [b"a", b"a.b", b"f"], False),
        (b"www/srv/www/a", [b"g.txt"], False),
        (b"www/srv/www/a.b", [b"h.log", b"h.txt"], False),
        (b"etc", [b"etc"], False),
        (b"etc/etc", [b"hosts"], False),
    ]


def test_in_place_what_is_above_the_roots_is_only_the_way() -> None:
    assert where(RestoreRequest(snapshot="x", in_place=True, sources=("etc",))) == [
        (b"", [b"etc"], True),
        (b"etc", [b"hosts"], False),
    ]


def test_a_path_narrows_to_its_content_and_its_source() -> None:
    made = where(RestoreRequest(snapshot="x", target=b"/t", subtree=b"//srv/www/a.b/"))
    assert made == [(b"", [], False), (b"", [b"h.log", b"h.txt"], False)]


def test_a_path_in_place_keeps_the_way_to_it() -> None:
    assert where(RestoreRequest(snapshot="x", in_place=True, subtree=b"/srv/www/a")) == [
        (b"", [b"srv"], True),
        (b"srv", [b"www"], True),
        (b"srv/www", [b"a"], True),
        (b"srv/www/a", [b"g.txt"], False),
    ]


def test_patterns_narrow_to_what_they_select_and_the_way_to_it() -> None:
    assert where(RestoreRequest(snapshot="x", target=b"/t", patterns=("*.txt",))) == [
        (b"www", [b"srv"], True),
        (b"www/srv", [b"www"], True),
        (b"www/srv/www", [b"a"], True),
        (b"www/srv/www/a", [b"g.txt"], True),
        (b"www/srv/www", [b"a.b"], True),
        (b"www/srv/www/a.b", [b"h.txt"], True),
    ]


def test_a_pattern_and_a_path_hold_together() -> None:
    request = RestoreRequest(snapshot="x", target=b"/t", subtree=b"/srv/www", patterns=("h.*", "!*.log"))
    assert where(request) == [(b"", [b"a.b"], True), (b"a.b", [b"h.txt"], True)]


@pytest.mark.parametrize(
    ("wrong", "told"), [({"sources": ("x",)}, "no source x"), ({"subtree": b"/srv/www/zz"}, "/srv/www/zz")]
)
def test_what_the_snapshot_does_not_hold_is_an_error(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(RestoreError, match=told):
        where(RestoreRequest(snapshot="x", target=b"/t", **wrong))  # type: ignore[arg-type] # keywords of the request


@pytest.mark.parametrize(
    "folders",
    [
        [(b"/", [b"b", b"a"])],
        [(b"/", [b"a", b"a"])],
        [(b"/", [b"a"]), (b"/", [b"a"])],
        [(b"/a.b", []), (b"/a/b", [])],
        [(b"/", [b".."])],
        [(b"/a//b", [])],
        [(b"", [])],
    ],
)
def test_a_listing_that_is_none_is_refused(folders: list[tuple[bytes, list[bytes]]]) -> None:
    made = MemoryReader()
    made.add("s", {})
    made.sources["s"] = [Folder(path=path, entries=tuple(map(entry, names))) for path, names in folders]
    with pytest.raises(IntegrityError, match="can't be trusted"):
        where(RestoreRequest(snapshot="x", target=b"/t"), made)
