"""Whether every host that writes to a store still does: seen from the store alone, without any key.

Promise: only what a writer signed counts, and its own clock is not believed: who dates snapshots in the future is told, since such a
host would never be late. A damaged manifest is passed over: it hides nothing, it only makes its host look late.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum

from opsd import clock
from opsd.errors import ObjectDamaged
from opsd.repository.format import time_of
from opsd.repository.witness import Statement, Witness
from opsd.storage.protocol import Store
from opsd.values import dataclass

#: How far ahead a writer's clock may be, in ns.
_CLOCK_TOLERANCE = 3600 * clock.SECOND


class Standing(StrEnum):
    """Where a host stands with its promise."""

    IN_TIME = "in time"
    LATE = "late"
    NEVER = "no complete snapshot"
    AHEAD = "dated in the future"
    UNPLANNED = "states no schedule"
    UNFILLED = "never filled"

    @property
    def is_good(self) -> bool:
        """Whether nobody need look."""
        return self in {Standing.IN_TIME, Standing.UNPLANNED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host in a store: when its newest complete snapshot was taken and the next is due, in ns UTC; None where there is none."""

    label: str
    newest: int | None = None
    due: int | None = None

    def standing(self, now: int, patience: int = 0) -> Standing:
        """What to say of it now; the store may get a snapshot `patience` ns after it is due."""
        if self.newest is None:
            return Standing.NEVER
        if self.newest > now + _CLOCK_TOLERANCE:
            return Standing.AHEAD
        if self.due is None:
            return Standing.UNPLANNED
        return Standing.LATE if now > self.due + patience else Standing.IN_TIME


def hosts(store: Store, owner: bytes = b"") -> tuple[Host, ...]:
    """Every host that the settings let write to a repository; `owner` is the id of its owner's key where that is known.

    Raises:
        NotARepository: there is none. IntegrityError: no settings are valid. StorageError: it can't be read.
    """
    witness = Witness.of(store, owner)
    labels = {writer.key.id: writer.label for writer in witness.settings.writers}
    newest = _newest(_statements(store, witness), labels)
    return tuple(newest.get(label, Host(label=label)) for label in dict.fromkeys(labels.values()))


def _newest(statements: Iterable[tuple[int, Statement]], labels: Mapping[bytes, str]) -> dict[str, Host]:
    """The newest complete snapshot of each host that promises a next one, else its newest complete one.

    A host that was enrolled again has several keys and one name.
    """
    found: dict[str, Host] = {}
    for time, stated in statements:
        label = labels.get(stated.writer)
        if label is None or not stated.complete:
            continue
        if label not in found or (found[label].due is None and stated.next_due is not None):
            found[label] = Host(label=label, newest=time, due=stated.next_due)
        if _is_settled(found.values(), labels.values()):
            break
    return found


def _is_settled(found: Collection[Host], labels: Collection[str]) -> bool:
    return len(found) == len(set(labels)) and all(each.due is not None for each in found)


def _statements(store: Store, witness: Witness) -> Iterator[tuple[int, Statement]]:
    """What manifests say, newest first."""
    for name in sorted((info.name for info in store.list("snapshots/")), reverse=True):
        try:
            yield time_of(name), witness.statement(name, store.read(name))
        except ObjectDamaged:
            continue
