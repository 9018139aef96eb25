"""One look of the daemon after the other, where the state can't be written, is lost, or comes back."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from opsd.clock import DAY, SECOND, FixedClock
from opsd.daemon.keeper import Keeper
from opsd.daemon.schedule import Start
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
        code = 0 if outcome == "done" else 1
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


def case(folder: Path) -> Case:
    settings = Settings(
        repository="/r",
        state=folder,
        sources=(SourceSettings(label="a", options=FilesSource(paths=("/a",))),),
    )
    clock = FixedClock(NOON)
    with State.open(folder, NOON) as state:
        state.remember("since", 0, NOON - DAY)
    return Case(folder=folder, clock=clock, keeper=Keeper(settings, clock), starter=Starter())


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


def test_a_state_that_is_removed_under_the_daemon_is_begun_anew_and_said(tmp_path: Path) -> None:
    lost = case(tmp_path)
    lost.tick()
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    lost.tick(minutes=1)
    assert "state.lost" in lost.keeper.trouble
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
