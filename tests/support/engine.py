"""A repository to try things on: a store, a host's state and a clock, with backup and restore in one call each."""

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from opsd.backup.about import About
from opsd.backup.snapshot import Backup, Labels, Planned, Report
from opsd.backup.streams import StreamBackup
from opsd.backup.tree import TreeBackup
from opsd.backup.work import Job, Result
from opsd.clock import Clock, FixedClock
from opsd.events import Recorder
from opsd.model import Entry, EntryType
from opsd.repository.local import HostState
from opsd.repository.opening import NewRepository, Unlock, create
from opsd.repository.repository import Repository, Surroundings
from opsd.repository.settings import Parameters
from opsd.sources.files import FileTree
from opsd.sources.options import FilesSource
from opsd.sources.protocol import StreamSource
from opsd.storage.memory import MemoryStore
from opsd.storage.protocol import Store

#: Small sizes, so that small trees make several frames and packs.
SMALL = Parameters(
    pack_bytes=256 * 1024,
    frame_bytes=16 * 1024,
    cut_min=4 * 1024,
    cut_average=16 * 1024,
    cut_max=64 * 1024,
    cut_seed=7,
    page_bytes=4096,
)
START = 1_700_000_000_000_000_000
PASSPHRASE = b"correct horse"


@dataclass(slots=True)
class World:
    """One host with one repository. `folder` holds its state and cache."""

    folder: Path
    store: Store
    clock: Clock
    kit: str = ""
    recorder: Recorder = field(default_factory=Recorder)

    @classmethod
    def new(
        cls,
        folder: Path,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        parameters: Parameters = SMALL,
        passphrase: bytes | None = None,
    ) -> "World":
        """A new repository, by default in memory and with a clock that stands still."""
        clock = clock or FixedClock(START)
        world = cls(folder=folder, store=store or MemoryStore(clock), clock=clock)
        created = create(
            world.store, NewRepository(host="host", parameters=parameters, passphrase=passphrase), world.state, clock
        )
        world.kit = created.kit.text()
        HostState(folder / "escrow").write_keys(created.ring)
        world._ring = created.ring
        return world

    _ring: object = None

    @property
    def state(self) -> HostState:
        """The host's state folder."""
        return HostState(self.folder / "state")

    def surroundings(self) -> Surroundings:
        """Where the engine runs."""
        return Surroundings(
            state=self.state, cache=self.folder / "cache", clock=self.clock, reporter=self.recorder, host="host"
        )

    def open(self, *, reader: bool = False) -> Repository:
        """With the host's keys; as a reader with all of them."""
        repository = Repository.open(self.store, self.surroundings(), Unlock(), writer=True)
        if reader:
            place = repository.place
            ring = place.ring.joined(self._ring)  # type: ignore[arg-type]
            repository = Repository(
                type(place)(
                    store=place.store,
                    ring=ring,
                    settings=place.settings,
                    index_cache=place.index_cache,
                    reporter=place.reporter,
                ),
                self.surroundings(),
            )
        return repository

    def backup(
        self, *planned: Planned, job: str = "all", tags: tuple[str, ...] = (), next_run: int | None = None
    ) -> Report:
        """One run of these sources."""
        labels = Labels(host="host", job=job, zone="UTC", version="0", tags=tags, next_run=next_run)
        return Backup(self.open(), labels, About(configuration=b"version: 1\n")).run(planned)

    def contents(self, snapshot: str = "latest") -> dict[str, bytes]:
        """Every file of a snapshot: `label:path` to its bytes."""
        repository = self.open(reader=True)
        reader = repository.reader(repository.find(snapshot))
        found: dict[str, bytes] = {}
        for tree in reader.trees():
            entries = [
                (
                    f"{tree.label}:{(folder.path.rstrip(b'/') + b'/' + entry.name).decode('utf-8', 'surrogateescape')}",
                    entry,
                )
                for folder in reader.folders(tree)
                for entry in folder.entries
                if entry.type is EntryType.FILE
            ]
            sizes = {key: entry.size for key, entry in entries}
            for key, pieces in reader.contents(entries):
                whole = bytearray(sizes[key])
                for offset, view in pieces:
                    whole[offset : offset + len(view)] = view
                found[key] = bytes(whole)
        return found

    def entries(self, snapshot: str = "latest") -> dict[str, Entry]:
        """Every entry of a snapshot: `label:path` to it."""
        repository = self.open(reader=True)
        reader = repository.reader(repository.find(snapshot))
        return {
            f"{tree.label}:{(folder.path.rstrip(b'/') + b'/' + entry.name).decode('utf-8', 'surrogateescape')}": entry
            for tree in reader.trees()
            for folder in reader.folders(tree)
            for entry in folder.entries
        }


def files(root: Path, label: str = "files", **options: object) -> Planned:
    """A files source over one root."""
    chosen = FilesSource(paths=(str(root),), **options)  # type: ignore[arg-type]

    def work(job: Job) -> Result:
        return TreeBackup(job, FileTree(job.label, chosen, job.reporter), chosen, lambda *_: nullcontext()).back_up()

    return Planned(label=label, kind="files", work=work)


def streams(source: StreamSource) -> Planned:
    """A source of streams."""
    work: Callable[[Job], Result] = lambda job: StreamBackup(job, source, source.kind).back_up()  # noqa: E731
    return Planned(label=source.label, kind=source.kind, work=work)


def make_tree(root: Path, content: Mapping[str, bytes]) -> Path:
    """Files below a root: relative path to bytes."""
    for name, each in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each)
    return root


def way_to(tree: Path) -> list[tuple[int, ...]]:
    """What is listed of the folders above a tree and can change: others may write in /tmp at any time."""
    found = [os.lstat(above) for above in tree.parents]
    return [(each.st_mtime_ns, each.st_ctime_ns, each.st_size, each.st_nlink) for each in found]
