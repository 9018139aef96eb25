"""Check a repository: every object against its name, every seal, every frame that a snapshot needs, the history's order.

Promise: any flipped bit is found (with `read_data` in every pack, without it in everything else and in the packs' footers), named,
and said what it affects. Nothing is changed unless `repair` is asked for, and that only adds or replaces what can be proved.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from itertools import islice
from threading import Lock
from typing import Final

from opsd.errors import IntegrityError, NewerFormat, ObjectNotFound, OpsdError, StorageError
from opsd.events import Reporter, Total
from opsd.repository.catalog import Catalog, Place, damaged_packs, footer_of, load_catalog
from opsd.repository.format import digest_of
from opsd.repository.index import IndexPart, decode_index
from opsd.repository.keys import decode_slot
from opsd.repository.manifest import Manifest
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of
from opsd.repository.runs import Note
from opsd.repository.settings import decode_settings
from opsd.retention.survey import missing_numbers
from opsd.storage.protocol import ObjectInfo, Store
from opsd.values import dataclass
from opsd.verify.advice import COPY_BACK, hint_of, pack_advice
from opsd.verify.affected import Damage, Frame, paths_hit
from opsd.verify.packs import Footer, PackProof

_THREADS: Final = 2
#: Paths named for a damaged pack at most.
_PATHS_NAMED: Final = 10

Footers = dict[str, Footer]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to check. `share` is the part of all packs to read whole, 0 to 1; `seed` chooses them. `names`: these packs instead."""

    share: float = 0.0
    seed: int = 0
    names: frozenset[str] | None = None


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
    """What a check found. `decoded` tells whether frames were decrypted or packs only compared with their names. Bytes.

    `proved` are the names of packs that are whole to the last frame, `lost` the birth ids of what snapshots need and no pack holds.
    `read` are the names of objects of which every byte was read and is right, `vouched` of those whose store says so unread.
    `closed`: frames that no key at hand opens though it should, as the keys of their domain are not there.
    """

    problems: tuple[Problem, ...]
    notices: tuple[str, ...]
    snapshots: int
    packs: int
    packs_read: int
    bytes_read: int
    bytes_stored: int
    decoded: bool
    proved: frozenset[str] = frozenset()
    lost: frozenset[bytes] = frozenset()
    read: frozenset[str] = frozenset()
    vouched: frozenset[str] = frozenset()
    closed: int = 0


def missing_slots(store: Store) -> tuple[Problem, ...]:
    """The problem that nothing opens a repository, if there is no key slot left; those of single domains do not count."""
    if any(opens(store, info.name) for info in store.list("keys/")):
        return ()
    hint = f"{COPY_BACK}, or run 'opsd key' where its keys still are"
    return (Problem(object="keys/", problem="there is no key slot: no passphrase and no kit opens it", hint=hint),)


def opens(store: Store, name: str) -> bool:
    """Whether a slot is one that opens the repository; of a damaged one others tell."""
    try:
        return not decode_slot(name, store.read(name)).domain
    except (IntegrityError, NewerFormat, StorageError):
        return True


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    damaged: dict[str, Damage] = field(default_factory=dict)
    proved: set[str] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    #: Frames that were not opened, by the number of a domain that is closed.
    closed: Counter[int] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def add(self, error: OpsdError, name: str = "") -> None:
        """Note an error as a problem, once."""
        named = name or getattr(error, "name", "")
        text = getattr(error, "problem", str(error))
        problem = Problem(object=named, problem=text, hint=hint_of(error, named))
        if problem not in self.problems:
            self.problems.append(problem)


