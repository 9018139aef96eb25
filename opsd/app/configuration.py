"""The settings in force as text, for people and for the snapshots.

Promise: what `shown` prints is accepted as a configuration; secrets stay references.
"""

import yaml

from opsd import settings as model
from opsd.settings import Settings


def shown(settings: Settings) -> str:
    """The effective settings, every default in place."""
    return yaml.safe_dump(model.shown(settings), sort_keys=False, allow_unicode=True)
