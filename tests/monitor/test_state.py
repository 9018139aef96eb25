"""What ran, as it is kept."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from opsd.clock import DAY
from opsd.errors import StorageError
from opsd.monitor.state import Run, State, begun, living

NOW = 1_800_000_000_000_000_000


def run(name: str, **given: object) -> Run:
    return Run(**({"id": name, "job": "backup", "cause": "daemon", "started": NOW} | given))  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_was_put(tmp_path: Path) -> None:
    kept = run("a", slot=5, ended=NOW + 9, outcome="failed", exit_code=1, error="e", hint="h", files=3, bytes=4)
    kept = Run(
        **(
            {name: getattr(kept, name) for name in Run.__dataclass_fields__}
            | {"details": {"n": 1}, "stages": (("s", 0.5),)}
        )
    )
    with State.open(tmp_path, NOW) as state:
        state.put([kept])
    with State.open(tmp_path, NOW) as state:
        assert state.runs() == [kept]
        assert state.runs("copy") == []


def test_a_run_whose_process_is_gone_was_interrupted_and_one_that_lives_runs(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state:
        state.put([run("a")])
        with living(tmp_path, "a"):
            assert [each.outcome for each in state.runs()] == ["running"]
        assert [each.outcome for each in state.runs()] == ["interrupted"]


def test_the_last_success_is_kept_apart_from_the_last_attempt(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state:
        state.put([run("a", outcome="done"), run("b", started=NOW + 1, outcome="failed")])
        state.put([run("c", started=NOW + 2, outcome="done", part=True)])
        good = state.newest_good("backup")
        assert good is not None
        assert good.id == "a"
        assert [each.id for each in state.runs("backup")] == ["c", "b", "a"]


@pytest.mark.parametrize("content", [b"garbage" * 999, b"SQLite format 3\0" + b"x" * 8000])
def test_what_is_no_database_is_put_aside_and_begun_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(content)
    with State.open(tmp_path, NOW) as state:
        assert state.is_new
        assert state.since == NOW
        state.put([run("a")])
    (aside,) = tmp_path.glob("state.sqlite.damaged-*")
    assert aside.read_bytes() == content


def test_a_state_that_was_removed_is_noticed_by_who_has_it_open(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state:
        assert state.is_there()
        (tmp_path / "state.sqlite").unlink()
        assert not state.is_there()


def test_a_folder_that_can_not_be_written_to_is_told_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written") as caught:
        State.open(tmp_path / "file" / "state", NOW)
    assert caught.value.hint


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state:
        state._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StorageError, match="full"):
            state.put(run(f"r{number}", error="x" * 400) for number in range(500))


def test_what_is_older_than_two_years_is_forgotten_and_the_rest_is_not(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state:
        state.put(
            [run("old", started=NOW - 801 * DAY), run("a"), run("look", job="self-check", started=NOW - 31 * DAY)]
        )
        state.forget(NOW)
        assert [each.id for each in state.runs()] == ["a"]


def test_another_process_that_writes_is_noticed(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW) as state, State.open(tmp_path, NOW) as other:
        before = state.changes
        assert state.changes == before
        other.put([run("a")])
        assert state.changes != before


def test_the_daemon_tells_a_run_which_due_time_it_answers() -> None:
    told = {"OPSD_RUN_ID": "x", "OPSD_RUN_SLOT": "7", "OPSD_RUN_ATTEMPT": "2"}
    made = begun("copy", NOW, told)
    assert (made.id, made.slot, made.attempt, made.cause) == ("x", 7, 2, "daemon")
    assert begun("copy", NOW, {}).cause == "person"
    assert str(f"{os.getpid():x}") in begun("copy", NOW, {}).id


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with State.open(tmp_path, NOW):
        assert (tmp_path / "state.sqlite").stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
