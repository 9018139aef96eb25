"""A small model of "A pass of `copy`" beside backups and prunes of the source, and a prune of the copy.

Promise: as in `model`: every step is one operation on a store, in any order, after any delay; a process that was killed takes no further
step, and the next pass begins anew. What the source's writers and its prune may do to each other is what `model` is about: here a backup
never relies on a pack that goes, and both only matter as steps that a copier may be between.

The world: two manifests. `old` needs what pack 0 holds; retention drops it in the source, and in the copy too once the source lists it no more.
`new` is of a backup that may find its blobs in pack 0, or stores pack 1. The source's prune may move the frames of pack 0, as they are,
into pack 2. Masks name packs, and manifests (1 old, 2 new).

A pass, by a host with keys:

    begin                   puts a run into the copy
    list_manifests, list_packs
                            of the source, in this order
    list_copy               all that stands there
    refuse                  fails if a mark there names what the source lists
    bring_packs             what is lacking; if the source has it no more, the pass begins again (its run goes on)
    list_again              of the manifests that are lacking, those that the source still lists
    prove_marks, prove_packs
                            what the pass listed stands in the copy, unmarked; else it begins again, or fails
    bring_manifests         one by one; if the source has it no more, the pass begins again
    prove_marks, prove_packs
                            once more
    end                     ends the run; another pass may begin

The copy's prune:

    list_packs, list_runs, list_manifests, list_source, mark
                            packs that no other manifest needs, stored before the oldest open run began; nothing that the source lists
    note, await_runs, recount, recount_source
                            as in `model`, then the source once more
    sweep_manifest, sweep_packs, unmark

Left out: the index, for a pack that none names is read by its footer; WAL, notes, keys and settings, which travel as packs do and are never
marked. A pass without keys puts no run: it refuses a copy that holds a mark, and relies on the grace, which this model does not know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

from tests.protocol.explorer import Model

OLD, NEW = 1, 2
#: The packs that may hold what the old manifest needs: pack 0, and pack 2 into which it is moved.
_OF_OLD = 0b101
NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProtocol:
    """The rules that guard against loss; each can be left out.

    `again`: what vanished in the source makes the pass begin again, and is not just left out.
    """

    manifests_listed_first: bool = True
    manifests_last: bool = True
    again: bool = True
    run: bool = True
    proof: bool = True


class Copier(NamedTuple):
    """Where a pass is, what it listed in the source, and what of that it has to bring."""

    step: str = "begin"
    manifests: int = 0
    packs: int = 0
    bring_manifests: int = 0
    bring_packs: int = 0
    brought: bool = False  # the manifests, so that this is the second proof


class CopyPrune(NamedTuple):
    """Where the copy's prune is; the packs that its listings so far leave to mark or to sweep, and the manifests that it saw."""

    step: str = "list_packs"
    packs: int = 0
    manifests: int = 0
    drops: bool = False


class CopyWorld(NamedTuple):
    """All processes, and what both stores hold."""

    backup: str = "begin"
    needs: int = 0  # the packs that may hold what the new manifest needs
    sweeping: int = 0  # packs that the source's prune will still remove
    manifests: int = OLD
    packs: int = 0b001
    copier: Copier = Copier()
    open: bool = False  # the run of the copier
    prune: CopyPrune = CopyPrune()
    there_manifests: int = 0
    there_packs: int = 0
    during: int = 0  # packs stored there since the open run began
    mark: int = NOTHING  # the packs in the mark
    marks_old: bool = False
    noted: bool | None = None  # whether the mark's note names the open run; None: there is no note


Step = tuple[str, CopyWorld]


def lost(world: CopyWorld, _: CopyProtocol) -> list[str]:
    """The manifests in the copy that lack what they need there."""
    old = world.there_manifests & OLD and not world.there_packs & _OF_OLD
    new = world.there_manifests & NEW and not world.there_packs & world.needs
    return [name for name, is_lost in (("old", old), ("new", new)) if is_lost]


def steps(world: CopyWorld, protocol: CopyProtocol) -> Iterator[Step]:
    """Every step that anybody can take now, with the world after it."""
    yield from _backup(world)
    yield from _source_prune(world)
    name, after = _COPIER_STEPS[world.copier.step](world, protocol)
    yield f"copier: {name or world.copier.step}", after
    if world.copier.step != "begin":
        yield "copier: is killed, and another ends its run", _ended(world)
    yield f"prune: {world.prune.step}", _PRUNE_STEPS[world.prune.step](world)
    step = "list_packs" if world.mark == NOTHING else "note" if world.noted is None else "await_runs"
    yield "prune: begins anew", world._replace(prune=CopyPrune(step=step))


# --- the source ------------------------------------------------------------------------------------------------------


