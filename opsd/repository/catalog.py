"""What a repository holds right now: marks, packs and index, listed in the order that makes them safe to trust.

Promise: marks are listed before packs, packs before the index is read; an entry counts only if its pack is listed and not
marked; a pack that no index names is read by its footer. docs/format.md, Index; design of runs, step 2.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final, TypeVar

from opsd.errors import ObjectDamaged, ObjectNotFound, StorageError
from opsd.events import Reporter, Warning
from opsd.repository.domains import Closed
from opsd.repository.format import Kind, digest_of, name_for
from opsd.repository.frames import FrameRow
from opsd.repository.index import (
    Index,
    IndexCache,
    IndexPart,
    PackRow,
    decode_index,
    encode_index,
    index_table,
    rows_and_entries,
)
from opsd.repository.keys import Keyring
from opsd.repository.packs import find_footer, read_footer
from opsd.repository.runs import Mark, Note, RunEvent, Signed
from opsd.repository.settings import RepositorySettings
from opsd.storage.protocol import ObjectInfo, Store
from opsd.storage.several import read_several
from opsd.values import dataclass

T = TypeVar("T")
#: A prune removes small objects and merges index objects while others read them; so often a listing begins again.
_LISTINGS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A repository at a store, with the keys at hand and a folder for what is disposable.

    `closed`: by number, the key domains that a reader's keys at hand do not open.
    """

    store: Store
    ring: Keyring
    settings: RepositorySettings
    index_cache: IndexCache
    reporter: Reporter
    closed: Mapping[int, Closed] = field(default_factory=dict)

    @property
    def signed(self) -> Signed:
        """Reads and writes the small signed objects."""
        return Signed(ring=self.ring, settings=self.settings)

    def put_index(self, plain: bytes, damaged: Collection[str] = ()) -> str:
        """Put an index object; returns its name.

        One of the same name that is among the damaged, or torn (which only a store without whole puts can leave), is
        replaced: these bytes are what the name promises.
        """
        content = encode_index(plain, self.ring.repository, self.ring.index())
        name = name_for(Kind.INDEX, content)
        try:
            self.store.put(name, content, replace=name in damaged)
        except StorageError:
            if name_for(Kind.INDEX, self.store.read(name)) == name:
                raise
            self.store.put(name, content, replace=True)
        self.index_cache.keep(name, plain)
        return name

    def marks(self) -> list[Mark]:
        """All marks, oldest first.

        Raises:
            ObjectDamaged, NewerFormat: one can't be read; whoever only reads may go on without.
        """
        return self._each("marks/", lambda info, content: self.signed.decode_mark(info.name, content, info.modified))

    def notes(self) -> list[Note]:
        """All notes, oldest first."""
        return self._each("notes/", lambda info, content: self.signed.decode_note(info.name, content))

    def run_events(self) -> list[tuple[str, RunEvent]]:
        """All run objects with their names."""
        return self._each(
            "runs/", lambda info, content: (info.name, self.signed.decode_run(info.name, content, info.modified))
        )

    def _each(self, prefix: str, decode: Callable[[ObjectInfo, bytes], T]) -> list[T]:
        """All objects of a kind, none that is gone: what replaces it may stand in a listing made now only."""

        def read() -> list[T]:
            infos = sorted(self.store.list(prefix), key=lambda info: info.name)
            return [decode(info, content()) for info, content in read_several(self.store, infos)]

        return listed_again(read)


def listed_again(read: Callable[[], T]) -> T:
    """Read what a listing shows, from a new listing if something vanished meanwhile.

    Raises:
        ObjectNotFound: the store lists what it does not have.
    """
    for _ in range(_LISTINGS - 1):
        try:
            return read()
        except ObjectNotFound:
            continue
    return read()


@dataclass(slots=True)
class Catalog:
    """Packs by SHA-256, those that are marked, and the index over the rest."""

    packs: dict[bytes, ObjectInfo]
    marked: frozenset[bytes]
    index: Index
    #: Packs that no index names, with their frames: a run writes an index for them.
    orphans: list[tuple[PackRow, tuple[FrameRow, ...]]] = field(default_factory=list)
    #: Birth id → objects that hold frames born there.
    objects: dict[bytes, list[PackRow]] = field(default_factory=dict)

    def usable(self) -> set[bytes]:
        """SHA-256s of packs that are listed and unmarked."""
        return set(self.packs) - self.marked

    def add_pack(self, row: PackRow, info: ObjectInfo) -> None:
        """A pack that this run has put."""
        self.packs[row.digest] = info
        self.objects.setdefault(row.birth, []).append(row)


