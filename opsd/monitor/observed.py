"""What was found to be really there, the last time somebody looked: not what was done, but what stands.

Promise: plain values that go to JSON and back unchanged; `app.observing` fills them, status, metrics and alerts read them. Names are
labels of the configuration and words of opsd's own, never a path, a table or a customer. Times are ns UTC, 0 for never.
"""

from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any, Self

from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSeen:
    """A source of the configuration in the newest snapshot that has it.

    How it ended there (empty while none has it), files, bytes, bytes added, warnings (what could not be read).
    """

    outcome: str = ""
    files: int = 0
    bytes: int = 0
    added_bytes: int = 0
    warnings: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """To what moment a source can be restored from a place.

    The time of the newest snapshot that has it there (`stored`), of the newest of which every byte was read again since it was put
    (`verified`), of the newest that a green drill restored (`restored`).
    """

    stored: int = 0
    verified: int = 0
    restored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSeen:
    """The repository, a copy or a pull. `error` and `hint`: why it can't be read, else empty; then the rest may be of an earlier look.

    `snapshots` counts complete ones, `newest` is the newest of these, `missing` counts those of the repository that a copy lacks,
    `completed` is when a pass last brought it up to date. Shares are 0 to 1 of `bytes`, read and vouched for in 30 days.
    `free` is the room on its disk in bytes, None where that isn't known. `looked`: when it was last read; `failed`: when `error` was met. `lost`: how many snapshots
    were there, or must be by the numbers of the others, and no prune dropped them. `damaged`: how many are there that nothing can be
    restored from, as a look without keys can tell: the manifest is damaged, or no pack is left. `due`: of a pull, when its hosts promised the next.
    `unread`: since when the longest unread object is (put then, or read last), 0 where a stated budget leaves it so.
    """

    kind: str
    error: str = ""
    hint: str = ""
    failed: int = 0
    snapshots: int = 0
    newest: int = 0
    missing: int = 0
    completed: int = 0
    bytes: int = 0
    free: int | None = None
    looked: int = 0
    lost: int = 0
    damaged: int = 0
    due: int = 0
    unread: int = 0
    verify: str = "read"
    read_share: float = 0.0
    vouched_share: float = 0.0
    points: Mapping[str, Point] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSeen:
    """The newest drill and the newest green one; recovery time and point in seconds, targets None where there are none."""

    time: int = 0
    verdict: str = ""
    green: int = 0
    recovery_time: float = 0.0
    recovery_point: float = 0.0
    recovery_time_target: float | None = None
    recovery_point_target: float | None = None

    @property
    def missed_targets(self) -> str:
        """Which targets it missed, in words; empty where none."""
        measured = (
            ("recovery time", self.recovery_time, self.recovery_time_target),
            ("recovery point", self.recovery_point, self.recovery_point_target),
        )
        missed = [
            f"{what} {took / 3600:.1f} h of {most / 3600:.1f} h"
            for what, took, most in measured
            if most and took > most
        ]
        return ", ".join(missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A rule of retention: how many snapshots it keeps, and how many it would if each night since the first had one."""

    kept: int
    required: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All of it. `places` by name, the repository's is `repository`.

    `kit_used`: when a person last did a drill with the recovery kit, `kit_made`: when the repository was created. `uncovered_*`: found
    on this host, and no source has it; None where nobody looked.
    """

    time: int
    host: str = ""
    sources: Mapping[str, SourceSeen] = field(default_factory=dict)
    places: Mapping[str, PlaceSeen] = field(default_factory=dict)
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    drill: DrillSeen = field(default_factory=DrillSeen)
    kit_used: int = 0
    kit_made: int = 0
    uncovered_databases: int | None = None
    uncovered_folders: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the state."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Back from `as_json`; what a newer version wrote besides is passed over.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: it is something else.
        """
        given = _known(cls, value)
        given["sources"] = {name: SourceSeen(**_known(SourceSeen, each)) for name, each in value["sources"].items()}
        given["places"] = {name: _place(each) for name, each in value["places"].items()}
        given["tiers"] = {name: Tier(**_known(Tier, each)) for name, each in value["tiers"].items()}
        given["drill"] = DrillSeen(**_known(DrillSeen, value["drill"]))
        return cls(**given)


def _place(value: Mapping[str, Any]) -> PlaceSeen:
    points = {name: Point(**_known(Point, each)) for name, each in value["points"].items()}
    return PlaceSeen(**(_known(PlaceSeen, value) | {"points": points}))


def _known(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: value[each.name] for each in fields(kind) if each.name in value}