def _backup(world: CopyWorld) -> Iterator[Step]:
    match world.backup:
        case "begin":
            if world.packs & _OF_OLD & ~world.sweeping:
                yield "backup: finds its blobs", world._replace(backup="manifest", needs=_OF_OLD)
            stored = world._replace(backup="manifest", needs=0b010, packs=world.packs | 0b010)
            yield "backup: stores a pack", stored
        case "manifest":
            yield "backup: manifest", world._replace(backup="done", manifests=world.manifests | NEW)
        case _:
            pass


def _source_prune(world: CopyWorld) -> Iterator[Step]:
    if world.manifests & OLD:
        yield "source: drops the old manifest", world._replace(manifests=world.manifests & ~OLD)
    if world.sweeping:
        packs = world.packs & ~(world.sweeping & -world.sweeping)
        yield "source: sweeps a pack", world._replace(packs=packs, sweeping=world.sweeping & packs)
    elif world.packs & 0b001 and not world.packs & 0b100:
        yield "source: moves frames", world._replace(packs=world.packs | 0b100)
    elif world.packs & 0b001:
        yield "source: pack 0 goes, since all stands in pack 2", world._replace(sweeping=0b001)
    if not world.sweeping and not world.manifests & OLD and world.needs != _OF_OLD and world.packs & _OF_OLD:
        yield "source: what only the old one needed goes", world._replace(sweeping=world.packs & _OF_OLD)


# --- a pass of the copy ----------------------------------------------------------------------------------------------

_LISTING = ("list_manifests", "list_packs")
_BRINGING = ("bring_packs", "list_again", "prove_marks", "prove_packs", "bring_manifests")


def _order(protocol: CopyProtocol) -> tuple[str, ...]:
    listing = _LISTING if protocol.manifests_listed_first else _LISTING[::-1]
    bringing = (
        _BRINGING
        if protocol.manifests_last
        else ("list_again", "bring_manifests", "bring_packs", "prove_marks", "prove_packs")
    )
    return (*listing, "list_copy", "refuse", *bringing, "end")


def _next(copier: Copier, protocol: CopyProtocol) -> Copier:
    """As it is with its next step; a step with nothing to bring is none."""
    order = _order(protocol)
    after = copier._replace(step=order[order.index(copier.step) + 1])
    if after.step.startswith("prove") and not protocol.proof:
        return _next(after, protocol)
    return _brought(after, protocol)


def _brought(copier: Copier, protocol: CopyProtocol) -> Copier:
    if not copier.step.startswith("bring") or getattr(copier, copier.step):
        return copier
    if copier.step == "bring_manifests" and protocol.manifests_last and protocol.proof:
        return copier._replace(step="prove_marks", brought=True)
    return _next(copier, protocol)


def _ended(world: CopyWorld) -> CopyWorld:
    """The run is over, for good or ill; another pass may begin."""
    return world._replace(copier=Copier(), open=False, during=0, noted=None if world.noted is None else False)


def _again(world: CopyWorld, protocol: CopyProtocol) -> CopyWorld:
    return world._replace(copier=Copier(step=_order(protocol)[0]))


