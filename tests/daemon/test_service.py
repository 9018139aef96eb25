"""The daemon as a process: what it starts, how it stops, and what it does with what goes wrong."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd.clock import DAY
from opsd.monitor.state import Run, State
from tests.support.command_line import Desk, Ran

SECONDS = 60.0


class Daemon:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not what():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            threading.Event().wait(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


class Site:
    """A host with one small source and a copy, its repository made and its state two days old, so that all is due."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "opsd.yaml"
        (folder / "www").mkdir()
        (folder / "www/a.txt").write_text("a")
        (folder / "pass").write_text("a passphrase")
        (folder / "pass").chmod(0o600)
        self.configure()
        assert self.opsd("init").code == 0
        with State.open(self.state, time.time_ns()) as state:
            state.remember("since", 0, time.time_ns() - 2 * DAY)

    def configure(self, more: str = "", sources: str = "") -> None:
        folder = self.folder
        self.file.write_text(
            f"repository: {folder}/repo\nstate: {self.state}\ntimezone: Europe/Paris\npassphrase: {{file: {folder}/pass}}\n"
            f"metrics: {{listen: off}}\ncopies: {{disk: {{folder: {folder}/copy}}}}\n"
            f"sources:\n  www: {{files: {{paths: [{folder}/www]}}}}\n{sources}{more}"
        )

    def opsd(self, *arguments: str) -> Ran:
        return Desk(folder=self.folder).run("-c", self.file.name, *arguments)

    @contextmanager
    def daemon(self, **environment: str) -> Iterator[Daemon]:
        log = self.folder / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                # The configuration is named from where one stands; jobs stand elsewhere.
                [sys.executable, "-m", "opsd", "-c", self.file.name, "daemon"],
                cwd=self.folder,
                stdout=file,
                stderr=file,
                text=True,
                env=os.environ | environment,
            )
            try:
                yield Daemon(process, log)
            finally:
                process.kill()
                process.wait()

    def runs(self, job: str) -> list[Run]:
        with State.open(self.state, time.time_ns()) as state:
            return state.runs(job)

    def has(self, job: str, outcome: str) -> bool:
        return any(run.outcome == outcome for run in self.runs(job))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_what_was_due_is_caught_up_with_once_and_the_rest_follows(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.has("prune", "done") and site.has("check", "done"))
        assert daemon.stop() == 0
        assert "daemon stopped" in daemon.said()
    (copied,) = (run for run in site.runs("copy") if run.is_good)
    (backed,) = (run for run in site.runs("backup") if run.is_good)
    assert backed.cause == "daemon"
    assert backed.slot > 0
    assert copied.slot == backed.ended
    assert site.has("backup", "missed")  # The night before that one.
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said())
        daemon.stop()
    assert len([run for run in site.runs("backup") if run.is_good]) == 1


def test_a_second_daemon_on_one_state_folder_is_sent_away(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said())
        second = site.opsd("daemon")
        assert second.code == 75
        assert f"another opsd daemon (process {daemon.process.pid}) works on {site.state}" in second.err


def test_a_run_that_the_daemon_stopped_goes_on_at_its_next_start(site: Site) -> None:
    site.configure(sources="  slow: {command: {run: [sleep, '30'], name: slow.txt}}\n")
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.has("backup", "running"))
        assert daemon.stop() == 0
    assert next(run.outcome for run in site.runs("backup") if run.slot) == "stopped"
    site.configure()
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.has("backup", "done"))
    done = next(run for run in site.runs("backup") if run.is_good)
    assert done.attempt == 2


