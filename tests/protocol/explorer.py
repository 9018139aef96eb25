"""Walk through every world that a protocol can reach.

Promise: breadth first and complete, so the story of a loss is as short as any, and none found means that none can be
reached in this model.
"""

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

World = TypeVar("World", bound=Hashable)
Rules = TypeVar("Rules")


def _as_it_is(world: World) -> World:
    return world


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Generic[World, Rules]):
    """A protocol's first world, the steps out of one under some rules, and what is lost in one.

    `without_what_is_past` makes worlds one that have one future.
    """

    start: World
    steps: Callable[[World, Rules], Iterator[tuple[str, World]]]
    lost: Callable[[World, Rules], list[str]]
    without_what_is_past: Callable[[World], World] = _as_it_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """How many worlds were reached, which sights were seen, and the steps to the first loss (empty: no loss)."""

    worlds: int
    seen: frozenset[str]
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.worlds:,} worlds; " + ("; ".join(self.story) or "no loss")


def explore(
    model: Model[World, Rules], rules: Rules, sights: Mapping[str, Callable[[World], bool]] | None = None
) -> Findings:
    """Reach every world from the first one, until one has lost something; note which `sights` were seen on the way."""
    gc.disable()  # Hundreds of thousands of worlds, none of them in a cycle: a third of the time went into looking for one.
    try:
        return _explored(model, rules, sights or {})
    finally:
        gc.enable()


def _explored(model: Model[World, Rules], rules: Rules, sights: Mapping[str, Callable[[World], bool]]) -> Findings:
    start = model.start
    came_from: dict[World, tuple[str, World] | None] = {start: None}
    wanted, edge = dict(sights), [start]
    story: tuple[str, ...] = ()
    while edge and not story:
        beyond: list[World] = []
        for world, name, after in _beyond(edge, model, rules):
            if after in came_from:
                continue
            came_from[after] = name, world
            beyond.append(after)
            for sight in [sight for sight, shows in wanted.items() if shows(after)]:
                del wanted[sight]
            if model.lost(after, rules):
                story = _story(after, came_from)
                break
        edge = beyond
    return Findings(worlds=len(came_from), seen=frozenset(sights) - frozenset(wanted), story=story)


def _beyond(edge: list[World], model: Model[World, Rules], rules: Rules) -> Iterator[tuple[World, str, World]]:
    """Every step out of the worlds of `edge`: from which, its name, and to which."""
    for world in edge:
        for name, after in model.steps(world, rules):
            yield world, name, model.without_what_is_past(after)


def _story(world: World, came_from: Mapping[World, tuple[str, World] | None]) -> tuple[str, ...]:
    """The steps from the first world to this one."""
    names: list[str] = []
    step = came_from[world]
    while step is not None:
        name, world = step
        names.append(name)
        step = came_from[world]
    return tuple(reversed(names))
