"""Whether a source lost so much since its last good snapshot that it must not count as one.

Promise: decided from what the index key opens (keyed hashes of paths, totals), so the nightly run needs no reader's key.
"""

from collections.abc import Mapping

from opsd.errors import SourceError
from opsd.model import RootSummary
from opsd.repository.manifest import Manifest
from opsd.sources.shrink import RootTotals, refuse_lost_mounts, refuse_shrink


def _named(label: str, manifest: Manifest | None, keys: Mapping[bytes, bytes]) -> list[RootTotals]:
    """The last totals of roots that are still configured; `keys` maps a keyed hash to its path."""
    if manifest is None:
        return []
    return [
        RootTotals(path=keys[root.key], files=root.files, bytes=root.bytes, mount=root.mount)
        for source in manifest.summary.sources
        if source.label == label
        for root in source.roots
        if root.key in keys
    ]


def lost_mounts(
    label: str, manifest: Manifest | None, keys: Mapping[bytes, bytes], mounts: Mapping[bytes, bool]
) -> SourceError | None:
    """The error if a root was a mount point and is none now; asked before anything is read."""
    return refuse_lost_mounts(label, _named(label, manifest, keys), mounts)


def shrunk(
    label: str, manifest: Manifest | None, keys: Mapping[bytes, bytes], totals: tuple[RootSummary, ...]
) -> SourceError | None:
    """The error if a root lost over half of its files or bytes."""
    now = [
        RootTotals(path=keys[root.key], files=root.files, bytes=root.bytes, mount=root.mount)
        for root in totals
        if root.key in keys
    ]
    return refuse_shrink(label, _named(label, manifest, keys), now)
