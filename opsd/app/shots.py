"""What the snapshots at a store are worth for a restore, as far as can be told without a reader's key.

Promise: with this host's keys a snapshot counts source by source; without any, as a whole, by what its writer signed in the clear. Of a
manifest that can't be read nothing is believed, and it is counted.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from opsd.errors import ObjectDamaged, ObjectNotFound
from opsd.model import Outcome, SnapshotSummary
from opsd.repository.format import time_of
from opsd.repository.local import Memory
from opsd.repository.repository import Repository
from opsd.repository.witness import Number, Statement, Witness
from opsd.retention.policy import PARTIAL_JOBS
from opsd.storage.protocol import ObjectInfo, Store
from opsd.storage.several import read_several
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A snapshot as a place to come back to. `time`: the moment it holds; `whole`: every source is in it, and none failed.

    `labels`: the sources that it gives back. `due`: when its writer promised the next one, 0 where it did not.
    """

    time: int
    whole: bool
    labels: frozenset[str] = frozenset()
    due: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the repository of this host holds. `shots` by name of the manifest; those that prune has marked are in `marked` only.

    `lost`: how many snapshots were there, or must be by the numbers of the others, and no prune dropped them. `dropped`: what it did.
    `unreadable`: how many are there, and damaged.
    """

    shots: Mapping[str, Shot] = field(default_factory=dict)
    marked: Mapping[str, Shot] = field(default_factory=dict)
    summaries: Sequence[SnapshotSummary] = ()
    lost: int = 0
    unreadable: int = 0
    dropped: frozenset[Number] = frozenset()
    created: int = 0

    @property
    def all(self) -> Mapping[str, Shot]:
        """The marked ones too: a copy may keep them."""
        return {**self.shots, **self.marked}


def of_repository(repository: Repository, host: str, memory: Memory, before: Iterable[Number]) -> Known:
    """What an open repository holds of a host; `memory` is what the host put last, `before` the numbers that its copies have seen.

    Raises:
        IntegrityError, StorageError: it can't be read.
    """
    place = repository.place
    before_it = _manifests(place.store)  # One that comes or goes meanwhile is not damaged.
    found = repository.snapshots(marked=True)
    unreadable = len((before_it & _manifests(place.store)) - {each.name for each in found})
    dropped = frozenset(number for note in place.notes() for number in note.sequences)
    own = place.ring.writer.public().id if place.ring.writer else b""
    must = {(own, number) for number in range(1, memory.sequence + 1)} if own else set()
    numbers = {(each.writer, each.sequence) for each in found}
    destroyed = frozenset(domain.number for domain in place.settings.domains if not domain.keys)
    shots = {each.name: _shot(each, host, destroyed) for each in found}
    return Known(
        shots={each.name: shots[each.name] for each in found if not each.marked},
        marked={each.name: shots[each.name] for each in found if each.marked},
        summaries=tuple(each for each in found if each.host == host and not each.marked),
        lost=lost(numbers, must.union(before), dropped, unreadable=unreadable),
        unreadable=unreadable,
        dropped=dropped,
        created=place.settings.created,
    )


def of_witness(store: Store, witness: Witness, labels: Iterable[str] | None, before: Iterable[Number]) -> Known:
    """The same without keys: a whole snapshot gives back all of `labels`; with None, what is named after its host.

    Raises:
        IntegrityError, StorageError: it can't be read.
    """
    infos = list(store.list("snapshots/"))
    found = dict(statements(store, witness, infos))
    unreadable = len({info.name for info in infos} & _manifests(store) - found.keys())
    # Read last: a prune that is at work puts its note before it takes a manifest.
    notes = read_several(store, list(store.list("notes/")))
    dropped = frozenset(number for info, content in notes for number in witness.dropped(info.name, content()))
    return Known(
        shots=stated(found, witness, labels),
        lost=lost({_number(each) for each in found.values()}, before, dropped, unreadable=unreadable),
        unreadable=unreadable,
        dropped=dropped,
        created=witness.settings.created,
    )


def statements(store: Store, witness: Witness, infos: Iterable[ObjectInfo]) -> Iterator[tuple[str, Statement]]:
    """What manifests say in the clear, newest first; one that can't be read says nothing."""
    newest_first = sorted(infos, key=lambda info: info.name, reverse=True)
    for info, content in read_several(store, newest_first):
        try:
            yield info.name, witness.statement(info.name, content())
        except (ObjectDamaged, ObjectNotFound):
            continue


def stated(found: Mapping[str, Statement], witness: Witness, labels: Iterable[str] | None) -> dict[str, Shot]:
    """What statements are worth. A writer that promises a next snapshot does so in those of every source only."""
    hosts = {writer.key.id: writer.label for writer in witness.settings.writers}
    promising = {each.writer for each in found.values() if each.next_due is not None}
    shots = {}
    for name, each in found.items():
        whole = each.complete and (each.next_due is not None or each.writer not in promising)
        given = (hosts.get(each.writer, ""),) if labels is None else labels
        shots[name] = Shot(
            time=time_of(name), whole=whole, labels=frozenset(given if whole else ()), due=each.next_due or 0
        )
    return shots


def lost(shown: set[Number], must: Iterable[Number], dropped: Collection[Number], *, unreadable: int) -> int:
    """How many snapshots must be there by what was seen and by the numbers of the others, and are not, nor were dropped."""
    newest: dict[bytes, int] = {}
    for writer, number in shown:
        newest[writer] = max(number, newest.get(writer, 0))
    expected = {(writer, number) for writer, last in newest.items() for number in range(1, last)}
    return max(0, len(expected.union(must) - shown - set(dropped)) - unreadable)


def _manifests(store: Store) -> set[str]:
    return {info.name for info in store.list("snapshots/")}


def _number(each: Statement) -> Number:
    return each.writer, each.sequence


def _shot(summary: SnapshotSummary, host: str, destroyed: frozenset[int]) -> Shot:
    """One that this host took, as a run of every source; others give nothing back that could be relied on, nor do destroyed key domains."""
    counts = summary.host == host and summary.job not in PARTIAL_JOBS
    good = frozenset(each.label for each in summary.sources if each.outcome is not Outcome.FAILED)
    is_broken = not summary.complete and len(good) == len(summary.sources)  # Its run ended otherwise.
    good -= {each.label for each in summary.sources if each.domain in destroyed}
    return Shot(
        time=summary.started,
        whole=counts and summary.complete,
        labels=good if counts and not is_broken else frozenset(),
    )
