"""What SQLite itself says of a restored database, and what it answers."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from opsd.verify.sqlite_files import answer, problems


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def made(path: Path, statements: Sequence[str] = ()) -> bytes:
    execute(path, "CREATE TABLE t (a)", "CREATE INDEX i ON t (a)", "INSERT INTO t VALUES (1)", *statements)
    return os.fsencode(path)


def test_a_sound_database_has_no_problems_and_no_file_is_made_beside_it(tmp_path: Path) -> None:
    path = made(tmp_path / "a?b#c.db", ["PRAGMA journal_mode = WAL"])
    assert problems(path, {"tables": {"t": 1}}) == []
    assert answer(path, "SELECT count(*) FROM t", 5.0) == [(1,)]
    assert [each.name for each in tmp_path.iterdir()] == ["a?b#c.db"]


def test_a_row_that_its_index_lacks_is_found(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    unsafe = "PRAGMA writable_schema = ON"
    execute(tmp_path / "a.db", unsafe, "DELETE FROM sqlite_master WHERE name = 'i'")
    execute(tmp_path / "a.db", "INSERT INTO t VALUES (2)")
    execute(
        tmp_path / "a.db",
        unsafe,
        "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES ('index', 'i', 't', 3, 'CREATE INDEX i ON t (a)')",
    )
    assert any("missing from index i" in each for each in problems(path, {}))


def test_what_is_no_database_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(4080))
    assert len(problems(os.fsencode(path), {})) == 1


def test_a_question_may_not_write(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        answer(path, "DELETE FROM t", 5.0)


def test_a_question_makes_no_other_file(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    with pytest.raises(sqlite3.OperationalError, match="too many attached"):
        answer(path, f"ATTACH '{tmp_path}/b.db' AS b", 5.0)
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"]
