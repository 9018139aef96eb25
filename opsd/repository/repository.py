"""The small face of the engine: open a repository, list snapshots, read one, begin a run.

Promise: everything returned was verified; what can't be read is reported, never silently left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from opsd.clock import DAY, SECOND, Clock
from opsd.errors import IntegrityError, ObjectDamaged, ObjectNotFound, SnapshotUnknown
from opsd.events import Reporter, Warning
from opsd.model import SnapshotSummary
from opsd.repository.catalog import Catalog, Place, load_catalog, marked_snapshots
from opsd.repository.domains import with_domains
from opsd.repository.format import digest_of, time_of
from opsd.repository.index import IndexCache
from opsd.repository.keys import Keyring
from opsd.repository.local import HostState, Memory
from opsd.repository.manifest import Manifest, decode_manifest
from opsd.repository.opening import Unlock, enrol, load_settings, repository_id, unlock
from opsd.repository.reader import SnapshotReader
from opsd.repository.runs import Mark, Note, holds_in_force
from opsd.repository.settings import RepositorySettings
from opsd.storage.durable import private_folder
from opsd.storage.protocol import ObjectInfo, Store
from opsd.storage.several import read_several
from opsd.values import dataclass

#: How far ahead of this clock a snapshot may be dated, in ns.
_CLOCK_TOLERANCE: Final = 3600 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where the engine runs: this host's state, a folder for what is disposable, a clock, a listener, and its name."""

    state: HostState
    cache: Path
    clock: Clock
    reporter: Reporter
    host: str


