"""How far a store was read lately, for people and as JSON."""

from typing import Any

from opsd.cli import output
from opsd.clock import DAY
from opsd.verify.slices import Coverage


def percent(part: int, whole: int) -> str:
    """A share, never rounded up to all of it: `99 %`."""
    return f"{part * 100 // whole if whole else 100} %"


def coverage_json(covered: Coverage, verify: str) -> dict[str, Any]:
    """Shares from 0 to 1."""
    whole = covered.total or 1
    return {
        "verify": verify,
        "bytes": covered.total,
        "read_share": round(covered.read / whole, 4),
        "vouched_share": round(covered.vouched / whole, 4),
        "oldest_unread_days": round(covered.oldest_unread / DAY, 1),
    }


def coverage_text(covered: Coverage, verify: str) -> str:
    """What was read, and what only the store's own checksums vouch for."""
    read = percent(covered.read, covered.total)
    text = f"read in the last 30 days: {read} of all that is stored, {output.size(covered.total)}"
    if covered.vouched or verify == "checksum":
        text += f"; {percent(covered.vouched, covered.total)} only vouched for by the store"
    days = covered.oldest_unread // DAY
    if days:
        text += f"; longest unread: {output.count(days, 'day')}"
    return text
