"""The cache knows what the last run knew, or nothing; no backup fails for it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from opsd.backup.cache import Cache, SourceCache

KEY = bytes(range(32))


@contextmanager
def rows(path: Path, key: bytes = KEY, *, label: str = "files", domain: int = 1) -> Iterator[SourceCache]:
    """One source's rows, not committed."""
    with closing(Cache(path, key)) as cache:
        yield cache.source(label, domain)


def night(path: Path, snapshot: str, hunks: dict[bytes, bytes], *, label: str = "files") -> None:
    """A whole run that kept these hunks, each with one part of the same key."""
    with closing(Cache(path, KEY)) as cache:
        source = cache.source(label, 1)
        for digest, value in hunks.items():
            source.keep(digest, [value], {digest: [value]})
        source.finish(snapshot)
        cache.commit()


def known(source: SourceCache, *digests: bytes) -> list[object]:
    return [source.snapshot, *(source.hunk(digest) for digest in digests), *(source.part(digest) for digest in digests)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache/files.sqlite"


@pytest.fixture
def kept(path: Path) -> Path:
    """What one run kept."""
    night(path, "first", {b"a": b"1", b"b": b"2"})
    return path


NOTHING = ["", None, None, None, None]
ALL = ["first", [b"1"], [b"2"], [b"1"], [b"2"]]


class TestKeeping:
    def test_what_a_run_kept_is_known_to_the_next(self, kept: Path) -> None:
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ALL

    def test_what_a_run_did_not_use_is_dropped(self, kept: Path) -> None:
        with closing(Cache(kept, KEY)) as cache:
            source = cache.source("files", 1)
            assert source.hunk(b"a") == [b"1"]
            source.finish("second")
            cache.commit()
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ["second", [b"1"], None, [b"1"], None]

    def test_a_hunk_that_can_not_be_used_again_keeps_its_parts(self, path: Path) -> None:
        with closing(Cache(path, KEY)) as cache:
            source = cache.source("files", 1)
            source.keep(b"h", None, {b"p": [b"part"]})
            source.finish("first")
            cache.commit()
        with rows(path) as source:
            assert source.hunk(b"h") is None
            assert source.part(b"p") == [b"part"]

    def test_a_run_that_does_not_end_leaves_what_was_known(self, kept: Path) -> None:
        with rows(kept) as source:
            source.keep(b"a", [b"other"], {b"a": [b"other"]})
            source.finish("second")
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ALL

    def test_a_source_that_failed_is_forgotten_and_the_others_are_not(self, kept: Path) -> None:
        with closing(Cache(kept, KEY)) as cache:
            good = cache.source("good", 1)
            good.keep(b"g", [b"good"], {})
            bad = cache.source("files", 1)
            bad.keep(b"a", [b"bad"], {b"a": [b"bad"]})
            bad.undo()
            good.finish("second")
            cache.commit()
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ALL
        with rows(kept, label="good") as source:
            assert (source.snapshot, source.hunk(b"g")) == ("second", [b"good"])


class TestOthers:
    @pytest.mark.parametrize("other", [{"label": "else"}, {"domain": 2}, {"key": bytes(32)}])
    def test_another_source_domain_or_key_knows_nothing(self, kept: Path, other: dict[str, object]) -> None:
        with rows(kept, **other) as source:  # type: ignore[arg-type]
            assert known(source, b"a", b"b") == NOTHING

    def test_another_way_of_reading_gives_other_hashes(self, path: Path) -> None:
        with closing(Cache(path, KEY)) as cache:
            sources = [cache.source("files", 1) for _ in range(3)]
            sources[1].depend_on(b"databases as images")
            sources[2].depend_on(b"databases as files")
            assert len({source.hash(b"x") for source in sources}) == 3

    def test_a_second_run_reads_what_was_known_and_writes_nothing(self, kept: Path) -> None:
        with closing(Cache(kept, KEY)) as first, rows(kept) as second:
            source = first.source("files", 1)
            source.keep(b"a", [b"new"], {b"a": [b"new"]})
            second.keep(b"b", [b"never"], {b"b": [b"never"]})
            assert known(second, b"a", b"b") == ALL
            source.finish("second")
            first.commit()
            # What it read first, it goes on to read: rows of two snapshots are never mixed.
            assert known(second, b"a", b"b") == ALL
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ["second", [b"new"], None, [b"new"], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def overwrite(path: Path) -> None:
    path.write_bytes(b"nonsense" * 3000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_the_second_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))


def age(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE parts; DROP TABLE hunks; CREATE TABLE hunks (source, digest, old); PRAGMA user_version = 1;"
        )


def drop_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE hunks;")


class TestHarm:
    @pytest.mark.parametrize("harm", [cut, overwrite, empty, age])
    def test_a_damaged_or_older_file_is_made_anew(self, kept: Path, harm: object) -> None:
        harm(kept)  # type: ignore[operator]
        with rows(kept) as source:
            assert known(source, b"a", b"b") == NOTHING
        night(kept, "second", {b"a": b"1"})
        with rows(kept) as source:
            assert known(source, b"a") == ["second", [b"1"], [b"1"]]

    @pytest.mark.parametrize("harm", [spoil_the_second_half, drop_a_table])
    def test_what_is_damaged_within_gives_nothing_wrong(self, kept: Path, harm: object) -> None:
        harm(kept)  # type: ignore[operator]
        with rows(kept) as source:
            found = known(source, b"a", b"b")
        assert all(each in (right, nothing) for each, right, nothing in zip(found, ALL, NOTHING, strict=True))
        night(kept, "second", {b"a": b"1"})

    @pytest.mark.parametrize("table, column", [("hunks", "value"), ("parts", "value"), ("sources", "snapshot")])
    def test_a_row_that_was_altered_is_not_used(self, kept: Path, table: str, column: str) -> None:
        with closing(sqlite3.connect(kept, isolation_level=None)) as connection:
            for rowid, value in connection.execute(f"SELECT {_key(table)}, {column} FROM {table}").fetchall():
                altered = value[:-1] + bytes([value[-1] ^ 1])
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {_key(table)} = ?", (altered, rowid))
        with rows(kept) as source:
            found = known(source, b"a", b"b")
        assert (
            found
            == {
                "hunks": ["first", None, None, [b"1"], [b"2"]],
                "parts": ["first", [b"1"], [b"2"], None, None],
                "sources": ["", [b"1"], [b"2"], [b"1"], [b"2"]],
            }[table]
        )

    @pytest.mark.parametrize("place", ["file", "folder above"])
    def test_where_there_can_be_none_a_run_goes_on_without(self, path: Path, place: str) -> None:
        if place == "file":
            (path / "in the way").mkdir(parents=True)
        else:
            path.parent.write_bytes(b"a file where a folder should be")
        night(path, "first", {b"a": b"1"})
        with rows(path) as source:
            assert known(source, b"a") == ["", None, None]

    def test_a_run_that_could_not_write_one_row_keeps_none(self, kept: Path) -> None:
        with closing(Cache(kept, KEY)) as cache:
            pages = cache.execute("PRAGMA page_count").fetchone()[0]
            source = cache.source("files", 1)
            source.keep(b"a", [b"new"], {b"a": [b"new"]})
            cache.execute(f"PRAGMA max_page_count = {pages + 1}")  # As if the disk were full
            source.keep(b"b", [bytes(200_000)], {})
            assert not cache.writable
            source.keep(b"c", [b"after"], {b"c": [b"after"]})
            source.finish("second")
            cache.commit()
            assert known(source, b"a", b"b") == NOTHING
        with rows(kept) as source:
            assert known(source, b"a", b"b") == ALL
            assert source.part(b"c") is None


def _key(table: str) -> str:
    return {"hunks": "id", "parts": "key", "sources": "source"}[table]
