"""Look at one place that holds snapshots: the repository, a copy, a pull.

Promise: needs no reader's key and writes nothing. What can't be read raises; what a place never held is no error.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import field, replace

from opsd.app.emptied import filled, opened_copy
from opsd.app.session import Session
from opsd.app.shots import Known, Shot, of_repository, of_witness, stated, statements
from opsd.app.slices import Verifying, verifying
from opsd.backup.copy_state import CopyMemory, CopyState
from opsd.backup.places import FolderPlace, StorePlace
from opsd.errors import StorageError
from opsd.monitor.observed import PlaceSeen, Point
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.repository.witness import Number, Witness
from opsd.storage.protocol import ObjectInfo, Store
from opsd.values import dataclass
from opsd.verify.checked import CheckedFile
from opsd.verify.drill_record import DrillRecord
from opsd.verify.slices import Checked, coverage

REPOSITORY = "repository"
#: What a restore reads; other objects come and go with runs.
_NEEDED = ("packs/", "index/", "snapshots/")
#: Of a copy whose repository can't be read, so many manifests say to when it goes back.
_ASKED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What to look at and with what in mind. `drills`: the green ones of this place."""

    session: Session
    name: str
    kind: str
    place: StorePlace
    drills: Sequence[DrillRecord] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a store was found to hold: its objects, and its snapshots by the names of their manifests."""

    listed: Sequence[ObjectInfo]
    checked: Checked
    shots: Mapping[str, Shot] = field(default_factory=dict)


def look_at_repository(look: Look) -> tuple[PlaceSeen, Known]:
    """The repository of this host.

    Raises:
        OpsdError: it can't be read.
    """
    session = look.session
    with filled(session.settings, None):
        known = known_of(session)
    folder = session.settings.state / "checked" / "repositories"
    checked = CheckedFile(folder / repository_id(session.store).hex()).read()
    held = Held(listed=list(session.store.list("")), checked=checked, shots=known.shots)
    seen = _seen(look, held)
    return replace(seen, lost=known.lost, damaged=seen.damaged + known.unreadable), known


def known_of(session: Session) -> Known:
    """The snapshots of this host's repository.

    Raises:
        OpsdError: it can't be read.
    """
    store, state = session.store, HostState(session.settings.state)
    before = _numbers_seen(session)
    if ring := state.read_keys(repository_id(store)):
        return of_repository(session.open(), session.settings.host, state.memory(ring.repository), before)
    return of_witness(store, Witness.of(store), labels_of(session), before)


def labels_of(session: Session) -> tuple[str, ...]:
    """The sources of this host."""
    return tuple(source.label for source in session.settings.sources)


def look_at_copy(look: Look, known: Known) -> PlaceSeen:
    """A copy of this host's repository, of which `known` is what it holds.

    Raises:
        OpsdError: it can't be read, or was filled before and is empty now.
    """
    memory = CopyState(look.session.settings.state, look.name).read()
    with ExitStack() as stack:
        store = opened_copy(look.session, look.name, look.place, stack)
        if store is None:
            return replace(_seen(look, Held(listed=(), checked=Checked())), missing=_missing(known, ()))
        listed = list(store.list(""))
        names = [info for info in listed if info.name.startswith("snapshots/")]
        shots = {info.name: known.all[info.name] for info in names if info.name in known.all}
        shots |= _unknown(look, store, memory, (names, shots))
        held = Held(listed=listed, checked=_checked(look), shots=shots)
        return replace(
            _seen(look, held),
            missing=_missing(known, shots),
            completed=memory.completed,
            lost=_lost(memory, store, listed, known),
        )


def look_at_pull(look: Look) -> PlaceSeen:
    """A copy of another host's repository, to which this host has no key; its sources are the hosts that write to it.

    Raises:
        OpsdError: it can't be read, or was filled before and is empty now.
    """
    memory = CopyState(look.session.settings.state, look.name).read()
    with ExitStack() as stack:
        store = opened_copy(look.session, look.name, look.place, stack)
        if store is None:
            return _seen(look, Held(listed=(), checked=Checked()))
        found = of_witness(store, Witness.of(store, bytes.fromhex(memory.owner)), None, ())
        held = Held(listed=list(store.list("")), checked=_checked(look), shots=found.shots)
        newest = {label: shot for shot in _oldest_first(found.shots) for label in shot.labels}
        dues = [shot.due for shot in newest.values() if shot.due]
        lost = _lost(memory, store, held.listed, found)
        seen = _seen(look, held)
        damaged = seen.damaged + found.unreadable
        return replace(seen, completed=memory.completed, due=min(dues, default=0), lost=lost, damaged=damaged)


def _unknown(
    look: Look, store: Store, memory: CopyMemory, seen: tuple[Sequence[ObjectInfo], Mapping[str, Shot]]
) -> dict[str, Shot]:
    """Snapshots that only the copy has. Those older than what the repository has change nothing: they count, unread."""
    names, known = seen
    newest = max(known, default="")
    asked = sorted((info for info in names if info.name > newest), key=lambda info: info.name)[-_ASKED:]
    found: dict[str, Shot] = {}
    if asked:
        witness = Witness.of(store, bytes.fromhex(memory.owner))
        found = stated(dict(statements(store, witness, asked)), witness, labels_of(look.session))
    old = {info.name for info in names} - known.keys() - {info.name for info in asked}
    return found | dict.fromkeys(old, Shot(time=0, whole=True))


def _seen(look: Look, held: Held) -> PlaceSeen:
    """What is the same for every place."""
    now = look.session.clock.now()
    # Every snapshot has a pack: without any left, nothing comes back.
    hollow = len(held.shots) if not any(info.name.startswith("packs/") for info in held.listed) else 0
    held = replace(held, shots={}) if hollow else held
    covered = coverage(held.listed, held.checked, now)
    how = verifying(look.session.settings, look.name)
    whole = [shot for shot in held.shots.values() if shot.whole]
    return PlaceSeen(
        kind=look.kind,
        looked=now,
        snapshots=len(whole),
        newest=max((shot.time for shot in whole), default=0),
        bytes=covered.total,
        free=_free(look.place),
        damaged=hollow,
        unread=_unread(held, how),
        verify=how.verify,
        read_share=covered.read / covered.total if covered.total else 0.0,
        vouched_share=covered.vouched / covered.total if covered.total else 0.0,
        points=points_of(held, look.drills),
    )


def points_of(held: Held, drills: Iterable[DrillRecord]) -> dict[str, Point]:
    """To when each source goes back. What was put after a manifest is not part of its snapshot, so that the oldest unread object tells."""
    put = {info.name: info.modified for info in held.listed}
    unread = min(
        (info.modified for info in held.listed if info.name.startswith(_NEEDED) and not held.checked.of(info).read),
        default=None,
    )
    points: dict[str, Point] = {}
    for name, shot in held.shots.items():
        is_read = unread is None or put.get(name, unread) < unread
        for label in shot.labels:
            before = points.get(label, Point())
            points[label] = replace(
                before,
                stored=max(before.stored, shot.time),
                verified=max(before.verified, shot.time if is_read else 0),
            )
    for drill in drills:
        for label in {str(source["label"]) for source in drill.sources} & points.keys():
            restored = max(points[label].restored, drill.snapshot_time)
            points[label] = replace(points[label], restored=restored)
    return points


def _unread(held: Held, how: Verifying) -> int:
    """Since when the object that waits longest for its check does."""
    if how.verify == "off" or (how.budget is not None and how.budget < sum(info.size for info in held.listed)):
        return 0
    seen = ((info, held.checked.of(info)) for info in held.listed if info.name.startswith(_NEEDED))
    looked = ((info, max(each.read, each.vouched if how.verify == "checksum" else 0)) for info, each in seen)
    return min((time or info.modified for info, time in looked), default=0)


def _oldest_first(shots: Mapping[str, Shot]) -> list[Shot]:
    return sorted(shots.values(), key=lambda shot: shot.time)


def _missing(known: Known, there: Iterable[str]) -> int:
    """How many whole snapshots of the repository are not there."""
    return len({name for name, shot in known.shots.items() if shot.whole} - set(there))


def _lost(memory: CopyMemory, store: Store, listed: Iterable[ObjectInfo], known: Known) -> int:
    """How many manifests it showed at the last visit and shows no more; where it was pruned since, nothing can be said."""
    before = memory.visit.target
    names = {info.name for info in listed}
    dropped = known.dropped | before.dropped
    gone = sum(name not in names and number not in dropped for name, number in before.snapshots.items())
    # Listed last: a prune that is at work puts its note before it takes a manifest.
    return 0 if gone and any(info.name not in before.notes for info in store.list("notes/")) else gone


def _numbers_seen(session: Session) -> frozenset[Number]:
    """The numbers that the repository showed when its copies were filled last."""
    found: set[Number] = set()
    for copy in session.settings.copies:
        with suppress(StorageError):
            source = CopyState(session.settings.state, copy.name).read().visit.source
            found.update(set(source.snapshots.values()) - source.dropped)
    return frozenset(found)


def _checked(look: Look) -> Checked:
    return CheckedFile(look.session.settings.state / "checked" / "copies" / look.name).read()


def _free(place: StorePlace) -> int | None:
    """The room on the disk of a folder, in bytes."""
    if not isinstance(place, FolderPlace):
        return None
    try:
        found = os.statvfs(place.folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