def marked_packs(marks: Iterable[Mark]) -> frozenset[bytes]:
    """Packs that no run may rely on: those prune means to sweep, and damaged ones."""
    return frozenset(pack for mark in marks if mark.event in ("mark", "damaged") for pack in mark.packs)


def damaged_packs(marks: Iterable[Mark]) -> frozenset[bytes]:
    """Packs that a check found damaged."""
    return frozenset(pack for mark in marks if mark.event == "damaged" for pack in mark.packs)


def marked_snapshots(marks: Iterable[Mark]) -> frozenset[str]:
    """Names of manifests that prune means to drop."""
    return frozenset(name for mark in marks if mark.event == "mark" for name in mark.snapshots)


def load_catalog(place: Place, marks: Iterable[Mark]) -> Catalog:
    """List packs, then read the index; `marks` were listed before. Begins again where prune removed something meanwhile."""
    marked = marked_packs(marks)
    return listed_again(lambda: _load(place, marked))


def _load(place: Place, marked: frozenset[bytes]) -> Catalog:
    packs = {digest_of(info.name): info for info in place.store.list("packs/")}
    parts = list(_parts(place))
    place.index_cache.forget_others({part.name for part in parts})
    catalog = Catalog(packs=packs, marked=marked, index=Index(parts))
    for row in catalog.index.pack_rows():
        if row.digest in packs:
            rows = catalog.objects.setdefault(row.birth, [])
            if row not in rows:
                rows.append(row)
    catalog.marked |= _cut_packs(place, catalog)
    _adopt_orphans(place, catalog)
    catalog.index.use_only(catalog.usable())
    return catalog


def _cut_packs(place: Place, catalog: Catalog) -> frozenset[bytes]:
    """Packs whose size is not the one that the index knows: damaged for sure, so that no run relies on them. They are told."""
    sizes = {row.digest: row.size for rows in catalog.objects.values() for row in rows}
    cut = [catalog.packs[digest] for digest, size in sizes.items() if catalog.packs[digest].size != size]
    for info in cut:
        hint = (
            "what it held is stored anew where it is still there; heal it from a copy, and run 'opsd check --read-data'"
        )
        problem = f"it has {info.size} bytes, not {sizes[digest_of(info.name)]}"
        place.reporter.warn(Warning(subject=info.name, problem=problem, hint=hint))
    return frozenset(digest_of(info.name) for info in cut)


def _parts(place: Place) -> Iterator[IndexPart]:
    """The index objects, from the cache or the store; a damaged one is told and done without: footers say the same."""
    missing = []
    for info in place.store.list("index/"):
        if cached := place.index_cache.part(info.name):
            yield cached
        else:
            missing.append(info)
    for info, content in read_several(place.store, missing):
        try:
            plain = decode_index(info.name, content(), place.ring.repository, place.ring.index())
        except ObjectDamaged as error:
            hint = "nothing is lost by it: the packs' footers say the same; 'opsd check --repair' writes it anew"
            place.reporter.warn(Warning(subject=info.name, problem=error.problem, hint=hint))
            continue
        place.index_cache.keep(info.name, plain)
        yield IndexPart(info.name, plain)


def _adopt_orphans(place: Place, catalog: Catalog) -> None:
    known = {row.digest for rows in catalog.objects.values() for row in rows}
    for digest, info in list(catalog.packs.items()):
        if digest in known:
            continue
        try:
            found = footer_of(place, info)
        except ObjectNotFound:
            # A sweep takes one after the other, and what is still needed of them has stood elsewhere for days.
            del catalog.packs[digest]
            continue
        except ObjectDamaged as error:
            place.reporter.warn(Warning(subject=error.name, problem=error.problem, hint=error.hint))
            continue
        catalog.orphans.append(found)
    if catalog.orphans:
        rows, entries = rows_and_entries(catalog.orphans)
        catalog.index.parts.append(IndexPart("", index_table(rows, entries)))
        for row in rows:
            catalog.objects.setdefault(row.birth, []).append(row)


def footer_of(place: Place, info: ObjectInfo) -> tuple[PackRow, tuple[FrameRow, ...]]:
    """A pack's row and frames, from the pack itself.

    Raises:
        ObjectDamaged: it has no valid footer.
    """
    found = find_footer(place.store, info.name, info.size)
    frames = read_footer(place.store, info.name, found, place.ring.repository, place.ring.index())
    birth = frames[0].birth if frames else b"\0" * 16
    return PackRow(birth, digest_of(info.name), info.size, found.length), frames
