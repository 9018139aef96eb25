"""A small model of "Many writers, and prune without locks": what lets runs and prune go side by side.

Promise: every step below is one operation on the store (a listing, a put, a delete). Between any two of them anybody else
may take any number of steps, so every delay is among the orders explored, and so is every kill: a process that was killed
takes no further step. Time is left out: a grace may have passed at any moment.

The world: one blob that both writers want. Pack 0 holds it and is indexed, and the only manifest that needs it (`old`)
is one that retention drops. Writer n stores at most one pack, n + 1, and one manifest. Numbers in brackets are the
paragraph's lists.

A writer's run:

    begin                   (1)  puts its run before it reads anything
    list_marks, list_packs, read_index
                            (2)  an entry counts only if its pack is listed and not marked
    store, enter            (3)  if none counts, puts a pack of its own, then its index entry
    look                    (3)  sees whether its run was ended by another (by a person, or after 30 days); if so
    check_marks, check_packs     fails if the pack that it needs is marked or missing
    manifest                (3)  puts the manifest, which names the run and so ends it; sees again whether another had
    recheck_marks, recheck_packs (3)  the second check, for a run that was ended by another: done, or ended as failed

Prune, again and again:

    list_packs, list_runs, list_manifests, mark
                            (1, 2)  packs that no other manifest needs, stored before the oldest open run began
    note                    (2)  lists open runs again, once the mark is durable, and notes them
    await_runs              (3)  goes on once none of the noted runs is open
    recount                 (3)  lists manifests again
    sweep_manifest, sweep_index, sweep_packs, unmark
                            (3)  removes what no other manifest needs, in this order

A prune that was killed is taken up by a later one: at the note if that is missing, else at await_runs. A merge of the
index reads all entries and puts them as one object, however stale they are by then. Anybody may end an open run at any
moment.

Left out: holds (they only keep more), repacking, copies (they have a model of their own), and the short cut over a writer's last manifest, whose packs
must be listed and unmarked like any other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.protocol.explorer import Model

WRITERS = 2
NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The rules that guard against loss; each can be left out.

    `doubt`: a manifest that was put after its run had been ended by another counts as incomplete until its writer has
    checked again, so that a kill between the two leaves no complete snapshot that lacks a pack.
    `one_prune`: no prune takes up what another, slow but alive, is still sweeping.
    `runs_first_in_mark` and `runs_first_in_sweep`: open runs are listed before manifests.
    """

    pack_listing: bool = True
    marks_first: bool = True
    runs_first_in_mark: bool = True
    runs_first_in_sweep: bool = True
    note_of_runs: bool = True
    second_check: bool = True
    doubt: bool = True
    one_prune: bool = True


class Writer(NamedTuple):
    """Where a writer is and what it remembers (packs as bit masks); `needs` is the pack that its manifest names."""

    step: str = "begin"
    marked: int = 0
    listed: int = 0
    indexed: int = 0
    needs: int = 0


class Prune(NamedTuple):
    """Where prune is, the packs that its listings so far leave to mark or to sweep, and the runs it saw open."""

    step: str = "list_packs"
    packs: int = 0
    runs: int = 0


class World(NamedTuple):
    """All processes, and what the store holds: masks of packs, and of writers for what is each writer's own."""

    writers: tuple[Writer, ...] = (Writer(),) * WRITERS
    prune: Prune = Prune()
    merging: int = NOTHING  # what a merge has read and not yet put
    packs: int = 1
    earlier: tuple[int, ...] = (0,) * (WRITERS + 1)  # for each pack, the open runs that had begun when it was stored
    entries: int = 1  # the packs that the index leads to
    old: bool = True  # the manifest that retention drops
    manifests: int = 0
    open: int = 0
    ended: int = 0  # runs that another ended before their manifest
    doubtful: int = 0  # manifests put after that and not checked again
    failed: int = 0  # manifests whose run ended as failed
    mark: int = NOTHING  # the packs in the mark
    noted: int = NOTHING  # the runs in the mark's note
    forgotten: int = 0  # packs that a prune taken for dead will still sweep


Step = tuple[str, World]

_BEFORE_INDEX = frozenset({"begin", "list_marks", "list_packs", "read_index"})
_BEFORE_MANIFEST = _BEFORE_INDEX | {"store", "enter", "look", "check_marks", "check_packs", "manifest"}


def lost(world: World, protocol: Protocol) -> list[str]:
    """The listed manifests that count as complete and whose pack is gone."""
    counting = world.manifests & ~world.failed & ~(world.doubtful if protocol.doubt else 0)
    found = ["old"] if world.old and not world.packs & 1 else []
    for place, writer in enumerate(world.writers):
        if counting >> place & 1 and not world.packs >> writer.needs & 1:
            found.append(f"writer {place}")
    return found


