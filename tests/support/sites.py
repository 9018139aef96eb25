"""A host as its configuration states it, worked on in this process: backups, copies, checks and drills without a command line."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsd.app.backups import BackupRequest, back_up
from opsd.app.copying import fill, routes
from opsd.app.creating import initialise
from opsd.app.drills import drill
from opsd.app.healing import check_copy
from opsd.app.observing import observe
from opsd.app.recording import recorded
from opsd.app.session import Access, Session
from opsd.app.slices import remember
from opsd.app.upkeep import check, sample
from opsd.clock import Clock, SystemClock
from opsd.events import Recorder
from opsd.monitor.observed import Observed
from tests.support.command_line import PASSPHRASE


@dataclass(frozen=True, slots=True)
class Site:
    """A host `web1` with a source `www`, a copy `disk` and a copy `tape` on folders below one."""

    folder: Path
    file: str = "opsd.yaml"
    clock: Clock | None = None

    @classmethod
    def new(cls, folder: Path, more: str = "") -> "Site":
        """One with a tree and a configuration, and nothing else yet."""
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "hello").write_text("hello\n")
        (folder / "passphrase").write_text(PASSPHRASE)
        (folder / "passphrase").chmod(0o600)
        (folder / "opsd.yaml").write_text(
            f"timezone: UTC\nhost: web1\nrepository: {folder}/repository\nstate: {folder}/state\n"
            f"passphrase: {{file: {folder}/passphrase}}\nsources: {{www: {{files: {{paths: [{folder}/data]}}}}}}\n"
            f"copies: {{disk: {{folder: {folder}/disk}}, tape: {{folder: {folder}/tape}}}}\n{more}"
        )
        return cls(folder)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(
            Access(configuration=str(self.folder / self.file)), Recorder(), self.clock or SystemClock()
        ) as session:
            yield session

    def init(self) -> None:
        with self.session() as session:
            initialise(session)

    def backup(self) -> None:
        """One snapshot, with one more file in it, that leaves its run."""
        with self.session() as session, recorded(session, "backup") as record:
            (self.folder / "data" / f"file{session.clock.now()}").write_text("more\n")
            record.note(snapshot=back_up(session, BackupRequest()).snapshot.id)

    def copy(self, *names: str) -> None:
        with self.session() as session:
            for route in routes(session, names, ()):
                assert fill(session, route).error is None

    def check(self, copy: str | None = None) -> None:
        with Session(Access(configuration=str(self.folder / self.file), copy=copy), Recorder()) as session:
            remember(session, check_copy(session) if copy else check(session, sample(1.0)), is_slice=False)

    def drill(self, copy: str) -> None:
        with Session(Access(configuration=str(self.folder / self.file), copy=copy), Recorder()) as session:
            assert drill(session, seed=False, shown=str).verdict == "green"

    def observed(self, before: Observed | None = None, seconds: float | None = None) -> Observed:
        with self.session() as session:
            return observe(session, before=before, seconds=seconds)

    def snapshots(self, place: str = "repository") -> list[Path]:
        """The files of the manifests, oldest first."""
        return sorted(path for path in (self.folder / place / "snapshots").rglob("*") if path.is_file())


class Keeper:
    """Gives a site back as it was first made, at the same path; `whole` to those who only look at it."""

    def __init__(self, folder: Path) -> None:
        self._kept = folder.with_name("kept")
        self._folder = folder
        self._is_touched = False
        shutil.copytree(folder, self._kept, symlinks=True)

    def whole(self) -> Site:
        if self._is_touched:
            shutil.rmtree(self._folder)
            shutil.copytree(self._kept, self._folder, symlinks=True)
        self._is_touched = False
        return Site(self._folder)

    def touched(self) -> Site:
        site = self.whole()
        self._is_touched = True
        return site
