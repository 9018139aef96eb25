"""One look of the daemon after the other, where the state can't be written, is lost, or comes back."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from opsd.app.pausing import pause
from opsd.clock import DAY, SECOND, FixedClock
from opsd.daemon.keeper import Keeper
from opsd.daemon.schedule import Start
from opsd.daemon.service import only_one
from opsd.errors import TryLater
from opsd.monitor.deadlines import HOUR
from opsd.monitor.health import Pause
from opsd.monitor.state import Run, State
from opsd.settings import Settings
from opsd.sources.options import FilesSource, SourceSettings

NOON = 1_795_694_400 * SECOND
MINUTE = 60 * SECOND


@dataclass
class Starter:
    """Starts nothing, and knows what it was told to start."""

    started: list[Start] = field(default_factory=list)
    jobs: frozenset[str] = frozenset()

    def start(self, start: Start) -> bool:
        self.started.append(start)
        return True

    def of(self, job: str) -> list[Start]:
        return [start for start in self.started if start.job == job]


@dataclass
class Case:
    folder: Path
    clock: FixedClock
    keeper: Keeper
    starter: Starter

    def tick(self, minutes: int = 0) -> None:
        self.clock.advance(minutes * MINUTE)
        self.keeper.tick(self.starter)

    def end(self, start: Start, outcome: str = "done") -> None:
        now = self.clock.now()
        code = {"done": 0, "refused": 2}.get(outcome, 1)
        self.keeper.ended(
            Run(
                id=f"{start.job}{start.attempt}",
                job=start.job,
                cause="daemon",
                slot=start.slot,
                attempt=start.attempt,
                started=now - MINUTE,
                ended=now,
                outcome=outcome,
                exit_code=code,
            )
        )


def settings_of(folder: Path) -> Settings:
    return Settings(
        repository="/r",
        state=folder,
        sources=(SourceSettings(label="a", options=FilesSource(paths=("/a",))),),
    )


def case(folder: Path) -> Case:
    clock = FixedClock(NOON)
    with State.open(folder, NOON) as state:
        state.remember("since", 0, NOON - DAY)
    return Case(folder=folder, clock=clock, keeper=Keeper(settings_of(folder), clock), starter=Starter())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("no right to mount")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_starts_nothing_twice_and_what_ended_is_written_once_there_is_room(small_disk: Path) -> None:
    full = case(small_disk)
    full.tick()
    full.starter.started.clear()
    filler = fill(small_disk)
    full.tick(minutes=24 * 60)
    (start,) = full.starter.of("backup")
    full.end(start)
    for _ in range(5):
        full.tick(minutes=1)
    assert len(full.starter.of("backup")) == 1
    assert "state.unwritable" in full.keeper.trouble
    assert full.keeper.trouble["state.unwritable"].hint
    filler.unlink()
    full.tick(minutes=1)
    assert "state.unwritable" not in full.keeper.trouble
    with State.open(small_disk, full.clock.now()) as state:
        assert [run.outcome for run in state.runs("backup") if run.slot == start.slot] == ["done"]
    full.keeper.close()


def test_a_failure_on_a_full_disk_is_tried_again_after_its_pause(small_disk: Path) -> None:
    full = case(small_disk)
    full.tick()
    full.starter.started.clear()
    fill(small_disk)
    full.tick(minutes=24 * 60)
    full.end(full.starter.of("backup")[0], "failed")
    full.tick(minutes=14)
    assert len(full.starter.of("backup")) == 1
    full.tick(minutes=2)
    assert [start.attempt for start in full.starter.of("backup")] == [1, 2]
    full.keeper.close()


def test_a_state_that_began_by_a_clock_far_ahead_holds_back_no_night(tmp_path: Path) -> None:
    early = case(tmp_path)
    with State.open(tmp_path, NOON) as state:
        state.remember("since", 0, NOON + 365 * DAY)
    early.tick()
    early.tick(minutes=24 * 60)
    assert [start.attempt for start in early.starter.of("backup")] == [1]
    early.keeper.close()


def test_a_mended_configuration_is_taken_as_the_cause_to_try_again(tmp_path: Path) -> None:
    mended = case(tmp_path)
    mended.tick()
    mended.end(mended.starter.of("backup")[0], "refused")
    mended.tick(minutes=1)
    assert len(mended.starter.of("backup")) == 1
    mended.clock.advance(MINUTE)
    mended.keeper.take(settings_of(tmp_path))
    mended.tick()
    assert [start.attempt for start in mended.starter.of("backup")] == [1, 2]
    mended.keeper.close()


def test_a_state_that_is_removed_under_the_daemon_is_begun_anew_and_said(tmp_path: Path) -> None:
    lost = case(tmp_path)
    lost.tick()
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    lost.tick(minutes=1)
    assert "state.lost" in lost.keeper.trouble
    lost.tick(minutes=23 * 60)
    assert "state.lost" in lost.keeper.trouble
    lost.tick(minutes=60)
    assert "state.lost" not in lost.keeper.trouble
    assert (tmp_path / "state.sqlite").exists()
    lost.keeper.close()


def test_what_a_job_told_of_itself_counts_more_than_how_its_process_ended(tmp_path: Path) -> None:
    told = case(tmp_path)
    told.tick()
    (start,) = told.starter.of("backup")
    with State.open(tmp_path, NOON) as state:
        state.put(
            [
                Run(
                    id="backup1",
                    job="backup",
                    cause="daemon",
                    slot=start.slot,
                    started=NOON,
                    ended=NOON + 1,
                    outcome="warnings",
                )
            ]
        )
    told.end(start, "failed")
    told.tick(minutes=1)
    with State.open(tmp_path, NOON) as state:
        assert [run.outcome for run in state.runs("backup") if run.id == "backup1"] == ["warnings"]
    told.keeper.close()


def test_a_folder_that_can_not_be_written_at_all_stops_no_job(tmp_path: Path) -> None:
    odd = case(tmp_path / "state")
    odd.tick()
    odd.keeper.close()
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("a file")
    before = len(odd.starter.started)
    odd.tick(minutes=24 * 60)
    assert len(odd.starter.started) > before
    assert "state.unwritable" in odd.keeper.trouble
    assert os.path.isfile(tmp_path / "state")


def test_a_pause_holds_also_while_the_state_can_not_be_read(tmp_path: Path) -> None:
    paused = case(tmp_path)
    with State.open(tmp_path, NOON) as state:
        pause(state, Pause(until=NOON + 2 * DAY, reason="moving"), NOON)
    paused.tick()
    (tmp_path / "state.sqlite").rename(tmp_path / "moved")
    (tmp_path / "state.sqlite").mkdir()
    paused.tick(minutes=24 * 60)
    assert "state.unwritable" in paused.keeper.trouble
    assert paused.starter.started == []
    paused.keeper.close()


def test_the_daemon_holds_its_folder_also_where_the_disk_is_full(small_disk: Path) -> None:
    fill(small_disk)
    with only_one(small_disk), pytest.raises(TryLater), only_one(small_disk):
        pass


def test_a_daemon_that_starts_on_a_full_disk_knows_what_was_done_and_tells_that_it_is_full(small_disk: Path) -> None:
    full = case(small_disk)
    with State.open(small_disk, NOON) as state:
        state.put([Run(id="b", job="backup", cause="daemon", started=NOON - HOUR, ended=NOON, outcome="done")])
    for path in small_disk.glob("state.sqlite-*"):
        path.unlink()
    fill(small_disk)
    look = full.keeper.tick(full.starter)
    assert full.starter.of("backup") == []
    assert full.starter.of("prune")
    assert look
    assert "state.unwritable" in look.trouble
    assert [run.id for run in look.state.runs("backup")] == ["b"]
    full.keeper.close()


def test_what_stands_is_looked_at_anew_when_a_configuration_was_taken_and_only_once(tmp_path: Path) -> None:
    taken = case(tmp_path)

    def looks(minutes: int) -> list[int]:
        found = []
        for _ in range(minutes):
            taken.starter.started.clear()
            taken.tick(minutes=1)
            found.append(len(taken.starter.of("self-check")))
            for start in taken.starter.of("self-check"):
                taken.end(replace(start, attempt=taken.clock.now()))  # Each run has a name of its own.
        return found

    assert looks(3) == [1, 0, 0]
    taken.keeper.take(taken.keeper._settings)
    assert looks(3) == [1, 0, 0]
    taken.clock.advance(-DAY)
    assert looks(4)[2:] == [0, 0]
    taken.keeper.close()