def without_what_is_past(world: World) -> World:
    """The same world without memories that can no longer matter, so that worlds with one future are one."""
    earlier = tuple([begun & world.open for begun in world.earlier])
    ended, searching = 0, False
    for place, one in enumerate(world.writers):
        if one.step in _BEFORE_MANIFEST:
            ended |= world.ended & 1 << place
            searching = searching or one.step in _BEFORE_INDEX
    entries, merging = (world.entries, world.merging) if searching else (1, NOTHING)
    # Most worlds have none, and to make them again is what takes longest.
    if (earlier, ended, entries, merging) == (world.earlier, world.ended, world.entries, world.merging):
        return world
    return world._replace(earlier=earlier, ended=ended, entries=entries, merging=merging)


def steps(world: World, protocol: Protocol) -> Iterator[Step]:
    """Every step that anybody can take now, with the world after it."""
    for place, writer in enumerate(world.writers):
        if writer.step not in {"done", "failed"}:
            yield from _WRITER_STEPS[writer.step](world, place, protocol)
        if world.open >> place & 1:
            bit = 1 << place
            yield f"run {place} is ended", world._replace(open=world.open & ~bit, ended=world.ended | bit)
    yield _PRUNE_STEPS[world.prune.step](world, protocol)
    yield _prune_anew(world, protocol)
    if world.forgotten:
        swept = world._replace(old=False, packs=world.packs & ~world.forgotten, forgotten=0)
        yield "forgotten prune: sweeps", swept
    if world.merging == NOTHING:
        yield "merge: reads", world._replace(merging=world.entries)
    else:
        yield "merge: puts", world._replace(entries=world.entries | world.merging, merging=NOTHING)


# --- a writer --------------------------------------------------------------------------------------------------------


def _goes(world: World, place: int, writer: Writer) -> Step:
    """The writer has taken its step and is now as `writer` says."""
    name = f"writer {place}: {world.writers[place].step}"
    return name, world._replace(writers=(*world.writers[:place], writer, *world.writers[place + 1 :]))


def _look_up_order(protocol: Protocol) -> tuple[str, ...]:
    listings = ("list_packs", "read_index") if protocol.pack_listing else ("read_index",)
    return ("list_marks", *listings) if protocol.marks_first else (*listings, "list_marks")


def _begin(world: World, place: int, protocol: Protocol) -> Iterator[Step]:
    first = Writer(step=_look_up_order(protocol)[0])
    yield _goes(world._replace(open=world.open | 1 << place), place, first)


def _look_up(world: World, place: int, protocol: Protocol) -> Iterator[Step]:
    writer, order = world.writers[place], _look_up_order(protocol)
    match writer.step:
        case "list_marks":
            seen = writer._replace(marked=max(world.mark, 0))
        case "list_packs":
            seen = writer._replace(listed=world.packs)
        case _:
            seen = writer._replace(indexed=world.entries)
    if writer.step != order[-1]:
        yield _goes(world, place, seen._replace(step=order[order.index(writer.step) + 1]))
        return
    counts = seen.indexed & ~seen.marked & (seen.listed if protocol.pack_listing else NOTHING)
    for pack in range(WRITERS + 1):
        if counts >> pack & 1:
            yield _goes(world, place, Writer(step="look", needs=pack))
    if not counts:
        yield _goes(world, place, Writer(step="store", needs=place + 1))


def _store(world: World, place: int, _: Protocol) -> Iterator[Step]:
    pack = place + 1
    begun = sum(1 << other for other, writer in enumerate(world.writers) if writer.step != "begin")
    earlier = (*world.earlier[:pack], begun, *world.earlier[pack + 1 :])
    stored = world._replace(packs=world.packs | 1 << pack, earlier=earlier)
    yield _goes(stored, place, world.writers[place]._replace(step="enter"))


def _enter(world: World, place: int, _: Protocol) -> Iterator[Step]:
    writer = world.writers[place]
    yield _goes(world._replace(entries=world.entries | 1 << writer.needs), place, writer._replace(step="look"))


def _look(world: World, place: int, _: Protocol) -> Iterator[Step]:
    step = "check_marks" if world.ended >> place & 1 else "manifest"
    yield _goes(world, place, world.writers[place]._replace(step=step))


def _list_marks_again(world: World, place: int, _: Protocol) -> Iterator[Step]:
    writer = world.writers[place]
    step = writer.step.replace("marks", "packs")
    yield _goes(world, place, writer._replace(step=step, marked=max(world.mark, 0)))


def _check_packs(world: World, place: int, _: Protocol) -> Iterator[Step]:
    writer = world.writers[place]
    whole = (world.packs & ~writer.marked) >> writer.needs & 1
    yield _goes(world, place, Writer(step="manifest", needs=writer.needs) if whole else Writer(step="failed"))


def _manifest(world: World, place: int, protocol: Protocol) -> Iterator[Step]:
    bit = 1 << place
    put = world._replace(manifests=world.manifests | bit, open=world.open & ~bit)
    if protocol.second_check and world.ended & bit:
        put = put._replace(doubtful=world.doubtful | bit)
    # Whether another ended the run can't change once the manifest is there, so the second look is no step of its own.
    step = "recheck_marks" if put.doubtful & bit else "done"
    yield _goes(put, place, world.writers[place]._replace(step=step))


