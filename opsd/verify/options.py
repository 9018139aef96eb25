"""What a site may say about its drills; the configuration is parsed into these.

Promise: frozen values; secrets are references, resolved only when needed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from opsd.values import dataclass

TOLERANCE: Final = r"[0-9]{1,12}|[0-9]{1,3}(\.[0-9]{1,3})?%"


def tolerance(text: str) -> tuple[float, bool]:
    """How far apart two numbers may be, and whether that is a share of the larger.

    Raises:
        ValueError: it has another form.
    """
    if not re.fullmatch(TOLERANCE, text):
        raise ValueError("expected how far apart two numbers may be, such as 100 or 5%")
    return (float(text[:-1]) / 100, True) if text.endswith("%") else (float(text), False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillCheck:
    """One question of the site's own to what was restored: `sql` that must return true, or a `command` that must exit with 0.

    `live` compares the one number that `sql` gives with the live database's: at most so much (`100`) or such a share (`5%`) apart.
    `timeout` in seconds.
    """

    source: str | None = None
    database: str | None = None
    sql: str | None = None
    command: tuple[str, ...] | None = None
    live: str | None = None
    timeout: float = 300.0

    @property
    def name(self) -> str:
        """What it is called in reports."""
        place = "/".join(part for part in (self.source, self.database) if part)
        what = self.sql or " ".join(self.command or ())
        return f"{place}: {what}" if place else what


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """The section `drill`. Targets in seconds, None for none; without `key` the configured passphrase serves."""

    scratch: Path | None = None
    recovery_time: float | None = None
    recovery_point: float | None = None
    key: Mapping[str, Any] | None = None
    checks: tuple[DrillCheck, ...] = ()
