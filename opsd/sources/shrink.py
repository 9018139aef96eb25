"""Decide whether a source lost so much that it must not count as a good snapshot.

Pure. An emptied source must never push good snapshots out: what looks like a lost mount or a mass deletion fails the
source until a person says otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence

from opsd.errors import SourceError
from opsd.sources.roots import shown
from opsd.values import dataclass

_HINT = "if that is meant, run 'opsd backup --accept-shrink' once"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootTotals:
    """What a snapshot held of one root, the root itself included; `bytes` is the sum of the files' sizes."""

    path: bytes
    files: int
    bytes: int
    mount: bool


def lost_mounts(previous: Iterable[RootTotals], mounts: Mapping[bytes, bool]) -> tuple[bytes, ...]:
    """Roots that were mount points and are none now; can be asked before anything is read. Roots no longer named don't count."""
    return tuple(root.path for root in previous if root.mount and mounts.get(root.path) is False)


def shrink(previous: RootTotals, now: RootTotals) -> str | None:
    """What a root lost, if it is over half of its files or bytes."""
    if now.files * 2 < previous.files:
        return f"has {now.files:,} files, had {previous.files:,}"
    if now.bytes * 2 < previous.bytes:
        return f"has {now.bytes:,} bytes, had {previous.bytes:,}"
    return None


def refuse_lost_mounts(label: str, previous: Iterable[RootTotals], mounts: Mapping[bytes, bool]) -> SourceError | None:
    """The error of a source whose mounts are gone; None lets it begin."""
    lost = [f"{shown(path)} was a mount point and is none now" for path in lost_mounts(previous, mounts)]
    return SourceError(label, "; ".join(lost), hint=f"mount it again; {_HINT}") if lost else None


def refuse_shrink(label: str, previous: Iterable[RootTotals], now: Sequence[RootTotals]) -> SourceError | None:
    """The error of a source that lost over half of a root since its last complete snapshot; None lets it pass."""
    today = {root.path: root for root in now}
    pairs = [(root, today[root.path]) for root in previous if root.path in today]
    losses = [f"{shown(root.path)} {loss}" for root, current in pairs if (loss := shrink(root, current))]
    return SourceError(label, "; ".join(losses), hint=_HINT) if losses else None
