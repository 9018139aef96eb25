"""What a source and its copy showed of their history, now and before, and whether that can be true.

Pure. Promise: a snapshot that vanished, a number that was skipped and one that was used twice are named, unless a note of prune
says why; numbers of manifests that can't be read are given the benefit of the doubt.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final, Self

from opsd.repository.witness import Number
from opsd.values import dataclass

#: Numbers named at most in one sentence.
_NAMED: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The number of each manifest by its name, and the numbers that each note says were dropped.

    `unreadable`: how many manifests are listed whose number can't be read.
    """

    snapshots: Mapping[str, Number] = field(default_factory=dict)
    notes: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def dropped(self) -> frozenset[Number]:
        """All numbers that prune dropped."""
        return frozenset(number for numbers in self.notes.values() for number in numbers)

    def joined(self, other: "History") -> "History":
        """Both; what this one can't read counts."""
        return History(
            snapshots={**other.snapshots, **self.snapshots},
            notes={**other.notes, **self.notes},
            unreadable=self.unreadable,
        )

    def only(self, names: Iterable[str]) -> "History":
        """What of it stands under these names."""
        wanted = frozenset(names)
        return History(
            snapshots={name: each for name, each in self.snapshots.items() if name in wanted},
            notes={name: each for name, each in self.notes.items() if name in wanted},
            unreadable=self.unreadable,
        )

    def as_json(self) -> dict[str, Any]:
        """As it is remembered."""
        return {
            "snapshots": {name: [writer.hex(), number] for name, (writer, number) in self.snapshots.items()},
            "notes": {name: [[writer.hex(), number] for writer, number in each] for name, each in self.notes.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What was remembered; ValueError, KeyError or TypeError if it is none."""
        return cls(
            snapshots={name: (bytes.fromhex(each[0]), int(each[1])) for name, each in value["snapshots"].items()},
            notes={
                name: tuple((bytes.fromhex(writer), int(number)) for writer, number in each)
                for name, each in value["notes"].items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What source and target showed at one time."""

    source: History = field(default_factory=History)
    target: History = field(default_factory=History)


def disagreements(now: Visit, before: Visit) -> Iterator[str]:
    """What can't be true of what is shown now and was shown before, a sentence each."""
    dropped = now.source.dropped | now.target.dropped
    known = {**before.source.snapshots, **now.target.snapshots}
    lost = {each for name, each in known.items() if name not in now.source.snapshots} - dropped
    if len(lost) > now.source.unreadable:
        yield f"the source shows an older state of itself: it lacks snapshots {_numbers(lost)}, and no prune dropped them"
    gone = {each for name, each in before.target.snapshots.items() if name not in now.target.snapshots} - dropped
    if len(gone) > now.target.unreadable:
        yield f"the copy shows an older state of itself: snapshots {_numbers(gone)}, which it held before, are gone"
    skipped = set(_skipped(now.source.snapshots.values())) - dropped - lost
    if len(skipped) > now.source.unreadable:
        yield f"snapshots {_numbers(skipped)} are missing in the source, and no prune dropped them"
    twice = _twice({**now.source.snapshots, **now.target.snapshots, **before.source.snapshots})
    if twice:
        yield f"several snapshots of one host bear one number: {_numbers(twice)}"


def lost_numbers(shown: Iterable[str], dropped: Collection[Number], before: History) -> str:
    """The numbers of manifests that were shown before, are not among these names, and were not dropped; empty if there are none."""
    names = frozenset(shown)
    return _numbers({number for name, number in before.snapshots.items() if name not in names} - set(dropped))


def _skipped(numbers: Iterable[Number]) -> Iterator[Number]:
    of: dict[bytes, set[int]] = defaultdict(set)
    for writer, number in numbers:
        of[writer].add(number)
    for writer, known in of.items():
        yield from ((writer, number) for number in range(1, max(known)) if number not in known)


def _twice(snapshots: Mapping[str, Number]) -> set[Number]:
    return {number for number, times in Counter(snapshots.values()).items() if times > 1}


def _numbers(found: Iterable[Number]) -> str:
    """`4, 5 of writer 3fa9c2d1`, writer by writer."""
    of: dict[bytes, list[int]] = defaultdict(list)
    for writer, number in sorted(found):
        of[writer].append(number)
    return "; ".join(
        f"{', '.join(map(str, numbers[:_NAMED]))}{' …' if len(numbers) > _NAMED else ''} of writer {writer.hex()[:8]}"
        for writer, numbers in of.items()
    )
