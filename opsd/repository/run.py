"""One run that writes: it says that it began, adds blobs, and ends with a manifest or without.

Promise: run, packs, index, manifest, each durable before the next begins; a run that another ended proves, before and after its
manifest, that all it relies on still stands. Design: Many writers, and prune without locks.
"""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from opsd.clock import SECOND
from opsd.errors import IntegrityError, KeyMissing, ObjectDamaged, ObjectNotFound
from opsd.events import Warning
from opsd.model import Content, SnapshotSummary
from opsd.repository.catalog import load_catalog, marked_packs, marked_snapshots
from opsd.repository.format import Kind, digest_of, name_for
from opsd.repository.keys import INDEX_DOMAIN
from opsd.repository.manifest import LedgerHead, Manifest, ReaderPart, encode_manifest, encode_section
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.runs import RUN_BYTES, RunEvent, open_runs
from opsd.repository.signing import SigningKey
from opsd.repository.writer import BlobWriter, remove_spooled
from opsd.values import dataclass

#: A run shows a sign of life this often; prune lets a live run have a day.
_ALIVE_EVERY: Final = 6 * 3600 * SECOND
#: References to more packs than this are written as blobs.
_INLINE_PACKS: Final = 2048
_SEEN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a run hands over at its end: a summary without id, name and sequence, parts by key domain, page maps, references."""

    summary: SnapshotSummary
    parts: dict[int, ReaderPart]
    page_maps: dict[bytes, Content]
    frames: FrameSet
    next_due: int | None = None
    ledger: LedgerHead | None = None


class Run:
    """A run under way; a context manager. Leaving it without `commit` ends the run as failed."""

    def __init__(self, repository: Repository, kind: str = "backup") -> None:
        self.repository = repository
        self.place = repository.place
        self.id = os.urandom(RUN_BYTES)
        self._kind = kind
        self._clock = repository.around.clock
        self._exit = ExitStack()
        self._ended = False
        self._last_sign = 0
        self._key = self._writer_key()
        self.writer = self._key.public().id

    def _writer_key(self) -> SigningKey:
        key = self.place.ring.writer
        if key is None:
            raise KeyMissing(
                "the writer's key is not on this machine", hint="give the passphrase once, so that this host can enrol"
            )
        return key

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._exit.close()
            raise
        return self

    def _begin(self) -> None:
        self._exit.enter_context(self.repository.around.state.alive(self.id))
        self._end_dead_runs()
        self._say("begun")
        marks = self.repository.marks()
        doomed = marked_snapshots(marks)
        self.manifests = [each for each in self.repository.manifests() if each.summary.name not in doomed]
        self.catalog = load_catalog(self.place, marks)
        stem = self.repository.spool() / self.id.hex()
        self.blobs = self._exit.enter_context(BlobWriter(self.place, self.catalog, stem, self._clock))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._ended and (kind is None or issubclass(kind, (Exception, KeyboardInterrupt))):
                self._say("failed")
        except Exception as second:
            if error is None:
                raise
            error.add_note(f"and the run could not be ended: {second}")
        finally:
            self._exit.__exit__(kind, error, trace)

    def _say(self, event: str, run: bytes | None = None) -> None:
        now = self._clock.now()
        content = self.place.signed.encode_run(
            RunEvent(run=run or self.id, writer=self.writer, kind=self._kind, event=event, time=now), self._key
        )
        self.place.store.put(name_for(Kind.RUN, content, time=now), content)
        self._last_sign = now

    def alive(self) -> None:
        """Show a sign of life if the last is old; cheap, call it often."""
        if self._clock.now() - self._last_sign > _ALIVE_EVERY:
            self._say("alive")

    def _events(self) -> list[RunEvent]:
        events = []
        for info in self.place.store.list("runs/"):
            try:
                events.append(self.place.signed.decode_run(info.name, self.place.store.read(info.name), info.modified))
            except (ObjectDamaged, ObjectNotFound):
                continue
        return events

    def _end_dead_runs(self) -> None:
        """End this writer's runs that no process holds any more: they were cut off."""
        events = [event for event in self._events() if event.writer == self.writer]
        if not events:
            return
        finished = {each.summary.run for each in self.repository.manifests()}
        for run in open_runs(events, finished):
            if not self.repository.around.state.is_alive(run):
                remove_spooled(self.repository.spool() / run.hex())
                self._say("ended", run)

    def previous(self, host: str, label: str) -> Manifest | None:
        """The newest snapshot of this host in which that source did not fail."""
        for manifest in sorted(self.manifests, key=lambda each: -each.summary.started):
            summary = manifest.summary
            if summary.host == host and any(
                each.label == label and each.outcome != "failed" for each in summary.sources
            ):
                return manifest
        return None

    def stands(self, manifest: Manifest) -> bool:
        """Whether every pack of birth that a listed manifest refers to leads to a listed, unmarked object."""
        usable = self.catalog.usable()
        return all(
            any(row.digest in usable for row in self.catalog.objects.get(birth, ()))
            for birth in self.frames_of(manifest).births()
        )

    def frames_of(self, manifest: Manifest) -> FrameSet:
        """The frames that a manifest refers to."""
        return frames_of(self.repository, manifest)

    def _references(self, frames: FrameSet) -> tuple[bytes, Content | None]:
        """Inline records, and a content of the others where there are many. The hunks' own frames are added."""
        births = frames.births()
        if len(births) <= _INLINE_PACKS:
            return frames.encode(), None
        index = self.blobs.domains[INDEX_DOMAIN]
        references = b""
        group: list[bytes] = []
        for birth in births[:-1]:
            group.append(birth)
            if birth[-1] == 0 or len(group) >= _INLINE_PACKS:
                references += self.blobs.add(index, memoryview(frames.encode(group)))
                group = []
        own = FrameSet()
        own.add_references(references)
        own.add_all(_subset(frames, [*group, births[-1]]))
        content = self.blobs.content(index, references, own)
        return own.encode(), content

    def commit(self, ending: Ending) -> SnapshotSummary:
        """Make all durable and put the manifest; the snapshot exists when this returns.

        Raises:
            IntegrityError: what the run relied on was swept meanwhile (it had been ended by another).
        """
        inline, hunks = self._references(ending.frames)
        self.blobs.finish()
        sections = tuple(
            encode_section(self.place.ring, domain.keys.base, domain.session, part)
            for number, part in sorted(ending.parts.items())
            if (domain := self.blobs.domains[number]).session
        )
        self._prove_if_ended(ending.frames)
        repository = self.repository
        with repository.around.state.locked(f"{self.place.ring.repository.hex()}.sequence"):
            sequence = self._next_sequence()
            summary = self._summary(ending.summary, sequence)
            manifest = Manifest(
                summary=summary,
                next_due=ending.next_due,
                seen=self._seen(),
                references=inline,
                hunks=hunks,
                page_maps=ending.page_maps,
                sections=sections,
                ledger=ending.ledger,
            )
            content = encode_manifest(manifest, self.place.ring)
            name = name_for(Kind.SNAPSHOT, content, time=summary.started)
            self.place.store.put(name, content)
            repository.remember(sequence, digest_of(name).hex())
        self._prove_if_ended(ending.frames)
        self._ended = True
        return replace(summary, id=digest_of(name).hex(), name=name, received=self._clock.now())

    def _summary(self, summary: SnapshotSummary, sequence: int) -> SnapshotSummary:
        """With what only the run knows: who, which number, and how many bytes were stored for whom."""
        added = self.blobs.added_by
        sources = tuple(replace(source, added_bytes=added[source.label]) for source in summary.sources)
        return replace(
            summary,
            writer=self.writer,
            run=self.id,
            sequence=sequence,
            sources=sources,
            added_bytes=self.blobs.added_bytes,
        )

    def _mine(self) -> Iterable[Manifest]:
        return (each for each in self.repository.manifests() if each.summary.writer == self.writer)

    def _next_sequence(self) -> int:
        memory = self.repository.around.state.memory(self.place.ring.repository)
        try:
            notes = self.place.notes()
        except ObjectDamaged as error:
            # A note only tells of numbers that this host has used; where it remembers its last, it needs none of them.
            if not memory.sequence:
                raise
            notes = []
            self.place.reporter.warn(Warning(subject=error.name, problem=error.problem, hint="restore it from a copy"))
        dropped = (number for note in notes for writer, number in note.sequences if writer == self.writer)
        return max([memory.sequence, *dropped, *(each.summary.sequence for each in self._mine())], default=0) + 1

    def _seen(self) -> tuple[bytes, ...]:
        mine = sorted(self._mine(), key=lambda each: each.summary.sequence)
        return tuple(bytes.fromhex(each.summary.id) for each in mine[-_SEEN:])

    def _prove_if_ended(self, frames: FrameSet) -> None:
        """If another has ended this run, list marks and then packs, and fail if anything it relied on is missing or marked.

        Where not even its beginning is listed, its end was forgotten too.
        """
        mine = {event.event for event in self._events() if event.run == self.id}
        if "begun" in mine and not mine & {"ended", "failed"}:
            return
        marked = marked_packs(self.repository.marks())
        listed = {digest_of(info.name) for info in self.place.store.list("packs/")} - marked
        usable = self.catalog.usable()
        for birth in frames.births():
            relied = {row.digest for row in self.catalog.objects.get(birth, ())} & usable
            if not relied or relied - listed:
                raise IntegrityError(
                    "this run was ended by another while it went on, and what it relied on was removed",
                    hint="nothing older is touched; run 'opsd backup' again",
                )


def _subset(frames: FrameSet, births: list[bytes]) -> FrameSet:
    found = FrameSet()
    found.add_records(frames.encode(births))
    return found


def frames_of(repository: Repository, manifest: Manifest) -> FrameSet:
    """The frames that a manifest refers to, its reference hunks read."""
    frames = FrameSet()
    frames.add_records(manifest.references)
    if manifest.hunks is not None:
        blobs = repository.reader(manifest).blobs
        for reference in blobs.references(manifest.hunks):
            frames.add_records(bytes(blobs.blob(reference)))
    return frames
