"""Give a store back what it lost or what rotted there, from whichever other store still has the right bytes.

Promise: only bytes that their name proves are put, and read back; a store that can't be read is passed over and told. What prune dropped
does not come back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from opsd.backup.transfers import Transfers
from opsd.errors import IntegrityError, NewerFormat, ObjectNotFound, StorageError
from opsd.events import Recorder, Reporter, Warning
from opsd.repository.catalog import Catalog, load_catalog
from opsd.repository.index import IndexCache
from opsd.repository.manifest import Manifest
from opsd.repository.proof import problem_of, window
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of
from opsd.storage.protocol import ObjectInfo, Store
from opsd.values import dataclass
from opsd.verify.check import CheckReport, opens

#: Told of a damaged object that was removed instead.
OVER: Final = "removed, since no run is alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Donor:
    """Another store of the same repository, by its name, and what brings objects from it."""

    name: str
    transfers: Transfers

    @property
    def store(self) -> Store:
        """Where it reads."""
        return self.transfers.source


@dataclass(slots=True)
class Healing:
    """One store that is healed from others; `healed` says which object came from whom."""

    store: Store
    donors: Sequence[Donor]
    reporter: Reporter
    healed: dict[str, str]

    @classmethod
    def of(cls, store: Store, donors: Sequence[Donor], reporter: Reporter) -> "Healing":
        """Nothing is healed yet."""
        return cls(store=store, donors=donors, reporter=reporter, healed={})

    def replace(self, names: Iterable[str]) -> None:
        """Objects that are listed and damaged."""
        self._bring(dict.fromkeys(names), damaged=True)

    def restore_roots(self) -> None:
        """Settings and key slots, where none are left, from donors that list a snapshot of this store: its name proves that they are of the same repository.

        Slots that are left are all that is meant to be there: others may have been removed on purpose.
        """
        own = {info.name for info in self.store.list("snapshots/")}
        for prefix in ("settings/", "keys/"):
            if any(opens(self.store, info.name) for info in self.store.list(prefix)):
                continue
            for donor in self.donors:
                try:
                    if own.isdisjoint(info.name for info in donor.store.list("snapshots/")):
                        continue
                    names = [info.name for info in donor.store.list(prefix) if info.name not in self.healed]
                except StorageError as error:
                    self._pass_over(donor, error)
                else:
                    self._bring_from(donor, names, damaged=False)

    def drop_runs(self, repository: Repository, names: Iterable[str]) -> None:
        """Damaged objects of runs, which stand nowhere else, where nobody but this host writes and no run of it is alive.

        They only keep a prune from removing what a living run relies on; its next run ends what seems open without them.
        """
        if not _is_quiet(repository):
            return
        for name in names:
            if name.startswith("runs/") and name not in self.healed:
                try:
                    self.store.delete(name)
                    self.healed[name] = OVER
                except StorageError as error:
                    self.reporter.warn(Warning(subject=name, problem=str(error), hint=error.hint))

    def restore(self, repository: Repository, lost: Collection[bytes]) -> None:
        """Packs that snapshots need and nobody lists, by birth id; then manifests that vanished without a note of prune."""
        for donor in self.donors:
            heard = Recorder()
            cache = IndexCache(repository.cache / "donors" / donor.name / "index")
            place = replace(repository.place, store=donor.store, index_cache=cache, reporter=heard)
            around = replace(repository.around, reporter=heard)
            try:
                self._restore_from(donor, Repository(place, around), repository, lost)
            except (StorageError, IntegrityError, NewerFormat) as error:
                self._pass_over(donor, error)
            for each in heard.warnings:  # Whose damage it is; what to do is said by a check of that one.
                subject = f"healing from {donor.name}"
                self.reporter.warn(Warning(subject=subject, problem=f"{each.subject} there: {each.problem}"))

    def _restore_from(self, donor: Donor, there: Repository, repository: Repository, lost: Collection[bytes]) -> None:
        vanished = _vanished(repository, there)
        births = set(lost).union(*(frames_of(there, each).births() for each in vanished))
        listed = {info.name for info in self.store.list("packs/")}
        packs = _holders(load_catalog(there.place, ()), births, listed)
        self._bring_from(donor, packs, damaged=False)
        if all(name in self.healed for name in packs):
            self._bring_from(donor, [each.summary.name for each in vanished], damaged=False)

    def _bring(self, names: Iterable[str], *, damaged: bool) -> None:
        left = list(names)
        for donor in self.donors:
            self._bring_from(donor, left, damaged=damaged)
            left = [name for name in left if name not in self.healed]

    def _bring_from(self, donor: Donor, names: Sequence[str], *, damaged: bool) -> None:
        """What the donor has whole of these."""
        try:
            infos = [info for name in names if (info := _stat(donor.store, name))]
            for each in donor.transfers.bring(infos, lambda _: damaged):
                if each.problem is None and self._stands(each.name):
                    self.healed[each.name] = donor.name
        except StorageError as error:
            self._pass_over(donor, error)

    def _stands(self, name: str) -> bool:
        """Whether what was put is what the store now gives."""
        return problem_of(self.store, self.store.stat(name), window()) is None

    def _pass_over(self, donor: Donor, error: StorageError | IntegrityError | NewerFormat) -> None:
        self.reporter.warn(Warning(subject=f"healing from {donor.name}", problem=str(error), hint=error.hint))


def _stat(store: Store, name: str) -> ObjectInfo | None:
    try:
        return store.stat(name)
    except ObjectNotFound:
        return None


def _is_quiet(repository: Repository) -> bool:
    """Whether all who may write are this host, and none of its runs is alive."""
    ring, settings = repository.place.ring, repository.place.settings
    own = {key.public().id for key in (ring.writer, ring.maintainer) if key is not None}
    signers = {each.key.id for each in (*settings.writers, *settings.maintainers)}
    return signers <= own and not repository.around.state.any_alive()


def _holders(catalog: Catalog, births: Iterable[bytes], listed: Collection[str]) -> list[str]:
    """Names of packs that hold frames of these births, and that are not among the listed."""
    rows = chain.from_iterable(catalog.objects.get(birth, ()) for birth in births)
    return sorted({row.name for row in rows if row.digest in catalog.packs} - set(listed))


def _vanished(repository: Repository, there: Repository) -> list[Manifest]:
    """Manifests that a donor holds, whose numbers nothing bears in the repository and no prune dropped."""
    found = list(there.manifests())
    known = {(each.summary.writer, each.summary.sequence) for each in repository.manifests()}
    # Read last: a prune that is at work puts its note before it takes a manifest.
    known.update(chain.from_iterable(note.sequences for note in chain(repository.place.notes(), there.place.notes())))
    return [each for each in found if (each.summary.writer, each.summary.sequence) not in known]


def healed_report(before: CheckReport, after: CheckReport, healed: Mapping[str, str]) -> CheckReport:
    """A check's report once some of what it found was healed; `after` is of a check since then that read no packs."""
    again = {problem.object for problem in after.problems}
    still = [
        problem
        for problem in before.problems
        if problem.object.startswith("packs/") and problem.object not in healed and problem.object not in again
    ]
    return replace(
        before,
        problems=(*after.problems, *still),
        notices=after.notices,
        snapshots=after.snapshots,
        packs=after.packs,
        bytes_stored=after.bytes_stored,
        proved=before.proved | after.proved,
    )
