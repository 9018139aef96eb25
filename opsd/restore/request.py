"""What a person may ask of a restore of files.

Promise: frozen; equal requests for one snapshot have one digest, by which a restore that was cut off knows itself again.
"""

import hashlib
from enum import StrEnum

from opsd.values import dataclass


class Overwrite(StrEnum):
    """When what stands in place counts as different."""

    DIFFERENT = "different"  # Its content is read and compared.
    QUICK = "quick"  # Another size or time of change.
    NEVER = "never"  # Whatever stands there is left alone.


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """A restore of files from one snapshot.

    Into a fresh `target`: each source under its label, or the content of `subtree` directly. `in_place`: every path below
    `target`, which is `/` but for systems mounted elsewhere. No `sources` means all; `patterns` are opsd.sources.patterns'.
    `keep`: absolute paths that `delete` never touches (repository, state: they were left out of every snapshot).
    """

    snapshot: str
    target: bytes = b"/"
    in_place: bool = False
    sources: tuple[str, ...] = ()
    subtree: bytes | None = None
    patterns: tuple[str | bytes, ...] = ()
    delete: bool = False
    numeric_owner: bool = False
    keep: tuple[bytes, ...] = ()
    overwrite: Overwrite = Overwrite.DIFFERENT

    def under(self) -> bytes:
        """The path that is asked for, in the form that listings have: `/` where that is everything."""
        return b"/" + b"/".join(part for part in (self.subtree or b"").split(b"/") if part)

    def digest(self) -> str:
        """The same for every request that would give the same files."""
        asked = (self.snapshot, self.sources, self.subtree and self.under(), self.patterns, self.numeric_owner)
        return hashlib.sha256(repr(asked).encode()).hexdigest()