def _recheck_packs(world: World, place: int, _: Protocol) -> Iterator[Step]:
    writer, bit = world.writers[place], 1 << place
    whole = (world.packs & ~writer.marked) >> writer.needs & 1
    checked = world._replace(doubtful=world.doubtful & ~bit, failed=world.failed | (0 if whole else bit))
    yield _goes(checked, place, Writer(step="done" if whole else "failed", needs=writer.needs))


_WRITER_STEPS: dict[str, Callable[[World, int, Protocol], Iterator[Step]]] = {
    "begin": _begin,
    "list_marks": _look_up,
    "list_packs": _look_up,
    "read_index": _look_up,
    "store": _store,
    "enter": _enter,
    "look": _look,
    "check_marks": _list_marks_again,
    "check_packs": _check_packs,
    "manifest": _manifest,
    "recheck_marks": _list_marks_again,
    "recheck_packs": _recheck_packs,
}


# --- prune -----------------------------------------------------------------------------------------------------------

_MARK_ORDER = ("list_packs", "list_runs", "list_manifests", "mark")
_MARK_ORDER_WRONG = ("list_packs", "list_manifests", "list_runs", "mark")
_SWEEP_ORDER = ("await_runs", "recount", "sweep_manifest")
_SWEEP_ORDER_WRONG = ("recount", "await_runs", "sweep_manifest")


def _after(step: str, protocol: Protocol) -> str:
    mark = _MARK_ORDER if protocol.runs_first_in_mark else _MARK_ORDER_WRONG
    sweep = _SWEEP_ORDER if protocol.runs_first_in_sweep else _SWEEP_ORDER_WRONG
    order = (*mark, "note", *sweep, "sweep_index", "sweep_packs", "unmark", "list_packs")
    return order[order.index(step) + 1]


def _needed(world: World) -> int:
    """The packs that manifests need which retention does not drop; an incomplete one needs its packs too."""
    packs = 0
    for place, writer in enumerate(world.writers):
        packs |= (world.manifests >> place & 1) << writer.needs
    return packs


def _list(world: World, protocol: Protocol) -> Step:
    prune = world.prune
    match prune.step:
        case "list_packs":
            seen = Prune(packs=world.packs)
        case "list_runs":
            later = sum(1 << pack for pack, begun in enumerate(world.earlier) if begun & world.open)
            seen = prune._replace(packs=prune.packs & ~later, runs=0 if protocol.note_of_runs else world.open)
        case "list_manifests":
            seen = prune._replace(packs=prune.packs & ~_needed(world))
        case _:
            seen = prune._replace(packs=world.mark & ~_needed(world))
    return f"prune: {prune.step}", world._replace(prune=seen._replace(step=_after(prune.step, protocol)))


def _mark(world: World, _: Protocol) -> Step:
    prune = world.prune
    if not prune.packs and not world.old:
        return "prune: finds nothing to mark", world._replace(prune=Prune())
    return "prune: mark", world._replace(mark=prune.packs, prune=Prune(step="note", runs=prune.runs))


def _note(world: World, protocol: Protocol) -> Step:
    noted = world.open if protocol.note_of_runs else world.prune.runs
    return "prune: note", world._replace(noted=noted, prune=Prune(step=_after("note", protocol)))


def _await_runs(world: World, protocol: Protocol) -> Step:
    if world.noted & world.open:
        return "prune: waits", world
    prune = world.prune._replace(step=_after("await_runs", protocol))
    return "prune: finds the noted runs ended", world._replace(prune=prune)


def _sweep(world: World, protocol: Protocol) -> Step:
    step, dead = world.prune.step, world.prune.packs
    prune = world.prune._replace(step=_after(step, protocol))
    match step:
        case "sweep_manifest":
            swept = world._replace(prune=prune, old=False)
        case "sweep_index":
            swept = world._replace(prune=prune, entries=world.entries & ~dead)
        case "sweep_packs" if dead & world.packs:
            rest = dead & world.packs
            swept = world._replace(packs=world.packs & ~(rest & -rest))  # one at a time
        case "sweep_packs":
            swept = world._replace(prune=prune)
        case _:
            swept = world._replace(prune=Prune(), mark=NOTHING, noted=NOTHING)
    return f"prune: {step}", swept


def _prune_anew(world: World, protocol: Protocol) -> Step:
    """Another prune takes over from one that was killed, or, without `one_prune`, only taken for dead."""
    step = "list_packs" if world.mark == NOTHING else "note" if world.noted == NOTHING else _after("note", protocol)
    anew = world._replace(prune=Prune(step=step))
    if not protocol.one_prune and world.prune.step.startswith("sweep"):
        anew = anew._replace(forgotten=world.forgotten | world.prune.packs & world.packs)
    return "prune: begins anew", anew


_PRUNE_STEPS: dict[str, Callable[[World, Protocol], Step]] = {
    "list_packs": _list,
    "list_runs": _list,
    "list_manifests": _list,
    "mark": _mark,
    "note": _note,
    "await_runs": _await_runs,
    "recount": _list,
    "sweep_manifest": _sweep,
    "sweep_index": _sweep,
    "sweep_packs": _sweep,
    "unmark": _sweep,
}

MODEL = Model(start=World(), steps=steps, lost=lost, without_what_is_past=without_what_is_past)