class Repository:
    """An open repository. Cheap to open; what it lists is read anew at each call."""

    def __init__(self, place: Place, around: Surroundings) -> None:
        self.place = place
        self.around = around
        #: Whether opening it gave this host new keys.
        self.enrolled = False

    @classmethod
    def open(
        cls, store: Store, around: Surroundings, how: Unlock, *, reader: bool = False, writer: bool = False
    ) -> "Repository":
        """Open with this host's keys, or by `how` where those do not suffice; `reader` and `writer` say what is needed.

        Raises:
            NotARepository, KeyRefused, KeyMissing, IntegrityError, NewerFormat, StorageError.
        """
        identity = repository_id(store)
        ring = around.state.read_keys(identity)
        if (reader and how) or ring is None:
            opened = unlock(store, identity, how, around.reporter)
            ring = opened if ring is None or ring.repository != opened.repository else ring.joined(opened)
        memory = around.state.memory(ring.repository)
        settings = load_settings(store, ring, memory.settings, around.reporter)
        enrols = writer and (ring.writer is None or settings.signer(ring.writer.public().id) is None)
        if enrols:
            ring = ring if ring.owner else ring.joined(unlock(store, identity, how, around.reporter))
            ring, settings = enrol(store, ring, settings, around.host, around.state)
        ring, closed = with_domains(store, ring, settings, how.slots)
        repository = cls(replace(cls._place(store, ring, settings, around), closed=closed), around)
        repository.enrolled = enrols
        return repository

    @staticmethod
    def _place(store: Store, ring: Keyring, settings: RepositorySettings, around: Surroundings) -> Place:
        cache = IndexCache(around.cache / ring.repository.hex() / "index")
        return Place(store=store, ring=ring, settings=settings, index_cache=cache, reporter=around.reporter)

    @property
    def cache(self) -> Path:
        """Where what is disposable of it is kept."""
        return self.around.cache / self.place.ring.repository.hex()

    def spool(self) -> Path:
        """A folder for packs being written: the store's own where it has one, so that a put is a move."""
        folder = self.place.store.capabilities.spool or self.cache / "spool"
        private_folder(folder)
        return folder

    def marks(self) -> list[Mark]:
        """Marks that can be read; a damaged one is told (prune itself stops at one)."""
        found = []
        for info, content in self._read("marks/"):
            try:
                found.append(self.place.signed.decode_mark(info.name, content(), info.modified))
            except ObjectDamaged as error:
                self._tell(error)
            except ObjectNotFound:
                continue
        return found

    def _tell(self, error: ObjectDamaged) -> None:
        self.place.reporter.warn(Warning(subject=error.name, problem=error.problem, hint=error.hint))

    def manifest(self, info: ObjectInfo) -> Manifest:
        """One manifest.

        Raises:
            ObjectDamaged, NewerFormat, ObjectNotFound.
        """
        return self._decoded(info, self.place.store.read(info.name))

    def _decoded(self, info: ObjectInfo, content: bytes) -> Manifest:
        return decode_manifest(info.name, content, info.modified, self.place.ring, self.place.settings)

    def _read(self, prefix: str) -> Iterator[tuple[ObjectInfo, Callable[[], bytes]]]:
        """The objects of a kind in the order of their names, and what gives their bytes."""
        return read_several(self.place.store, sorted(self.place.store.list(prefix), key=lambda each: each.name))

    def manifests(self) -> Iterator[Manifest]:
        """All manifests that can be read, marked ones included, oldest first; a damaged one is told."""
        for info, content in self._read("snapshots/"):
            try:
                yield self._decoded(info, content())
            except ObjectDamaged as error:
                self._tell(error)
            except ObjectNotFound:
                continue

    def snapshots(self, *, marked: bool = False) -> list[SnapshotSummary]:
        """Every snapshot, oldest first by its start; those that prune has marked only if asked for."""
        doomed = self._doomed()
        broken = self._broken_runs()
        found = [
            replace(
                manifest.summary,
                marked=manifest.summary.name in doomed,
                complete=manifest.summary.complete and manifest.summary.run not in broken,
            )
            for manifest in self.manifests()
        ]
        return sorted(
            (each for each in found if marked or not each.marked),
            key=lambda each: (each.started, each.sequence, each.id),
        )

    def _doomed(self) -> frozenset[str]:
        """Names of snapshots that prune has marked and that no hold brings back."""
        named = marked_snapshots(self.marks())
        held = holds_in_force(self._notes(), self.around.clock.now()) if named else {}
        return frozenset(name for name in named if digest_of(name) not in held)

    def _notes(self) -> Iterator[Note]:
        """Notes that can be read; a damaged one is told."""
        for info, content in self._read("notes/"):
            try:
                yield self.place.signed.decode_note(info.name, content())
            except ObjectDamaged as error:
                self._tell(error)
            except ObjectNotFound:
                continue

    def _broken_runs(self, since: Callable[[ObjectInfo], bool] = lambda _: True) -> frozenset[bytes]:
        """Runs that ended otherwise than by their manifest: failed, or ended by another while they went on.

        A manifest of one counts as incomplete: what it relied on may have been swept between its last look and its put.
        """
        found = set()
        infos = [info for info in self.place.store.list("runs/") if since(info)]
        for info, content in read_several(self.place.store, infos):
            try:
                event = self.place.signed.decode_run(info.name, content(), info.modified)
            except (ObjectDamaged, ObjectNotFound):
                continue
            if event.event in ("failed", "ended"):
                found.add(event.run)
        return frozenset(found)

    def _is_complete(self, summary: SnapshotSummary) -> bool:
        """Whether no source failed, and its run did not end otherwise. Only what may have come after it began is read."""
        if not summary.complete:
            return False
        began, lasted = summary.started - DAY, summary.ended - summary.started + DAY

        def since(info: ObjectInfo) -> bool:
            try:
                return info.modified >= summary.received - lasted or time_of(info.name) >= began
            except ObjectDamaged:
                return True

        return summary.run not in self._broken_runs(since)

    def find(self, text: str, before: int | None = None) -> Manifest:
        """The snapshot of an id, a prefix of it, or `latest`; with `before` (ns UTC), the newest complete not after it.

        Raises:
            SnapshotUnknown: none, or several.
            ObjectDamaged: its manifest can't be read, or that of none.
        """
        if text != "latest":
            return self._by_prefix(text)
        found: dict[str, Manifest] = {}
        for manifest in self._newest_first(before):
            summary = manifest.summary
            complete = self._is_complete(summary)
            if complete and summary.job == "all":
                return manifest
            if complete and before is not None:
                found.setdefault("complete", manifest)
            if summary.job != "safety":
                found.setdefault("usual", manifest)
            found.setdefault("any", manifest)
        for choice in ("complete", "usual", "any"):
            if choice in found:
                return found[choice]
        raise self._none(before)

    def _none(self, before: int | None) -> SnapshotUnknown:
        """That no snapshot is there; ObjectDamaged is raised where some are listed, since none of them is whole."""
        for info in self._listed(before):
            self.manifest(info)
        when = "" if before is None else " that old"
        return SnapshotUnknown(
            f"the repository holds no snapshot{when}",
            hint="'opsd snapshots' lists what is there; 'opsd backup' makes one",
        )

    def _newest_first(self, before: int | None) -> Iterator[Manifest]:
        """Manifests that prune has not marked, the newest first; those that a wrong clock dated ahead of later ones come last."""
        found = self._by_name(before)
        first = next(found, None)
        if first is None:
            return
        if time_of(first.summary.name) <= self.around.clock.now() + _CLOCK_TOLERANCE:
            yield first
            yield from found
            return
        every = [first, *found]
        summaries = [each.summary for each in every]
        ahead = [each for each in summaries if each.is_ahead_of(summaries)]
        for summary in ahead:
            problem = "it is dated in the future, and older than others of its host"
            hint = f"the clock was wrong then; restore it by its id, {summary.id[:8]}"
            self.place.reporter.warn(Warning(subject=f"snapshot {summary.id[:8]}", problem=problem, hint=hint))
        yield from sorted(every, key=lambda each: each.summary in ahead)

    def _by_name(self, before: int | None) -> Iterator[Manifest]:
        """Those by the time in their names, each read when it is asked for: most often the first is meant."""
        for info in self._listed(before):
            try:
                yield self.manifest(info)
            except ObjectDamaged as error:
                self._tell(error)
            except ObjectNotFound:
                continue

    def _listed(self, before: int | None) -> list[ObjectInfo]:
        doomed = self._doomed()
        infos = sorted(self.place.store.list("snapshots/"), key=lambda each: each.name, reverse=True)
        return [info for info in infos if info.name not in doomed and (before is None or time_of(info.name) <= before)]

    def _by_prefix(self, text: str) -> Manifest:
        infos = [
            info
            for info in self.place.store.list("snapshots/")
            if info.name.rpartition("-")[2].startswith(text.lower())
        ]
        if len(infos) == 1:
            return self.manifest(infos[0])
        if not infos:
            raise SnapshotUnknown(
                f"no snapshot {text}", hint="'opsd snapshots' lists them; 'latest' is the newest complete one"
            )
        ids = ", ".join(sorted(info.name.rpartition("-")[2][:12] for info in infos)[:5])
        raise SnapshotUnknown(f"{len(infos)} snapshots begin with {text}: {ids}", hint="give more characters")

    def catalog(self) -> Catalog:
        """Marks, packs and index as they are now."""
        return load_catalog(self.place, self.marks())

    def reader(self, manifest: Manifest, catalog: Catalog | None = None) -> SnapshotReader:
        """A snapshot's content; frames in marked packs are read as well, as long as they are there."""
        return SnapshotReader(self.place, catalog or self.catalog(), manifest)

    def compare_memory(self) -> None:
        """Whether the store still shows what this host put last.

        Raises:
            IntegrityError: the newest manifest of this host is gone and no note says why.
        """
        memory = self.around.state.memory(self.place.ring.repository)
        if not memory.head:
            return
        if any(info.name.endswith(memory.head) for info in self.place.store.list("snapshots/")):
            return
        own = self.place.ring.writer.public().id if self.place.ring.writer else None
        dropped = {number for note in self.place.notes() for writer, number in note.sequences if own in (None, writer)}
        if memory.sequence not in dropped:
            raise IntegrityError(
                f"snapshot {memory.head[:8]}, the newest of this host, is gone and no prune dropped it",
                hint="the store shows an older state of itself, or was emptied; compare it with a copy before you write to it",
            )

    def remember(self, sequence: int, head: str) -> None:
        """Keep what this host has put last. Where its disk is full that is told: what was put stands, whatever is noted of it."""
        memory = Memory(settings=self.place.settings.number, sequence=sequence, head=head)
        try:
            self.around.state.remember(self.place.ring.repository, memory)
        except OSError as error:
            state = self.around.state.folder
            problem = f"what was put last can't be noted: {(error.strerror or str(error)).lower()}"
            self.place.reporter.warn(Warning(subject=str(state), problem=problem, hint="make room there"))
