"""The settings in force as text, for people and for the snapshots.

Promise: what `shown` prints is accepted as a configuration; secrets stay references.
"""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from opsd import settings as model
from opsd.settings import Settings


def shown(settings: Settings) -> str:
    """The effective settings, every default in place."""
    return yaml.safe_dump(model.shown(settings), sort_keys=False, allow_unicode=True)


def shown_with_origins(settings: Settings) -> str:
    """Each key by its whole way on a line of its own, and where it was set."""
    lines = (f"{_one_line({key: value})}  # {origin}\n" for key, (value, origin) in model.flattened(settings).items())
    return "".join(lines)


def _one_line(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.strip()[1:-1]