def test_a_mistake_in_a_changed_configuration_is_told_and_the_old_one_stays(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said())
        site.configure(more="retention: {keep_dayly: 30}\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: "the changed configuration has mistakes" in daemon.said())
        assert "did you mean keep_daily?" in daemon.said()
        site.configure(more="retention: {keep_daily: 30}\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(lambda: "configuration taken" in daemon.said())
        assert daemon.stop() == 0


def test_a_state_that_is_no_database_is_put_aside_and_the_daemon_works(site: Site) -> None:
    for name in site.state.glob("state.sqlite*"):
        name.write_bytes(b"garbage" * 1000)
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said() and bool(list(site.state.glob("*.damaged-*"))))
        assert daemon.stop() == 0


def test_a_page_damaged_within_the_state_is_noticed_at_the_start(site: Site) -> None:
    with State.open(site.state, time.time_ns()) as state:
        state.put(Run(id=f"r{number}", job="backup", cause="person", started=number + 1) for number in range(2000))
    with closing(sqlite3.connect(site.state / "state.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (site.state / "state.sqlite").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(3 * 4096))
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said() and bool(list(site.state.glob("*.damaged-*"))))


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def faked(text: str) -> dict[str, str]:
    """The environment of a process for which it is that time in Paris, and goes on as time does."""
    then = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris")).timestamp()
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{then - time.time():+.0f}s", "DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.slow
@pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's libfaketime")
def test_at_four_by_the_clock_on_the_wall_it_begins_also_on_the_day_summer_time_ends(site: Site) -> None:
    with State.open(site.state, time.time_ns()) as state:
        at_noon = int(datetime.fromisoformat("2027-10-30 12:00+02:00").timestamp() * 1e9)
        state.remember("since", 0, at_noon)
    with site.daemon(**faked("2027-10-31 03:59:54")) as daemon:
        daemon.wait_for(lambda: site.has("backup", "done"))
    (run,) = (run for run in site.runs("backup") if run.is_good)
    assert run.slot == int(datetime.fromisoformat("2027-10-31 04:00+01:00").timestamp() * 1e9)
    assert 0 <= run.started - run.slot < 30e9


@pytest.mark.slow
@pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's libfaketime")
def test_a_day_later_one_run_is_caught_up_with(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.has("backup", "done"))
        daemon.stop()
    tomorrow = datetime.fromtimestamp(time.time() + 86_400, ZoneInfo("Europe/Paris")).isoformat(timespec="seconds")
    with site.daemon(**faked(tomorrow[:19])) as daemon:
        daemon.wait_for(lambda: len([run for run in site.runs("backup") if run.is_good]) == 2)


def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops(site: Site, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(SECONDS)
        with site.daemon(NOTIFY_SOCKET=str(tmp_path / "notify")) as daemon:
            heard = listener.recv(4096).decode()
            assert "READY=1" in heard
            assert "WATCHDOG=1" in listener.recv(4096).decode()
            daemon.process.send_signal(signal.SIGHUP)
            while "RELOADING=1" not in heard:
                heard = listener.recv(4096).decode()
            assert "MONOTONIC_USEC=" in heard
            daemon.process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard = listener.recv(4096).decode()


def test_a_pause_starts_nothing_and_what_was_due_is_caught_up_with_at_its_end(site: Site) -> None:
    assert site.opsd("pause", "--until", "2099-01-01", "--reason", "moving house").code == 0
    with site.daemon() as daemon:
        daemon.wait_for(lambda: "daemon started" in daemon.said())
        threading.Event().wait(1)
        assert site.runs("backup") == []
        assert site.opsd("pause", "--end").code == 0
        daemon.process.send_signal(signal.SIGHUP)  # Wakes it.
        daemon.wait_for(lambda: site.has("backup", "done"))
    assert "pause" in site.opsd("ledger", "show").text


def test_idle_it_takes_little_memory_and_imports_no_far_stores(site: Site) -> None:
    with site.daemon() as daemon:
        daemon.wait_for(lambda: site.has("prune", "done") and site.has("check", "done"))
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        rss = int(status.partition("VmRSS:")[2].split()[0])
        assert rss < 80 * 1024
        maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
        assert "nacl" not in maps  # Comes with paramiko.
    code = "import opsd.daemon.command, sys; print(sorted({'boto3', 'paramiko', 'apprise'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
