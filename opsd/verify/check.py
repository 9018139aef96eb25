"""Check a repository: every object against its name, every seal, every frame that a snapshot needs, the history's order.

Promise: any flipped bit is found (with `read_data` in every pack, without it in everything else and in the packs' footers), named,
and said what it affects. Nothing is changed unless `repair` is asked for, and that only adds or replaces what can be proved.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from opsd.errors import IntegrityError, KeyMissing, NewerFormat, ObjectDamaged, ObjectLost, ObjectNotFound, OpsdError
from opsd.events import Reporter
from opsd.model import EntryType
from opsd.repository.blobs import BlobReader, PackReader
from opsd.repository.catalog import Catalog, Place, footer_of, load_catalog
from opsd.repository.format import Kind, check_name
from opsd.repository.frames import FrameDamaged, FrameRow, open_frame
from opsd.repository.index import IndexPart, PackRow, decode_index
from opsd.repository.keys import decode_slot
from opsd.repository.manifest import Manifest
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of
from opsd.repository.settings import decode_settings
from opsd.retention.survey import missing_numbers
from opsd.storage.protocol import ObjectInfo

_THREADS: Final = 2
#: Paths named for a damaged pack at most.
_PATHS_NAMED: Final = 10

Frames = frozenset[tuple[bytes, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to check. `share` is the part of all packs to read whole, 0 to 1; `seed` chooses them."""

    share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it should be: the object, what, the snapshots it affects (ids), and paths in the newest of them."""

    object: str
    problem: str
    snapshots: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check found. `decoded` tells whether frames were decrypted or packs only compared with their names. Bytes."""

    problems: tuple[Problem, ...]
    notices: tuple[str, ...]
    snapshots: int
    packs: int
    packs_read: int
    bytes_read: int
    bytes_stored: int
    decoded: bool


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    damaged: dict[str, tuple[str, Frames]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def add(self, error: OpsdError, name: str = "") -> None:
        """Note an error as a problem."""
        named = name or getattr(error, "name", "")
        text = getattr(error, "problem", str(error))
        self.problems.append(Problem(object=named, problem=text, hint=error.hint))


class Check:
    """One check of one repository."""

    def __init__(self, repository: Repository, options: CheckOptions) -> None:
        self._repository = repository
        self._place: Place = repository.place
        self._reporter: Reporter = repository.around.reporter
        self._options = options
        self._found = _Found()
        self._bytes_read = 0
        self._decodes = bool(self._place.ring.domains) and self._place.ring.id_key is not None

    def run(self) -> CheckReport:
        """Check all that the options ask for.

        Raises:
            StorageError: the store can't be read at all.
        """
        self._reporter.stage("objects")
        self._small_objects()
        manifests = list(self._manifests())
        self._history(manifests)
        self._reporter.stage("index")
        self._index_objects()
        catalog = load_catalog(self._place, ())
        if catalog.orphans:
            self._found.notices.append(f"{len(catalog.orphans)} packs stand in no index; they are read by their footers until the next backup")
        footers = self._footers(catalog)
        self._needed(manifests, catalog, footers)
        chosen = self._chosen(list(catalog.packs.values()))
        self._read(chosen, footers)
        self._name_what_is_affected(manifests, catalog)
        return CheckReport(
            problems=tuple(self._found.problems),
            notices=tuple(self._found.notices),
            snapshots=len(manifests),
            packs=len(catalog.packs),
            packs_read=len(chosen),
            bytes_read=self._bytes_read,
            bytes_stored=sum(info.size for info in catalog.packs.values()),
            decoded=bool(chosen) and self._decodes,
        )

    # Small objects

    def _each(self, prefix: str) -> Iterator[tuple[ObjectInfo, bytes]]:
        for info in sorted(self._place.store.list(prefix), key=lambda each: each.name):
            try:
                content = self._place.store.read(info.name)
                self._bytes_read += len(content)
                yield info, content
            except (IntegrityError, NewerFormat) as error:
                self._found.add(error, info.name)
            except ObjectNotFound:
                continue

    def _small_objects(self) -> None:
        signed, ring = self._place.signed, self._place.ring
        kinds: dict[str, Callable[[ObjectInfo, bytes], object]] = {
            "settings/": lambda info, content: decode_settings(info.name, content, ring.repository, ring.owner_public),
            "keys/": lambda info, content: decode_slot(info.name, content),
            "runs/": lambda info, content: signed.decode_run(info.name, content, info.modified),
            "marks/": lambda info, content: signed.decode_mark(info.name, content, info.modified),
            "notes/": lambda info, content: signed.decode_note(info.name, content),
        }
        if not any(True for _ in self._place.store.list("keys/")):
            hint = "copy them back from a copy, or run 'opsd key' on a host that still has its keys"
            self._found.problems.append(Problem(object="keys/", problem="there is no key slot: no passphrase and no kit opens it", hint=hint))
        for prefix, decode in kinds.items():
            for info, content in self._each(prefix):
                try:
                    decode(info, content)
                except (IntegrityError, NewerFormat) as error:
                    self._found.add(error, info.name)

    def _manifests(self) -> Iterator[Manifest]:
        for info in sorted(self._place.store.list("snapshots/"), key=lambda each: each.name):
            try:
                yield self._repository.manifest(info)
            except (IntegrityError, NewerFormat) as error:
                identity = info.name.rpartition("-")[2]
                text = getattr(error, "problem", str(error))
                hint = "this snapshot can't be restored from here; restore the object from a copy"
                self._found.problems.append(Problem(object=info.name, problem=text, snapshots=(identity,), hint=hint))
            except ObjectNotFound:
                continue

    def _history(self, manifests: Sequence[Manifest]) -> None:
        """Sequence numbers: none used twice, none missing without prune's note."""
        try:
            notes = self._place.notes()
            self._repository.compare_memory()
        except (IntegrityError, NewerFormat) as error:
            self._found.add(error)
            return
        numbers: dict[tuple[bytes, int], str] = {}
        for manifest in manifests:
            summary = manifest.summary
            twice = numbers.setdefault((summary.writer, summary.sequence), summary.id)
            if twice != summary.id:
                text = f"snapshots {twice[:8]} and {summary.id[:8]} of one host bear the same number {summary.sequence}"
                hint = "a host was cloned or rolled back; give the clone a repository or keys of its own"
                self._found.problems.append(Problem(object=summary.name, problem=text, hint=hint))
        for missing in missing_numbers(manifests, notes).values():
            text = f"snapshots number {', '.join(map(str, missing[:10]))} of one host are gone, and no prune dropped them"
            hint = "someone removed them, or the store shows an older state of itself; compare with a copy"
            self._found.problems.append(Problem(object="snapshots/", problem=text, hint=hint))

    def _index_objects(self) -> None:
        for info, content in self._each("index/"):
            try:
                IndexPart(info.name, decode_index(info.name, content, self._place.ring.repository, self._place.ring.index()))
            except (IntegrityError, NewerFormat) as error:
                self._found.add(error, info.name)

    # Packs

    def _footers(self, catalog: Catalog) -> dict[str, tuple[PackRow, tuple[FrameRow, ...]]]:
        footers = {}
        for info in catalog.packs.values():
            try:
                footers[info.name] = footer_of(self._place, info)
            except (IntegrityError, NewerFormat) as error:
                frames = frozenset(self._frames_by_index(catalog, info))
                self._found.damaged[info.name] = (getattr(error, "problem", str(error)), frames)
        return footers

    def _frames_by_index(self, catalog: Catalog, info: ObjectInfo) -> Iterator[tuple[bytes, int]]:
        """What the index knows of a pack whose footer can't be read: -1 stands for every frame of that birth."""
        for rows in catalog.objects.values():
            for row in rows:
                if row.name == info.name:
                    yield row.birth, -1

    def _needed(
        self, manifests: Iterable[Manifest], catalog: Catalog, footers: dict[str, tuple[PackRow, tuple[FrameRow, ...]]]
    ) -> None:
        """Every frame that a manifest needs stands in some listed pack with a valid footer."""
        there = {(row.birth, row.number) for _, rows in footers.values() for row in rows}
        known_bad = {birth for _, frames in self._found.damaged.values() for birth, _ in frames}
        lost: dict[bytes, list[str]] = defaultdict(list)
        for manifest in manifests:
            try:
                frames = frames_of(self._repository, manifest)
            except IntegrityError as error:
                self._found.add(error, manifest.summary.name)
                continue
            for birth in {birth for birth, number in frames.frames() if (birth, number) not in there} - known_bad:
                lost[birth].append(manifest.summary.id)
        del catalog
        for birth, snapshots in lost.items():
            hint = "restore the pack from a copy"
            text = "a pack born with this id is missing, or what is there no longer holds all of it"
            self._found.problems.append(
                Problem(object=f"packs (born {birth.hex()})", problem=text, snapshots=tuple(snapshots), hint=hint)
            )

    def _chosen(self, packs: list[ObjectInfo]) -> list[ObjectInfo]:
        if not self._options.share:
            return []
        packs.sort(key=lambda each: each.name)
        count = len(packs) if self._options.share >= 1 else max(1, round(len(packs) * self._options.share)) if packs else 0
        return sorted(random.Random(self._options.seed).sample(packs, count), key=lambda each: each.name)  # noqa: S311 - a sample, no secret

    def _read(self, packs: list[ObjectInfo], footers: dict[str, tuple[PackRow, tuple[FrameRow, ...]]]) -> None:
        self._reporter.stage("data", sum(info.size for info in packs))
        reader = PackReader(self._place)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-check") as pool:
            for _ in pool.map(lambda info: self._read_pack(reader, info, footers.get(info.name)), packs):
                pass

    def _read_pack(self, reader: PackReader, info: ObjectInfo, footer: tuple[PackRow, tuple[FrameRow, ...]] | None) -> None:
        content = memoryview(bytearray(info.size))
        try:
            count = self._place.store.read_into(info.name, 0, content)
        except ObjectNotFound:
            return
        problem = None
        try:
            check_name(info.name, content[:count], Kind.PACK)
        except (IntegrityError, NewerFormat) as error:
            problem = getattr(error, "problem", str(error))
        bad = self._bad_frames(reader, footer, content[:count]) if footer and self._decodes else []
        with self._found.lock:
            self._bytes_read += count
            if (problem or bad) and info.name not in self._found.damaged:
                frames = frozenset((row.birth, row.number) for row, _ in bad)
                self._found.damaged[info.name] = (problem or bad[0][1], frames)
        self._reporter.advance(size=count)

    def _bad_frames(
        self, reader: PackReader, footer: tuple[PackRow, tuple[FrameRow, ...]], content: memoryview
    ) -> list[tuple[FrameRow, str]]:
        pack, rows = footer
        bad = []
        for row in rows:
            try:
                open_frame(reader.keys(pack, row), row, content[row.offset : row.offset + row.stored_length])
            except FrameDamaged as error:
                bad.append((row, f"the frame at byte {row.offset}: {error}"))
            except KeyMissing:
                continue
            except ObjectDamaged as error:
                bad.append((row, error.problem))
        return bad

    # What it affects

    def _name_what_is_affected(self, manifests: list[Manifest], catalog: Catalog) -> None:
        for name, (problem, frames) in sorted(self._found.damaged.items()):
            affected = [each for each in manifests if _touches(frames_of(self._repository, each), frames)] if frames else []
            affected.sort(key=lambda each: -each.summary.started)
            paths = tuple(self._paths(affected[0], catalog, frames)) if affected and self._decodes else ()
            hint = "heal it from a copy; else run 'opsd check --repair', so that the next backup stores anew what it held"
            if not affected:
                hint = "no snapshot needs the damaged part; heal it from a copy, or run 'opsd check --repair'"
            ids = tuple(each.summary.id for each in affected)
            self._found.problems.append(Problem(object=name, problem=problem, snapshots=ids, paths=paths, hint=hint))

    def _paths(self, manifest: Manifest, catalog: Catalog, frames: Frames) -> Iterator[str]:
        """Some of the paths in a snapshot whose content stands in damaged frames."""
        reader = self._repository.reader(manifest, catalog)
        count = 0
        try:
            for tree in reader.trees():
                for folder in reader.folders(tree):
                    for entry in folder.entries:
                        if entry.type is EntryType.FILE and count < _PATHS_NAMED and self._hit(reader.blobs, entry.content, entry.pages, frames):
                            count += 1
                            yield f"{tree.label}:{(folder.path.rstrip(b'/') + b'/' + entry.name).decode('utf-8', 'backslashreplace')}"
        except (IntegrityError, KeyMissing, ObjectLost):
            yield "(the list of names itself is affected)"

    @staticmethod
    def _hit(blobs: BlobReader, content: object, pages: object, frames: Frames) -> bool:
        found = FrameSet()
        if isinstance(content, bytes):
            found.add_references(content)
        elif isinstance(content, tuple):
            for reference in blobs.references(content):
                found.add(*reference.frame)
        if isinstance(pages, bytes):
            found.add_references(pages)
        return _touches(found, frames)


def _touches(needed: FrameSet, frames: Frames) -> bool:
    births = set(needed.births())
    return any((birth in births) if number < 0 else ((birth, number) in needed) for birth, number in frames)
