"""What the configuration states of a copy beside its place: limits, retention, checks.

Promise: plain values, defaults in place.
"""

from opsd.backup.limits import Limit
from opsd.backup.places import StorePlace
from opsd.retention.policy import Rules
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySettings:
    """A copy of this host's repository; without `retention` the rules of the repository hold.

    `verify`: how it is checked in slices (read, checksum, off), `verify_budget`: bytes that may be read for it in 30 days.
    """

    name: str
    place: StorePlace
    limits: tuple[Limit, ...] = ()
    retention: Rules | None = None
    verify: str = "read"
    verify_budget: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    """A copy that this host fetches from another host's repository; the rest as for a copy of its own."""

    source: StorePlace
    target: StorePlace
    limits: tuple[Limit, ...] = ()
    retention: Rules | None = None
    verify: str = "read"
    verify_budget: int | None = None
