"""What backing up one source needs and gives: shared by trees and streams.

Promise: values only; the run owns everything that is open.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from opsd.backup.cache import SourceCache
from opsd.clock import Clock
from opsd.errors import OpsdError
from opsd.events import Reporter, Warning
from opsd.model import Content, RootSummary
from opsd.repository.blobs import BlobReader
from opsd.repository.manifest import Manifest
from opsd.repository.references import FrameSet
from opsd.repository.run import Run
from opsd.repository.settings import Parameters
from opsd.repository.writer import BlobWriter, DomainWriter
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One source in one run. `trusted`: every blob that the cache knows is still stored."""

    run: Run
    label: str
    domain: DomainWriter
    reporter: Reporter
    cache: SourceCache
    trusted: bool
    previous: Manifest | None

    @property
    def blobs(self) -> BlobWriter:
        """Where blobs go."""
        return self.run.blobs

    @property
    def parameters(self) -> Parameters:
        """Sizes of the repository."""
        return self.run.place.settings.parameters

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.run.repository.around.clock

    @property
    def usable_cache(self) -> bool:
        """Whether the cache knows anything of this source."""
        return bool(self.cache.snapshot)

    def old_blobs(self) -> BlobReader:
        """What the index key opens of what is stored: page maps."""
        return BlobReader(self.run.place, self.run.catalog)


@dataclass(slots=True)
class Result:
    """What backing up a source gave; filled while it goes on."""

    label: str
    kind: str
    roots: tuple[bytes, ...] = ()
    listing: Content = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    frames: FrameSet = field(default_factory=FrameSet)
    page_maps: dict[bytes, Content] = field(default_factory=dict)
    totals: tuple[RootSummary, ...] = ()
    files: int = 0
    folders: int = 0
    bytes: int = 0
    warnings: int = 0
    failure: OpsdError | None = None


def warn(result: Result, reporter: Reporter, warning: Warning) -> None:
    """Report a warning and count it."""
    result.warnings += 1
    reporter.warn(warning)


def shown(path: bytes) -> str:
    """A path as text; bytes that are no UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")
