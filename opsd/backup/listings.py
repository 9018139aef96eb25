"""What a source and its copy list, in the order that makes it safe, and what must not be taken for a list.

Promise: an empty list is never "nothing there" where something was; a copy of another repository, and one whose prune means to remove what
is to be filled, are refused before anything is written.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opsd.backup.copy_run import CopyKeys
from opsd.backup.copy_state import CopyMemory, refuse_foreign
from opsd.backup.history import History
from opsd.errors import (
    HistoryDisagrees,
    IntegrityError,
    KeyMissing,
    NewerFormat,
    NotARepository,
    ObjectDamaged,
    StoreGone,
)
from opsd.repository.catalog import marked_snapshots
from opsd.repository.format import pack_name
from opsd.repository.opening import repository_id
from opsd.repository.witness import Number, Witness
from opsd.storage.protocol import ObjectInfo, Store

SNAPSHOTS: Final = "snapshots/"
#: A source is listed in this order, and transferred in the reverse: what a manifest needs is listed after it, and arrives before.
_LISTED: Final = (SNAPSHOTS, "index/", "wal/", "packs/", "notes/", "keys/", "settings/")
#: All but manifests, which come last and only as far as the source still lists them.
TRANSFERRED: Final = tuple(reversed(_LISTED[1:]))

Listing = Mapping[str, ObjectInfo]


def list_source(store: Store) -> Listing:
    """All that travels, kind by kind."""
    return {info.name: info for prefix in _LISTED for info in store.list(prefix)}


def list_target(store: Store) -> Listing:
    """All that stands there, in one listing."""
    return {info.name: info for info in store.list("")}


@contextmanager
def expected(what: str, *, filled: bool) -> Iterator[None]:
    """A store whose folder is gone was rolled back, unmounted or emptied, if it was filled before.

    Raises:
        HistoryDisagrees: it was.
    """
    try:
        yield
    except StoreGone as error:
        if not filled:
            raise
        raise HistoryDisagrees(
            f"{what} was filled before, and now {error}",
            hint="is the right disk mounted there? nothing was written; do not run 'opsd init'",
        ) from error


def lacking(source: Listing, target: Listing) -> dict[str, ObjectInfo]:
    """What the copy lacks, or has with another size."""
    return {name: info for name, info in source.items() if name not in target or target[name].size != info.size}


def _has(listing: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in listing)


def refuse_emptied(source: Listing, target: Listing, before: CopyMemory, name: str) -> None:
    """Refuse what lists nothing where there was something.

    Raises:
        HistoryDisagrees: one was filled before. NotARepository: the source never was one.
    """
    seen = before.visit
    filled = {
        "settings/": bool(before.repository) or _has(target, "settings/"),
        SNAPSHOTS: bool(seen.source.snapshots) or _has(target, SNAPSHOTS),
        "packs/": _has(target, "packs/"),
    }
    for prefix, was in filled.items():
        if was and not _has(source, prefix):
            raise HistoryDisagrees(
                f"the source of copy {name} lists nothing under {prefix}, and did before",
                hint="is the right disk mounted, the right account used? nothing was written; do not run 'opsd init'",
            )
    if not _has(source, "settings/"):
        raise NotARepository("there is no repository to copy", hint="check its place, or create it with 'opsd init'")
    held = {"settings/": bool(before.repository), SNAPSHOTS: bool(seen.target.snapshots)}
    held["packs/"] = held[SNAPSHOTS]
    for prefix, was in held.items():
        if was and not _has(target, prefix):
            heal = f"'opsd check --copy {name} --repair' brings back what it can; " if target else ""
            raise HistoryDisagrees(
                f"copy {name} was filled before and lists nothing under {prefix}",
                hint=f"is the right disk mounted there? {heal}if it is lost for good, give the new one another name under copies:",
            )


def refuse_replaced(source: Store, wanted: str, name: str) -> None:
    """Refuse a source that is not the repository (its id in hex) that the copy was filled from.

    Raises:
        NotARepository: it is another.
    """
    found = repository_id(source).hex()
    if found != wanted:
        raise NotARepository(
            f"the source of copy {name} is another repository now, {found[:16]}; the copy holds {wanted[:16]}",
            hint="was it made anew? the copy still restores; give that of the new one another name and place",
        )


def refuse_other(source: Store, target: Store, listed: Listing, there: Listing, name: str) -> None:
    """Refuse a target that holds something else.

    Raises:
        NotARepository: another repository, or what is none.
    """
    settings = {each for each in there if each.startswith("settings/")}
    if settings & listed.keys():
        return
    if settings:
        refuse_foreign(repository_id(target), repository_id(source).hex(), name)
        return
    # A copy begins with its run, then come settings.
    foreign = [each for each in there if each not in listed and not each.startswith("runs/")]
    if foreign:
        raise NotARepository(f"the place of copy {name} is not empty: {min(foreign)}", hint="choose an empty place")


def refuse_marked(target: Store, names: Collection[str], keys: CopyKeys | None) -> None:
    """Refuse to rely on what a prune of the copy means to remove; what marks name, only a key tells.

    Raises:
        IntegrityError: one of the names is marked. KeyMissing: there are marks, and no key.
    """
    marks = []
    for info in target.list("marks/"):
        if keys is None:
            raise KeyMissing(
                "the copy holds marks of a prune, and without a key nobody can tell what they name",
                hint="copy from the host that has the keys, or wait until its prune of the copy has ended",
            )
        marks.append(keys.signed.decode_mark(info.name, target.read(info.name), info.modified))
    going = marked_snapshots(marks) | {pack_name(pack) for each in marks if each.event == "mark" for pack in each.packs}
    if found := going & set(names):
        raise IntegrityError(
            f"a prune of the copy means to remove {min(found)}, which the source lists",
            hint="run 'opsd copy' again once that prune has ended",
        )


def read_history(store: Store, listing: Listing, known: History, witness: Callable[[], Witness]) -> History:
    """The history that a listing shows; only what is not known yet is read, and for that a witness is called.

    Raises:
        ObjectNotFound: something vanished.
    """
    snapshots: dict[str, Number] = {}
    notes: dict[str, tuple[Number, ...]] = {}
    unreadable = 0
    for name in sorted(listing):
        if not name.startswith((SNAPSHOTS, "notes/")):
            continue
        is_note = name.startswith("notes/")
        try:
            if is_note:
                notes[name] = known.notes[name] if name in known.notes else witness().dropped(name, store.read(name))
            elif name in known.snapshots:
                snapshots[name] = known.snapshots[name]
            else:
                snapshots[name] = witness().number(name, store.read(name))
        except (ObjectDamaged, NewerFormat):
            unreadable += not is_note
    return History(snapshots=snapshots, notes=notes, unreadable=unreadable)