class Check:
    """One check of one repository."""

    def __init__(self, repository: Repository, options: CheckOptions) -> None:
        self._repository = repository
        self._place: Place = repository.place
        self._reporter: Reporter = repository.around.reporter
        self._options = options
        self._found = _Found()
        self._bytes_read = 0
        #: SHA-256s of packs that are marked as damaged; they are read whatever the share is.
        self._marked: frozenset[bytes] = frozenset()
        self._decodes = bool(self._place.ring.domains) and self._place.ring.id_key is not None

    def run(self) -> CheckReport:
        """Check all that the options ask for.

        Raises:
            StorageError: the store can't be read at all.
        """
        self._reporter.stage("objects")
        self._small_objects()
        self._marked = self._marked_as_damaged()
        manifests = list(self._manifests())
        self._history(manifests)
        self._reporter.stage("index")
        self._index_objects()
        catalog = load_catalog(self._place, ())
        if catalog.orphans:
            self._found.notices.append(
                f"{len(catalog.orphans)} packs stand in no index; they are read by their footers until the next backup"
            )
        footers = self._footers(catalog)
        self._needed(manifests, footers)
        chosen = self._chosen(list(catalog.packs.values()))
        self._read(chosen, footers)
        self._name_what_is_affected(manifests, catalog, footers)
        self._tell_what_is_closed()
        return CheckReport(
            problems=tuple(self._found.problems),
            notices=tuple(self._found.notices),
            snapshots=len(manifests),
            packs=len(catalog.packs),
            packs_read=len(chosen),
            bytes_read=self._bytes_read,
            bytes_stored=sum(info.size for info in catalog.packs.values()),
            decoded=bool(chosen) and self._decodes,
            proved=frozenset(self._found.proved),
            lost=frozenset(self._found.lost),
            read=frozenset(self._found.read),
            closed=sum(
                count for number, count in self._found.closed.items() if not self._place.closed[number].destroyed
            ),
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
        self._found.problems.extend(missing_slots(self._place.store))
        for prefix, decode in kinds.items():
            for info, content in self._each(prefix):
                try:
                    decode(info, content)
                    self._found.read.add(info.name)
                except (IntegrityError, NewerFormat) as error:
                    self._found.add(error, info.name)

    def _marked_as_damaged(self) -> frozenset[bytes]:
        try:
            return damaged_packs(self._place.marks())
        except (IntegrityError, NewerFormat):
            return frozenset()  # reported before

    def _manifests(self) -> Iterator[Manifest]:
        for info in sorted(self._place.store.list("snapshots/"), key=lambda each: each.name):
            try:
                manifest = self._repository.manifest(info)
                self._found.read.add(info.name)
                yield manifest
            except (IntegrityError, NewerFormat) as error:
                identity = info.name.rpartition("-")[2]
                text = getattr(error, "problem", str(error))
                hint = hint_of(error, info.name)
                self._found.problems.append(Problem(object=info.name, problem=text, snapshots=(identity,), hint=hint))
            except ObjectNotFound:
                continue

    def _history(self, manifests: Sequence[Manifest]) -> None:
        """Sequence numbers: none used twice, none missing without prune's note."""
        try:
            notes = self._place.notes()
            self._repository.compare_memory()
        except (IntegrityError, NewerFormat) as error:
            self._found.add(error, getattr(error, "name", "snapshots/"))
            return
        numbers: dict[tuple[bytes, int], str] = {}
        for manifest in manifests:
            summary = manifest.summary
            twice = numbers.setdefault((summary.writer, summary.sequence), summary.id)
            if twice != summary.id:
                text = f"snapshots {twice[:8]} and {summary.id[:8]} of one host bear the same number {summary.sequence}"
                hint = "a host was cloned or rolled back; give the clone a repository or keys of its own"
                self._found.problems.append(Problem(object=summary.name, problem=text, hint=hint))
        for missing in self._unexplained(manifests, notes):
            text = (
                f"snapshots number {', '.join(map(str, missing[:10]))} of one host are gone, and no prune dropped them"
            )
            hint = "someone removed them, or the store shows an older state of itself; compare with a copy"
            self._found.problems.append(Problem(object="snapshots/", problem=text, hint=hint))

    def _unexplained(self, manifests: Sequence[Manifest], notes: Iterable[Note]) -> Iterable[list[int]]:
        """Numbers that are missing by writer; none where manifests that can't be read may bear them all."""
        missing = missing_numbers(manifests, notes).values()
        named = {problem.object for problem in self._found.problems if problem.object.startswith("snapshots/")}
        unreadable = named - {manifest.summary.name for manifest in manifests}
        return missing if sum(map(len, missing)) > len(unreadable) else ()

    def _index_objects(self) -> None:
        for info, content in self._each("index/"):
            try:
                IndexPart(
                    info.name, decode_index(info.name, content, self._place.ring.repository, self._place.ring.index())
                )
                self._found.read.add(info.name)
            except (IntegrityError, NewerFormat) as error:
                self._found.add(error, info.name)

    # Packs

    def _footers(self, catalog: Catalog) -> Footers:
        footers = {}
        for info in catalog.packs.values():
            try:
                footers[info.name] = footer_of(self._place, info)
            except (IntegrityError, NewerFormat) as error:
                births = {
                    birth for birth, rows in catalog.objects.items() if any(row.name == info.name for row in rows)
                }
                problem = getattr(error, "problem", str(error))
                self._found.damaged[info.name] = Damage(problem=problem, births=frozenset(births))
            except ObjectNotFound:
                continue
        return footers

    def _needed(self, manifests: Iterable[Manifest], footers: Footers) -> None:
        """Every frame that a manifest needs stands in some listed pack with a valid footer."""
        there = {(row.birth, row.number) for _, rows in footers.values() for row in rows}
        known_bad = {birth for damage in self._found.damaged.values() for birth in damage.births}
        lost: dict[bytes, list[str]] = defaultdict(list)
        for manifest in manifests:
            missing, unread = self._missing(manifest, there, known_bad)
            if not (missing or unread) or self._is_swept(manifest):
                continue
            if unread:
                self._found.add(unread, manifest.summary.name)
            for birth in missing:
                lost[birth].append(manifest.summary.id)
        self._found.lost.update(lost)
        for birth, snapshots in lost.items():
            hint = f"{COPY_BACK}; what the sources still hold, 'opsd backup' stores anew"
            text = "a pack born with this id is missing, or what is there no longer holds all of it"
            self._found.problems.append(
                Problem(object=f"packs (born {birth.hex()})", problem=text, snapshots=tuple(snapshots), hint=hint)
            )

    def _missing(
        self, manifest: Manifest, there: Collection[Frame], known_bad: Collection[bytes]
    ) -> tuple[set[bytes], IntegrityError | None]:
        """Births of frames that it needs and nothing holds, or why that can't be said."""
        try:
            frames = frames_of(self._repository, manifest)
        except IntegrityError as error:
            return set(), error
        return {birth for birth, number in frames.frames() if (birth, number) not in there}.difference(known_bad), None

    def _is_swept(self, manifest: Manifest) -> bool:
        """Whether a prune took it since it was read; that takes manifests before what they need."""
        try:
            self._place.store.stat(manifest.summary.name)
        except ObjectNotFound:
            return True
        return False

    def _chosen(self, packs: list[ObjectInfo]) -> list[ObjectInfo]:
        packs.sort(key=lambda each: each.name)
        share, names = self._options.share, self._options.names
        count = len(packs) if share >= 1 else max(1, round(len(packs) * share)) if packs and share else 0
        sample = random.Random(self._options.seed).sample(packs, count)  # noqa: S311 - a sample, no secret
        names = frozenset(each.name for each in sample) if names is None else names
        return [each for each in packs if each.name in names or digest_of(each.name) in self._marked]

    def _read(self, packs: list[ObjectInfo], footers: Footers) -> None:
        self._reporter.stage("data", Total(size=sum(info.size for info in packs)))
        proof = PackProof(self._place, decodes=self._decodes)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-check") as pool:
            for _ in pool.map(lambda info: self._read_pack(proof, info, footers.get(info.name)), packs):
                pass

    def _read_pack(self, proof: PackProof, info: ObjectInfo, footer: Footer | None) -> None:
        try:
            read = proof.read(info, footer)
        except ObjectNotFound:
            return
        with self._found.lock:
            self._bytes_read += read.size
            self._found.closed.update(row.domain for row in read.unread if row.domain in self._place.closed)
            if not read.problem:
                self._found.read.add(info.name)
            if (read.problem or read.bad) and info.name not in self._found.damaged:
                # What no key at hand opens may be what is hit.
                hit = {(row.birth, row.number) for row in (*read.bad, *(read.unread if read.problem else ()))}
                problem = read.problem or next(iter(read.bad.values()))
                self._found.damaged[info.name] = Damage(problem=problem, frames=frozenset(hit))
            elif not (read.problem or read.bad or read.unread) and footer:
                self._found.proved.add(info.name)
        self._reporter.advance(size=read.size)

    def _tell_what_is_closed(self) -> None:
        for number, count in sorted(self._found.closed.items()):
            closed = self._place.closed[number]
            self._found.notices.append(
                f"frames of key domain {closed.label} that no key opened, and only the names of their packs prove: {count:,}; "
                f"{closed.problem}"
            )

    # What it affects

    def _name_what_is_affected(self, manifests: Iterable[Manifest], catalog: Catalog, footers: Footers) -> None:
        damaged = self._found.damaged
        if not damaged:
            return
        whole = {(row.birth, row.number) for name, (_, rows) in footers.items() if name not in damaged for row in rows}
        affected: dict[str, list[Manifest]] = {name: [] for name in sorted(damaged)}
        for manifest in sorted(manifests, key=lambda each: -each.summary.started):
            try:
                needed = frames_of(self._repository, manifest)
            except IntegrityError:
                continue  # reported before
            for name, found in affected.items():
                if damaged[name].touches(needed, whole):
                    found.append(manifest)
        for name, found in affected.items():
            self._found.problems.append(self._affected(name, found, catalog, whole))

    def _affected(self, name: str, manifests: list[Manifest], catalog: Catalog, whole: Collection[Frame]) -> Problem:
        damage = self._found.damaged[name]
        paths: tuple[str, ...] = ()
        if manifests and self._decodes:
            reader = self._repository.reader(manifests[0], catalog)
            paths = tuple(islice(paths_hit(reader, damage, whole), _PATHS_NAMED))
        hint = pack_advice(marked=digest_of(name) in self._marked, needed=bool(manifests))
        ids = tuple(each.summary.id for each in manifests)
        return Problem(object=name, problem=damage.problem, snapshots=ids, paths=paths, hint=hint)
