"""Bring a copy of a repository up to date: the same objects on another store, bit for bit, without any key.

Promise: a manifest arrives only after all that its source listed for it, every object proved by its name; nothing is removed, and only what
has another size than the proved bytes is replaced. Stopped anywhere, the next pass ends whole. Design: "A pass of `copy`".
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from functools import partial

from opsd.backup.copy_run import CopyKeys, CopyRun
from opsd.backup.copy_state import CopyMemory, CopyState
from opsd.backup.history import Visit, disagreements
from opsd.backup.limits import Throttle
from opsd.backup.listings import (
    SNAPSHOTS,
    TRANSFERRED,
    Listing,
    expected,
    lacking,
    list_source,
    list_target,
    read_history,
    refuse_emptied,
    refuse_marked,
    refuse_other,
    refuse_replaced,
)
from opsd.backup.transfers import Spool, Transfers
from opsd.clock import Clock
from opsd.errors import IntegrityError, ObjectNotFound
from opsd.events import Reporter, Total
from opsd.repository.catalog import listed_again
from opsd.repository.proof import problem_of, window
from opsd.repository.witness import Witness
from opsd.storage.protocol import ObjectInfo, Store
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How to fill a copy. `keys`: how this host gets its keys to the repository, if it has any; asked once there is work to do."""

    state: CopyState
    spool: Spool
    clock: Clock
    reporter: Reporter
    throttle: Throttle
    keys: Callable[[], CopyKeys | None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What a copy came to. `held` are manifests that were left out, since what they may need is damaged in the source.

    `damaged`: objects of the source, and what is wrong. `alarms`: what source and copy show that can't be true. `listed`: what
    stands in the copy now, `in_source` the names that the source lists.
    """

    name: str
    objects: int = 0
    size: int = 0
    snapshots: int = 0
    new_snapshots: int = 0
    held: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    listed: Collection[ObjectInfo] = ()
    in_source: frozenset[str] = frozenset()

    @property
    def is_sound(self) -> bool:
        """Whether all that the source holds is in the copy, and nothing contradicts what was seen before."""
        return not (self.damaged or self.alarms or self.held)


@dataclass(slots=True)
class _Done:
    """What the passes have done so far."""

    objects: int = 0
    size: int = 0
    new_snapshots: int = 0
    held: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)


class Copy:
    """One source and one copy of it."""

    def __init__(self, source: Store, target: Store, options: CopyOptions) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._name = options.state.name
        self._transfers = Transfers(source, target, options.spool, options.throttle)
        self._done = _Done()
        self._there: dict[str, ObjectInfo] = {}
        self._witness: Witness | None = None
        self._keys: CopyKeys | None = None

    def bring_up_to_date(self) -> CopyReport:
        """Compare both with what was seen before, and bring what the copy lacks.

        Raises:
            HistoryDisagrees: one that was filled before lists nothing. NotARepository: it holds another repository.
            IntegrityError: what the copy held was removed meanwhile. TryLater: another pass fills it. StorageError.
        """
        with self._options.state.locked():
            return self._visit(self._options.state.read())

    def _visit(self, before: CopyMemory) -> CopyReport:
        source, target, seen = listed_again(lambda: self._look(before))
        alarms = tuple(disagreements(seen, before.visit))
        if lacking(source, target):
            seen = self._fill(before)
        self._remember(before, seen)
        return CopyReport(
            name=self._name,
            objects=self._done.objects,
            size=self._done.size,
            snapshots=len(seen.target.snapshots),
            new_snapshots=self._done.new_snapshots,
            held=tuple(sorted(self._done.held)),
            damaged=self._done.damaged,
            alarms=alarms,
            listed=self._there.values(),
            in_source=frozenset(source),
        )

    def alarms(self) -> tuple[str, ...]:
        """What source and copy show that can't be true; nothing is written.

        Raises:
            HistoryDisagrees, NotARepository, IntegrityError, StorageError: as bringing up to date does.
        """
        before = self._options.state.read()
        _, _, seen = listed_again(lambda: self._look(before))
        return tuple(disagreements(seen, before.visit))

    # Looking

    def _look(self, before: CopyMemory) -> tuple[Listing, Listing, Visit]:
        """What both list, and the history that this shows; only what was never seen is read."""
        with expected(f"the source of copy {self._name}", filled=bool(before.repository)):
            source = list_source(self._source)
        with expected(f"copy {self._name}", filled=bool(before.repository)):
            target = list_target(self._target)
        self._there = dict(target)
        refuse_emptied(source, target, before, self._name)
        if before.repository and not any(name.startswith("settings/") and name in target for name in source):
            refuse_replaced(self._source, before.repository, self._name)
        refuse_other(self._source, self._target, source, target, self._name)
        witness = partial(self._vouching, before)
        known = before.visit.source.joined(before.visit.target)
        shown = read_history(self._source, source, known, witness)
        there = read_history(self._target, target, shown.joined(known), witness)
        return source, target, Visit(source=shown, target=there)

    def _vouching(self, before: CopyMemory) -> Witness:
        """Who vouches for what is read; the settings are read once."""
        if self._witness is None:
            self._witness = Witness.of(self._source, bytes.fromhex(before.owner))
        return self._witness

    def _remember(self, before: CopyMemory, seen: Visit) -> None:
        settings = self._vouching(before).settings if self._witness or not before.repository else None
        whole = not (self._done.held or self._done.damaged)
        self._options.state.write(
            CopyMemory(
                repository=settings.repository.hex() if settings else before.repository,
                owner=settings.owner.id.hex() if settings else before.owner,
                visit=seen,
                completed=self._options.clock.now() if whole else before.completed,
            )
        )

    # Filling

    def _fill(self, before: CopyMemory) -> Visit:
        """Passes, until nothing that one listed had vanished when it wanted it."""
        self._options.spool.clear()
        self._keys = self._options.keys()
        with CopyRun(self._target, self._keys, self._options.clock) as run:
            return listed_again(lambda: self._pass(before, run))

    def _pass(self, before: CopyMemory, run: CopyRun) -> Visit:
        source, target, seen = self._look(before)
        refuse_marked(self._target, source, self._keys)
        self._done.damaged.clear()
        wanted = lacking(source, target)
        size = sum(info.size for info in wanted.values())
        self._options.reporter.stage(f"copy to {self._name}", Total(files=len(wanted), size=size))
        arrived: list[str] = []
        for prefix in TRANSFERRED:
            arrived += self._bring([info for name, info in wanted.items() if name.startswith(prefix)], target, run)
        arrived += self._bring_manifests(source, target, run)
        return Visit(source=seen.source, target=seen.target.joined(seen.source).only({*target, *arrived}))

    def _bring(self, infos: Iterable[ObjectInfo], target: Listing, run: CopyRun) -> list[str]:
        """Bring objects of one kind; the names of those that arrived."""
        arrived = []
        wanted = {info.name: info for info in infos}
        for each in self._transfers.bring(wanted.values(), target.__contains__):
            if each.problem is None:
                arrived.append(each.name)
                self._there[each.name] = wanted[each.name]
                self._done.objects += 1
                self._done.size += each.size
            else:
                self._done.damaged[each.name] = each.problem
            self._options.reporter.advance(files=1, size=each.size)
            run.alive()
        return arrived

    def _bring_manifests(self, source: Listing, target: Listing, run: CopyRun) -> list[str]:
        """The manifests that the source still lists, between two proofs that the copy holds all that the pass listed."""
        still = {info.name for info in self._source.list(SNAPSHOTS)}
        wanted = [info for name, info in lacking(source, target).items() if name in still]
        self._done.held = self._to_hold(wanted, target)
        bringing = [info for info in wanted if info.name not in self._done.held]
        if not bringing:
            return []
        needed = {name for name in source if not name.startswith(SNAPSHOTS)} - self._done.damaged.keys()
        self._prove(needed)
        arrived = self._bring(bringing, target, run)
        self._done.new_snapshots += len(arrived)
        self._prove({*needed, *arrived})
        return arrived

    def _to_hold(self, wanted: Iterable[ObjectInfo], target: Listing) -> set[str]:
        """The manifests that may need what is damaged in the source and not whole in the copy."""
        missing = {
            name
            for name in self._done.damaged
            if name.startswith(("packs/", "wal/"))
            and not (name in target and problem_of(self._target, target[name], window()) is None)
        }
        return {info.name for info in wanted if missing and self._may_need(info.name, missing)}

    def _may_need(self, manifest: str, missing: Collection[str]) -> bool:
        return True if self._keys is None else self._keys.needs(manifest, missing)

    def _prove(self, needed: Collection[str]) -> None:
        """All of these are listed in the copy, and no prune there means to remove one.

        Raises:
            IntegrityError: one is not. ObjectNotFound: the source does not list it any more either: the pass begins again.
        """
        try:
            refuse_marked(self._target, needed, self._keys)
            self._refuse_removed(needed)
        except IntegrityError as error:
            if vanished := set(needed) - list_source(self._source).keys():
                raise ObjectNotFound(min(vanished)) from error
            raise

    def _refuse_removed(self, needed: Collection[str]) -> None:
        gone = set(needed) - list_target(self._target).keys()
        if gone:
            raise IntegrityError(
                f"{len(gone)} objects, such as {min(gone)}, were removed from copy {self._name} while it was filled",
                hint="run 'opsd copy' again; if that does not help, the store does not list what was put",
            )