def _begin(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    return "", _again(world._replace(open=protocol.run), protocol)


def _look(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    copier = world.copier
    match copier.step:
        case "list_manifests":
            copier = copier._replace(manifests=world.manifests)
        case "list_packs":
            copier = copier._replace(packs=world.packs)
        case "list_copy":
            manifests, packs = copier.manifests & ~world.there_manifests, copier.packs & ~world.there_packs
            copier = copier._replace(bring_manifests=manifests, bring_packs=packs)
        case _:
            still = copier.bring_manifests & world.manifests
            copier = copier._replace(bring_manifests=still)
            if not still and protocol.manifests_last:
                return "", world._replace(copier=copier._replace(step="end"))
    return "", world._replace(copier=_next(copier, protocol))


def _is_marked(world: CopyWorld) -> bool:
    """Whether a mark in the copy names what the pass listed."""
    packs = max(world.mark, 0) & world.copier.packs
    return bool(packs or (world.marks_old and world.copier.manifests & OLD))


def _refuse(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    if _is_marked(world):
        return "fails, since the copy's prune means to remove what it lists", _ended(world)
    return "", world._replace(copier=_next(world.copier, protocol))


def _bring(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    """One object; the fields of both worlds have the name of its kind."""
    copier, kind = world.copier, world.copier.step.removeprefix("bring_")
    wanted: int = getattr(copier, copier.step)
    one = wanted & -wanted
    arrived = one & getattr(world, kind)
    if not arrived and protocol.again:
        return f"finds {kind} gone", _again(world, protocol)
    left: dict[str, Any] = {copier.step: wanted & ~one}
    there: dict[str, Any] = {f"there_{kind}": getattr(world, f"there_{kind}") | arrived}
    during = world.during | (arrived if kind == "packs" and world.open else 0)
    put = world._replace(copier=_brought(copier._replace(**left), protocol), during=during, **there)
    return f"brings {kind} {one:03b}", put


def _prove(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    """What was listed stands there, unmarked; what the source has no more makes the pass begin again."""
    copier = world.copier
    if _is_marked(world) if copier.step == "prove_marks" else copier.packs & ~world.there_packs:
        return "finds something removed", world._replace(copier=copier._replace(step="settle"))
    if copier.step == "prove_packs" and copier.brought:
        return "", world._replace(copier=copier._replace(step="end"))
    return "", world._replace(copier=_next(copier, protocol))


def _settle(world: CopyWorld, protocol: CopyProtocol) -> tuple[str, CopyWorld]:
    """What was listed is gone or going: if it is gone in the source too, the pass begins again, else it fails."""
    copier = world.copier
    vanished = copier.packs & ~world.packs or copier.manifests & ~world.manifests
    return ("begins again", _again(world, protocol)) if vanished else ("fails", _ended(world))


_COPIER_STEPS: dict[str, Callable[[CopyWorld, CopyProtocol], tuple[str, CopyWorld]]] = {
    "begin": _begin,
    "list_manifests": _look,
    "list_packs": _look,
    "list_copy": _look,
    "refuse": _refuse,
    "bring_packs": _bring,
    "list_again": _look,
    "prove_marks": _prove,
    "prove_packs": _prove,
    "settle": _settle,
    "bring_manifests": _bring,
    "end": lambda world, _: ("", _ended(world)),
}


# --- the prune of the copy -------------------------------------------------------------------------------------------

_PRUNE_ORDER = ("list_packs", "list_runs", "list_manifests", "list_source", "mark", "note", "await_runs", "recount")
_SWEEP_ORDER = ("recount", "recount_source", "sweep_manifest", "sweep_packs", "unmark", "list_packs")
_PRUNE_AFTER = dict(chain(pairwise(_PRUNE_ORDER), pairwise(_SWEEP_ORDER)))


def _needed(world: CopyWorld, going: int, manifests: int) -> int:
    """Of the packs that are to go, those that hold what these manifests need and no other pack does."""
    needed = 0
    for manifest, holders in ((OLD, _OF_OLD), (NEW, world.needs)):
        if manifests & manifest and not world.there_packs & ~going & holders:
            needed |= holders
    return needed


def _prune_lists(world: CopyWorld) -> CopyWorld:
    prune = world.prune
    match prune.step:
        case "list_packs":
            seen = CopyPrune(packs=world.there_packs)
        case "list_runs":
            seen = prune._replace(packs=prune.packs & ~world.during)
        case "list_manifests" | "recount":
            seen = prune._replace(manifests=world.there_manifests)
        case _:
            marking = prune.step == "list_source"
            drops = (marking or world.marks_old) and bool(prune.manifests & OLD & ~world.manifests)
            packs = (prune.packs if marking else world.mark) & ~world.packs
            packs &= ~_needed(world, packs, prune.manifests & ~(OLD if drops else 0))
            seen = CopyPrune(packs=packs, drops=drops)
    return world._replace(prune=seen._replace(step=_PRUNE_AFTER[prune.step]))


def _marks(world: CopyWorld) -> CopyWorld:
    prune = world.prune
    if not prune.packs and not prune.drops:
        return world._replace(prune=CopyPrune())
    return world._replace(mark=prune.packs, marks_old=prune.drops, prune=CopyPrune(step="note"))


def _notes(world: CopyWorld) -> CopyWorld:
    return world._replace(noted=world.open, prune=CopyPrune(step="await_runs"))


def _awaits(world: CopyWorld) -> CopyWorld:
    return world if world.noted else world._replace(prune=CopyPrune(step="recount"))


def _sweeps(world: CopyWorld) -> CopyWorld:
    step, dead = world.prune.step, world.prune.packs
    swept = world._replace(prune=world.prune._replace(step=_PRUNE_AFTER[step]))
    match step:
        case "sweep_manifest":
            return swept._replace(there_manifests=world.there_manifests & ~(OLD if world.prune.drops else 0))
        case "sweep_packs":
            left = dead & world.there_packs
            if not left:
                return swept
            one = left & -left
            return world._replace(there_packs=world.there_packs & ~one, during=world.during & ~one)
        case _:
            return swept._replace(prune=CopyPrune(), mark=NOTHING, marks_old=False, noted=None)


_PRUNE_STEPS: dict[str, Callable[[CopyWorld], CopyWorld]] = {
    "list_packs": _prune_lists,
    "list_runs": _prune_lists,
    "list_manifests": _prune_lists,
    "list_source": _prune_lists,
    "mark": _marks,
    "note": _notes,
    "await_runs": _awaits,
    "recount": _prune_lists,
    "recount_source": _prune_lists,
    "sweep_manifest": _sweeps,
    "sweep_packs": _sweeps,
    "unmark": _sweeps,
}

MODEL = Model(start=CopyWorld(), steps=steps, lost=lost)
